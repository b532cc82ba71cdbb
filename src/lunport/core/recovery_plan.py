"""What to do about the traces of earlier work: of a killed process, a power cut, a reboot.

    what the journal says  +  what the kernel and the node records show  ->  actions, in order

Follows these rules. A disk that anybody has open is never removed. A disk is ours if a
connection of the journal stands at its session and LUN and its identity is that connection's;
with another identity it is not ours to remove, unless a connect that was cut off scanned for it
on a session of ours. A session is ours if the journal has its
number, or has a login begun in this boot of which no number was noted. It is logged out when
no unit is left on it and no connection that stays uses it. A record that took another's place
gives it back. What no journal knows is only shown.

What was written in an earlier boot says nothing about today's kernel: only its node record
and its entry are cleaned away. A connection that was good then is reported; to make it anew
is for whoever wanted it.

Carried out in order, or cut off anywhere and planned again, it ends with nothing to do. The
plan is as good as the facts: whoever carries an action out holds the locks and looks again at
identity and openers before a removal. Never reads or does anything itself.
"""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from dataclasses import dataclass

from lunport.core.host_connection import HostConnection, OwnedSession, Phase
from lunport.core.iqn import Iqn, same_iqn
from lunport.core.kernel_session import KernelSession
from lunport.core.node_record import parse_record_place
from lunport.core.portal import Portal
from lunport.core.recovery_actions import (
    DeleteRecord,
    FinishDisconnect,
    ForgetConnection,
    ForgetSession,
    KeepConnected,
    KernelUnit,
    LeaveBusy,
    LeaveInUse,
    LeftoverRecord,
    LeftoverSession,
    LeftoverUnit,
    LogOutUnused,
    RecoveryAction,
    ReportLost,
    RestoreRecord,
    UndoConnect,
)
from lunport.core.scsi_address import ScsiAddress, kernel_lun
from lunport.core.target_path import TargetPath
from lunport.core.wwid import same_wwid


@dataclass(frozen=True, slots=True)
class HostFacts:
    """All that a plan is made of.

    ``sessions`` and ``units``: what the kernel has, of all sessions, ours or not.
    ``records``: the places of node records to judge: those of owned sessions that exist, and
    any other that is to be shown when no journal knows it. ``busy``: the keys of connections
    that another process is working on now.
    """

    boot_id: str
    connections: tuple[HostConnection, ...]
    owned: tuple[OwnedSession, ...]
    sessions: tuple[KernelSession, ...]
    units: tuple[KernelUnit, ...]
    records: tuple[str, ...]
    busy: frozenset[str] = frozenset()


def plan_recovery(facts: HostFacts) -> tuple[RecoveryAction, ...]:
    """Decide what to do, in order; actions whose ``changes`` is false only tell."""
    return _Planner(facts).plan()


class _Planner:
    """One plan in the making: which units stay with whom, and which go."""

    def __init__(self, facts: HostFacts) -> None:
        self.facts = facts
        self.session_of_sid = {session.sid: session for session in facts.sessions}
        self.owned_of_sid = {
            session.sid: owned
            for owned in facts.owned
            if (session := self._kernel_session(owned)) is not None
        }
        self.claimed: set[ScsiAddress] = set()
        self.removed: set[ScsiAddress] = set()
        self.staying: list[HostConnection] = []

    def plan(self) -> tuple[RecoveryAction, ...]:
        """Plan connections first, since sessions go when no unit is left on them."""
        told: list[RecoveryAction] = []
        ending: list[RecoveryAction] = []
        unfinished: list[HostConnection] = []
        for entry in self.facts.connections:
            if entry.key in self.facts.busy:
                self._stay(entry, self._candidates(entry))
                told.append(LeaveBusy(entry.key))
            elif entry.boot_id != self.facts.boot_id:
                ending.append(_end_of_earlier_boot(entry))
            elif entry.phase is Phase.CONNECTED:
                action = self._judge_connected(entry)
                (ending if action.changes else told).append(action)
            else:
                unfinished.append(entry)
        judged = [self._judge_unfinished(entry) for entry in unfinished]
        told += [action for action in judged if not action.changes]
        removals = [action for action in judged if action.changes]
        sessions = [action for owned in self.facts.owned for action in self._judge_session(owned)]
        return (*told, *removals, *sessions, *ending, *self._leftovers())

    # -- connections -------------------------------------------------------------------------

    def _judge_connected(self, entry: HostConnection) -> KeepConnected | LeaveInUse | ReportLost:
        found = self._candidates(entry)
        # While its identity can't be read, the disk that was noted still counts as it.
        own = [
            unit
            for unit in found
            if self._is_of(entry, unit) or (unit.wwid is None and unit.address == entry.unit)
        ]
        if own:
            self._stay(entry, own)
            return KeepConnected(entry.key, own[0])
        in_use = [unit for unit in found if unit.openers]
        if in_use:
            # Somebody writes to what was ours once: to forget it would be to hide it.
            self._stay(entry, in_use)
            return LeaveInUse(entry.key, in_use[0])
        if found:
            reason = f"{found[0]} is at its place, which is {found[0].identity}"
        elif entry.used is not None and not self._leads_to(entry.used):
            reason = "its session is gone"
        else:
            reason = "its disk is gone"
        return ReportLost(entry.key, entry.volume_id, reason)

    def _judge_unfinished(
        self, entry: HostConnection
    ) -> LeaveInUse | UndoConnect | FinishDisconnect:
        free = [unit for unit in self._candidates(entry) if unit.address not in self.claimed]
        own = [unit for unit in free if self._is_of(entry, unit) or self._is_scanned(entry, unit)]
        in_use = [unit for unit in free if unit.openers and (unit in own or unit.wwid is None)]
        if in_use:
            self._stay(entry, (*in_use, *own))
            return LeaveInUse(entry.key, in_use[0])
        going = tuple(unit for unit in own if unit.address not in self.removed)
        self.removed |= {unit.address for unit in going}
        if entry.phase is Phase.CONNECTING:
            return UndoConnect(entry.key, going)
        return FinishDisconnect(entry.key, going)

    def _stay(self, entry: HostConnection, units: Sequence[KernelUnit]) -> None:
        self.staying.append(entry)
        self.claimed |= {unit.address for unit in units}

    def _candidates(self, entry: HostConnection) -> list[KernelUnit]:
        """List the units at the connection's place, whatever they are.

        Through sessions of others only the path in use counts; while nothing was connected
        yet, an earlier try may have left a unit on any session of ours.
        """
        everywhere = entry.used is None or entry.multipath is not None
        on_ours = everywhere or entry.phase is not Phase.CONNECTED
        found = []
        for unit in self.facts.units:
            session = self.session_of_sid.get(unit.sid)
            if session is None:
                continue
            wide = everywhere or (on_ours and unit.sid in self.owned_of_sid)
            for path in entry.paths if wide else filter(None, (entry.used,)):
                lun = kernel_lun(path.lun, entry.addressing_mode)
                if session.is_to(path.portal, path.iqn) and unit.address.lun == lun:
                    found.append(unit)
                    break
        return found

    def _is_of(self, entry: HostConnection, unit: KernelUnit) -> bool:
        """Tell whether a unit at the connection's place is the connection's."""
        if entry.expected_wwid is not None:
            return same_wwid(unit.wwid, entry.expected_wwid)
        if entry.unit is not None:
            # It was connected and said nothing of itself: it must still say nothing.
            return unit.address == entry.unit and unit.wwid is None
        # Cut off before its identity was noted. Only we scan on a session of ours, and not
        # before its number is noted.
        owned = self.owned_of_sid.get(unit.sid)
        return owned is not None and owned.sid is not None

    def _is_scanned(self, entry: HostConnection, unit: KernelUnit) -> bool:
        """Tell whether a unit is there because this connect scanned for it, whatever it is.

        Nobody else scans on a session of ours, and no connection that stays claims it.
        """
        owned = self.owned_of_sid.get(unit.sid)
        is_ours = owned is not None and owned.sid is not None  # noted before the first scan
        return is_ours and entry.phase is Phase.CONNECTING and not unit.openers

    def _leads_to(self, path: TargetPath) -> bool:
        return any(session.is_to(path.portal, path.iqn) for session in self.facts.sessions)

    # -- sessions ----------------------------------------------------------------------------

    def _kernel_session(self, owned: OwnedSession) -> KernelSession | None:
        """Find the session that we logged in, not another to the same target."""
        if owned.boot_id != self.facts.boot_id:
            return None
        if owned.sid is not None:
            session = self.session_of_sid.get(owned.sid)
            known = session is not None and session.is_to(owned.portal, owned.iqn)
            return session if known else None
        if owned.place not in self.facts.records:
            # The record is written before the login: there was none.
            return None
        found = (s for s in self.facts.sessions if s.is_to(owned.portal, owned.iqn))
        return next(found, None)

    def _judge_session(self, owned: OwnedSession) -> Iterator[RecoveryAction]:
        session = self._kernel_session(owned)
        if self._is_needed(owned, by_any=session is not None):
            return
        if session is not None:
            if any(unit.address not in self.removed for unit in self._units_on(session)):
                return
            yield LogOutUnused(owned.portal, owned.iqn, session.sid)
        if owned.replaced_record is not None:
            yield RestoreRecord(owned.portal, owned.iqn, owned.place, owned.replaced_record)
        elif owned.place in self.facts.records:
            yield DeleteRecord(owned.portal, owned.iqn, owned.place)
        else:
            yield ForgetSession(owned.portal, owned.iqn)

    def _is_needed(self, owned: OwnedSession, *, by_any: bool) -> bool:
        """Tell whether a connection that stays uses it; one in the making may log in any time."""
        return any(
            _uses(entry, owned.portal, owned.iqn)
            for entry in self.staying
            if by_any or entry.key in self.facts.busy
        )

    def _units_on(self, session: KernelSession) -> list[KernelUnit]:
        return [unit for unit in self.facts.units if unit.sid == session.sid]

    # -- what nobody knows ---------------------------------------------------------------------

    def _leftovers(self) -> Iterator[RecoveryAction]:
        for session in self.facts.sessions:
            unknown = [
                unit
                for unit in self._units_on(session)
                if unit.address not in self.claimed and unit.address not in self.removed
            ]
            used = any(_uses(entry, session.portal, session.iqn) for entry in self.staying)
            if session.sid in self.owned_of_sid or used:
                yield from map(LeftoverUnit, unknown)
            else:
                yield LeftoverSession(session, tuple(unknown))
        known = {owned.place for owned in self.facts.owned}
        for place in self.facts.records:
            if place not in known:
                yield LeftoverRecord(place, self._sid_of_record(place))

    def _sid_of_record(self, place: str) -> int | None:
        key = parse_record_place(place)
        if key is None:
            return None
        found = (s.sid for s in self.facts.sessions if s.is_to(key.portal, key.iqn))
        return next(found, None)


def _end_of_earlier_boot(entry: HostConnection) -> ReportLost | ForgetConnection:
    if entry.phase is Phase.CONNECTED:
        return ReportLost(entry.key, entry.volume_id, "this host was started anew since")
    return ForgetConnection(entry.key)


def _uses(entry: HostConnection, portal: Portal, iqn: Iqn) -> bool:
    # Of a map, whoever completes it may log in to any.
    is_one = entry.used is not None and entry.multipath is None
    paths = (entry.used,) if entry.used is not None and is_one else entry.paths
    return any(path.portal == portal and same_iqn(path.iqn, iqn) for path in paths)
