"""Volumes: the record, its states, and which action leads from which state to which.

The states and transitions are data, as the Block Storage API v3 documents them; the store
turns a :class:`Transition` into one compare-and-swap.
"""

from __future__ import annotations

import enum
from collections.abc import Mapping
from dataclasses import dataclass
from typing import NamedTuple

from lunport.core.secret import Secret


class VolumeStatus(enum.StrEnum):
    """Block Storage's volume statuses, as far as a volume of ours can be in one."""

    CREATING = "creating"
    AVAILABLE = "available"
    RESERVED = "reserved"
    ATTACHING = "attaching"
    DETACHING = "detaching"
    IN_USE = "in-use"
    MAINTENANCE = "maintenance"
    DELETING = "deleting"
    EXTENDING = "extending"
    REVERTING = "reverting"
    ERROR = "error"
    ERROR_DELETING = "error_deleting"
    ERROR_EXTENDING = "error_extending"


RESETTABLE = frozenset(VolumeStatus)


class AttachStatus(enum.StrEnum):
    """What the volume record says of its attachments in general."""

    ATTACHED = "attached"
    ATTACHING = "attaching"
    DETACHED = "detached"
    RESERVED = "reserved"
    ERROR_ATTACHING = "error_attaching"
    ERROR_DETACHING = "error_detaching"


class Action(enum.Enum):
    """What changes a volume's status."""

    RESERVE = "reserve"
    RESERVE_ATTACHMENT = "reserve an attachment of"
    UNRESERVE = "unreserve"
    BEGIN_DETACHING = "detach"
    ROLL_DETACHING = "roll detaching of"
    EXTEND = "extend"
    DELETE = "delete"
    SNAPSHOT = "snapshot"
    SNAPSHOT_FORCED = "snapshot by force"
    CLONE = "clone"
    REVERT = "revert"


@dataclass(frozen=True, slots=True)
class Transition:
    """From which states an action is allowed, and the state it leads to (None: stays)."""

    allowed: tuple[VolumeStatus, ...]
    to: VolumeStatus | None
    multiattach_also: tuple[VolumeStatus, ...] = ()


TRANSITIONS: Mapping[Action, Transition] = {
    Action.RESERVE: Transition(
        (VolumeStatus.AVAILABLE,), VolumeStatus.ATTACHING, (VolumeStatus.IN_USE,)
    ),
    Action.RESERVE_ATTACHMENT: Transition(
        (VolumeStatus.AVAILABLE,), VolumeStatus.RESERVED, (VolumeStatus.IN_USE,)
    ),
    # To in-use instead, when the volume has attachments.
    Action.UNRESERVE: Transition((VolumeStatus.ATTACHING,), VolumeStatus.AVAILABLE),
    Action.BEGIN_DETACHING: Transition((VolumeStatus.IN_USE,), VolumeStatus.DETACHING),
    Action.ROLL_DETACHING: Transition((VolumeStatus.DETACHING,), VolumeStatus.IN_USE),
    Action.EXTEND: Transition((VolumeStatus.AVAILABLE,), VolumeStatus.EXTENDING),
    Action.DELETE: Transition(
        (
            VolumeStatus.AVAILABLE,
            VolumeStatus.ERROR,
            VolumeStatus.ERROR_DELETING,
            VolumeStatus.ERROR_EXTENDING,
        ),
        VolumeStatus.DELETING,
    ),
    Action.SNAPSHOT: Transition((VolumeStatus.AVAILABLE,), None),
    Action.SNAPSHOT_FORCED: Transition((VolumeStatus.AVAILABLE, VolumeStatus.IN_USE), None),
    Action.CLONE: Transition((VolumeStatus.AVAILABLE, VolumeStatus.IN_USE), None),
    Action.REVERT: Transition((VolumeStatus.AVAILABLE,), VolumeStatus.REVERTING),
}


class Volume(NamedTuple):
    """One volume as the store has it. Times are UTC, ``2026-11-20T21:38:00.123456``.

    ``target_number`` is tgt's target id; it and ``wwid`` are given at creation and never
    change. ``host`` is Block Storage's ``host@backend#pool``. ``readonly`` None: nobody has
    said, so it is not.
    """

    id: str
    project_id: str
    user_id: str
    name: str | None
    description: str | None
    size_gib: int
    status: str
    previous_status: str | None
    attach_status: str
    migration_status: str | None
    bootable: bool
    multiattach: bool
    readonly: bool | None
    volume_type_id: str
    availability_zone: str
    source_volid: str | None
    snapshot_id: str | None
    backend: str
    host: str
    metadata: Mapping[str, str]
    wwid: str
    target_number: int
    provider_location: str | None
    chap_username: str | None
    chap_password: Secret | None
    created_at: str
    updated_at: str | None


def image_name(volume_id: str) -> str:
    """Name the driver's image of a volume."""
    return f"volume-{volume_id}"
