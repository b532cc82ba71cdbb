r"""Connect one volume through one path: the main one, or the first alternative that works.

    choose (probe) -> intend (journal) -> session -> disk -> verify -> journal
                                                                 \-> with a map: join it first

Where a map is wanted all portals are probed at once, since any path will do to begin with, and
what is handed out is the map, once it has been read from; the other paths come later.

Every cause of failure leads on to the next path in the list's order, and is kept as that
path's reason: a portal that refuses or is silent, a login that hangs or is rejected, a
target or unit that is gone, a disk that does not appear or is another one. A wrong secret
ends it at once, since every portal would say the same. What a failed path left is undone
before the next is tried.
"""

from __future__ import annotations

import time
from collections.abc import Mapping, Sequence
from contextlib import suppress
from dataclasses import dataclass, replace
from typing import Final

from lunport.core.change import Change
from lunport.core.connection_info import ConnectionInfo
from lunport.core.errors import (
    AllPathsFailed,
    AuthenticationFailed,
    CommandTimedOut,
    DeviceError,
    IscsiError,
    LoginRejected,
    LoginTimedOut,
    LunportError,
    UndoFailed,
)
from lunport.core.host_connection import HostConnection, Phase
from lunport.core.kernel_session import KernelSession
from lunport.core.login_progress import ChoicePolicy
from lunport.core.scsi_address import kernel_lun
from lunport.core.target_path import TargetPath
from lunport.host.clock import Deadline
from lunport.host.multipath_map import MultipathMap
from lunport.host.scsi_disk import ScsiDisk, find_unit
from lunport.initiator.connected_volume import ConnectedVolume, InitiatorPolicy
from lunport.initiator.disks import Disks
from lunport.initiator.initiator_host import InitiatorHost
from lunport.initiator.maps import Maps
from lunport.initiator.multipath_policy import record_settings
from lunport.initiator.portal_choice import PathChoice, UnusedPath, choose_path
from lunport.initiator.sessions import Sessions

# Between the starts of two probes where any path will do: all are under way at once.
_AT_ONCE_S: Final = 0.05


@dataclass(frozen=True, slots=True)
class SinglePath:
    """Connects over one path on one host."""

    host: InitiatorHost
    policy: InitiatorPolicy
    sessions: Sessions
    disks: Disks
    maps: Maps

    def connect(
        self,
        info: ConnectionInfo,
        paths: Sequence[TargetPath],
        entry: HostConnection,
        deadline: Deadline,
    ) -> ConnectedVolume:
        """Connect through the earliest of the paths that works.

        ``entry`` is what to write into the journal; its identity, seen or stated, is held
        against what the disk says. On failure nothing is left, and no entry.
        Raises: AuthenticationFailed, AllPathsFailed (each path's error in the given order),
        InitiatorDown, UndoFailed (then the journal has what is left).
        """
        began = time.monotonic()
        failures: dict[TargetPath, LunportError] = {}
        took_s: dict[TargetPath, float] = {}
        volume = self._first_that_works(paths, info, entry, failures, took_s, deadline)
        if volume is None and not deadline.has_passed():
            # On a busy host a login can time out although the probe was let in: once more.
            late = [path for path in paths if isinstance(failures.get(path), _LateLogin)]
            for path in late:
                del failures[path]
            volume = self._first_that_works(late, info, entry, failures, took_s, deadline)
        if volume is None:
            raise AllPathsFailed(
                [_reason(path, failures, deadline) for path in paths],
                [took_s.get(path) for path in paths],
            )
        elapsed_s = time.monotonic() - began
        choice_s = elapsed_s - volume.elapsed_s + volume.choice_s
        unused = _unused(paths, volume, failures)
        return replace(volume, unused=unused, choice_s=choice_s, elapsed_s=elapsed_s)

    def _first_that_works(
        self,
        paths: Sequence[TargetPath],
        info: ConnectionInfo,
        entry: HostConnection,
        failures: dict[TargetPath, LunportError],
        took_s: dict[TargetPath, float],
        deadline: Deadline,
    ) -> ConnectedVolume | None:
        """Try these paths in order; None, with each one's failure noted, when none works."""
        began = time.monotonic()
        while left := [path for path in paths if path not in failures]:
            if failures and deadline.has_passed():
                break
            choice = self._choose(left, info, entry, failures, deadline)
            if choice is None:
                break
            chosen = time.monotonic()
            choice_s = chosen - began
            try:
                disk, joined = self._through(choice, info, entry, deadline)
            except (IscsiError, DeviceError, CommandTimedOut) as error:
                failures[choice.path] = _seen_from_here(error, str(choice.path))
                took_s[choice.path] = time.monotonic() - chosen
                continue
            return ConnectedVolume(
                path=disk.path if joined is None else joined.path,
                wwid=disk.wwid,
                size_bytes=disk.size_bytes,
                used=choice.path,
                unit=disk.address,
                unused=choice.unused,
                change=Change.CHANGED,
                choice_s=choice_s,
                elapsed_s=time.monotonic() - began,
                map_name=None if joined is None else joined.device,
            )
        return None

    def _choice_policy(self, entry: HostConnection) -> ChoicePolicy:
        if entry.multipath is None:
            return self.policy.choice
        return replace(self.policy.choice, grace_s=min(_AT_ONCE_S, self.policy.choice.grace_s))

    def _choose(
        self,
        paths: Sequence[TargetPath],
        info: ConnectionInfo,
        entry: HostConnection,
        failures: dict[TargetPath, LunportError],
        deadline: Deadline,
    ) -> PathChoice | None:
        """Choose among the paths that are left; None, and their failures noted, if none works."""
        try:
            return choose_path(
                paths,
                self.host.initiator_name(),
                chap=info.chap,
                wwid=entry.expected_wwid,
                memory=self.host.memory,
                deadline=deadline,
                policy=self._choice_policy(entry),
                addressing_mode=info.addressing_mode,
            )
        except AllPathsFailed as error:
            failures.update(zip(paths, error.attempts, strict=True))
            return None

    def _through(
        self, choice: PathChoice, info: ConnectionInfo, entry: HostConnection, deadline: Deadline
    ) -> tuple[ScsiDisk, MultipathMap | None]:
        """Connect through the chosen path; undo what was done if it fails."""
        path = choice.path
        intent = replace(entry, phase=Phase.CONNECTING, used=path)
        scanned: KernelSession | None = None
        self.host.journal.write(intent)
        self.host.on_step("connect-intended")
        try:
            if intent.multipath is not None or self.host.keeps_watch:
                # For logins to come: further paths, and those after a reboot.
                self.host.journal.write_chap(intent.key, info.chap)
            if intent.multipath is not None:
                intent = self.maps.registered(intent, intent.expected_wwid)
            with self.sessions.in_use(path, deadline):
                session = self.sessions.ensure(
                    path,
                    chap=info.chap,
                    tpgt=choice.outcome.tpgt,
                    settings=record_settings(self.policy.record, intent.multipath),
                    deadline=deadline,
                )
                lun = kernel_lun(path.lun, info.addressing_mode)
                was_there = find_unit(self.host.sys, session, lun) is not None
                disk = self.disks.obtain(
                    session,
                    path,
                    mode=info.addressing_mode,
                    expected=entry.expected_wwid,
                    deadline=deadline.at_most(self.policy.disk_s),
                )
                scanned = None if was_there else session
                intent = replace(
                    intent,
                    seen_wwid=disk.wwid,
                    unit=disk.address,
                    disk_name=disk.name,
                    size_bytes=disk.size_bytes,
                    since=time.time(),
                )
                joined = None
                if intent.multipath is not None:
                    intent, joined = self.maps.begin(intent, session, disk, path, deadline)
                self.host.journal.write(replace(intent, phase=Phase.CONNECTED))
                self.host.on_step("connect-noted")
                if joined is None:
                    self.maps.patience.settle_shared(session)
            return disk, joined
        except LunportError as error:
            self._undo(path, intent, error, scanned)
            raise

    def _undo(
        self,
        path: TargetPath,
        intent: HostConnection,
        cause: LunportError,
        scanned: KernelSession | None,
    ) -> None:
        """Leave what was before: no disk, no session of ours without use, and no entry.

        ``scanned``: the session, anybody's, on which this connect has made the disk. A session
        that can't be ended now stays in the journal on its own account.
        """
        try:
            if intent.multipath is not None:
                self.maps.end(intent, Deadline.after(self.policy.flush_s), is_handed_out=False)
            session = scanned or self.sessions.find_own(path.portal, path.iqn)
            if session is not None:
                self.disks.clear(session, path, intent.addressing_mode, intent.key)
            self.host.journal.remove(intent.key)
            with suppress(IscsiError, CommandTimedOut):
                self.sessions.release(path.portal, path.iqn, Deadline.after(self.policy.logout_s))
            if intent.multipath is not None and session is not None:
                self.maps.patience.restore([session])
        except LunportError as error:
            raise UndoFailed(cause, [error]) from cause
        self.host.on_step("connect-undone")


class _LateLogin(LoginTimedOut):
    """A login that timed out although the probe of the same portal had just been let in."""


def _seen_from_here(error: LunportError, path: str) -> LunportError:
    """Read a refusal for what it can be: the probe with the same secret was let in."""
    if isinstance(error, LoginTimedOut | CommandTimedOut):
        return _LateLogin(path, f"{error} (while the probe was let in)")
    if isinstance(error, AuthenticationFailed):
        return LoginRejected(error.path, f"{error.detail} (while the probe was let in)")
    return error


def _reason(
    path: TargetPath, failures: Mapping[TargetPath, LunportError], deadline: Deadline
) -> LunportError:
    if path in failures:
        return failures[path]
    return LoginTimedOut(str(path), f"not tried: {deadline.budget_s:.1f} s were over")


def _unused(
    paths: Sequence[TargetPath],
    volume: ConnectedVolume,
    failures: Mapping[TargetPath, LunportError],
) -> tuple[UnusedPath, ...]:
    """List the paths that are not used, in the given order, each with its reason."""
    known = {unused.path: unused for unused in volume.unused}
    known |= {path: UnusedPath(path, str(error), None) for path, error in failures.items()}
    return tuple(known[path] for path in paths if path in known)
