"""What a test in the lab may leave on its machine: nothing.

A snapshot is sets of names by kind, read from sysfs, configfs and open-iscsi's files. Locks and
the memory of dead portals below ``/run/lunport`` stay by design, as do the journal's folders;
:func:`sweep` forgets the portals, and clears away what a failed test left, so that the next one
fails for its own reasons only.
"""

from __future__ import annotations

import contextlib
import shutil
import threading
from collections.abc import Iterator, Mapping
from pathlib import Path

from lunport.host.clock import Deadline
from lunport.host.runner import run

Snapshot = Mapping[str, frozenset[str]]

_CONFIGFS = Path("/sys/kernel/config/target")
_RECORDS = {
    "node record": ("/etc/iscsi/nodes", "/var/lib/iscsi/nodes"),
    "discovery record": ("/etc/iscsi/send_targets", "/var/lib/iscsi/send_targets"),
    "iface": ("/etc/iscsi/ifaces", "/var/lib/iscsi/ifaces"),
}
_RUN = Path("/run/lunport")
_MEMORY = _RUN / "dead-portals"
_STAYS = ("dead-portals", "locks")
_FOLDERS = (f"{_RUN}/paths", f"{_RUN}/unfinished")  # what was in them counts
_GRACE_S = 20.0
_LOOK_S = 0.05

_pause = threading.Event()


def take_snapshot() -> Snapshot:
    """Read what is there now."""
    found = {
        "session": _sessions(),
        "SCSI unit": _names("/sys/class/scsi_device", "*"),
        "device map": frozenset(
            f"{path.parent.parent.name} {_text(path)}"
            for path in Path("/sys/block").glob("dm-*/dm/name")
        ),
        "loop device": frozenset(
            f"{path.parent.parent.name} {_text(path)}"
            for path in Path("/sys/block").glob("loop*/loop/backing_file")
        ),
        "target": _names(_CONFIGFS / "iscsi", "iqn.*"),
        "backstore": _names(_CONFIGFS / "core", "*_*/*/control"),
        "mount": frozenset(
            " ".join(line.split()[:2]) for line in Path("/proc/mounts").read_text().splitlines()
        ),
        "file of this boot": frozenset(
            path
            for path in _below(str(_RUN))
            if path.split("/")[3] not in _STAYS and path not in _FOLDERS
        ),
        "file of the journal": frozenset(
            path for path in _below("/var/lib/lunport") if not Path(path).is_dir()
        ),
    }
    for kind, folders in _RECORDS.items():
        found[kind] = frozenset().union(*(_below(folder) for folder in folders))
    return found


def wait_until_equal(before: Snapshot, grace_s: float = _GRACE_S) -> list[str]:
    """Give what is on its way out a moment, and list what differs then."""
    deadline = Deadline.after(grace_s)
    while (different := list(_differences(before, take_snapshot()))) and not deadline.has_passed():
        _pause.wait(_LOOK_S)
    return different


def sweep(before: Snapshot) -> None:
    """Log out of sessions that were not there before, and remove new files; forget portals."""
    shutil.rmtree(_MEMORY, ignore_errors=True)
    after = take_snapshot()
    for session in sorted(after["session"] - before["session"]):
        # session12 iqn.2026-11.io.lunport.lab:t1
        sid = session.split()[0].removeprefix("session")
        run(["iscsiadm", "-m", "session", "-r", sid, "-u"], Deadline.after(60), accepted=range(256))
    kinds = (*_RECORDS, "file of this boot", "file of the journal")
    for path in sorted({path for kind in kinds for path in after[kind] - before[kind]}):
        with contextlib.suppress(OSError):
            Path(path).unlink() if Path(path).is_file() else shutil.rmtree(path)


def _differences(before: Snapshot, after: Snapshot) -> Iterator[str]:
    for kind, names in before.items():
        yield from (f"{kind} left: {name}" for name in sorted(after[kind] - names))
        gone = sorted(names - after[kind])
        # The kernel was still closing a loop device of a test before, whose file is gone.
        yield from (f"{kind} gone: {name}" for name in gone if not name.endswith(" (deleted)"))


def _sessions() -> frozenset[str]:
    return frozenset(
        f"{path.name} {_text(path / 'targetname')}"
        for path in Path("/sys/class/iscsi_session").glob("session*")
    )


def _names(folder: str | Path, pattern: str) -> frozenset[str]:
    root = Path(folder)
    return frozenset(
        str(path.relative_to(root)).removesuffix("/control") for path in root.glob(pattern)
    )


def _below(folder: str) -> frozenset[str]:
    return frozenset(str(path) for path in Path(folder).rglob("*"))


def _text(path: Path) -> str:
    try:
        return path.read_text().strip()
    except OSError:  # it went as we looked
        return "(unreadable)"
