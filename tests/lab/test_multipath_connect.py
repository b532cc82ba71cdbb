"""Several paths of a volume on the real kernel: connected, completed, grown, disconnected."""

from __future__ import annotations

from collections.abc import Iterator
from concurrent.futures import ThreadPoolExecutor
from dataclasses import replace
from pathlib import Path

import pytest

from lab import faults, services
from lab.lio import MIB, Target
from lab.san import San
from lab.services import wait_until
from lunport.core.change import Change
from lunport.core.connection_info import ConnectionInfo
from lunport.core.errors import DeviceBusy, MultipathDown
from lunport.core.host_connection import connection_key
from lunport.core.path_status import PathState, VolumeState
from lunport.core.target_path import TargetPath
from lunport.host.clock import Deadline
from lunport.host.node_records import find_records_folder
from lunport.initiator.connector import Initiator
from lunport.initiator.multipath_policy import MultipathPolicy
from tests.lab.conftest import LabHost
from tests.lab.connecting import (
    CHAP,
    disks,
    first_bytes,
    info_of,
    mark,
    node_records,
    sessions,
)
from tests.lab.mishaps import Mishaps, mishaps
from tests.lab.multipath_play import (
    BOUND_S,
    POLICY,
    SIZE_MIB,
    Play,
    all_of,
    ask,
    await_usable,
    live_in,
    maps,
    maps_of,
    members,
    playing,
    portals_in,
    queues,
    registered,
    several_paths,
    size_of,
    usable,
    verified,
    why_not,
    without,
)
from tests.lab.traces import files_with

VOLUMES = 6
WORKERS = 6


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


# -- connect -----------------------------------------------------------------------------------


def test_a_map_is_handed_out_and_every_path_joins_it(play: Play) -> None:
    """The map has the volume's identity and content, and after completion all four paths."""
    content = mark(play.disk, "several paths")
    volume = play.connect()
    assert volume.map_name is not None
    assert (volume.change, volume.wwid, volume.note) == (Change.CHANGED, play.disk.wwid, None)
    assert volume.size_bytes == size_of(volume.map_name) == SIZE_MIB * MIB
    assert first_bytes(volume.path) == content
    assert len(volume.paths) == len(play.portals)
    assert len(play.left) == 1

    status = play.complete()

    everywhere = set(map(str, play.portals))
    assert (status.device, status.state) == (volume.map_name, VolumeState.OK)
    assert (live_in(status), portals_in(volume.map_name)) == (everywhere, everywhere)
    assert usable(volume.map_name) == everywhere
    assert {one.device for one in status.paths} == members(volume.map_name) == set(disks())
    again = play.connect()
    assert (again.change, again.path) == (Change.UNCHANGED, volume.path)
    assert live_in(play.complete()) == everywhere
    assert (len(sessions()), len(disks())) == (4, 4)
    with Path(volume.path).open("rb"), pytest.raises(DeviceBusy):
        play.initiator.disconnect(play.info, deadline=Deadline.after(BOUND_S))
    assert live_in(play.complete()) == everywhere
    play.disconnect()
    assert play.initiator.disconnect(play.info) is Change.UNCHANGED


@pytest.mark.parametrize(
    ("ready", "live"),
    [
        pytest.param(1, 1, marks=pytest.mark.again),
        (2, 2),
        pytest.param(None, 4, marks=pytest.mark.again),
    ],
)
def test_a_connect_waits_for_as_many_paths_as_it_is_told(
    play: Play, ready: int | None, live: int
) -> None:
    """First, some, or all of them; the rest is left to whoever lives on, and said so."""
    volume = play.connect(MultipathPolicy(ready=ready))
    assert volume.map_name is not None
    assert len(usable(volume.map_name)) >= live
    told = sum(one.state is PathState.LIVE for one in volume.paths)
    assert told >= live
    assert bool(play.left) == (told < len(play.portals))
    assert play.complete().live == len(play.portals)


def test_a_dead_portal_does_not_keep_a_connect_that_waits_for_all(play: Play) -> None:
    """The three others are live when it returns, the fourth has a reason, and joins later."""
    dead = play.portals[1]
    with faults.portal_drops(play.san, dead):
        volume = play.connect(MultipathPolicy(ready=None))
        status = play.status()
        assert live_in(status) == set(map(str, play.portals)) - {str(dead)}
        assert list(why_not(status)) == [str(dead)]
        assert why_not(status)[str(dead)]
        assert (status.state, status.wanted) == (VolumeState.DEGRADED, 4)
    assert volume.map_name is not None
    assert live_in(play.complete()) == usable(volume.map_name) == set(map(str, play.portals))


def test_nobody_needs_to_finish_what_a_connect_began(
    san: San, lab_host: LabHost, multipathd: object
) -> None:
    """Without an agent the other paths come by themselves, also with CHAP, and no secret stays."""
    assert multipathd
    with several_paths(san, lab_host, chap=CHAP) as play:
        alone = replace(play.initiator, host=replace(play.initiator.host, finish=None))
        volume = replace(play, initiator=alone).connect()
        assert volume.map_name is not None
        await_usable(volume.map_name, play.portals)
        wait_until(lambda: play.status().live == 4, "all paths in the status")
    assert files_with(CHAP.initiator.password.reveal()) == []


# -- without multipathd ------------------------------------------------------------------------


def test_without_multipathd_one_path_is_used_and_said_so(
    play: Play, multipathd: services.Multipathd
) -> None:
    """The result is a disk and not a map, with a note; where several are demanded it fails."""
    with without(multipathd):
        volume = play.initiator.connect(play.info, multipath=True)
        assert volume.map_name is None
        assert volume.note is not None
        assert "multipathd" in volume.note
        assert [volume.path] == [f"/dev/{name}" for name in disks()]
        assert first_bytes(volume.path)
        play.disconnect()

        demanding = replace(play.info, enforce_multipath=True)
        with pytest.raises(MultipathDown):
            play.initiator.connect(demanding, multipath=True)
        assert (sessions(), disks(), node_records()) == ([], [], [])
        assert play.initiator.connections() == ()
    assert play.connect().note is None


# -- discovery ---------------------------------------------------------------------------------


def test_all_portals_of_a_target_are_discovered_and_no_other_target_is_touched(
    san: San, lab_host: LabHost, multipathd: object
) -> None:
    """One portal is named, four are used; another target and its record stay as they were."""
    assert multipathd
    other = san.target("other", allowed=[lab_host.initiator])
    san.add_lun(other, 1)
    with (
        others_record(other) as (record, text),
        several_paths(san, lab_host) as play,
    ):
        asking = replace(play, info=discovering(play.info))
        volume = asking.connect()
        assert volume.map_name is not None
        status = asking.complete()
        assert live_in(status) == usable(volume.map_name) == set(map(str, san.portals))
        assert (len(sessions()), len(disks())) == (4, 4)
        assert record.read_text() == text
        asking.disconnect()
        assert record.read_text() == text


def test_an_array_with_a_target_for_each_portal_is_discovered_as_one(
    san: San, lab_host: LabHost, multipathd: object
) -> None:
    """Targets that show the volume join, and one that shows another disk at its LUN does not."""
    assert multipathd
    targets = [
        san.target(f"array-{number}", portals=[portal], allowed=[lab_host.initiator])
        for number, portal in enumerate(san.portals[:3])
    ]
    other = san.target("other", portals=san.portals[3:], allowed=[lab_host.initiator])
    san.add_lun(other, 1)
    disk = san.disk(size_mib=SIZE_MIB)
    for target in targets:
        target.map_lun(1, disk)
    info = discovering(info_of(targets[0], 1, disk))
    with playing(san, targets[0], disk, info) as play:
        volume = play.connect()
        assert volume.map_name is not None
        status = play.complete()
        wanted = set(map(str, san.portals[:3]))
        assert live_in(status) == usable(volume.map_name) == wanted
        assert (len(sessions()), len(disks())) == (3, 3)


def discovering(info: ConnectionInfo) -> ConnectionInfo:
    """Name the first path only, and ask for the others."""
    return replace(info, paths=info.paths[:1], target_discovered=True, is_complete=False)


class others_record:  # noqa: N801  (reads as the phrase it is)
    """Somebody else's node record of a target."""

    def __init__(self, target: Target) -> None:
        portal = target.portals[0]
        self.folder = find_records_folder() / target.iqn
        place = f"{portal.host},{portal.port},{target.tpgt}"
        self.file = self.folder / place / "default"
        self.text = (
            f"# BEGIN RECORD 2.1.8\nnode.name = {target.iqn}\nnode.tpgt = {target.tpgt}\n"
            f"node.startup = manual\nnode.conn[0].address = {portal.host}\n"
            f"node.conn[0].port = {portal.port}\n# END RECORD\n"
        )

    def __enter__(self) -> tuple[Path, str]:
        self.file.parent.mkdir(parents=True)
        self.file.write_text(self.text)
        return self.file, self.text

    def __exit__(self, *_: object) -> None:
        self.file.unlink()
        self.file.parent.rmdir()
        self.folder.rmdir()


# -- the right device --------------------------------------------------------------------------


@pytest.mark.parametrize("moment", ["before", "after the probe"])
def test_a_path_to_another_disk_never_joins(
    san: San, lab_host: LabHost, multipathd: object, at: Mishaps, moment: str
) -> None:
    """A target that shows another disk at the LUN is refused with both names, and left again."""
    assert multipathd
    right, wrong = (
        san.target(name, portals=portals, allowed=[lab_host.initiator])
        for name, portals in (("right", san.portals[:2]), ("wrong", san.portals[2:]))
    )
    disk, other = san.disk(size_mib=SIZE_MIB), san.disk(size_mib=SIZE_MIB)
    right.map_lun(1, disk)
    wrong.map_lun(1, disk)
    paths = (*san.paths(right, 1), *san.paths(wrong, 1))
    with playing(san, right, disk, ConnectionInfo(paths=paths, wwid=disk.wwid)) as play:
        if moment == "before":
            wrong.remap_lun(1, other)
            volume = play.connect()
            status = play.complete()
        else:
            volume = play.connect()
            at("session-noted", lambda: faults.wrong_identity(wrong, 1, other))
            status = play.at(at).complete()
        assert volume.map_name is not None
        wanted = set(map(str, san.portals[:2]))
        assert live_in(status) == portals_in(volume.map_name) == wanted
        assert set(why_not(status)) == set(map(str, san.portals[2:]))
        assert all(other.wwid in why for why in why_not(status).values()), status
        assert len(disks()) == 2
        at.heal()


# -- extend ------------------------------------------------------------------------------------


@pytest.mark.again
def test_a_map_grows_with_a_path_down_and_that_path_when_it_returns(
    san: San, lab_host: LabHost, multipathd: object
) -> None:
    """Live paths and map have the new size at once, the lost path once it is back."""
    assert multipathd
    with several_paths(san, lab_host, growable=True) as play:
        volume = play.connect_all()
        assert volume.map_name is not None
        with verified(play, volume) as writer:
            with faults.portal_drops(san, san.portals[2]):
                writer.await_rounds()
                await_usable(volume.map_name, [*san.portals[:2], san.portals[3]])
                play.disk.grow(2 * SIZE_MIB * MIB)
                for _ in range(2):
                    assert play.initiator.extend(play.info) == 2 * SIZE_MIB * MIB
                assert size_of(volume.map_name) == 2 * SIZE_MIB * MIB
                writer.await_rounds()
            play.heal(volume.map_name)
            assert {size_of(name) for name in members(volume.map_name)} == {2 * SIZE_MIB * MIB}
            assert size_of(volume.map_name) == 2 * SIZE_MIB * MIB
            writer.await_rounds()


# -- disconnect --------------------------------------------------------------------------------


def test_a_volume_goes_although_all_its_portals_are_dead(play: Play) -> None:
    """Nothing hangs where the map would queue: it is told to fail first; all is gone in time."""
    volume = play.connect_all()
    assert volume.map_name is not None
    assert queues(volume.map_name)
    with all_of(*(faults.portal_drops(play.san, portal) for portal in play.portals)):
        play.disconnect()
        assert (sessions(), disks(), node_records(), maps()) == ([], [], [], [])


@pytest.mark.again
def test_what_multipathd_forgot_or_never_had_goes_too(play: Play) -> None:
    """A path that it let go, a map that it let go, and disks that it never made a map of."""
    volume = play.connect_all()
    assert volume.map_name is not None
    forgotten = min(members(volume.map_name))
    assert ask(f"del path {forgotten}") == "ok"
    play.disconnect()
    assert (sessions(), disks(), maps()) == ([], [], [])

    volume = play.connect_all()
    assert volume.map_name is not None
    name = Path("/sys/block", volume.map_name, "dm/name").read_text().strip()
    wait_until(lambda: ask(f"del map {name}") == "ok", "multipathd to let the map go")
    assert (maps_of(play.disk.wwid), len(disks())) == ([], 4)
    play.disconnect()
    assert (sessions(), disks(), maps()) == ([], [], [])


def test_a_volume_goes_although_multipathd_was_killed(
    play: Play, multipathd: services.Multipathd
) -> None:
    """The kernel is asked instead, for the map and for everything below it."""
    play.connect_all()
    with without(multipathd, is_killed=True):
        play.disconnect()
        assert (sessions(), disks(), node_records(), maps()) == ([], [], [], [])


# -- several volumes ---------------------------------------------------------------------------


def test_volumes_of_shared_targets_come_and_go_at_once(
    san: San, lab_host: LabHost, multipathd: object
) -> None:
    """Some are disconnected while others connect over the same sessions; each is the right one."""
    assert multipathd
    targets = [
        san.target(f"shared-{number}", portals=san.portals[:2], allowed=[lab_host.initiator])
        for number in range(2)
    ]
    infos, contents = [], []
    for number in range(VOLUMES):
        target, lun = targets[number % 2], 1 + number // 2
        disk = san.add_lun(target, lun, size_mib=SIZE_MIB)
        contents.append(mark(disk, f"volume {number}"))
        infos.append(info_of(target, lun, disk))
    before = registered()
    initiator = Initiator(policy=POLICY)
    initiator = replace(initiator, host=replace(initiator.host, finish=lambda key: None))

    def connect(number: int) -> None:
        policy = MultipathPolicy(ready=None)
        volume = initiator.connect(infos[number], multipath=True, policy=policy)
        assert first_bytes(volume.path) == contents[number]
        assert len(volume.paths) == 2
        if any(one.why for one in volume.paths):
            # A busy multipathd takes longer than the connect waits for it.
            wait_until(lambda: has_all_paths(number), "all paths", BOUND_S)

    def has_all_paths(number: int) -> bool:
        status = initiator.complete(connection_key(infos[number]))
        return status is not None and status.state is VolumeState.OK

    def change(number: int) -> None:
        if number < VOLUMES // 2:
            initiator.disconnect(infos[number])
        else:
            connect(number)

    half = VOLUMES // 2
    with ThreadPoolExecutor(WORKERS) as pool:
        list(pool.map(connect, range(half)))
        # in turns one of those that go and one of those that come
        order = [
            number
            for pair in zip(range(half), range(half, VOLUMES), strict=True)
            for number in pair
        ]
        list(pool.map(change, order))
        assert len(maps()) == half
        list(pool.map(initiator.disconnect, infos[half:]))
    assert (sessions(), disks(), node_records(), maps()) == ([], [], [], [])
    assert (initiator.connections(), registered()) == ((), before)


# -- one path that follows its volume ----------------------------------------------------------


@pytest.mark.again
def test_one_path_moves_to_another_portal_when_its_own_dies(play: Play) -> None:
    """I/O waits and then goes on over an alternative, one session at a time."""
    policy = MultipathPolicy(resilient=True)
    without_agent = play.initiator.connect(play.info, multipath=False, policy=policy)
    assert without_agent.map_name is None
    assert "agent" in (without_agent.note or "")
    play.disconnect()
    watched = replace(play.initiator, host=replace(play.initiator.host, keeps_watch=True))
    volume = watched.connect(play.info, multipath=False, policy=policy)
    assert volume.map_name is not None
    (first,) = portals_in(volume.map_name)
    assert first == str(play.portals[0])
    assert (len(sessions()), len(disks()), play.status().wanted) == (1, 1, 1)
    assert {one.state for one in play.status().paths} == {PathState.LIVE, PathState.SPARE}
    with verified(play, volume) as writer:
        with faults.portal_drops(play.san, play.portals[0]):
            await_usable(volume.map_name, [])
            wait_until(lambda: play.complete().live == 1, "another path", BOUND_S)
            writer.await_rounds()
            assert len(usable(volume.map_name)) == 1
            assert usable(volume.map_name) != {first}
        writer.await_rounds()


def test_a_path_that_is_named_once_is_still_one(
    san: San, lab_host: LabHost, multipathd: object
) -> None:
    """With one path there is a map of one, and it is whole."""
    assert multipathd
    with several_paths(san, lab_host, portals=san.portals[:1]) as play:
        volume = play.connect()
        assert volume.map_name is not None
        assert (play.left, play.status().state) == ([], VolumeState.OK)
        assert first_bytes(volume.path)
        assert TargetPath(san.portals[0], play.target.iqn, 1) == volume.used
