"""The floor under a map: records made beforehand, all logins at once, the first read from it.

multipathd makes the maps by itself (``find_multipaths no``). Back: the maps flushed, all logouts
at once, no disk left.
"""

from __future__ import annotations

import concurrent.futures
import subprocess
import time
from collections.abc import Sequence
from pathlib import Path
from typing import Any

from bench.attach_floor import LIMIT_S, disks, floor_answer, is_readable, iscsiadm, until
from bench.attach_worker import Volume

_BLOCKS = Path("/sys/block")


class MapsFloor:
    """Logins by hand, to every portal."""

    def prepare(self, volumes: Sequence[Volume]) -> None:
        """Make the node records."""
        for path in _paths(volumes):
            iscsiadm(path, "-o", "new")

    def clear(self, volumes: Sequence[Volume]) -> None:
        """Take the node records away."""
        for path in _paths(volumes):
            iscsiadm(path, "-o", "delete")

    def connect(self, volumes: Sequence[Volume], threads: int) -> dict[str, Any]:
        """Log in everywhere and read from each map; logins may end later."""
        paths = _paths(volumes)
        count = max(threads, len(volumes[0]["target_portals"]))
        began = time.monotonic()
        with concurrent.futures.ThreadPoolExecutor(count) as pool:
            logins = [pool.submit(iscsiadm, path, "--login") for path in paths]
            until(lambda: sum(map(is_readable, _maps())) >= len(volumes))
            total_s = time.monotonic() - began
            for login in logins:
                login.result()
        return floor_answer(total_s, [{"device": f"/dev/{name}"} for name in _maps()], len(paths))

    def disconnect(self, volumes: Sequence[Volume], threads: int) -> dict[str, Any]:
        """Flush the maps, log out everywhere, and wait until no disk is left."""
        paths = _paths(volumes)
        count = max(threads, len(volumes[0]["target_portals"]))
        began = time.monotonic()
        subprocess.run(["multipath", "-F"], capture_output=True, check=False, timeout=LIMIT_S)
        with concurrent.futures.ThreadPoolExecutor(count) as pool:
            list(pool.map(lambda path: iscsiadm(path, "--logout"), paths))
        until(lambda: not disks() and not _maps())
        return floor_answer(time.monotonic() - began, [{} for _ in volumes], len(paths) + 1)


def _paths(volumes: Sequence[Volume]) -> list[Volume]:
    return [
        {"target_iqn": volume["target_iqn"], "target_portal": portal}
        for volume in volumes
        for portal in volume["target_portals"]
    ]


def _maps() -> list[str]:
    return sorted(path.name for path in _BLOCKS.glob("dm-*"))
