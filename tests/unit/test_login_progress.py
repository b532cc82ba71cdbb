"""Tests of the failover fold: no threads, no sockets, no clock but a number."""

from __future__ import annotations

import itertools
from dataclasses import dataclass

import pytest
from hypothesis import given
from hypothesis import strategies as st

from lunport.core.errors import (
    AuthenticationFailed,
    InvalidInput,
    LunMissing,
    PortalUnreachable,
    WrongDevice,
)
from lunport.core.login_progress import (
    ChoicePolicy,
    Done,
    GiveUp,
    GiveUpReason,
    Kind,
    Progress,
    Start,
    Step,
    Wait,
    begin,
    classify,
    next_step,
)

POLICY = ChoicePolicy(grace_s=0.25, budget_s=15.0)
SILENT = None


@dataclass(frozen=True)
class Answer:
    """What a path will answer, and how long after its attempt began."""

    after_s: float
    kind: Kind


@dataclass
class Result:
    """What a simulated choice came to."""

    step: Step
    at: float
    starts: list[float]
    ends: dict[int, float]


def simulate(script: list[Answer | None], policy: ChoicePolicy = POLICY) -> Result:
    """Do what the fold says on a simulated clock, until it ends."""
    now, ends = 0.0, dict[int, float]()
    progress = begin(len(script), now)
    for _ in range(1000):
        step = next_step(progress, now, policy)
        if isinstance(step, Start):
            assert step.index == len(progress.started)
            progress = progress.with_started(now)
            answer = script[step.index]
            if answer is not None:
                ends[step.index] = now + answer.after_s
        elif isinstance(step, Wait):
            assert step.until > now, "a wait that does not wait would spin"
            due = min([step.until, *(at for i, at in ends.items() if i not in progress.ended)])
            now = max(now, due)
            for index, at in ends.items():
                planned = script[index]
                if at <= now and index not in progress.ended and planned is not None:
                    progress = progress.with_ended(index, at, planned.kind)
        else:
            return Result(step, now, list(progress.started), ends)
    raise AssertionError("the fold does not end")


def ok(after_s: float) -> Answer:
    """Answer healthy."""
    return Answer(after_s, Kind.HEALTHY)


def bad(after_s: float) -> Answer:
    """Fail in a way that another path may not share."""
    return Answer(after_s, Kind.FAILED)


def final(after_s: float) -> Answer:
    """Fail in a way that every path shares."""
    return Answer(after_s, Kind.FINAL)


def test_a_healthy_main_path_is_taken_and_nothing_else_is_tried() -> None:
    """A main path that answers within the grace is used, and no other is asked."""
    result = simulate([ok(0.1), ok(0.0)])
    assert result.step == Done(0)
    assert result.starts == [0.0]


def test_an_alternative_begins_when_the_main_path_fails() -> None:
    """A failed attempt starts the next one at once."""
    result = simulate([bad(0.05), ok(0.1)])
    assert result.step == Done(1)
    assert result.starts == [0.0, pytest.approx(0.05)]
    assert result.at == pytest.approx(0.15)


def test_an_alternative_begins_when_the_main_path_is_slow() -> None:
    """An attempt without an answer starts the next one after the grace."""
    result = simulate([SILENT, ok(0.01), ok(0.0)])
    assert result.step == Done(1)
    assert result.starts == [0.0, pytest.approx(0.25)]


def test_a_slow_main_path_has_one_more_grace() -> None:
    """The main path still wins when it answers within a grace of the alternative's answer."""
    assert simulate([ok(0.5), ok(0.01)]).step == Done(0)
    assert simulate([ok(0.52), ok(0.01)]).step == Done(1)


def test_the_earliest_healthy_path_wins_without_waiting_for_later_ones() -> None:
    """Only paths earlier in the list are waited for."""
    result = simulate([bad(0.0), ok(0.3), SILENT, SILENT])
    assert result.step == Done(1)
    assert result.at == pytest.approx(0.3)


def test_a_wrong_secret_ends_it() -> None:
    """An error that no other path would cure ends it at once; no further path is tried."""
    result = simulate([final(0.1), ok(0.0)])
    assert result.step == GiveUp(GiveUpReason.FINAL, 0)
    assert result.starts == [0.0]


def test_a_wrong_secret_does_not_spoil_a_healthy_path() -> None:
    """A path that was healthy before the wrong secret showed is used."""
    assert simulate([final(0.4), ok(0.05)]).step == Done(1)


def test_a_wrong_secret_behind_a_silent_main_path_is_final() -> None:
    """With the main path silent, the alternative's refusal is final; the third is not tried."""
    result = simulate([SILENT, final(0.05), ok(0.0)])
    assert result.step == GiveUp(GiveUpReason.FINAL, 1)
    assert len(result.starts) == 2


def test_all_paths_failing_ends_it() -> None:
    """When the last path failed there is no waiting for the budget."""
    result = simulate([bad(0.1), bad(0.1)])
    assert result.step == GiveUp(GiveUpReason.ALL_FAILED)
    assert result.at == pytest.approx(0.2)


def test_the_budget_ends_it() -> None:
    """Silent paths are given up when the budget is over."""
    result = simulate([SILENT, SILENT])
    assert result.step == GiveUp(GiveUpReason.BUDGET)
    assert result.at == pytest.approx(15.0)


def test_a_grace_does_not_outlast_the_budget() -> None:
    """A healthy path found at the very end is used when the budget is over."""
    result = simulate([SILENT, ok(14.7)], ChoicePolicy(grace_s=0.25, budget_s=15.0))
    assert result.step == Done(1)
    assert result.at == pytest.approx(15.0)


def test_attempts_at_once_are_bounded() -> None:
    """With the bound reached the next attempt begins only when one has ended."""
    policy = ChoicePolicy(grace_s=0.25, budget_s=15.0, max_running=2)
    result = simulate([SILENT, bad(3.0), ok(0.0)], policy)
    assert result.starts == [0.0, pytest.approx(0.25), pytest.approx(3.25)]
    assert result.step == Done(2)


@pytest.mark.parametrize(
    "values",
    [
        {"grace_s": -0.1},
        {"grace_s": 61},
        {"budget_s": 0},
        {"budget_s": 601},
        {"max_running": 0},
        {"grace_s": float("nan")},
        {"budget_s": float("inf")},
    ],
)
def test_policies_that_make_no_sense_are_refused(values: dict[str, float]) -> None:
    """A grace, a budget or a bound out of its range is refused."""
    with pytest.raises(InvalidInput):
        ChoicePolicy(**values)  # type: ignore[arg-type]  # keywords by name, checked by the class


def test_the_fold_reads_the_remedy_and_nothing_else() -> None:
    """An error whose remedy is NEVER is final, every other one leads to the next path."""
    assert classify(None) is Kind.HEALTHY
    assert classify(AuthenticationFailed("p", "d")) is Kind.FINAL
    for error in (PortalUnreachable("p", "d"), LunMissing("p", "d"), WrongDevice("p", "a", "b")):
        assert classify(error) is Kind.FAILED


# -- properties ------------------------------------------------------------------------------

_ANSWERS = st.builds(
    Answer, st.floats(0, 20), st.sampled_from([Kind.HEALTHY, Kind.FAILED, Kind.FINAL])
)
_SCRIPTS = st.lists(_ANSWERS | st.none(), min_size=1, max_size=6)
_POLICIES = st.builds(
    ChoicePolicy,
    grace_s=st.sampled_from([0.0, 0.05, 0.25, 2.0]),
    budget_s=st.sampled_from([0.1, 5.0, 15.0]),
    max_running=st.sampled_from([1, 2, 16]),
)


@given(_SCRIPTS, _POLICIES)
def test_a_choice_ends_within_its_budget(script: list[Answer | None], policy: ChoicePolicy) -> None:
    """Whatever the paths answer, the choice ends, and within the budget."""
    assert simulate(script, policy).at <= policy.budget_s + 1e-9


@given(_SCRIPTS, _POLICIES)
def test_the_chosen_path_is_healthy_and_no_earlier_one_was_known_to_be(
    script: list[Answer | None], policy: ChoicePolicy
) -> None:
    """The path chosen answered healthy, and no earlier path had done so by then."""
    result = simulate(script, policy)
    if not isinstance(result.step, Done):
        return
    healthy = [
        index
        for index, at in result.ends.items()
        if at <= result.at and (answer := script[index]) and answer.kind is Kind.HEALTHY
    ]
    assert result.step.index == min(healthy)


@given(_SCRIPTS, _POLICIES)
def test_nothing_is_given_up_while_a_path_is_healthy(
    script: list[Answer | None], policy: ChoicePolicy
) -> None:
    """Giving up means that no path had answered healthy by then."""
    result = simulate(script, policy)
    if not isinstance(result.step, GiveUp):
        return
    by_then = [script[index] for index, at in result.ends.items() if at <= result.at]
    assert not any(answer is not None and answer.kind is Kind.HEALTHY for answer in by_then)
    if result.step.reason is GiveUpReason.ALL_FAILED:
        assert len(by_then) == len(script)
    if result.step.reason is GiveUpReason.BUDGET:
        assert result.at == pytest.approx(policy.budget_s)


@given(_SCRIPTS, _POLICIES)
def test_attempts_begin_after_a_failure_or_a_grace(
    script: list[Answer | None], policy: ChoicePolicy
) -> None:
    """An attempt waits for the failure or grace of the last one, and for no more than that."""
    result = simulate(script, policy)
    for index, (earlier, later) in enumerate(itertools.pairwise(result.starts)):
        ended = result.ends.get(index, float("inf"))
        assert later >= min(ended, earlier + policy.grace_s) - 1e-9
    for index, at in result.ends.items():
        answer = script[index]
        if answer is not None and answer.kind is not Kind.FAILED:
            assert all(start <= at + 1e-9 for start in result.starts)


@given(st.permutations(range(4)), st.lists(st.sampled_from(Kind), min_size=4, max_size=4))
def test_the_order_in_which_reports_arrive_does_not_matter(
    order: list[int], kinds: list[Kind]
) -> None:
    """Reports of one moment give the same step in whatever order they are told."""

    def tell(indexes: list[int]) -> Progress:
        progress = begin(4, 0.0)
        for _ in range(4):
            progress = progress.with_started(0.0)
        for index in indexes:
            progress = progress.with_ended(index, 1.0, kinds[index])
        return progress

    told = next_step(tell(order), 1.0, POLICY)
    assert told == next_step(tell([0, 1, 2, 3]), 1.0, POLICY)
    if Kind.HEALTHY in kinds:
        assert told == Done(kinds.index(Kind.HEALTHY))
