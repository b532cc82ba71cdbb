"""What the measurements make of samples: medians, ratios, verdicts, the README's results."""

from __future__ import annotations

from typing import Any

import pytest

from bench.attach_maps import count_active
from bench.attach_multipath_demands import (
    ALL_PATHS,
    AT_ONCE,
    MAP_OF_4,
    SILENT_1,
    SILENT_3,
    judge_multipath,
)
from bench.attach_samples import DIRECT, LUNPORT, OS_BRICK, Samples, by
from bench.demand import Demand
from bench.readme import replaced
from bench.stall_report import DEFAULT, DROPPED, FAST, NEVER_S, RESET, STALL, broken, judge, table
from bench.stall_writers import Writer, report


def sample(scenario: str, who: str, what: str, seconds: float, **more: Any) -> dict[str, Any]:
    """One sample as the guest notes it."""
    base = {"scenario": scenario, "who": who, "what": what, "s": seconds, "commands": {}}
    return {**base, "volumes": [], "programs": None, "processes": None, **more}


def found(demands: list[Demand], *words: str) -> Demand:
    """The one demand whose text has all the words."""
    (one,) = [demand for demand in demands if all(word in demand.what for word in words)]
    return one


@pytest.mark.parametrize(
    ("figure", "verdict", "is_missed"),
    [(None, "not measured", False), (0.3, "PASS", False), (0.31, "FAIL", True)],
)
def test_a_figure_at_its_limit_passes(figure: float | None, verdict: str, is_missed: bool) -> None:
    """The limit itself is good enough; a figure that is missing is neither good nor bad."""
    demand = Demand("time", figure, 0.3)
    assert (demand.verdict, demand.is_missed) == (verdict, is_missed)
    assert str(demand).startswith(verdict)


def test_a_goal_that_is_not_reached_fails_no_run() -> None:
    """It says FAIL, and that it is a goal."""
    goal = Demand("time", 2.0, 1.0, is_binding=False)
    assert not goal.is_missed
    assert str(goal) == "FAIL time: 2.00 (goal: at most 1)"


def test_a_ratio_is_of_medians_and_needs_both() -> None:
    """Neither a missing peer nor a peer of nothing is divided by."""
    some = [sample("x", DIRECT, "connect", seconds) for seconds in (9.0, 1.0, 2.0)]
    assert Samples(some).ratio("x", DIRECT, "connect") is None
    peer = [sample("x", OS_BRICK, "connect", 4.0)]
    assert Samples([*some, *peer]).ratio("x", DIRECT, "connect") == 0.5
    assert by(1.0, 0.0) is None


def test_a_sum_lacks_no_part() -> None:
    """An operation that was not counted is not counted as nothing."""
    connect = sample("x", DIRECT, ALL_PATHS, 1.0, programs=5)
    assert Samples([connect]).sum("x", DIRECT, "programs", ALL_PATHS, "disconnect") is None
    both = Samples([connect, sample("x", DIRECT, "disconnect", 1.0, programs=4)])
    assert both.sum("x", DIRECT, "programs", ALL_PATHS, "disconnect") == 9


def test_the_background_s_programs_are_held_against_the_limit_too() -> None:
    """What is counted goes up to the last path, not to the hand-over alone."""
    samples = Samples(
        [
            sample(MAP_OF_4, OS_BRICK, ALL_PATHS, 5.0, programs=30, missing=0),
            sample(MAP_OF_4, OS_BRICK, "disconnect", 2.0, programs=15),
            sample(MAP_OF_4, DIRECT, "connect", 0.9, programs=1),
            sample(MAP_OF_4, DIRECT, ALL_PATHS, 2.0, programs=14, missing=0),
            sample(MAP_OF_4, DIRECT, "disconnect", 1.0, programs=4),
        ]
    )
    work = found(list(judge_multipath(samples)), MAP_OF_4, f"{DIRECT},", "own programs")
    assert work.found == pytest.approx(18 / 45)
    assert work.is_missed


def test_a_disconnect_at_once_is_held_against_the_same_peer() -> None:
    """os-brick hands a map out with all logins behind it: it has one figure for both."""
    samples = Samples(
        [
            sample(MAP_OF_4, OS_BRICK, "disconnect", 2.0),
            sample(MAP_OF_4, DIRECT, "disconnect", 0.8),
            sample(MAP_OF_4, DIRECT, AT_ONCE, 1.2),
        ]
    )
    demands = list(judge_multipath(samples))
    usual = found(demands, f"{MAP_OF_4}, {DIRECT}, disconnect: ")
    at_once = found(demands, f"{MAP_OF_4}, {DIRECT}, {AT_ONCE}: ")
    assert (usual.verdict, at_once.verdict) == ("PASS", "FAIL")


def test_silent_portals_are_held_against_our_own_healthy_time() -> None:
    """os-brick's two minutes make nobody fast."""
    samples = Samples(
        [
            sample(MAP_OF_4, LUNPORT, "connect", 1.0),
            sample(SILENT_1, LUNPORT, "connect", 1.3),
            sample(SILENT_3, LUNPORT, "connect", 1.3),
            sample(SILENT_1, OS_BRICK, "connect", 130.0),
        ]
    )
    demands = list(judge_multipath(samples))
    assert found(demands, f"{SILENT_1}, {LUNPORT}, handed out").verdict == "FAIL"
    assert found(demands, f"{SILENT_3}, {LUNPORT}, handed out").verdict == "PASS"


def test_one_path_that_did_not_come_fails_the_run() -> None:
    """The worst round counts here, not the median."""
    rounds = [sample(MAP_OF_4, DIRECT, ALL_PATHS, 1.0, missing=n) for n in (0, 0, 0, 0, 1)]
    missing = found(list(judge_multipath(Samples(rounds))), f"{MAP_OF_4}, {DIRECT}", "did not come")
    assert missing.is_missed


def test_nothing_measured_is_nothing_missed() -> None:
    """Without samples every demand is there, and none has a figure."""
    demands = [*judge_multipath(Samples([])), *judge(Samples([]))]
    assert len({demand.what for demand in demands}) == len(demands)
    assert {demand.verdict for demand in demands} == {"not measured"}


def test_paths_that_the_kernel_uses_are_counted() -> None:
    """Failed ones, and the groups' own letters, are not."""
    status = (
        "0 32768 multipath 2 0 1 0 2 1 A 0 2 2 8:0 A 0 0 1 8:16 F 1 0 1 E 0 1 2 8:32 A 0 0 1 \n"
    )
    assert count_active(status) == 2
    assert count_active("") == 0


def test_results_take_the_place_of_the_last_ones() -> None:
    """What stands around the marks stays, the marks too."""
    text = "before\n<!-- a results -->\n\nold\n\n<!-- end of a results -->\nafter\n"
    once = replaced(text, "a results", "new\n")
    assert once == "before\n<!-- a results -->\n\nnew\n\n<!-- end of a results -->\nafter\n"
    assert replaced(once, "a results", "new") == once


# -- stalls ----------------------------------------------------------------------------------


def stalled(fault: str, who: str, seconds: float, **more: Any) -> dict[str, Any]:
    """One stall as the guest notes it."""
    settings = {"recovery": ["0", "0"], "recovery_again": ["0", "0"], "ping": ["2/2"]}
    base = {"is_late": False, "io_errors": 0, "writes": 9, "back_s": 4.0, **settings}
    return sample(fault, who, STALL, seconds, **{**base, **more})


def test_a_write_that_has_not_ended_counts() -> None:
    """The longest stall may still be under way."""
    writers = [Writer(), Writer()]
    writers[0].begin(10.0)
    writers[0].end(10.2)
    writers[1].begin(10.0)
    assert report(writers, 13.0) | {"error": ""} == {
        "longest_s": 3.0, "stuck": 1, "errors": 0, "writes": 1, "error": "",
    }  # fmt: skip


def test_what_was_before_the_fault_does_not_count() -> None:
    """A mark forgets the longest write, and neither errors nor writes under way."""
    writer = Writer()
    writer.begin(0.0)
    writer.end(9.0, "Input/output error")
    writer.begin(10.0)
    writer.mark()
    writer.end(11.0)
    told = report([writer], 12.0)
    assert (told["longest_s"], told["errors"], told["stuck"]) == (1.0, 1, 0)
    assert told["error"] == "Input/output error"


def test_the_median_of_stalls_is_judged_and_every_error() -> None:
    """Two long stalls of five pass; one I/O error of them does not."""
    seconds = (3.0, 4.0, 4.5, 6.0, 7.0)
    samples = [stalled(DROPPED, DEFAULT, one) for one in seconds]
    samples.append(stalled(DROPPED, FAST, 3.6, io_errors=1))
    demands = judge(Samples(samples))
    assert found(demands, f"{DROPPED}, {DEFAULT}: longest").verdict == "PASS"
    assert found(demands, f"{DROPPED}, {DEFAULT}: I/O").verdict == "PASS"
    assert found(demands, f"{DROPPED}, {FAST}: longest").is_missed
    assert found(demands, f"{DROPPED}, {FAST}: I/O").is_missed


def test_a_path_that_never_came_back_is_the_slowest() -> None:
    """No figure is not a good one."""
    samples = [stalled(RESET, DEFAULT, 0.5), stalled(RESET, DEFAULT, 0.5, back_s=None)]
    assert found(judge(Samples(samples)), f"{RESET}, {DEFAULT}: path back").found == NEVER_S
    assert "did not" in table(Samples(samples))


def test_a_setting_that_a_new_session_lost_is_told() -> None:
    """One stall says nothing about the next one, whose time is set by the session that came."""
    samples = [stalled(DROPPED, DEFAULT, 4.0), stalled(DROPPED, DEFAULT, 4.0)]
    samples[1]["recovery_again"] = ["0", "120"]
    demand = found(judge(Samples(samples)), f"{DROPPED}, {DEFAULT}: recovery_tmo")
    assert (demand.found, demand.verdict) == (120.0, "FAIL")


def test_a_fault_that_cost_no_path_proves_nothing() -> None:
    """A short stall counts only where a path was lost."""
    sample = stalled(RESET, DEFAULT, 0.05, errors=["the fault cost no path: 2 are in use"])
    assert len(broken(Samples([sample]))) == 1


def test_what_ours_leaves_behind_is_told_and_what_the_peer_leaves_is_not() -> None:
    """The run fails for ours alone."""
    ours = sample(DROPPED, DEFAULT, "disconnect", 1.0, left=["session3"])
    peer = sample(DROPPED, OS_BRICK, "disconnect", 1.0, left=["session4"], errors=["late"])
    told = broken(Samples([ours, peer, {"scenario": RESET, "broken": "no SAN"}]))
    assert told == [f"{RESET}: no SAN", f"{DROPPED}, {DEFAULT}, disconnect left session3"]


def test_the_table_puts_stalls_beside_the_peer_s() -> None:
    """Connects are not in it; the ratio is of medians; a stall at the cap says so."""
    rows = table(
        Samples(
            [
                sample(DROPPED, OS_BRICK, "connect", 3.0),
                stalled(DROPPED, OS_BRICK, 16.0, is_late=True),
                stalled(DROPPED, DEFAULT, 4.0),
            ]
        )
    ).splitlines()
    assert len(rows) == 4
    assert "> 16.00" in rows[2]
    assert "| 0.25 |" in rows[3]
