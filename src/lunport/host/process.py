"""A process that is not our child, known so well that a reused pid cannot be mistaken for it.

A handle is a pidfd (pidfd_open(2)): signals and waits go to exactly the process that was
opened. Reads ``/proc/PID/stat`` (proc(5)) for the start time, which together with the boot
id names a process for ever. It never signals a bare pid.
"""

from __future__ import annotations

import contextlib
import errno
import os
import select
import signal
from dataclasses import dataclass
from pathlib import Path
from typing import Self

from lunport.host.clock import Deadline
from lunport.host.tasks import Stop

# With these the kernel says nothing about what was asked for, only that we cannot ask now.
EXHAUSTED = frozenset({errno.EMFILE, errno.ENFILE, errno.ENOBUFS, errno.ENOMEM})

_BOOT_ID = Path("/proc/sys/kernel/random/boot_id")


@dataclass(frozen=True, slots=True)
class ProcessName:
    """What names a process for ever: its pid, start time in ticks, and the boot."""

    pid: int
    start_ticks: int
    boot_id: str


class ProcessHandle:
    """An open pidfd. Close it, or use it as a context."""

    def __init__(self, name: ProcessName, pidfd: int) -> None:
        self.name = name
        self._pidfd = pidfd

    def __enter__(self) -> Self:
        return self

    def __exit__(self, *_: object) -> None:
        self.close()

    def close(self) -> None:
        """Give the descriptor back; repeating it does nothing."""
        if self._pidfd >= 0:
            os.close(self._pidfd)
            self._pidfd = -1

    def wait(self, deadline: Deadline, stop: Stop | None = None) -> bool:
        """Wait for the process to end, or for ``stop``; tell whether it has ended."""
        poller = select.poll()
        poller.register(self._pidfd, select.POLLIN)
        if stop is not None:
            poller.register(stop, select.POLLIN)
        ready = poller.poll(deadline.remaining_s() * 1000)
        return any(descriptor == self._pidfd for descriptor, _ in ready)

    def has_ended(self) -> bool:
        """Tell whether the process has ended, without waiting."""
        return self.wait(Deadline.after(0))

    def kill(self) -> None:
        """Send KILL; a process that has ended already is fine."""
        with contextlib.suppress(ProcessLookupError):
            signal.pidfd_send_signal(self._pidfd, signal.SIGKILL)


def open_child(pid: int) -> ProcessHandle | None:
    """Open a child of ours that nobody has waited for; None when it has ended.

    Quirk(kernel): execve(2) closes descriptors before it gives the process its new name
    (fs/exec.c, begin_new_exec; 6.1), so a child that was just started may still have ours when
    its parent is told that the program runs. A child needs no name to be known.
    Raises: as :func:`open_process`.
    """
    return _open(pid, None)


def open_process(pid: int, command: str) -> ProcessHandle | None:
    """Open a running process if it is that command (``comm``); None when it is not.

    Raises: OSError (one of ``EXHAUSTED``: nobody knows).
    """
    return _open(pid, command)


def _open(pid: int, command: str | None) -> ProcessHandle | None:
    try:
        pidfd = os.pidfd_open(pid)
    except OSError as error:
        if error.errno in EXHAUSTED:
            raise
        return None
    try:
        found = _read_stat(pid)
    except OSError:
        os.close(pidfd)
        raise
    handle = None
    if found is not None and command in (None, found[0]):
        handle = ProcessHandle(ProcessName(pid, found[1], read_boot_id()), pidfd)
        if not handle.has_ended():
            return handle
    os.close(pidfd)
    return None


def reopen_process(name: ProcessName, command: str) -> ProcessHandle | None:
    """Open the process of that name if it still runs; None when its pid is another's now."""
    handle = open_process(name.pid, command)
    if handle is None or handle.name == name:
        return handle
    handle.close()
    return None


def read_boot_id() -> str:
    """Return the kernel's random id of this boot."""
    return _BOOT_ID.read_text().strip()


def _read_stat(pid: int) -> tuple[str, int] | None:
    # 4711 (tgtd) S 1 4711 ... : field 22 is the start time; the name may hold anything.
    try:
        text = Path(f"/proc/{pid}/stat").read_text()
    except OSError as error:
        if error.errno in EXHAUSTED:
            raise
        return None
    command, _, rest = text.partition("(")[2].rpartition(")")
    return command, int(rest.split()[19])
