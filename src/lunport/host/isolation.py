"""Run a task in a process that is alone: its own network, mounts and processes.

The task is forked, not a thread and no program: it becomes process 1 of a new process
namespace, in a new network namespace (whose loopback is down) and with a ``/proc`` of its own.
When it ends, the kernel kills all that it started before anyone can see it gone, and takes
network, rules and mounts with them. When *we* end, however that is, the kernel kills it.

unshare(2), pid_namespaces(7), network_namespaces(7), PR_SET_PDEATHSIG(2const). Touches nothing
outside the new namespaces. What the task writes goes where our own output goes.
"""

from __future__ import annotations

import contextlib
import ctypes
import functools
import os
import select
import signal
import traceback
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import NoReturn

from lunport.core.errors import HostLacks
from lunport.host.clock import Deadline

_CLONE_NEWNS = 0x00020000
_CLONE_NEWPID = 0x20000000
_CLONE_NEWNET = 0x40000000
_MS_NOSUID_NODEV_NOEXEC = 2 | 4 | 8
_MS_REC_PRIVATE = 1 << 14 | 1 << 18
_PR_SET_PDEATHSIG = 1
_PASSED_ON = (signal.SIGINT, signal.SIGTERM, signal.SIGHUP)
_ENDING_S = 10.0
_HOW = "run it as root, outside of a container or in a privileged one"


class Isolated:
    """The process and what keeps its name from being another's: a pidfd and its network."""

    def __init__(self, pid: int) -> None:
        self.pid = pid
        self._pidfd = os.pidfd_open(pid)
        self._network = os.open(f"/proc/{pid}/ns/net", os.O_RDONLY | os.O_CLOEXEC)
        self._status: int | None = None

    def wait(self, deadline: Deadline, *, also: int = -1) -> int | None:
        """Wait for its end, or until the descriptor ``also`` can be read.

        Returns the exit status as a shell has it (137: killed), None while it runs.
        """
        if self._status is None:
            poller = select.poll()
            poller.register(self._pidfd, select.POLLIN)
            if also >= 0:
                poller.register(also, select.POLLIN)
            ready = {descriptor for descriptor, _ in poller.poll(deadline.remaining_s() * 1000)}
            if self._pidfd in ready:
                code = os.waitstatus_to_exitcode(os.waitpid(self.pid, 0)[1])
                self._status = code if code >= 0 else 128 - code
        return self._status

    def kill(self) -> None:
        """Kill it and all it started; return when they are gone. Idempotent."""
        if self._status is None:
            with contextlib.suppress(ProcessLookupError):
                signal.pidfd_send_signal(self._pidfd, signal.SIGKILL)
            self.wait(Deadline.after(_ENDING_S))

    def survivors(self) -> tuple[int, ...]:
        """List the processes that are in its network still, wherever they hide."""
        network = os.fstat(self._network)
        found = []
        for entry in Path("/proc").glob("[0-9]*"):
            with contextlib.suppress(OSError):
                if os.path.samestat((entry / "ns/net").stat(), network):
                    found.append(int(entry.name))
        return tuple(found)

    def close(self) -> None:
        """Kill it if it runs still, and let go of it."""
        self.kill()
        os.close(self._network)
        os.close(self._pidfd)


@contextlib.contextmanager
def isolated(task: Callable[[], int]) -> Iterator[Isolated]:
    """Start the task alone; its result becomes the exit status. It ends with the block.

    Precondition: this process has one thread. Raises: HostLacks (the kernel does not let us).
    """
    ours = os.open("/proc/self/ns/pid", os.O_RDONLY | os.O_CLOEXEC)
    lifeline, held = os.pipe2(os.O_CLOEXEC)  # readable for the task when we are gone
    progress, told = os.pipe2(os.O_CLOEXEC)  # what failed before the task, or nothing
    try:
        _call("unshare", _CLONE_NEWPID, step="processes of its own")
        try:
            pid = os.fork()
            if pid == 0:
                os.close(held)
                os.close(progress)
                _become_alone(task, lifeline, told)
        finally:
            _call("setns", ours, _CLONE_NEWPID, step="our processes again")
        os.close(told)
        told = -1
        complaint = _read_all(progress).decode()
        if complaint:
            os.waitpid(pid, 0)
            raise HostLacks("This host cannot isolate a process", complaint, _HOW)
        with contextlib.closing(Isolated(pid)) as process:
            yield process
    finally:
        for descriptor in (ours, lifeline, held, progress, told):
            if descriptor >= 0:
                os.close(descriptor)


def _become_alone(task: Callable[[], int], lifeline: int, told: int) -> NoReturn:
    """Finish the isolation from inside, run the task, and never return."""
    status = 1
    try:
        # Process 1 is spared every signal that it does not handle, but for its parent's KILL.
        signal.set_wakeup_fd(-1)
        for signum in _PASSED_ON:
            signal.signal(signum, signal.SIG_DFL)
        _call(
            "prctl", _PR_SET_PDEATHSIG, int(signal.SIGKILL), 0, 0, 0, step="an end with its parent"
        )
        if select.select([lifeline], [], [], 0)[0]:
            os._exit(status)
        try:
            _call("unshare", _CLONE_NEWNET, step="a network of its own")
            _call("unshare", _CLONE_NEWNS, step="mounts of its own")
            _mount(b"none", b"/", b"", _MS_REC_PRIVATE)
            _mount(b"proc", b"/proc", b"proc", _MS_NOSUID_NODEV_NOEXEC)
        except HostLacks as error:
            os.write(told, error.detail.encode())
            os._exit(status)
        os.close(told)
        status = task()
    except BaseException:
        # The top of a process: nothing above it may go on in two processes.
        with contextlib.suppress(OSError):
            traceback.print_exc()
    finally:
        os._exit(status)


def _mount(source: bytes, target: bytes, kind: bytes, flags: int) -> None:
    _call("mount", source, target, kind, flags, None, step=f"a mount on {target.decode()}")


def _call(name: str, *arguments: object, step: str) -> None:
    if getattr(_libc(), name)(*arguments) != 0:
        reason = os.strerror(ctypes.get_errno())
        raise HostLacks("This host cannot isolate a process", f"{step}: {reason}", _HOW)


@functools.cache
def _libc() -> ctypes.CDLL:
    libc = ctypes.CDLL(None, use_errno=True)
    libc.prctl.argtypes = (ctypes.c_int, *[ctypes.c_ulong] * 4)
    libc.mount.argtypes = (
        ctypes.c_char_p,
        ctypes.c_char_p,
        ctypes.c_char_p,
        ctypes.c_ulong,
        ctypes.c_void_p,
    )
    return libc


def _read_all(descriptor: int) -> bytes:
    with os.fdopen(os.dup(descriptor), "rb") as stream:
        return stream.read()
