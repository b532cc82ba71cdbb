"""Microversions: which minor version of Block Storage v3 a request speaks, and what each brings.

Follows the API's version history (3.0 to 3.71) and the header
``OpenStack-API-Version: volume 3.N``. A minor version is an ``int`` everywhere in this
package. The table says what each version changes *here*; ``docs/reference/microversions.md``
is made from it. Never decides what a version means: the views, schemas and lists do.
"""

from __future__ import annotations

import re
from typing import NamedTuple

from lunport.api.faults import ApiError

HEADER = "OpenStack-API-Version"
SERVICE = "volume"
MAJOR = 3
MINIMUM = 0
MAXIMUM = 71
UPDATED = "2023-08-31T00:00:00Z"

BASE = 0
STRICT_BOOLEAN_FILTERS = 2
MESSAGES = 3
MESSAGES_PAGED = 5
SERVICE_CLUSTER = 7
FILTER_BY_GROUP = 10
VOLUME_SUMMARY = 12
VOLUME_GROUP_ID = 13
SNAPSHOT_GROUP_ID = 14
METADATA_ETAG = 15
VOLUME_PROVIDER_ID = 21
SNAPSHOT_METADATA_FILTER = 22
FORCED_DELETE = 23
ATTACHMENTS = 27
POOL_FILTERS = 28
SORT_SNAPSHOTS_BY_NAME = 30
CHECKED_FILTERS = 31
RESOURCE_FILTERS = 33
LIKE_FILTERS = 34
POOL_TYPE_FILTER = 35
VOLUME_SUMMARY_METADATA = 36
LIMITS_OF_PROJECT = 39
REVERT = 40
SNAPSHOT_USER_ID = 41
EXTEND_IN_USE = 42
ATTACHMENT_COMPLETE = 44
COUNT = 45
SHARED_TARGETS = 48
BACKEND_STATE = 49
TYPE_FILTERS = 52
STRICT_BODIES = 53
ATTACHMENT_MODE = 54
TIME_FILTERS = 60
VOLUME_CLUSTER_NAME = 61
VOLUME_TYPE_ID = 63
CONSUMES_QUOTA = 65
SNAPSHOT_IN_USE = 66
SHARED_TARGETS_NULL = 69


class Microversion(NamedTuple):
    """One version: its minor number and what it changes here."""

    minor: int
    here: str


NOTHING = "Nothing: "

MICROVERSIONS = tuple(
    Microversion(minor, here)
    for minor, here in (
        (0, "The base: volumes, snapshots, metadata, types, limits and the volume actions."),
        (1, NOTHING + "uploading a volume as an image is not offered."),
        (2, "A boolean filter such as `bootable` must be a boolean; anything else is a 400."),
        (3, "`/messages`: why a request that was accepted failed later."),
        (4, "The filter `glance_metadata` is known; no volume here has any."),
        (5, "Paging, sorting and filters on `/messages`."),
        (6, NOTHING + "consistency groups are not offered."),
        (7, "`cluster` (null) in `/os-services`."),
        (8, NOTHING + "taking over existing images is not offered."),
        (9, NOTHING + "backups are not offered."),
        (10, "The filter `group_id` is known; no volume here is in a group."),
        (11, NOTHING + "group types are not offered."),
        (12, "`/volumes/summary`: how many volumes, and how many GiB."),
        (13, "`group_id` (null) in a volume."),
        (14, "`group_snapshot_id` (null) in a snapshot."),
        (15, "`ETag` on a volume's metadata, and `If-Match` when it is written."),
        (16, NOTHING + "migration between backends is not offered."),
        (17, NOTHING + "taking over existing images is not offered."),
        (18, NOTHING + "backups are not offered."),
        (19, NOTHING + "group snapshots are not offered."),
        (20, NOTHING + "groups are not offered."),
        (21, "`provider_id` (null) in a volume, for an administrator."),
        (22, "Snapshots can be filtered by `metadata`."),
        (23, "`?force=true` when a volume is deleted, for an administrator."),
        (24, NOTHING + "the service cleans up after itself; there is no `/workers`."),
        (25, NOTHING + "groups are not offered."),
        (26, NOTHING + "clusters and replication are not offered."),
        (27, "`/attachments`: reserve, connect, disconnect."),
        (28, "`/scheduler-stats/get_pools` can be filtered by `name`."),
        (29, NOTHING + "group snapshots are not offered."),
        (30, "Snapshots can be sorted by `name`."),
        (31, "A filter that is not allowed is a 400 instead of being ignored."),
        (32, NOTHING + "log levels are not changed through the API."),
        (33, "`/resource_filters`: which filters each list allows."),
        (34, "Filters that match a part: `name~=text`."),
        (35, "`/scheduler-stats/get_pools` can be filtered by `volume_type`."),
        (36, "`metadata` in `/volumes/summary`."),
        (37, NOTHING + "backups are not offered."),
        (38, NOTHING + "replication groups are not offered."),
        (39, "`/limits?project_id=` for an administrator."),
        (40, "The action `revert`: an available volume becomes what its newest snapshot is."),
        (41, "`user_id` in a snapshot."),
        (42, "`os-extend` is accepted for a volume that is in use."),
        (43, NOTHING + "backups are not offered."),
        (44, "`os-complete` on an attachment."),
        (45, "`count` in lists of volumes and snapshots, when asked for with `with_count`."),
        (46, NOTHING + "creating a volume from an image is not offered."),
        (47, NOTHING + "creating a volume from a backup is not offered: a 404."),
        (48, "`shared_targets` (true: several volumes behind one target) and `service_uuid`."),
        (49, "`backend_state` in `/os-services`."),
        (50, "Says that volumes with several attachments are known."),
        (51, NOTHING + "backups are not offered."),
        (52, "Volume types can be filtered by `extra_specs`."),
        (53, "Unknown keys of a new volume are a 400; an update must change something."),
        (54, "`mode` (`rw`, `ro`) of a new attachment."),
        (55, NOTHING + "transfers are not offered."),
        (56, NOTHING + "backups are not offered."),
        (57, NOTHING + "transfers are not offered."),
        (58, NOTHING + "groups are not offered."),
        (59, NOTHING + "transfers are not offered."),
        (60, "Volumes can be filtered by time: `created_at=gt:2026-11-20T00:00:00`."),
        (61, "`cluster_name` (null) in a volume, for an administrator."),
        (62, NOTHING + "there is one default volume type for all projects."),
        (63, "`volume_type_id` in a volume."),
        (64, NOTHING + "no volume is encrypted by the service, so no key id is shown."),
        (65, "`consumes_quota` (true) in volumes and snapshots, and as a filter."),
        (66, "A volume in use can be snapshotted without `force`."),
        (67, "The project in the URL is optional; it is at every version here."),
        (68, NOTHING + "writing an image over a volume is not offered."),
        (69, "`shared_targets` may be null; it never is here."),
        (70, NOTHING + "transfers are not offered."),
        (71, "`os-extend_volume_completion` is known; no volume here ever waits for it."),
    )
)

_VERSION = re.compile(r"([1-9][0-9]{0,8})\.(0|[1-9][0-9]{0,8})")
_HEADER_VALUES = tuple(f"{SERVICE} {MAJOR}.{minor}" for minor in range(MAXIMUM + 1))


def negotiate(header: str | None) -> int:
    """Return the minor version that a request asks for; none asked for is 3.0.

    Raises: ApiError (400 malformed, 406 out of range).
    """
    if header is None:
        return MINIMUM
    for part in header.split(","):
        words = part.split()
        if words and words[0] == SERVICE:
            return _parse(words[1]) if len(words) == 2 else _malformed(part.strip())
    return _malformed(header)


def header_value(minor: int) -> str:
    """Return what the answer's version header says."""
    return _HEADER_VALUES[minor]


def as_markdown() -> str:
    """Return the reference page that the table makes."""
    rows = "\n".join(f"| {MAJOR}.{one.minor} | {one.here} |" for one in MICROVERSIONS)
    return (
        "# Microversions\n\n"
        "<!-- Made by scripts/microversions_page.py; do not edit. -->\n\n"
        f"A request says `{HEADER}: {SERVICE} {MAJOR}.N`, or `latest`; without it, "
        f"{MAJOR}.{MINIMUM} is spoken.\n"
        f"Versions {MAJOR}.{MINIMUM} to {MAJOR}.{MAXIMUM} are known. Outside of them the answer "
        "is 406, for a malformed header 400.\n"
        "A resource that does not exist here is a 404 at every version.\n\n"
        "| version | what it brings here |\n| --- | --- |\n"
        f"{rows}\n"
    )


def _parse(text: str) -> int:
    if text == "latest":
        return MAXIMUM
    match = _VERSION.fullmatch(text)
    if match is None:
        return _malformed(text)
    minor = int(match[2])
    if int(match[1]) != MAJOR or not MINIMUM <= minor <= MAXIMUM:
        raise ApiError(
            406,
            f"Version {text} is not supported by the API. Minimum is {MAJOR}.{MINIMUM} "
            f"and maximum is {MAJOR}.{MAXIMUM}.",
        )
    return minor


def _malformed(text: str) -> int:
    raise ApiError(
        400,
        f"API Version String {text[:64]} is of invalid format. "
        "Must be of format MajorNum.MinorNum.",
    )
