"""The faults of ``tests/lab/test_multipath_faults.py`` in loops, in any order and at any time."""

from __future__ import annotations

import contextlib
import random
import threading
from collections.abc import Callable, Iterator
from concurrent.futures import ThreadPoolExecutor
from contextlib import AbstractContextManager
from dataclasses import replace

import pytest

from lab import faults, services
from lab.lio import MIB
from lab.san import San
from lab.services import wait_until
from lunport.core.portal import Portal
from lunport.host.clock import Deadline
from lunport.initiator.connector import Initiator
from lunport.initiator.multipath_policy import MultipathPolicy
from tests.lab.conftest import LabHost
from tests.lab.connecting import CHAP, disks, first_bytes, info_of, mark, node_records, sessions
from tests.lab.kill_play import Kill, Player
from tests.lab.multipath_play import (
    BACK_S,
    POLICY,
    SIZE_MIB,
    Play,
    maps,
    maps_of,
    members,
    registered,
    several_paths,
    size_of,
    verified,
    without,
)
from tests.lab.test_multipath_faults import flap
from tests.lab.traces import files_with, take_traces
from tests.lab.verified_io import LIMIT_S
from tests.lab_stress.conftest import part_of

SEED = 20261121
FLAPS = 60
ROUNDS = 60
CYCLES = 40
VOLUMES = 50
WORKERS = 8
LONGEST_S = 4.0
KILLS_AT_ANY_TIME = 60
GROWTHS = 20
GROWTH_S = 30.0


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


def test_a_link_flaps_every_second_for_a_minute(play: Play) -> None:
    """Down and up all the while: the writer sees no error, and the path is back at the end."""
    flap(play, part_of(FLAPS))


# -- any fault at any time ---------------------------------------------------------------------


def unreachable(san: San, portal: Portal) -> AbstractContextManager[None]:
    """Have a portal answered for by ICMP."""
    return faults.portal_refuses(san, portal, by="icmp")


def any_fault(
    play: Play, multipathd: services.Multipathd, chance: random.Random
) -> AbstractContextManager[object]:
    """Choose what breaks next: some portals in one way, or something that they all depend on."""
    san = play.san
    of_portals: list[Callable[[San, Portal], AbstractContextManager[object]]] = [
        faults.portal_drops, faults.portal_refuses, faults.login_hangs,
        faults.portal_resets, faults.link_down, faults.link_flaps, unreachable,
    ]  # fmt: skip
    of_all: list[Callable[[], AbstractContextManager[None]]] = [
        lambda: faults.target_restarted(play.target),
        lambda: without(multipathd),
        lambda: without(multipathd, is_killed=True),
        services.without_iscsid,
        lambda: services.without_iscsid(is_killed=True),
    ]
    if chance.random() < 0.3:
        return chance.choice(of_all)()
    fault = chance.choice(of_portals)
    undo = contextlib.ExitStack()
    for portal in chance.sample(play.portals, chance.randint(1, len(play.portals))):
        undo.enter_context(fault(san, portal))
    return undo


def test_a_writer_outlives_any_faults_in_any_order(
    play: Play, multipathd: services.Multipathd
) -> None:
    """Each round something breaks for a while, while completions go on; no block is ever wrong."""
    chance = random.Random(SEED)
    volume = play.connect_all()
    assert volume.map_name is not None
    for _ in range(part_of(ROUNDS)):
        with verified(play, volume) as writer:
            with any_fault(play, multipathd, chance):
                until = Deadline.after(chance.uniform(0.1, LONGEST_S))
                wait_until(until.has_passed, "a while")
                if chance.random() < 0.5:
                    play.complete()
            writer.await_rounds(limit_s=BACK_S)
            play.heal(volume.map_name)


def test_connects_and_disconnects_while_portals_come_and_go(play: Play) -> None:
    """Each cycle is through whatever is alive: it connects, writes, and leaves nothing.

    Somebody watches, as an agent does: I/O waits when the only path yet is lost.
    """
    chance = random.Random(SEED)
    host = replace(play.initiator.host, keeps_watch=True)
    play = replace(play, initiator=replace(play.initiator, host=host))
    over = threading.Event()

    def break_portals() -> None:
        while not over.is_set():
            fault = chance.choice([faults.portal_drops, faults.portal_refuses, faults.link_down])
            # never the last one: that a volume can't be reached then is no failure
            with fault(play.san, chance.choice(play.portals[:3])):
                over.wait(chance.uniform(0.1, LONGEST_S))
            over.wait(chance.uniform(0.1, LONGEST_S))

    with ThreadPoolExecutor(1) as pool:
        breaking = pool.submit(break_portals)
        try:
            for _ in range(part_of(CYCLES)):
                volume = play.connect()
                with verified(play, volume) as writer:
                    play.complete()
                    writer.await_rounds()
                play.disconnect()
                assert (sessions(), disks(), node_records(), maps()) == ([], [], [], [])
        finally:
            over.set()
        breaking.result()


def test_the_unit_grows_while_portals_come_and_go(
    san: San, lab_host: LabHost, multipathd: services.Multipathd
) -> None:
    """Live paths grow at once, those that were away when they return; no block is ever wrong."""
    chance = random.Random(SEED)
    with several_paths(san, lab_host, growable=True) as play:
        volume = play.connect_all()
        assert volume.map_name is not None
        limit_s = LIMIT_S + GROWTH_S * part_of(GROWTHS)
        with verified(play, volume, limit_s=limit_s) as writer:
            for times in range(2, 2 + part_of(GROWTHS)):
                size_bytes = times * SIZE_MIB * MIB
                fault = chance.choice([faults.portal_drops, faults.portal_refuses])
                with fault(san, chance.choice(play.portals)):
                    play.disk.grow(size_bytes)
                    assert play.initiator.extend(play.info) == size_bytes
                    writer.await_rounds(limit_s=BACK_S)
                play.heal(volume.map_name)
                names = {volume.map_name, *members(volume.map_name)}
                assert {size_of(name) for name in names} == {size_bytes}


# -- kills -------------------------------------------------------------------------------------


@pytest.mark.parametrize("verb", ["connect", "complete", "extend", "disconnect"])
def test_killed_at_every_effect_nothing_is_left(
    san: San, lab_host: LabHost, multipathd: object, verb: str
) -> None:
    """Killed at any call that changes something, a map is whole or gone after a recover."""
    assert multipathd
    known = registered()
    with (
        several_paths(san, lab_host, portals=san.portals[:2], chap=CHAP, growable=True) as play,
        Player.started() as player,
    ):
        content = mark(play.disk, "killed")
        for number in effects_of(play, player, verb):
            begin(play, verb, size_mib := SIZE_MIB + 2 + number)
            player.play(verb, play.info, Kill(at_effect=number), multipath=True)
            play.recover()
            if verb == "extend":
                assert play.initiator.extend(play.info) == size_mib * MIB
            if play.initiator.connections():
                assert first_bytes(f"/dev/{maps()[0]}") == content
                play.complete()
                play.disconnect()
            assert take_traces().are_none, number
            assert (maps_of(play.disk.wwid), registered()) == ([], known), number
    assert files_with(CHAP.initiator.password.reveal()) == []


def begin(play: Play, verb: str, size_mib: int = SIZE_MIB) -> None:
    """Have what a verb begins with; ``size_mib``: what an extend comes to."""
    if verb == "complete":
        play.connect()
    elif verb in ("disconnect", "extend"):
        play.connect_all()
    if verb == "extend":
        play.disk.grow(size_mib * MIB)


def effects_of(play: Play, player: Player, verb: str) -> list[int]:
    """Choose among the numbers of a verb's effects: all of them, or evenly as many as wanted."""
    begin(play, verb, SIZE_MIB + 1)
    counted = player.play(verb, play.info, counts_effects=True, multipath=True)
    play.disconnect()
    numbers = [n for n, effect in enumerate(counted.effects) if "kill_play.py" not in effect]
    wanted = part_of(len(numbers))
    return [numbers[index * len(numbers) // wanted] for index in range(wanted)]


def test_killed_at_any_time_beside_a_writer_nothing_is_left(
    san: San, lab_host: LabHost, multipathd: object
) -> None:
    """One volume is written to all the while; another of the same sessions is killed at will."""
    assert multipathd
    chance = random.Random("beside a writer")
    with (
        several_paths(san, lab_host) as stays,
        Player.started() as player,
    ):
        volume = stays.connect_all()
        disk = san.add_lun(stays.target, 2, size_mib=SIZE_MIB)
        info = info_of(stays.target, 2, disk)
        with verified(stays, volume) as writer:
            for _ in range(part_of(KILLS_AT_ANY_TIME)):
                verb = chance.choice(["connect", "connect", "disconnect"])
                kill = Kill(after_s=chance.uniform(0.001, 2.0))
                player.play(verb, info, kill, multipath=True)
                stays.recover()
                writer.await_rounds(writes_each=3)
            stays.initiator.disconnect(info)
            assert maps_of(disk.wwid) == []


# -- many --------------------------------------------------------------------------------------


def test_fifty_volumes_over_four_portals_come_and_go(
    san: San, lab_host: LabHost, multipathd: object
) -> None:
    """Connected at once by several threads, all paths live, each the right disk; then all gone."""
    assert multipathd
    targets = [san.target(f"many-{number}", allowed=[lab_host.initiator]) for number in range(5)]
    known = registered()
    infos, contents = [], []
    for number in range(part_of(VOLUMES)):
        target, lun = targets[number % len(targets)], 1 + number // len(targets)
        disk = san.add_lun(target, lun, size_mib=1)
        contents.append(mark(disk, f"volume {number}"))
        infos.append(info_of(target, lun, disk))
    initiator = Initiator(policy=replace(POLICY, budget_s=600.0))
    initiator = replace(initiator, host=replace(initiator.host, finish=lambda key: None))

    def connect(number: int) -> None:
        policy = MultipathPolicy(ready=None)
        volume = initiator.connect(infos[number], multipath=True, policy=policy)
        assert first_bytes(volume.path) == contents[number]
        assert [one.why for one in volume.paths] == [None] * len(san.portals)

    def leave_or_come(leaves: int, comes: int) -> None:
        initiator.disconnect(infos[leaves])
        connect(comes)

    with ThreadPoolExecutor(WORKERS) as pool:
        half = len(infos) // 2
        list(pool.map(connect, range(half)))
        # by turns one of those that go and one of those that come
        list(pool.map(leave_or_come, range(half), range(half, 2 * half)))
        assert len(maps()) == half
        list(pool.map(connect, range(half)))
        assert len(maps()) == 2 * half
        list(pool.map(initiator.disconnect, infos))
    assert (sessions(), disks(), node_records(), maps()) == ([], [], [], [])
    assert (initiator.connections(), registered()) == ((), known)
