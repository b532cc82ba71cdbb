"""Find a record for a project, or say there is none: a stranger's record is not there."""

from __future__ import annotations

from typing import TYPE_CHECKING

from lunport.core.attachment import Attachment
from lunport.core.errors import AttachmentNotFound, SnapshotNotFound, VolumeNotFound
from lunport.core.snapshot import Snapshot
from lunport.core.volume import Volume
from lunport.store import attachments, snapshots, volumes

if TYPE_CHECKING:
    import sqlalchemy as sa


def get_volume(connection: sa.Connection, volume_id: str, project_id: str | None) -> Volume:
    """Return a volume; ``project_id`` None looks in every project. Raises: VolumeNotFound."""
    volume = volumes.find(connection, volume_id)
    if volume is None or project_id not in (None, volume.project_id):
        raise VolumeNotFound(volume_id)
    return volume


def get_snapshot(connection: sa.Connection, snapshot_id: str, project_id: str | None) -> Snapshot:
    """Return a snapshot. Raises: SnapshotNotFound."""
    snapshot = snapshots.find(connection, snapshot_id)
    if snapshot is None or project_id not in (None, snapshot.project_id):
        raise SnapshotNotFound(snapshot_id)
    return snapshot


def get_attachment(
    connection: sa.Connection, attachment_id: str, project_id: str | None
) -> Attachment:
    """Return an attachment. Raises: AttachmentNotFound."""
    attachment = attachments.find(connection, attachment_id)
    if attachment is None or project_id not in (None, attachment.project_id):
        raise AttachmentNotFound(attachment_id)
    return attachment
