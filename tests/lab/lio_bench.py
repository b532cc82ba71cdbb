"""LIO's helper on the SAN's portals: its verbs in the namespace, and initiators to log in with."""

from __future__ import annotations

import contextlib
import functools
import itertools
import threading
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import cast

from lab.san import San
from lunport.core.chap import Chap, ChapCredentials
from lunport.core.connection_info import ConnectionInfo
from lunport.core.identity import derive_identity
from lunport.core.iqn import Iqn
from lunport.core.portal import Portal
from lunport.core.secret import Secret
from lunport.core.target_path import TargetPath
from lunport.core.wwid import Wwid
from lunport.host.clock import Deadline
from lunport.host.lio import ROOT
from lunport.targets.helper import Admission, Export, TargetHelper, Unit
from lunport.targets.lio import LioHelper
from lunport.targets.naming import DEFAULT_PREFIX, target_name
from tests.daemons.qemu_io import QemuRefusedError, QemuSession

A = Iqn("iqn.2026-11.io.lunport.test:host-a")
B = Iqn("iqn.2026-11.io.lunport.test:host-b")
CHAP = Chap(ChapCredentials("user-a", Secret("FirstSecret12345")))
CHAP_B = Chap(ChapCredentials("user-b", Secret("SecondSecret1234")))
MUTUAL = Chap(CHAP.initiator, ChapCredentials("target", Secret("MutualSecret1234")))
MIB = 1 << 20
ISCSI = ROOT / "iscsi"
CORE = ROOT / "core"
_numbers = itertools.count(1)
_pause = threading.Event()


class _InNamespace:
    """Calls a helper's verbs in the SAN's namespace, where the portals are."""

    def __init__(self, helper: LioHelper, san: San) -> None:
        self._helper = helper
        self._san = san

    def __getattr__(self, name: str) -> object:
        found = self._san.network.call(lambda: getattr(self._helper, name))
        if not callable(found):
            return found
        return lambda *given, **named: self._san.network.call(
            functools.partial(found, *given, **named)
        )


@dataclass
class LioBench:
    """A started helper of LIO's, and a folder for its images."""

    san: San
    helper: TargetHelper
    folder: Path
    sessions: contextlib.ExitStack = field(default_factory=contextlib.ExitStack)

    @classmethod
    @contextlib.contextmanager
    def on(cls, san: San, folder: Path, portals: Sequence[Portal] = ()) -> Iterator[LioBench]:
        """Start one; everything of it is gone at the end."""
        helper = helper_on(san, portals)
        bench = cls(san, helper, folder)
        helper.start()
        try:
            with bench.sessions:
                yield bench
        finally:
            helper.start()
            helper.stop()

    def image(self, name: str, size_mib: int = 16) -> Path:
        """Make a sparse file to offer."""
        path = self.folder / name
        with path.open("ab") as file:
            file.truncate(size_mib * MIB)
        return path

    def unit(self, lun: int, volume: str | None = None) -> Unit:
        """Describe a unit over a file of its own."""
        volume = volume or f"volume-{next(_numbers)}"
        return Unit(lun, self.image(volume), derive_identity(volume))

    def export(
        self, *units: Unit, admissions: Sequence[Admission] = (), name: str = "", tid: int = 1
    ) -> Export:
        """Describe a target; without units and admissions it has unit 1 for A with CHAP."""
        units = units or (self.unit(1),)
        return Export(
            iqn=target_name(name or f"t{next(_numbers)}"),
            tid=tid,
            units=units,
            admissions=tuple(admissions) or (Admission(A, CHAP),),
        )

    def log_in(
        self,
        export: Export,
        initiator: Iqn = A,
        chap: Chap | None = CHAP,
        *,
        lun: int = 1,
        portal: Portal | None = None,
    ) -> QemuSession:
        """Have QEMU log in, for the rest of the test. Raises: QemuRefusedError."""
        session = QemuSession(
            self.folder,
            portal or self.helper.portals[0],
            export.iqn,
            initiator,
            chap.initiator if chap else None,
            lun=lun,
        )
        return self.sessions.enter_context(session)

    def is_refused(self, export: Export, initiator: Iqn = A, chap: Chap | None = CHAP) -> bool:
        """Tell whether a login fails."""
        try:
            self.log_in(export, initiator, chap)
        except QemuRefusedError:
            return True
        return False

    def info(self, export: Export, lun: int = 1, chap: Chap | None = CHAP) -> ConnectionInfo:
        """Say how a kernel's initiator reaches a unit."""
        unit = next(unit for unit in export.units if unit.lun == lun)
        return ConnectionInfo(
            paths=tuple(TargetPath(portal, export.iqn, lun) for portal in self.helper.portals),
            wwid=Wwid(unit.identity.wwid),
            chap=chap,
        )


def helper_on(san: San, portals: Sequence[Portal] = (), **options: object) -> TargetHelper:
    """Make a helper whose verbs are called in the namespace; nothing is started."""
    made = LioHelper(
        portals or san.portals,
        **{"backend": "lab", "target_prefix": DEFAULT_PREFIX, **options},  # type: ignore[arg-type]
    )
    return cast("TargetHelper", _InNamespace(made, san))


def group_of(export: Export) -> Path:
    """Return the folder of a target's group."""
    return ISCSI / export.iqn / "tpgt_1"


def device_of(export: Export, lun: int = 1) -> Path:
    """Return the folder of the device behind a LUN."""
    return next(
        path.resolve()
        for path in (group_of(export) / f"lun/lun_{lun}").iterdir()
        if path.is_symlink()
    )


def wait_for(condition: Callable[[], object], what: str) -> None:
    """Look until something is so."""
    deadline = Deadline.after(30)
    while not condition():
        assert not deadline.has_passed(), what
        _pause.wait(0.05)
