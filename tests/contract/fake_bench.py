"""The fake helper on the contract suite's bench."""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path

from lunport.core.chap import ChapCredentials
from lunport.core.errors import ExportFailed, LunportError
from lunport.core.iqn import Iqn
from tests.contract.helper_bench import Bench, RefusedError, Session
from tests.fakes.fake_helper import LIKE_LIO, LIKE_TGT, FakeHelper


@dataclass(frozen=True, slots=True)
class FakeInitiator:
    """A session with the fake, at one LUN; it writes into the image."""

    fake: FakeHelper
    target: Iqn
    initiator: Iqn
    lun: int

    def write(self, byte: int) -> None:
        """Fill the first 64 KiB."""
        with self._image().open("r+b") as file:
            file.write(bytes([byte]) * 65536)

    def read(self, byte: int) -> None:
        """Read them back."""
        with self._image().open("rb") as file:
            if file.read(65536) != bytes([byte]) * 65536:
                raise RefusedError("other bytes")

    def size_mib(self) -> int:
        """Say how long the unit is."""
        return self.fake.size_seen(self.target, self.lun) >> 20

    def _image(self) -> Path:
        try:
            return self.fake.do_io(self.target, self.initiator, self.lun)
        except LunportError as error:
            raise RefusedError from error


def fake_bench(folder: Path, *, like_lio: bool = False) -> Bench:
    """Make a fake that is started and empty, and an initiator for it."""
    fake = FakeHelper(limits=LIKE_LIO if like_lio else LIKE_TGT)
    fake.start()

    def log_in(target: Iqn, initiator: Iqn, given: ChapCredentials | None, lun: int) -> Session:
        try:
            fake.log_in(target, initiator, given)
        except LunportError as error:
            raise RefusedError from error
        return FakeInitiator(fake, target, initiator, lun)

    def spoil(verb: str, path: Path) -> None:
        fake.fail_next[verb] = ExportFailed(path.name, verb, "as ordered")

    return Bench(fake, folder, log_in, fake.crash, spoil)
