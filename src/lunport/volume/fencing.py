"""Cut a host off from its volumes at the target, and let it in again.

A revocation is a row. From the moment it is written the desired state (``volume/desired.py``)
is without that host, so neither a restart nor a daemon that comes back lets it in; then each
target that it could use is made so, its sessions dropped. The connections stay: when the
revocation is lifted they are exported again exactly as they were, same LUN, same credentials.

A host is known by the name that its connector declares and by its initiators; a revocation by
name is kept for each initiator that the name was ever seen with, so that a host that calls
itself otherwise gains nothing. Who asks to connect meanwhile is refused, with the reason.

When this returns the host is cut off; a unit that somebody else's target offers is beyond our
reach, which is an error. When it raises the row stands all the same: what could
not be told now is told by the next attempt, ``export check --repair``, or the next start.
"""

from __future__ import annotations

import contextlib
import logging
from collections.abc import Callable, Iterable, Sequence
from contextlib import AbstractContextManager
from dataclasses import dataclass

from lunport.core.change import Change
from lunport.core.errors import BackendError, InvalidInput, LunportError, NotAllowed
from lunport.store import attachments, connections, lookup, revocations, targets
from lunport.store import volumes as volume_rows
from lunport.store.connections import HostConnection
from lunport.store.engine import StoreConnection
from lunport.store.revocations import Revocation
from lunport.volume import desired, exports
from lunport.volume.places import Place, find_place, target_lock, volume_lock
from lunport.volume.reconcile import TargetName, restore
from lunport.volume.requests import Caller
from lunport.volume.service import Service

_LOG = logging.getLogger(__name__)
MAX_REASON = 1000


@dataclass(frozen=True, slots=True)
class HostSelector:
    """Which host, by name or by initiator; of which volume, None for all."""

    host: str | None = None
    initiator: str | None = None
    volume_id: str | None = None

    def __post_init__(self) -> None:
        if not self.host and not self.initiator:
            raise InvalidInput("host", None, "name a host or an initiator")

    def selects(self, revocation: Revocation) -> bool:
        """Tell whether a revocation is about this host, and about no more than this volume."""
        if self.volume_id is not None and revocation.volume_id != self.volume_id:
            return False
        by_name = self.host is not None and revocation.host == self.host
        return by_name or (self.initiator is not None and revocation.initiator == self.initiator)


@dataclass(frozen=True, slots=True)
class Fenced:
    """What was done: whether anything is new, the rows it is about, and the volumes."""

    change: Change
    revocations: tuple[Revocation, ...]
    volume_ids: tuple[str, ...]


def revoke(service: Service, caller: Caller, selector: HostSelector, reason: str = "") -> Fenced:
    """Cut a host off from a volume, or from all (admin). Idempotent.

    Raises: NotAllowed, InvalidInput, VolumeNotFound, BackendError (the row stands).
    """
    _require_admin(caller, "lunport:revoke")
    if len(reason) > MAX_REASON:
        raise InvalidInput("reason", reason, f"at most {MAX_REASON} characters")
    now = service.now()
    with service.store.write() as connection:
        if selector.volume_id is not None:
            lookup.get_volume(connection, selector.volume_id, None)
        known = revocations.active(connection)
        wanted = [
            Revocation(
                id=service.new_id(),
                host=selector.host,
                initiator=initiator,
                volume_id=selector.volume_id,
                reason=reason,
                created_at=now,
                created_by=caller.user_id,
            )
            for initiator in _initiators(connection, selector)
        ]
        new = [one for one in wanted if _same(known, one) is None]
        for one in new:
            revocations.add(connection, one)
        in_force = tuple(_same(known, one) or one for one in wanted)
        concerned = _concerned(connection, in_force)
    for one in new:
        _LOG.warning(
            "host_revoked host=%s initiator=%s volume=%s by=%s request=%s reason=%r",
            one.host,
            one.initiator,
            one.volume_id or "all",
            caller.user_id,
            caller.request_id,
            reason,
        )
    _apply(service, concerned)
    change = Change.CHANGED if new else Change.UNCHANGED
    return Fenced(change, in_force, _volume_ids(concerned))


def lift(service: Service, caller: Caller, selector: HostSelector) -> Fenced:
    """Let a host in again: its connections are exported exactly as they were (admin).

    Without a volume, whatever it was cut off from. Idempotent.
    Raises: NotAllowed, InvalidInput, BackendError (it may connect again all the same).
    """
    _require_admin(caller, "lunport:restore")
    return _lift(service, caller, selector.selects)


def lift_own(service: Service, caller: Caller) -> Fenced:
    """Lift exactly what this caller has revoked, and nothing that somebody else did (admin).

    Idempotent. Raises: as :func:`lift`.
    """
    _require_admin(caller, "lunport:restore")
    return _lift(service, caller, lambda one: one.created_by == caller.user_id)


def _lift(service: Service, caller: Caller, selects: Callable[[Revocation], bool]) -> Fenced:
    now = service.now()
    with service.store.write() as connection:
        lifted = [one for one in revocations.active(connection) if selects(one)]
        for one in lifted:
            revocations.lift(connection, one.id, now=now, by=caller.user_id)
        concerned = _concerned(connection, lifted)
    for one in lifted:
        _LOG.warning(
            "host_restored host=%s initiator=%s volume=%s by=%s request=%s",
            one.host,
            one.initiator,
            one.volume_id or "all",
            caller.user_id,
            caller.request_id,
        )
    _bring_back(service, concerned)
    done = tuple(one._replace(lifted_at=now, lifted_by=caller.user_id) for one in lifted)
    return Fenced(Change.CHANGED if lifted else Change.UNCHANGED, done, _volume_ids(concerned))


def _initiators(connection: StoreConnection, selector: HostSelector) -> Sequence[str | None]:
    """Return the initiators that a revocation is for; None when the name alone is known."""
    if selector.initiator is not None:
        return [selector.initiator]
    known = {row.initiator for row in connections.every(connection) if row.host == selector.host}
    for wire in attachments.connectors(connection):
        initiator = wire.get("initiator")
        if wire.get("host") == selector.host and isinstance(initiator, str):
            known.add(initiator)
    known |= {
        one.initiator
        for one in revocations.every(connection)
        if one.host == selector.host and one.initiator is not None
    }
    return sorted(known) or [None]


def _same(known: Iterable[Revocation], wanted: Revocation) -> Revocation | None:
    for one in known:
        same_host = (one.host, one.initiator) == (wanted.host, wanted.initiator)
        if same_host and one.volume_id == wanted.volume_id:
            return one
    return None


def _concerned(
    connection: StoreConnection, about: Sequence[Revocation]
) -> Sequence[HostConnection]:
    return [row for row in connections.every(connection) if desired.is_revoked(about, row)]


def _volume_ids(concerned: Sequence[HostConnection]) -> tuple[str, ...]:
    return tuple(dict.fromkeys(row.volume_id for row in concerned))


def _apply(service: Service, concerned: Sequence[HostConnection]) -> None:
    """Hide these volumes from their hosts, target by target; one failure stops no other.

    Raises: the first failure, after all were tried; the log has each.
    """
    groups: dict[tuple[str | None, str], list[HostConnection]] = {}
    for row in concerned:
        key = (row.target_id, "" if row.target_id else row.volume_id)
        groups.setdefault(key, []).append(row)
    failures: list[LunportError] = []
    for (target_id, volume_id), rows in groups.items():
        try:
            with contextlib.ExitStack() as locks:
                if target_id is None:
                    locks.enter_context(volume_lock(service, volume_id))
                else:
                    locks.enter_context(_lock_of(service, target_id))
                _hide_all(service, rows)
        except LunportError as error:
            ids = ",".join(sorted({row.volume_id for row in rows}))
            _LOG.error("host_not_cut_off volumes=%s error=%s", ids, error)
            failures.append(error)
    if failures:
        raise failures[0]


def _lock_of(service: Service, target_id: str) -> AbstractContextManager[None]:
    with service.store.read() as connection:
        target = targets.find(connection, target_id)
    return target_lock(service, "" if target is None else target.iqn)


def _hide_all(service: Service, rows: Sequence[HostConnection]) -> None:
    """Hide volumes from hosts at one target. Precondition: the target's lock is held."""
    with service.store.read(snapshot=True) as connection:
        places: dict[str, Place] = {}
        for row in rows:
            volume = volume_rows.find(connection, row.volume_id)
            present = connections.of_volume(connection, row.volume_id)
            if volume is not None and row.id in {one.id for one in present}:
                places[row.id] = find_place(service, connection, volume, row)
                _require_ours(places[row.id], row)
        wanted = None
        if places:
            wanted = desired.wanted_at(service, connection, next(iter(places.values())))
    for row in rows:
        if row.id in places:
            exports.hide(places[row.id], wanted, {row.initiator})
            if wanted is None:
                return  # The target went as a whole.


def _require_ours(place: Place, row: HostConnection) -> None:
    if place.backend.is_elsewhere:
        raise BackendError(
            f"{row.initiator} can only be cut off from volume {row.volume_id} on the storage "
            "that offers it, which is not ours; here it is refused new connections."
        )


def _bring_back(service: Service, concerned: Sequence[HostConnection]) -> None:
    """Make the targets of these connections whole again, each as far as its images are there.

    Raises: the first failure, after all were tried.
    """
    names: dict[str, set[TargetName]] = {}
    with service.store.read(snapshot=True) as connection:
        for row in concerned:
            volume = volume_rows.find(connection, row.volume_id)
            if volume is None:
                continue
            target = None if row.target_id is None else targets.find(connection, row.target_id)
            name = TargetName(volume.id) if target is None else TargetName(target=target)
            names.setdefault(volume.backend, set()).add(name)
    failures: list[str] = []
    for backend_name, wanted in names.items():
        backend = service.backend(backend_name)
        seen = {one.iqn: one for one in backend.helper.exports()}
        for name in sorted(wanted, key=str):
            failures += restore(service, backend, name, seen)
    if failures:
        raise BackendError(failures[0])


def _require_admin(caller: Caller, action: str) -> None:
    if not caller.is_admin:
        raise NotAllowed(action)
