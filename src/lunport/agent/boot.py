"""Bring back, after a reboot, exactly the connections that the journal had as connected.

The journal's entries of an earlier boot say how each volume was reached, by which credentials
and over which paths; each is connected again as if somebody asked for it anew, so its identity
is verified before anything is a disk. What can't be reached now is tried again, with growing
pauses, until it is there or somebody disconnects it. A unit that is another one now is told and
left alone, until a recovery is asked for.

A connect takes the earlier entry out of the journal. So a copy stays beside it meanwhile
(``returning/``), and a kill at any moment loses nothing. Never connects what was not connected,
nor what was disconnected since.
"""

from __future__ import annotations

import logging
import threading
from collections.abc import Callable, Iterator, Sequence
from contextlib import ExitStack, contextmanager
from dataclasses import dataclass, replace
from functools import partial

from lunport.agent.initiator_seam import AgentInitiator
from lunport.agent.recovery_line import RecoveryLine, step_line
from lunport.core.change import Change
from lunport.core.chap import Chap
from lunport.core.connection_info import ConnectionInfo
from lunport.core.errors import (
    AllPathsFailed,
    LunportError,
    MultipathDown,
    Unavailable,
    WrongDevice,
)
from lunport.core.host_connection import HostConnection, Phase, connection_key
from lunport.core.path_status import PathState, PathStatus, VolumePaths
from lunport.core.target_path import TargetPath
from lunport.host.clock import Deadline
from lunport.host.tasks import run_all
from lunport.initiator.initiator_host import InitiatorHost
from lunport.initiator.journal import Journal
from lunport.initiator.lock_names import work_locks
from lunport.initiator.multipath_policy import MultipathPolicy
from lunport.initiator.path_view import wanted_count
from lunport.initiator.recover import RecoveryStep

_LOG = logging.getLogger(__name__)

FOLDER = "returning"
_ATTEMPT_S = 60.0
_AT_ONCE = 8
_LOCK_S = 5.0
_RECOVERY_S = 900.0
_FIRST_PAUSE_S = 1.0
_LONGEST_PAUSE_S = 30.0


@dataclass(frozen=True, slots=True)
class Awaited:
    """A connection that has yet to come back. ``error``: why not; None before an attempt."""

    entry: HostConnection
    error: LunportError | None

    @property
    def why(self) -> str | None:
        """Why it has not come back, in words."""
        return None if self.error is None else str(self.error)

    def paths(self) -> VolumePaths:
        """Show its paths as they are: all are missing."""
        entry = self.entry
        statuses = (
            PathStatus(path, entry.iface, PathState.MISSING, why=self._why_not(path))
            for path in entry.paths
        )
        return VolumePaths(
            key=entry.key,
            volume_id=entry.volume_id,
            wwid=entry.expected_wwid,
            device=None,
            map_name=None,
            size_bytes=entry.size_bytes,
            wanted=wanted_count(entry),
            paths=tuple(statuses),
        )

    def _why_not(self, path: TargetPath) -> str:
        if self.error is None:
            return "not connected yet since this host was started"
        attempts = self.error.attempts if isinstance(self.error, AllPathsFailed) else ()
        told = (str(one) for one in attempts if str(one).startswith(f"{path.portal} "))
        return next(told, str(self.error))


class EarlierBoot:
    """The connections of earlier boots of one host. Safe to share between threads."""

    def __init__(
        self,
        initiator: AgentInitiator,
        host: InitiatorHost,
        policy: MultipathPolicy,
        has_multipath: Callable[[], bool],
    ) -> None:
        self._initiator = initiator
        self._has_multipath = has_multipath
        self._host = host
        self._policy = policy
        self._copies = Journal(host.journal.folder / FOLDER)
        self._turn = threading.Lock()
        self._guard = threading.Lock()
        self._unwanted: set[str] = set()
        self._failures: dict[str, LunportError] = {}

    # -- looking -----------------------------------------------------------------------------

    def pending(self) -> tuple[HostConnection, ...]:
        """List what has yet to come back, by key."""
        copies = {entry.key: entry for entry in self._copies.connections()}
        there = {entry.key: entry for entry in self._host.journal.connections()}
        for entry in there.values():
            if entry.phase is Phase.CONNECTED:
                copies.pop(entry.key, None)
                if entry.boot_id != self._host.boot_id:
                    copies[entry.key] = entry
        with self._guard:
            return tuple(copies[key] for key in sorted(copies) if key not in self._unwanted)

    def awaited(self) -> tuple[Awaited, ...]:
        """List what has yet to come back, and why it has not."""
        with self._guard:
            failures = dict(self._failures)
        return tuple(Awaited(entry, failures.get(entry.key)) for entry in self.pending())

    def in_attempt(self) -> tuple[HostConnection, ...]:
        """List the entries that an attempt may have taken out of the journal for now."""
        return self._copies.connections()

    # -- wanting -----------------------------------------------------------------------------

    def want(self, info: ConnectionInfo) -> None:
        """Take back a :meth:`forget`: the volume is connected again."""
        with self._guard:
            self._unwanted -= _keys(info)

    def forget(self, info: ConnectionInfo) -> Change:
        """Let a volume not come back; its entry in the journal is the initiator's to remove."""
        keys = _keys(info)
        copies = [
            entry
            for entry in self._copies.connections()
            if entry.key in keys or (info.volume_id and entry.volume_id == info.volume_id)
        ]
        with self._guard:
            self._unwanted |= keys | {entry.key for entry in copies}
            for key in self._unwanted:
                self._failures.pop(key, None)
            for entry in copies:
                self._copies.remove(entry.key)
        return Change.CHANGED if copies else Change.UNCHANGED

    # -- doing -------------------------------------------------------------------------------

    @contextmanager
    def kept(self) -> Iterator[None]:
        """Keep a recovery from giving up what has yet to come back: it is being worked on."""
        names = {name for entry in self.pending() for name in work_locks(entry.key, entry.paths)}
        with ExitStack() as held:
            for name in sorted(names):
                # Whoever else holds it is at work on the volume, which keeps it just as well.
                held.enter_context(self._host.locks.try_hold(name))
            yield

    def bring_back(
        self, deadline: Deadline, *, is_asked_for: bool = True
    ) -> tuple[RecoveryLine, ...]:
        """Try once to connect each again, several at once; say what became of it.

        ``is_asked_for``: also those whose unit was found to be another one.
        Raises: Unavailable (another one is under way until the deadline).
        """
        if not self._turn.acquire(timeout=deadline.remaining_s()):
            raise Unavailable("The connections of an earlier boot are being brought back already.")
        try:
            with self._guard:
                told = dict(self._failures)
            entries = {
                entry.key: entry
                for entry in self.pending()
                if is_asked_for or not _is_another(told.get(entry.key))
            }
            reports = run_all(
                {
                    key: partial(self._attempt, entry, deadline.at_most(_ATTEMPT_S))
                    for key, entry in entries.items()
                },
                limit=_AT_ONCE,
            )
            return tuple(report.unwrap() for report in reports)
        finally:
            self._turn.release()

    def _attempt(self, entry: HostConnection, deadline: Deadline) -> RecoveryLine:
        try:
            chap = self._host.journal.chap(entry.key) or self._copies.chap(entry.key)
            self._copies.write_chap(entry.key, chap)
            self._copies.write(entry)
            try:
                self._connect(entry, chap, deadline)
            finally:
                self._settle(entry, chap)
        except LunportError as error:
            with self._guard:
                is_news = str(self._failures.get(entry.key)) != str(error)
                if entry.key not in self._unwanted:
                    self._failures[entry.key] = error
            if is_news:
                _LOG.warning("not_connected_again key=%s error=%s", entry.key, error)
            return RecoveryLine("failed", again(entry), str(error))
        with self._guard:
            self._failures.pop(entry.key, None)
        _LOG.info("connected_again key=%s volume_id=%s", entry.key, entry.volume_id)
        return RecoveryLine("done", again(entry))

    def _connect(self, entry: HostConnection, chap: Chap | None, deadline: Deadline) -> None:
        """Connect it as it was, for each of its holders."""
        use = entry.multipath
        policy = self._policy
        if use is not None:
            if not self._has_multipath():
                # A map was handed out: no single disk comes in its place.
                raise MultipathDown("multipathd does not run", "it was connected over a map")
            is_resilient = use.wanted == 1
            policy = replace(policy, resilient=is_resilient, queue_s=use.queue_s, stall=use.stall)
        for holder in entry.holders or (None,):
            info = ConnectionInfo(
                paths=entry.paths,
                volume_id=entry.volume_id,
                attachment_id=holder,
                chap=chap,
                enforce_multipath=use is not None,
                is_complete=True,
                wwid=entry.wwid,
                addressing_mode=entry.addressing_mode,
            )
            self._initiator.connect(
                info,
                multipath=use is not None and use.wanted != 1,
                policy=policy,
                deadline=deadline,
            )

    def _settle(self, entry: HostConnection, chap: Chap | None) -> None:
        """Give the journal its entry back where the attempt left none, and drop the copy."""
        journal = self._host.journal
        names = work_locks(entry.key, entry.paths)
        with self._host.locks.hold_all(names, Deadline.after(_LOCK_S)), self._guard:
            if entry.key not in self._unwanted:
                now = journal.get(entry.key)
                if now is None:
                    now = entry
                    journal.write_chap(entry.key, chap)
                    journal.write(entry)
                if now.phase is not Phase.CONNECTED:
                    return  # a recovery will undo it; the copy stands for what was
            self._copies.remove(entry.key)


class BootRecovery:
    """The agent's thread that recovers the host once, and then waits for what is missing."""

    def __init__(
        self,
        initiator: AgentInitiator,
        earlier_boot: EarlierBoot,
        pauses: tuple[float, float] = (_FIRST_PAUSE_S, _LONGEST_PAUSE_S),
        on_recovered: Callable[[Sequence[RecoveryStep]], None] = lambda _steps: None,
    ) -> None:
        self._on_recovered = on_recovered
        self._initiator = initiator
        self._earlier_boot = earlier_boot
        self._pauses = pauses
        self._stop = threading.Event()
        self._is_recovered = threading.Event()
        self._thread = threading.Thread(target=self._run, name="boot-recovery", daemon=True)

    @property
    def is_over(self) -> bool:
        """Tell whether the host was recovered, and each connection tried once."""
        return self._is_recovered.is_set()

    def start(self) -> None:
        """Begin; returns at once."""
        self._thread.start()

    @property
    def is_running(self) -> bool:
        """Tell whether it still waits for something."""
        return self._thread.is_alive()

    def wait(self, within_s: float) -> None:
        """Wait until nothing is missing any more."""
        self._thread.join(within_s)

    def stop(self, within_s: float) -> None:
        """End it; an attempt that does not end in time is cut off with the process."""
        self._stop.set()
        self._thread.join(within_s)

    def _run(self) -> None:
        try:
            self._recover()
            pause_s, longest_s = self._pauses
            while not self._stop.is_set() and self._earlier_boot.pending():
                self._try()
                self._is_recovered.set()
                self._stop.wait(pause_s)
                pause_s = min(2 * pause_s, longest_s)
        finally:
            self._is_recovered.set()

    def _recover(self) -> None:
        try:
            with self._earlier_boot.kept():
                steps = self._initiator.recover(deadline=Deadline.after(_RECOVERY_S))
        except LunportError as error:
            _LOG.error("host_not_recovered error=%s", error)
            return
        self._on_recovered(steps)
        for step in steps:
            line = step_line(step)
            level = logging.WARNING if line.outcome == "failed" else logging.INFO
            words = line.sentence if line.error is None else f"{line.sentence} {line.error}"
            _LOG.log(level, "recovery outcome=%s %s", line.outcome, words)

    def _try(self) -> None:
        try:
            self._earlier_boot.bring_back(Deadline.after(_ATTEMPT_S), is_asked_for=False)
        except LunportError as error:
            _LOG.error("earlier_boot_not_brought_back error=%s", error)


def _keys(info: ConnectionInfo) -> set[str]:
    """Name a volume as the journal may, whether its identity was stated then or not."""
    return {connection_key(info), connection_key(replace(info, wwid=None))}


def _is_another(error: LunportError | None) -> bool:
    if isinstance(error, AllPathsFailed):
        return bool(error.attempts) and all(map(_is_another, error.attempts))
    return isinstance(error, WrongDevice)


def again(entry: HostConnection) -> str:
    """Say what is to be done about a connection of an earlier boot."""
    volume = "" if entry.volume_id is None else f" (volume {entry.volume_id})"
    return f"Connect {entry.key}{volume} again, as before this host was started anew."
