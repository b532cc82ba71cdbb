"""Take one volume's disk away from this host, and all that only it needed.

    intend (journal) -> closed? -> flush -> delete -> log out if unused -> record -> journal
                  over a map: closed? -> flush -> take down -> every disk, every session


The path that was used comes from the journal; without an entry it is found in sysfs, by
session and unit, never guessed. Nothing is asked of the portal to find it, so a dead one
does not matter. A disk whose identity is not the one the journal or the connection info has
is not ours, and stays. Never logs out a session that somebody else uses.
"""

from __future__ import annotations

import time
from collections.abc import Iterator, Sequence
from contextlib import suppress
from dataclasses import dataclass, replace
from functools import partial
from typing import Final

from lunport.core.change import Change
from lunport.core.connection_info import AddressingMode
from lunport.core.errors import (
    CommandTimedOut,
    DeviceBusy,
    DeviceStuck,
    FlushFailed,
    MultipathDown,
    WrongDevice,
)
from lunport.core.host_connection import HostConnection, Phase
from lunport.core.kernel_session import KernelSession
from lunport.core.scsi_address import kernel_lun
from lunport.core.target_path import TargetPath
from lunport.core.wwid import Wwid, same_wwid
from lunport.host.clock import Deadline
from lunport.host.multipath_map import MultipathMap
from lunport.host.scsi_disk import (
    ScsiDisk,
    find_unit,
    read_disk,
)
from lunport.host.tasks import run_all
from lunport.initiator.connected_volume import InitiatorPolicy
from lunport.initiator.disks import Disks
from lunport.initiator.initiator_host import InitiatorHost
from lunport.initiator.maps import Maps
from lunport.initiator.path_helper import Unfinished
from lunport.initiator.sessions import Sessions

_CROSSED_S: Final = 2.0  # what a login that was begun meanwhile may need to let go
_LOOK_AGAIN_S: Final = 1.0  # a look at the openers that is older is made once more


@dataclass(frozen=True, slots=True)
class Disconnection:
    """Disconnects volumes of one host."""

    host: InitiatorHost
    policy: InitiatorPolicy
    sessions: Sessions
    disks: Disks
    maps: Maps

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
        joined = self._map_of(entry, found)
        if was is None and not found and joined is None:
            return self._release_all(entry, deadline)
        self.host.journal.write(replace(entry, phase=Phase.DISCONNECTING))
        self.host.on_step("disconnect-intended")
        if joined is not None:
            try:
                going = self._end_map(entry, joined, found, force=force, deadline=deadline)
            except (DeviceBusy, FlushFailed, WrongDevice):
                self._restore(entry.key, was)
                raise
            self._take_out_all(going, deadline)
        else:
            self._end_disks(entry, was, found, force=force, deadline=deadline)
        self.maps.forget(entry)
        # The sessions are in the journal on their own account.
        self.host.journal.remove(entry.key)
        self.host.path_notes.remove(entry.key)
        Unfinished().remove(entry.key)
        self.host.on_step("disconnect-noted")
        self._release_all(entry, deadline)
        return Change.CHANGED

    # -- over a map --------------------------------------------------------------------------

    def _map_of(
        self, entry: HostConnection, found: Sequence[tuple[KernelSession, ScsiDisk]]
    ) -> MultipathMap | None:
        """Find the map that is this volume's: by its identity, or over one of its disks."""
        wwid = entry.expected_wwid
        if entry.multipath is None:
            # One that multipathd made by itself goes with the disk.
            return None
        if wwid is None:
            wwid = next((disk.wwid for _, disk in found if disk.wwid is not None), None)
        return self.maps.find(wwid)

    def _end_map(
        self,
        entry: HostConnection,
        joined: MultipathMap,
        found: Sequence[tuple[KernelSession, ScsiDisk]],
        *,
        force: bool,
        deadline: Deadline,
    ) -> list[tuple[KernelSession, ScsiDisk, bool]]:
        """Write back what was written to a map, and take it down; its disks are left over.

        Returns each disk that is to go, and whether its storage answers. Raises: DeviceBusy,
        FlushFailed, WrongDevice (all is as before); DeviceStuck.
        """
        self.maps.require_closed(joined, deadline)
        self.host.on_step("closed")
        asked = {
            str(number): partial(self.disks.answers, session, disk, deadline)
            for number, (session, disk) in enumerate(found)
        }
        answers = [report.value is True for report in run_all(asked)]
        disks = [
            (session, read_disk(self.host.sys, disk.address) or disk, is_answering)
            for (session, disk), is_answering in zip(found, answers, strict=True)
        ]
        wrong = [one for one in disks if not _is_the_one(one[1], entry.expected_wwid)]
        if wrong:
            # What was written meanwhile was meant for another unit: none of it goes out.
            has_right = any(one[2] for one in disks if one not in wrong)
            self.maps.abandon(
                joined,
                [disk for _, disk, _ in wrong],
                deadline,
                has_right=has_right,
                force=force,
            )
        else:
            self._write_out(joined, is_answering=any(answers), force=force, deadline=deadline)
        wwid = entry.expected_wwid or next(disk.wwid for _, disk, _ in disks if disk.wwid)
        self.maps.take_down(joined, wwid, deadline)
        for _, disk, _ in wrong:
            self.disks.discard(disk, deadline, expected=entry.expected_wwid)
        return [one for one in disks if one not in wrong]

    def _write_out(
        self, joined: MultipathMap, *, is_answering: bool, force: bool, deadline: Deadline
    ) -> None:
        if not is_answering:
            # What queues for paths that are gone would never end.
            self.maps.fail_when_empty(joined, deadline)
        try:
            self.disks.write_out(joined, deadline, is_answering=is_answering)
        except FlushFailed:
            if not force:
                raise
        self.host.on_step("flushed")

    def _take_out_all(
        self, going: Sequence[tuple[KernelSession, ScsiDisk, bool]], deadline: Deadline
    ) -> None:
        tasks = {
            str(number): partial(self._take_out_member, *one, deadline)
            for number, one in enumerate(going)
        }
        for report in run_all(tasks):
            report.unwrap()

    def _take_out_member(
        self, session: KernelSession, disk: ScsiDisk, is_answering: bool, deadline: Deadline
    ) -> None:
        # Quirk(multipath-tools): what multipathd knows of "sda" stays until it hears of the
        # removal, and would be taken for the next disk of that name (0.9.4, cli_add_path).
        with suppress(MultipathDown, CommandTimedOut):
            self.host.multipathd.remove_path(disk.name, deadline.at_most(self.policy.close_s))
        self.disks.require_closed(disk, deadline)
        if is_answering:
            self.disks.take_out(disk.address, deadline)
        else:
            self._take_out_dead(session, disk, deadline)
        self.host.on_step("disk-removed")

    # -- disk by disk ------------------------------------------------------------------------

    def _end_disks(
        self,
        entry: HostConnection,
        was: HostConnection | None,
        found: Sequence[tuple[KernelSession, ScsiDisk]],
        *,
        force: bool,
        deadline: Deadline,
    ) -> None:
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

    def _find(
        self, entry: HostConnection, mode: AddressingMode | None
    ) -> Iterator[tuple[KernelSession, ScsiDisk]]:
        """Find the disks that are this volume's: on the path used, or else on any path.

        Where the journal says that the disk there is ours, it is, whatever it says it is now.
        """
        units = {entry.unit}
        paths: Sequence[TargetPath] = entry.paths
        if entry.multipath is not None:
            units |= {member.unit for member in entry.multipath.members}
        elif entry.used is not None:
            paths = (entry.used,)
        for path in paths:
            session = self.sessions.find(path.portal, path.iqn)
            if session is None:
                continue
            address = find_unit(self.host.sys, session, kernel_lun(path.lun, mode))
            disk = None if address is None else read_disk(self.host.sys, address)
            is_noted = address in units and entry.boot_id == self.host.boot_id
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

    def _release_all(self, entry: HostConnection, deadline: Deadline) -> Change:
        use = entry.multipath
        tasks = {}
        for path in entry.paths:
            was_used = path == entry.used or (use is not None and use.member(path) is not None)
            # Whoever completes the connection may be logging in; it lets go when it looks.
            is_awaited = use is not None and not was_used
            tasks[f"{path.portal} {path.iqn}"] = partial(
                self.sessions.release,
                path.portal,
                path.iqn,
                deadline,
                patience_s=_CROSSED_S if is_awaited else 0.0,
                was_used=was_used,
            )
        change = Change.UNCHANGED
        try:
            for report in run_all(tasks):
                change |= report.unwrap()
        finally:
            if use is not None:
                # What stays, for others, carries no path of this map any more.
                found = (self.sessions.find(one.path.portal, one.path.iqn) for one in use.members)
                self.maps.patience.restore(one for one in found if one is not None)
        return change

    def _restore(self, key: str, was: HostConnection | None) -> None:
        """Write back what the journal had before a disconnect that did nothing."""
        if was is None:
            self.host.journal.remove(key)
        else:
            self.host.journal.write(was)


def _is_the_one(disk: ScsiDisk, expected: Wwid | None) -> bool:
    return expected is None or same_wwid(disk.wwid, expected)
