"""One logical unit of a session as a disk of this host, and gone again.

A disk is handed out only after its identity was compared with the one stated, or held
against the one seen before; nothing of ours opens it before. A disk that is there already is
made to tell its identity anew, since a unit that was remapped on the storage side keeps its
old one in the kernel (what let CVE-2023-2088 happen). One with another identity is removed
if nobody has it open, and refused if somebody has.
"""

from __future__ import annotations

from collections.abc import Callable
from contextlib import suppress
from dataclasses import dataclass
from typing import Final

from lunport.core.change import Change
from lunport.core.connection_info import AddressingMode
from lunport.core.errors import (
    DeviceBusy,
    DeviceError,
    DeviceMissing,
    DeviceStuck,
    FlushFailed,
    LunMissing,
    SessionMissing,
    WrongDevice,
)
from lunport.core.host_connection import Phase
from lunport.core.kernel_session import KernelSession
from lunport.core.scsi_address import ScsiAddress, kernel_lun
from lunport.core.target_path import TargetPath
from lunport.core.wwid import Wwid, same_wwid
from lunport.host.block_flush import flush_disk, write_back
from lunport.host.block_openers import find_openers, wait_until_closed
from lunport.host.clock import Deadline
from lunport.host.multipath_map import (
    MultipathMap,
    find_map,
    find_users,
    map_wwid,
    remove_map,
)
from lunport.host.scsi_disk import (
    RUNNING,
    ScsiDisk,
    delete_unit,
    disable_cache_sync,
    find_unit,
    read_disk,
    rescan,
    scan_lun,
    set_offline,
    wait_for_disk,
    wait_for_removal,
)
from lunport.host.uevents import Uevent, Uevents, UeventSource
from lunport.initiator.connected_volume import InitiatorPolicy
from lunport.initiator.initiator_host import InitiatorHost

# Pauses between scans for a unit that its target does not show yet, in seconds.
_RESCAN_AFTER_S: Final = (0.1, 0.2, 0.4, 0.8, 1.0, 1.0, 1.0, 1.0, 1.0, 1.0)

_MAPS_MADE_ANEW = 3  # multipathd may make a map again for an event that was still on its way


@dataclass(frozen=True, slots=True)
class Disks:
    """The disks of one host."""

    host: InitiatorHost
    policy: InitiatorPolicy

    def obtain(
        self,
        session: KernelSession,
        path: TargetPath,
        *,
        mode: AddressingMode | None,
        expected: Wwid | None,
        deadline: Deadline,
    ) -> ScsiDisk:
        """Make the path's unit a disk whose identity is the expected one, and return it.

        On failure a disk that this call made is gone again. Raises: LunMissing, DeviceMissing,
        WrongDevice, DeviceBusy, DeviceStuck.
        """
        lun = kernel_lun(path.lun, mode)
        address = find_unit(self.host.sys, session, lun)
        if address is not None:
            disk = self._present(address, expected, deadline)
            if disk is not None:
                return disk
        with Uevents() as uevents:
            address = self._scan(session, lun, path, uevents, deadline)
            self.host.on_step("scanned")
            try:
                disk = wait_for_disk(self.host.sys, uevents, address, deadline)
            except DeviceMissing:
                self.delete(address, Deadline.after(self.policy.disk_s))
                raise
        return self._verified(disk, path, expected)

    def clear(
        self, session: KernelSession, path: TargetPath, mode: AddressingMode | None, key: str
    ) -> None:
        """Remove what the connect of a key that failed left at its path's unit.

        A unit that another connection has is left. Raises: DeviceStuck, DeviceBusy.
        """
        address = find_unit(self.host.sys, session, kernel_lun(path.lun, mode))
        if address is None or self._noted(address, but=key) is not None:
            return
        deadline = Deadline.after(self.policy.flush_s)
        disk = read_disk(self.host.sys, address)
        if disk is None or not find_openers(self.host.sys, disk, deadline):
            self.take_out(address, deadline)

    def delete(self, address: ScsiAddress, deadline: Deadline) -> Change:
        """Take a unit out of the kernel. Idempotent. Raises: DeviceStuck."""
        with Uevents() as uevents:
            change = delete_unit(self.host.sys, address, deadline)
            wait_for_removal(self.host.sys, uevents, address, deadline)
        return change

    def take_out(self, address: ScsiAddress, deadline: Deadline) -> Change:
        """Take out a unit that has been written back, or is given up. As :meth:`delete`.

        The kernel need not ask a portal, which may be dead, to flush the storage's own cache.
        """
        disable_cache_sync(self.host.sys, address, deadline)
        return self.delete(address, deadline)

    def answers(self, session: KernelSession, disk: ScsiDisk, deadline: Deadline) -> bool:
        """Tell whether the storage answers, and have the disk's identity read anew if so."""
        if not session.is_logged_in:
            return False
        try:
            rescan(self.host.sys, disk.address, deadline.at_most(self.policy.answer_s))
        except DeviceError:
            return False
        return True

    def write_out(
        self, disk: ScsiDisk | MultipathMap, deadline: Deadline, *, is_answering: bool
    ) -> None:
        """Bring what was written to a disk or map onto its storage.

        Where that does not answer, it is enough that nothing is left to be written: the cache
        of the storage is its own, and it can't be told to flush it. Raises: FlushFailed.
        """
        try:
            flush = flush_disk if is_answering else write_back
            flush(disk, deadline.at_most(self.policy.flush_s))
        except DeviceStuck as error:
            raise FlushFailed(disk.path, str(error)) from error

    def require_closed(self, disk: ScsiDisk, deadline: Deadline) -> None:
        """Wait until nobody has the disk open, and take away a map that multipathd made of it.

        Raises: DeviceBusy, naming who has it open.
        """
        for _ in range(_MAPS_MADE_ANEW):
            found = find_map(self.host.sys, disk)
            if found is None:
                break
            self._remove_map(found, deadline)
        openers = wait_until_closed(self.host.sys, disk, deadline.at_most(self.policy.close_s))
        if openers:
            raise DeviceBusy(disk.path, [opener.who for opener in openers])

    def _remove_map(self, found: MultipathMap, deadline: Deadline) -> None:
        openers = find_users(self.host.sys, found, deadline)
        if openers:
            raise DeviceBusy(found.path, [opener.who for opener in openers])
        owner = self._owner(map_wwid(self.host.sys, found))
        if owner is not None:
            raise DeviceBusy(found.path, [f"the connection {owner}"])
        remove_map(found, deadline.at_most(self.policy.close_s))
        self.host.on_step("map-removed")

    def _owner(self, wwid: Wwid | None) -> str | None:
        """Return the key of the connection that stands and has the map of an identity."""
        for entry in self.host.journal.connections():
            is_kept = entry.phase is Phase.CONNECTED and entry.boot_id == self.host.boot_id
            if is_kept and entry.multipath is not None and same_wwid(wwid, entry.expected_wwid):
                return entry.key
        return None

    def discard(self, disk: ScsiDisk, deadline: Deadline, *, expected: object) -> None:
        """Remove a disk that has another identity than it should, without writing to it.

        What was written through it was meant for another unit, so it is given up. The journal's
        entries forget the unit. Raises: WrongDevice (somebody has it open; nothing done),
        DeviceStuck.
        """
        try:
            self.require_closed(disk, deadline)
        except DeviceBusy as error:
            found = f"{disk.wwid or 'without identity'}, in use by {', '.join(error.openers)}"
            raise WrongDevice(disk.path, str(expected), found) from error
        # Quirk(kernel): the removal of a disk writes its dirty pages back (del_gendisk), to
        # whatever its LUN leads to by now, and even when it is offline (6.1). Offline first, and
        # then written back, they fail and are gone.
        set_offline(self.host.sys, disk.address, deadline)
        with suppress(DeviceError):
            write_back(disk, deadline.at_most(self.policy.answer_s))
        self.take_out(disk.address, deadline)
        for entry in self.host.journal.connections():
            if disk.address in entry.units:
                self.host.journal.write(entry.without_unit(disk.address))
        self.host.on_step("stale-removed")

    # -- one that is there already -----------------------------------------------------------

    def _present(
        self, address: ScsiAddress, expected: Wwid | None, deadline: Deadline
    ) -> ScsiDisk | None:
        """Return the disk at that address if it may be used; None if it had to go.

        It may if it is known to be this volume's, before it is made to tell its identity anew
        and after; or if somebody has it open and it is the expected one. Any other was left by
        somebody, and what the kernel has cached of it may be of another unit.
        """
        before = read_disk(self.host.sys, address)
        noted = self._noted(address)
        wanted = noted if expected is None else expected
        with suppress(DeviceMissing):  # then it is not running, or gone
            rescan(self.host.sys, address, deadline)
        disk = read_disk(self.host.sys, address)
        if disk is None:
            self.delete(address, deadline)
            return None
        # A unit that its target no longer shows keeps its identity and has no bytes.
        is_there = disk.state == RUNNING and disk.size_bytes > 0
        is_same = is_there and before is not None and same_wwid(before.wwid, disk.wwid)
        is_wanted = is_same and (wanted is None or same_wwid(disk.wwid, wanted))
        if is_wanted and wanted is not None and same_wwid(noted, wanted):
            return disk
        try:
            self.discard(disk, deadline, expected=wanted)
        except WrongDevice:
            if is_wanted:
                return disk
            raise
        return None

    def _noted(self, address: ScsiAddress, *, but: str | None = None) -> Wwid | None:
        """Return the identity that the journal has for a unit, whatever volume it was."""
        for entry in self.host.journal.connections():
            if entry.key != but and entry.boot_id == self.host.boot_id and address in entry.units:
                return entry.expected_wwid
        return None

    # -- a new one ---------------------------------------------------------------------------

    def _scan(
        self,
        session: KernelSession,
        lun: int,
        path: TargetPath,
        uevents: UeventSource,
        deadline: Deadline,
    ) -> ScsiAddress:
        """Scan for one unit until it is there; its target may show it a moment late."""
        for pause_s in (*_RESCAN_AFTER_S, None):
            try:
                scan_lun(self.host.sys, session, lun, deadline)
            except DeviceStuck:
                # It goes on, and may still bring the unit in; another one waits for its end
                # (the SCSI host's scan_mutex), so that whoever cleans up sees the unit.
                with suppress(DeviceError, SessionMissing):
                    scan_lun(self.host.sys, session, lun, Deadline.after(self.policy.disk_s))
                raise
            address = find_unit(self.host.sys, session, lun)
            if address is not None:
                return address
            if pause_s is not None:
                uevents.wait(_is_news_of(session), deadline.at_most(pause_s))
            if deadline.has_passed():
                break
        raise LunMissing(str(path), f"the target shows no lun {path.lun} to this host")

    def _verified(self, disk: ScsiDisk, path: TargetPath, expected: Wwid | None) -> ScsiDisk:
        if expected is None or same_wwid(disk.wwid, expected):
            self.host.on_step("verified")
            return disk
        wrong = WrongDevice(f"{path} ({disk.path})", expected, str(disk.wwid or "without identity"))
        try:
            self.discard(disk, Deadline.after(self.policy.flush_s), expected=expected)
        except DeviceError as error:
            raise wrong from error
        raise wrong


def _is_news_of(session: KernelSession) -> Callable[[Uevent], bool]:
    """Match what a target says of its units by itself (REPORTED LUNS DATA HAS CHANGED)."""
    prefix = f"/{session.node}/"
    return lambda event: event.action == "change" and event.devpath.startswith(prefix)
