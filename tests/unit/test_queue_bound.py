"""Who ends the wait of I/O for a map without a path, and what is said about it."""

from __future__ import annotations

import math

import pytest

from lunport.core.queue_bound import (
    QueuePlan,
    own_bound_s,
    plan_queueing,
    polling_interval_s,
    queueing_note,
)


@pytest.mark.parametrize(
    ("queueing", "seconds"),
    [
        ("12 chk", 60.0),
        ("35 sec", 35.0),
        ("on", math.inf),
        ("off", 0.0),
        ("-", None),
        ("fail", None),
        ("", None),
    ],
)
def test_what_multipathd_says_of_a_map(queueing: str, seconds: float | None) -> None:
    """Checks are counted in polling intervals; what is not known has no bound."""
    assert own_bound_s(queueing, 5) == seconds


def test_the_polling_interval_is_the_configurations() -> None:
    """Not the longest one, and five seconds where nothing is said."""
    text = "defaults {\n\tmax_polling_interval 20\n\tpolling_interval 3\n}"
    assert polling_interval_s(text) == 3
    assert polling_interval_s("defaults {\n\tmax_polling_interval 20\n}") == 5


@pytest.mark.parametrize("own_s", [None, 0.0, 60.0, math.inf])
def test_who_asks_for_no_wait_gets_none(own_s: float | None) -> None:
    """Whatever multipathd would do, and whoever watches."""
    for is_watched in (True, False):
        assert plan_queueing(0, own_s, is_watched=is_watched) is QueuePlan.FAIL
        assert queueing_note(0, own_s, is_watched=is_watched) is None


@pytest.mark.parametrize(
    ("queue_s", "own_s", "plan"),
    [
        (60.0, 60.0, QueuePlan.LEAVE),
        (300.0, 60.0, QueuePlan.LEAVE),
        (5.0, 60.0, QueuePlan.FAIL),
        (60.0, math.inf, QueuePlan.FAIL),
        (60.0, 0.0, QueuePlan.FAIL),
        (60.0, None, QueuePlan.FAIL),
    ],
)
def test_without_an_agent_a_map_queues_only_while_multipathd_ends_it(
    queue_s: float, own_s: float | None, plan: QueuePlan
) -> None:
    """It does not where multipathd would wait longer than is asked for; which is said."""
    assert plan_queueing(queue_s, own_s, is_watched=False) is plan
    note = queueing_note(queue_s, own_s, is_watched=False)
    assert (note is None) is (plan is QueuePlan.LEAVE)
    assert note is None or "fails at once" in note


@pytest.mark.parametrize(
    ("own_s", "is_short"), [(60.0, True), (0.0, True), (300.0, False), (math.inf, False)]
)
def test_with_an_agent_a_map_queues_and_a_shorter_wait_is_said(
    own_s: float, is_short: bool
) -> None:
    """The agent ends what would be too long; what multipathd ends too early it can't help."""
    assert plan_queueing(300, own_s, is_watched=True) is QueuePlan.QUEUE
    note = queueing_note(300, own_s, is_watched=True)
    assert (note is not None) is is_short
