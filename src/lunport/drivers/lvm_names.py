"""How images are called in a volume group.

LVM keeps names that begin with "snapshot" to itself (lvm(8)), so snapshots are ``snap-UUID``. A
volume that is no whole image has a name with a dot, which no image has.
"""

from __future__ import annotations

import enum
import re
from collections.abc import Collection, Sequence

from lunport.core.errors import InvalidInput

_IMAGE = re.compile(r"(?:volume|snapshot)-[0-9a-zA-Z-]{1,64}")
_STORED = re.compile(r"(volume|snap)(-[0-9a-zA-Z-]{1,64})")


class Hidden(enum.StrEnum):
    """What a volume is that does not have an image's name."""

    NEW = "new."  # being made; nothing of anybody's is in it
    COPY = "copy."  # being copied to
    SOURCE = "source."  # the snapshot that is copied from
    OLD = "old."  # what an image was before it was reverted
    DELETING = "deleting."  # lost its name, perhaps not cleared yet


def stored_name(image: str) -> str:
    """Return the name under which an image is stored. Raises: InvalidInput."""
    if not _IMAGE.fullmatch(image):
        raise InvalidInput("image name", image, "expected volume-UUID or snapshot-UUID")
    return image.replace("snapshot-", "snap-", 1) if image.startswith("snapshot-") else image


def image_name(name: str) -> str | None:
    """Return the image that a volume of the group is; None for another one."""
    match = _STORED.fullmatch(name)
    return None if match is None else f"{match[1].replace('snap', 'snapshot')}{match[2]}"


def hidden_names(name: str) -> Sequence[str]:
    """List the hidden names that there may be of a volume."""
    return [kind + name for kind in Hidden]


def names_with_leftovers(found: Collection[str]) -> frozenset[str]:
    """Return the names of images of which something hidden is there."""
    rests = (name.removeprefix(kind) for name in found for kind in Hidden if name.startswith(kind))
    return frozenset(rest for rest in rests if _STORED.fullmatch(rest))
