"""Measure the same on thin LVM behind LIO, in the lab's machine; print it, judge it."""

from __future__ import annotations

import argparse
from collections.abc import Mapping, Sequence
from typing import Any

from bench.demand import Demand
from bench.lab_run import ROOT, measure, now, read_samples
from bench.readme import put_results

OUT = ROOT / "build" / "bench-exports"
LIMIT = 1.5
_KINDS = (
    ("service_s", "CPU"),
    ("lvm_s", "LVM"),
    ("whole_s", "in all"),
    ("calibration_s", "calibration"),
)


def run(
    volumes: int, policies: Sequence[str], options: argparse.Namespace
) -> tuple[int, Sequence[Any]]:
    """Boot the machine and measure; return its status and what was measured."""
    words = ["--volumes", str(volumes), "--policies", *policies]
    status = measure("bench.exports_guest", words, OUT, options)
    return status, read_samples(OUT)


def table(samples: Sequence[Mapping[str, Any]]) -> str:
    """Write a row for each policy and step, milliseconds for each operation."""
    heads = [f"{what}, fewest | most" for _, what in _KINDS]
    lines = [f"| policy | step | {' | '.join(heads[:1])} | × | {' | '.join(heads[1:])} |"]
    lines.append("|---|---|" + "---:|" * 9)
    for one in samples:
        pairs = [f"{_ms(one['fewest'][key])} | {_ms(one['most'][key])}" for key, _ in _KINDS]
        pairs.insert(1, f"{_ratio(one):.2f}")
        lines.append(f"| {one['policy']} | {one['step']} | {' | '.join(pairs)} |")
    return "\n".join(lines)


def judge(samples: Sequence[Mapping[str, Any]]) -> list[Demand]:
    """Hold our own share with most others there against that with fewest, both calibrated."""
    return [
        Demand(f"{one['policy']}, {one['step']}: most to fewest", _ratio(one), LIMIT, "x")
        for one in samples
    ]


def write_readme(samples: Sequence[Mapping[str, Any]], volumes: int) -> None:
    """Put the table into the README."""
    said = f"Measured {now()['when'][:10]}: {volumes} volumes, kernel {samples[0]['kernel']}."
    put_results("exports lab results", f"{said}\n\n{table(samples)}")


def _ratio(sample: Mapping[str, Any]) -> float:
    fewest, most = (
        sample[which]["service_s"] / sample[which]["calibration_s"] for which in ("fewest", "most")
    )
    ratio: float = most / fewest
    return ratio


def _ms(seconds: float) -> str:
    return f"{1e3 * seconds:.0f}"
