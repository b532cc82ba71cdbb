"""The healer on the real kernel: lost paths come back by themselves, soon and without harm.

Each test has a volume behind several portals, whose paths somebody takes away or gives back.
Whatever the healer does, the writer sees no error, unless the test is about errors.
"""

from __future__ import annotations

import contextlib
from collections.abc import Iterator
from dataclasses import dataclass, replace
from pathlib import Path

import pytest

from lab import faults, services
from lab.san import San
from lab.services import wait_until
from lunport.agent.heal_acts import HealActs
from lunport.agent.healer import Healer
from lunport.core.change import Change
from lunport.core.host_connection import connection_key
from lunport.core.path_status import PathState, VolumePaths, VolumeState
from lunport.core.portal import Portal
from lunport.host.iscsi_events import IscsiEvents
from lunport.host.runner import run
from lunport.initiator.multipath_policy import MultipathPolicy
from tests.lab.conftest import LabHost
from tests.lab.connecting import sessions
from tests.lab.multipath_play import (
    Play,
    all_of,
    await_usable,
    portals_in,
    queues,
    session_to,
    several_paths,
    soon,
    state_of,
    usable,
    verified,
)

HEALED_S = 120.0  # seconds on any machine; how fast it is, `make bench-stall` measures
_SESSIONS = Path("/sys/class/iscsi_session")


@pytest.fixture(scope="module")
def multipathd(lab_host: LabHost) -> Iterator[services.Multipathd]:
    """Have multipathd run as Debian configures it."""
    with services.multipathd(find_multipaths="strict") as running:
        yield running


@dataclass(slots=True)
class Healed:
    """A volume that somebody looks after. ``seen``: what each look of the healer saw."""

    play: Play
    healer: Healer
    seen: list[tuple[VolumePaths, ...]]

    def connect(self, policy: MultipathPolicy | None = None) -> str:
        """Connect and wait for all paths, which nobody but the healer makes; name the map."""
        volume = self.play.connect(policy)
        assert volume.map_name is not None
        await_usable(volume.map_name, self.play.portals, HEALED_S)
        return volume.map_name

    def await_state(self, portal: Portal, state: PathState) -> str | None:
        """Wait until a path is shown so; return why."""

        def found() -> list[str | None]:
            return [
                one.why
                for one in self.play.status().paths
                if one.path.portal == portal and one.state is state
            ]

        wait_until(found, f"{portal} to be {state}", HEALED_S)
        return found()[0]


@contextlib.contextmanager
def healed(play: Play) -> Iterator[Healed]:
    """Have a healer look after a volume until the end of the test."""
    wishes: list[Healer] = []
    host = replace(play.initiator.host, keeps_watch=True, finish=lambda key: wishes[0].put(key))  # noqa: PLW0108
    initiator = replace(play.initiator, host=host)
    seen: list[tuple[VolumePaths, ...]] = []
    healer = Healer(initiator, on_look=seen.append)
    wishes.append(healer)
    healer.start()
    try:
        yield Healed(replace(play, initiator=initiator), healer, seen)
    finally:
        healer.stop()


@pytest.fixture
def four(san: San, lab_host: LabHost, multipathd: object) -> Iterator[Healed]:
    """A volume behind four portals, and a healer."""
    assert multipathd
    with several_paths(san, lab_host) as play, healed(play) as made:
        yield made


@pytest.fixture
def two(san: San, lab_host: LabHost, multipathd: object) -> Iterator[Healed]:
    """A volume behind two portals, and a healer."""
    assert multipathd
    with several_paths(san, lab_host, portals=san.portals[:2]) as play, healed(play) as made:
        yield made


def recovery_tmo(portal: Portal) -> str:
    """Read how long the session to a portal keeps I/O waiting."""
    return (_SESSIONS / session_to(portal) / "recovery_tmo").read_text().strip()


# -- paths ---------------------------------------------------------------------------------------


@pytest.mark.again
def test_paths_that_were_missing_at_the_connect_come(four: Healed) -> None:
    """After a connect that returned with one path, with one portal dead, the others follow."""
    play, dead = four.play, four.play.portals[1]
    with faults.portal_drops(play.san, dead):
        volume = play.connect()
        assert volume.map_name is not None
        await_usable(volume.map_name, [one for one in play.portals if one != dead], HEALED_S)
        why = four.await_state(dead, PathState.MISSING)
        assert why
    await_usable(volume.map_name, play.portals, HEALED_S)
    four.await_state(dead, PathState.LIVE)
    assert four.seen[-1][0].key == connection_key(play.info)


def test_a_portal_goes_and_comes_back(four: Healed) -> None:
    """A path that is lost under I/O is told with its reason, and is used again after its return."""
    play, lost = four.play, four.play.portals[2]
    name = four.connect()
    with verified(play, play.connect()) as writer:
        with faults.portal_drops(play.san, lost):
            await_usable(name, [one for one in play.portals if one != lost])
            assert four.await_state(lost, PathState.FAILED)
            writer.await_rounds()
        await_usable(name, play.portals, HEALED_S)
        four.await_state(lost, PathState.LIVE)
        writer.await_rounds()


def test_a_session_that_somebody_ended_is_made_again(four: Healed) -> None:
    """A path whose session is logged out under I/O is logged in again and is in the map again."""
    play, ended = four.play, four.play.portals[1]
    name = four.connect()
    before = session_to(ended)
    with verified(play, play.connect()) as writer:
        run(["iscsiadm", "-m", "session", "-r", before.removeprefix("session"), "-u"], soon())
        wait_until(lambda: session_to(ended) not in {"", before}, "another session", HEALED_S)
        await_usable(name, play.portals, HEALED_S)
        writer.await_rounds()
    assert len(sessions()) == len(play.portals)


@pytest.mark.again
def test_a_target_that_is_restarted_comes_back_with_all_paths(four: Healed) -> None:
    """While the target is away I/O waits; when it is back, it goes on over every path."""
    play = four.play
    name = four.connect()
    with verified(play, play.connect()) as writer:
        with faults.target_restarted(play.target):
            wait_until(lambda: usable(name) == set(), "every path to be lost", HEALED_S)
            assert play.status().state is VolumeState.DOWN
        await_usable(name, play.portals, HEALED_S)
        writer.await_rounds()


def test_what_multipathd_sets_at_its_start_is_put_back(
    two: Healed, multipathd: services.Multipathd
) -> None:
    """After multipathd was restarted, sessions and queueing are soon as we want them again."""
    play = two.play
    name = two.connect()

    def is_ours() -> bool:
        return queues(name) and {recovery_tmo(portal) for portal in play.portals} == {"0"}

    wait_until(is_ours, "our settings", HEALED_S)
    with verified(play, play.connect()) as writer:
        multipathd.restart()
        wait_until(is_ours, "our settings", HEALED_S)
        writer.await_rounds()


# -- none left -----------------------------------------------------------------------------------


def test_queueing_ends_at_its_bound_and_comes_back(two: Healed) -> None:
    """With all paths gone I/O waits as long as is said, then fails, and queues again later."""
    play = two.play
    policy = MultipathPolicy(queue_s=6.0)
    name = two.connect(policy)
    wait_until(lambda: queues(name), "the map to queue", HEALED_S)
    with verified(play, play.connect(policy), fails=True):
        with all_of(*(faults.portal_drops(play.san, portal) for portal in play.portals)):
            wait_until(lambda: usable(name) == set(), "every path to be lost", HEALED_S)
            assert queues(name)
            wait_until(lambda: not queues(name), "the end of queueing", HEALED_S)
        await_usable(name, play.portals, HEALED_S)
        wait_until(lambda: queues(name), "the map to queue again", HEALED_S)
    wait_until(lambda: two.play.status().state is VolumeState.OK, "all to be well", HEALED_S)


def test_a_volume_with_one_path_moves_to_another_portal(four: Healed) -> None:
    """A resilient attachment whose portal dies goes on over another one, without an error."""
    play = four.play
    volume = play.initiator.connect(
        play.info, policy=MultipathPolicy(resilient=True), deadline=soon()
    )
    name = volume.map_name
    assert name is not None
    first = play.portals[0]
    assert usable(name) == {str(first)}
    with verified(play, volume) as writer:
        with faults.portal_drops(play.san, first):
            wait_until(lambda: usable(name) - {str(first)}, "another path", HEALED_S)
            writer.await_rounds()
            wait_until(lambda: portals_in(name) == usable(name), "the old path to go", HEALED_S)
        writer.await_rounds()
        assert len(usable(name)) == 1


# -- sessions of others --------------------------------------------------------------------------


def test_only_a_session_of_ours_is_broken(two: Healed) -> None:
    """The connection of our session is killed on request; one that somebody else made is not."""
    play = two.play
    name = two.connect()
    acts = HealActs(play.initiator)
    ours = session_to(play.portals[0])
    sid = int(ours.removeprefix("session"))
    with IscsiEvents() as events:
        assert acts.break_off(sid) is Change.CHANGED
        wait_until(lambda: [one for one in events.take() if one.sid == sid], "its end", HEALED_S)
    wait_until(lambda: state_of(play.portals[0]) == "LOGGED_IN", "its return", HEALED_S)
    await_usable(name, play.portals, HEALED_S)

    journal = play.initiator.host.journal
    own = journal.get_session(play.portals[0], play.target.iqn)
    assert own is not None
    journal.remove_session(own.portal, own.iqn)  # as if it had been there before
    try:
        assert acts.break_off(sid) is Change.UNCHANGED
    finally:
        journal.write_session(own)
