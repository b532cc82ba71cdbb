"""Where a volume is offered to a host: on which target, at which LUN; and the locks of targets.

A backend's policy decides for a *new* connection: the volume's own target
(``target_per_volume``), its host's (``target_per_host``), or the one of the backend
(``shared_target``). It is kept with the connection, so that a backend whose policy was changed
goes on to serve what was connected before.

The row of a host's or shared target stays when the target goes, for good. Its name, number and
credentials are the same the next time, and no LUN is used again while another one is left that
has been free for longer (``core/lun_allocation.py``). No moment is known at which the row could
go: a host that missed a detach keeps its disks and tries to log in again as long as it runs,
whatever became of the target, and it names its targets as before after years. Without the row
its next volume would be at LUN 1 again, where such a disk may be. What is kept is small: a row
for each initiator that was ever connected, and one for each LUN that was ever used on its target.

Locks, always in this order, so that nobody waits in a circle:

1. the volumes', by name, all in one go;
2. the targets', by name, all in one go: of every target of several volumes that the volume is
   on, and of the one that it shall be on.

Who has the lock of a target asks for no volume's. A volume's own target has no lock: it is
touched under the volume's. What the rows say of a target and what the helper is told of it
change under its lock alone, from the intent to the end, so that a look at both, such as the
restoration of a target, never meets half a connection.
"""

from __future__ import annotations

import contextlib
from collections.abc import Iterable, Iterator, Sequence
from dataclasses import dataclass

from lunport.core.errors import BackendError, ExportLimit
from lunport.core.iqn import Iqn
from lunport.core.lun_allocation import allocate_lun
from lunport.core.volume import Volume
from lunport.store import connections, targets, volumes
from lunport.store.connections import HostConnection
from lunport.store.engine import StoreConnection
from lunport.store.targets import Target, TargetKind
from lunport.volume.service import LOCK_WAIT_S, Backend, Service


@dataclass(frozen=True, slots=True)
class Place:
    """A volume on a target. ``target`` is None for the volume's own."""

    backend: Backend
    volume: Volume
    target: Target | None
    lun: int

    @property
    def iqn(self) -> Iqn:
        """The target's name."""
        if self.target is None:
            return self.backend.target_name(self.volume.id)
        return Iqn(self.target.iqn)

    @property
    def tid(self) -> int:
        """The target's number."""
        return self.volume.target_number if self.target is None else self.target.number


# -- locks -----------------------------------------------------------------------------------


@contextlib.contextmanager
def volume_lock(service: Service, *volume_ids: str) -> Iterator[None]:
    """Hold the locks of volumes. Raises: Unavailable."""
    with service.locks.hold([f"Volume {one}" for one in volume_ids], LOCK_WAIT_S):
        yield


@contextlib.contextmanager
def target_lock(service: Service, *names: str) -> Iterator[None]:
    """Hold the locks of targets of several volumes. Raises: Unavailable."""
    with service.locks.hold([f"Target {one}" for one in names], LOCK_WAIT_S):
        yield


@contextlib.contextmanager
def connection_locks(
    service: Service, volume_id: str, initiator: str | None = None
) -> Iterator[None]:
    """Hold a volume's lock, and those of the targets that its connections go through.

    ``initiator``: a host that shall be connected. Raises: Unavailable.
    """
    with volume_lock(service, volume_id):
        with service.store.read() as connection:
            volume = volumes.find(connection, volume_id)
            present = connections.of_volume(connection, volume_id)
            names = target_names(connection, present)
        if volume is not None and initiator is not None and volume.backend in service.backends:
            name = _new_name(service.backends[volume.backend], initiator)
            names |= {name} if name is not None else set()
        with target_lock(service, *names):
            yield


def target_names(connection: StoreConnection, rows: Iterable[HostConnection]) -> set[str]:
    """Name the targets of several volumes that connections go through."""
    found = (targets.find(connection, one) for one in {row.target_id for row in rows} if one)
    return {target.iqn for target in found if target is not None}


def _new_name(backend: Backend, initiator: str) -> str | None:
    if backend.policy.export == "target_per_host":
        return backend.host_target(initiator)
    return backend.shared_target if backend.policy.export == "shared_target" else None


# -- finding and making ----------------------------------------------------------------------


def find_place(
    service: Service, connection: StoreConnection, volume: Volume, row: HostConnection
) -> Place:
    """Return where a connection has its volume. Raises: BackendNotFound, BackendError."""
    backend = service.backend(volume.backend)
    if row.target_id is None:
        return Place(backend, volume, None, backend.policy.lun)
    target = targets.find(connection, row.target_id)
    lun = targets.lun_of(connection, row.target_id, volume.id)
    if target is None or lun is None:
        raise BackendError(f"Connection {row.id} has no LUN on target {row.target_id}.")
    return Place(backend, volume, target, lun)


def make_place(
    service: Service,
    connection: StoreConnection,
    volume: Volume,
    initiator: str,
    present: Sequence[HostConnection],
) -> Place:
    """Find or make the place for a new connection, credentials included.

    A host that uses the volume already gets the same target again, whatever the policy is now.
    Precondition: the locks are held. Raises: ExportLimit (nothing is changed), BackendNotFound.
    """
    backend = service.backend(volume.backend)
    for row in present:
        if row.initiator == initiator:
            return find_place(service, connection, volume, row)
    name = _new_name(backend, initiator)
    if name is None:
        if all(row.target_id is not None for row in present):
            _require_room(connection, backend)
        return Place(backend, volume, None, backend.policy.lun)
    target = targets.find_by_name(connection, backend.name, name)
    if target is None or not connections.is_on_target(connection, target.id):
        _require_room(connection, backend)
    if target is None:
        target = _add_target(service, connection, backend, name, initiator)
    lun = targets.lun_of(connection, target.id, volume.id)
    if lun is None:
        lun = _allocate(connection, backend, target, volume)
    if initiator not in targets.initiators(connection, target.id):
        chap = service.new_chap() if backend.policy.chap else None
        targets.add_initiator(connection, target.id, initiator, chap)
    return Place(backend, volume, target, lun)


def _add_target(
    service: Service, connection: StoreConnection, backend: Backend, name: str, initiator: str
) -> Target:
    kind: TargetKind = "host" if backend.policy.export == "target_per_host" else "shared"
    target = Target(
        id=service.new_id(),
        backend=backend.name,
        number=volumes.next_target_number(connection, backend.name),
        kind=kind,
        initiator=initiator if kind == "host" else None,
        iqn=name,
        created_at=service.now(),
    )
    targets.add(connection, target)
    return target


def _allocate(connection: StoreConnection, backend: Backend, target: Target, volume: Volume) -> int:
    limits = backend.helper.limits
    held, highest = targets.count_luns(connection, target.id)
    if highest is None or highest < limits.max_lun:
        # Those above were never used: the history, which may be long, need not be read.
        first = limits.min_lun if highest is None else max(limits.min_lun, highest + 1)
        at_most = backend.max_luns - held
        lun = allocate_lun((), first=first, last=limits.max_lun, at_most=at_most)
    else:
        uses = targets.lun_uses(connection, target.id)
        lun = allocate_lun(
            uses, first=limits.min_lun, last=limits.max_lun, at_most=backend.max_luns
        )
    if lun is None:
        most = min(backend.max_luns, limits.max_lun - limits.min_lun + 1)
        whose = f"Target {target.iqn}"
        if target.initiator is not None:
            whose += f" of {target.initiator}"
        raise ExportLimit(whose, "logical units", most, held)
    targets.hold_lun(connection, target.id, lun, volume.id)
    return lun


def _require_room(connection: StoreConnection, backend: Backend) -> None:
    """Refuse one target more than there may be. Counting is dear, and rarely needed."""
    limit = backend.max_targets
    if connections.is_below(connection, limit):
        return
    used = connections.count_targets(connection, backend.name)
    if used >= limit:
        raise ExportLimit(f"Backend {backend.name}", "targets", limit, used)


def forget(service: Service, connection: StoreConnection, gone: Sequence[HostConnection]) -> None:
    """Remove connections; a LUN that none of the others needs is free from now on.

    Precondition: the target shows their hosts the volume no more.
    """
    connections.remove(connection, [row.id for row in gone])
    for target_id, volume_id in sorted(
        {(row.target_id, row.volume_id) for row in gone if row.target_id is not None}
    ):
        left = connections.of_volume(connection, volume_id)
        if all(row.target_id != target_id for row in left):
            targets.free_lun(connection, target_id, volume_id, service.now())
