"""Take a volume back to its newest snapshot: accepted here, carried out by a worker.

As Block Storage does it: only the newest snapshot, of the volume's own size, of a volume that is
available. Whoever reads the volume meanwhile would see a mixture, so nobody may be connected.
"""

from __future__ import annotations

from lunport.core.errors import InvalidInput, InvalidState
from lunport.core.snapshot import SnapshotStatus
from lunport.core.volume import TRANSITIONS, Action
from lunport.store import connections as connection_rows
from lunport.store import lookup, operations
from lunport.store import snapshots as snapshot_rows
from lunport.store import volumes as rows
from lunport.volume.requests import Caller
from lunport.volume.service import Service


def revert_volume(service: Service, caller: Caller, volume_id: str, snapshot_id: str) -> None:
    """Accept the return of a volume to a snapshot; both say so until it has ended.

    Raises: VolumeNotFound, InvalidInput (not the newest, or of another size), InvalidState.
    """
    now = service.now()
    transition = TRANSITIONS[Action.REVERT]
    with service.store.write() as connection:
        volume = lookup.get_volume(connection, volume_id, caller.sees_project)
        taken = snapshot_rows.of_volume(connection, volume_id)
        newest = max(taken, key=lambda one: one.created_at, default=None)
        if newest is None or newest.id != snapshot_id:
            raise InvalidInput(
                "snapshot_id", snapshot_id, f"it is not the newest snapshot of volume {volume_id}"
            )
        if newest.size_gib != volume.size_gib:
            raise InvalidInput(
                "snapshot_id",
                snapshot_id,
                f"it has {newest.size_gib} GiB, and volume {volume_id} {volume.size_gib} GiB",
            )
        if connection_rows.of_volume(connection, volume_id):
            raise InvalidState("volume", volume_id, "connected to a host", "not connected")
        swapped = rows.change(
            connection,
            volume_id,
            {"status": transition.to, "updated_at": now},
            statuses=transition.allowed,
        )
        if not swapped:
            raise InvalidState("volume", volume_id, volume.status, " or ".join(transition.allowed))
        swapped = snapshot_rows.change(
            connection,
            snapshot_id,
            {"status": SnapshotStatus.RESTORING, "updated_at": now},
            statuses=(SnapshotStatus.AVAILABLE,),
        )
        if not swapped:
            raise InvalidState("snapshot", snapshot_id, newest.status, SnapshotStatus.AVAILABLE)
        operation = operations.add(
            connection,
            "revert",
            volume_id,
            {"snapshot_id": snapshot_id},
            request_id=caller.request_id,
            now=now,
        )
    service.queue.submit(operation)
