"""Find who uses a disk: other block devices, mounts and swap, and programs that have it open.

Reads /sys/block/sdX/holders and those of its partitions (dm, md, bcache), the files behind
loop devices, /proc/*/fd (proc(5)), /proc/*/mountinfo, /proc/swaps; and tries an exclusive open
(open(2), O_EXCL on a block device), which the kernel refuses while anybody has claimed it.
An open is itself an access: only for a disk whose identity was verified. Ends nobody.

Quirk(udev): a worker has the disk open for a moment after each add and change event (blkid);
that is an opener like any other, so wait (``wait_until_closed``) before you refuse.
"""

from __future__ import annotations

import contextlib
import errno
import os
import stat
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path

from lunport.host.blocking import call_within
from lunport.host.clock import Deadline
from lunport.host.inotify import CloseWatch
from lunport.host.scsi_disk import ScsiDisk
from lunport.host.systree import SysTree

_PROC = Path("/proc")
_LOOP_FOLDER = "devices/virtual/block"
_LOOK_S = 0.25  # for openers whose closing cannot be heard, through another node
_ONE_LOOK_S = 2.0  # what one look may take even when the deadline is near
_NO_FILES = ("socket:", "pipe:", "anon_inode:", "/memfd:", "/dmabuf:")


@dataclass(frozen=True, slots=True)
class Opener:
    """Somebody who uses a disk: "dm-0", "qemu-system-x86 (4711)", "mounted on /mnt"."""

    who: str


def find_openers(sys: SysTree, disk: ScsiDisk, deadline: Deadline) -> tuple[Opener, ...]:
    """Find who uses a disk or one of its partitions; an empty result means nobody.

    Raises: DeviceStuck (the disk, or somebody's file elsewhere, does not answer).
    """
    numbers = _device_numbers(sys, disk)
    found = _holders(sys, disk, numbers) or _loops(sys, numbers)
    if not found:
        devices = frozenset(numbers.values())
        what = "the look for its openers"
        found = call_within(lambda: list(_programs(devices)), deadline, what, device=disk.path)
    if not found and call_within(
        lambda: _is_claimed(disk.path), deadline, "an open", device=disk.path
    ):
        found = _claims(numbers) or ["the kernel"]
    return tuple(Opener(who) for who in found)


def wait_until_closed(sys: SysTree, disk: ScsiDisk, deadline: Deadline) -> tuple[Opener, ...]:
    """Wait until nobody uses a disk; return who still does at the deadline.

    Raises: DeviceStuck.
    """
    openers = find_openers(sys, disk, _time_for_a_look(deadline))
    if not openers:
        return ()
    with CloseWatch(Path(disk.path)) as watch:
        has_time = True
        while openers and has_time:
            openers = find_openers(sys, disk, _time_for_a_look(deadline))
            has_time = not deadline.has_passed()
            if openers and has_time:
                watch.wait(deadline.at_most(_LOOK_S))
    return openers


def _device_numbers(sys: SysTree, disk: ScsiDisk) -> dict[str, str]:
    """Give "8:0" and its like by name, of the disk and of each partition."""
    block = _block(disk)
    names = [name for name in sys.list(block) if name.startswith(disk.name)]
    found = {name: sys.read(f"{block}/{name}/dev") for name in names}
    return {disk.name: disk.number} | {name: dev for name, dev in found.items() if dev}


def _holders(sys: SysTree, disk: ScsiDisk, numbers: dict[str, str]) -> list[str]:
    block = _block(disk)
    folders = [block if name == disk.name else f"{block}/{name}" for name in numbers]
    return [holder for folder in folders for holder in sys.list(f"{folder}/holders")]


def _loops(sys: SysTree, numbers: dict[str, str]) -> list[str]:
    # A loop device claims nothing and has no process: its file is open in the kernel alone.
    files = {f"/dev/{name}" for name in numbers}
    loops = (name for name in sys.list(_LOOP_FOLDER) if name.startswith("loop"))
    return [loop for loop in loops if sys.read(f"{_LOOP_FOLDER}/{loop}/loop/backing_file") in files]


def _programs(devices: frozenset[str]) -> Iterator[str]:
    # Thousands of files on a busy host: plain strings, since Path objects take longer to make.
    for name in os.listdir(_PROC):  # noqa: PTH208
        if name.isdigit() and _has_open(f"{_PROC}/{name}/fd", devices):
            yield f"{_command(_PROC / name)} ({name})"


def _has_open(folder: str, devices: frozenset[str]) -> bool:
    try:
        files = os.listdir(folder)  # noqa: PTH208
    except OSError:  # it has ended, or is not ours to look into
        return False
    return any(_leads_to(f"{folder}/{file}", devices) for file in files)


def _leads_to(file: str, devices: frozenset[str]) -> bool:
    try:
        if os.readlink(file).startswith(_NO_FILES):  # noqa: PTH115
            return False
        status = os.stat(file)  # noqa: PTH116
    except OSError:  # closed meanwhile, or unreachable
        return False
    number = f"{os.major(status.st_rdev)}:{os.minor(status.st_rdev)}"
    return stat.S_ISBLK(status.st_mode) and number in devices


def _command(process: Path) -> str:
    try:
        return (process / "comm").read_text(errors="replace").strip()
    except OSError:
        return "a program"


def _is_claimed(path: str) -> bool:
    flags = os.O_RDONLY | os.O_EXCL | os.O_NONBLOCK | os.O_CLOEXEC
    try:
        os.close(os.open(path, flags))
    except OSError as error:
        # ENXIO, ENODEV, ENOENT ...: nobody can have claimed what is gone or dead.
        return error.errno == errno.EBUSY
    return False


def _claims(numbers: dict[str, str]) -> list[str]:
    """Say what the claim is: a mount in any mount namespace, or swap."""
    devices = set(numbers.values())
    files = {f"/dev/{name}" for name in numbers}
    found = []
    for process in _PROC.iterdir():
        # 36 35 8:0 / /mnt rw,noatime shared:1 - ext4 /dev/sda rw
        with contextlib.suppress(OSError):
            lines = (process / "mountinfo").read_text(errors="replace").splitlines()
            found += [
                f"a file system on {words[4]}"
                for words in map(str.split, lines)
                if len(words) > 4 and words[2] in devices
            ]
    with contextlib.suppress(OSError):
        swaps = (_PROC / "swaps").read_text(errors="replace").splitlines()
        found += ["swap" for line in swaps if line.partition(" ")[0] in files]
    return sorted(set(found))


def _time_for_a_look(deadline: Deadline) -> Deadline:
    return Deadline.after(max(_ONE_LOOK_S, deadline.remaining_s()))


def _block(disk: ScsiDisk) -> str:
    return f"bus/scsi/devices/{disk.address}/block/{disk.name}"
