"""os-brick and Lunport behind its names do the same with several paths, but for what is documented.

As in ``test_differential_os_brick.py``, on a host where multipathd runs as Debian configures it.
"""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from pprint import pformat

import pytest

from lab import services
from lab.san import San
from tests.lab.os_brick_multipath_scenarios import DIFFERENCES, SCENARIOS, several
from tests.lab.os_brick_play import Driver, Play, both_started, differences, expected
from tests.lab.os_brick_scenarios import MULTIPATH

pytestmark = pytest.mark.again  # with one path os-brick is met in make test


@pytest.fixture(scope="module")
def drivers(lab_host: object) -> Iterator[Mapping[str, Driver]]:
    """One process for each implementation, and multipathd."""
    with services.multipathd(find_multipaths="strict"), both_started() as started:
        yield started


@pytest.mark.parametrize("scenario", SCENARIOS)
def test_both_do_the_same(scenario: str, san: San, drivers: Mapping[str, Driver]) -> None:
    """Answers and leftovers are equal at each step, except where a difference is listed."""
    play = SCENARIOS[scenario]
    found, listed = differences(play, san, drivers), expected(play, DIFFERENCES)
    assert found == listed, pformat([found, listed])


def test_what_os_brick_connected_can_be_taken_away(san: San, drivers: Mapping[str, Driver]) -> None:
    """A host that moves: map and disks go; sessions and the identity are os-brick's, and stay."""
    play = Play(san, drivers["os_brick"])
    try:
        target = play.target(portals=san.portals[:2])
        play.disk(target, 1)
        volume = several(play, target)
        both = play.uses(target.portals)
        info = play.call("connect", "connect_volume", volume, make=MULTIPATH, until=both)
        play.hand_to(drivers["lunport"])
        play.call("disconnect", "disconnect_volume", volume, info, make=MULTIPATH)
    finally:
        play.leave()
    before, after = play.seen["connect"], play.seen["disconnect"]
    assert after["answer"] is None
    assert (after["maps"], after["disks"]) == ([], [])
    for aspect in ("sessions", "records", "registered"):
        assert after[aspect] == before[aspect] != []
