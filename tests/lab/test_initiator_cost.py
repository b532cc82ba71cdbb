"""What a connect costs does not grow with what is connected, and cycles leave nothing behind.

Counted is work, not time: files opened, folders listed, programs started, sysfs accesses.
"""

from __future__ import annotations

import contextlib
import functools
import gc
import threading
from collections import Counter
from collections.abc import Sequence
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass
from pathlib import Path

from lab.san import San
from lunport.core.connection_info import ConnectionInfo
from lunport.host.systree import SysTree
from lunport.initiator.connector import Initiator
from lunport.initiator.initiator_host import InitiatorHost
from tests.lab.connecting import info_of
from tests.lab.traces import take_traces
from tests.lab.work_done import counted_work

PRESENT = 64
WORKERS = 2
ROUNDS = 2
CYCLES = 25
WARM_UP = 3
GROWTH = 1.2
# Accesses of one more look at a disk that is not ready yet: chance, and not of the volumes' number.
ONE_LOOK = 5
# What the allocator keeps for threads that come and go; it does not grow with the cycles.
KIB_OF_NOISE = 4096
OBJECTS_OF_NOISE = 100


def work_of(verb: str, info: ConnectionInfo) -> Counter[str]:
    """Do a connect or disconnect and say what it cost."""
    sys = SysTree()
    initiator = Initiator(InitiatorHost(sys=sys))
    with counted_work() as work:
        if verb == "connect":
            initiator.connect(info)
        else:
            initiator.disconnect(info)
    return work + Counter(
        {"sysfs reads": sys.reads, "sysfs lists": sys.lists, "sysfs writes": sys.writes}
    )


def least_work_of(infos: Sequence[ConnectionInfo]) -> list[Counter[str]]:
    """Say what a connect and a disconnect of each volume cost.

    The least of some rounds: how often a disk is looked at until it is ready is chance.
    """
    rounds = [
        [work_of(verb, info) for info in infos for verb in ("connect", "disconnect")]
        for _ in range(ROUNDS)
    ]
    return [functools.reduce(Counter.__and__, works) for works in zip(*rounds, strict=True)]


def assert_no_growth(first: Counter[str], later: Counter[str]) -> None:
    """Compare kind by kind. Who has a disk open is looked for in all programs: not compared."""
    assert later["programs"] == first["programs"], (first, later)
    for kind in sorted(first.keys() | later.keys()):
        if not kind.startswith("proc "):
            assert later[kind] <= GROWTH * first[kind] + ONE_LOOK, (kind, first, later)


def test_the_65th_volume_costs_what_the_first_cost(san: San) -> None:
    """With 64 volumes connected, neither verb does more than at first, with and without login."""
    targets = [san.target(f"t{number}", portals=san.portals[:1]) for number in range(5)]
    lone, shared, *_ = targets
    infos = [
        info_of(target, lun, san.add_lun(target, lun, size_mib=1))
        for lun in range(PRESENT // 4)
        for target in targets[1:]
    ]
    of_lone, of_shared = (
        info_of(target, 200, san.add_lun(target, 200, size_mib=1)) for target in (lone, shared)
    )
    # One session is there in both cases, so that its login is in neither.
    Initiator().connect(infos[0])
    first = least_work_of((of_lone, of_shared))
    with ThreadPoolExecutor(WORKERS) as pool:
        list(pool.map(Initiator().connect, infos))
    assert len(take_traces().disks) == PRESENT

    later = least_work_of((of_lone, of_shared))

    with ThreadPoolExecutor(WORKERS) as pool:
        list(pool.map(Initiator().disconnect, infos))
    assert take_traces().are_none
    for before, after in zip(first, later, strict=True):
        assert_no_growth(before, after)


def test_cycles_leave_memory_threads_and_descriptors_as_they_were(san: San) -> None:
    """25 connects and disconnects, each with its login: this process is as it was before."""
    target = san.target(portals=san.portals[:1])
    info = info_of(target, 1, san.add_lun(target, 1))
    initiator = Initiator()
    for _ in range(WARM_UP):
        cycle(initiator, info)
    before = state_of_process()
    for _ in range(CYCLES):
        cycle(initiator, info)
    state_of_process().assert_is_as(before)
    assert take_traces().are_none


def cycle(initiator: Initiator, info: ConnectionInfo) -> None:
    """Connect and disconnect."""
    initiator.connect(info)
    initiator.disconnect(info)


@dataclass(frozen=True, slots=True)
class ProcessState:
    """What could leak: threads, what each descriptor is, objects of Python, resident memory."""

    threads: int
    descriptors: list[str]
    objects: int
    rss_kib: int

    def assert_is_as(self, before: ProcessState) -> None:
        """Compare with the state before some cycles, however many they were."""
        assert (self.threads, self.descriptors) == (before.threads, before.descriptors)
        assert self.objects - before.objects < OBJECTS_OF_NOISE
        assert self.rss_kib - before.rss_kib < KIB_OF_NOISE


def state_of_process() -> ProcessState:
    """Look at this process."""
    gc.collect()
    status = Path("/proc/self/status").read_text()
    rss = next(line for line in status.splitlines() if line.startswith("VmRSS:"))
    return ProcessState(
        threads=threading.active_count(),
        descriptors=descriptors_of_process(),
        objects=len(gc.get_objects()),
        rss_kib=int(rss.split()[1]),
    )


def descriptors_of_process() -> list[str]:
    """List what is open, by kind: numbers of inodes and pipes differ each time."""
    found = []
    for link in Path("/proc/self/fd").iterdir():
        with contextlib.suppress(FileNotFoundError):  # the listing's own
            found.append(str(link.readlink()).partition(":[")[0])
    return sorted(found)
