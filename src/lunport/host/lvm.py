"""LVM's programs, on one volume group: their command lines, reports, and failures.

lvm(8), lvs(8), lvmreport(7), lvmthin(7). Every command sees the disks of this group and no
other device (``--config`` with a filter), so that nothing that a guest wrote into a volume is
looked at, whatever the host's own configuration says. No policy: what is made when, and which
names mean what, is the driver's.

A program that runs goes on when we are killed: it has a session of its own, and LVM's lock
makes the next one wait for it. The deadline is long, because LVM killed amid a change may
leave devices suspended. Before anything is changed, the group must be whole
(:attr:`VolumeGroup.missing_disks`): lvremove would write down that an unseen disk is gone.
"""

from __future__ import annotations

import json
import re
from collections.abc import Callable, Iterable, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any, TypeVar

from lunport.core.errors import (
    BackendError,
    CommandError,
    CommandMissing,
    CommandTimedOut,
    ImageMissing,
    OutOfSpace,
    Unavailable,
)
from lunport.core.lvm_filter import SETTINGS, HostLvm, exact_rule, parse_rules, parse_settings
from lunport.host.clock import Deadline
from lunport.host.runner import Completed, run

T = TypeVar("T")

PACKAGE = "lvm2"
_PATIENCE_S = 600.0
_NOT_FOUND = 5  # LVM's status for most failures, and for names that are not there
_DEVICES_FILES = Path("/etc/lvm/devices")
_LVS_FIELDS = (
    "lv_name,lv_size,lv_attr,lv_layout,lv_role,lv_device_open,origin,origin_size,pool_lv,"
    "data_percent,metadata_percent,lv_metadata_size,lv_health_status,zero"
)
_VGS_FIELDS = "vg_name,vg_uuid,vg_size,vg_free,vg_extent_size,vg_missing_pv_count,lv_count"
_MISSING = re.compile(
    r'Failed to find logical volume "[^"]*"|Existing logical volume "[^"]*" not found|'
    r"Logical volume \S+ not found in volume group|Snapshot logical volume \S+ not found"
)
_FULL = re.compile(r"insufficient free space \((\d+) extents\): (\d+) required")
_FULL_OTHERWISE = re.compile(r"[Ii]nsufficient (?:suitable allocatable extents|free space)")
_THERE = re.compile(r"already exists in volume group")
_BUSY = re.compile(r"in use\.|is used by another device|Can't remove open|contains a filesystem")


@dataclass(frozen=True, slots=True)
class VolumeGroup:
    """A volume group, in bytes. ``missing_disks``: how many of its disks are not seen."""

    name: str
    uuid: str
    size_bytes: int
    free_bytes: int
    extent_bytes: int
    missing_disks: int
    volumes: int

    def round_up(self, size_bytes: int) -> int:
        """Return the next whole number of extents, in bytes."""
        return -(-size_bytes // self.extent_bytes) * self.extent_bytes


@dataclass(frozen=True, slots=True)
class LogicalVolume:
    """A logical volume, in bytes.

    ``size_bytes`` is what a reader sees; ``stored_bytes`` what it takes of the group, for a
    thick snapshot its own store. The percentages are a pool's, or a snapshot's.
    """

    name: str
    size_bytes: int
    stored_bytes: int
    origin: str
    pool: str
    is_pool: bool
    is_thick_snapshot: bool
    is_thick_origin: bool
    is_read_only: bool
    is_active: bool
    is_open: bool
    zeroes: bool
    health: str
    data_percent: float
    metadata_percent: float
    metadata_bytes: int

    @property
    def is_thin(self) -> bool:
        """Tell whether it is in a thin pool."""
        return bool(self.pool)


@dataclass(frozen=True, slots=True)
class Disk:
    """A physical volume and the group it belongs to."""

    path: str
    group: str
    group_uuid: str


class Lvm:
    """The programs, on one group and its disks. Safe to use from several threads."""

    def __init__(self, group: str, disks: Sequence[str], patience_s: float = _PATIENCE_S) -> None:
        self.group = group
        self.disks = tuple(disks)
        self._patience_s = patience_s
        self._extent_bytes = 0

    def read_group(self) -> VolumeGroup:
        """Return the group as it is now. Raises: BackendError."""
        answer = self._report("vgs", _VGS_FIELDS, [self.group])
        groups = parse_groups(answer.stdout, "vg")
        if len(groups) != 1:
            raise BackendError(f"There is no volume group {self.group} on {', '.join(self.disks)}.")
        self._extent_bytes = groups[0].extent_bytes
        return groups[0]

    def look(self, names: Iterable[str]) -> tuple[VolumeGroup, Mapping[str, LogicalVolume]]:
        """Return the group, and those of the named volumes that are there.

        Raises: BackendError.
        """
        words = [f"{self.group}/{name}" for name in names]
        text = self._report("lvs", f"{_LVS_FIELDS},{_VGS_FIELDS}", words, may_miss=True).stdout
        groups = parse_groups(text, "lv")
        group = groups[0] if groups else self.read_group()
        self._extent_bytes = group.extent_bytes
        return group, _by_name(parse_volumes(text))

    def find(self, names: Iterable[str]) -> Mapping[str, LogicalVolume]:
        """Return those of the named volumes that are there. Raises: BackendError."""
        return self.look(names)[1]

    def volumes(self) -> Mapping[str, LogicalVolume]:
        """Return all volumes of the group. Raises: BackendError."""
        return _by_name(parse_volumes(self._report("lvs", _LVS_FIELDS, [self.group]).stdout))

    def make_pool(self, name: str, percent_free: int) -> None:
        """Make a thin pool of that part of what is free; new blocks of it read as zeros."""
        self._change(
            ["lvcreate", "--type", "thin-pool", "--zero", "y", "-l", f"{percent_free}%FREE"],
            ["-n", name, self.group],
        )

    def make_thick(self, name: str, size_bytes: int) -> None:
        """Make a volume of its own extents. Raises: OutOfSpace, BackendError."""
        words = ["-W", "y", "-Z", "y", "-L", f"{size_bytes}b", "-n", name, self.group]
        self._change(["lvcreate", "--type", "linear"], words)

    def make_thin(self, name: str, size_bytes: int, pool: str) -> None:
        """Make a volume in a thin pool. Raises: BackendError."""
        words = ["-V", f"{size_bytes}b", "--thinpool", pool, "-n", name, self.group]
        self._change(["lvcreate", "--type", "thin"], words)

    def take_thin_snapshot(self, name: str, origin: str, *, read_only: bool) -> None:
        """Share a thin volume's blocks; one that is read-only is not activated.

        Raises: ImageMissing, BackendError.
        """
        kind = ["-ky", "-pr"] if read_only else ["-kn", "-ay", "-prw"]
        self._change(["lvcreate", "-s", *kind], ["-n", name, f"{self.group}/{origin}"])

    def take_thick_snapshot(self, name: str, origin: str) -> None:
        """Keep what is overwritten from now on, with room for all of it.

        Raises: OutOfSpace, ImageMissing, BackendError.
        """
        words = ["-l", "100%ORIGIN", "-n", name, f"{self.group}/{origin}"]
        self._change(["lvcreate", "-s", "-pr"], words)

    def split_snapshot(self, name: str) -> None:
        """Make a thick snapshot's store a volume of its own. Raises: BackendError."""
        self._change(["lvconvert", "--splitsnapshot"], [f"{self.group}/{name}"])

    def rename(self, name: str, new_name: str) -> None:
        """Give a volume another name, in one step. Raises: ImageMissing, BackendError."""
        self._change(["lvrename"], [self.group, name, new_name])

    def extend(self, name: str, size_bytes: int) -> None:
        """Grow a volume to a size. Raises: OutOfSpace, ImageMissing, BackendError."""
        self._change(["lvextend"], ["-L", f"{size_bytes}b", f"{self.group}/{name}"])

    def remove(self, *names: str) -> None:
        """Remove volumes; none of them may be open. Raises: ImageMissing, BackendError."""
        self._change(["lvremove"], [f"{self.group}/{name}" for name in names])

    def activate(self, *names: str) -> None:
        """Have devices of volumes, of snapshots too. Raises: ImageMissing, BackendError."""
        self._change(["lvchange", "-ay", "-K"], [f"{self.group}/{name}" for name in names])

    def deactivate(self, *names: str) -> None:
        """Have no devices of volumes. Raises: ImageMissing, BackendError."""
        self._change(["lvchange", "-an"], [f"{self.group}/{name}" for name in names])

    def make_writable(self, name: str) -> None:
        """Allow writes to a volume. Raises: ImageMissing, BackendError."""
        self._change(["lvchange", "-prw"], [f"{self.group}/{name}"])

    def device(self, name: str) -> Path:
        """Return the path at which an active volume is opened."""
        return Path("/dev") / self.group / name

    def _change(self, verb: Sequence[str], words: Sequence[str]) -> None:
        self._run([*verb, "-y", "-q", "--config", self._config(), *words])

    def _report(
        self, program: str, fields: str, words: Sequence[str], *, may_miss: bool = False
    ) -> Completed:
        options = [*_JSON, "-o", fields, "--config", self._config()]
        return self._run([program, *options, *words], may_miss=may_miss)

    def _run(self, argv: Sequence[str], *, may_miss: bool = False) -> Completed:
        try:
            done = _run(argv, self._patience_s, accepted=(0, _NOT_FOUND) if may_miss else (0,))
        except CommandError as error:
            raise self._translated(error) from error
        if done.status != 0:
            strange = [line for line in _complaints(done.stderr) if not _MISSING.search(line)]
            if strange:
                raise BackendError(f"{argv[0]}: {' '.join(strange)}")
        return done

    def _translated(self, error: CommandError) -> BackendError | Unavailable:
        """Turn what a program says into an error of the tree: the one border."""
        found = parse_failure(error, self.group, self._extent_bytes)
        if isinstance(found, OutOfSpace) and not found.needed_bytes:
            # It gave no numbers: more is needed than there is in one piece.
            free = self.read_group().free_bytes
            return OutOfSpace(self.group, free + self._extent_bytes, free)
        return found

    def _config(self) -> str:
        return _config(self.disks)


def find_disks(candidates: Sequence[str] = ()) -> tuple[Disk, ...]:
    """List physical volumes: of the given disks, or as the host's own LVM sees them.

    Volumes are not looked into, whatever the host says. Raises: BackendError.
    """
    config = _config(candidates) if candidates else "devices { scan_lvs=0 }"
    try:
        done = _run(["pvs", *_JSON, "-o", "pv_name,vg_name,vg_uuid", "--config", config], 60.0)
    except CommandError as error:
        raise BackendError(f"pvs: {' '.join(_complaints(error.stderr))}") from error
    return tuple(
        Disk(str(row["pv_name"]), str(row["vg_name"]), str(row["vg_uuid"]))
        for row in _rows(done.stdout, "pv")
    )


def read_host_settings() -> HostLvm:
    """Read the configuration that the host's own LVM commands go by. Raises: BackendError."""
    try:
        done = _run(["lvmconfig", "--typeconfig", "full", *SETTINGS, "devices/devicesfile"], 60.0)
    except CommandError as error:
        raise BackendError(f"lvmconfig: {' '.join(_complaints(error.stderr))}") from error
    settings = parse_settings(done.stdout)
    listed = None
    if settings.get("use_devicesfile") == "1":
        names = parse_rules(settings.get("devicesfile", "")) or ("system.devices",)
        listed = _listed(_DEVICES_FILES / names[0])
    return HostLvm(
        parse_rules(settings.get("global_filter", "")),
        scans_lvs=settings.get("scan_lvs") == "1",
        listed=listed,
    )


def parse_groups(text: str, kind: str) -> Sequence[VolumeGroup]:
    """Read the group that each line of a report names. Raises: BackendError."""
    return [_read_row(_group, row) for row in _rows(text, kind)]


def parse_volumes(text: str) -> Sequence[LogicalVolume]:
    """Read a report of lvs. Raises: BackendError."""
    return [_read_row(_volume, row) for row in _rows(text, "lv")]


def parse_failure(error: CommandError, group: str, extent_bytes: int) -> BackendError | Unavailable:
    """Read why one of LVM's programs failed; OutOfSpace needs 0 where it gave no numbers."""
    full = _FULL.search(error.stderr)
    if full is not None and extent_bytes:
        free, needed = (int(number) * extent_bytes for number in full.groups())
        return OutOfSpace(group, needed, free)
    if full is not None or _FULL_OTHERWISE.search(error.stderr):
        return OutOfSpace(group, 0, 0)
    missing = _MISSING.search(error.stderr)
    if missing is not None:
        return ImageMissing(f"{group}: {missing[0]}")
    if _THERE.search(error.stderr):
        # It was looked for just now: a program that an ended process of ours left running.
        return Unavailable(f"{group}: another command makes the same volume now.")
    said = " ".join(_complaints(error.stderr)) or f"status {error.status}"
    if _BUSY.search(error.stderr):
        return BackendError(f"It is in use on this storage node: {said}")
    return BackendError(f"{Path(str(error.argv[0])).name}: {said}")


_JSON = ("--reportformat", "json", "--units", "b", "--nosuffix")


def _listed(file: Path) -> frozenset[str] | None:
    """Read the devices of a devices file (lvmdevices(8)); None when there is no such file."""
    try:
        text = file.read_text(encoding="utf-8", errors="replace")
    except FileNotFoundError:
        return None
    except OSError as error:
        raise BackendError(f"{file}: {error.strerror}") from error
    return frozenset(re.findall(r"\b(?:DEVNAME|IDNAME)=(/\S+)", text))


def _config(disks: Sequence[str]) -> str:
    rules = ",".join(f'"{exact_rule(disk)}"' for disk in disks)
    return (
        f'devices {{ global_filter=[{rules},"r|.*|"] filter=["a|.*|"] scan_lvs=0 '
        'use_devicesfile=0 hints="none" } global { use_lvmlockd=0 }'
    )


def _run(argv: Sequence[str], patience_s: float, accepted: Sequence[int] = (0,)) -> Completed:
    try:
        return run(
            argv,
            Deadline.after(patience_s),
            accepted=accepted,
            environment={"LVM_SUPPRESS_FD_WARNINGS": "1"},
            package=PACKAGE,
        )
    except (CommandMissing, CommandTimedOut) as error:
        raise BackendError(str(error)) from error


def _complaints(stderr: str) -> list[str]:
    """Return the lines that say what failed."""
    lines = [line.strip() for line in stderr.splitlines() if line.strip()]
    return [line for line in lines if not line.startswith("WARNING:")]


def _rows(text: str, kind: str) -> Sequence[Mapping[str, Any]]:
    try:
        return [row for report in json.loads(text)["report"] for row in report[kind]]
    except (ValueError, KeyError, TypeError) as error:
        raise BackendError(f"LVM's report cannot be read: {text[:80]!r}") from error


def _read_row(read: Callable[[Mapping[str, Any]], T], row: Mapping[str, Any]) -> T:
    try:
        return read(row)
    except (ValueError, KeyError, TypeError) as error:
        raise BackendError(f"LVM's report cannot be read: {str(row)[:80]}") from error


def _by_name(volumes: Iterable[LogicalVolume]) -> Mapping[str, LogicalVolume]:
    return {one.name: one for one in volumes}


def _group(row: Mapping[str, Any]) -> VolumeGroup:
    return VolumeGroup(
        name=str(row["vg_name"]),
        uuid=str(row["vg_uuid"]),
        size_bytes=int(row["vg_size"]),
        free_bytes=int(row["vg_free"]),
        extent_bytes=int(row["vg_extent_size"]),
        missing_disks=int(row["vg_missing_pv_count"]),
        volumes=int(row["lv_count"]),
    )


def _volume(row: Mapping[str, Any]) -> LogicalVolume:
    """Read one line of lvs; its attributes are lv_attr's letters (lvs(8))."""
    attributes, roles = str(row["lv_attr"]), str(row["lv_role"]).split(",")
    is_thick_snapshot = "thicksnapshot" in roles
    stored = int(row["lv_size"])
    return LogicalVolume(
        name=str(row["lv_name"]),
        size_bytes=int(row["origin_size"] or stored) if is_thick_snapshot else stored,
        stored_bytes=stored,
        origin=str(row["origin"]),
        pool=str(row["pool_lv"]),
        is_pool="pool" in str(row["lv_layout"]).split(","),
        is_thick_snapshot=is_thick_snapshot,
        is_thick_origin="thickorigin" in roles,
        is_read_only=attributes[1:2] in {"r", "R"},
        is_active=attributes[4:5] == "a",
        is_open=str(row["lv_device_open"]) == "open",
        zeroes=str(row["zero"]) == "zero",
        health=str(row["lv_health_status"]),
        data_percent=float(row["data_percent"] or 0),
        metadata_percent=float(row["metadata_percent"] or 0),
        metadata_bytes=int(row["lv_metadata_size"] or 0),
    )
