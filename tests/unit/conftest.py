"""Holds unit tests to what they are: no socket, no process, nothing of /sys.

An audit hook (PEP 578) refuses the operation while a unit test runs, and the test fails at
its end even if the code under test swallowed the refusal.
"""

from __future__ import annotations

import os
import sys
from collections.abc import Iterator

import pytest
from hypothesis import settings

# A property is about results: on a busy machine an example may take any time.
# LUNPORT_PROPERTIES=thorough takes minutes rather than seconds.
settings.register_profile("quick", deadline=None, print_blob=True, max_examples=60)
settings.register_profile("thorough", deadline=None, print_blob=True, max_examples=3000)
settings.load_profile(os.environ.get("LUNPORT_PROPERTIES", "quick"))

_FORBIDDEN = (
    "socket.__new__",
    "socket.getaddrinfo",
    "subprocess.Popen",
    "os.system",
    "os.fork",
    "os.forkpty",
    "os.exec",
    "os.posix_spawn",
    "os.spawn",
)
_READS = ("open", "os.listdir", "os.scandir")


class Guard:
    """What a unit test tried to do although it may not."""

    def __init__(self) -> None:
        self.active = False
        self.seen: list[str] = []

    def audit(self, event: str, args: tuple[object, ...]) -> None:
        """Refuse an operation that reaches outside; called by the interpreter."""
        if not self.active:
            return
        if event in _FORBIDDEN or (event in _READS and _is_sysfs(args[0])):
            self.seen.append(f"{event}{args!r:.200}")
            raise AssertionError(f"a unit test must not do this: {self.seen[-1]}")


def _is_sysfs(path: object) -> bool:
    if not isinstance(path, (str, bytes, os.PathLike)):
        return False
    text = os.fsdecode(path)
    return text == "/sys" or text.startswith("/sys/")


_GUARD = Guard()
sys.addaudithook(_GUARD.audit)


@pytest.fixture(autouse=True)
def guard() -> Iterator[Guard]:
    """Refuse sockets, processes and reads of /sys during the test."""
    _GUARD.seen.clear()
    _GUARD.active = True
    try:
        yield _GUARD
    finally:
        _GUARD.active = False
    assert not _GUARD.seen, f"a unit test reached outside: {_GUARD.seen}"
