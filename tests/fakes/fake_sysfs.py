"""A sysfs in a folder: sessions, units and disks laid out as kernel 6.1 does.

Attributes are plain files, so a write is seen by reading the file; links are links.
"""

from __future__ import annotations

from collections.abc import Mapping
from pathlib import Path

from lunport.host.systree import SysTree


class FakeSysfs:
    """Builds the tree; ``tree`` reads it as the code under test does."""

    def __init__(self, root: Path) -> None:
        self.root = root
        self.tree = SysTree(root)

    def session(
        self,
        sid: int,
        *,
        iqn: str = "iqn.2026-11.org.example:t1",
        address: str = "10.0.1.2",
        port: str = "3260",
        proc_name: str = "iscsi_tcp",
        session: Mapping[str, str] | None = None,
        connection: Mapping[str, str] | None = None,
    ) -> str:
        """Add ``sessionN`` on ``hostN``, logged in; return its folder below the root."""
        node = f"devices/platform/host{sid}/session{sid}"
        own = f"{node}/iscsi_session/session{sid}"
        to = f"{node}/connection{sid}:0/iscsi_connection/connection{sid}:0"
        attributes = {
            "targetname": iqn,
            "state": "LOGGED_IN",
            "ifacename": "default",
            "tpgt": "1",
            **(session or {}),
        }
        self._write_all(own, attributes)
        self._write_all(
            to,
            {
                "persistent_address": address,
                "persistent_port": port,
                "address": address,
                "port": port,
                **(connection or {}),
            },
        )
        scsi_host = f"devices/platform/host{sid}/scsi_host/host{sid}"
        self._write_all(scsi_host, {"proc_name": proc_name, "scan": ""})
        self._link(f"class/iscsi_session/session{sid}", own)
        self._link(f"class/iscsi_connection/connection{sid}:0", to)
        self._link(f"class/scsi_host/host{sid}", scsi_host)
        return node

    def unit(self, sid: int, lun: int, attributes: Mapping[str, str] | None = None) -> str:
        """Add a unit without a disk; return its folder below the root."""
        address = f"{sid}:0:0:{lun}"
        unit = f"devices/platform/host{sid}/session{sid}/target{sid}:0:0/{address}"
        defaults = {"state": "running", "rescan": "", "delete": "", "iodone_cnt": "0x1"}
        self._write_all(unit, {**defaults, **(attributes or {})})
        self._link(f"bus/scsi/devices/{address}", unit)
        return unit

    def disk(
        self,
        sid: int,
        lun: int,
        name: str = "sda",
        *,
        wwid: str | None = "naa.6001405000100010000000000000000a",
        reads: int = 1,
        sectors: str = "32768",
        number: str = "8:0",
    ) -> str:
        """Add a unit with a disk that was read from ``reads`` times; return the unit's folder."""
        unit = self.unit(sid, lun, {} if wwid is None else {"wwid": wwid})
        address = f"{sid}:0:0:{lun}"
        block = {"dev": number, "size": sectors, "stat": f"  {reads} 0 8 1 0 0 0 0 0 1 1"}
        self._write_all(f"{unit}/block/{name}", block)
        self._write_all(f"{unit}/block/{name}/holders", {})
        self._write_all(f"{unit}/scsi_disk/{address}", {"cache_type": "write back"})
        return unit

    def write(self, path: str, text: str) -> None:
        """Set an attribute, as the kernel would by itself."""
        (self.root / path).write_text(f"{text}\n")

    def remove(self, path: str) -> None:
        """Remove an attribute, or a folder and what is in it."""
        place = self.root / path
        if place.is_symlink() or not place.is_dir():
            place.unlink()
            return
        for name in place.iterdir():
            self.remove(str(name.relative_to(self.root)))
        place.rmdir()

    def text(self, path: str) -> str:
        """Read what was written to an attribute."""
        return (self.root / path).read_text()

    def _write_all(self, folder: str, attributes: Mapping[str, str]) -> None:
        (self.root / folder).mkdir(parents=True, exist_ok=True)
        for name, text in attributes.items():
            (self.root / folder / name).write_text(f"{text}\n" if text else "")

    def _link(self, path: str, to: str) -> None:
        link = self.root / path
        link.parent.mkdir(parents=True, exist_ok=True)
        link.symlink_to(Path(*[".."] * path.count("/")) / to)
