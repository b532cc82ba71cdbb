"""``/migrations``, ``lunport migration`` and ``lunport enrol``: bodies, answers, exit statuses."""

from __future__ import annotations

import io
import json
import sys
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import click
import pytest

from lunport.cli.enrol import enrol
from lunport.cli.exit_codes import exit_code_of
from lunport.cli.migration import migration
from lunport.client.guest_migrations import GuestMigrations
from lunport.core.errors import LunportError, MigrationNotFound, VolumeApiRefused
from lunport.core.migration_plan import Side, State, Word
from lunport.core.path_report import format_path_report
from lunport.core.path_status import VolumePaths
from lunport.host.clock import Deadline
from tests.fakes.api_client import ApiClient
from tests.fakes.played_service import PlayedParts, PlayedService
from tests.fakes.policy_play import bench_of

A = {"initiator": "iqn.2026-01.example:a", "host": "node-a"}
B = {"initiator": "iqn.2026-01.example:b", "host": "node-b"}
GUEST = "5f0e3e2a-0d8e-4b7b-9c53-000000000001"
UNKNOWN = "00000000-0000-4000-8000-000000000000"

Run = Callable[..., tuple[int, str]]


class Play:
    """A service, its administrator, and two hosts' agents, by our own client."""

    def __init__(self, folder: Path) -> None:
        self.bench = bench_of(folder, "host")
        self.admin = ApiClient(self.bench)
        self.hosts = {
            name: ApiClient(self.bench, peers=(name,), project="") for name in ("node-a", "node-b")
        }
        for one in (A, B):
            assert self.admin.post("/enrolments", {"enrolment": one}).status == 200
        self.a, self.b = (GuestMigrations(PlayedV3(one)) for one in self.hosts.values())
        self.volume = self.admin.make_volume()

    def attach(self, connector: dict[str, str]) -> str:
        """Attach the volume to a host, by its agent."""
        client = self.hosts[connector["host"]]
        keys = {"volume_uuid": self.volume, "instance_uuid": GUEST, "connector": connector}
        answer = client.post("/v3/attachments", {"attachment": keys})
        assert answer.status == 200, answer.text
        made: str = answer.json["attachment"]["id"]
        assert client.post(f"/v3/attachments/{made}/action", {"os-complete": {}}).status == 204
        return made

    def moving(self) -> str:
        """Go as far as the call that moves the guest."""
        at_a = self.attach(A)
        move = self.a.start(GUEST, "node-a", "node-b", [(self.volume, at_a)], soon())
        self.b.prepared(move.id, self.volume, self.attach(B), soon())
        self.a.moving(move.id, soon())
        return move.id


class PlayedV3(PlayedService):
    """The same for an agent: its requests name no project."""

    def _send(self, method: str, path: str, *rest: Any, **more: Any) -> bytes:
        return super()._send(method, f"/v3{path}", *rest, **more)


def soon() -> Deadline:
    """Give a call its time."""
    return Deadline.after(30)


@pytest.fixture
def play(tmp_path: Path) -> Iterator[Play]:
    """A service with a target for each host."""
    made = Play(tmp_path)
    yield made
    made.bench.service.store.close()


@pytest.fixture
def run(play: Play, capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch) -> Run:
    """Run a command as administrator; give its exit status, and what it printed or its error."""
    monkeypatch.setattr(sys, "stdin", io.StringIO())  # nobody is there to be asked

    def run(group: click.Group, *words: str) -> tuple[int, str]:
        try:
            status = group.main([*words], obj=PlayedParts(play.admin), standalone_mode=False) or 0
        except click.UsageError as error:
            return 2, error.format_message()
        except click.Abort:
            return 130, capsys.readouterr().err
        except LunportError as error:
            return exit_code_of(error), str(error)
        return int(status), capsys.readouterr().out

    return run


def test_a_move_by_our_own_client(play: Play, run: Run) -> None:
    """Both agents do their part, and the administrator sees it from beginning to end."""
    assert run(migration, "list") == (0, "No migration is open.\n")
    move = play.moving()
    status, said = run(migration, "list")
    assert (status, f"{move}  {GUEST}  node-a -> node-b  moving" in said) == (0, True)
    play.b.note(move, "connected", {"wwid": "naa.6"}, soon())
    waiting = play.b.settle(move, soon(), destination=Word.PAUSED)
    assert (waiting.state, waiting.winner, waiting.told["destination"].first_hand) == (
        State.SETTLING,
        None,
        True,
    )
    assert "paused at the destination" in run(migration, "list")[1]
    done = play.a.settle(move, soon(), source=Word.ABSENT, destination=Word.RUNS)
    assert (done.state, done.winner, done.fenced) == (State.RELEASING, Side.DESTINATION, False)
    assert play.b.settle(move, soon(), destination=Word.RUNS) == done
    assert "the guest shall live at node-b" in run(migration, "show", move)[1]
    assert play.a.release(move, soon()).state is State.DONE
    said = run(migration, "show", move)[1]
    for words in (
        "done, the guest lives at node-b",
        "node-a: absent (itself)",
        "connected, by agent:node-b",
        play.volume,
    ):
        assert words in said
    assert run(migration, "list") == (0, "No migration is open.\n")
    assert move in run(migration, "list", "--all")[1]
    assert json.loads(run(migration, "show", move, "-o", "json")[1])["winner"] == "destination"
    assert [one.id for one in play.a.list(soon(), with_done=True)] == [move]


def test_ending_one_by_hand(play: Play, run: Run) -> None:
    """Without a side to keep it is refused; with one it asks, and the other side is fenced."""
    move = play.moving()
    status, said = run(migration, "abort", move)
    assert (status, "say which side to keep" in said) == (4, True)
    assert run(migration, "abort", move, "--keep", "source")[0] == 130  # nobody says yes
    assert play.a.get(move, soon()).state is State.MOVING
    status, said = run(migration, "abort", move, "--keep", "source", "--yes")
    assert (status, "node-a, the other side was fenced: kept by admin" in said) == (0, True)
    assert run(migration, "abort", move, "--keep", "destination", "--yes")[0] == 4
    assert run(migration, "abort", UNKNOWN)[0] == 3
    assert run(migration, "show", UNKNOWN)[0] == 3
    assert run(migration, "abort", move, "--keep", "both")[0] == 2


@pytest.mark.parametrize(
    "body",
    [
        {},
        {"migration": {}},
        {"migration": {"guest": "x", "source": "a", "destination": "b", "volumes": []}},
        {"migration": {"guest": GUEST, "source": "a", "destination": "b", "volumes": [{}]}},
        {"migration": {"guest": GUEST, "source": "a", "destination": "b", "volumes": [], "x": 1}},
    ],
)
def test_bodies_that_cannot_be(play: Play, body: object) -> None:
    """They are 400, and nothing is recorded."""
    assert play.admin.post("/migrations", body).status == 400
    assert play.admin.get("/migrations").json == {"migrations": []}


def test_actions_that_cannot_be(play: Play) -> None:
    """Unknown actions, words and sides are 400; a move that is not there is 404."""
    move = play.moving()
    path = f"/migrations/{move}/action"
    bodies: tuple[dict[str, object], ...] = (
        {"lunport:dance": {}},
        {"lunport:settle": {"source": "here"}},
        {"lunport:settle": {"somewhere": "runs"}},
        {"lunport:abort": {"keep": "both"}},
        {"lunport:prepared": {"volume_id": "x", "attachment_id": "y"}},
        {"lunport:moving": {"now": True}},
        {"lunport:note": {"what": ""}},
        {"lunport:settle": {}, "lunport:abort": {}},
    )
    for body in bodies:
        answer = play.admin.post(path, body)
        assert answer.status == 400, answer.text
    assert play.admin.post(f"/migrations/{UNKNOWN}/action", {"lunport:abort": None}).status == 404
    with pytest.raises(MigrationNotFound):
        play.a.get(UNKNOWN, soon())
    assert play.a.get(move, soon()).state is State.MOVING


def test_each_agent_does_its_own_part(play: Play) -> None:
    """The destination starts nothing, the source prepares nothing, and neither decides alone."""
    at_a = play.attach(A)
    with pytest.raises(VolumeApiRefused, match="source of a migration"):
        play.b.start(GUEST, "node-a", "node-b", [(play.volume, at_a)], soon())
    move = play.a.start(GUEST, "node-a", "node-b", [(play.volume, at_a)], soon())
    with pytest.raises(VolumeApiRefused, match="destination of a migration"):
        play.a.prepared(move.id, play.volume, at_a, soon())
    with pytest.raises(VolumeApiRefused, match="with keep"):
        play.b.abort(move.id, soon(), keep=Side.SOURCE)
    assert play.b.abort(move.id, soon()).state is State.DONE


def test_an_agent_reports_its_own_paths(play: Play) -> None:
    """Of its own host's attachments, and of no other's."""
    made = play.attach(A)
    seen = VolumePaths("v", play.volume, None, None, None, None, wanted=1, paths=())
    body = {"lunport:report_paths": format_path_report(seen)}
    path = f"/v3/attachments/{made}/action"
    answers = {name: one.post(path, body) for name, one in play.hosts.items()}
    assert {name: one.status for name, one in answers.items()} == {"node-a": 202, "node-b": 403}


def test_enrolling_by_the_command(run: Run) -> None:
    """It says what it did, and refuses what it cannot bind."""
    other = "iqn.2026-01.example:c"
    assert run(enrol, "add", "Node-C", "--initiator", other) == (
        0,
        f"Enrolled: host node-c with {other}.\n",
    )
    assert run(enrol, "add", "node-c", "--initiator", other)[1].startswith("It is enrolled")
    assert run(enrol, "add", "node-d", "--initiator", other)[0] == 4
    assert run(enrol, "add", "node d", "--initiator", other)[0] == 4  # 400, as Block Storage says
    assert run(enrol, "list")[1].count("\n") == 3
    assert len(json.loads(run(enrol, "list", "-o", "json")[1])) == 3
    assert run(enrol, "remove", "NODE-C") == (0, "Host NODE-C is enrolled no more.\n")
    assert run(enrol, "remove", "node-c")[0] == 3
