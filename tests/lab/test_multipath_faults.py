"""What several paths are for: whatever breaks, a writer that checks every block sees no error.

Each test ends with a disconnect that leaves nothing, with the writer's own last look at all it
wrote, and with a look at the file behind the SAN. Loops over all of this are in
``tests/lab_stress``.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator
from contextlib import AbstractContextManager

import pytest

from lab import faults, services
from lab.lio import MIB
from lab.san import San
from lab.services import wait_until
from lunport.core.path_status import VolumeState
from lunport.core.portal import Portal
from lunport.host.clock import Deadline
from tests.lab.conftest import LabHost
from tests.lab.kill_play import Kill, Player
from tests.lab.mishaps import Mishaps, mishaps
from tests.lab.multipath_play import (
    BACK_S,
    BOUND_S,
    SIZE_MIB,
    Play,
    all_of,
    await_usable,
    live_in,
    members,
    portals_in,
    several_paths,
    size_of,
    verified,
    without,
)
from tests.lab.verified_io import LIMIT_S

FLAPS = 8
RESETS = 2
Fault = Callable[[San, Portal], AbstractContextManager[None]]
FAULTS: dict[str, Fault] = {
    "drops": faults.portal_drops,
    "refuses": faults.portal_refuses,
}


@pytest.fixture(scope="module")
def multipathd(lab_host: LabHost) -> Iterator[services.Multipathd]:
    """Have multipathd run as Debian configures it."""
    with services.multipathd(find_multipaths="strict") as running:
        yield running


@pytest.fixture
def play(san: San, lab_host: LabHost, multipathd: object) -> Iterator[Play]:
    """A volume behind four portals."""
    assert multipathd
    with several_paths(san, lab_host) as made:
        yield made


@pytest.fixture
def at() -> Iterator[Mishaps]:
    """Mishaps at steps of the connect."""
    with mishaps() as made:
        yield made


def all_but(portals: list[Portal], *lost: Portal) -> list[Portal]:
    """List the portals that are not lost."""
    return [portal for portal in portals if portal not in lost]


# -- portals -----------------------------------------------------------------------------------


@pytest.mark.parametrize("fault", FAULTS.values(), ids=FAULTS)
def test_a_portal_is_lost_before_and_after_a_connect(play: Play, fault: Fault) -> None:
    """Neither the main portal before, nor one in use later, costs more than its own path."""
    main, later = play.portals[0], play.portals[2]
    with fault(play.san, main):
        volume = play.connect()
        assert volume.map_name is not None
        with verified(play, volume) as writer:
            assert live_in(play.complete()) == set(map(str, all_but(play.portals, main)))
            writer.await_rounds()
    with verified(play, volume) as writer:
        play.heal(volume.map_name)
        with fault(play.san, later):
            await_usable(volume.map_name, all_but(play.portals, later))
            writer.await_rounds()
        play.heal(volume.map_name)
        writer.await_rounds()


@pytest.mark.parametrize(
    "step", [pytest.param("record-written", marks=pytest.mark.again), "map-joined"]
)
def test_the_main_portal_is_lost_during_a_connect(play: Play, at: Mishaps, step: str) -> None:
    """Whatever was done through it by then, the volume is connected, and I/O goes on."""
    main = play.portals[0]
    at(step, lambda: faults.portal_drops(play.san, main))
    volume = play.at(at).connect()
    assert volume.map_name is not None
    play.complete()
    with verified(play, volume) as writer:
        await_usable(volume.map_name, all_but(play.portals, main))
        writer.await_rounds()
        at.heal()
        play.heal(volume.map_name)


def test_a_portal_is_lost_while_the_paths_are_completed(play: Play, at: Mishaps) -> None:
    """The one that is just logged in to goes: the others join, and it does when it is back."""
    volume = play.connect()
    assert volume.map_name is not None
    (used,) = portals_in(volume.map_name)
    lost = next(portal for portal in play.portals if str(portal) != used)
    with verified(play, volume) as writer:
        at("logged-in", lambda: faults.portal_refuses(play.san, lost))
        play.at(at).complete()
        await_usable(volume.map_name, all_but(play.portals, lost))
        writer.await_rounds()
        at.heal()
        play.heal(volume.map_name)


def test_all_portals_but_one_are_lost(play: Play) -> None:
    """The last one carries everything, and the others come back."""
    volume = play.connect_all()
    assert volume.map_name is not None
    last = play.portals[3]
    with verified(play, volume) as writer:
        lost = all_but(play.portals, last)
        with all_of(*(faults.portal_drops(play.san, portal) for portal in lost)):
            await_usable(volume.map_name, [last])
            writer.await_rounds()
            assert live_in(play.status()) == {str(last)}
        play.heal(volume.map_name)
        writer.await_rounds()


def test_all_portals_are_lost_and_return_within_the_bound(play: Play) -> None:
    """I/O waits, verbs end in time, and I/O goes on without an error once a portal is back."""
    volume = play.connect_all()
    assert volume.map_name is not None
    with verified(play, volume) as writer:
        with all_of(*(faults.portal_drops(play.san, portal) for portal in play.portals)):
            await_usable(volume.map_name, [])
            deadline = Deadline.after(BOUND_S)
            assert play.status().state is play.complete().state is VolumeState.DOWN
            assert not deadline.has_passed()
            writer.await_silence(2.0, limit_s=30)
        writer.await_rounds(limit_s=BACK_S)
        play.heal(volume.map_name)


def test_connections_are_reset(play: Play) -> None:
    """A reset is over at once; where it happens again and again the other paths are used."""
    volume = play.connect_all()
    assert volume.map_name is not None
    with verified(play, volume) as writer:
        with (
            faults.portal_resets(play.san, play.portals[0]) as count,
            faults.portal_resets(play.san, play.portals[1]),
        ):
            wait_until(lambda: count() > RESETS, "resets")
            writer.await_rounds()
        play.heal(volume.map_name)


def test_a_link_that_flaps_disturbs_nobody(play: Play) -> None:
    """Down and up every second: its path may be of use or not, the others are."""
    flap(play, FLAPS)


def flap(play: Play, times: int) -> None:
    """Write while a link goes down and up again and again."""
    volume = play.connect_all()
    assert volume.map_name is not None
    within_s = 4 * times + BACK_S  # a busy machine is late with each
    with verified(play, volume, limit_s=LIMIT_S + within_s) as writer:
        with faults.link_flaps(play.san, play.portals[1]) as count:
            wait_until(lambda: count() >= times, "the link to flap", within_s)
            writer.await_rounds()
        play.heal(volume.map_name)


# -- what is behind the portals ----------------------------------------------------------------


def test_the_target_is_restarted(play: Play) -> None:
    """All sessions end and logins are refused for a while; I/O waits and goes on."""
    volume = play.connect_all()
    assert volume.map_name is not None
    with verified(play, volume) as writer:
        with faults.target_restarted(play.target):
            writer.await_silence(2.0, limit_s=30)
        writer.await_rounds(limit_s=BACK_S)
        play.heal(volume.map_name)


def test_the_unit_is_resized_under_a_writer(
    san: San, lab_host: LabHost, multipathd: object
) -> None:
    """The map has the new size on every path, and what is written is written."""
    assert multipathd
    with several_paths(san, lab_host, growable=True) as play:
        volume = play.connect_all()
        assert volume.map_name is not None
        with verified(play, volume) as writer:
            for times in (2, 3):
                play.disk.grow(times * SIZE_MIB * MIB)
                writer.await_rounds()
                assert play.initiator.extend(play.info) == times * SIZE_MIB * MIB
                writer.await_rounds()
                names = {volume.map_name, *members(volume.map_name)}
                assert {size_of(name) for name in names} == {times * SIZE_MIB * MIB}


# -- who serves us on this host ----------------------------------------------------------------


def test_multipathd_is_killed_and_restarted(play: Play, multipathd: services.Multipathd) -> None:
    """While it is away a path is lost: the kernel goes on; once it is back all is as before."""
    volume = play.connect_all()
    assert volume.map_name is not None
    lost = play.portals[1]
    with verified(play, volume) as writer:
        with without(multipathd, is_killed=True):
            with faults.portal_refuses(play.san, lost):
                await_usable(volume.map_name, all_but(play.portals, lost))
                writer.await_rounds()
            writer.await_rounds()
        play.heal(volume.map_name)
        multipathd.restart()
        writer.await_rounds()
        play.heal(volume.map_name)


@pytest.mark.parametrize(
    "is_killed", [True, pytest.param(False, marks=pytest.mark.again)], ids=["killed", "ended"]
)
def test_iscsid_ends_and_comes_back(play: Play, is_killed: bool) -> None:
    """Without it no path returns, and none is lost; once it is back, those that broke are made."""
    volume = play.connect_all()
    assert volume.map_name is not None
    lost = play.portals[1]
    with verified(play, volume) as writer:
        with services.without_iscsid(is_killed=is_killed):
            writer.await_rounds()
            with faults.portal_refuses(play.san, lost):
                writer.await_rounds()
        writer.await_rounds()
        play.heal(volume.map_name)


@pytest.mark.again
def test_the_library_is_killed_while_a_portal_is_dead(play: Play) -> None:
    """The map is not its process's: I/O goes on, and whoever comes next completes it."""
    volume = play.connect()
    assert volume.map_name is not None
    with Player.started() as player, verified(play, volume) as writer:
        with faults.portal_drops(play.san, play.portals[3]):
            played = player.play("complete", play.info, Kill("map-joined"), multipath=True)
            assert played.is_killed
            play.recover()
            writer.await_rounds()
        play.heal(volume.map_name)
