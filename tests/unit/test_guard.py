"""Tests of the guard that keeps unit tests pure."""

from __future__ import annotations

import os
import socket
import subprocess
from collections.abc import Callable
from pathlib import Path
from typing import Protocol

import pytest


class _Guard(Protocol):
    seen: list[str]


@pytest.mark.parametrize(
    "reach_outside",
    [
        socket.socket,
        lambda: socket.getaddrinfo("localhost", 3260),
        lambda: subprocess.run(["/bin/true"], check=False),
        lambda: os.system("true"),
        lambda: Path("/sys/block").iterdir().__next__(),
        lambda: Path("/sys/kernel/uevent_seqnum").read_text(),
    ],
    ids=["socket", "resolver", "process", "shell", "sysfs listing", "sysfs read"],
)
def test_outside_is_refused(guard: _Guard, reach_outside: Callable[[], object]) -> None:
    """A unit test that opens a socket, starts a process or reads /sys is refused and noted."""
    with pytest.raises(AssertionError, match="must not do this"):
        reach_outside()
    assert len(guard.seen) == 1
    guard.seen.clear()


def test_files_are_allowed(guard: _Guard, tmp_path: Path) -> None:
    """Files of the test itself may be written and read."""
    (tmp_path / "sys").write_text("x")
    assert (tmp_path / "sys").read_text() == "x"
    assert guard.seen == []
