"""The fake hypervisor, held to what libvirt does."""

from __future__ import annotations

from dataclasses import dataclass, field

import pytest

from tests.contract.hypervisor_suite import HypervisorBench, HypervisorContract
from tests.fakes.fake_hypervisor import FakeHypervisor

RUNNING = ("d0000000-0000-4000-8000-000000000001", "runs")
OFF = ("d0000000-0000-4000-8000-000000000002", "is-off")


@dataclass(slots=True)
class FakeBench:
    """The fake with two guests."""

    hypervisor: FakeHypervisor = field(default_factory=FakeHypervisor)
    running: tuple[str, str] = RUNNING
    off: tuple[str, str] = OFF

    def device(self) -> str:
        """Return a device that nobody opens."""
        return "/dev/loop0"

    def stop(self, guest_id: str) -> None:
        """Stop it."""
        self.hypervisor.stop(guest_id)

    def seen_size(self, serial: str) -> int:
        """Return what the guest was told."""
        return self.hypervisor.known[RUNNING[0]].sizes[serial]


class TestFakeHypervisor(HypervisorContract):
    """The fake does as libvirt does."""

    @pytest.fixture
    def bench(self) -> HypervisorBench:
        """The fake with two guests."""
        bench = FakeBench()
        bench.hypervisor.define(*RUNNING)
        bench.hypervisor.define(*OFF, runs=False)
        return bench
