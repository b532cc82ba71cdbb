"""The names of a disk below /dev: all that it has, and the one that lasts.

udev makes links to a device's node (udev(7)); which node a disk has depends on the order in
which disks were found, a link by its identity does not. Links made of what is written on a
disk are left out: whoever writes to another one can have them.
"""

from __future__ import annotations

import os
import threading
from pathlib import Path

from lunport.core.errors import HostLacks
from lunport.host.clock import Deadline

_LOOK_S = 0.02
_pause = threading.Event()
_LASTING = Path("/dev/disk/by-id")
_OF_CONTENT = ("lvm-pv-uuid-", "dm-name-", "md-name-", "md-uuid-")
_FOLDERS = (_LASTING, Path("/dev/disk/by-path"), Path("/dev/mapper"))


def names_of(device: str) -> tuple[str, ...]:
    """Return a device's node and the links to it."""
    node = os.path.realpath(device)
    links = (str(link) for folder in _FOLDERS for link in _links(folder, node))
    return tuple(dict.fromkeys((device, node, *links)))


def stable_name(device: str) -> str:
    """Return a link that means this disk after any restart; the name given if it has none."""
    return min(map(str, _links(_LASTING, os.path.realpath(device))), default=device)


def wait_for_stable_name(device: str, deadline: Deadline) -> str:
    """Wait for udev to make the link of a disk that has just come, and return it.

    Raises: HostLacks where it does not: after a restart the node could be another disk's.
    """
    node = os.path.realpath(device)
    while not (links := _links(_LASTING, node)):
        if deadline.has_passed():
            how = "is udevd running? its rules make it"
            raise HostLacks(f"{device} has no lasting name", f"nothing in {_LASTING}", how)
        _pause.wait(_LOOK_S)
    return min(map(str, links))


def _links(folder: Path, node: str) -> list[Path]:
    try:
        return [
            link
            for link in sorted(folder.iterdir())
            if not link.name.startswith(_OF_CONTENT) and os.path.realpath(link) == node
        ]
    except OSError:
        return []
