"""The floor under every attach: records made beforehand, the login, the first read; the logout.

What no tool that uses open-iscsi can be faster than, unless it is cleverer about the login
itself: iscsid scans all of a target by itself, and the disk counts as there with its first read.
"""

from __future__ import annotations

import concurrent.futures
import os
import subprocess
import threading
import time
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import Any

from bench.attach_worker import Volume

_LOOK_S = 0.005
LIMIT_S = 60.0
_BLOCKS = Path("/sys/block")

_pause = threading.Event()


class Floor:
    """Logins by hand."""

    def prepare(self, volumes: Sequence[Volume]) -> None:
        """Make the node records."""
        for volume in volumes:
            iscsiadm(volume, "-o", "new")

    def clear(self, volumes: Sequence[Volume]) -> None:
        """Take the node records away."""
        for volume in volumes:
            iscsiadm(volume, "-o", "delete")

    def connect(self, volumes: Sequence[Volume], threads: int) -> dict[str, Any]:
        """Log in everywhere and read from each disk; logins may end later."""
        before = set(disks())
        began = time.monotonic()
        with concurrent.futures.ThreadPoolExecutor(threads) as pool:
            logins = [pool.submit(iscsiadm, volume, "--login") for volume in volumes]
            until(lambda: sum(map(is_readable, set(disks()) - before)) >= len(volumes))
            total_s = time.monotonic() - began
            for login in logins:
                login.result()
        found = [f"/dev/{name}" for name in sorted(set(disks()) - before)]
        return floor_answer(total_s, [{"device": device} for device in found], len(volumes))

    def disconnect(self, volumes: Sequence[Volume], threads: int) -> dict[str, Any]:
        """Log out everywhere and wait until no disk is left."""
        began = time.monotonic()
        with concurrent.futures.ThreadPoolExecutor(threads) as pool:
            list(pool.map(lambda volume: iscsiadm(volume, "--logout"), volumes))
        until(lambda: not disks())
        return floor_answer(time.monotonic() - began, [{} for _ in volumes], len(volumes))


def iscsiadm(volume: Volume, *words: str) -> None:
    """Do something with a path's record."""
    where = ["-T", volume["target_iqn"], "-p", volume["target_portal"]]
    subprocess.run(
        ["iscsiadm", "-m", "node", *where, *words],
        check=True,
        capture_output=True,
        timeout=LIMIT_S,
    )


def disks() -> list[str]:
    """Name the disks that are there."""
    return [path.name for path in _BLOCKS.glob("sd*")]


def is_readable(name: str) -> bool:
    """Tell whether a disk can be read from."""
    try:
        descriptor = os.open(f"/dev/{name}", os.O_RDONLY | os.O_CLOEXEC)
        try:
            return len(os.pread(descriptor, 512, 0)) == 512
        finally:
            os.close(descriptor)
    except OSError:
        return False


def until(condition: Callable[[], bool]) -> None:
    """Look until something holds."""
    end = time.monotonic() + LIMIT_S
    while not condition():
        if time.monotonic() > end:
            raise TimeoutError("the floor was not reached")
        _pause.wait(_LOOK_S)


def floor_answer(total_s: float, volumes: list[dict[str, Any]], count: int) -> dict[str, Any]:
    """Answer as a worker does."""
    return {"total_s": total_s, "volumes": volumes, "commands": {"iscsiadm": count}}
