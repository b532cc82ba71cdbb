"""Use cases on snapshots: take, read, change, delete."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

from lunport.core.errors import InvalidInput, InvalidState
from lunport.core.snapshot import DELETABLE, Snapshot, SnapshotStatus
from lunport.core.volume import TRANSITIONS, Action
from lunport.store import lookup, operations
from lunport.store import snapshots as rows
from lunport.volume.requests import UNSET, Caller, NewSnapshot, Page, Query, Unset
from lunport.volume.service import Service
from lunport.volume.volumes import refuse_torn_copy


def create_snapshot(service: Service, caller: Caller, new: NewSnapshot) -> Snapshot:
    """Accept a snapshot; it is ``creating`` until a worker has taken it.

    Raises: VolumeNotFound, InvalidState.
    """
    action = Action.SNAPSHOT_FORCED if new.force else Action.SNAPSHOT
    now = service.now()
    with service.store.write() as connection:
        volume = lookup.get_volume(connection, new.volume_id, caller.sees_project)
        allowed = TRANSITIONS[action].allowed
        if volume.status not in allowed:
            raise InvalidState("volume", volume.id, volume.status, " or ".join(allowed))
        refuse_torn_copy(service, connection, volume)
        snapshot = Snapshot(
            id=service.new_id(),
            volume_id=volume.id,
            project_id=volume.project_id,
            user_id=caller.user_id,
            name=new.name,
            description=new.description,
            size_gib=volume.size_gib,
            status=SnapshotStatus.CREATING,
            progress="0%",
            volume_type_id=volume.volume_type_id,
            backend=volume.backend,
            metadata=dict(new.metadata),
            created_at=now,
            updated_at=None,
        )
        rows.add(connection, snapshot)
        operation = operations.add(
            connection,
            "snapshot",
            snapshot.id,
            {"volume_id": volume.id},
            request_id=caller.request_id,
            now=now,
        )
    service.queue.submit(operation)
    return snapshot


def get_snapshot(service: Service, caller: Caller, snapshot_id: str) -> Snapshot:
    """Return a snapshot. Raises: SnapshotNotFound."""
    with service.store.read() as connection:
        return lookup.get_snapshot(connection, snapshot_id, caller.sees_project)


def list_snapshots(service: Service, caller: Caller, query: Query) -> Page[Snapshot]:
    """Return one page of snapshots. Raises: InvalidInput."""
    with service.store.read() as connection:
        return rows.page(connection, query)


def count_snapshots(service: Service, caller: Caller, query: Query) -> int:
    """Count the snapshots that match. Raises: InvalidInput."""
    with service.store.read() as connection:
        return rows.totals(connection, query)[0]


def update_snapshot(
    service: Service,
    caller: Caller,
    snapshot_id: str,
    *,
    name: str | None | Unset = UNSET,
    description: str | None | Unset = UNSET,
    metadata: Mapping[str, str] | Unset = UNSET,
) -> Snapshot:
    """Change name, description, or merge metadata. Raises: SnapshotNotFound."""
    with service.store.write() as connection:
        snapshot = lookup.get_snapshot(connection, snapshot_id, caller.sees_project)
        values: dict[str, Any] = {"updated_at": service.now()}
        if name is not UNSET:
            values["name"] = name
        if description is not UNSET:
            values["description"] = description
        if not isinstance(metadata, Unset):
            values["metadata"] = {**snapshot.metadata, **metadata}
        rows.change(connection, snapshot_id, values)
        return snapshot._replace(**values)


def delete_snapshot(
    service: Service, caller: Caller, snapshot_id: str, *, force: bool = False
) -> None:
    """Accept the end of a snapshot. Raises: SnapshotNotFound, InvalidState."""
    now = service.now()
    with service.store.write() as connection:
        snapshot = lookup.get_snapshot(connection, snapshot_id, caller.sees_project)
        swapped = rows.change(
            connection,
            snapshot_id,
            {"status": SnapshotStatus.DELETING, "updated_at": now},
            statuses=None if force else DELETABLE,
        )
        if not swapped:
            raise InvalidState("snapshot", snapshot_id, snapshot.status, " or ".join(DELETABLE))
        operation = operations.add(
            connection, "delete_snapshot", snapshot_id, {}, request_id=caller.request_id, now=now
        )
    service.queue.submit(operation)


def reset_status(service: Service, caller: Caller, snapshot_id: str, status: str) -> None:
    """Set the status by hand (admin). Raises: SnapshotNotFound, InvalidInput."""
    try:
        wanted = SnapshotStatus(status.lower())
    except ValueError:
        raise InvalidInput(
            "status", status, f"expected one of {', '.join(SnapshotStatus)}"
        ) from None
    with service.store.write() as connection:
        lookup.get_snapshot(connection, snapshot_id, caller.sees_project)
        rows.change(connection, snapshot_id, {"status": wanted, "updated_at": service.now()})
