"""Run a tgtd of our own, or use the system's.

Our own is started in a session of its own and outlives us: losing the service never loses
I/O. A later service finds it by asking the kernel who listens on its management socket, and
by the record it left, and takes it over as it is. It is only ever signalled through a pidfd.

Files in the state folder: ``socket.1`` and its lock (tgtd's), ``tgtd.json`` (who it is),
``tgtd.log`` (what it says, bounded). The folder's path may be of any length: see
``host/tgt_socket.py``.

Quirk(tgt): asked for a portal that cannot be bound, tgtd 1.0.85 listens on every address
(0.0.0.0:3260 and [::]:3260) and says nothing (``usr/iscsi/iscsi_tcp.c``). So a portal whose
address is not on this host is never asked for, it is asked what it listens on, and stopped if
that is not exactly what was configured and can be had.
Quirk(tgt): SIGTERM is caught and ignored (``usr/tgtd.c``), so it ends by a request or by KILL.
"""

from __future__ import annotations

import contextlib
import errno
import fcntl
import json
import os
import resource
import socket
import threading
from collections.abc import Iterator, Sequence
from io import FileIO
from pathlib import Path
from typing import Protocol

from lunport.core.change import Change
from lunport.core.errors import InvalidConfig, PortalUnavailable, TargetDaemonDown
from lunport.core.portal import Portal
from lunport.host import runner
from lunport.host.clock import Deadline
from lunport.host.process import (
    EXHAUSTED,
    ProcessHandle,
    ProcessName,
    open_child,
    open_process,
    reopen_process,
)
from lunport.host.tasks import Stop
from lunport.host.tgt_show import parse_portals
from lunport.host.tgt_socket import Mode, Op, TgtSocket, TgtStatus, format_parameters, reachable

PROGRAM = "tgtd"
PACKAGE = "tgt"
SYSTEM_SOCKET = Path("/var/run/tgtd/socket.0")
MAX_PORTALS = 32
_CONTROL_PORT = 1
_MAX_LOG_BYTES = 1 << 20
_HANG_S = 10.0
_LOOK_S = 0.004
_ENDING_S = 2.0
_WILDCARDS = frozenset({"0.0.0.0", "::"})  # noqa: S104 - compared with, never bound

# Daemons we started stay referenced for our whole life: whoever notices the end reaps it.
_children: dict[int, runner.Daemon] = {}
_pause = threading.Event()


class TgtDaemon(Protocol):
    """A tgtd as its helper sees it."""

    portals: tuple[Portal, ...]
    missing_portals: tuple[Portal, ...]
    socket: TgtSocket
    is_ours: bool

    def start(self, deadline: Deadline) -> Change:
        """Make it run and listen on exactly its portals; those without an address are missing."""

    def stop(self, deadline: Deadline) -> Change:
        """End it if it is ours; precondition: it has no targets."""

    def is_alive(self, deadline: Deadline) -> bool:
        """Tell whether it answers."""

    def wait_for_exit(self, deadline: Deadline, stop: Stop | None = None) -> bool:
        """Wait for its end, or for ``stop``; tell whether it has ended."""


class OwnTgtd:
    """A tgtd that belongs to one backend of this service alone.

    ``io_threads`` is per logical unit; two let reads go on during a flush, and a thousand
    exports stay at two thousand threads.
    """

    is_ours = True

    def __init__(self, folder: Path, portals: Sequence[Portal], *, io_threads: int = 2) -> None:
        self.portals = check_portals(portals)
        self.missing_portals: tuple[Portal, ...] = ()
        if not 1 <= io_threads <= 16:
            raise InvalidConfig("io_threads", io_threads, "expected 1 to 16")
        self.folder = folder
        self.socket = TgtSocket(folder / f"socket.{_CONTROL_PORT}")
        self._io_threads = io_threads
        self._record = folder / "tgtd.json"
        self._log = folder / "tgtd.log"

    def start(self, deadline: Deadline) -> Change:
        """Take the running daemon over, or start one, listening on exactly the portals.

        Raises: CommandMissing, PortalUnavailable, TargetDaemonDown; what ran before runs
        on, what was started for this is ended.
        """
        with self._translated():
            self.folder.mkdir(mode=0o700, parents=True, exist_ok=True)
        with self._translated(), self._alone(deadline):
            running = self._find()
            if running is not None:
                with running:
                    patience_s = min(_HANG_S, deadline.remaining_s() / 2)
                    if self._answers(deadline.at_most(patience_s)):
                        self._note(running.name)
                        self.trim_log()
                        return self._align_portals(deadline)
                    # Its loop serves management and I/O alike: nothing is lost by the KILL.
                    self._end(running, deadline)
            self._start_new(deadline)
            return Change.CHANGED

    def stop(self, deadline: Deadline) -> Change:
        """End the daemon: by a request, by KILL when it does not heed it.

        Raises: TargetDaemonDown (it survives even that).
        """
        if not self.folder.is_dir():
            return Change.UNCHANGED
        with self._translated(), self._alone(deadline):
            running = self._find()
            if running is None:
                self._forget()
                return Change.UNCHANGED
            with running:
                with contextlib.suppress(TargetDaemonDown):
                    soon = deadline.at_most(_ENDING_S)
                    answer = self.socket.call(Mode.SYSTEM, Op.DELETE, soon)
                    if answer.status is TgtStatus.SUCCESS:
                        running.wait(soon)
                self._end(running, deadline)
            self._forget()
            return Change.CHANGED

    def is_alive(self, deadline: Deadline) -> bool:
        """Tell whether it answers now; keeps its log within bounds as well."""
        self.trim_log()
        with contextlib.suppress(TargetDaemonDown):
            return self._answers(deadline)
        return False

    def wait_for_exit(self, deadline: Deadline, stop: Stop | None = None) -> bool:
        """Wait until the daemon ends; True when it has, or does not run at all.

        Raises: TargetDaemonDown (nobody can tell now).
        """
        with self._translated():
            running = self._find()
        if running is None:
            return True
        with running:
            ended = running.wait(deadline, stop)
            if ended:
                _reap(running.name.pid)
            return ended

    def pid(self) -> int | None:
        """Return the id of the running daemon; None when it does not run."""
        running = self._find()
        if running is None:
            return None
        with running:
            return running.name.pid

    def trim_log(self) -> None:
        """Empty the log when it has grown too long. tgtd appends, so it goes on at the start."""
        with contextlib.suppress(OSError):  # a log too long is better than no daemon
            if self._log.stat().st_size > _MAX_LOG_BYTES:
                os.truncate(self._log, 0)

    # -- finding and ending it -----------------------------------------------------------

    def _find(self) -> ProcessHandle | None:
        pid = self.socket.peer_pid(Deadline.after(_ENDING_S))
        found = open_process(pid, PROGRAM) if pid else None
        if found is not None:
            return found
        recorded = self._recorded()
        found = reopen_process(recorded, PROGRAM) if recorded is not None else None
        if found is None:
            _reap_ended()
        return found

    def _answers(self, deadline: Deadline) -> bool:
        try:
            answer = self.socket.call(Mode.PORTAL, Op.SHOW, deadline)
        except TargetDaemonDown as error:
            if isinstance(error.__cause__, OSError) and error.__cause__.errno in EXHAUSTED:
                raise  # It was not asked.
            return False
        return answer.status is TgtStatus.SUCCESS

    def _end(self, process: ProcessHandle, deadline: Deadline) -> None:
        if not process.has_ended():
            process.kill()
            if not process.wait(deadline.at_most(_HANG_S)):
                raise TargetDaemonDown(self._name(), f"process {process.name.pid} survives KILL")
        _reap(process.name.pid)

    def _recorded(self) -> ProcessName | None:
        try:
            record = json.loads(self._record.read_text())
            return ProcessName(record["pid"], record["start_ticks"], record["boot_id"])
        except (OSError, ValueError, KeyError, TypeError):
            return None

    def _note(self, name: ProcessName) -> None:
        if self._recorded() == name:
            return
        partial = self._record.with_suffix(".partial")
        fields = {"pid": name.pid, "start_ticks": name.start_ticks, "boot_id": name.boot_id}
        partial.write_text(json.dumps(fields))
        partial.replace(self._record)

    def _forget(self) -> None:
        self._record.unlink(missing_ok=True)
        self.socket.path.unlink(missing_ok=True)

    # -- starting it ---------------------------------------------------------------------

    def _start_new(self, deadline: Deadline) -> None:
        absent = [portal for portal in self.portals if not _has_address(portal)]
        here = [portal for portal in self.portals if portal not in absent]
        if not here:
            self.missing_portals = self.portals
            raise PortalUnavailable(str(absent[0]), _BIND_REASONS[errno.EADDRNOTAVAIL])
        for portal in here:
            _check_bindable(portal)
        self._forget()
        with reachable(self.socket.path) as name, self._open_log() as log:
            child = runner.start(
                [
                    PROGRAM,
                    "--foreground",
                    "--control-port", str(_CONTROL_PORT),
                    "--nr_iothreads", str(self._io_threads),
                    "--iscsi", f"portal={here[0]}",
                ],
                output=log,
                environment={"TGT_IPC_SOCKET": name.removesuffix(f".{_CONTROL_PORT}")},
                package=PACKAGE,
            )  # fmt: skip
            _children[child.pid] = child
            try:
                process = open_child(child.pid)
                if process is not None:
                    with process:
                        self._note(process.name)
                        self._await_answer(process, deadline)
                if process is None or child.poll() is not None:
                    raise TargetDaemonDown(self._name(), f"it ended at once: {self._last_words()}")
                _raise_file_limit(child.pid)
                self._align_portals(deadline)
            except BaseException:
                child.kill()
                _reap(child.pid)
                self._forget()
                raise

    def _await_answer(self, process: ProcessHandle, deadline: Deadline) -> None:
        while not process.wait(deadline.at_most(_LOOK_S)):
            if self._answers(deadline):
                return
            if deadline.has_passed():
                detail = f"it did not answer within {deadline.budget_s:.1f} s of its start"
                raise TargetDaemonDown(self._name(), detail)

    def _align_portals(self, deadline: Deadline) -> Change:
        """Make the daemon listen on the portals whose address is here; sessions are not touched.

        It goes on listening on one whose address has gone: that is missing until it is back.
        """
        listening = show_portals(self.socket, deadline)
        absent = [portal for portal in self.portals if not _has_address(portal)]
        new = [portal for portal in self.portals if portal not in (*listening, *absent)]
        extra = [portal for portal in listening if portal not in self.portals]
        for portal in extra:
            self._change_portal(Op.DELETE, portal, deadline)
        for portal in new:
            _check_bindable(portal)
            self._change_portal(Op.NEW, portal, deadline)
        now = show_portals(self.socket, deadline)
        self.missing_portals = tuple(absent)
        for portal in self.portals:
            if portal not in (*now, *absent):
                raise PortalUnavailable(str(portal), f"tgtd does not say why: {self._last_words()}")
        strange = [portal for portal in now if portal not in self.portals]
        if strange or len(now) != len(set(now)):
            names = ", ".join(map(str, strange or now))
            raise PortalUnavailable(names, "tgtd listens there although it was not asked to")
        if not now:
            raise PortalUnavailable(str(absent[0]), _BIND_REASONS[errno.EADDRNOTAVAIL])
        return Change.CHANGED if new or extra else Change.UNCHANGED

    def _change_portal(self, op: Op, portal: Portal, deadline: Deadline) -> None:
        parameters = format_parameters(portal=str(portal))
        answer = self.socket.call(Mode.PORTAL, op, deadline, parameters=parameters)
        if answer.status is not TgtStatus.SUCCESS:
            raise PortalUnavailable(str(portal), f"{answer.sentence}: {self._last_words()}")

    def _open_log(self) -> FileIO:
        self._log.unlink(missing_ok=True)
        self._log.touch(mode=0o600)
        return self._log.open("ab", buffering=0)

    def _last_words(self) -> str:
        try:
            lines = self._log.read_text(errors="replace").strip().splitlines()
        except FileNotFoundError:
            lines = []
        return lines[-1][-200:] if lines else "it said nothing"

    def _name(self) -> str:
        return f"tgtd in {self.folder}"

    @contextlib.contextmanager
    def _translated(self) -> Iterator[None]:
        """Turn what the kernel says of our files (a full disk) into an error of the tree."""
        try:
            yield
        except OSError as error:
            what = error.filename or self.folder
            detail = f"{what}: {error.strerror or error}"
            raise TargetDaemonDown(self._name(), detail) from error

    @contextlib.contextmanager
    def _alone(self, deadline: Deadline) -> Iterator[None]:
        """Keep a second service with the same folder out while the daemon comes or goes."""
        descriptor = os.open(self.folder / "lock", os.O_RDWR | os.O_CREAT | os.O_CLOEXEC, 0o600)
        try:
            while not _try_lock(descriptor):
                if deadline.has_passed():
                    raise TargetDaemonDown(self._name(), "another service starts or stops it")
                _pause.wait(_LOOK_S)
            yield
        finally:
            os.close(descriptor)


class SystemTgtd:
    """The tgtd that the system runs (``/var/run/tgtd/socket.0``): never started, never ended.

    Its portals are its administrator's; they must be exactly those configured here.
    """

    is_ours = False

    def __init__(self, portals: Sequence[Portal], *, path: Path = SYSTEM_SOCKET) -> None:
        self.portals = check_portals(portals)
        self.missing_portals: tuple[Portal, ...] = ()
        self.socket = TgtSocket(path)

    def start(self, deadline: Deadline) -> Change:
        """Verify that it answers and listens on exactly the portals whose address is here.

        Raises: TargetDaemonDown, PortalUnavailable.
        """
        listening = show_portals(self.socket, deadline)
        absent = tuple(portal for portal in self.portals if not _has_address(portal))
        self.missing_portals = absent
        for portal in self.portals:
            if portal not in listening and (portal not in absent or absent == self.portals):
                found = ", ".join(map(str, listening)) or "nothing"
                detail = f"the system's tgtd listens on {found}; add it with tgtadm --mode portal"
                raise PortalUnavailable(str(portal), detail)
        for portal in listening:
            if portal not in self.portals:
                detail = "the system's tgtd listens there, which is not configured here"
                raise PortalUnavailable(str(portal), detail)
        return Change.UNCHANGED

    def stop(self, deadline: Deadline) -> Change:
        """Leave it alone."""
        del deadline
        return Change.UNCHANGED

    def is_alive(self, deadline: Deadline) -> bool:
        """Tell whether it answers now."""
        try:
            return self.socket.call(Mode.PORTAL, Op.SHOW, deadline).status is TgtStatus.SUCCESS
        except TargetDaemonDown:
            return False

    def wait_for_exit(self, deadline: Deadline, stop: Stop | None = None) -> bool:
        """Wait until the daemon ends; True when it has, or does not run at all."""
        pid = self.socket.peer_pid(deadline)
        process = open_process(pid, PROGRAM) if pid else None
        if process is None:
            return True
        with process:
            return process.wait(deadline, stop)


def check_portals(portals: Sequence[Portal]) -> tuple[Portal, ...]:
    """Refuse portals that tgtd cannot be given: none, too many, doubled, names, wildcards."""
    if not 1 <= len(portals) <= MAX_PORTALS:
        raise InvalidConfig("portals", [str(p) for p in portals], f"expected 1 to {MAX_PORTALS}")
    for index, portal in enumerate(portals):
        what = f"portals[{index}]"
        if not portal.is_literal:
            raise InvalidConfig(what, str(portal), "expected an address, not a name")
        if portal.host in _WILDCARDS:
            raise InvalidConfig(what, str(portal), "no initiator can be told this address")
        if portal in portals[:index]:
            raise InvalidConfig(what, str(portal), "it is there twice")
    return tuple(portals)


def show_portals(tgt: TgtSocket, deadline: Deadline) -> tuple[Portal, ...]:
    """Ask what a tgtd listens on. Raises: TargetDaemonDown."""
    answer = tgt.call(Mode.PORTAL, Op.SHOW, deadline)
    if answer.status is not TgtStatus.SUCCESS:
        raise TargetDaemonDown(f"tgtd at {tgt.path}", answer.sentence)
    return parse_portals(answer.text)


def _has_address(portal: Portal) -> bool:
    """Tell whether the portal's address is on this host, whoever has the port."""
    try:
        _try_binding(portal)
    except OSError as error:
        return error.errno != errno.EADDRNOTAVAIL
    return True


def _check_bindable(portal: Portal) -> None:
    """Try what tgtd will try, because it keeps the reason to itself."""
    try:
        _try_binding(portal)
    except OSError as error:
        reason = _BIND_REASONS.get(error.errno or 0, error.strerror or str(error))
        raise PortalUnavailable(str(portal), reason) from error


def _try_binding(portal: Portal) -> None:
    family = socket.AF_INET6 if portal.is_ipv6 else socket.AF_INET
    with socket.socket(family, socket.SOCK_STREAM) as trial:
        trial.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
        if portal.is_ipv6:
            trial.setsockopt(socket.IPPROTO_IPV6, socket.IPV6_V6ONLY, 1)
        trial.bind((portal.host, portal.port))


_BIND_REASONS = {
    errno.EADDRINUSE: "another program listens there",
    errno.EADDRNOTAVAIL: "the address is not on this host",
    errno.EACCES: "ports below 1024 need root",
    errno.EAFNOSUPPORT: "this host has no such address family",
}


def _raise_file_limit(pid: int) -> None:
    """Let the daemon open as many files as this process may at most.

    It raises the limit itself (``nr_file_adjust``), which without CAP_SYS_RESOURCE fails.
    """
    hard = resource.getrlimit(resource.RLIMIT_NOFILE)[1]
    with contextlib.suppress(OSError, ValueError):
        if resource.prlimit(pid, resource.RLIMIT_NOFILE)[0] < hard:
            resource.prlimit(pid, resource.RLIMIT_NOFILE, (hard, hard))


def _reap(pid: int) -> None:
    child = _children.get(pid)
    if child is not None:
        child.wait()
        _children.pop(pid, None)


def _reap_ended() -> None:
    """Take leave of children that ended while nobody waited for them."""
    for pid, child in list(_children.items()):
        if child.poll() is not None:
            _children.pop(pid, None)


def _try_lock(descriptor: int) -> bool:
    try:
        fcntl.flock(descriptor, fcntl.LOCK_EX | fcntl.LOCK_NB)
    except BlockingIOError:
        return False
    return True
