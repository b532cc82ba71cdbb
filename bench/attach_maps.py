"""Maps as the kernel shows them, and a multipathd that begins with nothing.

The paths of a map are its ``slaves`` in /sys/block; whether the kernel sends I/O over one is
the "A" of its table's status. multipathd is the lab's, with ``find_multipaths no``, so that
os-brick, which leaves the making of maps to it, begins with the same as we do.
"""

from __future__ import annotations

import contextlib
import re
import subprocess
import threading
import time
from collections.abc import Iterator, Sequence
from pathlib import Path

from bench.attach_counts import settle
from lab import services
from lunport.core.errors import DeviceError
from lunport.host.clock import Deadline
from lunport.host.device_mapper import DeviceMapper

_BLOCKS = Path("/sys/block")
_KNOWN = (Path("/etc/multipath/wwids"), Path("/etc/multipath/bindings"))
_PATH = re.compile(r"\b\d+:\d+ ([AF])\b")
_LOOK_S = 0.005
_PROGRAM_S = 10.0
_ASK_S = 5.0
_QUIET_S = 30.0

_pause = threading.Event()


@contextlib.contextmanager
def fresh_multipathd() -> Iterator[None]:
    """Have a multipathd that was just started, knows of no map, and has nothing to do."""
    for known in _KNOWN:
        known.unlink(missing_ok=True)
    with services.multipathd():
        services.wait_until(_is_idle, "multipathd to be idle", _QUIET_S)
        settle()
        yield


def is_map(device: str) -> bool:
    """Tell whether a device that was handed out is a map."""
    return (_BLOCKS / Path(device).name / "dm").is_dir()


def members(device: str) -> int:
    """Count the disks in a map that the kernel could send I/O to; asks nobody but sysfs."""
    return sum(_is_running(disk) for disk in (_BLOCKS / Path(device).name).glob("slaves/*"))


def wait_for_paths(devices: Sequence[str], wanted: int, limit_s: float) -> bool:
    """Wait until every map has so many paths in use; starts no program. Tell whether it has."""
    end = time.monotonic() + limit_s
    # a disk is in ``slaves`` when a table is loaded; the kernel uses it when that is resumed
    while any(members(device) < wanted or active_paths(device) < wanted for device in devices):
        if time.monotonic() > end:
            return False
        _pause.wait(_LOOK_S)
    return True


def active_paths(device: str) -> int:
    """Count the paths that the kernel uses, by its own word; 0 for what is no map."""
    try:
        name = (_BLOCKS / Path(device).name / "dm" / "name").read_text().strip()
        return count_active(DeviceMapper().table_status(name, Deadline.after(_ASK_S)))
    except (OSError, DeviceError):
        return 0


def count_active(status: str) -> int:
    """Count the usable paths in a status line of dm-multipath."""
    return _PATH.findall(status).count("A")


def version() -> str:
    """Name the installed multipath-tools."""
    asked = subprocess.run(["multipath", "-h"], capture_output=True, text=True, check=False)
    said = re.search(r"multipath-tools v\S+", asked.stdout + asked.stderr)
    return said[0] if said else "multipath-tools"


def _is_idle() -> bool:
    asked = subprocess.run(
        ["multipathd", "show", "daemon"],
        capture_output=True,
        text=True,
        timeout=_PROGRAM_S,
        check=False,
    )
    return "idle" in asked.stdout


def _is_running(disk: Path) -> bool:
    try:
        return (disk / "device" / "state").read_text().strip() == "running"
    except OSError:
        return False
