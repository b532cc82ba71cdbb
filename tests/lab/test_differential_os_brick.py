"""os-brick and Lunport behind its names do the same, but for what the documentation says.

Both play each scenario on targets of their own; every answer, and the sessions, node records,
disks and maps of the host after every step, are compared.
"""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from pprint import pformat

import pytest

from lab.san import San
from tests.lab.os_brick_play import Driver, both_started, differences, expected
from tests.lab.os_brick_scenarios import DIFFERENCES, SCENARIOS

# What the others show as well, each by its own means.
AGAIN = frozenset(
    {
        "two_luns", "ipv6_and_a_large_lun", "multipath_wished", "others_session", "all_refused",
        "chap_behind_a_dead_portal", "lun_absent", "busy_disk", "multipath_enforced", "encrypted",
    }
)  # fmt: skip


@pytest.fixture(scope="module")
def drivers(lab_host: object) -> Iterator[Mapping[str, Driver]]:
    """One process for each implementation."""
    with both_started() as started:
        yield started


@pytest.mark.parametrize(
    "scenario",
    [pytest.param(name, marks=pytest.mark.again) if name in AGAIN else name for name in SCENARIOS],
)
def test_both_do_the_same(scenario: str, san: San, drivers: Mapping[str, Driver]) -> None:
    """Answers and leftovers are equal at each step, except where a difference is listed."""
    play = SCENARIOS[scenario]
    found, listed = differences(play, san, drivers), expected(play, DIFFERENCES)
    assert found == listed, pformat([found, listed])
