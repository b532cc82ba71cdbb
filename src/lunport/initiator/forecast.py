"""Say what a connect or disconnect would do now, without doing it.

Reads the journal and sysfs, asks no portal. What a portal will answer is not known, so a
connect's steps are those of the first path that is due, with the others named in order.
"""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from dataclasses import dataclass

from lunport.core.connection_info import ConnectionInfo
from lunport.core.host_connection import HostConnection, Phase
from lunport.core.login_plan import plan_logins
from lunport.core.multipath_use import MultipathUse
from lunport.core.scsi_address import kernel_lun
from lunport.core.target_path import TargetPath
from lunport.core.wwid import Wwid
from lunport.host.iscsiadm import login_argv
from lunport.host.multipath_wwids import is_registered
from lunport.initiator.initiator_host import InitiatorHost
from lunport.initiator.maps import Maps
from lunport.initiator.multipath_policy import MultipathPolicy
from lunport.initiator.path_source import asks_for_discovery
from lunport.initiator.sessions import IFACE, Sessions


@dataclass(frozen=True, slots=True)
class Forecast:
    """Foresees what is done on one host."""

    host: InitiatorHost
    sessions: Sessions
    maps: Maps

    def connect(
        self,
        info: ConnectionInfo,
        entry: HostConnection | None,
        paths: Sequence[TargetPath],
        use: MultipathUse | None,
        wish: MultipathPolicy,
    ) -> tuple[str, ...]:
        """List a connect's steps, one sentence each. ``entry``: the volume's in the journal."""
        stands = (
            entry is not None
            and entry.phase is Phase.CONNECTED
            and entry.boot_id == self.host.boot_id
        )
        if entry is not None and stands:
            return tuple(self._already(entry, use))
        cleared = () if entry is None else ("Undo what an earlier attempt left.",)
        return (*cleared, *self._anew(info, paths, use, wish))

    def disconnect(self, info: ConnectionInfo, entry: HostConnection | None) -> tuple[str, ...]:
        """List a disconnect's steps, one sentence each. ``entry``: as for a connect."""
        if entry is not None:
            return tuple(self._undone(entry))
        known = [path for path in info.paths if self.sessions.find(path.portal, path.iqn)]
        if not known:
            return ("Nothing: the volume is not in the journal, and no session leads to it.",)
        return tuple(f"Look for the disk at {path}, and remove it." for path in known)

    # -- a connect ---------------------------------------------------------------------------

    def _already(self, entry: HostConnection, use: MultipathUse | None) -> Iterator[str]:
        disk = "its disk" if entry.disk_name is None else f"/dev/{entry.disk_name}"
        found = None if entry.multipath is None else self.maps.find(entry.expected_wwid)
        if found is not None:
            yield f"The volume is connected already, through the map {found.path}."
            yield f"Verify the identity of the disks in {found.path} and return it."
            yield "In the background: bring back the paths that are missing."
            return
        yield f"The volume is connected already, through {entry.used}."
        if entry.multipath is not None:
            yield "Its map is gone: undo the connection, and make it anew."
        elif use is not None:
            yield f"If nobody has {disk} open: undo the connection, and make it anew with a map."
            yield f"Else verify the identity of {disk} and return it."
        else:
            yield f"Verify the identity of {disk} and return it."

    def _anew(
        self,
        info: ConnectionInfo,
        paths: Sequence[TargetPath],
        use: MultipathUse | None,
        wish: MultipathPolicy,
    ) -> Iterator[str]:
        if asks_for_discovery(info):
            yield f"Ask {info.main_path.portal}, or else the others named, for more portals."
        plan = plan_logins(paths, self.host.memory.current())
        first = plan.paths[0]
        for number, path in enumerate(plan.paths, 1):
            verb = "Probe" if number == 1 or use is not None else "If need be, probe"
            late = " (last, since its portal was seen dead lately)" * (path in plan.postponed)
            yield f"{verb} {path}{late}."
        yield f"Write the intent into the journal {self.host.journal.folder}."
        if use is not None:
            yield from self._registration(info.wwid)
        yield from self._session_steps(first, info)
        yield f"Scan for lun {kernel_lun(first.lun, info.addressing_mode)} of that session alone."
        yield (
            "Wait for the disk." if info.wwid is None else f"Wait for the disk, verify {info.wwid}."
        )
        if use is None:
            yield "Note the disk in the journal."
        else:
            yield from self._map_steps(info, plan.paths[1:], use, wish)

    def _registration(self, wwid: Wwid | None) -> Iterator[str]:
        file = self.host.wwids_file
        if wwid is None:
            yield f"Once the disk says its identity, have it in {file}."
        elif not is_registered(wwid, file=file):
            yield f"Add {wwid} to {file}."

    def _map_steps(
        self,
        info: ConnectionInfo,
        others: Sequence[TargetPath],
        use: MultipathUse,
        wish: MultipathPolicy,
    ) -> Iterator[str]:
        found = self.maps.find(info.wwid)
        if found is None:
            yield "Have multipathd make the map of the disk's identity, and read from it."
        else:
            yield f"Have multipathd take the disk into the map {found.path}, and read from it."
        yield "Note the disk and its map in the journal."
        if use.wanted is not None:
            for path in others:
                yield f"Keep {path} for when the path in use dies."
            return
        # The first is live by now.
        awaited = len(others) if wish.ready is None else min(wish.ready - 1, len(others))
        if awaited:
            what = "all paths that answer" if wish.ready is None else f"{awaited + 1} paths"
            yield f"Wait for {what} to be in the map:"
        elif others:
            yield "Hand out the map. In the background:"
        for path in others:
            yield f"Log in to {path}, verify its disk and have it in the map."

    def _session_steps(self, path: TargetPath, info: ConnectionInfo) -> Iterator[str]:
        session = self.sessions.find(path.portal, path.iqn)
        if session is not None:
            yield f"Use session {session.sid}, which leads to {path.iqn} at {path.portal}."
            return
        secret = " with its CHAP secret" if info.chap is not None else ""
        where = f"{path.iqn} at {path.portal}"
        yield f"Write the node record of {where}{secret}, below {self.host.records.folder}."
        yield f"Log in: {' '.join(login_argv(path, tpgt=None, iface=IFACE))}"

    # -- a disconnect ------------------------------------------------------------------------

    def _undone(self, entry: HostConnection) -> Iterator[str]:
        disk = "the disk" if entry.disk_name is None else f"/dev/{entry.disk_name}"
        names = [disk]
        use = entry.multipath
        found = None if use is None else self.maps.find(entry.expected_wwid)
        if use is not None and use.members:
            names = [f"/dev/{member.disk_name}" for member in use.members]
        opened = disk if found is None else found.path
        yield f"Write the intent into the journal {self.host.journal.folder}."
        yield (
            f"Make sure that nobody has {opened} open, and write back what is not on the "
            "storage yet."
        )
        if found is not None:
            yield f"Let I/O that waits for a path fail, and remove the map {found.path}."
        for name in names:
            yield f"Remove {name}, and wait until the kernel let go of it."
        if use is not None and use.is_registered:
            yield f"Take {entry.expected_wwid} out of {self.host.wwids_file}."
        yield from self._logout_steps(entry)
        yield "Remove the journal's entry."

    def _logout_steps(self, entry: HostConnection) -> Iterator[str]:
        used = [] if entry.used is None else [entry.used]
        owned = [
            path
            for path in (used if entry.multipath is None else entry.paths)
            if self.host.journal.get_session(path.portal, path.iqn) is not None
        ]
        if not owned:
            yield "Leave the session: it was not made by Lunport."
        for path in owned:
            session = f"the session to {path.iqn} at {path.portal}"
            yield f"If no other disk needs {session}: log out, and remove its node record."
