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

import time
from collections.abc import Collection, Iterator
from contextlib import contextmanager, suppress
from dataclasses import dataclass, field, replace

from lunport.core.change import Change
from lunport.core.connection_info import ConnectionInfo
from lunport.core.errors import (
    CommandTimedOut,
    DeviceError,
    DeviceMissing,
    IscsiError,
    LunportError,
    SizeUnchanged,
    UndoFailed,
    WrongDevice,
)
from lunport.core.host_connection import HostConnection, Phase, connection_key
from lunport.core.iqn import fold_iqn
from lunport.core.recovery_actions import RecoveryAction
from lunport.core.target_path import TargetPath
from lunport.core.wwid import same_wwid
from lunport.host.block_openers import find_openers
from lunport.host.clock import Deadline
from lunport.host.portal_probe import probe_path
from lunport.host.scsi_disk import ScsiDisk, read_disk, rescan
from lunport.initiator.connected_volume import ConnectedVolume, InitiatorPolicy
from lunport.initiator.disconnect import Disconnection
from lunport.initiator.disks import Disks
from lunport.initiator.forecast import foresee_connect, foresee_disconnect
from lunport.initiator.initiator_host import InitiatorHost
from lunport.initiator.lock_names import work_locks
from lunport.initiator.path_source import find_paths, resolve_paths
from lunport.initiator.portal_choice import UnusedPath
from lunport.initiator.recover import Recovery, RecoveryStep
from lunport.initiator.sessions import IFACE, Sessions
from lunport.initiator.single_path import SinglePath


@dataclass(frozen=True, slots=True)
class Initiator:
    """The initiator of one host. Safe to share between threads; any number may exist."""

    host: InitiatorHost = field(default_factory=InitiatorHost)
    policy: InitiatorPolicy = field(default_factory=InitiatorPolicy)

    def connect(self, info: ConnectionInfo, *, deadline: Deadline | None = None) -> ConnectedVolume:
        """Make the volume a disk, through the first of its paths that works.

        Returns the disk that is there already when this host has it (``UNCHANGED``). On
        failure nothing of this call is left.
        Raises: AuthenticationFailed, AllPathsFailed (one error for each path),
        WrongDevice, InitiatorDown, CommandMissing, InvalidConnectionInfo, Unavailable
        (somebody else works on this volume), UndoFailed.
        """
        began = time.monotonic()
        deadline = self._within(deadline)
        found = find_paths(info, self.host, deadline)
        with self._alone(info, found.paths, deadline):
            entry = self._entry(info)
            if entry is not None:
                connected = self._still_there(info, entry, found.paths, began, deadline)
                if connected is not None:
                    return connected
                # No longer good, or cut off: what it left goes first. A session that can't be
                # ended now is in the journal, and no reason not to take another path.
                with suppress(IscsiError, CommandTimedOut):
                    self._disconnection().run(
                        entry, mode=entry.addressing_mode, force=True, deadline=deadline
                    )
            try:
                volume = self._single_path().connect(
                    info, found.paths, self._new_entry(info, found.paths, entry), deadline
                )
            except LunportError as error:
                is_held = entry is not None and entry.wwid is None and entry.seen_wwid is not None
                if entry is not None and is_held and not isinstance(error, UndoFailed):
                    # Until a disconnect, nothing else may be handed out as this volume.
                    self.host.journal.write(replace(entry, unit=None, disk_name=None))
                raise
        return replace(volume, unused=volume.unused + found.unused)

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
        attachments hold goes with the last one. ``force``: what can't be flushed is lost.
        Raises: DeviceBusy and FlushFailed (all is as before), DeviceStuck, IscsiError,
        Unavailable (what is left is in the journal, for the next try or ``recover``).
        """
        deadline = self._within(deadline)
        entry = self._entry(info, look_everywhere=True)
        paths = entry.paths if entry is not None else info.paths
        with self._alone(info, paths, deadline):
            entry = self._entry(info, look_everywhere=True)
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

        Idempotent. Raises: DeviceMissing, WrongDevice, SizeUnchanged, DeviceStuck, and the
        probe's errors where the storage can't be asked.
        """
        deadline = self._within(deadline)
        with self._alone(info, info.paths, deadline):
            entry = self._require_connected(info)
            disk = self._require_unit(entry)
            wanted_bytes = self._size_on_storage(info, entry, deadline)
            rescan(self.host.sys, disk.address, deadline)
            # What it said before may have been old news: only this counts.
            now = self._require_disk(entry)
            if wanted_bytes is not None and now.size_bytes != wanted_bytes:
                raise SizeUnchanged(now.path, now.size_bytes, wanted_bytes)
            self.host.journal.write(replace(entry, size_bytes=now.size_bytes))
            return now.size_bytes

    def connections(self) -> tuple[HostConnection, ...]:
        """List what the journal says of this host's connections."""
        return self.host.journal.connections()

    def recover(self, *, remove_leftovers: bool = False) -> tuple[RecoveryStep, ...]:
        """Finish or undo what was cut off; tell what stays, and what no journal knows.

        Idempotent; ``remove_leftovers`` also removes the latter where nobody has it open.
        """
        return self._recovery().run(remove_leftovers=remove_leftovers)

    def foresee_recover(self) -> tuple[RecoveryAction, ...]:
        """Say what :meth:`recover` would do now, and what no journal knows; change nothing."""
        return self._recovery().look()

    def foresee_connect(self, info: ConnectionInfo) -> tuple[str, ...]:
        """Say what :meth:`connect` would do now, a sentence for each step; change nothing."""
        paths = resolve_paths(info.paths, self._within(None)).paths
        return foresee_connect(self.host, self._sessions(), info, paths)

    def foresee_disconnect(self, info: ConnectionInfo) -> tuple[str, ...]:
        """Say what :meth:`disconnect` would do now, a sentence for each step; change nothing."""
        return foresee_disconnect(self.host, self._sessions(), info)

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
        began: float,
        deadline: Deadline,
    ) -> ConnectedVolume | None:
        """Return the volume as it is connected already; None where it is not, or not well."""
        if entry.phase is not Phase.CONNECTED or entry.boot_id != self.host.boot_id:
            return None
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

    def _require_connected(self, info: ConnectionInfo) -> HostConnection:
        entry = self._entry(info, look_everywhere=True)
        if entry is None or entry.phase is not Phase.CONNECTED or entry.unit is None:
            raise DeviceMissing(str(info.main_path), "the volume is not connected on this host")
        return entry

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
        self, info: ConnectionInfo, entry: HostConnection, deadline: Deadline
    ) -> int | None:
        """Ask the storage how large the unit is; None where it does not answer well."""
        if entry.used is None:
            return None
        return probe_path(
            entry.used,
            self.host.initiator_name(),
            info.chap,
            expected_wwid=entry.wwid,
            check_lun=True,
            deadline=deadline.at_most(self.policy.choice.budget_s),
            addressing_mode=info.addressing_mode,
        ).size_bytes

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

    def _single_path(self) -> SinglePath:
        return SinglePath(self.host, self.policy, self._sessions(), self._disks())

    def _disconnection(self) -> Disconnection:
        return Disconnection(self.host, self.policy, self._sessions(), self._disks())

    def _recovery(self) -> Recovery:
        return Recovery(self.host, self.policy, self._sessions(), self._disks())


def _is_at(entry: HostConnection, units: Collection[tuple[str, int]]) -> bool:
    paths = entry.paths if entry.used is None else (entry.used,)
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
