"""Many cycles leave nothing behind, and many volumes make none of them dearer."""

from __future__ import annotations

from concurrent.futures import ThreadPoolExecutor

from lab.san import San
from lunport.initiator.connector import Initiator
from tests.lab.connecting import info_of
from tests.lab.test_initiator_cost import (
    WARM_UP,
    WORKERS,
    assert_no_growth,
    cycle,
    least_work_of,
    state_of_process,
)
from tests.lab.traces import take_traces
from tests.lab_stress.conftest import part_of

CYCLES_WITH_LOGIN = 250
CYCLES_ON_A_SESSION = 750
PRESENT = 500
TARGETS = 16


def test_a_thousand_cycles_leave_the_process_as_it_was(san: San) -> None:
    """Memory, threads and descriptors are the same after 1000 connects and disconnects."""
    target, other = (san.target(name, portals=san.portals[:1]) for name in ("t1", "t2"))
    keeper, info, lone = (
        info_of(where, lun, san.add_lun(where, lun))
        for where, lun in ((target, 1), (target, 2), (other, 1))
    )
    initiator = Initiator()
    initiator.connect(keeper)
    for one in (info, lone) * WARM_UP:
        cycle(initiator, one)
    before = state_of_process()
    for one, cycles in ((info, CYCLES_ON_A_SESSION), (lone, CYCLES_WITH_LOGIN)):
        for _ in range(part_of(cycles)):
            cycle(initiator, one)
    state_of_process().assert_is_as(before)
    initiator.disconnect(keeper)
    assert take_traces().are_none


def test_the_501st_volume_costs_what_the_first_cost(san: San) -> None:
    """With 500 volumes of 16 targets connected, neither verb does more than at first."""
    present = part_of(PRESENT)
    portal = san.portals[:1]
    lone, *targets = (san.target(f"t{number}", portals=portal) for number in range(TARGETS + 1))
    infos = [
        info_of(target, lun, san.add_lun(target, lun, size_mib=1))
        for lun in range(-(-present // TARGETS))
        for target in targets
    ]
    of_lone, of_shared = (
        info_of(target, 200, san.add_lun(target, 200, size_mib=1)) for target in (lone, targets[0])
    )
    Initiator().connect(infos[0])
    first = least_work_of((of_lone, of_shared))
    with ThreadPoolExecutor(WORKERS) as pool:
        list(pool.map(Initiator().connect, infos))
    assert len(take_traces().disks) == len(infos) >= present

    later = least_work_of((of_lone, of_shared))

    with ThreadPoolExecutor(WORKERS) as pool:
        list(pool.map(Initiator().disconnect, infos))
    assert take_traces().are_none
    for before, after in zip(first, later, strict=True):
        assert_no_growth(before, after)
