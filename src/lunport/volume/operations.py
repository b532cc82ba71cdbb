"""Carry out accepted work: create, clone, extend, snapshot, revert, delete.

Each operation is a row until the transaction that records its end. Every handler can be
killed at any point and run again: the driver's verbs are idempotent, the row is read anew,
and a volume that has gone in the meantime ends the operation. A failure of the backend
becomes the volume's status and a message to its users; it is never silent.
"""

from __future__ import annotations

import contextlib
import logging
import threading
from collections.abc import Callable, Iterator, Mapping, Sequence
from datetime import datetime, timedelta
from typing import Any

from lunport.core.attachment import summarise
from lunport.core.errors import (
    ImageBusy,
    ImageMissing,
    LunportError,
    OutOfSpace,
    TargetDaemonDown,
    Unavailable,
)
from lunport.core.size import gib_to_bytes
from lunport.core.snapshot import Snapshot, SnapshotStatus
from lunport.core.snapshot import image_name as snapshot_image
from lunport.core.volume import Volume, VolumeStatus
from lunport.core.volume import image_name as volume_image
from lunport.host.clock import Deadline
from lunport.store import attachments as attachment_rows
from lunport.store import connections
from lunport.store import operations as rows
from lunport.store import snapshots as snapshot_rows
from lunport.store import volumes as volume_rows
from lunport.store.engine import StoreConnection
from lunport.store.operations import Operation
from lunport.volume import exports, messages
from lunport.volume.desired import whole_image
from lunport.volume.places import forget, target_lock, target_names, volume_lock
from lunport.volume.service import Service
from lunport.volume.worklist import WorkList, resources_of

_LOG = logging.getLogger(__name__)
_GRACE_S = 0.05
_WAITING_PER_THREAD = 4
_DAEMON_BACK_WITHIN = timedelta(minutes=1)

Fields = Mapping[str, Any]


class Worker:
    """Threads that carry out operations until they are stopped."""

    def __init__(self, threads: int = 2) -> None:
        self._list = WorkList()
        self._count = threads
        self._threads: list[threading.Thread] = []

    def submit(self, operation: Operation) -> None:
        """Hand over one operation, and wait a moment for its end.

        Most end within milliseconds: whoever then asks for the resource finds it done, and
        need not ask again. The moment is short and only some wait, so that long work holds
        nobody up.
        """
        self._list.add(operation)
        self._list.wait_for_end(
            operation, Deadline.after(_GRACE_S), at_most=_WAITING_PER_THREAD * self._count
        )

    def start(self, service: Service) -> None:
        """Start the threads, and hand over what an earlier process left unfinished."""
        with service.store.read() as connection:
            for operation in rows.every(connection):
                self._list.add(operation)
        for number in range(self._count):
            thread = threading.Thread(
                target=self._work, args=(service,), name=f"worker-{number}", daemon=True
            )
            self._threads.append(thread)
            thread.start()

    def stop(self, within_s: float) -> bool:
        """Stop after the operations under way; tell whether all threads ended in time.

        What is left stays in the store for the next start.
        """
        deadline = Deadline.after(within_s)
        self._list.close()
        for thread in self._threads:
            thread.join(deadline.remaining_s())
        return not any(thread.is_alive() for thread in self._threads)

    def _work(self, service: Service) -> None:
        for operation in iter(self._list.take, None):
            try:
                carry_out(service, operation)
            except Unavailable as error:
                _LOG.warning(
                    "operation_postponed kind=%s resource=%s error=%s",
                    operation.kind,
                    operation.resource_id,
                    error,
                )
                self._list.put_back(operation)
                continue
            except Exception:
                # The thread's top: the log has what happened, the users that it failed.
                _LOG.exception(
                    "operation_failed kind=%s resource=%s", operation.kind, operation.resource_id
                )
                # If that fails as well, the next start tries the operation again.
                with contextlib.suppress(LunportError):
                    give_up(service, operation, "the service failed; its log says why")
            self._list.done(operation)


def carry_out(service: Service, operation: Operation) -> None:
    """Carry out one operation to its recorded end, be it an error.

    A target daemon that is down is brought back by whoever watches it, so for a minute that
    is no end. Raises: Unavailable (nothing is recorded; the same call may work later).
    """
    with volume_lock(service, *resources_of(operation)):
        try:
            _HANDLERS[operation.kind](service, operation)
        except Unavailable:
            raise
        except LunportError as error:
            if isinstance(error, TargetDaemonDown) and _is_young(service, operation):
                raise Unavailable(str(error)) from error
            _LOG.warning(
                "operation_refused kind=%s resource=%s error=%s",
                operation.kind,
                operation.resource_id,
                error,
            )
            if isinstance(error, OutOfSpace):
                give_up(service, operation, error.told, is_untouched=True)
            else:
                give_up(service, operation, str(error))


def _is_young(service: Service, operation: Operation) -> bool:
    age = datetime.fromisoformat(service.now()) - datetime.fromisoformat(operation.created_at)
    return age < _DAEMON_BACK_WITHIN


def give_up(
    service: Service, operation: Operation, reason: str, *, is_untouched: bool = False
) -> None:
    """End an operation: the resource's error status, and a message.

    ``is_untouched``: a volume that should grow or be reverted is as good as it was.
    Raises: StoreUnavailable.
    """
    with service.store.write() as connection:
        if operation.kind in _SNAPSHOT_FAILURES:
            project_id = _fail_snapshots(
                service, connection, [operation.resource_id], _SNAPSHOT_FAILURES[operation.kind]
            )
            resource_type = "VOLUME_SNAPSHOT"
        else:
            project_id = _fail_volume(service, connection, operation, is_untouched)
            resource_type = "VOLUME"
        if project_id is not None:
            messages.tell(
                service,
                connection,
                project_id=project_id,
                request_id=operation.request_id,
                resource_type=resource_type,
                resource_id=operation.resource_id,
                event_id=f"{resource_type}_{operation.kind}".upper(),
                text=f"{operation.kind}: {reason}",
            )
        rows.finish(connection, operation.id)


def _create(service: Service, operation: Operation) -> None:
    volume = _current(service, operation, VolumeStatus.CREATING)
    if volume is None:
        return
    driver = service.backend(volume.backend).driver
    image = volume_image(volume.id)
    size_bytes = gib_to_bytes(volume.size_gib)
    source_volume = operation.arguments.get("source_volid")
    source_snapshot = operation.arguments.get("snapshot_id")
    if source_volume is not None:
        _check_source(service, source_volume)
        driver.clone(image, volume_image(source_volume), size_bytes)
    elif source_snapshot is not None:
        driver.clone(image, snapshot_image(source_snapshot), size_bytes)
    else:
        driver.create(image, size_bytes)
    values: dict[str, Any] = {"status": VolumeStatus.AVAILABLE}
    offer = driver.locate(image).offer
    if offer is not None:
        values["wwid"] = offer.wwid  # its unit had an identity before
    _succeed(service, operation, values, VolumeStatus.CREATING)


def _check_source(service: Service, volume_id: str) -> None:
    """Refuse to copy what was cut short, or what a host began to use since the request.

    Raises: ImageMissing, ImageBusy, BackendError.
    """
    with service.store.read(snapshot=True) as connection:
        volume = volume_rows.find(connection, volume_id)
        connected = connections.of_volume(connection, volume_id)
    if volume is None:
        raise ImageMissing(volume_image(volume_id))
    whole_image(service, volume)
    if connected and not service.backend(volume.backend).driver.copies_atomically:
        raise ImageBusy(volume_id)


def _extend(service: Service, operation: Operation) -> None:
    size_gib = int(operation.arguments["size_gib"])
    volume = _current(service, operation, VolumeStatus.EXTENDING)
    if volume is None:
        return
    size_bytes = gib_to_bytes(size_gib)
    service.backend(volume.backend).driver.extend(volume_image(volume.id), size_bytes)
    with _target_locks(service, volume):
        exports.resize(service, volume, size_bytes)
    with service.store.write() as connection:
        values = {**_before_extend(connection, volume), "size_gib": size_gib}
        volume_rows.change(
            connection,
            volume.id,
            {**values, "updated_at": service.now()},
            statuses=(VolumeStatus.EXTENDING,),
        )
        rows.finish(connection, operation.id)


def _before_extend(connection: StoreConnection, volume: Volume) -> Fields:
    """Return the statuses of a volume that is extended no more."""
    if volume.previous_status in (None, VolumeStatus.AVAILABLE):
        return {"status": VolumeStatus.AVAILABLE, "previous_status": None}
    # Attachments may have come or gone meanwhile.
    present = attachment_rows.of_volume(connection, volume.id)
    summary = summarise(one.attach_status for one in present)
    return {**summary._asdict(), "previous_status": None}


def _delete(service: Service, operation: Operation) -> None:
    """Close what is open, then the snapshots, the image, and last the rows."""
    volume = _current(service, operation, VolumeStatus.DELETING)
    if volume is None:
        return
    _take_from_hosts(service, volume)
    with service.store.read(snapshot=True) as connection:
        snapshots = snapshot_rows.of_volume(connection, volume.id)
    driver = service.backend(volume.backend).driver
    for snapshot in snapshots:
        driver.delete(snapshot_image(snapshot.id))
    driver.delete(volume_image(volume.id))
    with service.store.write() as connection:
        for snapshot in snapshots:
            snapshot_rows.remove(connection, snapshot.id)
        volume_rows.remove(connection, volume.id)
        rows.finish(connection, operation.id)


def _take_from_hosts(service: Service, volume: Volume) -> None:
    """Close the connections that are open, and take the volume's own target away."""
    with _target_locks(service, volume):
        with service.store.read() as connection:
            present = connections.of_volume(connection, volume.id)
        exports.close_connections(service, volume, present)
        has_own = any(row.target_id is None for row in present)
        if volume.provider_location is not None and not has_own:  # one that was left over
            backend = service.backend(volume.backend)
            backend.helper.unexport(backend.target_name(volume.id), volume.target_number)
        if present:
            with service.store.write() as connection:
                forget(service, connection, present)


@contextlib.contextmanager
def _target_locks(service: Service, volume: Volume) -> Iterator[None]:
    """Hold the locks of the targets that a volume is on. Precondition: its own is held."""
    with service.store.read() as connection:
        names = target_names(connection, connections.of_volume(connection, volume.id))
    with target_lock(service, *names):
        yield


def _snapshot(service: Service, operation: Operation) -> None:
    volume_id = str(operation.arguments["volume_id"])
    snapshot = _current_snapshot(service, operation, SnapshotStatus.CREATING)
    if snapshot is None:
        return
    _check_source(service, volume_id)
    service.backend(snapshot.backend).driver.snapshot(
        snapshot_image(snapshot.id), volume_image(volume_id)
    )
    values = {
        "status": SnapshotStatus.AVAILABLE,
        "progress": "100%",
        "updated_at": service.now(),
    }
    with service.store.write() as connection:
        snapshot_rows.change(connection, snapshot.id, values, statuses=(SnapshotStatus.CREATING,))
        rows.finish(connection, operation.id)


def _delete_snapshot(service: Service, operation: Operation) -> None:
    snapshot = _current_snapshot(service, operation, SnapshotStatus.DELETING)
    if snapshot is None:
        return
    service.backend(snapshot.backend).driver.delete(snapshot_image(snapshot.id))
    with service.store.write() as connection:
        snapshot_rows.remove(connection, snapshot.id)
        rows.finish(connection, operation.id)


def _revert(service: Service, operation: Operation) -> None:
    snapshot_id = str(operation.arguments["snapshot_id"])
    with service.store.read() as connection:
        volume = volume_rows.find(connection, operation.resource_id)
    if volume is not None and volume.status == VolumeStatus.REVERTING:
        service.backend(volume.backend).driver.revert(
            volume_image(volume.id), snapshot_image(snapshot_id)
        )
    with service.store.write() as connection:
        _end_revert(service, connection, operation, VolumeStatus.AVAILABLE)
        rows.finish(connection, operation.id)


def _end_revert(
    service: Service, connection: StoreConnection, operation: Operation, status: VolumeStatus
) -> None:
    """Set the volume's status after a revert; its snapshot is as good as before in any case."""
    now = service.now()
    volume_rows.change(
        connection,
        operation.resource_id,
        {"status": status, "updated_at": now},
        statuses=(VolumeStatus.REVERTING,),
    )
    snapshot_rows.change(
        connection,
        str(operation.arguments["snapshot_id"]),
        {"status": SnapshotStatus.AVAILABLE, "updated_at": now},
        statuses=(SnapshotStatus.RESTORING,),
    )


_HANDLERS: Mapping[str, Callable[[Service, Operation], None]] = {
    "create": _create,
    "extend": _extend,
    "delete": _delete,
    "snapshot": _snapshot,
    "delete_snapshot": _delete_snapshot,
    "revert": _revert,
}

# What a resource becomes when its work fails; only from the status that the work has set.
_VOLUME_FAILURES: Mapping[str, tuple[VolumeStatus, VolumeStatus]] = {
    "create": (VolumeStatus.CREATING, VolumeStatus.ERROR),
    "extend": (VolumeStatus.EXTENDING, VolumeStatus.ERROR_EXTENDING),
    "delete": (VolumeStatus.DELETING, VolumeStatus.ERROR_DELETING),
}
_SNAPSHOT_FAILURES: Mapping[str, tuple[SnapshotStatus, SnapshotStatus]] = {
    "snapshot": (SnapshotStatus.CREATING, SnapshotStatus.ERROR),
    "delete_snapshot": (SnapshotStatus.DELETING, SnapshotStatus.ERROR_DELETING),
}


def _current(service: Service, operation: Operation, status: VolumeStatus) -> Volume | None:
    """Return the volume if the operation still concerns it; else end the operation."""
    with service.store.read() as connection:
        volume = volume_rows.find(connection, operation.resource_id)
    if volume is not None and volume.status == status:
        return volume
    _drop(service, operation)
    return None


def _current_snapshot(
    service: Service, operation: Operation, status: SnapshotStatus
) -> Snapshot | None:
    with service.store.read() as connection:
        snapshot = snapshot_rows.find(connection, operation.resource_id)
    if snapshot is not None and snapshot.status == status:
        return snapshot
    _drop(service, operation)
    return None


def _drop(service: Service, operation: Operation) -> None:
    with service.store.write() as connection:
        rows.finish(connection, operation.id)


def _succeed(service: Service, operation: Operation, values: Fields, before: VolumeStatus) -> None:
    with service.store.write() as connection:
        volume_rows.change(
            connection,
            operation.resource_id,
            {**values, "updated_at": service.now()},
            statuses=(before,),
        )
        rows.finish(connection, operation.id)


def _fail_volume(
    service: Service, connection: StoreConnection, operation: Operation, is_untouched: bool
) -> str | None:
    """Set a volume's error status; return its project, None when it has gone."""
    volume = volume_rows.find(connection, operation.resource_id)
    if volume is None:
        return None
    if operation.kind == "revert":
        status = VolumeStatus.AVAILABLE if is_untouched else VolumeStatus.ERROR
        _end_revert(service, connection, operation, status)
        return volume.project_id
    before, after = _VOLUME_FAILURES[operation.kind]
    values: Fields = {"status": after}
    if operation.kind == "extend" and is_untouched:
        values = _before_extend(connection, volume)
    failed = volume_rows.change(
        connection, volume.id, {**values, "updated_at": service.now()}, statuses=(before,)
    )
    if failed and operation.kind == "delete":
        snapshot_ids = operation.arguments.get("snapshot_ids", ())
        _fail_snapshots(service, connection, snapshot_ids, _SNAPSHOT_FAILURES["delete_snapshot"])
    return volume.project_id


def _fail_snapshots(
    service: Service,
    connection: StoreConnection,
    snapshot_ids: Sequence[str],
    statuses: tuple[SnapshotStatus, SnapshotStatus],
) -> str | None:
    """Set snapshots' error status; return their project, None when they have gone."""
    project_id = None
    before, after = statuses
    for snapshot_id in snapshot_ids:
        snapshot = snapshot_rows.find(connection, snapshot_id)
        if snapshot is not None:
            project_id = snapshot.project_id
            snapshot_rows.change(
                connection,
                snapshot_id,
                {"status": after, "updated_at": service.now()},
                statuses=(before,),
            )
    return project_id
