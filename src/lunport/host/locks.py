"""Named locks within a process, and whole-directory locks between processes.

Names are sorted before they are taken, so that two callers can't wait for each other; every
wait has a deadline.
"""

from __future__ import annotations

import contextlib
import fcntl
import os
import threading
from collections.abc import Iterable, Iterator
from pathlib import Path

from lunport.core.errors import AlreadyExists, Unavailable
from lunport.host.clock import Deadline


class NamedLocks:
    """A lock for each name, made on first use and forgotten after the last."""

    def __init__(self) -> None:
        self._guard = threading.Lock()
        self._locks: dict[str, tuple[threading.Lock, int]] = {}

    @contextlib.contextmanager
    def hold(self, names: Iterable[str], within_s: float) -> Iterator[None]:
        """Hold all named locks. Raises: Unavailable when one is not free in time."""
        deadline = Deadline.after(within_s)
        with contextlib.ExitStack() as stack:
            for name in sorted(set(names)):
                stack.enter_context(self._one(name, deadline))
            yield

    @contextlib.contextmanager
    def _one(self, name: str, deadline: Deadline) -> Iterator[None]:
        with self._guard:
            lock, users = self._locks.get(name, (threading.Lock(), 0))
            self._locks[name] = (lock, users + 1)
        try:
            if not lock.acquire(timeout=deadline.remaining_s()):
                raise Unavailable(
                    f"{name} was busy with another operation for {deadline.budget_s:.0f} s."
                )
            try:
                yield
            finally:
                lock.release()
        finally:
            with self._guard:
                lock, users = self._locks[name]
                if users == 1:
                    del self._locks[name]
                else:
                    self._locks[name] = (lock, users - 1)


@contextlib.contextmanager
def hold_directory(directory: Path, what: str) -> Iterator[None]:
    """Hold a directory for this process alone, until the block or the process ends.

    Raises: AlreadyExists when another process holds it.
    """
    handle = os.open(directory / "lock", os.O_RDWR | os.O_CREAT | os.O_CLOEXEC, 0o600)
    try:
        try:
            fcntl.flock(handle, fcntl.LOCK_EX | fcntl.LOCK_NB)
        except BlockingIOError:
            raise AlreadyExists(what, str(directory)) from None
        yield
    finally:
        os.close(handle)
