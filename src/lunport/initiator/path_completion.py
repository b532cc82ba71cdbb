"""Bring the paths of a connection that are wanted and missing into its map.

    for each, at once: probe -> session -> disk -> verify -> journal -> map

The one mechanism behind a connect that waits for several paths, behind the helper that goes on
after it, and behind healing. It adds and nudges: nothing that somebody may use is logged out or
removed. What can't be had now is noted with its reason and left to the next pass. Each step on
the volume is taken under its lock and only while the connection stands, so that a disconnect
meanwhile wins; a login that it crossed is undone here.

A connection that wants one path of several (``MultipathUse.wanted`` is 1) is moved: while none
is live the first healthy portal is logged in to, and what was left of the path before goes.
"""

from __future__ import annotations

import time
from collections.abc import Iterator
from contextlib import contextmanager, suppress
from dataclasses import dataclass, replace
from functools import partial
from typing import Final

from lunport.core.chap import Chap
from lunport.core.errors import (
    AllPathsFailed,
    CommandTimedOut,
    DeviceError,
    DeviceMissing,
    IscsiError,
    LunportError,
    MultipathDown,
    Unavailable,
    WrongDevice,
)
from lunport.core.host_connection import HostConnection, Phase
from lunport.core.kernel_session import KernelSession
from lunport.core.multipath_use import MemberPath, is_same_way
from lunport.core.path_status import PathState, VolumePaths
from lunport.core.probe_outcome import outcome_error
from lunport.core.target_path import TargetPath
from lunport.core.wwid import same_wwid
from lunport.host.clock import Deadline
from lunport.host.multipath_map import member_names
from lunport.host.path_notes import PathNote
from lunport.host.portal_probe import probe_path
from lunport.host.scsi_disk import ScsiDisk, read_disk
from lunport.host.tasks import Stop, TaskGroup
from lunport.host.udev_database import wait_until_known
from lunport.initiator.connected_volume import InitiatorPolicy
from lunport.initiator.disks import Disks
from lunport.initiator.initiator_host import InitiatorHost
from lunport.initiator.lock_names import work_locks
from lunport.initiator.maps import Maps
from lunport.initiator.multipath_policy import record_settings
from lunport.initiator.path_view import PathView, SeenPath
from lunport.initiator.portal_choice import choose_path
from lunport.initiator.sessions import Sessions

_LOOK_S: Final = 1.0


class _OverTaken(Exception):  # not an error: somebody disconnects the volume
    """The connection does not stand any more."""


@dataclass(frozen=True, slots=True)
class PathCompletion:
    """Completes connections of one host."""

    host: InitiatorHost
    policy: InitiatorPolicy
    sessions: Sessions
    disks: Disks
    maps: Maps
    view: PathView

    def run(
        self,
        key: str,
        deadline: Deadline,
        *,
        ready: int | None = None,
        stop: Stop | None = None,
    ) -> VolumePaths | None:
        """Make one pass over what is missing; return how the paths are then.

        ``ready``: end as soon as so many are live. None where the connection has no map or does
        not stand any more. Idempotent. Raises: HostLacks, JournalDamaged.
        """
        entry = self._standing(key)
        if entry is None:
            return None
        failures: dict[TargetPath, str] = {}
        with suppress(_OverTaken):
            if entry.multipath is not None and entry.multipath.wanted == 1:
                self._move(entry, failures, deadline)
            else:
                self._add_all(entry, failures, deadline, ready=ready, stop=stop)
        entry = self._standing(key)
        if entry is None:
            self.host.path_notes.remove(key)
            return None
        self._note(entry, failures)
        return self.view.volume(entry)

    # -- every path --------------------------------------------------------------------------

    def _add_all(
        self,
        entry: HostConnection,
        failures: dict[TargetPath, str],
        deadline: Deadline,
        *,
        ready: int | None,
        stop: Stop | None,
    ) -> None:
        chap = self.host.journal.chap(entry.key)
        seen = self._seen(entry)
        live = sum(one.state is PathState.LIVE for one in seen)
        missing = [one for one in seen if one.state not in (PathState.LIVE, PathState.SPARE)]
        if ready is not None and live >= ready:
            return
        with TaskGroup[None]("path") as group:
            for number, one in enumerate(missing):
                task = partial(self._bring, entry, one, chap, deadline, group.stop)
                group.start(str(number), task)
            left = len(missing)
            while left and not (stop is not None and stop.is_set()):
                report = group.next_report(min(_LOOK_S, max(0.01, deadline.remaining_s())))
                if report is None:
                    if deadline.has_passed():
                        break
                    continue
                left -= 1
                if report.error is None:
                    live += 1
                elif isinstance(report.error, LunportError):
                    failures[missing[int(report.name)].path] = str(report.error)
                elif not isinstance(report.error, _OverTaken):
                    raise report.error
                if ready is not None and live >= ready:
                    break

    def _bring(
        self,
        entry: HostConnection,
        seen: SeenPath,
        chap: Chap | None,
        deadline: Deadline,
        stop: Stop,
    ) -> None:
        """Make one path live. Raises: LunportError, _OverTaken."""
        if seen.state is PathState.FAILED and seen.session is not None and seen.disk is not None:
            self._revive(entry, seen, deadline)
            return
        self._add(entry, seen, chap, deadline, stop)

    def _add(
        self,
        entry: HostConnection,
        seen: SeenPath,
        chap: Chap | None,
        deadline: Deadline,
        stop: Stop,
    ) -> None:
        """Log in, scan, verify and join. Raises: LunportError, _OverTaken."""
        path = seen.path
        tpgt = None if seen.session is None else seen.session.tpgt
        if seen.session is None:
            tpgt = self._probe(entry, path, chap, deadline, stop)
        try:
            with self.sessions.in_use(path, deadline):
                self._require_standing(entry.key)
                self._through(entry, path, chap, tpgt, deadline)
        except (_OverTaken, IscsiError, DeviceError, CommandTimedOut, Unavailable):
            # Where nothing of ours is on it now, a session of ours has no use.
            with suppress(LunportError):
                self.sessions.release(path.portal, path.iqn, Deadline.after(self.policy.logout_s))
            raise

    def _probe(
        self,
        entry: HostConnection,
        path: TargetPath,
        chap: Chap | None,
        deadline: Deadline,
        stop: Stop,
    ) -> int | None:
        """Ask a portal before a login, which would take longer to fail. Returns the TPGT."""
        outcome = probe_path(
            path,
            self.host.initiator_name(),
            chap,
            expected_wwid=entry.expected_wwid,
            check_lun=True,
            deadline=deadline.at_most(self.policy.choice.budget_s),
            stop=stop,
            addressing_mode=entry.addressing_mode,
        )
        error = outcome_error(outcome, str(path))
        if error is not None:
            raise error
        return outcome.tpgt

    def _through(
        self,
        entry: HostConnection,
        path: TargetPath,
        chap: Chap | None,
        tpgt: int | None,
        deadline: Deadline,
    ) -> None:
        session = self.sessions.ensure(
            path,
            chap=chap,
            tpgt=tpgt,
            settings=record_settings(self.policy.record, entry.multipath),
            deadline=deadline,
        )
        with self._alone(entry, deadline) as now:
            disk = self.disks.obtain(
                session,
                path,
                mode=now.addressing_mode,
                expected=now.expected_wwid,
                deadline=deadline.at_most(self.policy.disk_s),
            )
            self._note_member(now, path, session.iface, disk)
        # What takes longest is waited for without the lock.
        wait_until_known(disk.number, deadline.at_most(self.policy.multipath.settle_s))
        with self._alone(entry, deadline) as now:
            assert now.multipath is not None
            assert now.expected_wwid is not None
            found = self.maps.join(
                disk, now.expected_wwid, deadline.at_most(self.policy.multipath.settle_s)
            )
            self.maps.tune(found, now.multipath, self._sessions_of(now), deadline)

    def _revive(self, entry: HostConnection, seen: SeenPath, deadline: Deadline) -> None:
        """Have a path used again whose disk answers, and is the volume still.

        Raises: IscsiError, WrongDevice, DeviceMissing, DeviceStuck.
        """
        assert seen.session is not None
        assert seen.disk is not None
        if not self.disks.answers(seen.session, seen.disk, deadline):
            state = seen.session.state.lower()
            raise IscsiError(str(seen.path), f"its disk does not answer; the session is {state}")
        with self._alone(entry, deadline) as now:
            self._require_same(seen, now, deadline)
            found = self.maps.find(now.expected_wwid)
            if found is not None:
                self.maps.reinstate(found, seen.disk, deadline)
            if found is not None and now.multipath is not None:
                self.maps.tune(found, now.multipath, self._sessions_of(now), deadline)

    def _require_same(self, seen: SeenPath, entry: HostConnection, deadline: Deadline) -> None:
        """See that a disk that answers again is the volume; out of the map with another one.

        multipathd itself uses a path again without such a look, unless ``recheck_wwid`` is set.
        Raises: WrongDevice, DeviceMissing.
        """
        assert seen.disk is not None
        disk = read_disk(self.host.sys, seen.disk.address)
        if disk is None or disk.size_bytes == 0:
            raise DeviceMissing(str(seen.path), "its target no longer shows it")
        expected = entry.expected_wwid
        if expected is not None and not same_wwid(disk.wwid, expected):
            with suppress(MultipathDown, CommandTimedOut):  # the kernel does not use it now
                self.host.multipathd.remove_path(disk.name, deadline)
            found = disk.wwid or "without an identity"
            raise WrongDevice(f"{seen.path} ({disk.path})", expected, found)

    # -- one path that moves -----------------------------------------------------------------

    def _move(
        self, entry: HostConnection, failures: dict[TargetPath, str], deadline: Deadline
    ) -> None:
        seen = self._seen(entry)
        if any(one.state is PathState.LIVE for one in seen):
            return
        chap = self.host.journal.chap(entry.key)
        try:
            choice = choose_path(
                entry.paths,
                self.host.initiator_name(),
                chap=chap,
                wwid=entry.expected_wwid,
                memory=self.host.memory,
                deadline=deadline,
                policy=self.policy.choice,
                addressing_mode=entry.addressing_mode,
            )
        except AllPathsFailed as error:
            failures.update(zip(entry.paths, map(str, error.attempts), strict=True))
            return
        chosen = next(one for one in seen if is_same_way(one.path, choice.path))
        stop = Stop()
        try:
            self._bring(entry, chosen, chap, deadline, stop)
        except LunportError as error:
            failures[chosen.path] = str(error)
            return
        finally:
            stop.close()
        for one in seen:
            if not is_same_way(one.path, choice.path):
                self._leave(entry, one, deadline)

    def _leave(self, entry: HostConnection, seen: SeenPath, deadline: Deadline) -> None:
        """Take what is left of a dead path out of the map and away, now that another is live."""
        if seen.disk is not None and seen.session is not None:
            with self._alone(entry, deadline) as now, suppress(DeviceError, MultipathDown):
                self.host.multipathd.remove_path(seen.disk.name, deadline)
                found = self.maps.find(now.expected_wwid)
                if found is None or seen.disk.name not in member_names(self.host.sys, found):
                    self.disks.take_out(seen.disk.address, deadline.at_most(self.policy.flush_s))
                    assert now.multipath is not None
                    use = now.multipath.without(seen.path)
                    self.host.journal.write(replace(now, multipath=use))
        with suppress(IscsiError, CommandTimedOut):
            self.sessions.release(
                seen.path.portal, seen.path.iqn, deadline.at_most(self.policy.logout_s)
            )
        if seen.session is not None:
            self.maps.patience.restore([seen.session])

    # -- parts -------------------------------------------------------------------------------

    def _seen(self, entry: HostConnection) -> tuple[SeenPath, ...]:
        return self.view.seen(entry, self.maps.find(entry.expected_wwid))

    def _standing(self, key: str) -> HostConnection | None:
        """Return a connection that is as it should be, and has a map."""
        entry = self.host.journal.get(key)
        if entry is None or entry.phase is not Phase.CONNECTED or entry.multipath is None:
            return None
        return entry if entry.boot_id == self.host.boot_id else None

    def _require_standing(self, key: str) -> HostConnection:
        entry = self._standing(key)
        if entry is None:
            raise _OverTaken
        return entry

    @contextmanager
    def _alone(self, entry: HostConnection, deadline: Deadline) -> Iterator[HostConnection]:
        """Let nobody else work on the volume, and go on only while it is connected."""
        names = work_locks(entry.key, entry.paths)
        with self.host.locks.hold_all(names, deadline.at_most(self.policy.lock_s)):
            yield self._require_standing(entry.key)

    def _note_member(
        self, entry: HostConnection, path: TargetPath, iface: str, disk: ScsiDisk
    ) -> None:
        assert entry.multipath is not None
        member = MemberPath(path, iface or entry.iface, disk.address, disk.name, time.time())
        use = entry.multipath.with_member(member)
        self.host.journal.write(replace(entry, multipath=use))
        self.host.on_step("member-noted")

    def _sessions_of(self, entry: HostConnection) -> list[KernelSession]:
        assert entry.multipath is not None
        found = (
            self.sessions.find(one.path.portal, one.path.iqn) for one in entry.multipath.members
        )
        return [session for session in found if session is not None]

    def _note(self, entry: HostConnection, failures: dict[TargetPath, str]) -> None:
        """Keep since when each path is as it is, and why, for whoever shows it."""
        before = self.host.path_notes.read(entry.key)
        now = time.time()
        notes = {}
        for one in self._seen(entry):
            name = str(one.path)
            earlier = before.get(name)
            is_same = earlier is not None and earlier.state is one.state
            since = earlier.since if earlier is not None and is_same else now
            why = failures.get(one.path) or one.why
            notes[name] = PathNote(one.state, since, None if one.state is PathState.LIVE else why)
        if notes != dict(before):
            self.host.path_notes.write(entry.key, notes)


def is_complete(paths: VolumePaths | None) -> bool:
    """Tell whether nothing is left to bring."""
    return paths is None or paths.live >= paths.wanted
