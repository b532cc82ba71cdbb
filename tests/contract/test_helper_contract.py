"""What every target helper keeps, proved on the fake and on a real tgtd with QEMU logging in."""

from __future__ import annotations

import contextlib
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path

import pytest

from lunport.core.chap import ChapCredentials
from lunport.core.iqn import Iqn
from lunport.host.clock import Deadline
from lunport.host.process import open_process
from lunport.host.tgtd import OwnTgtd
from lunport.targets.tgt import TgtHelper
from tests.contract.fake_bench import fake_bench
from tests.contract.helper_bench import Bench, RefusedError, Session
from tests.contract.helper_suite import HelperContract, MaskedUnits, NumberedTargets
from tests.daemons.conftest import free_portals
from tests.daemons.qemu_io import QemuRefusedError, QemuSession

TGT = pytest.param("tgt", marks=pytest.mark.needs("tgtd", "qemu-io"))


class TestHelperContract(HelperContract):
    """The fake playing tgt, the fake playing LIO, and tgt itself."""


@pytest.mark.parametrize("bench", ["fake", TGT], indirect=True)
class TestNumberedTargets(NumberedTargets):
    """The fake playing tgt, and tgt itself."""


@pytest.mark.parametrize("bench", ["fake-lio"], indirect=True)
class TestMaskedUnits(MaskedUnits):
    """The fake playing LIO."""


@pytest.fixture(params=["fake", "fake-lio", TGT])
def bench(request: pytest.FixtureRequest, tmp_path: Path) -> Iterator[Bench]:
    """One helper after the other, started and empty."""
    if request.param != "tgt":
        yield fake_bench(tmp_path, like_lio=request.param == "fake-lio")
        return
    daemon = OwnTgtd(tmp_path / "state", free_portals("127.0.0.1", "127.0.0.2"))
    helper = TgtHelper(daemon)
    with contextlib.ExitStack() as sessions:

        def log_in(target: Iqn, initiator: Iqn, given: ChapCredentials | None, lun: int) -> Session:
            try:
                session = QemuSession(tmp_path, daemon.portals[1], target, initiator, given, lun)
            except QemuRefusedError as error:
                raise RefusedError from error
            sessions.enter_context(session)
            return QemuInitiator(session)

        def crash() -> None:
            process = open_process(daemon.pid() or 0, "tgtd")
            assert process is not None
            with process:
                process.kill()
                assert process.wait(Deadline.after(10))

        sessions.callback(lambda: daemon.stop(Deadline.after(10)))
        helper.start()

        def spoil(verb: str, path: Path) -> None:
            del verb
            path.unlink()

        yield Bench(helper, tmp_path, log_in, crash, spoil)


@dataclass(frozen=True, slots=True)
class QemuInitiator:
    """QEMU's initiator at one LUN."""

    session: QemuSession

    def write(self, byte: int) -> None:
        """Fill the first 64 KiB."""
        self._run(f"write -P {byte} 0 64k")

    def read(self, byte: int) -> None:
        """Read them back."""
        self._run(f"read -P {byte} 0 64k")

    def size_mib(self) -> int:
        """Ask how long the unit is; QEMU asked when it logged in."""
        number, unit = self.session.run("length").split()[:2]
        assert unit == "MiB"
        return int(number)

    def _run(self, command: str) -> None:
        said = self.session.run(command)
        if "65536/65536" not in said or "failed" in said:
            raise RefusedError(said)
