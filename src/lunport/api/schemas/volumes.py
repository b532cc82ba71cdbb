"""The bodies of ``POST /volumes`` and ``PUT /volumes/{id}``.

Unknown keys of the volume are refused from 3.53 on and ignored before, as in Block Storage;
beside ``volume`` they are refused always.
"""

from __future__ import annotations

from typing import Any

import msgspec

from lunport.api import microversions as mv
from lunport.api.faults import ApiError, clean
from lunport.api.request import decode_json
from lunport.api.schemas.fields import (
    check_boolean,
    check_metadata,
    check_size,
    check_text,
    check_uuid,
)
from lunport.volume.requests import UNSET, NewVolume, Unset


class VolumeKeys(msgspec.Struct):
    """What a new volume may say."""

    size: int | str | None = None
    name: str | None = None
    display_name: str | None = None
    description: str | None = None
    display_description: str | None = None
    volume_type: str | None = None
    availability_zone: str | None = None
    snapshot_id: str | None = None
    source_volid: str | None = None
    metadata: dict[str, str] | None = None
    multiattach: bool | str | None = None
    consistencygroup_id: str | None = None
    group_id: str | None = None
    backup_id: str | None = None
    image_id: str | None = None
    imageRef: str | None = None  # noqa: N815  (Block Storage's spelling)


class StrictVolumeKeys(VolumeKeys, forbid_unknown_fields=True):
    """The same, and nothing else."""


class CreateVolume(msgspec.Struct, forbid_unknown_fields=True):
    """``POST /volumes`` before 3.53."""

    volume: VolumeKeys
    # Hints to a scheduler; there is none to take them.
    hints: dict[str, Any] | None = msgspec.field(name="OS-SCH-HNT:scheduler_hints", default=None)


class StrictCreateVolume(msgspec.Struct, forbid_unknown_fields=True):
    """``POST /volumes`` from 3.53 on."""

    volume: StrictVolumeKeys
    hints: dict[str, Any] | None = msgspec.field(name="OS-SCH-HNT:scheduler_hints", default=None)


class VolumeChanges(msgspec.Struct, forbid_unknown_fields=True):
    """What can be changed of a volume."""

    name: str | None | msgspec.UnsetType = msgspec.UNSET
    description: str | None | msgspec.UnsetType = msgspec.UNSET
    display_name: str | None | msgspec.UnsetType = msgspec.UNSET
    display_description: str | None | msgspec.UnsetType = msgspec.UNSET
    metadata: dict[str, str] | msgspec.UnsetType = msgspec.UNSET


class UpdateVolume(msgspec.Struct, forbid_unknown_fields=True):
    """``PUT /volumes/{id}``."""

    volume: VolumeChanges


_CREATE = msgspec.json.Decoder(CreateVolume)
_CREATE_STRICT = msgspec.json.Decoder(StrictCreateVolume)
UPDATE = msgspec.json.Decoder(UpdateVolume)


def decode_create(body: bytes, minor: int) -> VolumeKeys:
    """Decode ``POST /volumes`` as a version has it. Raises: ApiError."""
    if minor >= mv.STRICT_BODIES:
        return decode_json(_CREATE_STRICT, body).volume
    return decode_json(_CREATE, body).volume


def to_new_volume(keys: VolumeKeys) -> NewVolume:
    """Check a new volume's values. Raises: ApiError."""
    name = keys.name if keys.name is not None else keys.display_name
    description = keys.description if keys.description is not None else keys.display_description
    if keys.imageRef or keys.image_id:
        raise ApiError(400, "Invalid image identifier or unable to access requested image.")
    for group in (keys.consistencygroup_id, keys.group_id):
        if group is not None:
            raise ApiError(404, f"Group {clean(group[:64])} could not be found.")
    if keys.backup_id is not None:
        backup = check_uuid(keys.backup_id, "backup_id")
        raise ApiError(404, f"Backup {backup} could not be found.")
    zone = check_text(keys.availability_zone, "availability_zone", strips=False)
    if zone == "":
        raise ApiError(
            400, "Invalid input for field/attribute availability_zone. Value: . '' is too short"
        )
    return NewVolume(
        size_gib=None if keys.size is None else check_size(keys.size, "size"),
        name=check_text(name, "name"),
        description=check_text(description, "description"),
        volume_type=check_text(keys.volume_type, "volume_type", strips=False) or None,
        availability_zone=zone,
        snapshot_id=check_uuid(keys.snapshot_id, "snapshot_id"),
        source_volid=check_uuid(keys.source_volid, "source_volid"),
        metadata=check_metadata(keys.metadata),
        multiattach=keys.multiattach is not None and check_boolean(keys.multiattach, "multiattach"),
    )


class Changes(msgspec.Struct):
    """Checked changes, in the use cases' words."""

    name: str | None | Unset
    description: str | None | Unset
    metadata: dict[str, str] | Unset


def to_changes(keys: VolumeChanges, minor: int) -> Changes:
    """Check the changes of a volume. Raises: ApiError."""
    changes = Changes(
        name=_first_text(keys.name, keys.display_name, "name"),
        description=_first_text(keys.description, keys.display_description, "description"),
        metadata=UNSET if keys.metadata is msgspec.UNSET else check_metadata(keys.metadata),
    )
    is_empty = (changes.name, changes.description, changes.metadata) == (UNSET, UNSET, UNSET)
    if is_empty and minor >= mv.STRICT_BODIES:
        raise ApiError(
            400,
            "Invalid input for field/attribute volume. Value: {}. "
            "It must have name, description or metadata.",
        )
    return changes


def _first_text(
    value: str | None | msgspec.UnsetType, other: str | None | msgspec.UnsetType, name: str
) -> str | None | Unset:
    chosen = value if value is not msgspec.UNSET else other
    return UNSET if chosen is msgspec.UNSET else check_text(chosen, name)
