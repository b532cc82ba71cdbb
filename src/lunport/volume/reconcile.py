"""Make the targets as the database says, after a start and after a target daemon's death.

The database is the desired state. Pending connections, whose client never got an answer,
are undone; every settled one gets its export back, with the same name, LUN, credentials and
identity; targets of ours that nothing implies are taken away; half-made files are removed.
"""

from __future__ import annotations

import logging
from collections import defaultdict
from collections.abc import Sequence

from lunport.core.attachment import AttachmentStatus, summarise
from lunport.core.errors import BackendError, TargetDaemonDown
from lunport.core.snapshot import image_name as snapshot_image
from lunport.core.volume import Volume, VolumeStatus
from lunport.core.volume import image_name as volume_image
from lunport.store import attachments as rows
from lunport.store import snapshots as snapshot_rows
from lunport.store import volumes as volume_rows
from lunport.store.attachments import HostConnection
from lunport.targets.helper import SeenExport
from lunport.volume import exports
from lunport.volume.service import Backend, Service

_LOG = logging.getLogger(__name__)


def undo_pending(service: Service) -> int:
    """Forget connections that were never settled; tell how many.

    An attachment that was made together with its connection goes too: nobody knows its id.
    """
    with service.store.write() as connection:
        pending = [row for row in rows.every_connection(connection) if row.pending]
        rows.remove_connections(connection, [row.id for row in pending])
        for row in pending:
            attachment = rows.find(connection, row.attachment_id or "")
            if attachment is None or attachment.created_at != row.created_at:
                continue
            if attachment.attach_status == AttachmentStatus.RESERVED:
                rows.remove(connection, attachment.id)
                left = rows.of_volume(connection, row.volume_id)
                summary = summarise(one.attach_status for one in left)
                volume_rows.change(
                    connection,
                    row.volume_id,
                    {**summary._asdict(), "updated_at": service.now()},
                    statuses=(VolumeStatus.RESERVED, VolumeStatus.IN_USE),
                )
    return len(pending)


def restore_exports(service: Service, backend: Backend) -> Sequence[str]:
    """Make a backend's targets as the database says; return what could not be, a line each.

    Raises: TargetDaemonDown, StoreUnavailable.
    """
    with service.store.read(snapshot=True) as connection:
        volumes = {one.id: one for one in volume_rows.connected(connection, backend.name)}
        wanted: dict[str, list[HostConnection]] = defaultdict(list)
        for row in rows.every_connection(connection):
            if row.volume_id in volumes and not row.pending:
                wanted[row.volume_id].append(row)
    strays = [
        (volume_id, seen)
        for seen in backend.helper.exports()
        if (volume_id := backend.volume_of(seen.iqn)) is not None and volume_id not in wanted
    ]
    failures = [
        *(_remove_stray(service, backend, volume_id, seen) for volume_id, seen in strays),
        *(_restore(service, volumes[volume_id]) for volume_id in wanted),
    ]
    return [failure for failure in failures if failure is not None]


def _restore(service: Service, volume: Volume) -> str | None:
    """Make one export as its connections say now; say what failed."""
    try:
        with exports.volume_lock(service, volume.id):
            with service.store.read() as connection:
                current = rows.connections_of(connection, volume.id)
            exports.align(service, volume, current)
    except TargetDaemonDown:
        raise  # No other one can be restored either.
    except BackendError as error:
        _LOG.error("export_not_restored volume=%s error=%s", volume.id, error)
        return f"{volume.id}: {error}"
    return None


def _remove_stray(
    service: Service, backend: Backend, volume_id: str, seen: SeenExport
) -> str | None:
    """Take a target away that nothing implies, unless somebody connects at this moment."""
    try:
        with exports.volume_lock(service, volume_id):
            with service.store.read() as connection:
                if rows.connections_of(connection, volume_id):
                    return None
            backend.helper.unexport(seen.iqn, seen.tid)
    except TargetDaemonDown:
        raise
    except BackendError as error:
        _LOG.error("stray_target_not_removed iqn=%s error=%s", seen.iqn, error)
        return f"{volume_id}: {error}"
    _LOG.info("stray_target_removed iqn=%s", seen.iqn)
    return None


def sweep_images(service: Service, backend: Backend) -> Sequence[str]:
    """Remove the half-made files that a kill left; return their names. Raises: BackendError."""
    with service.store.read(snapshot=True) as connection:
        known = [volume_image(one) for one in volume_rows.ids(connection, backend.name)]
        known += [snapshot_image(one) for one in snapshot_rows.ids(connection, backend.name)]
    removed = backend.driver.sweep(known)
    for name in removed:
        _LOG.info("partial_image_removed name=%s", name)
    return removed
