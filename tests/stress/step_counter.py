"""Count the steps of a process from outside, and act at a chosen one.

A step is the moment before or after a call that changes something which outlives the
process: a commit, a change of a file or name, a request to tgtd, the start of a program. The
interpreter's profiling hook sees these calls, which are C functions, in every thread; the
code under test knows nothing of it.
"""

from __future__ import annotations

import contextlib
import socket
import sqlite3
import sys
import threading
from collections.abc import Callable, Iterator
from types import FrameType

# By module, for functions; by class, for methods.
_FUNCTIONS = frozenset(
    {
        ("posix", "link"),
        ("posix", "unlink"),
        ("posix", "replace"),
        ("posix", "rename"),
        ("posix", "mkdir"),
        ("posix", "ftruncate"),
        ("posix", "copy_file_range"),
        ("posix", "pwrite"),
        ("posix", "fchmod"),
        ("fcntl", "ioctl"),
        ("_posixsubprocess", "fork_exec"),
    }
)
_METHODS = ((sqlite3.Connection, "commit"), (socket.socket, "sendall"))


class StepCounter:
    """Counts steps once started; calls ``act`` at the step of that number, from 0.

    ``also``: functions that are steps here besides the usual ones, by module and name.
    """

    def __init__(
        self,
        act_at: int | None,
        act: Callable[[], None],
        also: frozenset[tuple[str, str]] = frozenset(),
    ) -> None:
        self._functions = _FUNCTIONS | also
        self.count = 0
        self.seen: list[str] = []
        self._act_at = act_at
        self._act = act
        self._lock = threading.Lock()

    def start(self) -> None:
        """Count this thread's steps, and those of all threads that are started from now on."""
        threading.setprofile(self._profile)
        sys.setprofile(self._profile)

    @contextlib.contextmanager
    def paused(self) -> Iterator[None]:
        """Count no steps of this thread meanwhile: the test looks, nobody acts."""
        sys.setprofile(None)
        try:
            yield
        finally:
            sys.setprofile(self._profile)

    def _profile(self, frame: FrameType, event: str, function: object) -> None:
        if event not in ("c_call", "c_return") or not self._is_step(function):
            return
        with self._lock:
            number = self.count
            self.count += 1
        if number == self._act_at:
            self._act()
        if self._act_at is None:
            name = getattr(function, "__name__", "")
            self.seen.append(f"{event} {name} in {frame.f_code.co_filename}:{frame.f_lineno}")

    def _is_step(self, function: object) -> bool:
        name = getattr(function, "__name__", "")
        if (getattr(function, "__module__", None), name) in self._functions:
            return True
        owner = getattr(function, "__self__", None)
        return any(name == method and isinstance(owner, kind) for kind, method in _METHODS)
