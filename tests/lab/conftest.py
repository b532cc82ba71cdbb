"""A SAN on a real kernel for the tests in this folder, and what they must leave: nothing.

These tests run in the lab (``make lab``), or on a machine that was said to be fit for it.
``san`` is made anew for each test; the namespace, udevd and iscsid are made once.
"""

from __future__ import annotations

import contextlib
import os
import sys
from collections.abc import Iterator
from dataclasses import dataclass

import pytest

from lab import services
from lab.lio import Target
from lab.network import SanNetwork, san_network
from lab.san import KEEPER, San
from lunport.core.iqn import Iqn
from tests.lab.leftovers import sweep, take_snapshot, wait_until_equal

PORTALS = 4


def pytest_runtest_logreport(report: pytest.TestReport) -> None:
    """Say a failure as it happens: what comes later may be the end of the whole machine."""
    if report.failed:
        print(f"\n{report.nodeid} ({report.when})\n{report.longreprtext}", file=sys.__stdout__)


@dataclass(frozen=True, slots=True)
class LabHost:
    """The machine that the tests use as an initiator, and the network of its SAN."""

    initiator: Iqn
    network: SanNetwork
    keeper: San
    kept: Target

    @contextlib.contextmanager
    def without_keeper(self) -> Iterator[None]:
        """Have no target at all for a while, so that LIO itself can be taken away."""
        self.keeper.remove_target(self.kept)
        try:
            yield
        finally:
            self.keeper.bring_back(self.kept)


@pytest.fixture(scope="session")
def lab_host() -> Iterator[LabHost]:
    """Modules, udevd, iscsid, and portals in a namespace, on all of which something listens."""
    assert os.environ.get("LAB_HERE"), (
        "these tests load modules and log in to targets: run them by `make lab`"
    )
    services.load_modules()
    with contextlib.ExitStack() as stack:
        stack.enter_context(services.udevd())
        initiator = stack.enter_context(services.iscsid())
        network = stack.enter_context(san_network(PORTALS))
        keeper = stack.enter_context(San.on(network))
        kept = keeper.target(KEEPER.rpartition(":")[2], portals=network.portals + network.portals6)
        yield LabHost(Iqn(initiator), network, keeper, kept)


@pytest.fixture
def san(lab_host: LabHost) -> Iterator[San]:
    """Portals without a target; what a test makes on them is unmade."""
    with San.on(lab_host.network) as made:
        yield made


@pytest.fixture(autouse=True)
def leftovers(lab_host: LabHost) -> Iterator[None]:
    """Fail a test after which anything is there that was not there before, or is not there."""
    before = take_snapshot()
    yield
    different = wait_until_equal(before)
    sweep(before)
    assert not different, "not as before the test: " + "; ".join(different)
