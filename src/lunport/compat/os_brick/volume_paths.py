"""The names that udev gives a volume's disks by the way to them (60-persistent-storage.rules).

    /dev/disk/by-path/ip-10.0.1.2:3260-iscsi-iqn.2014-02.org.example:vol1-lun-1
    /dev/disk/by-path/ip-fd00:1::2:3260-iscsi-iqn.2014-02.org.example:vol1-lun-0x0100000000000000
    /dev/disk/by-path/pci-0000:04:00.0-ip-10.0.1.2:3260-iscsi-...

A name counts while a session of this host shows that unit, and while it leads somewhere. A disk
is handed out before udev has named it, so a name that is still missing is waited for a little.
udev's names have a portal's address; a portal that a person named is resolved first.
"""

from __future__ import annotations

import logging
import threading
from typing import Final

from lunport.compat.os_brick.ports import HostParts
from lunport.core.connection_info import ConnectionInfo
from lunport.core.errors import LunportError
from lunport.core.scsi_address import kernel_lun
from lunport.core.target_path import TargetPath
from lunport.host.clock import Deadline
from lunport.host.iscsi_sysfs import find_session
from lunport.host.scsi_disk import find_unit, read_disk

_LOG = logging.getLogger(__name__)

_HEXADECIMAL_FROM: Final = 256
_RESOLVE_S: Final = 3.0
_LOOK_S: Final = 0.02


def find_volume_paths(info: ConnectionInfo, host: HostParts) -> list[str]:
    """List the names of the volume's disks, one path of it after the other."""
    found: dict[str, None] = {}
    for path in _with_addresses(info, host):
        lun = kernel_lun(path.lun, info.addressing_mode)
        if _is_disk(path, lun, host):
            found |= dict.fromkeys(_wait_for_names(by_path_name(path, lun), host))
    return list(found)


def by_path_name(path: TargetPath, lun: int) -> str:
    """Write udev's name; ``lun`` is the number by which Linux shows it."""
    shown = str(lun)
    if lun >= _HEXADECIMAL_FROM:
        shown = f"0x{lun & 0xFFFF:04x}{lun >> 16 & 0xFFFF:04x}00000000"
    return f"ip-{path.portal.host}:{path.portal.port}-iscsi-{path.iqn}-lun-{shown}"


def list_names(host: HostParts) -> list[str]:
    """List all names that udev gives disks by the way to them; not those of disks that are gone."""
    folder = host.disk_links / "by-path"
    if not folder.is_dir():
        return []
    return sorted(str(entry) for entry in folder.iterdir() if entry.exists())


def _with_addresses(info: ConnectionInfo, host: HostParts) -> tuple[TargetPath, ...]:
    try:
        return host.resolve(info.paths, Deadline.after(_RESOLVE_S)).paths
    except LunportError as error:
        _LOG.debug("no_volume_paths error=%s", error)
        return ()


def _is_disk(path: TargetPath, lun: int, host: HostParts) -> bool:
    session = find_session(host.sys, path.portal, path.iqn)
    unit = None if session is None else find_unit(host.sys, session, lun)
    return unit is not None and read_disk(host.sys, unit) is not None


def _wait_for_names(name: str, host: HostParts) -> list[str]:
    deadline = Deadline.after(host.naming_s)
    pause = threading.Event()
    while not (found := _names_ending_in(name, host)) and not deadline.has_passed():
        pause.wait(_LOOK_S)
    return found


def _names_ending_in(name: str, host: HostParts) -> list[str]:
    return [one for one in list_names(host) if one.endswith((f"/{name}", f"-{name}"))]
