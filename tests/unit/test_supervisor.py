"""The watch over target daemons: at once after a death, with pauses when it goes on dying."""

from __future__ import annotations

import threading
from collections.abc import Iterator
from dataclasses import replace
from pathlib import Path

import pytest

from lunport.bootstrap.supervisor import Supervisor
from lunport.core.change import Change
from lunport.host.clock import Deadline
from lunport.host.tasks import Stop
from tests.fakes.fake_helper import FakeHelper
from tests.fakes.fake_service import FakeBench, make_bench


class DyingHelper(FakeHelper):
    """A daemon that has always just died."""

    starts = 0

    def start(self) -> Change:
        """Count the starts."""
        self.starts += 1
        return super().start()

    def wait_for_exit(self, deadline: Deadline, stop: Stop | None = None) -> bool:
        """Say that it is dead already."""
        return True


@pytest.fixture
def bench(tmp_path: Path) -> Iterator[FakeBench]:
    made = make_bench(tmp_path)
    yield made
    made.service.store.close()


def test_a_daemon_that_keeps_dying_is_not_started_in_a_busy_loop(bench: FakeBench) -> None:
    """After the first death it comes back at once, after the next ones with growing pauses."""
    helper = DyingHelper(bench.helper.portals)
    backends = {name: replace(one, helper=helper) for name, one in bench.service.backends.items()}
    supervisor = Supervisor(replace(bench.service, backends=backends))
    supervisor.start()
    threading.Event().wait(0.6)
    supervisor.stop(30)
    assert 2 <= helper.starts <= 10


def test_a_missing_portal_is_bound_when_its_address_comes(bench: FakeBench) -> None:
    """While the daemon lives a portal without its address is tried again at each look."""

    class Patient(FakeHelper):
        """A daemon that lives; its address comes while it is looked at for the second time."""

        looks = 0

        def wait_for_exit(self, deadline: Deadline, stop: Stop | None = None) -> bool:
            """Look without a wait."""
            self.looks += 1
            if self.looks == 2:
                self.absent.clear()
            if self.looks > 3:
                seen.set()
                assert stop is not None
                return super().wait_for_exit(Deadline.after(0.05), stop)
            return False

    seen = threading.Event()
    helper = Patient(bench.helper.portals)
    helper.absent = {bench.helper.portals[0]}
    helper.start()
    assert helper.missing_portals == (bench.helper.portals[0],)
    backends = {name: replace(one, helper=helper) for name, one in bench.service.backends.items()}
    supervisor = Supervisor(replace(bench.service, backends=backends))
    supervisor.start()
    assert seen.wait(30)
    supervisor.stop(30)
    assert not helper.missing_portals
