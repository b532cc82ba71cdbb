"""The dm-multipath map that multipathd made over a disk, on hosts where it takes every disk.

Reads /sys/block/dm-0/dm/{name,uuid} (``mpath-36001405...``); runs ``multipath -f NAME``
(multipath(8)), which flushes a map that nobody has open and asks multipathd to forget it.
Never makes a map, never touches one of another identity.
"""

from __future__ import annotations

from dataclasses import dataclass

from lunport.core.errors import CommandError, DeviceBusy
from lunport.core.wwid import Wwid, format_multipath_wwid
from lunport.host.block_openers import list_holders
from lunport.host.clock import Deadline
from lunport.host.runner import run
from lunport.host.scsi_disk import ScsiDisk
from lunport.host.systree import SysTree

_UUID_PREFIX = "mpath-"


@dataclass(frozen=True, slots=True)
class MultipathMap:
    """One map. ``device``: ``dm-0``; ``name``: what multipath calls it."""

    device: str
    name: str

    @property
    def path(self) -> str:
        """The device node."""
        return f"/dev/{self.device}"


def find_map(sys: SysTree, disk: ScsiDisk) -> MultipathMap | None:
    """Find the multipath map of a disk's own identity that holds the disk."""
    for device in list_holders(sys, disk):
        uuid = sys.read(f"block/{device}/dm/uuid") or ""
        name = sys.read(f"block/{device}/dm/name")
        if name and uuid.startswith(_UUID_PREFIX) and _is_of(uuid, disk.wwid):
            return MultipathMap(device, name)
    return None


def remove_map(found: MultipathMap, deadline: Deadline) -> None:
    """Flush a map and take it away. Raises: DeviceBusy, CommandMissing, CommandTimedOut."""
    try:
        run(["multipath", "-f", found.name], deadline, package="multipath-tools")
    except CommandError as error:
        raise DeviceBusy(found.path, [error.stderr.strip() or "multipath -f failed"]) from error


def _is_of(uuid: str, wwid: Wwid | None) -> bool:
    return wwid is not None and uuid == f"{_UUID_PREFIX}{format_multipath_wwid(wwid)}"
