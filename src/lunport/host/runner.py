"""Run programs: the only module that starts processes.

Every program gets a deadline; at its end the whole process group gets TERM, then KILL, and
is reaped. One that the kernel does not let die (state D: it waits for a disk that is gone) is
left alone after a grace, and reaped by a later call once it has ended. The environment is
explicit (PATH, LANG, HOME and what the caller names). Secrets never belong in an argv:
:class:`lunport.core.secret.Secret` in one is refused.
"""

from __future__ import annotations

import contextlib
import os
import select
import shutil
import signal
import subprocess
import threading
import time
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import IO

from lunport.core.errors import CommandError, CommandMissing, CommandTimedOut
from lunport.core.secret import Secret
from lunport.host.clock import Deadline

_PATH = "/usr/local/sbin:/usr/local/bin:/usr/sbin:/usr/bin:/sbin:/bin"
_TERM_GRACE_S = 1.0

Argv = Sequence[str | os.PathLike[str]]
Daemon = subprocess.Popen[bytes]


@dataclass(frozen=True, slots=True)
class Completed:
    """What a program that ended left: exit status, output, and how long it took."""

    status: int
    stdout: str
    stderr: str
    elapsed_s: float


class _Child(subprocess.Popen[str]):
    """A child whose end is waited for by its pidfd; the standard library looks and sleeps."""

    def wait(self, timeout: float | None = None) -> int:
        """Wait for the end. Raises: TimeoutExpired."""
        if timeout is not None and self.returncode is None:
            with contextlib.suppress(OSError):  # too many files open: then by looking
                pidfd = os.pidfd_open(self.pid)
                try:
                    poller = select.poll()
                    poller.register(pidfd, select.POLLIN)
                    poller.poll(max(0.0, timeout) * 1000)
                finally:
                    os.close(pidfd)
                timeout = 0
        return super().wait(timeout)


class _Abandoned:
    """Children that nobody waits for: detached ones, and those that did not die of KILL.

    They are reaped when they have ended.
    """

    def __init__(self) -> None:
        self._lock = threading.Lock()
        self._children: list[subprocess.Popen[str]] = []

    def add(self, child: subprocess.Popen[str]) -> None:
        """Keep a child until it ends."""
        with self._lock:
            self._children.append(child)

    def reap(self) -> int:
        """Reap those that have ended, without waiting; return how many are left."""
        with self._lock:
            self._children = [child for child in self._children if child.poll() is None]
            return len(self._children)


_ABANDONED = _Abandoned()


def run(
    argv: Argv,
    deadline: Deadline,
    *,
    stdin: str = "",
    accepted: Sequence[int] = (0,),
    environment: Mapping[str, str] | None = None,
    package: str = "",
) -> Completed:
    """Run a program to its end.

    Raises: CommandMissing (``package`` names what brings it), CommandTimedOut (it may still
    run if the kernel does not let it die), CommandError (a status not in ``accepted``).
    """
    words = _words(argv, package)
    _ABANDONED.reap()
    started = time.monotonic()
    child = _Child(
        words,
        stdin=subprocess.PIPE,
        stdout=subprocess.PIPE,
        stderr=subprocess.PIPE,
        env=_environment(environment),
        start_new_session=True,
        text=True,
        errors="replace",
    )
    try:
        stdout, stderr = child.communicate(stdin, timeout=max(0.001, deadline.remaining_s()))
    except subprocess.TimeoutExpired:
        _end_group(child)
        raise CommandTimedOut(words, deadline.budget_s) from None
    except BaseException:
        _end_group(child)
        raise
    elapsed_s = time.monotonic() - started
    if child.returncode not in accepted:
        raise CommandError(words, child.returncode, stderr, elapsed_s)
    return Completed(child.returncode, stdout, stderr, elapsed_s)


def start(
    argv: Argv,
    *,
    output: IO[bytes],
    environment: Mapping[str, str] | None = None,
    package: str = "",
) -> Daemon:
    """Start a daemon in a session of its own, so that it outlives us; the caller reaps it.

    Raises: CommandMissing.
    """
    return subprocess.Popen(
        _words(argv, package),
        stdin=subprocess.DEVNULL,
        stdout=output,
        stderr=output,
        env=_environment(environment),
        cwd="/",
        start_new_session=True,
        close_fds=True,
    )


def start_detached(argv: Argv, *, environment: Mapping[str, str] | None = None) -> None:
    """Start a program that ends by itself, and may outlive us; nobody hears what it says.

    It is reaped by a later call, or by process 1 once we have ended. Raises: CommandMissing.
    """
    _ABANDONED.reap()
    child = subprocess.Popen(
        _words(argv, ""),
        stdin=subprocess.DEVNULL,
        stdout=subprocess.DEVNULL,
        stderr=subprocess.DEVNULL,
        env=_environment(environment),
        cwd="/",
        start_new_session=True,
        text=True,
    )
    _ABANDONED.add(child)


def count_abandoned() -> int:
    """Count the children that nobody waits for and that still run."""
    return _ABANDONED.reap()


def find_program(name: str) -> Path | None:
    """Find a program in the system's places and PATH."""
    found = shutil.which(name, path=_search_path())
    return Path(found) if found else None


def _words(argv: Argv, package: str) -> list[str]:
    if any(isinstance(word, Secret) for word in argv):
        raise TypeError("a Secret does not belong in an argv: every user sees it")
    words = [os.fspath(word) for word in argv]
    program = find_program(words[0])
    if program is None:
        raise CommandMissing(words[0], package or words[0])
    return [str(program), *words[1:]]


def _search_path() -> str:
    return f"{os.environ.get('PATH', '')}:{_PATH}".lstrip(":")


def _environment(extra: Mapping[str, str] | None) -> dict[str, str]:
    kept = {"PATH": _search_path(), "LC_ALL": "C.UTF-8", "HOME": os.environ.get("HOME", "/")}
    return kept | dict(extra or {})


def _end_group(child: subprocess.Popen[str]) -> None:
    for signum in (signal.SIGTERM, signal.SIGKILL):
        with contextlib.suppress(ProcessLookupError):
            os.killpg(child.pid, signum)
        try:
            child.wait(timeout=_TERM_GRACE_S)
        except subprocess.TimeoutExpired:
            continue
        break
    else:
        _ABANDONED.add(child)
    for pipe in (child.stdin, child.stdout, child.stderr):
        if pipe is not None:
            with contextlib.suppress(OSError):  # what was not written yet has no reader
                pipe.close()
