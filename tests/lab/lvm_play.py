"""What the tests of the LVM driver have in common: drivers, bytes, and kills.

``killed_at`` runs a verb in a forked process, which is killed at the step of that number. A
step is a program of LVM's that changes something and has just been started (it goes on by
itself, as it does when the service is killed), or a piece of a volume that was cleared or
written. None: it ended before.
"""

from __future__ import annotations

import os
import signal
import sys
import traceback
from collections.abc import Callable
from pathlib import Path
from types import FrameType

from lab.services import wait_until
from lunport.drivers.lvm import LvmDriver
from lunport.drivers.lvm_group import HostFilter, LvmSettings, LvmType, VolumeClear

MIB = 1 << 20
ONE = "volume-0f0e0d0c-0b0a-4908-8706-050403020100"
TWO = "volume-0f0e0d0c-0b0a-4908-8706-050403020101"
SNAPSHOT = "snapshot-0f0e0d0c-0b0a-4908-8706-050403020102"
_CHANGING = frozenset(("lvcreate", "lvrename", "lvextend", "lvremove", "lvchange", "lvconvert"))
_WRITES = frozenset((("fcntl", "ioctl"), ("posix", "pwritev")))


def lvm_driver(
    group: str,
    kind: str,
    *,
    clear: VolumeClear = VolumeClear.ZERO,
    host_filter: HostFilter = HostFilter.REQUIRE,
    disks: tuple[str, ...] = (),
    stop: Callable[[], bool] = lambda: False,
    reserve_bytes: int | None = MIB,
) -> LvmDriver:
    """Make a driver that has checked its group."""
    made = LvmDriver(
        LvmSettings(
            group,
            lvm_type=LvmType(kind),
            volume_clear=clear,
            host_filter=host_filter,
            physical_volumes=disks,
            reserve_bytes=reserve_bytes if kind == "thin" else 0,
        ),
        stop=stop,
    )
    made.check()
    return made


def write(driver: LvmDriver, image: str, offset: int, content: bytes) -> None:
    """Write bytes of an image, durably."""
    with driver.locate(image).path.open("r+b") as file:
        file.seek(offset)
        file.write(content)


def read(driver: LvmDriver, image: str, offset: int, length: int) -> bytes:
    """Read bytes of an image."""
    with driver.locate(image).path.open("rb") as file:
        file.seek(offset)
        return file.read(length)


def killed_at(act: Callable[[], object], step: int) -> str | None:
    """Run in a process that is killed at a step; say at which, None when it ended before."""
    reader, writer = os.pipe()
    pid = os.fork()
    if pid == 0:
        os.close(reader)
        status = 1
        try:
            sys.setprofile(_Killer(step, writer).look)
            act()
            sys.setprofile(None)
            status = 0
        except BaseException:
            sys.setprofile(None)
            traceback.print_exc()
        finally:
            os._exit(status)
    os.close(writer)
    with os.fdopen(reader) as lines:
        said = lines.read()
    status = os.waitstatus_to_exitcode(os.waitpid(pid, 0)[1])
    wait_until(lambda: not _lvm_runs(), "the end of what LVM was doing", 120)
    assert status in {0, -signal.SIGKILL}, said
    return said if status else None


class _Killer:
    """The interpreter's profiling hook: counts steps, and kills at one."""

    def __init__(self, step: int, pipe: int) -> None:
        self._left = step
        self._pipe = pipe

    def look(self, frame: FrameType, event: str, function: object) -> None:
        name = self._step(frame, function) if event == "c_return" else ""
        if not name:
            return
        if self._left == 0:
            sys.setprofile(None)
            os.write(self._pipe, name.encode())
            os.kill(os.getpid(), signal.SIGKILL)
        self._left -= 1

    @staticmethod
    def _step(frame: FrameType, function: object) -> str:
        called = (getattr(function, "__module__", ""), getattr(function, "__name__", ""))
        if called == ("_posixsubprocess", "fork_exec"):
            words = frame.f_locals["args"]
            program = Path(os.fsdecode(words[0])).name
            return " ".join(map(os.fsdecode, words)) if program in _CHANGING else ""
        if called in _WRITES and frame.f_code.co_filename.endswith("block_device.py"):
            return "" if frame.f_code.co_name == "_size" else frame.f_code.co_name
        return ""


def _lvm_runs() -> bool:
    """Tell whether one of LVM's programs runs; a zombie does not."""
    for process in Path("/proc").glob("[0-9]*"):
        try:
            name, state = (process / "stat").read_text().split(" (", 1)[1].rsplit(") ", 1)
        except OSError:
            continue
        if (name in _CHANGING or name == "lvm") and not state.startswith("Z"):
            return True
    return False
