"""The paths of this host's volumes as they are now: what is wanted, what the kernel shows, why.

Joins the journal (what is wanted), sysfs and device-mapper (what is there) and the notes of
whoever looked or tried last (since when, why not). Changes nothing, sends nothing to a unit.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

from lunport.core.host_connection import HostConnection, Phase
from lunport.core.kernel_session import KernelSession
from lunport.core.multipath_table import MapStatus
from lunport.core.path_status import PathState, PathStatus, VolumePaths
from lunport.core.scsi_address import kernel_lun
from lunport.core.target_path import TargetPath
from lunport.core.wwid import same_wwid
from lunport.host.clock import Deadline
from lunport.host.iscsi_sysfs import list_sessions
from lunport.host.multipath_map import MultipathMap, map_size, member_names
from lunport.host.path_notes import PathNote
from lunport.host.scsi_disk import RUNNING, ScsiDisk, find_unit, read_disk
from lunport.initiator.initiator_host import InitiatorHost
from lunport.initiator.maps import Maps

_LOOK_S = 5.0


@dataclass(frozen=True, slots=True)
class SeenPath:
    """One path as the kernel shows it: its state, session and disk, and why it is not live."""

    path: TargetPath
    state: PathState
    session: KernelSession | None = None
    disk: ScsiDisk | None = None
    why: str | None = None


@dataclass(frozen=True, slots=True)
class PathView:
    """Looks at the volumes of one host."""

    host: InitiatorHost
    maps: Maps

    def all(self) -> tuple[VolumePaths, ...]:
        """Look at every volume that the journal has as connected."""
        sessions = list_sessions(self.host.sys)
        return tuple(
            self.volume(entry, sessions)
            for entry in self.host.journal.connections()
            if entry.phase is Phase.CONNECTED and entry.boot_id == self.host.boot_id
        )

    def volume(
        self, entry: HostConnection, sessions: Sequence[KernelSession] | None = None
    ) -> VolumePaths:
        """Look at one volume."""
        found = self.maps.find(entry.expected_wwid) if entry.multipath is not None else None
        seen = self.seen(entry, found, sessions)
        notes = self.host.path_notes.read(entry.key)
        return VolumePaths(
            key=entry.key,
            volume_id=entry.volume_id,
            wwid=entry.expected_wwid,
            device=entry.disk_name if found is None else found.device,
            map_name=None if found is None else found.name,
            size_bytes=entry.size_bytes if found is None else map_size(self.host.sys, found),
            wanted=wanted_count(entry),
            paths=tuple(_status(entry, one, notes.get(str(one.path))) for one in seen),
        )

    def seen(
        self,
        entry: HostConnection,
        found: MultipathMap | None,
        sessions: Sequence[KernelSession] | None = None,
    ) -> tuple[SeenPath, ...]:
        """Look at each path of a connection, in its order."""
        known = list_sessions(self.host.sys) if sessions is None else sessions
        names: tuple[str, ...] = ()
        status: MapStatus | None = None
        if found is not None:
            names = member_names(self.host.sys, found)
            status = self.maps.status(found, Deadline.after(_LOOK_S))
        seen = [self._seen(entry, path, known, names, status) for path in entry.paths]
        live = sum(one.state is PathState.LIVE for one in seen)
        if live < wanted_count(entry):
            return tuple(seen)
        return tuple(
            SeenPath(one.path, PathState.SPARE) if one.state is PathState.MISSING else one
            for one in seen
        )

    def _seen(
        self,
        entry: HostConnection,
        path: TargetPath,
        sessions: Sequence[KernelSession],
        names: Sequence[str],
        status: MapStatus | None,
    ) -> SeenPath:
        session = _best(sessions, path)
        if session is None:
            return SeenPath(path, PathState.MISSING, why="there is no session")
        unit = find_unit(self.host.sys, session, kernel_lun(path.lun, entry.addressing_mode))
        disk = None if unit is None else read_disk(self.host.sys, unit)
        is_it = disk is not None and (
            entry.expected_wwid is None or same_wwid(disk.wwid, entry.expected_wwid)
        )
        state = session.state.lower()
        if disk is None or not is_it:
            why = f"the session is {state}" if not session.is_logged_in else "there is no disk"
            if disk is not None:
                why = f"/dev/{disk.name} is {disk.wwid or 'without identity'}"
            return SeenPath(path, PathState.MISSING, session, None, why)
        if entry.multipath is None:
            return _alone(path, session, disk)
        if disk.name not in names:
            why = "its disk is not in the map yet"
            return SeenPath(path, PathState.JOINING, session, disk, why)
        is_usable = session.is_logged_in and disk.state == RUNNING
        if status is not None:
            is_usable = status.paths.get(disk.number, False)
        if is_usable:
            return SeenPath(path, PathState.LIVE, session, disk)
        why = "the map does not use it" if session.is_logged_in else f"the session is {state}"
        return SeenPath(path, PathState.FAILED, session, disk, why)


def wanted_count(entry: HostConnection) -> int:
    """Say how many paths of a connection are to be live at once."""
    if entry.multipath is None:
        return 1
    return len(entry.paths) if entry.multipath.wanted is None else entry.multipath.wanted


def _alone(path: TargetPath, session: KernelSession, disk: ScsiDisk) -> SeenPath:
    if session.is_logged_in and disk.state == RUNNING:
        return SeenPath(path, PathState.LIVE, session, disk)
    why = f"the session is {session.state.lower()}, the disk {disk.state}"
    return SeenPath(path, PathState.FAILED, session, disk, why)


def _best(sessions: Sequence[KernelSession], path: TargetPath) -> KernelSession | None:
    found = [one for one in sessions if one.is_to(path.portal, path.iqn)]
    return min(found, key=lambda one: not one.is_logged_in, default=None)


def _status(entry: HostConnection, seen: SeenPath, note: PathNote | None) -> PathStatus:
    member = None if entry.multipath is None else entry.multipath.member(seen.path)
    is_noted = note is not None and note.state is seen.state
    since = note.since if note is not None and is_noted else None
    if since is None and seen.state is PathState.LIVE:
        since = entry.since if member is None else member.since
    why = note.why if note is not None and is_noted and note.why else seen.why
    return PathStatus(
        path=seen.path,
        iface=entry.iface if seen.session is None else seen.session.iface or entry.iface,
        state=seen.state,
        sid=None if seen.session is None else seen.session.sid,
        device=None if seen.disk is None else seen.disk.name,
        since=since,
        why=None if seen.state is PathState.LIVE else why,
    )
