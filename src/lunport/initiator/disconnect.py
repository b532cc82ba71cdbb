"""Take one volume's disk away from this host, and all that only it needed.

    intend (journal) -> closed? -> flush -> delete -> log out if unused -> record -> journal

The path that was used comes from the journal; without an entry it is found in sysfs, by
session and unit, never guessed. Nothing is asked of the portal to find it, so a dead one
does not matter. A disk whose identity is not the one the journal or the connection info has
is not ours, and stays. Never logs out a session that somebody else uses.
"""

from __future__ import annotations

import time
from collections.abc import Iterator, Sequence
from dataclasses import dataclass, replace

from lunport.core.change import Change
from lunport.core.connection_info import AddressingMode
from lunport.core.errors import DeviceBusy, DeviceStuck, FlushFailed, WrongDevice
from lunport.core.host_connection import HostConnection, Phase
from lunport.core.kernel_session import KernelSession
from lunport.core.scsi_address import kernel_lun
from lunport.core.target_path import TargetPath
from lunport.core.wwid import Wwid, same_wwid
from lunport.host.clock import Deadline
from lunport.host.scsi_disk import (
    ScsiDisk,
    find_unit,
    read_disk,
)
from lunport.initiator.connected_volume import InitiatorPolicy
from lunport.initiator.disks import Disks
from lunport.initiator.initiator_host import InitiatorHost
from lunport.initiator.sessions import Sessions

_LOOK_AGAIN_S = 1.0  # a look at the openers that is older is made once more


@dataclass(frozen=True, slots=True)
class Disconnection:
    """Disconnects volumes of one host."""

    host: InitiatorHost
    policy: InitiatorPolicy
    sessions: Sessions
    disks: Disks

    def run(
        self,
        entry: HostConnection,
        *,
        mode: AddressingMode | None,
        force: bool,
        deadline: Deadline,
    ) -> Change:
        """Disconnect what ``entry`` stands for; whether it is in the journal does not matter.

        Idempotent. ``force``: go on where the disk can't be flushed, and what was not
        written is lost. Raises: DeviceBusy and FlushFailed (all is as before), DeviceStuck,
        IscsiError (the journal then has what is left, for the next try or ``recover``).
        """
        was = self.host.journal.get(entry.key)
        found = list(self._find(entry, mode))
        if was is None and not found:
            return self._release_all(entry.paths, deadline)
        self.host.journal.write(replace(entry, phase=Phase.DISCONNECTING))
        self.host.on_step("disconnect-intended")
        for session, disk in found:
            try:
                is_answering = self._prepare(entry, session, disk, force=force, deadline=deadline)
            except (DeviceBusy, FlushFailed, WrongDevice):
                # Nothing was done to it. After any other error it is half gone, and to go.
                self._restore(entry.key, was)
                raise
            if is_answering is None:
                pass  # it was not the right one any more, and is gone
            elif is_answering:
                self.disks.take_out(disk.address, deadline)
            else:
                self._take_out_dead(session, disk, deadline)
            self.host.on_step("disk-removed")
        # The sessions are in the journal on their own account.
        self.host.journal.remove(entry.key)
        self.host.on_step("disconnect-noted")
        self._release_all(entry.paths, deadline)
        return Change.CHANGED

    def _find(
        self, entry: HostConnection, mode: AddressingMode | None
    ) -> Iterator[tuple[KernelSession, ScsiDisk]]:
        """Find the disks that are this volume's: on the path used, or else on any path.

        Where the journal says that the disk there is ours, it is, whatever it says it is now.
        """
        for path in (entry.used,) if entry.used is not None else entry.paths:
            session = self.sessions.find(path.portal, path.iqn)
            if session is None:
                continue
            address = find_unit(self.host.sys, session, kernel_lun(path.lun, mode))
            disk = None if address is None else read_disk(self.host.sys, address)
            is_noted = address == entry.unit and entry.boot_id == self.host.boot_id
            if disk is not None and (is_noted or _is_the_one(disk, entry.expected_wwid)):
                yield session, disk

    def _prepare(
        self,
        entry: HostConnection,
        session: KernelSession,
        disk: ScsiDisk,
        *,
        force: bool,
        deadline: Deadline,
    ) -> bool | None:
        """Make a disk ready to go, written back if it is still the one and its storage answers.

        Tells whether it answers; None when the disk was another one by now, and was removed.
        """
        self.disks.require_closed(disk, deadline)
        self.host.on_step("closed")
        looked_at = time.monotonic()
        is_answering = self.disks.answers(session, disk, deadline)
        now = read_disk(self.host.sys, disk.address)
        if now is not None and not _is_the_one(now, entry.expected_wwid):
            self.disks.discard(now, deadline, expected=entry.expected_wwid)
            return None
        try:
            self.disks.write_out(disk, deadline, is_answering=is_answering)
        except FlushFailed:
            if not force:
                raise
        self.host.on_step("flushed")
        if time.monotonic() - looked_at > _LOOK_AGAIN_S:
            self.disks.require_closed(disk, deadline)
        return is_answering

    def _take_out_dead(self, session: KernelSession, disk: ScsiDisk, deadline: Deadline) -> None:
        """Take out a disk whose storage is silent, with the session if that is the only way."""
        try:
            self.disks.take_out(disk.address, deadline.at_most(self.policy.flush_s))
        except DeviceStuck:
            # Another unit's removal may have the SCSI host locked. A logout ends all that waits.
            stuck = disk.address
            released = self.sessions.release(session.portal, session.iqn, deadline, stuck=stuck)
            if released is Change.UNCHANGED:
                raise

    def _release_all(self, paths: Sequence[TargetPath], deadline: Deadline) -> Change:
        change = Change.UNCHANGED
        for portal, iqn in dict.fromkeys((path.portal, path.iqn) for path in paths):
            change |= self.sessions.release(portal, iqn, deadline)
        return change

    def _restore(self, key: str, was: HostConnection | None) -> None:
        """Write back what the journal had before a disconnect that did nothing."""
        if was is None:
            self.host.journal.remove(key)
        else:
            self.host.journal.write(was)


def _is_the_one(disk: ScsiDisk, expected: Wwid | None) -> bool:
    return expected is None or same_wwid(disk.wwid, expected)
