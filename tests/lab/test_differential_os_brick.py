"""os-brick and Lunport behind its names do the same, but for what the documentation says.

Both play each scenario on targets of their own; every answer, and the sessions, node records and
disks of the host after every step, are compared.
"""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from contextlib import ExitStack
from typing import Any

import pytest

from lab.san import San
from tests.lab.os_brick_play import IMPLEMENTATIONS, Driver, Play, Seen
from tests.lab.os_brick_scenarios import DIFFERENCES, SCENARIOS


@pytest.fixture(scope="module")
def drivers(lab_host: object) -> Iterator[Mapping[str, Driver]]:
    """One process for each implementation."""
    with ExitStack() as stack:
        yield {name: stack.enter_context(Driver.started(name)) for name in IMPLEMENTATIONS}


def differences(one: Mapping[str, Seen], other: Mapping[str, Seen]) -> dict[tuple[str, str], Any]:
    """List what differs, by step and aspect."""
    assert list(one) == list(other), "the steps themselves"
    return {
        (step, aspect): (one[step][aspect], other[step][aspect])
        for step in one
        for aspect in one[step]
        if one[step][aspect] != other[step][aspect]
    }


@pytest.mark.parametrize("scenario", SCENARIOS)
def test_both_do_the_same(scenario: str, san: San, drivers: Mapping[str, Driver]) -> None:
    """Answers and leftovers are equal at each step, except where a difference is listed."""
    seen = {}
    for name in IMPLEMENTATIONS:
        play = Play(san, drivers[name])
        try:
            SCENARIOS[scenario](play)
        finally:
            play.leave()
        seen[name] = play.seen
    expected = {
        (one.step, one.aspect): (one.os_brick, one.lunport)
        for one in DIFFERENCES
        if one.scenario is SCENARIOS[scenario]
    }
    assert differences(seen["os_brick"], seen["lunport"]) == expected
