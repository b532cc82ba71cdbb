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
