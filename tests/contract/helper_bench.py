"""What the contract suite of target helpers needs of each: a helper, and initiators for it."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Protocol

from lunport.core.chap import Chap, ChapCredentials
from lunport.core.identity import derive_identity
from lunport.core.iqn import Iqn
from lunport.core.secret import Secret
from lunport.targets.helper import Export, SeenExport, SeenUnit, TargetHelper, Unit
from lunport.targets.naming import target_name
from tests.single_exports import (
    single_export,
)

A = Iqn("iqn.2026-11.io.lunport.test:host-a")
B = Iqn("iqn.2026-11.io.lunport.test:host-b")
MIB = 1 << 20


class RefusedError(Exception):
    """The initiator could not log in, or its I/O failed."""


class Session(Protocol):
    """A logged-in initiator, at one LUN."""

    def write(self, byte: int) -> None:
        """Fill the unit's first 64 KiB with a byte. Raises: RefusedError."""

    def read(self, byte: int) -> None:
        """Read them back; they must hold that byte. Raises: RefusedError."""

    def size_mib(self) -> int:
        """Say how long the unit is, after a rescan where there is such a thing."""


LogIn = Callable[[Iqn, Iqn, ChapCredentials | None, int], Session]


@dataclass(frozen=True, slots=True)
class Bench:
    """A started helper, an initiator to log in with, and a way to make the daemon die.

    ``log_in`` takes target, initiator, credentials and LUN, and raises RefusedError; its
    session stays until the bench ends. ``spoil`` makes the next verb of that name, which is
    about that image, fail half-way: a fake by order, a real one for a real cause.
    """

    helper: TargetHelper
    folder: Path
    log_in: LogIn
    crash: Callable[[], None]
    spoil: Callable[[str, Path], None]

    def export(
        self,
        number: int = 1,
        *,
        tid: int | None = None,
        lun: int = 1,
        chap: Chap | None | str = "own",
        initiators: frozenset[Iqn] = frozenset({A}),
    ) -> Export:
        """Describe one of several exports with one unit."""
        volume_id = volume_id_of(number)
        own = Chap(ChapCredentials(f"user{number}", Secret("FirstSecret12345")))
        return single_export(
            target_name(volume_id),
            tid or number,
            self.image(f"volume-{number}"),
            derive_identity(volume_id),
            chap=own if isinstance(chap, str) else chap,
            initiators=initiators,
            lun=lun,
        )

    def pair(self) -> Export:
        """Describe an export with LUNs 1 and 2."""
        export = self.export()
        return replace(export, units=(*export.units, self.unit(2)))

    def session(self, export: Export, initiator: Iqn = A, lun: int = 1) -> Session:
        """Log an initiator in with its credentials."""
        (chap,) = {one.chap for one in export.admissions if one.initiator == initiator}
        return self.log_in(export.iqn, initiator, chap.initiator if chap else None, lun)

    def unit(self, lun: int, number: int | None = None) -> Unit:
        """Describe a further unit."""
        number = 100 + lun if number is None else number
        return Unit(lun, self.image(f"volume-{number}"), derive_identity(volume_id_of(number)))

    def image(self, name: str) -> Path:
        """Make a file to offer."""
        path = self.folder / name
        with path.open("ab") as file:
            file.truncate(MIB)
        return path

    def can_log_in(self, export: Export, initiator: Iqn, chap: Chap | None, lun: int = 1) -> bool:
        """Try a login, which stays when it succeeds."""
        try:
            self.log_in(export.iqn, initiator, chap.initiator if chap else None, lun)
        except RefusedError:
            return False
        return True


def volume_id_of(number: int) -> str:
    """Make a volume id."""
    return f"0f0e0d0c-0b0a-4908-8706-05040302{number:04x}"


def seen(export: Export, sessions: int = 0) -> SeenExport:
    """Say how an export shall be shown."""
    units = tuple(SeenUnit(unit.lun, unit.path) for unit in export.units)
    return SeenExport(export.iqn, export.tid, units, export.initiators, sessions)
