"""The initiator library: make a volume a disk of this host, and unmake it.

    initiator = Initiator()
    volume = initiator.connect(parse_connection_info(document))
    ... open(volume.path) ...
    initiator.disconnect(info)

Every verb is idempotent, bounded by a deadline, and leaves behind what its docstring says.
What is connected is in the journal of the host (``/var/lib/lunport/host``), which all
processes share, so that one may disconnect what another connected, and ``recover`` can
finish what a killed one began. Needs root, and open-iscsi's daemon.
"""

from __future__ import annotations

import logging
import time
from collections.abc import Collection, Iterator
from contextlib import contextmanager, suppress
from dataclasses import dataclass, field, replace
from typing import Final

from lunport.core.change import Change
from lunport.core.connection_info import ConnectionInfo
from lunport.core.errors import (
    AuthenticationFailed,
    CommandTimedOut,
    DeviceError,
    DeviceMissing,
    IscsiError,
    LunportError,
    MultipathDown,
    UndoFailed,
)
from lunport.core.host_connection import HostConnection, Phase, connection_key
from lunport.core.iqn import fold_iqn
from lunport.core.multipath_use import MultipathUse
from lunport.core.path_status import PathState, VolumePaths
from lunport.core.portal import Portal
from lunport.core.recovery_actions import RecoveryAction
from lunport.core.target_path import TargetPath
from lunport.core.wwid import same_wwid
from lunport.host.block_openers import find_openers
from lunport.host.clock import Deadline
from lunport.host.multipath_map import find_users, map_size
from lunport.host.scsi_disk import ScsiDisk, read_disk, rescan
from lunport.initiator.connected_volume import ConnectedVolume, InitiatorPolicy
from lunport.initiator.disconnect import Disconnection
from lunport.initiator.disks import Disks
from lunport.initiator.extension import Extension
from lunport.initiator.forecast import Forecast
from lunport.initiator.initiator_host import InitiatorHost
from lunport.initiator.lock_names import work_locks
from lunport.initiator.map_wish import asking_for_all, joined, not_as_wished, wanted_use
from lunport.initiator.maps import Maps
from lunport.initiator.multipath_policy import MultipathPolicy
from lunport.initiator.path_completion import PathCompletion, is_complete
from lunport.initiator.path_helper import leave_to_helper
from lunport.initiator.path_source import (
    FoundPaths,
    asks_for_discovery,
    find_paths,
    resolve_paths,
)
from lunport.initiator.path_view import PathView
from lunport.initiator.portal_choice import UnusedPath
from lunport.initiator.recover import Recovery, RecoveryStep
from lunport.initiator.sessions import IFACE, Sessions
from lunport.initiator.single_path import SinglePath

_LOG = logging.getLogger(__name__)

_A_DAY_S: Final = 86_400.0


@dataclass(frozen=True, slots=True)
class Initiator:
    """The initiator of one host. Safe to share between threads; any number may exist."""

    host: InitiatorHost = field(default_factory=InitiatorHost)
    policy: InitiatorPolicy = field(default_factory=InitiatorPolicy)

    def connect(
        self,
        info: ConnectionInfo,
        *,
        multipath: bool = False,
        policy: MultipathPolicy | None = None,
        deadline: Deadline | None = None,
    ) -> ConnectedVolume:
        """Make the volume a disk, through the first of its paths that works.

        With ``multipath`` it is a map over all of them, handed out as soon as as many are live
        as the policy says; the others are left to whoever lives on. Where multipathd does not
        run, or the paths are alternatives, one is used, and the ``note`` says so, unless the
        connection info enforces it. Where only one portal is named it is asked for the others.
        Returns the disk that is there already when this host has it (``UNCHANGED``). On
        failure nothing of this call is left.
        Raises: AuthenticationFailed, AllPathsFailed (one error for each path),
        WrongDevice, FlushFailed (what was written to its dead disk would be lost), DeviceBusy
        (another volume that had the unit before is still in use), InitiatorDown,
        MultipathDown, CommandMissing, InvalidConnectionInfo, Unavailable (somebody else works
        on this volume), UndoFailed.
        """
        began = time.monotonic()
        deadline = self._within(deadline)
        wish = policy or self.policy.multipath
        use, note = wanted_use(info, wish, self._maps(), multipath=multipath)
        notes = [note]
        found = self._find_paths(info, use, deadline)
        if found.discovery_failure is not None:
            notes.append(f"no further portals were found: {found.discovery_failure}")
        with self._alone(info, found.paths, deadline):
            volume = self._connect_alone(info, found.paths, use, began, deadline)
        volume = replace(volume, unused=volume.unused + found.unused)
        if use is not None and volume.map_name is not None:
            volume, more = self._with_paths(connection_key(info), volume, wish, deadline)
            notes += more
        elif use is not None:
            notes.append("it is in use over one path: disconnect it to have a map")
        return replace(volume, note=joined(notes))

    def _find_paths(
        self, info: ConnectionInfo, use: MultipathUse | None, deadline: Deadline
    ) -> FoundPaths:
        """Find a volume's paths; where it is to have several, also those nobody named."""
        asking = asking_for_all(info, use)
        known = self._known_portals(info) if asks_for_discovery(asking) else ()
        try:
            return find_paths(
                asking,
                self.host,
                deadline,
                # Of other targets on those portals nobody has spoken.
                same_target=not info.target_discovered,
                known=known,
            )
        except AuthenticationFailed as error:
            if info.target_discovered:
                raise
            # Nobody said that it could be asked.
            named = find_paths(info, self.host, deadline, discover=False)
            return replace(named, discovery_failure=error)

    def _known_portals(self, info: ConnectionInfo) -> tuple[Portal, ...]:
        """List the portals over which this host has reached a volume's target in this boot."""
        target, boot_id = fold_iqn(info.main_path.iqn), self.host.boot_id
        found = [
            one.portal
            for one in self.host.journal.sessions()
            if fold_iqn(one.iqn) == target and one.boot_id == boot_id and one.sid is not None
        ]
        for entry in self.host.journal.connections():
            if entry.boot_id == boot_id:
                found += [path.portal for path in entry.paths if fold_iqn(path.iqn) == target]
        return tuple(dict.fromkeys(found))

    def _connect_alone(
        self,
        info: ConnectionInfo,
        paths: tuple[TargetPath, ...],
        use: MultipathUse | None,
        began: float,
        deadline: Deadline,
    ) -> ConnectedVolume:
        entry = self._entry(info)
        if entry is not None:
            is_others = entry.is_of_another_volume(info.volume_id)
            connected = None
            if not is_others:
                connected = self._still_there(info, entry, paths, use, began, deadline)
            if connected is not None:
                return connected
            # No longer good, cut off, or of a volume that had the unit before: what it left
            # goes first. Only what was never handed out may be lost with it. A session that
            # can't be ended now is in the journal, and no reason not to take another path.
            is_used = entry.phase is Phase.CONNECTED and entry.boot_id == self.host.boot_id
            with suppress(IscsiError, CommandTimedOut):
                self._disconnection().run(
                    entry, mode=entry.addressing_mode, force=not is_used, deadline=deadline
                )
            entry = None if is_others else entry
        try:
            new = replace(self._new_entry(info, paths, entry), multipath=use)
            return self._single_path().connect(info, paths, new, deadline)
        except LunportError as error:
            is_held = entry is not None and entry.wwid is None and entry.seen_wwid is not None
            if entry is not None and is_held and not isinstance(error, UndoFailed):
                # Until a disconnect, nothing else may be handed out as this volume.
                self.host.journal.write(replace(entry, unit=None, disk_name=None, multipath=None))
            raise

    def _with_paths(
        self, key: str, volume: ConnectedVolume, wish: MultipathPolicy, deadline: Deadline
    ) -> tuple[ConnectedVolume, list[str | None]]:
        """Wait for as many paths as are wanted at once, and leave the rest to others.

        Returns as well what is not as it was asked for.
        """
        entry = self.host.journal.get(key)
        if entry is None:
            return volume, []
        paths = None
        if wish.ready != 1 and len(entry.paths) > 1:
            paths = self._completion().run(key, deadline, ready=wish.ready)
        paths = paths or self._view().volume(entry)
        notes = [] if is_complete(paths) else [self._leave(key)]
        notes += not_as_wished(entry, wish, self._maps(), self._sessions(), deadline)
        known = {status.path for status in paths.paths if status.state is PathState.LIVE}
        unused = tuple(one for one in volume.unused if one.path not in known)
        return replace(volume, paths=paths.paths, unused=unused), notes

    def _leave(self, key: str) -> str | None:
        """Leave missing paths to the agent, or to a helper that ends by itself.

        What is connected is good without them: where nobody can be told, that is returned.
        """
        try:
            if self.host.finish is not None:
                self.host.finish(key)
            else:
                leave_to_helper(key, self.host.locks)
        except (LunportError, OSError) as error:
            _LOG.warning("paths_left_to_nobody key=%s error=%s", key, error)
            return f"nobody brings in the paths that are missing: {error}"
        return None

    def complete(self, key: str, *, deadline: Deadline | None = None) -> VolumePaths | None:
        """Bring the paths of a connection that are missing into its map, as far as they answer.

        Idempotent; adds and nudges only. None where it has no map, or does not stand any more.
        Raises: HostLacks, JournalDamaged.
        """
        return self._completion().run(key, self._within(deadline))

    def paths(self) -> tuple[VolumePaths, ...]:
        """Say of every connected volume which paths are wanted, and how each is now."""
        return self._view().all()

    def disconnect(
        self,
        info: ConnectionInfo,
        connected: ConnectedVolume | None = None,
        *,
        force: bool = False,
        deadline: Deadline | None = None,
    ) -> Change:
        """Take the volume's disk away, and what only it needed. Idempotent.

        ``connected`` is not needed: the journal and sysfs know more. A volume that several
        attachments hold goes with the last one, and one whose unit another volume has by now
        is gone already. ``force``: what can't be flushed is lost.
        Raises: DeviceBusy and FlushFailed (all is as before), DeviceStuck, IscsiError,
        Unavailable (what is left is in the journal, for the next try or ``recover``).
        """
        deadline = self._within(deadline)
        entry = self._entry(info, look_everywhere=True)
        paths = entry.paths if entry is not None else info.paths
        with self._alone(info, paths, deadline):
            entry = self._entry(info, look_everywhere=True)
            if entry is not None and entry.is_of_another_volume(info.volume_id):
                return Change.UNCHANGED
            if entry is not None:
                left = _without_holder(entry, info.attachment_id)
                if left is not None:
                    if left == entry.holders:
                        return Change.UNCHANGED
                    self.host.journal.write(replace(entry, holders=left))
                    return Change.CHANGED
            else:
                paths = resolve_paths(info.paths, deadline).paths
                entry = self._new_entry(info, paths, None)
            return self._disconnection().run(
                entry, mode=info.addressing_mode, force=force, deadline=deadline
            )

    def extend(self, info: ConnectionInfo, *, deadline: Deadline | None = None) -> int:
        """Make the disk as large as its unit is now on the storage; return the bytes.

        Idempotent. Paths of a map that do not answer are grown when they return.
        Raises: DeviceMissing, WrongDevice, SizeUnchanged, DeviceStuck, and the probe's errors
        where the storage can't be asked.
        """
        deadline = self._within(deadline)
        with self._alone(info, info.paths, deadline):
            entry = self._require_connected(info)
            size_bytes = self._extension().run(info, entry, deadline)
        paths = self._view().volume(entry)
        if entry.multipath is not None and not is_complete(paths):
            self._leave(entry.key)
        return size_bytes

    def connections(self) -> tuple[HostConnection, ...]:
        """List what the journal says of this host's connections."""
        return self.host.journal.connections()

    def recover(
        self, *, remove_leftovers: bool = False, deadline: Deadline | None = None
    ) -> tuple[RecoveryStep, ...]:
        """Finish or undo what was cut off; tell what stays, and what no journal knows.

        Idempotent. An action has the policy's budget; a deadline bounds them all, and what is
        not done then is reported as such. ``remove_leftovers`` also removes what no journal
        knows, where nobody has it open.
        """
        deadline = deadline or Deadline.after(_A_DAY_S)
        steps = self._recovery().run(deadline, remove_leftovers=remove_leftovers)
        for paths in self.paths():
            if paths.map_name is not None and not is_complete(paths):
                self._leave(paths.key)
        return steps

    def foresee_recover(self) -> tuple[RecoveryAction, ...]:
        """Say what :meth:`recover` would do now, and what no journal knows; change nothing."""
        return self._recovery().look()

    def foresee_connect(
        self,
        info: ConnectionInfo,
        *,
        multipath: bool = False,
        policy: MultipathPolicy | None = None,
    ) -> tuple[str, ...]:
        """Say what :meth:`connect` would do now, a sentence for each step; change nothing.

        Raises: MultipathDown where the connect would, AllPathsFailed (no name has an address).
        """
        wish = policy or self.policy.multipath
        use, note = wanted_use(info, wish, self._maps(), multipath=multipath)
        paths = resolve_paths(info.paths, self._within(None)).paths
        entry = self._entry(info)
        earlier: tuple[str, ...] = ()
        if entry is not None and entry.is_of_another_volume(info.volume_id):
            entry, earlier = None, self._forecast().disconnect(info, entry)
        asking = asking_for_all(info, use)
        steps = (*earlier, *self._forecast().connect(asking, entry, paths, use, wish))
        return steps if note is None else (f"Note: {note}.", *steps)

    def foresee_disconnect(self, info: ConnectionInfo) -> tuple[str, ...]:
        """Say what :meth:`disconnect` would do now, a sentence for each step; change nothing."""
        entry = self._entry(info, look_everywhere=True)
        if entry is not None and entry.is_of_another_volume(info.volume_id):
            return (f"Nothing: its unit is volume {entry.volume_id} by now.",)
        return self._forecast().disconnect(info, entry)

    # -- one connection ----------------------------------------------------------------------

    def _entry(
        self, info: ConnectionInfo, *, look_everywhere: bool = False
    ) -> HostConnection | None:
        """Find the volume's entry in the journal, also if its identity is stated now and was not.

        ``look_everywhere``: also by one of its paths, for those who read the whole journal.
        """
        entry = self.host.journal.get(connection_key(info))
        if entry is None and info.wwid is not None:
            entry = self.host.journal.get(connection_key(replace(info, wwid=None)))
        if entry is None and look_everywhere:
            units = {(fold_iqn(path.iqn), path.lun) for path in info.paths}
            found = (one for one in self.host.journal.connections() if _is_at(one, units))
            entry = next(found, None)
        expected = None if entry is None else entry.expected_wwid
        is_other = None not in (expected, info.wwid) and not same_wwid(expected, info.wwid)
        return None if is_other else entry

    def _still_there(
        self,
        info: ConnectionInfo,
        entry: HostConnection,
        paths: tuple[TargetPath, ...],
        use: MultipathUse | None,
        began: float,
        deadline: Deadline,
    ) -> ConnectedVolume | None:
        """Return the volume as it is connected already; None where it is not, or not well."""
        if entry.phase is not Phase.CONNECTED or entry.boot_id != self.host.boot_id:
            return None
        if entry.multipath is not None:
            return self._still_joined(info, entry, paths, began, deadline)
        if entry.unit is None or entry.used is None:
            return None
        session = self._sessions().find(entry.used.portal, entry.used.iqn)
        if session is None or session.scsi_host != entry.unit.scsi_host:
            return None
        disk = read_disk(self.host.sys, entry.unit)
        expected = entry.expected_wwid
        if disk is None or not (expected is None or same_wwid(disk.wwid, expected)):
            return None
        if session.is_logged_in and entry.used in paths:
            try:
                rescan(self.host.sys, entry.unit, deadline.at_most(self.policy.answer_s))
            except DeviceError:
                return None
            disk = read_disk(self.host.sys, entry.unit)
            if disk is None or disk.size_bytes == 0:
                return None
            if expected is not None and not same_wwid(disk.wwid, expected):
                self._disks().discard(disk, deadline, expected=expected)
                return None
        elif not find_openers(self.host.sys, disk, deadline):
            return None
        if use is not None and not self._keeps_one_path(info, disk, deadline):
            return None
        holders = _with_holder(entry, info.attachment_id)
        if holders != entry.holders:
            self.host.journal.write(replace(entry, holders=holders))
        elapsed_s = time.monotonic() - began
        return ConnectedVolume(
            path=disk.path,
            wwid=disk.wwid,
            size_bytes=disk.size_bytes,
            used=entry.used,
            unit=disk.address,
            unused=tuple(
                UnusedPath(path, "not tried: the volume is connected already", None)
                for path in paths
                if path != entry.used
            ),
            change=Change.UNCHANGED,
            choice_s=elapsed_s,
            elapsed_s=elapsed_s,
        )

    def _keeps_one_path(self, info: ConnectionInfo, disk: ScsiDisk, deadline: Deadline) -> bool:
        """Tell whether a disk that is to have a map stays without it, since somebody uses it.

        Raises: MultipathDown where the map is demanded.
        """
        if not find_openers(self.host.sys, disk, deadline):
            return False  # it can be made anew, with its map
        if info.enforce_multipath:
            what = f"The volume is in use over one path already ({disk.path})"
            raise MultipathDown(what, "disconnect it to have a map")
        return True

    def _still_joined(
        self,
        info: ConnectionInfo,
        entry: HostConnection,
        paths: tuple[TargetPath, ...],
        began: float,
        deadline: Deadline,
    ) -> ConnectedVolume | None:
        """Return a volume that has a map; None where it is gone, or dead and nobody uses it."""
        found = self._maps().find(entry.expected_wwid)
        if found is None or entry.unit is None or entry.used is None:
            return None
        seen = self._view().seen(entry, found)
        live = [one for one in seen if one.state is PathState.LIVE]
        if not live and not find_users(self.host.sys, found, deadline):
            return None
        for one in live:
            if one.disk is not None and one.session is not None:
                self._disks().answers(one.session, one.disk, deadline)
                now = read_disk(self.host.sys, one.disk.address)
                if now is not None and not same_wwid(now.wwid, entry.expected_wwid):
                    return None  # remapped: it is made anew, or refused while it is in use
        new = (*entry.paths, *(path for path in paths if path not in entry.paths))
        holders = _with_holder(entry, info.attachment_id)
        if holders != entry.holders or new != entry.paths:
            self.host.journal.write(replace(entry, holders=holders, paths=new))
        first = live[0] if live else None
        elapsed_s = time.monotonic() - began
        return ConnectedVolume(
            path=found.path,
            wwid=entry.expected_wwid,
            size_bytes=map_size(self.host.sys, found),
            used=entry.used if first is None else first.path,
            unit=entry.unit if first is None or first.disk is None else first.disk.address,
            unused=(),
            change=Change.UNCHANGED,
            choice_s=elapsed_s,
            elapsed_s=elapsed_s,
            map_name=found.device,
        )

    def _require_connected(self, info: ConnectionInfo) -> HostConnection:
        entry = self._entry(info, look_everywhere=True)
        if (
            entry is None
            or entry.phase is not Phase.CONNECTED
            or entry.unit is None
            or entry.is_of_another_volume(info.volume_id)
        ):
            raise DeviceMissing(str(info.main_path), "the volume is not connected on this host")
        return entry

    def _new_entry(
        self,
        info: ConnectionInfo,
        paths: tuple[TargetPath, ...],
        earlier: HostConnection | None,
    ) -> HostConnection:
        return HostConnection(
            key=connection_key(info),
            phase=Phase.CONNECTING,
            paths=paths,
            used=None,
            iface=IFACE,
            addressing_mode=info.addressing_mode,
            wwid=info.wwid,
            seen_wwid=None if earlier is None else earlier.seen_wwid,
            volume_id=info.volume_id,
            holders=_holders(earlier, info.attachment_id, self.host.boot_id),
            unit=None,
            disk_name=None,
            size_bytes=None,
            boot_id=self.host.boot_id,
            since=time.time(),
        )

    # -- parts -------------------------------------------------------------------------------

    def _within(self, deadline: Deadline | None) -> Deadline:
        return Deadline.after(self.policy.budget_s) if deadline is None else deadline

    @contextmanager
    def _alone(
        self, info: ConnectionInfo, paths: tuple[TargetPath, ...], deadline: Deadline
    ) -> Iterator[None]:
        """Let nobody else work on this volume, or on a unit that it may be reached at."""
        names = work_locks(connection_key(info), paths)
        with self.host.locks.hold_all(names, deadline.at_most(self.policy.lock_s)):
            yield

    def _sessions(self) -> Sessions:
        return Sessions(self.host, self.policy)

    def _disks(self) -> Disks:
        return Disks(self.host, self.policy)

    def _maps(self) -> Maps:
        return Maps(self.host, self.policy)

    def _view(self) -> PathView:
        return PathView(self.host, self._maps())

    def _single_path(self) -> SinglePath:
        return SinglePath(self.host, self.policy, self._sessions(), self._disks(), self._maps())

    def _disconnection(self) -> Disconnection:
        return Disconnection(self.host, self.policy, self._sessions(), self._disks(), self._maps())

    def _completion(self) -> PathCompletion:
        return PathCompletion(
            self.host, self.policy, self._sessions(), self._disks(), self._maps(), self._view()
        )

    def _forecast(self) -> Forecast:
        return Forecast(self.host, self._sessions(), self._maps())

    def _extension(self) -> Extension:
        return Extension(self.host, self.policy, self._maps(), self._view())

    def _recovery(self) -> Recovery:
        return Recovery(
            self.host, self.policy, self._sessions(), self._disks(), self._disconnection()
        )


def _is_at(entry: HostConnection, units: Collection[tuple[str, int]]) -> bool:
    is_one = entry.used is not None and entry.multipath is None
    paths = (entry.used,) if entry.used is not None and is_one else entry.paths
    return any((fold_iqn(path.iqn), path.lun) in units for path in paths)


def _holders(
    earlier: HostConnection | None, attachment_id: str | None, boot_id: str
) -> tuple[str, ...]:
    """Return who holds a connection that is made, or made anew while others hold it too."""
    if earlier is not None and earlier.phase is Phase.CONNECTED and earlier.boot_id == boot_id:
        return _with_holder(earlier, attachment_id)
    return () if attachment_id is None else (attachment_id,)


def _with_holder(entry: HostConnection, attachment_id: str | None) -> tuple[str, ...]:
    if attachment_id is None or attachment_id in entry.holders:
        return entry.holders
    return (*entry.holders, attachment_id)


def _without_holder(entry: HostConnection, attachment_id: str | None) -> tuple[str, ...] | None:
    """Return who still holds the connection without this attachment; None if it may go."""
    if attachment_id is None or not entry.holders:
        return None
    left = tuple(holder for holder in entry.holders if holder != attachment_id)
    return left or None
