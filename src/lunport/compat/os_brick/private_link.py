"""The link that the caller of an encrypted volume gets, to put another in its place.

    /dev/disk/by-id/os-brick+dev+sda -> /dev/sda       (later, by the caller: -> /dev/mapper/...)

An encryptor replaces the path that it was given by a link to the decrypted device. It must own
that path: udev would take back a device node, or one of its own links. The name keeps the real
path, a plus sign for each slash, as os-brick's has it, so that either can undo the other's.
"""

from __future__ import annotations

import os
from pathlib import Path

_PREFIX = "os-brick"
_FOLDER = "by-id"


def make_private_link(disk_links: Path, path: str) -> str:
    """Make the link to a device and return its name. Replaces an older one. Raises: OSError."""
    link = disk_links / _FOLDER / f"{_PREFIX}{path.replace('/', '+')}"
    link.parent.mkdir(parents=True, exist_ok=True)
    # Beside its final name, so that nobody finds none meanwhile.
    new = link.with_name(f".{link.name}.{os.getpid()}")
    new.unlink(missing_ok=True)
    new.symlink_to(path)
    new.replace(link)
    return str(link)


def is_private_link(disk_links: Path, path: str) -> bool:
    """Tell whether a path is such a link's name."""
    given = Path(path)
    return given.parent == disk_links / _FOLDER and given.name.startswith(f"{_PREFIX}+")


def remove_private_link(path: str) -> None:
    """Remove the link, whatever it leads to now. Idempotent. Raises: OSError."""
    link = Path(path)
    if link.is_symlink():
        link.unlink()
