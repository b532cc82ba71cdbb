"""Make a volume's disk, or its map, as large as the unit is now on the storage.

The storage is asked itself, then each path's disk is read anew, then the map is resized, and
what they show counts. A path that does not answer is taken out of the map for that time: a map
that has it would keep the old size; it comes back with the new one (``PathCompletion``).
"""

from __future__ import annotations

from collections.abc import Sequence
from contextlib import suppress
from dataclasses import dataclass, replace

from lunport.core.connection_info import ConnectionInfo
from lunport.core.errors import (
    CommandTimedOut,
    DeviceError,
    DeviceMissing,
    IscsiError,
    MapMissing,
    MultipathDown,
    SizeUnchanged,
    WrongDevice,
)
from lunport.core.host_connection import HostConnection
from lunport.core.path_status import PathState
from lunport.core.probe_outcome import Verdict, outcome_error
from lunport.core.target_path import TargetPath
from lunport.core.wwid import same_wwid
from lunport.host.clock import Deadline
from lunport.host.multipath_map import MultipathMap, map_size
from lunport.host.portal_probe import probe_path
from lunport.host.scsi_disk import ScsiDisk, read_disk, rescan
from lunport.host.uevents import Uevents
from lunport.initiator.connected_volume import InitiatorPolicy
from lunport.initiator.initiator_host import InitiatorHost
from lunport.initiator.maps import Maps
from lunport.initiator.path_view import PathView, SeenPath

_AGAIN_S = (0.1, 0.3, 0.6, 1.0, 2.0)


@dataclass(frozen=True, slots=True)
class Extension:
    """Extends volumes of one host. Precondition: the volume's locks are held."""

    host: InitiatorHost
    policy: InitiatorPolicy
    maps: Maps
    view: PathView

    def run(self, info: ConnectionInfo, entry: HostConnection, deadline: Deadline) -> int:
        """Extend what a connection stands for; return the bytes. Idempotent.

        Raises: DeviceMissing, WrongDevice, SizeUnchanged, DeviceStuck, and the probe's errors
        where the storage can't be asked.
        """
        found = None if entry.multipath is None else self.maps.find(entry.expected_wwid)
        if found is not None:
            return self._extend_map(info, entry, found, deadline)
        if entry.multipath is not None:
            raise MapMissing(str(entry.used), "its map is gone")
        disk = self._require_unit(entry)
        wanted_bytes = self._size_on_storage(entry.used, info, entry, deadline)
        rescan(self.host.sys, disk.address, deadline)
        # What it said before may have been old news: only this counts.
        now = self._require_disk(entry)
        if wanted_bytes is not None and now.size_bytes != wanted_bytes:
            raise SizeUnchanged(now.path, now.size_bytes, wanted_bytes)
        self.host.journal.write(replace(entry, size_bytes=now.size_bytes))
        return now.size_bytes

    # -- a map -------------------------------------------------------------------------------

    def _extend_map(
        self, info: ConnectionInfo, entry: HostConnection, found: MultipathMap, deadline: Deadline
    ) -> int:
        seen = self.view.seen(entry, found)
        live = [one for one in seen if one.state is PathState.LIVE]
        if not live:
            raise DeviceMissing(found.path, "none of its paths is live")
        wanted_bytes = self._size_through(live, info, entry, deadline)
        grown = [disk for one in live if (disk := self._grown(one, entry, deadline)) is not None]
        if not grown:
            raise DeviceMissing(found.path, "none of its paths answers")
        expected_bytes = grown[0].size_bytes if wanted_bytes is None else wanted_bytes
        for disk in grown:
            if disk.size_bytes != expected_bytes:
                raise SizeUnchanged(disk.path, disk.size_bytes, expected_bytes)
        size_bytes = self._resized(entry, found, seen, expected_bytes, grown, deadline)
        self.host.journal.write(replace(self._now(entry), size_bytes=size_bytes))
        return size_bytes

    def _size_through(
        self,
        live: Sequence[SeenPath],
        info: ConnectionInfo,
        entry: HostConnection,
        deadline: Deadline,
    ) -> int | None:
        """Ask the storage through the first live path that answers.

        Raises: the last path's error.
        """
        for one in live[:-1]:
            with suppress(IscsiError, DeviceMissing):
                return self._size_on_storage(one.path, info, entry, deadline)
        return self._size_on_storage(live[-1].path, info, entry, deadline)

    def _now(self, entry: HostConnection) -> HostConnection:
        return self.host.journal.get(entry.key) or entry

    def _grown(self, seen: SeenPath, entry: HostConnection, deadline: Deadline) -> ScsiDisk | None:
        """Read one path's disk anew; None where it does not answer. Raises: WrongDevice."""
        assert seen.disk is not None
        try:
            rescan(self.host.sys, seen.disk.address, deadline.at_most(self.policy.answer_s))
        except DeviceError:
            return None
        now = read_disk(self.host.sys, seen.disk.address)
        expected = entry.expected_wwid
        if now is not None and expected is not None and not same_wwid(now.wwid, expected):
            raise WrongDevice(
                f"{seen.path} ({now.path})", expected, str(now.wwid or "without identity")
            )
        return now

    def _resized(
        self,
        entry: HostConnection,
        found: MultipathMap,
        seen: Sequence[SeenPath],
        wanted_bytes: int,
        grown: Sequence[ScsiDisk],
        deadline: Deadline,
    ) -> int:
        """Have multipathd give the map its size. Raises: SizeUnchanged, MultipathDown."""
        if map_size(self.host.sys, found) == wanted_bytes:
            return wanted_bytes
        names = {disk.name for disk in grown}
        # Quirk(multipath-tools): the new size is that of the first path of the first group,
        # dead or not; and paths of several sizes make no table (0.9.4, cli_resize).
        for one in seen:
            if one.disk is not None and one.disk.name not in names:
                with suppress(CommandTimedOut):
                    self.host.multipathd.remove_path(one.disk.name, deadline)
        with Uevents() as uevents:
            for pause_s in (*_AGAIN_S, None):
                if not self.host.multipathd.resize_map(found.name, deadline):
                    # It may have lost sight of the map, as after a restart.
                    self.host.multipathd.know_map(found.name, deadline)
                size_bytes = map_size(self.host.sys, found)
                if size_bytes == wanted_bytes or pause_s is None or deadline.has_passed():
                    break
                uevents.wait(lambda event: found.device in event.devpath, deadline.at_most(pause_s))
        if size_bytes != wanted_bytes:
            raise SizeUnchanged(found.path, size_bytes, wanted_bytes)
        use = entry.multipath
        if use is not None:
            sessions = [one.session for one in seen if one.session is not None]
            with suppress(MultipathDown, DeviceError):
                self.maps.tune(found, use, sessions, deadline)
        return size_bytes

    # -- a disk ------------------------------------------------------------------------------

    def _require_disk(self, entry: HostConnection) -> ScsiDisk:
        """Return the entry's disk, its identity verified, and that its target shows it."""
        where = str(entry.used)
        disk = self._require_unit(entry)
        expected = entry.expected_wwid
        if expected is not None and not same_wwid(disk.wwid, expected):
            found = str(disk.wwid or "without identity")
            raise WrongDevice(f"{where} ({disk.path})", expected, found)
        if disk.size_bytes == 0:
            raise DeviceMissing(where, "its target no longer shows it")
        return disk

    def _require_unit(self, entry: HostConnection) -> ScsiDisk:
        """Return the entry's disk, whatever it says it is."""
        disk = None if entry.unit is None else read_disk(self.host.sys, entry.unit)
        if disk is None:
            raise DeviceMissing(str(entry.used), "its disk is gone")
        return disk

    def _size_on_storage(
        self,
        path: TargetPath | None,
        info: ConnectionInfo,
        entry: HostConnection,
        deadline: Deadline,
    ) -> int | None:
        """Ask the storage how large the unit is; None where it does not say.

        Raises: the probe's errors.
        """
        if path is None:
            return None
        outcome = probe_path(
            path,
            self.host.initiator_name(),
            info.chap or self.host.journal.chap(entry.key),
            expected_wwid=entry.wwid,
            check_lun=True,
            deadline=deadline.at_most(self.policy.choice.budget_s),
            addressing_mode=info.addressing_mode,
        )
        if outcome.verdict is Verdict.LUN_ABSENT:
            raise DeviceMissing(str(path), "its target no longer shows it")
        error = outcome_error(outcome, str(path))
        if error is not None:
            raise error
        return outcome.size_bytes
