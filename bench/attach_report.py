"""What the samples of ``bench.attach`` come to: medians, ratios, demands, tables."""

from __future__ import annotations

import json
import statistics
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import asdict
from pathlib import Path
from typing import Any

from bench.attach_multipath_demands import judge_multipath
from bench.attach_samples import DIRECT, FIELDS, FLOOR, OS_BRICK, OURS, WORK, Samples, by
from bench.demand import Demand
from bench.readme import conditions, put_results

AS_ALONE = 1.2  # "no slower than alone", with the noise of a median of seven


def judge(samples: Samples) -> list[Demand]:
    """Hold the samples against the demands."""
    return [
        *_judge_healthy(samples),
        *_judge_failover(samples),
        *_judge_many(samples),
        *_judge_apart(samples),
        *_judge_present(samples),
        *judge_multipath(samples),
    ]


def _judge_healthy(samples: Samples) -> Iterator[Demand]:
    for who in OURS:
        for what, limit in (("connect", 0.3), ("disconnect", 0.5)):
            found = samples.ratio("healthy", who, what)
            yield Demand(f"healthy, {who}, {what}: time by os-brick's", found, limit)
        for field in ("programs", "processes"):
            ours, peer = (
                samples.sum("healthy", name, field, "connect", "disconnect")
                for name in (who, OS_BRICK)
            )
            found = by(ours, peer)
            yield Demand(
                f"healthy, {who}, both: {FIELDS[field]} by os-brick's",
                found,
                0.5,
                is_binding=field == "programs",
            )


def _judge_failover(samples: Samples) -> Iterator[Demand]:
    for who in OURS:
        base = samples.median("four portals", who, "connect")
        for scenario in ("first silent", "first silent, remembered", "first refuses"):
            found = samples.median(scenario, who, "connect")
            more = None if found is None or base is None else found - base
            what = f"{scenario}, {who}, connect: longer than with four healthy portals"
            yield Demand(what, more, 1.5, " s")
    for scenario, limit in (
        ("first silent", 0.6),
        ("first silent, remembered", 0.1),
        ("first refuses", 0.1),
    ):
        found = samples.median(scenario, DIRECT, "connect", "choice_s")
        yield Demand(f"{scenario}: from the start to the chosen path", found, limit, " s")


def _judge_many(samples: Samples) -> Iterator[Demand]:
    for who in OURS:
        yield Demand(
            f"many, {who}, connect: time by os-brick's", samples.ratio("many", who, "connect"), 0.25
        )
        found = samples.ratio("many", who, "connect", "programs")
        yield Demand(f"many, {who}, connect: {FIELDS['programs']} by os-brick's", found, 0.25)


def _judge_apart(samples: Samples) -> Iterator[Demand]:
    for hanging in ("connect", "disconnect"):
        scenario = f"beside a {hanging} that hangs"
        for what in ("connect", "disconnect"):
            alone = samples.median("alone", DIRECT, what)
            found = samples.median(scenario, DIRECT, what)
            yield Demand(f"{scenario}, {what}: time by that alone", by(found, alone), AS_ALONE)


def _judge_present(samples: Samples) -> Iterator[Demand]:
    for few, full in (("second unit", "unit 65"), ("first login", "login beside 64 units")):
        for field in (*WORK, "commands"):
            found, base = (samples.median(name, DIRECT, "connect", field) for name in (full, few))
            # nothing at all is nothing more
            ratio = None if found is None or base is None else max(found, 1) / max(base, 1)
            yield Demand(f"{full}, connect: {field} by those of {few}", ratio, 1.2)


# -- tables ----------------------------------------------------------------------------------


def table(samples: Samples) -> str:
    """Write the rows, and where our time goes, in Markdown."""
    return "\n".join([*_rows(samples), "", *_steps(samples), "", *_work(samples)])


def _rows(samples: Samples) -> Iterator[str]:
    yield (
        "| scenario | what | who | n | median s | min | max | × os-brick | × floor "
        "| commands | programs | processes of all | calibration ms |"
    )
    yield "|---|---|---|---:|---:|---:|---:|---:|---:|---:|---:|---:|---:|"
    for scenario, who, what in samples.rows():
        found = samples.of(scenario, who, what)
        seconds = [sample["s"] for sample in found]
        is_late = any(sample.get("is_late") for sample in found)
        cells = [scenario, what, who, str(len(found))]
        cells.append(f"{'> ' * is_late}{statistics.median(seconds):.2f}")
        cells += [f"{min(seconds):.2f}", f"{max(seconds):.2f}"]
        for base in (OS_BRICK, FLOOR):
            other = samples.median(scenario, base, what) if who != base else None
            cells.append(f"{statistics.median(seconds) / other:.2f}" if other else "")
        for field in ("commands", "programs", "processes", "calib_ms"):
            value = samples.median(scenario, who, what, field)
            cells.append("" if value is None else f"{value:.0f}")
        yield f"| {' | '.join(cells)} |"


def _steps(samples: Samples) -> Iterator[str]:
    """Where the time of a healthy connect and disconnect goes."""
    for what in ("connect", "disconnect"):
        found = [
            (sample["volumes"][0]["steps"], sample["volumes"][0]["s"])
            for sample in samples.of("healthy", DIRECT, what)
            if sample["volumes"] and sample["volumes"][0].get("steps")
        ]
        if not found:
            continue
        taken: dict[str, list[float]] = {}
        for steps, total_s in found:
            at = 0.0
            for name, since_s in [*steps, ("end", total_s)]:
                taken.setdefault(name, []).append(since_s - at)
                at = since_s
        yield f"| healthy {what}, up to the step | median ms |"
        yield "|---|---:|"
        for name, seconds in taken.items():
            yield f"| {name} | {statistics.median(seconds) * 1000:.1f} |"
        yield ""


def _work(samples: Samples) -> Iterator[str]:
    names = ("first login", "second unit", "unit 65", "login beside 64 units")
    wanted = [name for name in names if samples.of(name, DIRECT, "connect")]
    if not wanted:
        return
    yield "| connect | reads of sysfs | lists | writes | commands | s |"
    yield "|---|---:|---:|---:|---:|---:|"
    for name in wanted:
        values = [samples.median(name, DIRECT, "connect", field) for field in (*WORK, "commands")]
        seconds = samples.median(name, DIRECT, "connect")
        cells = [*("" if value is None else f"{value:.0f}" for value in values), f"{seconds:.2f}"]
        yield f"| {name} | {' | '.join(cells)} |"


def write_json(
    samples: Samples, demands: Sequence[Demand], machine: Mapping[str, Any], path: Path
) -> None:
    """Write everything for programs."""
    shown = {
        "machine": machine,
        "demands": [{**asdict(demand), "verdict": demand.verdict} for demand in demands],
        "samples": list(samples.all),
    }
    path.parent.mkdir(parents=True, exist_ok=True)
    path.write_text(json.dumps(shown, indent=1) + "\n")


def write_readme(
    name: str, samples: Samples, demands: Sequence[Demand], machine: Mapping[str, Any]
) -> None:
    """Put the tables where the README has the last ones of that name."""
    verdicts = "\n".join(f"- {demand}" for demand in demands if demand.found is not None)
    put_results(name, f"{conditions(machine)}\n\n{table(samples)}\n\n{verdicts}")
