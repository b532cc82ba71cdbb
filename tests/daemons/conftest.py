"""Real tgtd daemons on loopback for the tests in this folder, and what they must leave: nothing.

``tgtd`` is one running daemon with two portals and its helper; ``start_tgtd`` makes more.
Every daemon has its own folder, ports and management socket, so tests may run beside each
other and beside a tgtd of the system. ``leftovers`` looks by itself after each test for
processes that still hold a file in the test's folder, or that are still our children.
"""

from __future__ import annotations

import os
import socket
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from pathlib import Path

import pytest

from lunport.core.chap import Chap, ChapCredentials
from lunport.core.identity import derive_identity
from lunport.core.iqn import Iqn
from lunport.core.portal import Portal
from lunport.core.secret import Secret
from lunport.host.clock import Deadline
from lunport.host.tgtd import OwnTgtd
from lunport.targets.helper import Export
from lunport.targets.naming import target_name
from lunport.targets.tgt import TgtHelper
from tests.single_exports import single_export

INITIATOR = Iqn("iqn.2026-11.io.lunport.test:host-a")
OTHER_INITIATOR = Iqn("iqn.2026-11.io.lunport.test:host-b")
CHAP = Chap(ChapCredentials("userfortests", Secret("Secret4Tests1234")))
VOLUME_ID = "0f0e0d0c-0b0a-4908-8706-050403020100"
MIB = 1 << 20


@dataclass(frozen=True, slots=True)
class RunningTgtd:
    """A daemon of this test's own."""

    folder: Path
    daemon: OwnTgtd
    helper: TgtHelper

    @property
    def portals(self) -> tuple[Portal, ...]:
        """Where it listens."""
        return self.daemon.portals

    def image(self, name: str, size_bytes: int = 16 * MIB) -> Path:
        """Make a sparse file, if it is not there."""
        path = self.folder / name
        with path.open("ab") as file:
            file.truncate(size_bytes)
        return path

    def export(
        self,
        volume_id: str = VOLUME_ID,
        *,
        tid: int = 1,
        chap: Chap | None = CHAP,
        initiators: frozenset[Iqn] = frozenset({INITIATOR}),
        size_bytes: int = 16 * MIB,
    ) -> Export:
        """Describe an export of an image; it is not made."""
        return single_export(
            target_name(volume_id),
            tid,
            self.image(f"volume-{volume_id}", size_bytes),
            derive_identity(volume_id),
            chap=chap,
            initiators=initiators,
        )


StartTgtd = Callable[..., RunningTgtd]


def free_portals(*hosts: str) -> tuple[Portal, ...]:
    """Find a free port on each address."""
    found = []
    for host in hosts:
        family = socket.AF_INET6 if ":" in host else socket.AF_INET
        with socket.socket(family) as trial:
            trial.bind((host, 0))
            found.append(Portal(host, trial.getsockname()[1]))
    return tuple(found)


@pytest.fixture
def start_tgtd(tmp_path: Path) -> Iterator[StartTgtd]:
    """Start daemons, each in a folder of its own; all end with the test."""
    running: list[RunningTgtd] = []

    def start(
        name: str = "tgtd",
        portals: tuple[Portal, ...] = (),
        *,
        io_threads: int = 2,
        is_started: bool = True,
    ) -> RunningTgtd:
        folder = tmp_path / name
        folder.mkdir(exist_ok=True)
        daemon = OwnTgtd(
            folder / "state",
            portals or free_portals("127.0.0.1", "127.0.0.2"),
            io_threads=io_threads,
        )
        running.append(RunningTgtd(folder, daemon, TgtHelper(daemon)))
        if is_started:
            running[-1].helper.start()
        return running[-1]

    yield start
    for one in running:
        one.daemon.stop(Deadline.after(10))


@pytest.fixture
def tgtd(start_tgtd: StartTgtd) -> RunningTgtd:
    """One running daemon with portals on 127.0.0.1 and 127.0.0.2."""
    return start_tgtd()


@pytest.fixture(autouse=True)
def leftovers(tmp_path: Path) -> Iterator[None]:
    """Fail a test that leaves a process behind."""
    before = _children()
    yield
    left = _children() - before | _holders(tmp_path)
    assert not left, f"processes left behind: {sorted(left)}"


def _children() -> frozenset[str]:
    ours = os.getpid()
    found = []
    for entry in Path("/proc").glob("[0-9]*"):
        try:
            command, _, rest = (entry / "stat").read_text().partition("(")[2].rpartition(")")
        except OSError:
            continue
        if int(rest.split()[1]) == ours:
            found.append(f"{command} {entry.name}")
    return frozenset(found)


def _holders(folder: Path) -> frozenset[str]:
    found = []
    for entry in Path("/proc").glob("[0-9]*"):
        if int(entry.name) == os.getpid():
            continue
        try:
            held = [str(link.readlink()) for link in (entry / "fd").iterdir()]
        except OSError:
            continue
        if any(path.startswith(f"{folder}/") for path in held):
            found.append(f"{(entry / 'cmdline').read_bytes()!r} {entry.name}")
    return frozenset(found)
