"""Where a guest lives: the table, and that no row of it lets two write."""

from __future__ import annotations

import itertools

import pytest
from hypothesis import given
from hypothesis import strategies as st

from lunport.core.domain_xml import parse_domain
from lunport.core.guest import Guest, GuestState
from lunport.core.guest_whereabouts import (
    ABORT_PATIENCE_S,
    SOURCE_PATIENCE_S,
    Sight,
    Step,
    next_step,
    sight_of,
)
from lunport.core.migration_plan import Side, Told, Verdict, Word, decide

EMPTY = parse_domain("<domain><name>web</name></domain>")
LIVES, SWITCHING, OFF, ABSENT, SILENT, MOVING = (
    Sight.LIVES,
    Sight.SWITCHING,
    Sight.OFF,
    Sight.ABSENT,
    Sight.SILENT,
    Sight.MOVING,
)


def guest(state: GuestState, reason: str, *, active: bool = True) -> Guest:
    """Make a guest in a state."""
    return Guest("id", "web", state, reason, False, EMPTY if active else None, None)


@pytest.mark.parametrize(
    ("state", "reason", "sight"),
    [
        (GuestState.RUNNING, "booted", LIVES),
        (GuestState.RUNNING, "migrated", LIVES),
        (GuestState.RUNNING, "migration canceled", LIVES),
        (GuestState.RUNNING, "postcopy", LIVES),
        (GuestState.PAUSED, "user", LIVES),
        (GuestState.PAUSED, "i/o error", LIVES),
        (GuestState.PAUSED, "migration", SWITCHING),
        (GuestState.PAUSED, "starting up", SWITCHING),
        (GuestState.PAUSED, "postcopy", SWITCHING),
        (GuestState.PAUSED, "postcopy failed", SWITCHING),
        (GuestState.UNKNOWN, "unknown", SWITCHING),
    ],
)
def test_what_a_hypervisor_shows(state: GuestState, reason: str, sight: Sight) -> None:
    """A process that may write lives, whatever it does now; half-way is neither here nor there."""
    assert sight_of(guest(state, reason)) is sight
    assert sight_of(guest(state, reason), is_moving=True) is MOVING
    assert sight_of(guest(GuestState.SHUT_OFF, reason, active=False)) is OFF
    assert sight_of(None) is ABSENT


@pytest.mark.parametrize(
    ("source", "destination", "step"),
    [
        (LIVES, ABSENT, Step.LET_DESTINATION_TELL),
        (LIVES, OFF, Step.LET_DESTINATION_TELL),
        (LIVES, LIVES, Step.KEEP_SOURCE),
        (LIVES, SWITCHING, Step.KEEP_SOURCE),
        (LIVES, SILENT, Step.KEEP_SOURCE),
        (ABSENT, LIVES, Step.SOURCE_IS_GONE),
        (ABSENT, OFF, Step.SOURCE_IS_GONE),
        (ABSENT, ABSENT, Step.LET_DESTINATION_TELL),
        (ABSENT, SWITCHING, Step.WAIT),
        (ABSENT, SILENT, Step.WAIT),
        (OFF, LIVES, Step.SOURCE_IS_GONE),
        (OFF, OFF, Step.LET_DESTINATION_TELL),
        (OFF, ABSENT, Step.LET_DESTINATION_TELL),
        (OFF, SILENT, Step.WAIT),
        (SWITCHING, LIVES, Step.WAIT),
        (SWITCHING, ABSENT, Step.WAIT),
        (SILENT, LIVES, Step.WAIT),
        (SILENT, ABSENT, Step.WAIT),
        (SILENT, SILENT, Step.WAIT),
        (MOVING, LIVES, Step.WAIT),
        (MOVING, ABSENT, Step.WAIT),
    ],
)
def test_the_table(source: Sight, destination: Sight, step: Step) -> None:
    """After a call that failed, each pair of what the two sides show."""
    found = next_step(
        succeeded=False, was_aborted=False, source=source, destination=destination, waited_s=0
    )
    assert found is step


def test_patience() -> None:
    """A silent source is fenced late; a destination that clears up after an abort is waited for."""

    def step(source: Sight, destination: Sight, waited_s: float, *, aborted: bool = False) -> Step:
        return next_step(
            succeeded=False,
            was_aborted=aborted,
            source=source,
            destination=destination,
            waited_s=waited_s,
        )

    for source in (SILENT, SWITCHING):
        assert step(source, LIVES, SOURCE_PATIENCE_S) is Step.KEEP_DESTINATION
        assert step(source, ABSENT, SOURCE_PATIENCE_S) is Step.WAIT
    assert step(MOVING, LIVES, 10 * SOURCE_PATIENCE_S) is Step.WAIT
    assert step(LIVES, SWITCHING, 0, aborted=True) is Step.WAIT
    assert step(LIVES, SWITCHING, ABORT_PATIENCE_S, aborted=True) is Step.KEEP_SOURCE


def test_success_is_taken_for_it_only_where_the_source_is_without_the_guest() -> None:
    """The destination need not be asked then; else both are."""
    for source in Sight:
        found = next_step(
            succeeded=True, was_aborted=False, source=source, destination=None, waited_s=0
        )
        expected = Step.SOURCE_IS_GONE if source in (OFF, ABSENT) else Step.ASK_DESTINATION
        assert found is expected


def told_by(step: Step, source: Sight, destination: Sight) -> Verdict | str | None:
    """Say what the service makes of a step that tells it something."""
    hearsay = Told(Word.RUNS) if destination is LIVES else Told()
    match step:
        case Step.LET_DESTINATION_TELL:
            return decide(Told(), Told(Word.ABSENT, True))
        case Step.SOURCE_IS_GONE:
            return decide(Told(Word.ABSENT, True), hearsay)
        case Step.KEEP_SOURCE:
            return decide(Told(Word.RUNS, True), hearsay)
        case Step.KEEP_DESTINATION:
            return decide(Told(), Told(Word.RUNS))
        case _:
            return None


@given(
    source=st.sampled_from(list(Sight)),
    destination=st.sampled_from(list(Sight)),
    aborted=st.booleans(),
    waited_s=st.floats(0, 1000),
)
def test_whoever_is_not_fenced_cannot_write(
    source: Sight, destination: Sight, aborted: bool, waited_s: float
) -> None:
    """Whatever is seen, the service fences the loser unless that said itself that it is without."""
    step = next_step(
        succeeded=False,
        was_aborted=aborted,
        source=source,
        destination=destination,
        waited_s=waited_s,
    )
    verdict = told_by(step, source, destination)
    if verdict is None:
        return
    assert isinstance(verdict, Verdict)
    loser = destination if verdict.winner is Side.SOURCE else source
    assert verdict.must_fence or loser in (OFF, ABSENT)
    if LIVES in (source, destination):
        winner = source if verdict.winner is Side.SOURCE else destination
        assert winner is LIVES


def test_every_pair_has_an_answer() -> None:
    """No pair of sights is left out, whatever the call said."""
    for source, destination in itertools.product(Sight, [None, *Sight]):
        for succeeded, aborted in itertools.product((True, False), repeat=2):
            found = next_step(
                succeeded=succeeded,
                was_aborted=aborted,
                source=source,
                destination=destination,
                waited_s=1.0,
            )
            assert isinstance(found, Step)
