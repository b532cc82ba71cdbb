"""Attachments: the record, its states, and what they mean for the volume.

An attachment is the promise (or the fact) that a volume is connected to an instance on a
compute host. The volume's status after an attachment is taken away is decided here, from
the attachments that remain.
"""

from __future__ import annotations

import enum
from collections.abc import Iterable, Mapping
from typing import NamedTuple

from lunport.core.volume import AttachStatus, VolumeStatus


class AttachmentStatus(enum.StrEnum):
    """Block Storage's attachment statuses."""

    RESERVED = "reserved"
    ATTACHING = "attaching"
    ATTACHED = "attached"
    DETACHING = "detaching"
    ERROR_ATTACHING = "error_attaching"
    ERROR_DETACHING = "error_detaching"


class AttachMode(enum.StrEnum):
    """How the volume may be used through the attachment."""

    READ_WRITE = "rw"
    READ_ONLY = "ro"


class Attachment(NamedTuple):
    """One attachment as the store has it.

    ``connector`` is what the compute host declared (wire form), None while only reserved;
    the connection info is rebuilt from it and the volume, never stored.
    """

    id: str
    volume_id: str
    project_id: str
    instance_uuid: str | None
    attached_host: str | None
    mountpoint: str | None
    attach_mode: str | None
    attach_status: str
    connector: Mapping[str, object] | None
    attached_at: str | None
    created_at: str
    updated_at: str | None


class VolumeSummary(NamedTuple):
    """The two statuses of a volume that follow from its attachments."""

    status: VolumeStatus
    attach_status: AttachStatus


_STRONGEST_FIRST = (
    (AttachmentStatus.ATTACHED, VolumeSummary(VolumeStatus.IN_USE, AttachStatus.ATTACHED)),
    (AttachmentStatus.ATTACHING, VolumeSummary(VolumeStatus.ATTACHING, AttachStatus.ATTACHING)),
    (AttachmentStatus.DETACHING, VolumeSummary(VolumeStatus.DETACHING, AttachStatus.ATTACHED)),
    (AttachmentStatus.RESERVED, VolumeSummary(VolumeStatus.RESERVED, AttachStatus.DETACHED)),
)


def summarise(statuses: Iterable[str]) -> VolumeSummary:
    """Decide a volume's status from its remaining attachments; the strongest one wins.

    Attachments in an error state count for nothing, as in Block Storage.
    """
    present = set(statuses)
    for status, summary in _STRONGEST_FIRST:
        if status in present:
            return summary
    return VolumeSummary(VolumeStatus.AVAILABLE, AttachStatus.DETACHED)
