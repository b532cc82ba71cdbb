"""The kernel's target (LIO) through configfs: disks, targets, LUNs, CHAP.

Every verb that makes something is a context manager, or belongs to an object that is one: what
was made is unmade. No program is started but losetup(8), for disks that can grow.

    /sys/kernel/config/target/core/BACKSTORE/NAME/{control,enable,wwn/vpd_unit_serial}
    /sys/kernel/config/target/iscsi/IQN/tpgt_N/{np,lun,acls,attrib,auth,enable}

Quirk(LIO): only the first 25 hex digits of a unit serial reach the NAA identity
(``spc_gen_naa_6h_vendor_specific`` in drivers/target/target_core_spc.c), so a disk is made with
exactly 25. Quirk(LIO): a file backstore keeps the size that it was given, so a disk that is to
grow is a loop device under an iblock backstore. Quirk(LIO): a portal's socket belongs to the
network namespace of whoever makes its folder.

Quirk(LIO): a target that lets everybody in makes an access list for each login; a LUN that is
mapped or unmapped at that moment is missing from it, or stays in it dead, and the removal of
the target then crashes the kernel (6.1, ``core_tpg_add_node_to_devs`` against
``core_scsi3_free_pr_reg_from_nacl``). Where LUNs change under load, name who is ``allowed``.
"""

from __future__ import annotations

import contextlib
import itertools
import re
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path

from lunport.core.chap import Chap
from lunport.core.iqn import Iqn
from lunport.core.portal import Portal
from lunport.core.wwid import Wwid
from lunport.host.clock import Deadline
from lunport.host.runner import run

ROOT = Path("/sys/kernel/config/target")
CORE = ROOT / "core"
ISCSI = ROOT / "iscsi"
WWID = re.compile(r"naa\.6001405([0-9a-f]{25})")
MIB = 1 << 20

_STEP_S = 30.0
_numbers = itertools.count(1)


@dataclass(frozen=True, slots=True)
class Disk:
    """A disk of the SAN: its identity, its file, and where configfs has it."""

    wwid: Wwid
    file: Path
    place: Path
    loop: str | None = None

    def grow(self, size_bytes: int) -> None:
        """Make it larger. Precondition: it was made ``growable``."""
        if self.loop is None:
            raise ValueError(f"{self.place.name} cannot grow: make it growable")
        with self.file.open("ab") as file:
            file.truncate(size_bytes)
        run(["losetup", "--set-capacity", self.loop], Deadline.after(_STEP_S), package="mount")


@contextlib.contextmanager
def disk(
    folder: Path, *, size_mib: int = 64, wwid: str | None = None, growable: bool = False
) -> Iterator[Disk]:
    """Make a sparse disk; ``wwid`` is ``naa.6001405`` and 25 hex digits, or a new one."""
    number = next(_numbers)
    digits = _digits(wwid) if wwid else f"{number:08x}".ljust(25, "0")
    file = folder / f"disk-{number}"
    with contextlib.ExitStack() as undo:
        undo.callback(file.unlink)
        with file.open("wb") as new:
            new.truncate(size_mib * MIB)
        loop = undo.enter_context(_loop(file)) if growable else None
        group = CORE / ("iblock_0" if loop else "fileio_0")
        undo.enter_context(_folder(group, keep=True))
        place = undo.enter_context(_folder(group / f"lab-{number}"))
        source = f"udev_path={loop}" if loop else (
            f"fd_dev_name={file},fd_dev_size={size_mib * MIB},fd_buffered_io=1"
        )  # fmt: skip
        (place / "control").write_text(source)
        (place / "wwn/vpd_unit_serial").write_text(digits)
        (place / "enable").write_text("1")
        yield Disk(Wwid(f"naa.6001405{digits}"), file, place, loop)


class Target:
    """One target, with one target portal group."""

    def __init__(
        self,
        iqn: Iqn,
        tpgt: int,
        portals: Sequence[Portal],
        *,
        chap: Chap | None = None,
        allowed: Sequence[Iqn] = (),
    ) -> None:
        """Describe it; with ``allowed``, these initiators alone are let in, else all are."""
        self.iqn = iqn
        self.tpgt = tpgt
        self.portals = tuple(portals)
        self.chap = chap
        self.allowed = tuple(allowed)
        self.luns: dict[int, Disk] = {}

    @property
    def place(self) -> Path:
        """Where configfs has the target portal group."""
        return ISCSI / self.iqn / f"tpgt_{self.tpgt}"

    def map_lun(self, lun: int, what: Disk) -> None:
        """Show a disk under a LUN, to sessions that live as well."""
        place = self.place / "lun" / f"lun_{lun}"
        place.mkdir()
        (place / "store").symlink_to(what.place)
        for initiator in self.allowed:
            mapped = self.place / "acls" / initiator / f"lun_{lun}"
            mapped.mkdir()
            (mapped / "store").symlink_to(place)
        self.luns[lun] = what

    def unmap_lun(self, lun: int) -> None:
        """Take a LUN away, from sessions that live as well; idempotent."""
        if self.luns.pop(lun, None) is None:
            return
        for initiator in self.allowed:
            mapped = self.place / "acls" / initiator / f"lun_{lun}"
            (mapped / "store").unlink()
            mapped.rmdir()
        place = self.place / "lun" / f"lun_{lun}"
        (place / "store").unlink()
        place.rmdir()

    def unmap_all(self) -> None:
        """Take all LUNs away."""
        for lun in tuple(self.luns):
            self.unmap_lun(lun)

    def remap_lun(self, lun: int, what: Disk) -> None:
        """Put another disk under the same LUN while sessions live."""
        self.unmap_lun(lun)
        self.map_lun(lun, what)


@contextlib.contextmanager
def shown(target: Target, inside: Callable[[Callable[[], None]], None]) -> Iterator[None]:
    """Have a target listen on its portals; ``inside`` calls something in their namespace."""
    chap, allowed = target.chap, target.allowed
    with contextlib.ExitStack() as undo:
        undo.enter_context(_folder(ISCSI, keep=True))
        undo.enter_context(_folder(ISCSI / target.iqn))
        undo.enter_context(_folder(target.place))
        _write(target.place / "attrib", {
            "authentication": "1" if chap else "0",
            "generate_node_acls": "0" if allowed else "1",
            "cache_dynamic_acls": "0" if allowed else "1",
            "demo_mode_write_protect": "0",
        })  # fmt: skip
        if chap and not allowed:
            _write(target.place / "auth", _auth(chap))
        for initiator in allowed:
            entry = undo.enter_context(_folder(target.place / "acls" / initiator))
            if chap:
                _write(entry / "auth", _auth(chap))
        undo.callback(target.unmap_all)
        for portal in target.portals:
            place = target.place / "np" / str(portal)
            inside(place.mkdir)
            undo.callback(place.rmdir)
        (target.place / "enable").write_text("1")
        undo.callback((target.place / "enable").write_text, "0")
        yield


@contextlib.contextmanager
def discovery_chap(chap: Chap) -> Iterator[None]:
    """Demand CHAP of every discovery session."""
    place = ISCSI / "discovery_auth"
    _write(place, _auth(chap) | {"enforce_discovery_auth": "1"})
    try:
        yield
    finally:
        names = ("userid", "password", "userid_mutual", "password_mutual")
        _write(place, {"enforce_discovery_auth": "0"} | dict.fromkeys(names, "NULL"))


def _auth(chap: Chap) -> dict[str, str]:
    said = {"userid": chap.initiator.username, "password": chap.initiator.password.reveal()}
    if chap.mutual is not None:
        said["userid_mutual"] = chap.mutual.username
        said["password_mutual"] = chap.mutual.password.reveal()
    return said


def _digits(wwid: str) -> str:
    match = WWID.fullmatch(wwid)
    if match is None:
        raise ValueError(f"{wwid}: LIO can show naa.6001405 and 25 hex digits only")
    return match[1]


def _write(place: Path, values: dict[str, str]) -> None:
    for name, value in values.items():
        (place / name).write_text(value)


@contextlib.contextmanager
def _folder(place: Path, *, keep: bool = False) -> Iterator[Path]:
    """Make a folder of configfs and remove it; ``keep`` one that others may use."""
    place.mkdir(exist_ok=keep)
    yield_to = contextlib.ExitStack()
    if not keep:
        yield_to.callback(place.rmdir)
    with yield_to:
        yield place


@contextlib.contextmanager
def _loop(file: Path) -> Iterator[str]:
    made = run(["losetup", "--find", "--show", str(file)], Deadline.after(_STEP_S)).stdout.strip()
    try:
        yield made
    finally:
        run(["losetup", "--detach", made], Deadline.after(_STEP_S))
