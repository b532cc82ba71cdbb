"""A guest's move as both hosts carry it out: every step that may fail, every kill, one writer."""

from __future__ import annotations

import contextlib
import json
from pathlib import Path

import pytest
from click.testing import CliRunner

from lunport.agent.guest_parts import GuestParts
from lunport.agent.migrate_source import MoveWish, check
from lunport.agent.migration_parts import MigrationParts, MoveName
from lunport.cli.exit_codes import exit_code_of
from lunport.cli.guest import guest
from lunport.cli.guest_parts import GuestCommandParts
from lunport.core.errors import (
    AgentUnavailable,
    AllPathsFailed,
    GuestNotFound,
    HypervisorUnavailable,
    LunportError,
    MigrationFailed,
    MigrationRefused,
    MigrationUndecided,
    NotAllowed,
    UndoFailed,
    VolumeApiUnavailable,
    WrongDevice,
)
from lunport.core.guest_disk import InitiatorKind
from lunport.core.migration_preflight import Outcome
from lunport.host.clock import Deadline
from tests.fakes.moving_play import ENDPOINT, GUEST, End, Killed, MovingPlay

KINDS = list(InitiatorKind)
DOWN = VolumeApiUnavailable("the service is down")
SILENT = HypervisorUnavailable("libvirt did not answer")
SOURCE_STEPS = ("noted", "recorded", "prepared", "rewritten", "moving", "called", "settled")
DESTINATION_STEPS = ("noted at the destination", "reserved", "offered", "connected")


@pytest.mark.parametrize("kind", KINDS)
@pytest.mark.parametrize("count", [1, 3])
def test_a_guest_moves(tmp_path: Path, kind: InitiatorKind, count: int) -> None:
    """All its volumes are reached at the destination alone, by sources of the destination's."""
    play = MovingPlay(tmp_path, kind, count=count)
    sources = list(play.a.hypervisor.known[GUEST].live or ())
    moved = play.migrate()
    assert (moved.left, moved.was_fenced) == ((), False)
    assert {one.volume_id for one in moved.volumes} == set(play.volumes)
    play.assert_at("b")
    arrived = play.b.hypervisor.guest("web", Deadline.after(1))
    for volume in play.volumes:
        live, persistent = arrived.live_disk(volume), arrived.persistent_disk(volume)
        assert live is not None
        assert persistent is not None
        assert live.source == persistent.source
        before = next(one for one in sources if one.serial == volume)
        assert live.source != before.source
        assert (live.target, live.alias) == (before.target, before.alias)
    with pytest.raises(GuestNotFound):
        play.migrate()
    play.recover()
    play.assert_at("b")


@pytest.mark.parametrize("kind", KINDS)
def test_another_initiator_reaches_it_there(tmp_path: Path, kind: InitiatorKind) -> None:
    """Asked for, all volumes go over to the other kind, with nothing of the first one left."""
    other = next(one for one in KINDS if one is not kind)
    play = MovingPlay(tmp_path, kind, count=2)
    play.migrate(initiator=other)
    play.assert_at("b")
    journal = play.b.parts().guests.journal
    assert {one.initiator for one in journal.all()} == {other}
    arrived = play.b.hypervisor.guest("web", Deadline.after(1))
    disks = [arrived.live_disk(volume) for volume in play.volumes]
    portals = {None if disk is None else disk.portal is None for disk in disks}
    assert portals == {other is InitiatorKind.KERNEL}
    assert bool(play.b.kernel.entries) is (other is InitiatorKind.KERNEL)


@pytest.mark.parametrize("kind", KINDS)
@pytest.mark.parametrize("end", End)
def test_one_writer_whatever_comes_of_the_call(
    tmp_path: Path, kind: InitiatorKind, end: End
) -> None:
    """Once the move has come to an end no two guests reach the volumes; later one guest is left."""
    play = MovingPlay(tmp_path, kind, count=2)
    play.a.hypervisor.ends = end
    try:
        play.migrate()
        assert end in (End.GOES, End.ANSWER_LOST)
    except MigrationFailed:
        assert end not in (End.GOES, End.ANSWER_LOST, End.UNDECIDED)
    except MigrationUndecided:
        assert end is End.UNDECIDED
        assert play.state()["seen"] != play.before["seen"]
    if end is not End.UNDECIDED:
        assert len(play.writers()) == (0 if end in (End.KILLED, End.NOWHERE) else 1)
    play.b.hypervisor.wake()
    if end is not End.UNDECIDED:
        assert len(play.writers()) <= 1
    play.recover()
    match end:
        case End.GOES | End.ANSWER_LOST:
            play.assert_at("b")
        case End.UNDECIDED:
            # A hypervisor that has it half-way may yet let it live: the record stays open.
            assert play.a.left()["moves"]
        case End.KILLED | End.NOWHERE:
            assert play.b.left() == {}
            assert "moves" not in play.a.left()
        case _:
            play.assert_at("a")
            assert play.state() == play.before


@pytest.mark.parametrize("side", ["a", "b"])
@pytest.mark.parametrize(
    "request_name", ["start", "create", "get", "offer", "prepared", "record", "moving", "delete"]
)
@pytest.mark.parametrize("late", [False, True])
def test_a_request_that_fails(tmp_path: Path, side: str, request_name: str, late: bool) -> None:
    """Whichever request of either side fails, or its answer: one guest, and nothing else left."""
    play = MovingPlay(tmp_path, KINDS[late])
    service = play.a.service if side == "a" else play.b.service
    if late:
        service.late_failures[request_name] = DOWN
    else:
        service.failures[request_name] = DOWN
    try:
        play.migrate()
    except LunportError:
        assert len(play.writers()) == 1
    play.recover()
    play.assert_at("b" if play.b.runs_it else "a")
    if play.a.runs_it:
        assert play.state() == play.before


@pytest.mark.parametrize("verb", ["prepare", "look", "tell", "confirm", "undo"])
@pytest.mark.parametrize("end", [End.GOES, End.REFUSED])
def test_a_destination_that_does_not_hear(tmp_path: Path, verb: str, end: End) -> None:
    """Whatever the other agent is deaf to, it finishes by itself once it starts anew."""
    play = MovingPlay(tmp_path)
    play.a.hypervisor.ends = end
    play.b.deaf_to = {verb}
    with contextlib.suppress(LunportError):
        play.migrate()
    if not (verb == "tell" and end is End.REFUSED):
        assert len(play.writers()) == 1
    play.b.deaf_to = set()
    play.recover()
    play.assert_at("b" if verb != "prepare" and end is End.GOES else "a")


@pytest.mark.parametrize("step", SOURCE_STEPS)
@pytest.mark.parametrize("end", [End.GOES, End.REFUSED, End.HANGS])
def test_the_source_is_killed(tmp_path: Path, step: str, end: End) -> None:
    """After each step: a restart of the agents ends the move, one way or the other."""
    play = MovingPlay(tmp_path, KINDS[end is End.GOES], count=2)
    play.a.hypervisor.ends = end
    play.a.kill_at = step
    with pytest.raises(Killed):
        play.migrate()
    play.recover()
    is_made = SOURCE_STEPS.index(step) >= SOURCE_STEPS.index("called")
    play.assert_at("b" if is_made and end is End.GOES else "a")
    if not play.b.runs_it:
        assert play.state() == play.before


@pytest.mark.parametrize(
    "step", ["discarded", "disconnected", "deleted", "released", "told the destination"]
)
def test_the_source_is_killed_as_it_lets_go(tmp_path: Path, step: str) -> None:
    """The guest lives at the destination, and the source finishes later."""
    play = MovingPlay(tmp_path, count=2)
    play.a.kill_at = step
    with pytest.raises(Killed):
        play.migrate()
    assert play.b.runs_it
    play.recover()
    play.assert_at("b")


@pytest.mark.parametrize("kind", KINDS)
@pytest.mark.parametrize("step", DESTINATION_STEPS)
def test_the_destination_is_killed_as_it_prepares(
    tmp_path: Path, kind: InitiatorKind, step: str
) -> None:
    """The move is given up, and its own start takes back what it had begun."""
    play = MovingPlay(tmp_path, kind)
    play.b.kill_at = step
    with pytest.raises((AgentUnavailable, UndoFailed)):
        play.migrate()
    assert play.writers() == {"a"}
    play.recover()
    assert play.state() == play.before
    play.migrate()
    play.assert_at("b")


@pytest.mark.parametrize(("step", "end"), [("confirmed", End.GOES), ("disconnected", End.REFUSED)])
def test_the_destination_is_killed_at_the_end(tmp_path: Path, step: str, end: End) -> None:
    """What it has yet to do is told, and done at its start."""
    play = MovingPlay(tmp_path)
    play.a.hypervisor.ends = end
    play.b.kill_at = step
    if end is End.GOES:
        (left,) = play.migrate().left
        assert "b has yet to clean up" in left
    else:
        with pytest.raises(MigrationFailed, match="b has yet to clean up"):
            play.migrate()
    play.recover()
    play.assert_at("b" if end is End.GOES else "a")


def test_the_wrong_unit_at_the_destination(tmp_path: Path) -> None:
    """A unit that is not the source's is not used, and the guest stays."""
    play = MovingPlay(tmp_path)
    portals = "10.0.0.1:3260"
    play.b.choice_failure = WrongDevice(portals, "naa.6001", "naa.6002")
    with pytest.raises(WrongDevice):
        play.migrate()
    assert play.state() == play.before
    play.b.choice_failure = AllPathsFailed([])
    with pytest.raises(AllPathsFailed):
        play.migrate()
    assert play.state() == play.before


def test_a_silent_source(tmp_path: Path) -> None:
    """A source that says nothing is not given up while the destination does not have the guest."""
    play = MovingPlay(tmp_path)
    play.a.kill_at = "moving"
    with pytest.raises(Killed):
        play.migrate()
    play.a.hypervisor.is_silent = True
    play.clock_s += 600
    play.a.round()
    assert play.a.left()["moves"]
    play.recover()
    play.assert_at("a")


def test_a_silent_source_whose_guest_is_elsewhere(tmp_path: Path) -> None:
    """It is fenced once the destination is seen to run the guest for long."""
    play = MovingPlay(tmp_path)
    play.a.hypervisor.ends = End.BOTH_RUN
    play.a.kill_at = "called"
    with pytest.raises(Killed):
        play.migrate()
    play.a.hypervisor.is_silent = True
    play.clock_s += 600
    play.a.round()
    assert play.writers() == {"b"}
    play.recover()
    play.assert_at("b")


def test_strangers_may_not(tmp_path: Path) -> None:
    """Only the record's source may ask its destination, for that guest alone."""
    play = MovingPlay(tmp_path)
    play.a.kill_at = "prepared"
    with pytest.raises(Killed):
        play.migrate()
    stranger = play.peer("b", "c")
    (record,) = play.b.service.list(Deadline.after(1))
    name = play.peer("b", "a")
    move = play.b.parts().guests.journal.moves()[0]
    assert move.migration_id == record.id
    meant = MoveName(record.id, GUEST, ENDPOINT)
    for verb in (stranger.look, stranger.tell, stranger.confirm, stranger.undo):
        with pytest.raises(NotAllowed):
            verb(meant, Deadline.after(1))
    assert name.look(meant, Deadline.after(1)).value == "absent"


def test_a_preflight_that_changes_nothing(tmp_path: Path) -> None:
    """A table of what lets it go and what does not; the move refuses for the same reasons."""
    play = MovingPlay(tmp_path, count=2)
    wish = MoveWish("web", "b", ENDPOINT)
    found = check(play.a.parts(), wish, Deadline.after(5))
    assert [one.subject for one in found if one.outcome is Outcome.FAILED] == ["disk vda"]
    play.b.hypervisor.refusals = {"machine": "it is unknown there"}
    with pytest.raises(MigrationRefused, match="machine: it is unknown there"):
        play.migrate()
    play.b.is_away = True
    with pytest.raises(MigrationRefused, match="No agent answers"):
        play.migrate()
    assert play.state() == play.before


def command(play: MovingPlay, *words: str) -> tuple[int, str]:
    """Run ``lunport guest`` on host a."""

    class Parts(GuestCommandParts):
        def migration_parts(self, *_: object) -> MigrationParts:
            return play.a.parts()

        def guest_parts(self, *_: object) -> GuestParts:
            return play.a.parts().guests

    words = ("migrate", "web", *words)
    done = CliRunner().invoke(guest, words, obj=Parts(), standalone_mode=False)
    if done.exception is not None:
        return exit_code_of(done.exception), str(done.exception)
    return done.return_value or 0, done.output


def test_the_command(tmp_path: Path) -> None:
    """It shows the table, refuses with it, moves, and says where each volume is reached."""
    play = MovingPlay(tmp_path)
    status, said = command(play, "--to", "b", "--check")
    assert (status, "FAIL     disk vda" in said) == (4, True), said
    status, said = command(play, "--to", "b")
    assert (status, "--shared vda" in said) == (4, True), said
    assert command(play, "--abort") == (0, "No move of it is under way here.\n")
    assert command(play)[0] != 0
    status, said = command(play, "--to", "b", "--shared", "vda", "--check", "-o", "json")
    assert status == 0
    assert {one["outcome"] for one in json.loads(said)} == {"ok", "warning"}
    status, said = command(play, "--to", "b", "--shared", "vda")
    assert status == 0, said
    assert said.startswith("Guest web runs at b (migration ")
    assert play.volumes[0] in said
    assert command(play, "--to", "b")[0] == 3
