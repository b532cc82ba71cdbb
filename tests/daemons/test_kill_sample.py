"""A sample of the kills of ``make stress``, and a stop in the middle of a copy."""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path

import pytest

from tests.daemons.conftest import free_portals
from tests.stress.kill_runner import (
    POLICIES,
    Stage,
    count_steps,
    kill_crowd_at,
    kill_daemon_at,
    kill_first_start_at,
    kill_service_at,
    stop_in_a_copy,
)

pytestmark = pytest.mark.needs("tgtd")

KILLS = 16
FEWER = 4


@pytest.fixture
def stage(tmp_path: Path, request: pytest.FixtureRequest) -> Iterator[Stage]:
    """A folder and ports of the test's own, by a policy or the usual one; no daemon is left."""
    listen, *portals = free_portals("127.0.0.1", "127.0.0.1", "127.0.0.2")
    made = Stage(tmp_path, listen, tuple(portals), getattr(request, "param", POLICIES[0]))
    yield made
    made.end()


def test_service_killed(stage: Stage) -> None:
    """The service killed here and there: after a restart all is true and whole."""
    steps = count_steps(stage)
    killed = [kill_service_at(stage, step) for step in range(3, steps, steps // KILLS)]
    assert sum(killed) >= KILLS - 2


def test_crowd_killed(stage: Stage) -> None:
    """The service killed while several clients are at work: each finds what it may rely on."""
    for step in range(100, 600, 500 // KILLS):
        assert kill_crowd_at(stage, step)


def test_daemon_killed(stage: Stage) -> None:
    """The target daemon killed here and there: every export comes back, the same for its hosts."""
    steps = count_steps(stage)
    killed = [kill_daemon_at(stage, step) for step in range(5, steps, steps // KILLS)]
    assert sum(killed) >= KILLS // 2


@pytest.mark.parametrize("stage", ["target_per_host"], indirect=True)
def test_killed_with_a_target_for_each_host(stage: Stage) -> None:
    """Service or daemon killed here and there: each host's target is exactly what it shall be."""
    steps = count_steps(stage)
    killed = [kill_service_at(stage, step) for step in range(steps // 3, steps, steps // FEWER)]
    assert sum(killed) >= FEWER // 2
    for step in range(steps // 2, steps, steps // FEWER):
        kill_daemon_at(stage, step)


def test_first_start_killed(stage: Stage) -> None:
    """The very first start killed early and late: the second one succeeds."""
    for step in range(1, 20, 4):
        assert kill_first_start_at(stage, step)


def test_stopped_in_the_middle_of_a_copy(stage: Stage) -> None:
    """SIGTERM ends a copy at once and leaves nothing half-made; the next start does it wholly."""
    stop_in_a_copy(stage)
