"""A target helper in memory, held to the same contract suite as the real one.

Initiators are played by :meth:`FakeHelper.log_in`. ``crash`` loses everything, as the death
of a daemon does; ``fail_next`` makes a verb fail once, before it does anything.
"""

from __future__ import annotations

import threading
from collections.abc import Sequence
from dataclasses import dataclass, field, replace

from lunport.core.change import Change
from lunport.core.chap import ChapCredentials
from lunport.core.errors import (
    AuthenticationFailed,
    ExportFailed,
    InvalidInput,
    InvalidIqn,
    InvalidLun,
    TargetDaemonDown,
    TargetUnknown,
)
from lunport.core.iqn import Iqn
from lunport.core.portal import Portal
from lunport.host.clock import Deadline
from lunport.host.tasks import Stop
from lunport.targets.helper import Export, SeenExport

MAX_LUN = 255


@dataclass(slots=True)
class _Target:
    export: Export
    sessions: list[Iqn] = field(default_factory=list)


class FakeHelper:
    """Targets in memory. Safe to use from several threads."""

    protocol_version = 1
    max_lun = MAX_LUN

    def __init__(self, portals: Sequence[Portal] = (Portal("127.0.0.1"),)) -> None:
        self._portals = tuple(portals)
        self._targets: dict[Iqn, _Target] = {}
        self._lock = threading.RLock()
        self._ended = threading.Event()
        self._ended.set()
        self.calls: list[str] = []
        self.fail_next: dict[str, Exception] = {}

    @property
    def portals(self) -> Sequence[Portal]:
        """The configured portals."""
        return self._portals

    # -- what a test does to it ----------------------------------------------------------

    def log_in(self, iqn: Iqn, initiator: Iqn, credentials: ChapCredentials | None = None) -> None:
        """Play an initiator. Raises: TargetUnknown, AuthenticationFailed."""
        with self._lock:
            target = self._targets.get(iqn)
            if target is None or initiator not in target.export.initiators:
                raise TargetUnknown(iqn, "target not found")
            chap = target.export.chap
            if (chap.initiator if chap else None) != credentials:
                raise AuthenticationFailed(iqn, "wrong credentials")
            target.sessions.append(initiator)

    def crash(self) -> None:
        """Lose everything at once."""
        with self._lock:
            self._targets.clear()
            self._ended.set()

    def described(self, iqn: Iqn) -> Export | None:
        """Return the export of that name as it is now."""
        with self._lock:
            target = self._targets.get(iqn)
            return None if target is None else target.export

    # -- what a helper does --------------------------------------------------------------

    def start(self) -> Change:
        """Come up, without targets if it was down."""
        self._begin("start")
        change = Change.CHANGED if self._ended.is_set() else Change.UNCHANGED
        self._ended.clear()
        return change

    def is_alive(self) -> bool:
        """Tell whether it is up."""
        return not self._ended.is_set()

    def wait_for_exit(self, deadline: Deadline, stop: Stop | None = None) -> bool:
        """Wait for a crash or a stop."""
        if stop is not None and stop.is_set():
            return self._ended.is_set()
        return self._ended.wait(deadline.remaining_s())

    def stop(self) -> Change:
        """Go down."""
        self._begin("stop")
        with self._lock:
            change = Change.UNCHANGED if self._ended.is_set() else Change.CHANGED
            self.crash()
        return change

    def export(self, export: Export) -> Change:
        """Make the target exist exactly so."""
        self._begin("export")
        _check(export)
        with self._lock:
            self._require_up()
            self._require_free(export)
            target = self._targets.get(export.iqn)
            if target is None:
                self._targets[export.iqn] = _Target(export)
                return Change.CHANGED
            if target.export == export:
                return Change.UNCHANGED
            same_unit = replace(
                export, chap=target.export.chap, initiators=target.export.initiators
            )
            if same_unit != target.export and target.sessions:
                raise ExportFailed(export.iqn, "replacement", "an initiator is logged in")
            target.export = export
            target.sessions = [one for one in target.sessions if one in export.initiators]
            return Change.CHANGED

    def unexport(self, iqn: Iqn, tid: int) -> Change:
        """Take the target away."""
        del tid
        self._begin("unexport")
        with self._lock:
            self._require_up()
            gone = self._targets.pop(iqn, None)
        return Change.UNCHANGED if gone is None else Change.CHANGED

    def allow(self, iqn: Iqn, tid: int, initiator: Iqn) -> Change:
        """Let one more initiator log in."""
        self._begin("allow")
        _check_initiator(initiator)
        with self._lock:
            target = self._find(iqn, tid)
            if target is None:
                raise ExportFailed(iqn, "initiator", "there is no such target")
            return self._admit(target, target.export.initiators | {initiator})

    def disallow(self, iqn: Iqn, tid: int, initiator: Iqn) -> Change:
        """Refuse an initiator from now on, and drop its sessions."""
        self._begin("disallow")
        _check_initiator(initiator)
        with self._lock:
            target = self._find(iqn, tid)
            if target is None:
                return Change.UNCHANGED
            return self._admit(target, target.export.initiators - {initiator})

    def exports(self) -> tuple[SeenExport, ...]:
        """List what is there."""
        self._begin("exports")
        with self._lock:
            self._require_up()
            return tuple(
                SeenExport(
                    iqn=one.export.iqn,
                    tid=one.export.tid,
                    path=one.export.path,
                    initiators=one.export.initiators,
                    sessions=len(one.sessions),
                )
                for one in sorted(self._targets.values(), key=lambda one: one.export.tid)
            )

    def _begin(self, verb: str) -> None:
        self.calls.append(verb)
        error = self.fail_next.pop(verb, None)
        if error is not None:
            raise error

    def _require_up(self) -> None:
        if self._ended.is_set():
            raise TargetDaemonDown("the fake", "it is down")

    def _require_free(self, export: Export) -> None:
        users = _users(export)
        for other in self._targets.values():
            if other.export.iqn == export.iqn:
                continue
            if other.export.tid == export.tid:
                raise ExportFailed(export.iqn, "target", f"id {export.tid} is in use")
            if users & _users(other.export):
                raise ExportFailed(export.iqn, "account", "its user name is in use")

    def _find(self, iqn: Iqn, tid: int) -> _Target | None:
        self._require_up()
        target = self._targets.get(iqn)
        return target if target is not None and target.export.tid == tid else None

    @staticmethod
    def _admit(target: _Target, initiators: frozenset[Iqn]) -> Change:
        if initiators == target.export.initiators:
            return Change.UNCHANGED
        target.export = replace(target.export, initiators=initiators)
        target.sessions = [one for one in target.sessions if one in initiators]
        return Change.CHANGED


def _users(export: Export) -> frozenset[str]:
    if export.chap is None:
        return frozenset()
    both = (export.chap.initiator, export.chap.mutual)
    return frozenset(one.username for one in both if one is not None)


def _check(export: Export) -> None:
    if not 1 <= export.lun <= MAX_LUN:
        raise InvalidLun("LUN", export.lun, f"1 to {MAX_LUN}")
    if export.chap is not None and export.chap.mutual is not None and len(_users(export)) == 1:
        raise InvalidInput("mutual username", "", "it must differ from the initiator's")
    for initiator in export.initiators:
        _check_initiator(initiator)


def _check_initiator(initiator: str) -> None:
    if any(character in initiator for character in " ,=") or initiator == "ALL":
        raise InvalidIqn("initiator", initiator, "not a name")
