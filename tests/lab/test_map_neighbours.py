"""What a map must not take from others, and what it owes to nobody but itself.

Plain disks on its sessions, portals that other volumes know, and a multipathd that waits longer
than is asked for or does not run.
"""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import replace
from pathlib import Path

import pytest

from lab import faults, services
from lab.san import San
from lab.services import wait_until
from lunport.core.path_status import VolumeState
from lunport.core.portal import Portal
from lunport.host.runner import run
from lunport.initiator.multipath_policy import MultipathPolicy
from tests.lab.conftest import LabHost
from tests.lab.connecting import info_of
from tests.lab.multipath_play import (
    BACK_S,
    live_in,
    members,
    portals_in,
    queues,
    read,
    session_to,
    several_paths,
    soon,
    usable,
    without,
)

_SESSIONS = Path("/sys/class/iscsi_session")
_BLOCK = Path("/sys/block")


@pytest.fixture(scope="module")
def multipathd(lab_host: LabHost) -> Iterator[services.Multipathd]:
    """Have multipathd run as Debian configures it."""
    with services.multipathd(find_multipaths="strict") as running:
        yield running


def patience_of(portal: Portal) -> str:
    """Read how long the session to a portal keeps I/O waiting."""
    return read(_SESSIONS / session_to(portal) / "recovery_tmo")


def test_a_plain_disk_keeps_its_patience_beside_a_map(
    san: San, lab_host: LabHost, multipathd: object
) -> None:
    """The session that both use waits for the plain disk; the other one lets go at once."""
    assert multipathd
    shared, other = san.portals[:2]
    with several_paths(san, lab_host, portals=[shared, other]) as play:
        plain = info_of(play.target, 2, san.add_lun(play.target, 2), portals=[shared])
        play.initiator.connect(plain)
        before = patience_of(shared)
        assert int(before) > 5
        play.connect_all()
        assert (patience_of(shared), patience_of(other)) == (before, "0")
        play.initiator.disconnect(plain)
        play.complete()
        play.disconnect()

        # and when the map was there before
        play.connect_all()
        assert (patience_of(shared), patience_of(other)) == ("0", "0")
        play.initiator.connect(plain)
        assert patience_of(shared) == before
        play.disconnect()
        assert patience_of(shared) == before
        play.initiator.disconnect(plain)


def test_a_short_wait_needs_an_agent(san: San, lab_host: LabHost, multipathd: object) -> None:
    """A map whose I/O may wait less than multipathd would have it does not queue, and says so."""
    assert multipathd
    with several_paths(san, lab_host, portals=san.portals[:1]) as play:
        volume = play.connect(MultipathPolicy(queue_s=5.0))
        assert volume.map_name is not None
        assert not queues(volume.map_name)
        assert "fails at once" in (volume.note or "")


def test_a_failed_path_is_used_again_without_multipathd(
    san: San, lab_host: LabHost, multipathd: services.Multipathd
) -> None:
    """While multipathd does not run the kernel itself is told that a path is good again."""
    with several_paths(san, lab_host, portals=san.portals[:2]) as play:
        name = play.connect_all().map_name
        assert name is not None
        with without(multipathd):
            number = read(_BLOCK / min(members(name)) / "dev")
            called = read(_BLOCK / name / "dm/name")
            run(["dmsetup", "message", called, "0", f"fail_path {number}"], soon())
            assert len(usable(name)) == 1
            assert live_in(play.complete()) == set(map(str, play.portals))
            assert len(usable(name)) == 2


def test_the_portals_that_other_volumes_know_are_asked(
    san: San, lab_host: LabHost, multipathd: object
) -> None:
    """A driver names one portal; it is discovered, and where it is dead the known ones serve."""
    assert multipathd
    with several_paths(san, lab_host) as play:
        one = replace(play, info=replace(play.info, paths=play.info.paths[:1]))
        name = one.connect().map_name
        assert name is not None
        wait_until(lambda: one.complete().state is VolumeState.OK, "all paths", BACK_S)
        assert portals_in(name) == set(map(str, san.portals))
        second = info_of(play.target, 2, san.add_lun(play.target, 2), portals=san.portals[:1])
        with faults.portal_drops(san, san.portals[0]):
            volume = play.initiator.connect(second, multipath=True, deadline=soon())
            assert volume.map_name is not None
            assert volume.used.portal in san.portals[1:]
            assert {path.path.portal for path in volume.paths} == set(san.portals)
            play.initiator.disconnect(second, deadline=soon())
