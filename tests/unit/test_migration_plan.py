"""A guest's move as states: who may write, who is believed, and what an undo leaves."""

from __future__ import annotations

import itertools

import pytest
from hypothesis import given
from hypothesis import strategies as st

from lunport.core.errors import Conflict, InvalidInput, InvalidState, MigrationUndecided
from lunport.core.migration_plan import (
    NEXT,
    MigrationPlan,
    MovedVolume,
    Side,
    State,
    Told,
    Verdict,
    Word,
    decide,
)

VOLUMES = (MovedVolume("v1", "s1"), MovedVolume("v2", "s2"))
START = MigrationPlan("m", "node-a", "node-b", VOLUMES)
MADE = START.prepared("v1", "d1").prepared("v2", "d2")
WORDS = st.builds(Told, st.sampled_from(Word), st.booleans())


def settle(source: Told, destination: Told) -> MigrationPlan:
    """Settle a move after these words."""
    plan = MADE.advanced()
    for side, told in zip(Side, (source, destination), strict=True):
        plan = plan.hearing(side, told.word, is_first_hand=told.is_first_hand)
    return plan.settled()


def left_by(plan: MigrationPlan) -> set[str]:
    """Return the attachments that are there when a plan is carried out to its end."""
    made = {one.source_attachment for one in plan.volumes}
    made |= {one.destination_attachment for one in plan.volumes if one.destination_attachment}
    return made - {attachment for _, attachment in plan.to_release()}


@given(st.lists(st.sampled_from([("v1", "d1"), ("v2", "d2"), ("v2", "d3")]), max_size=6))
def test_giving_up_any_beginning_leaves_the_start(steps: list[tuple[str, str]]) -> None:
    """However far the preparing came: the source's attachments and no others, at the source."""
    plan = START
    for volume, attachment in steps:
        plan = plan.prepared(volume, attachment)
    back = plan.given_up()
    assert left_by(back) == {"s1", "s2"}
    assert (back.winner, back.must_fence) == (Side.SOURCE, False)
    assert back.may_write() == {Side.SOURCE}
    assert back.given_up() is back
    assert not back.released().is_open


@given(WORDS, WORDS)
def test_exactly_one_side_may_write_once_it_is_settled(source: Told, destination: Told) -> None:
    """And the other one is fenced, or has said itself that it has no guest."""
    plan = settle(source, destination)
    if plan.winner is None:
        assert plan.state is State.SETTLING
        assert plan.may_write() == set(Side)
        assert plan.reason
        return
    lost = source if plan.winner is Side.DESTINATION else destination
    if plan.must_fence:
        assert plan.state is State.FENCING
        assert plan.may_write() == set(Side)
        plan = plan.fenced()
    else:
        assert lost == Told(Word.ABSENT, is_first_hand=True)
    assert plan.may_write() == {plan.winner}
    assert left_by(plan) == ({"s1", "s2"} if plan.winner is Side.SOURCE else {"d1", "d2"})
    assert plan.released().may_write() == {plan.winner}


@given(st.sampled_from(Side), st.sampled_from([MADE.advanced(), settle(Told(), Told())]))
def test_an_administrator_s_word_is_a_fence(side: Side, plan: MigrationPlan) -> None:
    """Whatever was said, the other side is fenced before this one is trusted."""
    kept = plan.kept(side, "as told")
    assert (kept.state, kept.winner, kept.reason) == (State.FENCING, side, "as told")
    assert kept.fenced().may_write() == {side}


R, P, A, U = Word.RUNS, Word.PAUSED, Word.ABSENT, Word.UNKNOWN


@pytest.mark.parametrize(
    ("source", "destination", "expected"),
    [
        (R, R, (Side.SOURCE, True)),
        (R, A, (Side.SOURCE, False)),
        (R, U, (Side.SOURCE, True)),
        (A, R, (Side.DESTINATION, False)),
        (U, R, (Side.DESTINATION, True)),
        (A, A, (Side.SOURCE, False)),
        (A, U, (Side.DESTINATION, False)),
        (U, A, (Side.SOURCE, False)),
        (U, U, None),
        *((P, one, None) for one in Word),
        *((one, P, None) for one in Word),
    ],
)
def test_the_table(source: Word, destination: Word, expected: tuple[Side, bool] | None) -> None:
    """Each pair of words that both sides say themselves, and what follows."""
    found = decide(Told(source, is_first_hand=True), Told(destination, is_first_hand=True))
    assert (found[:2] if isinstance(found, Verdict) else None) == expected
    assert isinstance(found, Verdict) or found


@pytest.mark.parametrize(("source", "destination"), [(R, A), (A, R), (A, A), (U, A), (A, U)])
def test_hearsay_fences(source: Word, destination: Word) -> None:
    """That a side has no guest is believed without a fence from itself alone."""
    found = decide(Told(source), Told(destination))
    assert isinstance(found, Verdict)
    assert found.must_fence


def test_what_a_side_says_of_itself_stands() -> None:
    """Hearsay does not outweigh it, but for a side that was in the middle; itself it may."""
    plan = MADE.advanced().hearing(Side.SOURCE, Word.RUNS, is_first_hand=True)
    assert plan.hearing(Side.SOURCE, Word.ABSENT, is_first_hand=False).word(Side.SOURCE) == (
        Word.RUNS,
        True,
    )
    assert plan.hearing(Side.SOURCE, Word.ABSENT, is_first_hand=True).word(Side.SOURCE).word is (
        Word.ABSENT
    )
    between = plan.hearing(Side.DESTINATION, Word.PAUSED, is_first_hand=True)
    assert between.settled().winner is None
    silent = between.hearing(Side.DESTINATION, Word.UNKNOWN, is_first_hand=False).settled()
    assert (silent.winner, silent.must_fence) == (Side.SOURCE, True)


def test_words_from_before_the_move_do_not_count() -> None:
    """Nothing can be said while it is prepared: only what was said after the call counts."""
    with pytest.raises(InvalidState):
        MADE.hearing(Side.DESTINATION, Word.ABSENT, is_first_hand=True)
    assert MADE.advanced().told == (Told(), Told())


def test_nothing_moves_before_everything_is_prepared() -> None:
    """Each volume has an attachment at the destination, or the guest stays."""
    with pytest.raises(InvalidInput, match="no attachment"):
        START.prepared("v1", "d1").advanced()
    with pytest.raises(InvalidInput, match="not about this volume"):
        START.prepared("v3", "d3")
    moving = MADE.advanced()
    assert moving.advanced() is moving
    assert moving.prepared("v1", "d1") is moving
    with pytest.raises(InvalidState):
        moving.prepared("v1", "other")
    with pytest.raises(MigrationUndecided):
        moving.given_up()


CHANGES = (
    lambda plan: plan.prepared("v1", "d9"),
    lambda plan: plan.advanced(),
    lambda plan: plan.hearing(Side.SOURCE, Word.RUNS, is_first_hand=True),
    lambda plan: plan.hearing(Side.DESTINATION, Word.ABSENT, is_first_hand=True),
    lambda plan: plan.hearing(Side.DESTINATION, Word.RUNS, is_first_hand=False),
    lambda plan: plan.settled(),
    lambda plan: plan.given_up(),
    lambda plan: plan.kept(Side.DESTINATION, "told"),
    lambda plan: plan.fenced(),
    lambda plan: plan.released(),
)


@given(st.lists(st.sampled_from(CHANGES), max_size=12))
def test_a_record_goes_only_forward(steps: list[object]) -> None:
    """Whatever is asked in whatever order: along the arrows, and a winner stays the winner."""
    plan = MADE
    for step in steps:
        try:
            after = step(plan)  # type: ignore[operator]
        except (Conflict, InvalidInput):
            continue
        steps_between = {plan.state, after.state} == {State.MOVING, State.FENCING}
        assert (
            after.state is plan.state
            or after.state in NEXT[plan.state]
            or (steps_between and State.FENCING in NEXT[State.SETTLING])
        )
        assert plan.winner in (None, after.winner)
        plan = after


def test_what_a_migration_is_about() -> None:
    """Two hosts, at least one volume, none twice; a host is known however it is spelled."""
    for source, destination, volumes in (
        ("a", "A", VOLUMES),
        ("a", "b", ()),
        ("a", "b", (*VOLUMES, VOLUMES[0])),
    ):
        with pytest.raises(InvalidInput):
            MigrationPlan("m", source, destination, volumes)
    assert (START.side_of("NODE-A"), START.side_of("node-b"), START.side_of("c")) == (
        Side.SOURCE,
        Side.DESTINATION,
        None,
    )


def test_every_state_is_in_the_table() -> None:
    """The arrows lead from every state but the last, and to every state but the first."""
    assert set(NEXT) == set(State)
    assert set(itertools.chain(*NEXT.values())) == set(State) - {State.PREPARING}
    assert [one for one in State if not NEXT[one]] == [State.DONE]
