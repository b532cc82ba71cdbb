"""A kill at every step of everything that changes something, and what a restart makes of it."""

from __future__ import annotations

import itertools
from collections.abc import Callable, Iterator
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
)

pytestmark = pytest.mark.needs("tgtd")

FEWEST_STEPS = 200
by_policy = pytest.mark.parametrize("stage", POLICIES, indirect=True)


@pytest.fixture
def stage(tmp_path: Path, request: pytest.FixtureRequest) -> Iterator[Stage]:
    """A folder and ports of the test's own, by a policy or the usual one; no daemon is left."""
    listen, *portals = free_portals("127.0.0.1", "127.0.0.1", "127.0.0.2")
    made = Stage(tmp_path, listen, tuple(portals), getattr(request, "param", POLICIES[0]))
    yield made
    made.end()


def everywhere(kill_at: Callable[[Stage, int], bool], stage: Stage) -> int:
    """Kill at each step until the story ends before it; return how many steps there were."""
    return next(step for step in itertools.count() if not kill_at(stage, step))


@by_policy
def test_service_killed_at_every_step(stage: Stage) -> None:
    """The service killed at any step: after a restart all is true and whole, nothing is left."""
    assert everywhere(kill_service_at, stage) > FEWEST_STEPS


@by_policy
def test_crowd_killed_at_many_steps(stage: Stage) -> None:
    """The service killed while several clients are at work: each finds what it may rely on."""
    killed = [kill_crowd_at(stage, step) for step in range(0, 3 * FEWEST_STEPS, 3)]
    assert all(killed)


@by_policy
def test_daemon_killed_at_every_step(stage: Stage) -> None:
    """The target daemon killed at any step: every export comes back, the same for its hosts."""
    killed = [kill_daemon_at(stage, step) for step in range(count_steps(stage))]
    assert sum(killed) > FEWEST_STEPS


def test_first_start_killed_at_every_step(stage: Stage) -> None:
    """The very first start killed at any step: the second one succeeds."""
    assert everywhere(kill_first_start_at, stage) > 10
