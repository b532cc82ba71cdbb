"""The bodies of ``POST /snapshots`` and ``PUT /snapshots/{id}``, and of metadata requests."""

from __future__ import annotations

import msgspec

from lunport.api import microversions as mv
from lunport.api.faults import ApiError
from lunport.api.schemas.fields import (
    check_boolean,
    check_metadata,
    check_text,
    check_uuid,
)
from lunport.volume.requests import UNSET, NewSnapshot, Unset

_FORCE_IS_INVALID = (
    "Since microversion 3.66 the 'force' flag is invalid for this request. For backward "
    "compatability, however, when the 'force' flag is passed with a value evaluating to True, "
    "it is silently ignored."
)


class SnapshotKeys(msgspec.Struct, forbid_unknown_fields=True):
    """What a new snapshot may say."""

    volume_id: str | None
    name: str | None = None
    display_name: str | None = None
    description: str | None = None
    force: bool | str | None = None
    metadata: dict[str, str] | None = None


class CreateSnapshot(msgspec.Struct, forbid_unknown_fields=True):
    """``POST /snapshots``."""

    snapshot: SnapshotKeys


class SnapshotChanges(msgspec.Struct, forbid_unknown_fields=True):
    """What can be changed of a snapshot."""

    name: str | None | msgspec.UnsetType = msgspec.UNSET
    description: str | None | msgspec.UnsetType = msgspec.UNSET
    display_name: str | None | msgspec.UnsetType = msgspec.UNSET
    display_description: str | None | msgspec.UnsetType = msgspec.UNSET


class UpdateSnapshot(msgspec.Struct, forbid_unknown_fields=True):
    """``PUT /snapshots/{id}``."""

    snapshot: SnapshotChanges


CREATE = msgspec.json.Decoder(CreateSnapshot)
UPDATE = msgspec.json.Decoder(UpdateSnapshot)


def to_new_snapshot(keys: SnapshotKeys, minor: int) -> NewSnapshot:
    """Check a new snapshot's values; from 3.66 on a volume in use needs no force.

    Raises: ApiError.
    """
    volume_id = check_uuid(keys.volume_id, "volume_id")
    if volume_id is None:
        raise ApiError(404, "Volume None could not be found.")
    force = keys.force is not None and check_boolean(keys.force, "force")
    if minor >= mv.SNAPSHOT_IN_USE:
        if keys.force is not None and not force:
            raise ApiError(400, _FORCE_IS_INVALID)
        force = True
    return NewSnapshot(
        volume_id=volume_id,
        name=check_text(keys.name if keys.name is not None else keys.display_name, "name"),
        description=check_text(keys.description, "description"),
        force=force,
        metadata=check_metadata(keys.metadata),
    )


def to_changes(keys: SnapshotChanges) -> tuple[str | None | Unset, str | None | Unset]:
    """Check the changes of a snapshot: name and description. Raises: ApiError."""
    name = keys.name if keys.name is not msgspec.UNSET else keys.display_name
    description = (
        keys.description if keys.description is not msgspec.UNSET else keys.display_description
    )
    if name is msgspec.UNSET and description is msgspec.UNSET:
        raise ApiError(
            400,
            "Invalid input for field/attribute snapshot. Value: {}. "
            "It must have name or description.",
        )
    return (
        UNSET if name is msgspec.UNSET else check_text(name, "name"),
        UNSET if description is msgspec.UNSET else check_text(description, "description"),
    )
