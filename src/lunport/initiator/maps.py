"""The dm-multipath map over a volume's paths: made, kept as we want it, and taken down.

    disk known to udev -> multipathd: add path -> (no map yet: add map) -> the disk is in the map

The map is made by multipathd at our word, so that it is there whatever ``find_multipaths`` and
``user_friendly_names`` say; its WWID is in multipath's list before (``/etc/multipath/wwids``),
so that udev's rules know the disk for a path too. No configuration file is touched. Only a disk
whose identity was verified is offered; a map with a member of another identity is refused.

Taken down is a map that nobody has open, never while it queues for paths that are gone: it is
switched to failing first. Where multipathd is dead the kernel is asked itself.
"""

from __future__ import annotations

from collections.abc import Callable, Iterable, Iterator
from contextlib import suppress
from dataclasses import dataclass, replace
from typing import Final

from lunport.core.errors import (
    CommandTimedOut,
    DeviceBusy,
    DeviceError,
    DeviceMissing,
    FlushFailed,
    InvalidInput,
    MapMissing,
    MultipathDown,
    WrongDevice,
)
from lunport.core.host_connection import HostConnection
from lunport.core.kernel_session import KernelSession
from lunport.core.multipath_table import MapStatus
from lunport.core.multipath_use import MemberPath, MultipathUse
from lunport.core.node_record import DEFAULT_IFACE as IFACE
from lunport.core.queue_bound import (
    QueuePlan,
    own_bound_s,
    plan_queueing,
    polling_interval_s,
    queueing_note,
)
from lunport.core.target_path import TargetPath
from lunport.core.wwid import Wwid, same_wwid
from lunport.host.block_flush import read_beginning, write_back
from lunport.host.clock import Deadline
from lunport.host.multipath_map import (
    MultipathMap,
    find_map_of,
    find_users,
    member_names,
    partition_maps,
    wait_for_member,
)
from lunport.host.multipath_wwids import is_registered, register, unregister
from lunport.host.scsi_disk import ScsiDisk, set_offline
from lunport.host.udev_database import wait_until_known
from lunport.host.uevents import Uevent, Uevents
from lunport.initiator.connected_volume import InitiatorPolicy
from lunport.initiator.initiator_host import InitiatorHost
from lunport.initiator.session_patience import SessionPatience

_AGAIN_S: Final = (0.05, 0.1, 0.2, 0.4, 0.8, 1.0, 1.0, 1.0)
_ASK_S = 10.0  # multipathd answers nobody while it reconfigures
_EXCLUDED: Final = "blacklisted"
_START_MULTIPATHD: Final = (
    "start it (systemctl start multipathd.service), or connect without multipath"
)


@dataclass(frozen=True, slots=True)
class Maps:
    """The maps of one host."""

    host: InitiatorHost
    policy: InitiatorPolicy

    @property
    def patience(self) -> SessionPatience:
        """What the sessions below the maps need."""
        return SessionPatience(self.host, self.policy)

    def are_possible(self) -> bool:
        """Tell whether multipathd runs here."""
        return self.host.multipathd.is_running()

    def require(self) -> None:
        """Raise what to say where no map can be made. Raises: MultipathDown."""
        if not self.are_possible():
            raise MultipathDown("multipathd does not run on this host", _START_MULTIPATHD)

    def find(self, wwid: Wwid | None) -> MultipathMap | None:
        """Find the map of an identity."""
        return None if wwid is None else find_map_of(self.host.sys, wwid)

    def status(self, found: MultipathMap, deadline: Deadline) -> MapStatus | None:
        """Return which paths the kernel uses; None where it does not say."""
        try:
            return self.host.mapper.map_status(found.name, deadline)
        except (DeviceError, InvalidInput):
            return None

    # -- one connection ----------------------------------------------------------------------

    def registered(self, intent: HostConnection, wwid: Wwid | None) -> HostConnection:
        """Have a WWID in multipath's list; return the entry that says so if it was not there."""
        use = intent.multipath
        if use is None or wwid is None or is_registered(wwid, file=self.host.wwids_file):
            return intent
        intent = replace(intent, multipath=replace(use, is_registered=True))
        self.host.journal.write(intent)
        register(wwid, file=self.host.wwids_file)
        self.host.on_step("wwid-registered")
        return intent

    def begin(
        self,
        intent: HostConnection,
        session: KernelSession,
        disk: ScsiDisk,
        path: TargetPath,
        deadline: Deadline,
    ) -> tuple[HostConnection, MultipathMap]:
        """Make a volume's map of its first disk, and read from it; return the entry to note.

        Raises: what :meth:`join` and :meth:`require_io` raise, and MultipathDown where the
        unit has no identity by which its paths could be known.
        """
        if disk.wwid is None:
            raise MultipathDown(
                f"{disk.path} at {path} does not say which unit it is, so that its paths "
                "can't be told from others",
                "connect it without multipath",
            )
        intent = self.registered(intent, disk.wwid)
        use = intent.multipath
        assert use is not None
        member = MemberPath(path, session.iface or IFACE, disk.address, disk.name, intent.since)
        intent = replace(intent, multipath=use.with_member(member))
        self.host.journal.write(intent)
        found = self.join(disk, disk.wwid, deadline.at_most(self.policy.multipath.settle_s))
        self.tune(found, use, [session], deadline)
        self.require_io(found, deadline.at_most(self.policy.disk_s))
        return intent, found

    def end(self, entry: HostConnection, deadline: Deadline, *, is_handed_out: bool = True) -> None:
        """Take down the map of an entry if nobody has it open; forget what was registered.

        Raises: DeviceBusy, DeviceStuck.
        """
        wwid = entry.expected_wwid
        found = self.find(wwid)
        if found is not None and wwid is not None:
            if not is_handed_out:
                # Our own first read may be waiting in it for a path that has died since.
                self.fail_when_empty(found, deadline)
            self.require_closed(found, deadline)
            self.take_down(found, wwid, deadline)
            if entry.disk_name is not None:
                # As in a disconnect: what multipathd knows of a disk would outlive it.
                with suppress(MultipathDown, CommandTimedOut):
                    self.host.multipathd.remove_path(entry.disk_name, deadline.at_most(_ASK_S))
        self.forget(entry)

    def forget(self, entry: HostConnection) -> None:
        """Take out of multipath's list what was put there for an entry. Idempotent."""
        use, wwid = entry.multipath, entry.expected_wwid
        if use is not None and use.is_registered and wwid is not None:
            unregister(wwid, file=self.host.wwids_file)
            self.host.on_step("wwid-forgotten")

    # -- making one --------------------------------------------------------------------------

    def join(self, disk: ScsiDisk, wwid: Wwid, deadline: Deadline) -> MultipathMap:
        """Have a verified disk in the map of its identity, which is made where there is none.

        Idempotent. Raises: MapMissing (it was not in time), MultipathDown (multipathd is gone,
        or its configuration excludes the disk), WrongDevice (another disk is in it).
        """
        found = self._of(disk, wwid)
        if found is None:
            with Uevents() as uevents:
                found = self._made(disk, wwid, uevents, deadline)
        self._require_same(found, wwid)
        self.host.on_step("map-joined")
        return found

    def require_io(self, found: MultipathMap, deadline: Deadline) -> None:
        """Read from a map. Raises: MapMissing (it gives an error), DeviceStuck."""
        try:
            read_beginning(found, deadline)
        except OSError as error:
            words = f"it does not take I/O: {error.strerror or error}"
            raise MapMissing(found.path, words) from error

    def _of(self, disk: ScsiDisk, wwid: Wwid) -> MultipathMap | None:
        found = self.find(wwid)
        is_in = found is not None and disk.name in member_names(self.host.sys, found)
        return found if is_in else None

    def _made(
        self, disk: ScsiDisk, wwid: Wwid, uevents: Uevents, deadline: Deadline
    ) -> MultipathMap:
        # Quirk(multipath-tools): "add path" of a disk that udev has not worked through yet
        # fails, since the identity is read from udev's database (0.9.4, pathinfo).
        wait_until_known(disk.number, deadline, wwid=wwid)
        for pause_s in (*_AGAIN_S, None):
            answer = self.host.multipathd.ask(f"add path {disk.name}", deadline.at_most(_ASK_S))
            if _EXCLUDED in answer:
                raise MultipathDown(
                    f"multipath's configuration excludes {disk.path} ({wwid})",
                    "change the blacklist in /etc/multipath.conf, or connect without multipath",
                )
            if self.find(wwid) is None:
                self.host.multipathd.add_map(wwid, deadline.at_most(_ASK_S))
            found = self._of(disk, wwid)
            if found is not None:
                return found
            if pause_s is None or deadline.has_passed():
                break
            patience = deadline.at_most(pause_s)
            with suppress(MapMissing):
                return wait_for_member(self.host.sys, uevents, wwid, disk.name, patience)
        raise MapMissing(disk.path, f"multipathd did not take it into a map of {wwid}")

    def _require_same(self, found: MultipathMap, wwid: Wwid) -> None:
        for name, other in self.identities(found):
            if other is not None and not same_wwid(other, wwid):
                raise WrongDevice(f"/dev/{name} in {found.path}", wwid, other)

    def identities(self, found: MultipathMap) -> Iterator[tuple[str, str | None]]:
        """Give each member's name and the identity that the kernel has of it."""
        for name in member_names(self.host.sys, found):
            yield name, self.host.sys.read(f"block/{name}/device/wwid")

    # -- as we want it -----------------------------------------------------------------------

    def tune(
        self,
        found: MultipathMap,
        use: MultipathUse,
        sessions: Iterable[KernelSession],
        deadline: Deadline,
    ) -> None:
        """Set what a lost path costs, and what happens when none is left. Idempotent.

        multipathd sets its own values whenever it loads a map, so this comes after each such. A
        session that also carries a disk without a map stays as patient as that one needs.
        Queueing is bounded by somebody who watches: an agent, or multipathd where it is
        configured to end it in time; where neither is, I/O fails instead.
        """
        for session in sessions:
            self.patience.settle(session)
        self.bound_queueing(found, use, deadline)

    def bound_queueing(self, found: MultipathMap, use: MultipathUse, deadline: Deadline) -> None:
        """Have a map queue if somebody ends that in time, and fail if not. Idempotent."""
        status = self.status(found, deadline)
        if status is None:
            return
        is_watched = self.host.keeps_watch
        if is_watched and use.queue_s > 0:
            if not status.queues:
                self.host.mapper.send_message(found.name, "queue_if_no_path", deadline)
        elif status.queues:
            try:
                own_s = self._own_bound_s(found, deadline) if use.queue_s > 0 else None
            except CommandTimedOut:
                return  # it is there, and busy: whoever looks next asks again
            if plan_queueing(use.queue_s, own_s, is_watched=is_watched) is QueuePlan.FAIL:
                self.fail_when_empty(found, deadline)

    def queueing_note(
        self, found: MultipathMap, use: MultipathUse, deadline: Deadline
    ) -> str | None:
        """Say what is not as the attachment has it once all paths are gone; None if it is."""
        if use.queue_s <= 0:
            return None
        try:
            own_s = self._own_bound_s(found, deadline)
        except CommandTimedOut:
            return None
        return queueing_note(use.queue_s, own_s, is_watched=self.host.keeps_watch)

    def _own_bound_s(self, found: MultipathMap, deadline: Deadline) -> float | None:
        """Ask when multipathd ends the queueing; None: never, as far as it says."""
        multipathd, deadline = self.host.multipathd, deadline.at_most(_ASK_S)
        try:
            queueing = multipathd.queueing(found.name, deadline)
            return own_bound_s(queueing, polling_interval_s(multipathd.configuration(deadline)))
        except MultipathDown:
            return None

    def fail_when_empty(self, found: MultipathMap, deadline: Deadline) -> None:
        """Let I/O fail while no path is left, what waits now included. Idempotent."""
        with suppress(MultipathDown, CommandTimedOut):  # the kernel does as it is told below
            self.host.multipathd.disable_queueing(found.name, deadline.at_most(_ASK_S))
        with suppress(DeviceMissing):  # gone already
            self.host.mapper.send_message(found.name, "fail_if_no_path", deadline)

    def reinstate(self, found: MultipathMap, disk: ScsiDisk, deadline: Deadline) -> None:
        """Have a path used again, whose identity was looked at. Idempotent.

        Where multipathd is dead the kernel is told. Raises: MapMissing, DeviceMissing,
        DeviceStuck.
        """
        try:
            if self.host.multipathd.reinstate(disk.name, deadline.at_most(_ASK_S)):
                return
        except (MultipathDown, CommandTimedOut):
            pass
        self.host.mapper.send_message(found.name, f"reinstate_path {disk.number}", deadline)

    def abandon(
        self,
        found: MultipathMap,
        wrong: Iterable[ScsiDisk],
        deadline: Deadline,
        *,
        has_right: bool,
        force: bool,
    ) -> None:
        """Let what was written to a map and is not out yet not reach disks that are others now.

        As for a single disk: offline first, so that what is written back there fails. With
        ``has_right`` it goes out over the disks that are the volume still, or else is lost.
        Raises: FlushFailed where it does not go out there, unless that is forced.
        """
        self.fail_when_empty(found, deadline)
        for disk in wrong:
            set_offline(self.host.sys, disk.address, deadline)
            with suppress(DeviceError):
                self.host.mapper.send_message(found.name, f"fail_path {disk.number}", deadline)
        try:
            write_back(found, deadline.at_most(self.policy.flush_s))
        except DeviceError as error:
            if has_right and not force:
                raise FlushFailed(found.path, str(error)) from error

    # -- taking it down ----------------------------------------------------------------------

    def require_closed(self, found: MultipathMap, deadline: Deadline) -> None:
        """Raise if anybody has the map open. Raises: DeviceBusy, DeviceStuck."""
        openers = find_users(self.host.sys, found, deadline)
        if openers:
            raise DeviceBusy(found.path, [opener.who for opener in openers])

    def take_down(self, found: MultipathMap, wwid: Wwid, deadline: Deadline) -> None:
        """Remove a map that nobody has open; its disks stay. Idempotent.

        Raises: DeviceBusy (somebody has it open, or opened it meanwhile), DeviceStuck.
        """
        self.fail_when_empty(found, deadline)
        with Uevents() as uevents:
            for pause_s in (*_AGAIN_S, *_AGAIN_S, None):
                self._remove(found, deadline)
                now = self.find(wwid)
                if now is None:
                    self.host.on_step("map-removed")
                    return
                if now != found:
                    # multipathd had an event of a disk on its way, and made it again.
                    found = now
                self.require_closed(found, deadline)
                if pause_s is None or deadline.has_passed():
                    break
                # A worker of udev has it open for a moment after each change.
                uevents.wait(_is_of(found), deadline.at_most(pause_s))
        raise DeviceBusy(found.path, ["the kernel, which does not let it go"])

    def _remove(self, found: MultipathMap, deadline: Deadline) -> None:
        try:
            if self.host.multipathd.remove_map(found.name, deadline.at_most(_ASK_S)):
                return
        except (MultipathDown, CommandTimedOut):
            pass
        with suppress(DeviceBusy, DeviceMissing):  # the caller looks
            for part in partition_maps(self.host.sys, found):
                self.host.mapper.remove(part.name, deadline)
            self.host.mapper.remove(found.name, deadline)


def _is_of(found: MultipathMap) -> Callable[[Uevent], bool]:
    return lambda event: event.devpath.endswith(f"/{found.device}")
