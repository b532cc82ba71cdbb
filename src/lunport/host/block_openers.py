"""Find who uses a disk: other block devices, mounts and swap, and programs that have it open.

Reads /sys/block/sdX/holders and those of its partitions (dm, md, bcache), the files behind
loop devices, what programs have open (:mod:`lunport.host.open_devices`), /proc/*/mountinfo,
/proc/swaps; and tries an exclusive open (open(2), O_EXCL on a block device), which the kernel
refuses while anybody has claimed it.
An open is itself an access: only for a disk whose identity was verified. Ends nobody.
"""

from __future__ import annotations

import contextlib
import errno
import os
from dataclasses import dataclass
from pathlib import Path

from lunport.core.errors import DeviceStuck
from lunport.host.blocking import call_within
from lunport.host.clock import Deadline
from lunport.host.inotify import CloseWatch
from lunport.host.open_devices import find_programs
from lunport.host.scsi_disk import ScsiDisk
from lunport.host.systree import SysTree

_PROC = Path("/proc")
_LOOP_FOLDER = "devices/virtual/block"
_LOOK_S = 0.25  # for openers whose closing cannot be heard, through another node
_ONE_LOOK_S = 10.0  # what one look may take even when the deadline is near


@dataclass(frozen=True, slots=True)
class Opener:
    """Somebody who uses a disk: "dm-0", "qemu-system-x86 (4711)", "mounted on /mnt"."""

    who: str


def find_openers(sys: SysTree, disk: ScsiDisk, deadline: Deadline) -> tuple[Opener, ...]:
    """Find who uses a disk or one of its partitions; an empty result means nobody.

    Of a disk that can't be opened, since its storage is silent, mounts and swap are told, and
    not what else in the kernel may have claimed it. Raises: DeviceStuck (somebody's file
    elsewhere does not answer).
    """
    return _find(sys, _block(disk), disk.name, disk.number, deadline)


def find_map_openers(sys: SysTree, name: str, deadline: Deadline) -> tuple[Opener, ...]:
    """Find who uses a map (``dm-0``) or one of its partitions. Raises: DeviceStuck."""
    number = sys.read(f"block/{name}/dev")
    return () if number is None else _find(sys, f"block/{name}", name, number, deadline)


def list_holders(sys: SysTree, disk: ScsiDisk) -> tuple[str, ...]:
    """List the devices that are made of a disk as a whole: ``dm-0``, ``md127``."""
    return tuple(sys.list(f"{_block(disk)}/holders"))


def wait_until_closed(sys: SysTree, disk: ScsiDisk, deadline: Deadline) -> tuple[Opener, ...]:
    """Wait until nobody uses a disk; return who still does at the deadline.

    Raises: DeviceStuck.
    """
    openers = find_openers(sys, disk, _time_for_a_look(deadline))
    if not openers:
        return ()
    with contextlib.ExitStack() as stack:
        try:
            watch = stack.enter_context(CloseWatch(Path(disk.path)))
        except OSError:  # no node in /dev, or no watch left: nobody can be heard
            return openers
        has_time = True
        while openers and has_time:
            openers = find_openers(sys, disk, _time_for_a_look(deadline))
            has_time = not deadline.has_passed()
            if openers and has_time:
                watch.wait(deadline.at_most(_LOOK_S))
    return openers


def _find(
    sys: SysTree, block: str, name: str, number: str, deadline: Deadline
) -> tuple[Opener, ...]:
    path = f"/dev/{name}"
    numbers = _device_numbers(sys, block, name, number)
    folders = [block if part == name else f"{block}/{part}" for part in numbers]
    found = [holder for folder in folders for holder in sys.list(f"{folder}/holders")]
    found = found or _loops(sys, numbers)
    if not found:
        found = find_programs(frozenset(numbers.values()), deadline, device=path)
    if not found:
        try:
            claimed = call_within(lambda: _is_claimed(path), deadline, "an open", device=path)
            found = _claims(numbers) or ["the kernel"] if claimed else []
        except DeviceStuck:
            # Its storage is silent: what the tables say has to do.
            found = _claims(numbers)
    return tuple(Opener(who) for who in found)


def _device_numbers(sys: SysTree, block: str, name: str, number: str) -> dict[str, str]:
    """Give "8:0" and its like by name, of the device and of each partition."""
    names = [part for part in sys.list(block) if part.startswith(name)]
    found = {part: sys.read(f"{block}/{part}/dev") for part in names}
    return {name: number} | {part: dev for part, dev in found.items() if dev}


def _loops(sys: SysTree, numbers: dict[str, str]) -> list[str]:
    # A loop device claims nothing and has no process: its file is open in the kernel alone.
    files = {f"/dev/{name}" for name in numbers}
    loops = (name for name in sys.list(_LOOP_FOLDER) if name.startswith("loop"))
    return [loop for loop in loops if sys.read(f"{_LOOP_FOLDER}/{loop}/loop/backing_file") in files]


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
