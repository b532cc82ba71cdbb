"""What is demanded of several paths: beside os-brick's map, and beside our own healthy one.

A connect's time is until the map is handed out; what is counted is counted until all its paths
are live, whoever makes them, so that the background's work is in it.
"""

from __future__ import annotations

from collections.abc import Iterator

from bench.attach_samples import DIRECT, FIELDS, OS_BRICK, OURS, Samples, by
from bench.demand import Demand

MAP_OF_4, MAP_OF_2 = "map of 4", "map of 2"
ALL_WAITED = "map of 4, all waited for"
SILENT_1, SILENT_3 = "map of 4, 1 silent", "map of 4, 3 silent"
DISCOVERED = "map of 4, discovered"
MANY_OF_2, MANY_OF_4 = "20 maps of 2", "20 maps of 4"
ALL_PATHS, AT_ONCE = "all paths", "disconnect at once"

_CONNECT_BY_PEER = {
    MAP_OF_4: 0.3, MAP_OF_2: 0.4, DISCOVERED: 0.5, MANY_OF_2: 0.45, MANY_OF_4: 0.5,
}  # fmt: skip
_CONNECT_BY_HEALTHY = {SILENT_1: 1.2, SILENT_3: 1.5}
_DISCONNECT = 0.5
_PROGRAMS = {MAP_OF_4: 1 / 3, MAP_OF_2: 1 / 3, MANY_OF_4: 0.25}


def judge_multipath(samples: Samples) -> Iterator[Demand]:
    """Hold the samples of several paths against their demands."""
    for who in OURS:
        for scenario, limit in _CONNECT_BY_PEER.items():
            found = samples.ratio(scenario, who, "connect")
            yield Demand(f"{scenario}, {who}, handed out: time by os-brick's", found, limit)
        for scenario, limit in _CONNECT_BY_HEALTHY.items():
            healthy = samples.median(MAP_OF_4, who, "connect")
            found = by(samples.median(scenario, who, "connect"), healthy)
            yield Demand(f"{scenario}, {who}, handed out: time by that of {MAP_OF_4}", found, limit)
        for scenario in (MAP_OF_4, MAP_OF_2):
            yield from _judge_disconnect(samples, scenario, who)
        for scenario, limit in _PROGRAMS.items():
            yield from _judge_work(samples, scenario, who, limit)
        for scenario in (*_CONNECT_BY_PEER, *_CONNECT_BY_HEALTHY):
            yield from _judge_all_paths(samples, scenario, who)
    found = samples.median(ALL_WAITED, DIRECT, "connect")
    peer = samples.median(MAP_OF_4, OS_BRICK, "connect")
    yield Demand(f"{ALL_WAITED}: time by os-brick's", by(found, peer), 1.0, is_binding=False)


def _judge_disconnect(samples: Samples, scenario: str, who: str) -> Iterator[Demand]:
    # os-brick has all its logins behind it when it hands a map out: one figure of it for both
    peer = samples.median(scenario, OS_BRICK, "disconnect")
    for what in ("disconnect", AT_ONCE):
        found = by(samples.median(scenario, who, what), peer)
        yield Demand(f"{scenario}, {who}, {what}: time by os-brick's", found, _DISCONNECT)


def _judge_work(samples: Samples, scenario: str, who: str, limit: float) -> Iterator[Demand]:
    for field in ("programs", "processes"):
        ours, peer = (
            samples.sum(scenario, name, field, ALL_PATHS, "disconnect") for name in (who, OS_BRICK)
        )
        what = f"{scenario}, {who}, both, until all paths are live: {FIELDS[field]} by os-brick's"
        yield Demand(what, by(ours, peer), limit, is_binding=field == "programs")


def _judge_all_paths(samples: Samples, scenario: str, who: str) -> Iterator[Demand]:
    missing = [float(sample["missing"]) for sample in samples.of(scenario, who, ALL_PATHS)]
    yield Demand(f"{scenario}, {who}: paths that did not come", max(missing, default=None), 0.0)
    if scenario in _CONNECT_BY_PEER:
        found = samples.ratio(scenario, who, ALL_PATHS)
        what = f"{scenario}, {who}, all paths live: time by os-brick's"
        yield Demand(what, found, 1.0, is_binding=False)
