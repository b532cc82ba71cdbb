"""Keep each session's ``recovery_tmo`` at what the disks on it need.

A session may carry a path of a map and somebody's disk without a map, the root disk even:
what is set for the map's sake must not fail the other one's I/O. Which disk is in a map is told
by the journal, and by device-mapper for maps that are not ours. A session's own time, for disks
without a map, is its record's, or else iscsid.conf's.
"""

from __future__ import annotations

from collections.abc import Iterable, Mapping, Sequence
from contextlib import suppress
from dataclasses import dataclass
from typing import Final

from lunport.core.errors import LunportError
from lunport.core.host_connection import HostConnection
from lunport.core.kernel_session import KernelSession
from lunport.core.node_record import parse_record_place
from lunport.core.scsi_address import ScsiAddress
from lunport.core.session_patience import configured_patience_s, needed_patience_s
from lunport.host.iscsi_sysfs import recovery_tmo, session_units, set_recovery_tmo
from lunport.host.multipath_map import find_map
from lunport.host.node_records import read_configuration
from lunport.host.scsi_disk import read_disk
from lunport.initiator.connected_volume import InitiatorPolicy
from lunport.initiator.initiator_host import InitiatorHost
from lunport.initiator.multipath_policy import STALL_TIMES

# Somebody may bring in a disk while it is set; whoever does so looks as well.
_LOOKS: Final = 3


@dataclass(frozen=True, slots=True)
class SessionPatience:
    """The patience of the sessions of one host."""

    host: InitiatorHost
    policy: InitiatorPolicy

    def wanted_s(
        self, session: KernelSession, entries: Sequence[HostConnection] | None = None
    ) -> int | None:
        """Say how long a session should wait for its portal; None is without an end.

        ``entries``: the journal's, for those who ask about many sessions.
        Raises: HostLacks, JournalDamaged.
        """
        known = self.host.journal.connections() if entries is None else entries
        plain, in_maps = self._noted(known)
        disks = [
            disk
            for unit in session_units(self.host.sys, session)
            if (disk := read_disk(self.host.sys, unit)) is not None
        ]
        foreign = {
            disk.address: 0
            for disk in disks
            if disk.address not in plain and find_map(self.host.sys, disk) is not None
        }
        addresses = [disk.address for disk in disks]
        return needed_patience_s(addresses, {**foreign, **in_maps}, self._plain_s(session))

    def settle(self, session: KernelSession) -> None:
        """Set what a session needs. Idempotent. Raises: HostLacks, JournalDamaged."""
        for _ in range(_LOOKS):
            wanted_s = self.wanted_s(session)
            if recovery_tmo(self.host.sys, session.sid) == wanted_s:
                return
            # Quirk(multipath-tools): fast_io_fail_tmo, 5 s unless configured, is written to the
            # sessions of a map with every load of it, whatever else they carry.
            if not set_recovery_tmo(self.host.sys, session.sid, wanted_s):
                return

    def is_right(self, session: KernelSession, entries: Sequence[HostConnection]) -> bool:
        """Tell whether a session has what it needs, or is none that we set.

        Raises: HostLacks, JournalDamaged.
        """
        if not self._is_for_us(session, entries):
            return True
        return recovery_tmo(self.host.sys, session.sid) == self.wanted_s(session, entries)

    def settle_shared(self, session: KernelSession) -> None:
        """Set what a session needs that has got a disk without a map.

        One of others that carries no map of ours is left as it is, and so is one of which it
        can't be known. Idempotent. The journal is read only where something may be to be set.
        """
        with suppress(LunportError):
            if recovery_tmo(self.host.sys, session.sid) == self._plain_s(session):
                return
            if self._is_for_us(session, self.host.journal.connections()):
                self.settle(session)

    def restore(self, sessions: Iterable[KernelSession]) -> None:
        """Set what sessions need that carried a path of a map and may not do so now.

        Idempotent; what can't be known of one is left as it is.
        """
        for session in sessions:
            with suppress(LunportError):
                self.settle(session)

    def _is_for_us(self, session: KernelSession, entries: Sequence[HostConnection]) -> bool:
        _, in_maps = self._noted(entries)
        return self._is_own(session) or any(
            unit in in_maps for unit in session_units(self.host.sys, session)
        )

    def _is_own(self, session: KernelSession) -> bool:
        own = self.host.journal.get_session(session.portal, session.iqn)
        return own is not None and own.sid == session.sid and own.boot_id == self.host.boot_id

    def _noted(
        self, entries: Iterable[HostConnection]
    ) -> tuple[frozenset[ScsiAddress], Mapping[ScsiAddress, int]]:
        """Tell the journal's units without a map, and those of maps with what they need."""
        current = [entry for entry in entries if entry.boot_id == self.host.boot_id]
        in_maps = {
            unit: STALL_TIMES[entry.multipath.stall].recovery_s
            for entry in current
            if entry.multipath is not None
            for unit in entry.units
        }
        plain = {unit for entry in current if entry.multipath is None for unit in entry.units}
        return frozenset(plain), in_maps

    def _plain_s(self, session: KernelSession) -> int | None:
        if self._is_own(session):
            if self.policy.record.replacement_timeout_s is not None:
                return self.policy.record.replacement_timeout_s
            return configured_patience_s(read_configuration())
        # What a record lacks is open-iscsi's default. One that was made by firmware has none.
        return configured_patience_s(*(self._records(session) or [read_configuration()]))

    def _records(self, session: KernelSession) -> list[Mapping[str, str]]:
        """Read what open-iscsi's records say of somebody else's session."""
        return [
            self.host.records.settings(place)
            for place in self.host.records.places(session.iqn)
            if (key := parse_record_place(place)) is not None and key.portal == session.portal
        ]
