"""Volume groups on loop devices, and the lvm.conf of the throw-away machine.

lvm.conf(5), losetup(8), vgcreate(8). The storage is a sparse file in memory.
"""

from __future__ import annotations

import contextlib
import tempfile
from collections.abc import Iterator
from pathlib import Path

from lab.errors import LabCannot
from lab.services import is_guest
from lunport.host.clock import Deadline
from lunport.host.runner import run

EXTENT_KIB = 64
_CONF = Path("/etc/lvm/lvm.conf")
_BEFORE_DATA_MIB = 1  # LVM's own records at the begin of a disk
_STEP_S = 300.0
# As a machine that dmeventd does not watch, and that keeps no history of each change.
_ALWAYS = "activation/monitoring = 0\nbackup { archive = 0 backup = 0 }\n"


@contextlib.contextmanager
def loop_device(size_mib: int) -> Iterator[str]:
    """Have a disk of that size; it reads as zeros."""
    with tempfile.NamedTemporaryFile(prefix="lab-disk-", dir="/dev/shm") as file:
        file.truncate(size_mib << 20)
        device = run(["losetup", "-f", "--show", file.name], _soon()).stdout.strip()
        try:
            yield device
        finally:
            run(["losetup", "-d", device], _soon())


@contextlib.contextmanager
def lvm_conf(text: str) -> Iterator[None]:
    """Have these sections in the machine's lvm.conf for a while. Raises: LabCannot."""
    if not is_guest():
        raise LabCannot("the LVM of this machine is its own, and is left alone")
    before = _CONF.read_bytes() if _CONF.exists() else None
    _CONF.write_text(_ALWAYS + text)
    try:
        yield
    finally:
        if before is None:
            _CONF.unlink()
        else:
            _CONF.write_bytes(before)


def filtered(*devices: str) -> str:
    """Write the sections that let the machine's own LVM see only these disks."""
    rules = ", ".join(f'"a|^{device}$|"' for device in devices)
    return f'devices {{ global_filter = [ {rules}, "r|.*|" ] scan_lvs = 0 }}\n'


@contextlib.contextmanager
def volume_group(name: str, size_mib: int, *, by_udev: bool = True) -> Iterator[str]:
    """Have a volume group of that much room on one disk; give the disk.

    Without udev LVM makes the names of devices itself, in a third of the time.
    """
    conf = "" if by_udev else "activation/udev_sync = 0\nactivation/udev_rules = 0\n"
    with (
        loop_device(size_mib + _BEFORE_DATA_MIB) as device,
        lvm_conf(conf + filtered(device)),
    ):
        run(["vgcreate", "-q", "-y", "-s", f"{EXTENT_KIB}k", name, device], _soon())
        try:
            yield device
        finally:
            run(["vgremove", "-q", "-ff", "-y", name], _soon())
            run(["pvremove", "-q", "-ff", "-y", device], _soon())


def remove_volumes(group: str, keep: str = "") -> None:
    """Remove every volume of a group but one, whatever it is; what was in them reads as zeros."""
    shown = run(["lvs", "--noheadings", "-o", "lv_name", group], _soon()).stdout.split()
    names = [f"{group}/{name}" for name in shown if name != keep]
    if names:
        # Snapshots go with what they are of, and are then no longer there.
        words = ["-q", "-ff", "-y", "--config", "devices/issue_discards=1", *names]
        run(["lvremove", *words], _soon(), accepted=(0, 5))


def lvm(*words: str) -> str:
    """Run one of LVM's programs as the machine's administrator does; return what it says."""
    return run(words, _soon()).stdout


def _soon() -> Deadline:
    return Deadline.after(_STEP_S)
