"""A model of one host for recovery: journal, sessions, units and records, in small steps.

Connects and disconnects are generators that pause after each step, so that a test can cut
them off anywhere. Carrying an action out asserts what must never happen: a disk removed that
is open or another's, a session logged out that is in use or another's.
"""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass, field, replace
from itertools import count

from lunport.core.host_connection import HostConnection, OwnedSession, Phase, session_key
from lunport.core.iqn import Iqn
from lunport.core.kernel_session import LOGGED_IN, KernelSession
from lunport.core.node_record import record_place
from lunport.core.portal import Portal
from lunport.core.recovery_actions import (
    DeleteRecord,
    FinishDisconnect,
    ForgetConnection,
    ForgetSession,
    KernelUnit,
    LogOutUnused,
    RecoveryAction,
    ReportLost,
    RestoreRecord,
    UndoConnect,
)
from lunport.core.recovery_plan import HostFacts
from lunport.core.scsi_address import ScsiAddress
from lunport.core.secret import Secret
from lunport.core.target_path import TargetPath
from lunport.core.wwid import Wwid, same_wwid

IQN = Iqn("iqn.2026-11.org.example:shared")
PORTALS = (Portal("10.0.1.2"), Portal("10.0.2.2"))
OURS = "ours"


def path_of(lun: int, portal: int = 0) -> TargetPath:
    """Give a way to a LUN of the one target."""
    return TargetPath(PORTALS[portal], IQN, lun)


def wwid_of(number: int) -> Wwid:
    """Give the identity of a volume."""
    return Wwid(f"naa.6{number:031x}")


def entry_of(lun: int, *, stated: bool = True, boot_id: str = "boot-1") -> HostConnection:
    """Give the entry of a volume that nothing was done for yet; its LUN names it."""
    return HostConnection(
        key=f"volume-{lun}",
        phase=Phase.CONNECTING,
        paths=(path_of(lun, 0), path_of(lun, 1)),
        used=None,
        iface="default",
        addressing_mode=None,
        wwid=wwid_of(lun) if stated else None,
        seen_wwid=None,
        volume_id=None,
        holders=(),
        unit=None,
        disk_name=None,
        size_bytes=None,
        boot_id=boot_id,
        since=0.0,
    )


@dataclass
class HostModel:
    """What is on the disk and in the kernel of one host."""

    boot: int = 1
    connections: dict[str, HostConnection] = field(default_factory=dict)
    owned: dict[str, OwnedSession] = field(default_factory=dict)
    sessions: dict[int, KernelSession] = field(default_factory=dict)
    units: dict[ScsiAddress, KernelUnit] = field(default_factory=dict)
    records: dict[str, str] = field(default_factory=dict)
    our_sids: set[int] = field(default_factory=set)
    numbers: Iterator[int] = field(default_factory=lambda: count(1))

    @property
    def boot_id(self) -> str:
        """Name the boot."""
        return f"boot-{self.boot}"

    def facts(self) -> HostFacts:
        """Gather what a plan is made of."""
        return HostFacts(
            boot_id=self.boot_id,
            connections=tuple(self.connections.values()),
            owned=tuple(self.owned.values()),
            sessions=tuple(self.sessions.values()),
            units=tuple(self.units.values()),
            records=tuple(self.records),
        )

    # -- the kernel --------------------------------------------------------------------------

    def log_in(self, portal: Portal, *, ours: bool) -> KernelSession:
        """Make a session."""
        sid = next(self.numbers)
        session = KernelSession(sid, sid, IQN, portal, "default", "tcp", LOGGED_IN, 1, f"s{sid}")
        self.sessions[sid] = session
        if ours:
            self.our_sids.add(sid)
        return session

    def find(self, portal: Portal) -> KernelSession | None:
        """Find a session."""
        return next((s for s in self.sessions.values() if s.portal == portal), None)

    def show(
        self, session: KernelSession, lun: int, wwid: Wwid | None, *, openers: tuple[str, ...] = ()
    ) -> KernelUnit:
        """Make a unit."""
        address = ScsiAddress(session.scsi_host, 0, 0, lun)
        name = f"sd{session.sid}-{lun}"
        self.units[address] = KernelUnit(session.sid, address, name, wwid, openers)
        return self.units[address]

    def open(self, address: ScsiAddress) -> None:
        """Let somebody open a unit."""
        self.units[address] = replace(self.units[address], openers=("qemu",))

    def remap(self, address: ScsiAddress, wwid: Wwid | None) -> None:
        """Give a unit another identity."""
        self.units[address] = replace(self.units[address], wwid=wwid)

    def lose_session(self, sid: int) -> None:
        """Let a session and its units vanish."""
        del self.sessions[sid]
        for unit in [unit for unit in self.units.values() if unit.sid == sid]:
            del self.units[unit.address]

    def reboot(self) -> None:
        """Start anew: only files are left. Numbers of sessions begin at 1 again."""
        self.boot += 1
        self.sessions.clear()
        self.units.clear()
        self.our_sids.clear()
        self.numbers = count(1)

    # -- work that may be cut off --------------------------------------------------------------

    def connecting(self, entry: HostConnection, portal: int) -> Iterator[str]:
        """Connect a volume through one of its paths, a step at a time."""
        path = entry.paths[portal]
        intent = replace(entry, used=path, boot_id=self.boot_id)
        self.connections[entry.key] = intent
        yield "connect-intended"
        session = self.find(path.portal)
        key = session_key(path.portal, IQN)
        cut_off = self.owned.get(key)
        if session is not None and cut_off is not None and cut_off.sid is None:
            # A login that was cut off and went on without us is noted before anything else.
            self.owned[key] = replace(cut_off, sid=session.sid)
            yield "session-noted"
        if session is None:
            place = record_place(path.portal, IQN, 1, "default")
            earlier = self.owned.get(key)
            before = self.records.get(place)
            replaced = None if before is None else Secret(before)
            owned = OwnedSession(
                path.portal,
                IQN,
                "default",
                1,
                place,
                None,
                self.boot_id,
                earlier.replaced_record if earlier is not None else replaced,
            )
            self.owned[key] = owned
            yield "session-intended"
            self.records[place] = OURS
            yield "record-written"
            session = self.log_in(path.portal, ours=True)
            yield "logged-in"
            self.owned[key] = replace(owned, sid=session.sid)
            yield "session-noted"
        unit = self.show(session, path.lun, wwid_of(path.lun))
        yield "scanned"
        self.connections[entry.key] = replace(
            intent,
            phase=Phase.CONNECTED,
            seen_wwid=unit.wwid,
            unit=unit.address,
            disk_name=unit.disk_name,
        )
        yield "connect-noted"

    def disconnecting(self, key: str) -> Iterator[str]:
        """Disconnect a volume that is connected and closed, a step at a time."""
        entry = self.connections[key]
        self.connections[key] = replace(entry, phase=Phase.DISCONNECTING)
        yield "disconnect-intended"
        if entry.unit is not None:
            self.units.pop(entry.unit, None)
        yield "disk-removed"
        assert entry.used is not None
        owned = self.owned.get(session_key(entry.used.portal, IQN))
        if owned is not None and owned.sid is not None:
            session = self.sessions.get(owned.sid)
            if session is not None and not self._units_on(owned.sid):
                del self.sessions[owned.sid]
                yield "logged-out"
                self._forget(owned, "record-removed")
                yield "session-forgotten"
        del self.connections[key]
        yield "disconnect-noted"

    def _units_on(self, sid: int) -> list[KernelUnit]:
        return [unit for unit in self.units.values() if unit.sid == sid]

    def _forget(self, owned: OwnedSession, _step: str) -> None:
        if owned.replaced_record is None:
            self.records.pop(owned.place, None)
        else:
            self.records[owned.place] = owned.replaced_record.reveal()
        del self.owned[session_key(owned.portal, owned.iqn)]

    # -- carrying actions out ------------------------------------------------------------------

    def carry_out(self, action: RecoveryAction) -> None:
        """Do what an action says, and assert that it may be done."""
        match action:
            case UndoConnect(key, units) | FinishDisconnect(key, units):
                for unit in units:
                    self._remove(unit, self.connections[key])
                del self.connections[key]
            case ReportLost(key) | ForgetConnection(key):
                del self.connections[key]
            case LogOutUnused(portal, iqn, sid):
                assert self.sessions[sid].is_to(portal, iqn)
                # Whose a session is that appeared while a login of ours was cut off, nobody
                # can tell; it was without any unit.
                cut_off = self.owned[session_key(portal, iqn)].sid is None
                assert sid in self.our_sids or cut_off, "a session of others is logged out"
                assert not self._units_on(sid), "a session in use is logged out"
                del self.sessions[sid]
            case RestoreRecord(portal, iqn, place, text):
                self.records[place] = text.reveal()
                del self.owned[session_key(portal, iqn)]
            case DeleteRecord(portal, iqn, place):
                assert self.records[place] == OURS, "a record of others is deleted"
                del self.records[place]
                del self.owned[session_key(portal, iqn)]
            case ForgetSession(portal, iqn):
                del self.owned[session_key(portal, iqn)]
            case _:
                assert not action.changes

    def _remove(self, unit: KernelUnit, entry: HostConnection) -> None:
        found = self.units[unit.address]
        assert found == unit
        assert not found.openers, "a disk in use is removed"
        expected = entry.expected_wwid
        if expected is None:
            assert found.sid in self.our_sids, "a disk of others is removed"
        else:
            others = (one.unit for one in self.connections.values() if one.key != entry.key)
            is_scanned = entry.phase is Phase.CONNECTING and found.sid in self.our_sids
            assert same_wwid(found.wwid, expected) or (
                is_scanned and found.address not in set(others)
            ), "another volume's disk is removed"
        del self.units[unit.address]
