"""Kills between any two calls that change something, and at any time among others at work."""

from __future__ import annotations

import random
import threading
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass, field

from lab.lio import Target
from lab.san import San
from lunport.core.connection_info import ConnectionInfo
from lunport.core.host_connection import Phase, connection_key
from lunport.initiator.connector import Initiator
from tests.lab.connecting import CHAP, disks, first_bytes, info_of, mark
from tests.lab.kill_play import Kill, Played, Player
from tests.lab.test_initiator_kills import assert_recovered, recover_late
from tests.lab.traces import files_with, take_traces
from tests.lab_stress.conftest import part_of

FEWEST_EFFECTS = 40
PLAY = "kill_play.py"  # which tells of each step, an effect of its own
ROUNDS = 50
LONGEST_S = 1.5


def effects(counted: Played) -> list[int]:
    """Choose among the numbers of the effects: all of them, or evenly as many as are wanted."""
    numbers = [number for number, effect in enumerate(counted.effects) if PLAY not in effect]
    wanted = part_of(len(numbers))
    return [numbers[index * len(numbers) // wanted] for index in range(wanted)]


def test_connect_killed_at_every_effect(san: San, player: Player) -> None:
    """Killed at any call that changes something, a connect leaves nothing, or is connected."""
    target = san.target(chap=CHAP)
    disk = san.add_lun(target, 1)
    content = mark(disk, "one")
    info = info_of(target, 1, disk, chap=CHAP)
    counted = player.play("connect", info, counts_effects=True)
    Initiator().disconnect(info)
    assert len(counted.effects) > FEWEST_EFFECTS
    for number in effects(counted):
        played = player.play("connect", info, Kill(at_effect=number))
        recover_late()
        end_connected(info, content)
        assert take_traces().are_none, (counted.effects[number], played)
    assert files_with(CHAP.initiator.password.reveal()) == []


def test_disconnect_killed_at_every_effect(san: San, player: Player) -> None:
    """Killed at any call that changes something, a disconnect is finished, or did nothing yet."""
    target = san.target(chap=CHAP)
    disk = san.add_lun(target, 1)
    content = mark(disk, "one")
    info = info_of(target, 1, disk, chap=CHAP)
    Initiator().connect(info)
    counted = player.play("disconnect", info, counts_effects=True)
    assert len(counted.effects) > FEWEST_EFFECTS // 2
    for number in effects(counted):
        Initiator().connect(info)
        played = player.play("disconnect", info, Kill(at_effect=number))
        recover_late()
        end_connected(info, content)
        assert take_traces().are_none, (counted.effects[number], played)


def end_connected(info: ConnectionInfo, content: bytes) -> None:
    """Disconnect a volume that recover found connected; it must be, and hold what it held."""
    if not Initiator().connections():
        return
    [name] = disks()
    assert first_bytes(f"/dev/{name}") == content
    Initiator().disconnect(info)


@dataclass(slots=True)
class Worker:
    """One volume, connected and disconnected by processes of its own, most of which are killed."""

    info: ConnectionInfo
    content: bytes
    recovering: threading.Lock
    chance: random.Random
    killed: list[Played] = field(default_factory=list)

    def work(self, rounds: int) -> None:
        """Go round; each ends with a recover, while the others go on."""
        with Player.started() as player:
            for _ in range(rounds):
                verb = self.chance.choice(["connect", "connect", "disconnect"])
                after_s = self.chance.uniform(0.001, LONGEST_S)
                played = player.play(verb, self.info, Kill(after_s=after_s))
                if played.is_killed:
                    self.killed.append(played)
                with self.recovering:
                    errors = [step.error for step in Initiator().recover() if step.error]
                assert errors == [], played
                self.look(played)
            Initiator().disconnect(self.info)

    def look(self, played: Played) -> None:
        """The volume is well connected, or it is not there."""
        entry = Initiator().host.journal.get(connection_key(self.info))
        if entry is not None:
            assert (entry.phase, entry.wwid) == (Phase.CONNECTED, self.info.wwid), played
            assert first_bytes(f"/dev/{entry.disk_name}") == self.content


def test_a_crowd_killed_at_any_time_leaves_nothing(san: San) -> None:
    """Workers on shared sessions, killed at any time, each with a recover while others work."""
    targets = [san.target(name, chap=CHAP) for name in ("t1", "t2")]
    recovering = threading.Lock()
    workers = [
        worker_on(san, target, lun, recovering) for target in targets for lun in (1, 2)
    ]  # fmt: skip
    with ThreadPoolExecutor(len(workers)) as pool:
        list(pool.map(lambda worker: worker.work(part_of(ROUNDS)), workers))
    recover_late()
    assert_recovered()
    assert take_traces().are_none
    assert sum(len(worker.killed) for worker in workers) > 0
    assert files_with(CHAP.initiator.password.reveal()) == []


def worker_on(san: San, target: Target, lun: int, recovering: threading.Lock) -> Worker:
    """Make a worker's volume."""
    disk = san.add_lun(target, lun)
    content = mark(disk, f"{target.iqn} {lun}")
    info = info_of(target, lun, disk, chap=CHAP)
    return Worker(info, content, recovering, random.Random(f"{target.iqn} {lun}"))
