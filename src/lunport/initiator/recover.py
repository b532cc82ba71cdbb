"""Bring this host back to what its journal stands for, after kills, power cuts and reboots.

Gathers the facts, lets :mod:`lunport.core.recovery_plan` decide, and carries the actions out
under the same locks as everybody else. What somebody works on now is left alone; identity and
openers are looked at once more before a disk goes. An action that fails is reported and does
not keep the others from being carried out.
"""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence
from contextlib import ExitStack, contextmanager
from dataclasses import dataclass

from lunport.core.change import Change
from lunport.core.errors import LunportError, WrongDevice
from lunport.core.host_connection import HostConnection, Phase
from lunport.core.kernel_session import KernelSession
from lunport.core.recovery_actions import (
    DeleteRecord,
    FinishDisconnect,
    ForgetConnection,
    ForgetSession,
    KernelUnit,
    LeftoverRecord,
    LeftoverSession,
    LeftoverUnit,
    LogOutUnused,
    RecoveryAction,
    ReportLost,
    RestoreRecord,
    UndoConnect,
)
from lunport.core.recovery_plan import HostFacts, plan_recovery
from lunport.core.scsi_address import ScsiAddress
from lunport.core.wwid import Wwid, same_wwid
from lunport.host.block_openers import find_openers
from lunport.host.clock import Deadline
from lunport.host.iscsi_sysfs import list_sessions, read_session, session_units
from lunport.host.iscsiadm import logout
from lunport.host.multipath_map import find_map, find_users
from lunport.host.scsi_disk import ScsiDisk, read_disk, read_wwid
from lunport.initiator.connected_volume import InitiatorPolicy
from lunport.initiator.disconnect import Disconnection
from lunport.initiator.disks import Disks
from lunport.initiator.initiator_host import InitiatorHost
from lunport.initiator.lock_names import use_lock, work_locks
from lunport.initiator.sessions import Sessions

_PASSES = 3  # a leftover session's record becomes removable once the session is gone


@dataclass(frozen=True, slots=True)
class RecoveryStep:
    """One action: whether it was carried out, and why not if it was tried in vain."""

    action: RecoveryAction
    is_done: bool
    error: LunportError | None = None


@dataclass(frozen=True, slots=True)
class Recovery:
    """Recovers one host."""

    host: InitiatorHost
    policy: InitiatorPolicy
    sessions: Sessions
    disks: Disks
    disconnection: Disconnection

    def look(self) -> tuple[RecoveryAction, ...]:
        """Say what there is to do and what nobody's journal knows; change nothing."""
        with self._facts() as (facts, _):
            return plan_recovery(facts)

    def run(
        self, deadline: Deadline, *, remove_leftovers: bool = False
    ) -> tuple[RecoveryStep, ...]:
        """Do what there is to do. Idempotent; what can't be done in time stays for the next.

        ``remove_leftovers``: also what no journal knows, where nobody has it open.
        """
        with self._facts() as (facts, held):
            actions = plan_recovery(facts)
            # What is as it shall be is nobody's business for as long as the rest takes.
            ending = {key for action in actions if (key := _key_of(action)) is not None}
            for key in held.keys() - ending:
                held[key].close()
            steps = []
            for action in actions:
                steps.append(self._carry_out(action, deadline))
                ended = _key_of(action)
                if ended is not None:
                    held[ended].close()
        for _ in range(_PASSES if remove_leftovers else 0):
            removed = self._remove_leftovers(deadline)
            steps = [step for step in steps if step.is_done or step.action.changes] + removed
            if not any(step.is_done for step in removed):
                break
        self.host.locks.sweep()
        self.host.journal.sweep()
        return tuple(steps)

    # -- facts -------------------------------------------------------------------------------

    @contextmanager
    def _facts(self) -> Iterator[tuple[HostFacts, Mapping[str, ExitStack]]]:
        """Look at everything, while nobody works on what the journal has and is free now.

        Yields as well the locks of each connection that is free, by its key.
        """
        with ExitStack() as all_held:
            # Listed once: what begins from now on is not ours to judge, and holds its locks.
            connections = self.host.journal.connections()
            held: dict[str, ExitStack] = {}
            for entry in connections:
                locks = self._take(work_locks(entry.key, entry.paths))
                if locks is not None:
                    held[entry.key] = all_held.enter_context(locks)
            busy = frozenset(entry.key for entry in connections if entry.key not in held)
            # What was finished before its locks were taken has another entry now, or none.
            connections = tuple(
                now
                for entry in connections
                if (now := self.host.journal.get(entry.key)) is not None
            )
            # Before the owned sessions: whoever writes a record has noted its session first.
            records = self.host.records.all_places()
            sessions = list_sessions(self.host.sys)
            standing = self._standing(connections)
            units = (unit for session in sessions for unit in self._units(session, standing))
            facts = HostFacts(
                boot_id=self.host.boot_id,
                connections=connections,
                owned=self.host.journal.sessions(),
                sessions=sessions,
                units=tuple(units),
                records=records,
                busy=busy,
            )
            yield facts, held

    def _take(self, names: frozenset[str]) -> ExitStack | None:
        """Take all of these locks if they are free, or none."""
        with ExitStack() as mine:
            for name in sorted(names):
                if not mine.enter_context(self.host.locks.try_hold(name)):
                    return None
            return mine.pop_all()

    def _standing(self, connections: Sequence[HostConnection]) -> dict[ScsiAddress, Wwid]:
        """Say who is to be at the units of the connections that stand, as far as that is known."""
        return {
            unit: entry.expected_wwid
            for entry in connections
            if entry.phase is Phase.CONNECTED and entry.boot_id == self.host.boot_id
            for unit in entry.units
            if entry.expected_wwid is not None
        }

    def _units(
        self, session: KernelSession, standing: Mapping[ScsiAddress, Wwid]
    ) -> Iterator[KernelUnit]:
        for address in session_units(self.host.sys, session):
            disk = read_disk(self.host.sys, address)
            if disk is None:
                wwid = read_wwid(self.host.sys, address)
                yield KernelUnit(session.sid, address, None, wwid, ())
            elif same_wwid(disk.wwid, standing.get(address)):
                # It stays, whoever uses it: nobody need be looked for.
                yield KernelUnit(session.sid, address, disk.name, disk.wwid, ())
            else:
                openers = self._openers(disk)
                yield KernelUnit(session.sid, address, disk.name, disk.wwid, openers)

    def _openers(self, disk: ScsiDisk) -> tuple[str, ...]:
        deadline = Deadline.after(self.policy.close_s)
        try:
            found = find_map(self.host.sys, disk)
            if found is not None:
                openers = find_users(self.host.sys, found, deadline)
            else:
                openers = find_openers(self.host.sys, disk, deadline)
            return tuple(opener.who for opener in openers)
        except LunportError as error:
            return (f"nobody knows whom ({error})",)

    # -- actions -----------------------------------------------------------------------------

    def _carry_out(self, action: RecoveryAction, deadline: Deadline) -> RecoveryStep:
        if not action.changes:
            return RecoveryStep(action, is_done=False)
        try:
            self._act(action, deadline.at_most(self.policy.budget_s))
        except LunportError as error:
            return RecoveryStep(action, is_done=False, error=error)
        self.host.on_step("recovered")
        return RecoveryStep(action, is_done=True)

    def _act(self, action: RecoveryAction, deadline: Deadline) -> None:
        match action:
            case UndoConnect() | FinishDisconnect() if self._has_map(action.key):
                self._disconnect(action.key, deadline, force=isinstance(action, UndoConnect))
            case UndoConnect():
                for unit in action.units:
                    self._remove_unit(unit, deadline, flush=False)
                self.host.journal.remove(action.key)
            case FinishDisconnect():
                for unit in action.units:
                    self._remove_unit(unit, deadline, flush=True)
                self.host.journal.remove(action.key)
            case ReportLost() | ForgetConnection():
                if self._has_map(action.key):
                    self._forget_map(action.key, deadline)
                self.host.journal.remove(action.key)
            case LogOutUnused() | DeleteRecord() | RestoreRecord() | ForgetSession():
                self.sessions.release(action.portal, action.iqn, deadline)
            case _:
                pass

    def _has_map(self, key: str) -> bool:
        entry = self.host.journal.get(key)
        return entry is not None and entry.multipath is not None

    def _disconnect(self, key: str, deadline: Deadline, *, force: bool) -> None:
        """Take down a map with all that it is made of, as a disconnect does."""
        entry = self.host.journal.get(key)
        if entry is not None:
            self.disconnection.run(
                entry, mode=entry.addressing_mode, force=force, deadline=deadline
            )

    def _forget_map(self, key: str, deadline: Deadline) -> None:
        """Take down what may be left of the map of a connection that is lost."""
        entry = self.host.journal.get(key)
        if entry is not None:
            self.disconnection.maps.end(entry, deadline)
            self.host.path_notes.remove(key)

    def _remove_unit(self, unit: KernelUnit, deadline: Deadline, *, flush: bool) -> None:
        """Remove a unit that is still what it was when the plan was made, and still closed."""
        disk = self._as_planned(unit)
        if disk is not None:
            self.disks.require_closed(disk, deadline)
            if flush:
                session = read_session(self.host.sys, unit.sid)
                is_answering = session is not None and self.disks.answers(session, disk, deadline)
                self._as_planned(unit)
                self.disks.write_out(disk, deadline, is_answering=is_answering)
        self.disks.take_out(unit.address, deadline)

    def _as_planned(self, unit: KernelUnit) -> ScsiDisk | None:
        disk = read_disk(self.host.sys, unit.address)
        # The kernel makes the disk of a unit a moment after the unit: it may be there only now.
        if disk is not None and (disk.wwid != unit.wwid or unit.disk_name not in (None, disk.name)):
            raise WrongDevice(disk.path, unit.identity, str(disk.wwid))
        return disk

    # -- what nobody's journal knows ---------------------------------------------------------

    def _remove_leftovers(self, deadline: Deadline) -> list[RecoveryStep]:
        return [
            self._remove_leftover(action, deadline.at_most(self.policy.budget_s))
            for action in self.look()
            if isinstance(action, LeftoverUnit | LeftoverSession | LeftoverRecord)
        ]

    def _remove_leftover(
        self, action: LeftoverUnit | LeftoverSession | LeftoverRecord, deadline: Deadline
    ) -> RecoveryStep:
        if not action.is_removable:
            return RecoveryStep(action, is_done=False)
        try:
            match action:
                case LeftoverUnit():
                    is_done = self._remove_unknown(
                        action.unit.sid, (action.unit,), deadline, log_out=False
                    )
                case LeftoverSession():
                    is_done = self._remove_unknown(
                        action.session.sid, action.units, deadline, log_out=True
                    )
                case LeftoverRecord():
                    is_done = self.host.records.delete(action.place) is Change.CHANGED
        except LunportError as error:
            return RecoveryStep(action, is_done=False, error=error)
        return RecoveryStep(action, is_done=is_done)

    def _remove_unknown(
        self, sid: int, units: Sequence[KernelUnit], deadline: Deadline, *, log_out: bool
    ) -> bool:
        """Remove units, and their session, unless somebody is about to use the session."""
        session = read_session(self.host.sys, sid)
        if session is None:
            return False
        with self.host.locks.try_hold(use_lock(session.portal, session.iqn)) as alone:
            known = {unit for entry in self.host.journal.connections() for unit in entry.units}
            if not alone or any(unit.address in known for unit in units):
                return False
            for unit in units:
                self._remove_unit(unit, deadline, flush=True)
            if log_out:
                logout(sid, where=f"{session.portal} {session.iqn}", deadline=deadline)
        return True


def _key_of(action: RecoveryAction) -> str | None:
    """Return the connection that an action ends; None for sessions, records and leftovers."""
    match action:
        case UndoConnect() | FinishDisconnect() | ReportLost() | ForgetConnection():
            return action.key
        case _:
            return None
