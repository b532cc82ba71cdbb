"""Kill -9 at every step of what makes, completes and takes down a map, and then a recover.

Killed are the steps that differ most from one another, at their first time; all effects are in
``tests/lab_stress``.
"""

from __future__ import annotations

from collections.abc import Iterator

import pytest

from lab import services
from lab.san import San
from lunport.core.connection_info import ConnectionInfo
from lunport.core.host_connection import connection_key
from tests.lab.conftest import LabHost
from tests.lab.connecting import CHAP, disks, first_bytes, mark, node_records, sessions
from tests.lab.kill_play import Kill, Player
from tests.lab.multipath_play import (
    Play,
    live_in,
    maps,
    maps_of,
    portals_in,
    registered,
    several_paths,
    usable,
    verified,
)
from tests.lab.test_initiator_kills import settle
from tests.lab.traces import files_with, take_traces


@pytest.fixture(scope="module")
def multipathd(lab_host: LabHost) -> Iterator[services.Multipathd]:
    """Have multipathd run as Debian configures it."""
    with services.multipathd(find_multipaths="strict") as running:
        yield running


@pytest.fixture(scope="module")
def player() -> Iterator[Player]:
    """The process that plays acts and is killed in their place."""
    with Player.started() as player:
        yield player


@pytest.fixture
def play(san: San, lab_host: LabHost, multipathd: object) -> Iterator[Play]:
    """A volume behind two portals, with CHAP."""
    assert multipathd
    with several_paths(san, lab_host, portals=san.portals[:2], chap=CHAP) as made:
        yield made


def assert_nothing(play: Play, known: set[str]) -> None:
    """There is no map, no session, no record, no registration and no secret."""
    assert (maps_of(play.disk.wwid), registered()) == ([], known)
    assert take_traces().are_none
    assert files_with(CHAP.initiator.password.reveal()) == []


def steps_of(player: Player, verb: str, info: ConnectionInfo) -> tuple[str, ...]:
    """Do something without a kill and list its steps, each name once."""
    played = player.play(verb, info, multipath=True)
    assert not played.is_killed
    return tuple(dict.fromkeys(played.steps))


def test_a_connect_killed_anywhere_leaves_nothing_or_a_map_that_works(
    play: Play, player: Player
) -> None:
    """After a recover there is nothing of it, or it is connected well, and the next one works."""
    known = registered()
    content = mark(play.disk, "killed")
    steps = steps_of(player, "connect", play.info)
    play.disconnect()
    assert {"connect-intended", "logged-in", "verified", "map-joined", "connect-noted"} <= {*steps}
    for step in steps:
        assert player.play("connect", play.info, Kill(step), multipath=True).is_killed
        settle()
        play.recover()
        if play.initiator.connections():
            assert first_bytes(f"/dev/{maps()[0]}") == content
            play.disconnect()
        assert_nothing(play, known)


@pytest.mark.again
def test_a_completion_killed_anywhere_leaves_the_map_in_use_as_it_is(
    play: Play, player: Player
) -> None:
    """I/O goes on; after a recover the next completion brings in the path, and it all goes."""
    known = registered()
    volume = play.connect()
    assert volume.map_name is not None
    with verified(play, volume) as writer:
        for step in ("record-written", "member-noted", "map-joined"):
            assert player.play("complete", play.info, Kill(step), multipath=True).is_killed
            play.recover()
            assert play.initiator.host.journal.get(connection_key(play.info)) is not None
            writer.await_rounds(writes_each=3)
        assert live_in(play.complete()) == set(map(str, play.portals))
        assert usable(volume.map_name) == portals_in(volume.map_name)
        assert (len(sessions()), len(disks()), len(node_records())) == (2, 2, 2)
    play.disconnect()
    assert_nothing(play, known)


def test_a_disconnect_killed_anywhere_is_finished(play: Play, player: Player) -> None:
    """After a recover the map and all of its paths are gone, whichever step was the last."""
    known = registered()
    for step in ("disconnect-intended", "map-removed", "disk-removed", "logged-out"):
        play.connect_all()
        assert player.play("disconnect", play.info, Kill(step)).is_killed
        play.recover()
        assert_nothing(play, known)
