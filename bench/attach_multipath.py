"""What ``make bench-attach`` measures of several paths, scenario by scenario. See bench/README.md.

Before each connect multipathd is started anew. Samples of one turn, in their order:

    connect              until the map is handed out; ``paths``: how many it has then
    all paths            from the same start until all that can be are live; ``missing``: are not;
                         ``programs`` and ``processes`` since the start, the background's too
    disconnect           with all paths live, and nothing running in the background
    disconnect at once   in other turns: right after the connect, whatever still runs then
"""

from __future__ import annotations

import time
from collections.abc import Callable, Mapping, Sequence
from typing import TYPE_CHECKING, Any

from bench.attach_counts import calibrate, settle
from bench.attach_maps import active_paths, fresh_multipathd, members, wait_for_paths
from bench.attach_multipath_demands import (
    ALL_PATHS,
    ALL_WAITED,
    AT_ONCE,
    DISCOVERED,
    MANY_OF_2,
    MANY_OF_4,
    MAP_OF_2,
    MAP_OF_4,
    SILENT_1,
    SILENT_3,
)
from bench.attach_samples import DIRECT, FLOOR, OS_BRICK, OURS
from bench.attach_worker import Volume
from lab.faults import portal_drops

if TYPE_CHECKING:
    from bench.attach_guest import Guest

MANY = 20
THREADS = 8
CAP_S = 60.0
OS_BRICK_SILENT_CAP_S = 240.0  # it takes some 130 s
MANY_CAP_S = 600.0
ALL_PATHS_S = 60.0
MANY_ALL_PATHS_S = 240.0
QUIET_S = 20.0

SEVERAL: Mapping[str, Any] = {"multipath": True}
ALL_AT_ONCE: Mapping[str, Any] = {"multipath": True, "ready": None}


def maps(guest: Guest) -> None:
    """Four portals, and two, with nothing wrong."""
    rounds = guest.rounds or 5
    for scenario, portals in ((MAP_OF_4, (1, 2, 3, 4)), (MAP_OF_2, (1, 2))):
        with guest.targets(f"maps-{len(portals)}", portals=portals) as (target,):
            volume = guest.volume(target)
            for number in range(rounds):
                for name in guest.in_turn(number, OS_BRICK, *OURS, FLOOR):
                    turn(guest, scenario, name, [volume], len(portals), number=number)
                for name in guest.in_turn(number, *OURS):
                    turn(guest, scenario, name, [volume], 0, number=number)
                if scenario == MAP_OF_4:
                    for name in guest.names(DIRECT):
                        turn(guest, ALL_WAITED, name, [volume], 4, number=number, how=ALL_AT_ONCE)


def discovered(guest: Guest) -> None:
    """One portal is named, the target says the other three."""
    with guest.targets("maps-discovered") as (target,):
        volume = guest.volume(target, discovery=True)
        for number in range(guest.rounds or 5):
            for name in guest.in_turn(number, OS_BRICK, *OURS):
                turn(guest, DISCOVERED, name, [volume], 4, number=number)


def silent(guest: Guest) -> None:
    """Packets to the first portal vanish, or to the first three; nobody knows beforehand."""
    with guest.targets("maps-silent") as (target,):
        volume = guest.volume(target)
        rounds = guest.rounds or 5

        def measure(scenario: str, live: int) -> None:
            # the background goes on trying the silent ones: that is not waited for
            order: dict[str, Any] = {"quiet_s": 0.0}
            for number in range(rounds):
                for name in guest.in_turn(number, *OURS):
                    turn(guest, scenario, name, [volume], live, number=number, **order)
            order["cap_s"] = OS_BRICK_SILENT_CAP_S
            for name in guest.names(OS_BRICK):  # one round: it takes minutes
                turn(guest, scenario, name, [volume], live, number=0, **order)

        first, second, third, _ = target.portals
        with portal_drops(guest.san, first):
            measure(SILENT_1, 3)
            with portal_drops(guest.san, second), portal_drops(guest.san, third):
                measure(SILENT_3, 1)
    guest.forget_dead_portals()


def many(guest: Guest) -> None:
    """Twenty volumes on twenty targets, over two portals and over four, from eight threads."""
    for scenario, portals in ((MANY_OF_2, (1, 2)), (MANY_OF_4, (1, 2, 3, 4))):
        with guest.targets(f"maps-many-{len(portals)}", MANY, portals) as targets:
            volumes = [guest.volume(target) for target in targets]
            for number in range(guest.rounds or 2):
                # os-brick takes minutes for its round: one is enough
                first = guest.names(OS_BRICK) if number == 0 else []
                for name in first + guest.names(*OURS, FLOOR):
                    turn(
                        guest,
                        scenario,
                        name,
                        volumes,
                        len(portals),
                        number=number,
                        threads=THREADS,
                        cap_s=MANY_CAP_S,
                        all_paths_s=MANY_ALL_PATHS_S,
                    )


def turn(
    guest: Guest,
    scenario: str,
    name: str,
    volumes: Sequence[Volume],
    wanted: int,
    *,
    number: int,
    how: Mapping[str, Any] = SEVERAL,
    threads: int = 1,
    cap_s: float = CAP_S,
    all_paths_s: float = ALL_PATHS_S,
    quiet_s: float = QUIET_S,
) -> None:
    """Connect and disconnect once; ``wanted`` paths are waited for, 0: disconnect at once.

    ``quiet_s``: how long the background has to end before the disconnect begins.
    """
    guest.forget_dead_portals()
    order: dict[str, Any] = {"how": how, "threads": threads, "cap_s": cap_s}
    with fresh_multipathd():
        note: dict[str, Any] = {"calib_ms": round(calibrate(), 1), "round": number}
        sample = guest.connect(scenario, name, volumes, note=note, **order)
        if sample["errors"]:
            note["after_failure"] = True
        elif wanted:
            _all_paths(guest, sample, wanted, all_paths_s, note)
            guest.wait_for_background(name, quiet_s)
            settle()
        note["background"] = guest.has_background(name)
        note["paths_before"] = [members(one["device"]) for one in _connected(sample)]
        what = "disconnect" if wanted else AT_ONCE
        guest.disconnect(scenario, name, volumes, what=what, note=note, **order)
        settle()


def _all_paths(
    guest: Guest, sample: Mapping[str, Any], wanted: int, limit_s: float, note: Mapping[str, Any]
) -> None:
    """Note when every map has all paths that it can have, and what was started for it."""
    devices = [one["device"] for one in _connected(sample)]
    wait_for_paths(devices, wanted, limit_s)
    seconds = time.monotonic() - sample["began"]
    more = guest.started(sample["who"])
    missing = sum(max(0, wanted - active_paths(device)) for device in devices)
    guest.emit(
        {
            "scenario": sample["scenario"],
            "who": sample["who"],
            "what": ALL_PATHS,
            "s": seconds,
            "commands": sample["commands"],
            "programs": _plus(sample["programs"], more.own),
            "processes": _plus(sample["processes"], more.machine),
            "volumes": [],
            "missing": missing,
            "errors": [f"{missing} paths did not come"] if missing else [],
            **note,
        }
    )


def _connected(sample: Mapping[str, Any]) -> list[Mapping[str, Any]]:
    return [one for one in sample["volumes"] if "device" in one]


def _plus(one: int | None, other: int | None) -> int | None:
    return None if one is None or other is None else one + other


SCENARIOS: Mapping[str, Callable[[Guest], None]] = {
    "maps": maps,
    "maps-discovered": discovered,
    "maps-many": many,
    "maps-silent": silent,
}
