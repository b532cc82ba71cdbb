"""An initiator without a kernel that keeps the real journal, as one that is killed would leave it.

A connect takes what an earlier boot left out of the journal before it asks the portals, and a
recovery gives up what nobody works on: the two things that whoever brings connections back
must live with.
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass, field, replace

from lunport.core.change import Change
from lunport.core.connection_info import ConnectionInfo
from lunport.core.errors import LunportError
from lunport.core.host_connection import HostConnection, Phase, connection_key
from lunport.core.path_status import VolumePaths
from lunport.core.recovery_actions import LeaveBusy, ReportLost
from lunport.core.scsi_address import ScsiAddress
from lunport.host.clock import Deadline
from lunport.initiator.connected_volume import ConnectedVolume
from lunport.initiator.initiator_host import InitiatorHost
from lunport.initiator.lock_names import work_locks
from lunport.initiator.multipath_policy import MultipathPolicy
from lunport.initiator.recover import RecoveryStep


@dataclass(slots=True)
class JournalInitiator:
    """``failures``: what a connect of that key raises. ``midway`` is called within a connect."""

    host: InitiatorHost
    failures: dict[str, LunportError] = field(default_factory=dict)
    connects: list[tuple[ConnectionInfo, bool, MultipathPolicy]] = field(default_factory=list)
    midway: Callable[[], None] = lambda: None

    def connect(
        self,
        info: ConnectionInfo,
        *,
        multipath: bool = False,
        policy: MultipathPolicy | None = None,
        deadline: Deadline | None = None,
    ) -> ConnectedVolume:
        """Write the entry of a connection, unless it is to fail."""
        assert policy is not None
        assert deadline is not None
        key = connection_key(info)
        self.connects.append((info, multipath, policy))
        known = self.host.journal.get(key)
        is_there = (
            known is not None
            and known.phase is Phase.CONNECTED
            and known.boot_id == self.host.boot_id
        )
        if not is_there:
            self.host.journal.remove(key)
            self.midway()
            if key in self.failures:
                raise self.failures[key]
        holders = known.holders if known is not None and is_there else ()
        if info.attachment_id is not None:
            holders = (*holders, info.attachment_id)
        entry = make_entry(info, self.host.boot_id, holders=holders)
        self.host.journal.write(entry)
        self.host.journal.write_chap(key, info.chap)
        return ConnectedVolume(
            path="/dev/sda",
            wwid=info.wwid,
            size_bytes=1 << 30,
            used=info.main_path,
            unit=ScsiAddress(2, 0, 0, 1),
            unused=(),
            change=Change.UNCHANGED if is_there else Change.CHANGED,
            choice_s=0.01,
            elapsed_s=0.2,
        )

    def disconnect(
        self,
        info: ConnectionInfo,
        connected: ConnectedVolume | None = None,
        *,
        force: bool = False,
        deadline: Deadline | None = None,
    ) -> Change:
        """Remove the entry."""
        del connected, force
        assert deadline is not None
        key = connection_key(info)
        known = self.host.journal.get(key)
        self.host.journal.remove(key)
        return Change.UNCHANGED if known is None else Change.CHANGED

    def extend(self, info: ConnectionInfo, *, deadline: Deadline | None = None) -> int:
        """Tell a size."""
        del info, deadline
        return 2 << 30

    def connections(self) -> tuple[HostConnection, ...]:
        """List the journal's."""
        return self.host.journal.connections()

    def paths(self) -> tuple[VolumePaths, ...]:
        """Know of none."""
        return ()

    def recover(
        self, *, remove_leftovers: bool = False, deadline: Deadline | None = None
    ) -> tuple[RecoveryStep, ...]:
        """Give up the connections of an earlier boot that nobody is working on."""
        del remove_leftovers
        assert deadline is not None
        return tuple(
            self._give_up(entry)
            for entry in self.host.journal.connections()
            if entry.boot_id != self.host.boot_id or entry.phase is not Phase.CONNECTED
        )

    def _give_up(self, entry: HostConnection) -> RecoveryStep:
        locks = self.host.locks
        for name in work_locks(entry.key, entry.paths):
            with locks.try_hold(name) as is_free:
                if not is_free:
                    return RecoveryStep(LeaveBusy(entry.key), is_done=False)
        self.host.journal.remove(entry.key)
        return RecoveryStep(ReportLost(entry.key, entry.volume_id, "it is gone"), is_done=True)


def make_entry(
    info: ConnectionInfo, boot_id: str, *, holders: tuple[str, ...] = ()
) -> HostConnection:
    """Make the entry of a connected volume."""
    return HostConnection(
        key=connection_key(info),
        phase=Phase.CONNECTED,
        paths=info.paths,
        used=info.main_path,
        iface="default",
        addressing_mode=info.addressing_mode,
        wwid=info.wwid,
        seen_wwid=info.wwid,
        volume_id=info.volume_id,
        holders=holders,
        unit=ScsiAddress(2, 0, 0, 1),
        disk_name="sda",
        size_bytes=1 << 30,
        boot_id=boot_id,
        since=1_800_000_000.0,
    )


def unfinished(entry: HostConnection, phase: Phase, boot_id: str) -> HostConnection:
    """Return the entry as work that was cut off in some boot leaves it."""
    return replace(entry, phase=phase, boot_id=boot_id)
