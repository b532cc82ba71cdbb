"""Words shared by the tests of the initiator: connection infos, sightings, and short sentences."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path

from lab.lio import Disk, Target
from lunport.core.chap import Chap, ChapCredentials
from lunport.core.connection_info import AddressingMode, ConnectionInfo
from lunport.core.portal import Portal
from lunport.core.secret import Secret
from lunport.core.target_path import TargetPath
from lunport.initiator.connected_volume import ConnectedVolume

CHAP = Chap(ChapCredentials("lab-user", Secret("lab-secret-12345")))
MUTUAL_CHAP = Chap(CHAP.initiator, ChapCredentials("lab-target", Secret("lab-mutual-6789")))


def info_of(
    target: Target,
    lun: int = 1,
    disk: Disk | None = None,
    *,
    portals: Sequence[Portal] = (),
    chap: Chap | None = None,
    mode: AddressingMode | None = None,
    attachment_id: str | None = None,
) -> ConnectionInfo:
    """Say how to reach a LUN, as the storage side would; with ``disk`` its identity is stated."""
    return ConnectionInfo(
        paths=tuple(TargetPath(portal, target.iqn, lun) for portal in portals or target.portals),
        wwid=None if disk is None else disk.wwid,
        chap=chap,
        addressing_mode=mode,
        attachment_id=attachment_id,
    )


def first_bytes(path: str | Path, count: int = 512) -> bytes:
    """Read the beginning of a disk, past the page cache's idea of it."""
    with Path(path).open("rb", buffering=0) as disk:
        return disk.read(count)


def mark(disk: Disk, text: str) -> bytes:
    """Write a text to the beginning of a disk of the SAN, behind every initiator's back."""
    content = text.encode().ljust(512, b".")
    with disk.file.open("r+b") as file:
        file.write(content)
    return content


def sessions() -> list[str]:
    """List the sessions of this host by name."""
    return sorted(path.name for path in Path("/sys/class/iscsi_session").glob("session*"))


def disks() -> list[str]:
    """List the SCSI disks of this host by name."""
    return sorted(path.name for path in Path("/sys/block").glob("sd*"))


def node_records() -> list[str]:
    """List open-iscsi's node records."""
    root = Path("/etc/iscsi/nodes")
    return sorted(str(path.relative_to(root)) for path in root.rglob("*") if path.is_file())


def reasons(volume: ConnectedVolume) -> dict[str, str]:
    """Map each unused path's portal to its reason."""
    return {str(unused.path.portal): unused.reason for unused in volume.unused}
