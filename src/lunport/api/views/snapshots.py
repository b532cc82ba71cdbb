"""How snapshots look on the wire."""

from __future__ import annotations

from collections.abc import Mapping, Sequence

import msgspec

from lunport.api import microversions as mv
from lunport.api.request import ApiRequest
from lunport.core.snapshot import Snapshot

UNSET = msgspec.UNSET


class SnapshotDetail(
    msgspec.Struct,
    gc=False,
    rename={
        "progress": "os-extended-snapshot-attributes:progress",
        "project_id": "os-extended-snapshot-attributes:project_id",
    },
):
    """A snapshot with everything that the caller may see."""

    id: str
    created_at: str
    updated_at: str | None
    name: str | None
    description: str | None
    volume_id: str
    status: str
    size: int
    metadata: Mapping[str, str]
    group_snapshot_id: str | None | msgspec.UnsetType = UNSET
    user_id: str | msgspec.UnsetType = UNSET
    consumes_quota: bool | msgspec.UnsetType = UNSET
    progress: str | msgspec.UnsetType = UNSET
    project_id: str | msgspec.UnsetType = UNSET


def details(
    req: ApiRequest, rows: Sequence[Snapshot], *, extended: bool = True, full: bool = True
) -> list[SnapshotDetail]:
    """Show snapshots.

    ``full`` is false in a list without details, which knows no versions; ``extended`` adds
    the attributes of the read requests.
    """
    minor = req.minor
    extended = extended and full
    has_group = full and minor >= mv.SNAPSHOT_GROUP_ID
    has_user = full and minor >= mv.SNAPSHOT_USER_ID
    consumes_quota = True if full and minor >= mv.CONSUMES_QUOTA else UNSET
    return [
        SnapshotDetail(
            id=one.id,
            created_at=one.created_at,
            updated_at=one.updated_at,
            name=one.name,
            description=one.description,
            volume_id=one.volume_id,
            status=one.status,
            size=one.size_gib,
            metadata=one.metadata,
            group_snapshot_id=None if has_group else UNSET,
            user_id=one.user_id if has_user else UNSET,
            consumes_quota=consumes_quota,
            progress=one.progress if extended else UNSET,
            project_id=one.project_id if extended else UNSET,
        )
        for one in rows
    ]


def detail(req: ApiRequest, row: Snapshot, *, extended: bool = True) -> dict[str, SnapshotDetail]:
    """Show one snapshot."""
    return {"snapshot": details(req, (row,), extended=extended)[0]}
