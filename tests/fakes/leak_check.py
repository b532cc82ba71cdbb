"""A fixture for tests of code that opens sockets and starts threads: nothing may be left."""

from __future__ import annotations

import threading
from collections.abc import Iterator
from pathlib import Path

import pytest


def open_descriptors() -> set[str]:
    """Return the descriptors that are open now."""
    return {link.name for link in Path("/proc/self/fd").iterdir() if link.exists()}


@pytest.fixture
def no_leaks() -> Iterator[None]:
    """Fail a test that leaves a thread, a socket or a file open."""
    threads, before = set(threading.enumerate()), open_descriptors()
    yield
    assert set(threading.enumerate()) == threads
    assert open_descriptors() == before
