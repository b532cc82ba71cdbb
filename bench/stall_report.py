"""What the samples of ``bench.stall`` come to: the longest stalls, demands, a table."""

from __future__ import annotations

import json
import statistics
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import asdict
from pathlib import Path
from typing import Any

from bench.attach_samples import DIRECT, OS_BRICK, Samples
from bench.demand import Demand
from bench.readme import conditions, put_results

DROPPED, RESET = "black-holed", "reset"
DEFAULT, FAST = DIRECT, f"{DIRECT}, fast"
AGENT = f"{DIRECT}, with the agent"
WHO = (OS_BRICK, DEFAULT, FAST, AGENT)
OURS = (DEFAULT, FAST, AGENT)
STALL = "stall"
NEVER_S = 90.0  # how long a path is waited for

_LIMITS = {
    (DROPPED, DEFAULT): 5.0, (DROPPED, FAST): 3.5, (DROPPED, AGENT): 5.0,
    (RESET, DEFAULT): 2.0, (RESET, FAST): 2.0, (RESET, AGENT): 2.0,
}  # fmt: skip


def judge(samples: Samples) -> list[Demand]:
    """Hold the samples against the demands."""
    return [
        *_judge_stalls(samples),
        *_judge_errors(samples),
        *_judge_return(samples),
        *_judge_again(samples),
    ]


def _judge_stalls(samples: Samples) -> Iterator[Demand]:
    for (fault, who), limit in _LIMITS.items():
        found = samples.median(fault, who, STALL)
        yield Demand(f"{fault}, {who}: longest stall, median", found, limit, " s")


def _judge_errors(samples: Samples) -> Iterator[Demand]:
    for fault, who in ((fault, who) for fault in (DROPPED, RESET) for who in OURS):
        errors = [float(sample["io_errors"]) for sample in samples.of(fault, who, STALL)]
        found = sum(errors) if errors else None
        yield Demand(f"{fault}, {who}: I/O errors, all rounds", found, 0.0)


def _judge_return(samples: Samples) -> Iterator[Demand]:
    for fault, who in _LIMITS:
        found = [sample["back_s"] for sample in samples.of(fault, who, STALL)]
        slowest = max((NEVER_S if seconds is None else seconds for seconds in found), default=None)
        what = f"{fault}, {who}: path back after the portal's return, slowest"
        yield Demand(what, slowest, 30.0, " s", is_binding=False)


def _judge_again(samples: Samples) -> Iterator[Demand]:
    """The next loss must cost no more: what was set has to outlive a path's return."""
    for fault, who in _LIMITS:
        found = [
            float(max(map(int, sample["recovery_again"])) - max(map(int, sample["recovery"])))
            for sample in samples.of(fault, who, STALL)
            if sample["recovery"] and sample["recovery_again"]
        ]
        what = f"{fault}, {who}: recovery_tmo after the path's return, longer than before"
        yield Demand(what, max(found, default=None), 0.0, " s", is_binding=False)


def broken(samples: Samples) -> list[str]:
    """Say what went wrong with ours where nothing should."""
    found = [f"{one['scenario']}: {one['broken']}" for one in samples.all if "broken" in one]
    for sample in samples.all:
        if sample.get("who") not in OURS:
            continue
        where = f"{sample['scenario']}, {sample['who']}, {sample.get('what', 'start')}"
        found += [f"{where}: {error}" for error in sample.get("errors", [])[:1]]
        if sample.get("left"):
            found.append(f"{where} left {', '.join(sample['left'])}")
    return found


def table(samples: Samples) -> str:
    """Write the rows in Markdown."""
    return "\n".join(_rows(samples))


def _rows(samples: Samples) -> Iterator[str]:
    yield (
        "| portal | who | n | longest stall, median s | min | max | × os-brick "
        "| I/O errors | writes | path back after s | recovery_tmo | and then | ping |"
    )
    yield "|---|---|---:|---:|---:|---:|---:|---:|---:|---:|---|---|---|"
    for fault, who, what in samples.rows():
        if what != STALL:
            continue
        found = samples.of(fault, who, what)
        seconds = [sample["s"] for sample in found]
        is_late = any(sample["is_late"] for sample in found)
        median = statistics.median(seconds)
        peer = samples.median(fault, OS_BRICK, STALL) if who != OS_BRICK else None
        cells = [fault, who, str(len(found)), f"{'> ' * is_late}{median:.2f}"]
        cells += [f"{min(seconds):.2f}", f"{max(seconds):.2f}"]
        cells.append(f"{median / peer:.2f}" if peer else "")
        cells += [str(sum(sample[name] for sample in found)) for name in ("io_errors", "writes")]
        back = [sample["back_s"] for sample in found if sample["back_s"] is not None]
        cells.append(f"{statistics.median(back):.1f}" if len(back) == len(found) else "did not")
        cells += [
            ", ".join(_distinct(found, name)) for name in ("recovery", "recovery_again", "ping")
        ]
        yield f"| {' | '.join(cells)} |"


def _distinct(found: Sequence[Mapping[str, Any]], name: str) -> list[str]:
    return sorted({str(value) for sample in found for value in sample[name]})


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


def write_readme(samples: Samples, demands: Sequence[Demand], machine: Mapping[str, Any]) -> None:
    """Put the table where the README has the last one."""
    verdicts = "\n".join(f"- {demand}" for demand in demands if demand.found is not None)
    put_results("stall results", f"{conditions(machine)}\n\n{table(samples)}\n\n{verdicts}")
