"""Guests' moves in the service: who may what, one writer in the end, and kills at every step."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest

from lunport.core.agent_identity import AgentIdentity
from lunport.core.change import Change
from lunport.core.errors import (
    AlreadyExists,
    AttachmentNotFound,
    HostRevoked,
    InvalidInput,
    InvalidState,
    MigrationNotFound,
    MigrationUndecided,
    NotAllowed,
    NotItsHost,
    TargetDaemonDown,
)
from lunport.core.migration_plan import MovedVolume, Side, State, Word
from lunport.store import tables
from lunport.volume import attachments, migrations
from lunport.volume.migrations import MigrationView, NewMigration
from lunport.volume.requests import Caller, NewAttachment
from tests.fakes.fake_service import FakeBench
from tests.fakes.policy_play import A, B, Killed, bench_of, restart, seen_by
from tests.fakes.volume_play import (
    ADMIN,
    HOST_A,
    HOST_B,
    INSTANCE,
    ME,
    OTHER_INSTANCE,
    UNKNOWN,
    assert_exports_match,
    make_volume,
    rows_of,
)

AGENT_A = Caller("agent:a", "", is_admin=False, agent=AgentIdentity("a", A))
AGENT_B = Caller("agent:b", "", is_admin=False, agent=AgentIdentity("b", B))
AGENT_C = Caller(
    "agent:c", "", is_admin=False, agent=AgentIdentity("c", "iqn.1993-08.org.debian:01:c")
)
R, P, ABSENT, U = Word.RUNS, Word.PAUSED, Word.ABSENT, Word.UNKNOWN


class Play:
    """A guest with two volumes on host a, about to move to host b."""

    def __init__(self, folder: Path, kind: str = "host") -> None:
        self.bench = bench_of(folder, kind)
        self.volumes = [make_volume(self.bench) for _ in range(2)]
        self.at_a = [self.attach(AGENT_A, one.id, HOST_A) for one in self.volumes]
        pairs = zip(self.volumes, self.at_a, strict=True)
        self.new = NewMigration(
            INSTANCE, "a", "b", tuple(MovedVolume(one.id, made) for one, made in pairs)
        )
        self.at_b: list[str] = []
        self.id = ""

    def attach(self, caller: Caller, volume_id: str, connector: object) -> str:
        """Attach a volume for the guest, and use it."""
        assert isinstance(connector, dict)
        new = NewAttachment(volume_id, INSTANCE, connector)
        made = attachments.create_attachment(self.bench.service, caller, new).attachment
        attachments.complete_attachment(self.bench.service, caller, made.id)
        return made.id

    def start(self) -> MigrationView:
        """Record the move."""
        view = migrations.start(self.bench.service, AGENT_A, self.new).view
        self.id = view.migration.plan.id
        return view

    def prepare(self) -> None:
        """Prepare both volumes at the destination."""
        self.start()
        for one in self.volumes:
            made = self.attach(AGENT_B, one.id, HOST_B)
            self.at_b.append(made)
            migrations.prepared(self.bench.service, AGENT_B, self.id, one.id, made)

    def move(self) -> None:
        """Go as far as the call that moves the guest."""
        self.prepare()
        migrations.advance(self.bench.service, AGENT_A, self.id)

    def settle(self, caller: Caller, **told: Word) -> MigrationView:
        """Say what is known of both sides."""
        words = {Side(side): word for side, word in told.items()}
        return migrations.settle(self.bench.service, caller, self.id, words)

    def release(self, caller: Caller = ADMIN) -> MigrationView:
        """Have the loser's attachments taken away."""
        return migrations.release(self.bench.service, caller, self.id)

    def look(self) -> MigrationView:
        """Look at it."""
        return migrations.get_migration(self.bench.service, ADMIN, self.id)

    def assert_only(self, side: Side) -> None:
        """Assert that exactly this side has the volumes, and nothing is left of the other."""
        assert self.look().migration.plan.state is State.DONE
        ids = {one.id for one in self.volumes}
        winner, loser = (A, B) if side is Side.SOURCE else (B, A)
        assert {volume for volume, _ in seen_by(self.bench, winner)} == ids
        assert seen_by(self.bench, loser) == set()
        kept = self.at_a if side is Side.SOURCE else self.at_b
        left = {row["id"] for row in rows_of(self.bench, tables.attachments)}
        assert left == set(kept)
        assert all(row["lifted_at"] for row in rows_of(self.bench, tables.revocations))
        assert {row["status"] for row in rows_of(self.bench, tables.volumes)} == {"in-use"}
        assert_exports_match(self.bench)


@pytest.fixture
def play(tmp_path: Path) -> Iterator[Play]:
    """A target for each host."""
    made = Play(tmp_path)
    yield made
    made.bench.service.store.close()


@pytest.fixture(params=["host", "host_lio", "shared"])
def any_play(request: pytest.FixtureRequest, tmp_path: Path) -> Iterator[Play]:
    """Every kind of target."""
    made = Play(tmp_path, request.param)
    yield made
    made.bench.service.store.close()


def test_a_guest_moves(any_play: Play) -> None:
    """The source says that it is gone; its attachments wait until it has disconnected."""
    play = any_play
    play.move()
    settled = play.settle(AGENT_A, source=ABSENT, destination=R).migration.plan
    assert (settled.state, settled.winner, settled.must_fence) == (
        State.RELEASING,
        Side.DESTINATION,
        False,
    )
    assert seen_by(play.bench, A)
    assert rows_of(play.bench, tables.revocations) == []
    done = play.release(AGENT_A)
    assert done.migration.plan.state is State.DONE
    play.assert_only(Side.DESTINATION)
    assert play.release() == done
    assert play.settle(AGENT_B, source=R, destination=R) == done
    assert [one.what for one in done.events] == [
        "started",
        "prepared",
        "prepared",
        "moving",
        "settling",
        "done",
    ]
    assert done.events[0].document["state"] == "preparing"
    assert done.events[-1].document["winner"] == "destination"


def test_the_loser_may_disconnect_by_itself(play: Play) -> None:
    """What the losing side's agent has deleted already is not missed."""
    play.move()
    play.settle(AGENT_A, source=ABSENT, destination=R)
    for one in play.at_a:
        attachments.delete_attachment(play.bench.service, AGENT_A, one)
    play.release(AGENT_B)
    play.assert_only(Side.DESTINATION)


def test_it_moves_to_and_fro(play: Play) -> None:
    """Nothing of a move, fenced or not, is in the way of the next, in the other direction."""
    play.move()
    play.settle(AGENT_B, destination=R)
    play.assert_only(Side.DESTINATION)
    pairs = zip(play.volumes, play.at_b, strict=True)
    back = NewMigration(INSTANCE, "b", "a", tuple(MovedVolume(v.id, made) for v, made in pairs))
    started = migrations.start(play.bench.service, AGENT_B, back)
    assert started.change is Change.CHANGED
    assert play.attach(AGENT_A, play.volumes[0].id, HOST_A)


@pytest.mark.parametrize(
    ("caller", "told", "winner"),
    [
        (AGENT_A, {"source": R, "destination": U}, Side.SOURCE),
        (AGENT_A, {"source": R, "destination": ABSENT}, Side.SOURCE),  # hearsay
        (AGENT_A, {"source": R, "destination": R}, Side.SOURCE),
        (AGENT_B, {"destination": R}, Side.DESTINATION),
        (AGENT_B, {"source": ABSENT, "destination": R}, Side.DESTINATION),  # hearsay
        (ADMIN, {"source": ABSENT, "destination": R}, Side.DESTINATION),  # hearsay
    ],
)
def test_who_is_not_known_to_be_without_the_guest_is_fenced(
    any_play: Play, caller: Caller, told: dict[str, Word], winner: Side
) -> None:
    """When it is settled the loser reaches no volume, and nothing of it is left."""
    play = any_play
    play.move()
    plan = play.settle(caller, **told).migration.plan
    assert (plan.state, plan.winner, plan.must_fence) == (State.DONE, winner, True)
    play.assert_only(winner)
    revoked = rows_of(play.bench, tables.revocations)
    assert {(row["volume_id"], row["host"]) for row in revoked} == {
        (one.id, plan.host(winner.other)) for one in play.volumes
    }
    assert all(plan.id in row["reason"] for row in revoked)


def test_both_say_for_themselves_that_it_stayed(play: Play) -> None:
    """The source keeps it without a fence."""
    play.move()
    assert play.settle(AGENT_B, destination=P).migration.plan.winner is None
    waiting = play.settle(AGENT_A, source=R, destination=P).migration.plan
    assert (waiting.state, waiting.winner) == (State.SETTLING, None)
    assert "paused at the destination" in waiting.reason
    plan = play.settle(AGENT_B, destination=ABSENT).migration.plan
    assert (plan.winner, plan.must_fence) == (Side.SOURCE, False)
    play.release(AGENT_B)
    play.assert_only(Side.SOURCE)


def test_an_administrator_keeps_one(play: Play) -> None:
    """Where the agents say nothing an administrator decides, and the other side is fenced."""
    play.move()
    with pytest.raises(MigrationUndecided):
        migrations.abort(play.bench.service, ADMIN, play.id)
    assert play.settle(ADMIN).migration.plan.winner is None
    with pytest.raises(NotAllowed):
        migrations.abort(play.bench.service, AGENT_B, play.id, Side.DESTINATION)
    migrations.abort(play.bench.service, ADMIN, play.id, Side.DESTINATION)
    play.assert_only(Side.DESTINATION)
    migrations.abort(play.bench.service, ADMIN, play.id, Side.DESTINATION)
    with pytest.raises(InvalidState):
        migrations.abort(play.bench.service, ADMIN, play.id, Side.SOURCE)


@pytest.mark.parametrize("volumes", [0, 1, 2])
@pytest.mark.parametrize("caller", [ADMIN, AGENT_A, AGENT_B])
def test_given_up_before_it_moved(play: Play, volumes: int, caller: Caller) -> None:
    """However far the destination was prepared, the start is what is left."""
    play.start()
    for one in play.volumes[:volumes]:
        made = play.attach(AGENT_B, one.id, HOST_B)
        migrations.prepared(play.bench.service, AGENT_B, play.id, one.id, made)
    migrations.abort(play.bench.service, caller, play.id)
    play.assert_only(Side.SOURCE)
    assert rows_of(play.bench, tables.revocations) == []
    migrations.abort(play.bench.service, caller, play.id)
    with pytest.raises(InvalidState):
        migrations.advance(play.bench.service, AGENT_A, play.id)


# -- failures and kills ----------------------------------------------------------------------


@pytest.mark.parametrize("verb", ["unexport", "hide", "disallow", "ensure_export"])
def test_a_target_that_does_not_follow(any_play: Play, verb: str) -> None:
    """Until the loser is cut off nobody is trusted: the record says fencing, and asks again."""
    play = any_play
    play.move()
    play.bench.helper.fail_next[verb] = TargetDaemonDown("tgtd", "gone")
    try:
        view = play.settle(AGENT_A, source=R)
    except TargetDaemonDown:
        plan = play.look().migration.plan
        assert plan.winner is Side.SOURCE
        assert plan.state in (State.FENCING, State.RELEASING)
        play.bench.helper.fail_next.clear()
        view = play.settle(AGENT_A, source=R)
    play.bench.helper.fail_next.clear()
    assert view.migration.plan.state is State.DONE
    play.assert_only(Side.SOURCE)


@pytest.mark.parametrize("winner", Side)
@pytest.mark.parametrize("kind", ["host", "host_lio"])
def test_killed_at_every_step(tmp_path: Path, kind: str, winner: Side) -> None:
    """Wherever the service is killed while it settles, its next start ends with one writer."""
    kills = 0
    for step in range(40):
        folder = tmp_path / str(step)
        folder.mkdir()
        play = Play(folder, kind)
        play.move()
        caller, told = (
            (AGENT_A, {"source": R}) if winner is Side.SOURCE else (AGENT_B, {"destination": R})
        )
        killing, left = _killing(play.bench, step)
        try:
            migrations.settle(
                killing.service, caller, play.id, {Side(k): v for k, v in told.items()}
            )
        except Killed:
            kills += 1
        restart(play.bench)
        migrations.take_up(play.bench.service)
        if play.look().migration.plan.state is State.MOVING:
            play.settle(caller, **told)  # it was killed before it had heard anything
        play.assert_only(winner)
        play.bench.service.store.close()
        if left() > 0:
            break
    assert kills > 5


def _killing(bench: FakeBench, after: int) -> tuple[FakeBench, Callable[[], int]]:
    """Return the same service, which dies after some looks at the clock."""
    count = [after]

    def now() -> str:
        if count[0] == 0:
            raise Killed
        count[0] -= 1
        return bench.service.now()

    return replace(bench, service=replace(bench.service, now=now)), lambda: count[0]


# -- who may -------------------------------------------------------------------------------


def test_strangers_see_nothing(play: Play) -> None:
    """Users without a role, and the agents of other hosts, neither see nor touch a move."""
    play.move()
    service = play.bench.service
    for caller, error in ((ME, NotAllowed), (AGENT_C, NotItsHost)):
        for act in (
            lambda c: migrations.get_migration(service, c, play.id),
            lambda c: migrations.settle(service, c, play.id, {Side.SOURCE: R}),
            lambda c: migrations.advance(service, c, play.id),
            lambda c: migrations.prepared(service, c, play.id, play.volumes[0].id, play.at_b[0]),
            lambda c: migrations.release(service, c, play.id),
            lambda c: migrations.abort(service, c, play.id),
            lambda c: migrations.note(service, c, play.id, "x", {}),
            lambda c: migrations.start(service, c, play.new),
        ):
            with pytest.raises(error):
                act(caller)
    with pytest.raises(NotAllowed):
        migrations.list_migrations(service, ME)
    assert migrations.list_migrations(service, AGENT_C) == []
    for caller in (ADMIN, AGENT_A, AGENT_B):
        assert len(migrations.list_migrations(service, caller)) == 1
    with pytest.raises(MigrationNotFound):
        migrations.get_migration(service, ADMIN, UNKNOWN)
    assert play.look().migration.plan.state is State.MOVING


def test_each_side_does_its_own_part(play: Play) -> None:
    """A destination does not start a move to itself; neither says what the other one does."""
    with pytest.raises(NotItsHost):
        migrations.start(play.bench.service, AGENT_B, play.new)
    play.start()
    made = play.attach(AGENT_B, play.volumes[0].id, HOST_B)
    with pytest.raises(NotItsHost):
        migrations.prepared(play.bench.service, AGENT_A, play.id, play.volumes[0].id, made)
    with pytest.raises(NotItsHost):
        migrations.advance(play.bench.service, AGENT_B, play.id)


def test_what_an_agent_says_of_the_other_is_hearsay(play: Play) -> None:
    """A destination that takes the guest by saying so does not outweigh the source's word."""
    play.move()
    play.settle(AGENT_A, source=P)
    plan = play.settle(AGENT_B, source=ABSENT, destination=P).migration.plan
    assert plan.word(Side.SOURCE).is_first_hand is False
    assert plan.winner is None


def test_only_the_destination_attaches_beside_and_only_now(play: Play) -> None:
    """Another host never, the destination not before the record and not after it is settled."""
    volume = play.volumes[0].id
    for caller, connector in (
        (AGENT_B, HOST_B),
        (AGENT_C, {**HOST_A, "host": "c", "initiator": "iqn.1993-08.org.debian:01:c"}),
    ):
        with pytest.raises(NotItsHost):
            play.attach(caller, volume, dict(connector))
    play.move()
    play.settle(AGENT_A, source=R)
    with pytest.raises((NotItsHost, HostRevoked)):
        play.attach(AGENT_B, volume, HOST_B)
    play.assert_only(Side.SOURCE)


def test_what_cannot_be_recorded(play: Play) -> None:
    """Attachments of other volumes, guests and hosts, unconnected ones, and moves that collide."""
    service, volume = play.bench.service, play.volumes[0]
    other = make_volume(play.bench)
    elsewhere = attachments.create_attachment(
        service, ME, NewAttachment(other.id, OTHER_INSTANCE, dict(HOST_A))
    ).attachment
    loose = make_volume(play.bench)
    reserved = attachments.create_attachment(service, ME, NewAttachment(loose.id, INSTANCE))
    for bad, error in (
        (MovedVolume(volume.id, UNKNOWN), AttachmentNotFound),
        (MovedVolume(volume.id, play.at_a[1]), AttachmentNotFound),
        (MovedVolume(other.id, elsewhere.id), InvalidInput),
        (MovedVolume(loose.id, reserved.attachment.id), InvalidInput),
        (MovedVolume(volume.id, play.at_a[0], play.at_a[0]), InvalidInput),
    ):
        with pytest.raises(error):
            migrations.start(service, ADMIN, replace(play.new, volumes=(bad,)))
    changes: tuple[dict[str, Any], ...] = (
        {"source": "b", "destination": "a"},
        {"destination": "a"},
        {"source": "no one"},
    )
    for change in changes:
        with pytest.raises(InvalidInput):
            migrations.start(service, ADMIN, replace(play.new, **change))
    assert migrations.list_migrations(service, ADMIN) == []
    first = play.start()
    again = migrations.start(service, AGENT_A, play.new)
    assert (again.change, again.view) == (Change.UNCHANGED, first)
    with pytest.raises(AlreadyExists):
        migrations.start(service, ADMIN, replace(play.new, destination="c"))
    with pytest.raises(AlreadyExists):
        migrations.start(service, ADMIN, replace(play.new, guest=OTHER_INSTANCE))
    with pytest.raises(InvalidInput):
        migrations.prepared(service, AGENT_B, play.id, volume.id, play.at_a[0])


def test_it_does_not_move_without_what_was_prepared(play: Play) -> None:
    """An attachment that is gone when the guest shall move stops it, with its name."""
    play.prepare()
    attachments.delete_attachment(play.bench.service, AGENT_B, play.at_b[1])
    with pytest.raises(AttachmentNotFound, match=play.at_b[1]):
        migrations.advance(play.bench.service, AGENT_A, play.id)
    made = play.attach(AGENT_B, play.volumes[1].id, HOST_B)
    migrations.prepared(play.bench.service, AGENT_B, play.id, play.volumes[1].id, made)
    view = migrations.advance(play.bench.service, AGENT_A, play.id)
    assert view.migration.plan.state is State.MOVING


def test_notes_are_kept(play: Play) -> None:
    """What the agents did stands among the events; what is too long is refused."""
    play.start()
    view = migrations.note(play.bench.service, AGENT_B, play.id, "connected", {"wwid": "naa.6"})
    last = view.events[-1]
    assert (last.who, last.what, last.document) == ("agent:b", "connected", {"wwid": "naa.6"})
    for what, document in (("", {}), ("x" * 65, {}), ("x", {"y": "z" * 5000})):
        with pytest.raises(InvalidInput):
            migrations.note(play.bench.service, AGENT_B, play.id, what, document)
