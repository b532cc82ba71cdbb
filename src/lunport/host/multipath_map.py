"""The dm-multipath maps of this host: which there are, and of what they are made.

Reads below /sys (drivers/md/dm-sysfs.c):

    block/dm-0/{dev,size}
    block/dm-0/dm/{name,uuid,suspended}      mpatha, mpath-36001405...
    block/dm-0/slaves/sda

Runs ``multipath -f NAME`` (multipath(8)), which flushes a map that nobody has open and asks
multipathd to forget it. Never makes a map, never touches one of another identity.
"""

from __future__ import annotations

import re
from collections.abc import Iterator
from dataclasses import dataclass

from lunport.core.errors import CommandError, DeviceBusy, InvalidInput, MapMissing
from lunport.core.wwid import Wwid, format_multipath_wwid, parse_wwid
from lunport.host.block_openers import Opener, find_map_openers, list_holders
from lunport.host.clock import Deadline
from lunport.host.runner import run
from lunport.host.scsi_disk import ScsiDisk
from lunport.host.systree import SysTree
from lunport.host.uevents import Uevent, UeventSource

_UUID_PREFIX = "mpath-"
_PARTITION = re.compile(r"part\d+-mpath-.+", re.ASCII)
_SECTOR_BYTES = 512  # "size" counts these, whatever the unit's own block size (Documentation/ABI)
_LOOK_S = 0.5  # how long an event that nobody told us was lost may stay unnoticed


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


def find_map_of(sys: SysTree, wwid: Wwid) -> MultipathMap | None:
    """Find the multipath map of an identity, whatever it is called and made of."""
    return next((found for found in _maps(sys) if _is_of(_uuid(sys, found.device), wwid)), None)


def list_maps(sys: SysTree) -> tuple[MultipathMap, ...]:
    """List all multipath maps of this host."""
    return tuple(_maps(sys))


def map_wwid(sys: SysTree, found: MultipathMap) -> Wwid | None:
    """Return the identity that a map was made for; None when it is gone."""
    try:
        return parse_wwid(_uuid(sys, found.device).removeprefix(_UUID_PREFIX))
    except InvalidInput:
        return None


def member_names(sys: SysTree, found: MultipathMap) -> tuple[str, ...]:
    """List the disks that a map is made of: ``sda``; none when it is gone."""
    return tuple(sys.list(f"block/{found.device}/slaves"))


def map_size(sys: SysTree, found: MultipathMap) -> int:
    """Return the bytes that a map shows; 0 while it has no table, and when it is gone."""
    text = sys.read(f"block/{found.device}/size") or ""
    return int(text) * _SECTOR_BYTES if text.isascii() and text.isdigit() else 0


def partition_maps(sys: SysTree, found: MultipathMap) -> tuple[MultipathMap, ...]:
    """List the maps of a map's partitions, which kpartx(8) makes and which hold it open."""
    return tuple(
        MultipathMap(device, name)
        for device in sys.list(f"block/{found.device}/holders")
        if _PARTITION.fullmatch(_uuid(sys, device))
        and (name := sys.read(f"block/{device}/dm/name"))
    )


def find_users(sys: SysTree, found: MultipathMap, deadline: Deadline) -> tuple[Opener, ...]:
    """Find who uses a map or one of its partitions.

    The maps of its partitions go with it, so that they alone are nobody. Raises: DeviceStuck.
    """
    parts = partition_maps(sys, found)
    names = {part.device for part in parts}
    return tuple(
        opener
        for one in (found, *parts)
        for opener in find_map_openers(sys, one.device, deadline)
        if opener.who not in names
    )


def wait_for_member(
    sys: SysTree, uevents: UeventSource, wwid: Wwid, disk_name: str, deadline: Deadline
) -> MultipathMap:
    """Wait until the map of an identity takes I/O and has a disk in it.

    ``uevents`` was opened before the disk was added. Raises: MapMissing.
    """
    has_time = True
    while has_time:
        has_time = not deadline.has_passed()
        found = find_map_of(sys, wwid)
        # A table is in use, and its size shown, once the map is resumed; the links to its disks
        # are there since it was loaded.
        if (
            found is not None
            and disk_name in member_names(sys, found)
            and map_size(sys, found) > 0
            and sys.read(f"block/{found.device}/dm/suspended") == "0"
        ):
            return found
        if has_time:
            uevents.wait(_is_map, deadline.at_most(_LOOK_S))
    raise MapMissing(
        format_multipath_wwid(wwid),
        f"no map has {disk_name} after {deadline.budget_s:.1f} s",
    )


def remove_map(found: MultipathMap, deadline: Deadline) -> None:
    """Flush a map and take it away. Raises: DeviceBusy, CommandMissing, CommandTimedOut."""
    try:
        run(["multipath", "-f", found.name], deadline, package="multipath-tools")
    except CommandError as error:
        raise DeviceBusy(found.path, [error.stderr.strip() or "multipath -f failed"]) from error


def _maps(sys: SysTree) -> Iterator[MultipathMap]:
    for device in sys.list("block"):
        if device.startswith("dm-") and _uuid(sys, device).startswith(_UUID_PREFIX):
            name = sys.read(f"block/{device}/dm/name")
            if name:
                yield MultipathMap(device, name)


def _uuid(sys: SysTree, device: str) -> str:
    return sys.read(f"block/{device}/dm/uuid") or ""


def _is_map(event: Uevent) -> bool:
    # add, change, and a new disk's link; which one it is about is read from sysfs
    return event.subsystem == "block" and "/block/dm-" in event.devpath


def _is_of(uuid: str, wwid: Wwid | None) -> bool:
    return wwid is not None and uuid == f"{_UUID_PREFIX}{format_multipath_wwid(wwid)}"
