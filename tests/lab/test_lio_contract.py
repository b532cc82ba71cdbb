"""What every target helper keeps, proved on the kernel's own target with QEMU logging in."""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass, field
from pathlib import Path

import pytest

from lab.san import San
from lunport.core.chap import Chap, ChapCredentials
from lunport.core.iqn import Iqn
from lunport.host.lio import DEVICE_PREFIX, LioTree
from lunport.targets.helper import Export
from lunport.targets.naming import DEFAULT_PREFIX
from tests.contract.helper_bench import Bench, RefusedError, Session
from tests.contract.helper_suite import HelperContract, MaskedUnits
from tests.daemons.qemu_io import QemuRefusedError, QemuSession
from tests.lab.conftest import LabHost
from tests.lab.lio_bench import CORE, LioBench


class TestLioContract(HelperContract):
    """LIO on two portals of the SAN."""


class TestLioMasks(MaskedUnits):
    """LIO on two portals of the SAN."""


@dataclass
class QemuInitiator:
    """QEMU's initiator at one LUN; it learns of a new size by logging in anew."""

    lio: LioBench
    target: Iqn
    initiator: Iqn
    given: ChapCredentials | None
    lun: int
    session: QemuSession = field(init=False)

    def __post_init__(self) -> None:
        self.session = self._log_in()

    def write(self, byte: int) -> None:
        """Fill the first 64 KiB."""
        self._run(f"write -P {byte} 0 64k")

    def read(self, byte: int) -> None:
        """Read them back."""
        self._run(f"read -P {byte} 0 64k")

    def size_mib(self) -> int:
        """Ask how long the unit is now, by another session."""
        session = self._log_in()
        number, unit = session.run("length").split()[:2]
        session.log_out()
        assert unit == "MiB"
        return int(number)

    def _log_in(self) -> QemuSession:
        export = Export(self.target, 1, (), ())
        chap = None if self.given is None else Chap(self.given)
        try:
            return self.lio.log_in(export, self.initiator, chap, lun=self.lun)
        except QemuRefusedError as error:
            raise RefusedError from error

    def _run(self, command: str) -> None:
        said = self.session.run(command)
        if "65536/65536" not in said or "failed" in said:
            raise RefusedError(said)


@pytest.fixture
def bench(san: San, lab_host: LabHost, tmp_path: Path) -> Iterator[Bench]:
    """LIO's helper, alone with the kernel's target."""
    with lab_host.without_keeper(), LioBench.on(san, tmp_path, san.portals[:2]) as lio:

        def log_in(target: Iqn, initiator: Iqn, given: ChapCredentials | None, lun: int) -> Session:
            return QemuInitiator(lio, target, initiator, given, lun)

        def spoil(verb: str, path: Path) -> None:
            del verb
            path.unlink()

        yield Bench(lio.helper, tmp_path, log_in, _clear, spoil)


def _clear() -> None:
    """Take all of LIO's configuration away, as an administrator or a reboot does."""
    tree = LioTree()
    for iqn in tree.target_names(DEFAULT_PREFIX):
        tree.remove_target(iqn)
    for device in CORE.glob(f"iblock_*/{DEVICE_PREFIX}*"):
        tree.remove_device(device)
    assert tree.remove_fabric()
    assert not tree.is_there()
