"""Carry out accepted work: create, clone, extend, snapshot, delete.

Each operation is a row until the transaction that records its end. Every handler can be
killed at any point and run again: the driver's verbs are idempotent, the row is read anew,
and a volume that has gone in the meantime ends the operation. A failure of the backend
becomes the volume's status and a message to its users; it is never silent.
"""

from __future__ import annotations

import logging
import queue
import threading
from collections.abc import Callable, Mapping
from typing import Any

from lunport.core.errors import BackendError, ImageBusy, LunportError, OutOfSpace
from lunport.core.size import gib_to_bytes
from lunport.core.snapshot import Snapshot, SnapshotStatus
from lunport.core.snapshot import image_name as snapshot_image
from lunport.core.volume import Volume, VolumeStatus
from lunport.core.volume import image_name as volume_image
from lunport.store import attachments as attachment_rows
from lunport.store import operations as rows
from lunport.store import snapshots as snapshot_rows
from lunport.store import volumes as volume_rows
from lunport.store.engine import StoreConnection
from lunport.store.operations import Operation
from lunport.volume import exports, messages
from lunport.volume.service import Service

_LOG = logging.getLogger(__name__)

Fields = Mapping[str, Any]


class Worker:
    """Threads that carry out operations until they are stopped."""

    def __init__(self, threads: int = 2) -> None:
        self._queue: queue.SimpleQueue[Operation | None] = queue.SimpleQueue()
        self._count = threads
        self._threads: list[threading.Thread] = []
        self._stopping = threading.Event()

    def submit(self, operation: Operation) -> None:
        """Hand over one operation; returns at once."""
        self._queue.put(operation)

    def start(self, service: Service) -> None:
        """Start the threads, and hand over what an earlier process left unfinished."""
        with service.store.read() as connection:
            for operation in rows.every(connection):
                self.submit(operation)
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
        self._stopping.set()
        for _ in self._threads:
            self._queue.put(None)
        for thread in self._threads:
            thread.join(within_s)
        return not any(thread.is_alive() for thread in self._threads)

    def _work(self, service: Service) -> None:
        for operation in iter(self._queue.get, None):
            if self._stopping.is_set():
                return
            try:
                carry_out(service, operation)
            except Exception:
                # The thread's top: the row is still there, so the next start tries again.
                _LOG.exception(
                    "operation_failed kind=%s resource=%s", operation.kind, operation.resource_id
                )


def carry_out(service: Service, operation: Operation) -> None:
    """Carry out one operation to its recorded end. Raises: StoreUnavailable, Unavailable."""
    _HANDLERS[operation.kind](service, operation)


def _create(service: Service, operation: Operation) -> None:
    source_volume = operation.arguments.get("source_volid")
    source_snapshot = operation.arguments.get("snapshot_id")
    locked = [operation.resource_id, *filter(None, (source_volume, source_snapshot))]
    with exports.volume_lock(service, *locked):
        volume = _current(service, operation, VolumeStatus.CREATING)
        if volume is None:
            return
        try:
            _make_image(service, volume, source_volume, source_snapshot)
        except BackendError as error:
            _fail(service, operation, volume, {"status": VolumeStatus.ERROR}, error)
            return
        _succeed(service, operation, {"status": VolumeStatus.AVAILABLE}, VolumeStatus.CREATING)


def _make_image(
    service: Service, volume: Volume, source_volume: str | None, source_snapshot: str | None
) -> None:
    driver = service.backend(volume.backend).driver
    image = volume_image(volume.id)
    size_bytes = gib_to_bytes(volume.size_gib)
    if source_volume is None and source_snapshot is None:
        driver.create(image, size_bytes)
        return
    if source_volume is not None:
        _refuse_connected(service, volume.backend, source_volume)
        source = volume_image(source_volume)
    else:
        source = snapshot_image(source_snapshot or "")
    driver.clone(image, source, size_bytes)


def _refuse_connected(service: Service, backend: str, volume_id: str) -> None:
    """Refuse to copy what a host began to use after the request was accepted."""
    if service.backend(backend).driver.copies_atomically:
        return
    with service.store.read() as connection:
        if attachment_rows.connections_of(connection, volume_id):
            raise ImageBusy(volume_id)


def _extend(service: Service, operation: Operation) -> None:
    size_gib = int(operation.arguments["size_gib"])
    with exports.volume_lock(service, operation.resource_id):
        volume = _current(service, operation, VolumeStatus.EXTENDING)
        if volume is None:
            return
        before = volume.previous_status or VolumeStatus.AVAILABLE
        try:
            service.backend(volume.backend).driver.extend(
                volume_image(volume.id), gib_to_bytes(size_gib)
            )
        except OutOfSpace as error:
            # Nothing was touched, so the volume is as good as it was.
            _fail(service, operation, volume, {"status": before, "previous_status": None}, error)
            return
        except BackendError as error:
            _fail(service, operation, volume, {"status": VolumeStatus.ERROR_EXTENDING}, error)
            return
        _succeed(
            service,
            operation,
            {"status": before, "previous_status": None, "size_gib": size_gib},
            VolumeStatus.EXTENDING,
        )


def _delete(service: Service, operation: Operation) -> None:
    """Close what is open, then the snapshots, the image, and last the rows."""
    with exports.volume_lock(service, operation.resource_id):
        volume = _current(service, operation, VolumeStatus.DELETING)
        if volume is None:
            return
        try:
            with service.store.write() as connection:
                present = attachment_rows.connections_of(connection, volume.id)
                attachment_rows.remove_connections(connection, [row.id for row in present])
                snapshots = snapshot_rows.of_volume(connection, volume.id)
            exports.align(service, volume, ())
            driver = service.backend(volume.backend).driver
            for snapshot in snapshots:
                driver.delete(snapshot_image(snapshot.id))
            driver.delete(volume_image(volume.id))
        except BackendError as error:
            _fail(service, operation, volume, {"status": VolumeStatus.ERROR_DELETING}, error)
            return
        with service.store.write() as connection:
            for snapshot in snapshots:
                snapshot_rows.remove(connection, snapshot.id)
            volume_rows.remove(connection, volume.id)
            rows.finish(connection, operation.id)


def _snapshot(service: Service, operation: Operation) -> None:
    volume_id = str(operation.arguments["volume_id"])
    with exports.volume_lock(service, volume_id, operation.resource_id):
        snapshot = _current_snapshot(service, operation, SnapshotStatus.CREATING)
        if snapshot is None:
            return
        try:
            _refuse_connected(service, snapshot.backend, volume_id)
            service.backend(snapshot.backend).driver.snapshot(
                snapshot_image(snapshot.id), volume_image(volume_id)
            )
        except BackendError as error:
            _fail_snapshot(service, operation, snapshot, SnapshotStatus.ERROR, error)
            return
        with service.store.write() as connection:
            snapshot_rows.change(
                connection,
                snapshot.id,
                {
                    "status": SnapshotStatus.AVAILABLE,
                    "progress": "100%",
                    "updated_at": service.now(),
                },
                statuses=(SnapshotStatus.CREATING,),
            )
            rows.finish(connection, operation.id)


def _delete_snapshot(service: Service, operation: Operation) -> None:
    with exports.volume_lock(service, operation.resource_id):
        snapshot = _current_snapshot(service, operation, SnapshotStatus.DELETING)
        if snapshot is None:
            return
        try:
            service.backend(snapshot.backend).driver.delete(snapshot_image(snapshot.id))
        except BackendError as error:
            _fail_snapshot(service, operation, snapshot, SnapshotStatus.ERROR_DELETING, error)
            return
        with service.store.write() as connection:
            snapshot_rows.remove(connection, snapshot.id)
            rows.finish(connection, operation.id)


_HANDLERS: Mapping[str, Callable[[Service, Operation], None]] = {
    "create": _create,
    "extend": _extend,
    "delete": _delete,
    "snapshot": _snapshot,
    "delete_snapshot": _delete_snapshot,
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


def _fail(
    service: Service, operation: Operation, volume: Volume, values: Fields, error: LunportError
) -> None:
    with service.store.write() as connection:
        volume_rows.change(
            connection,
            volume.id,
            {**values, "updated_at": service.now()},
            statuses=(volume.status,),
        )
        _report(service, connection, operation, volume.project_id, "VOLUME", error)


def _fail_snapshot(
    service: Service,
    operation: Operation,
    snapshot: Snapshot,
    status: SnapshotStatus,
    error: LunportError,
) -> None:
    with service.store.write() as connection:
        snapshot_rows.change(
            connection, snapshot.id, {"status": status, "updated_at": service.now()}
        )
        _report(service, connection, operation, snapshot.project_id, "VOLUME_SNAPSHOT", error)


def _report(
    service: Service,
    connection: StoreConnection,
    operation: Operation,
    project_id: str,
    resource_type: str,
    error: LunportError,
) -> None:
    _LOG.warning(
        "operation_refused kind=%s resource=%s error=%s",
        operation.kind,
        operation.resource_id,
        error,
    )
    messages.tell(
        service,
        connection,
        project_id=project_id,
        request_id=operation.request_id,
        resource_type=resource_type,
        resource_id=operation.resource_id,
        event_id=f"{resource_type}_{operation.kind}".upper(),
        text=f"{operation.kind}: {error}",
    )
    rows.finish(connection, operation.id)
