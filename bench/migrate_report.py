"""What the samples of ``bench.migrate`` come to: demands, a table."""

from __future__ import annotations

import statistics
from collections.abc import Iterator, Mapping, Sequence
from typing import Any

from bench.demand import Demand
from bench.migrate_sides import OURS, PLAIN, Sample
from bench.readme import put_results

_RATIO = 1.5
_OVERHEAD_S = {1: 1.5, 8: 3.0}


def judge(samples: Sequence[Sample]) -> list[Demand]:
    """Hold the samples against the demands."""
    ours, plain = _of(samples, OURS, 1), _of(samples, PLAIN, 1)
    ratio = None
    if ours and plain:
        ratio = _median(one.downtime_ms for one in ours) / _median(one.downtime_ms for one in plain)
    demands = [Demand("the guest's downtime, median, by that of libvirt alone", ratio, _RATIO)]
    for volumes, limit_s in _OVERHEAD_S.items():
        found = [one.total_s - one.call_s for one in _of(samples, OURS, volumes)]
        median = statistics.median(found) if found else None
        what = f"around libvirt's call, {volumes} volume{'s' * (volumes > 1)}, median"
        demands.append(Demand(what, median, limit_s, " s"))
    between = [name for one in samples for name in one.between]
    what = "of ours between the guest's stop and its start, all moves"
    demands.append(Demand(what, float(len(between)), 0.0))
    return demands


def table(samples: Sequence[Sample]) -> str:
    """Write the rows in Markdown."""
    return "\n".join([*_rows(samples), "", *_steps(samples)])


def _rows(samples: Sequence[Sample]) -> Iterator[str]:
    yield (
        "| who | volumes | moves | call, median s | max | downtime, median ms | max "
        "| around the call, median s | max | of ours in between | looks in between |"
    )
    yield "|---|---:|---:|---:|---:|---:|---:|---:|---:|---:|---:|"
    for who, volumes in dict.fromkeys((one.who, one.volumes) for one in samples):
        found = _of(samples, who, volumes)
        calls = [one.call_s for one in found]
        down = [one.downtime_ms for one in found]
        around = [one.total_s - one.call_s for one in found]
        cells = [who, str(volumes), str(len(found))]
        cells += [f"{statistics.median(calls):.2f}", f"{max(calls):.2f}"]
        cells += [f"{statistics.median(down):.0f}", str(max(down))]
        cells += [f"{statistics.median(around):.2f}", f"{max(around):.2f}"]
        cells += [str(sum(len(one.between) for one in found)), str(sum(o.looks for o in found))]
        yield f"| {' | '.join(cells)} |"


def _steps(samples: Sequence[Sample]) -> Iterator[str]:
    """Say when each step of ours was done, counted from the start."""
    counts = sorted({one.volumes for one in samples if one.who == OURS})
    names = list(dict.fromkeys(name for one in samples for name in one.steps))
    yield f"| step done | {' | '.join(f'{n} volumes, median s' for n in counts)} |"
    yield f"|---|{'---:|' * len(counts)}"
    for name in names:
        found = [
            [one.steps[name] for one in _of(samples, OURS, n) if name in one.steps] for n in counts
        ]
        cells = [f"{statistics.median(times):.2f}" if times else "" for times in found]
        yield f"| {name} | {' | '.join(cells)} |"


def write_readme(
    samples: Sequence[Sample], demands: Sequence[Demand], machine: Mapping[str, Any]
) -> None:
    """Put the table into bench/README.md."""
    words = (
        f"Measured {machine['when'][:10]}: kernel {machine['kernel']}, {machine['versions']}, "
        f"{machine['cpus']} CPUs, load average {machine['load'][0]:.1f} at the end; the guests "
        "are translated (TCG)."
    )
    listed = "\n".join(f"- {demand}" for demand in demands)
    put_results("migrate results", f"{words}\n\n{table(samples)}\n\n{listed}")


def _of(samples: Sequence[Sample], who: str, volumes: int) -> list[Sample]:
    return [one for one in samples if (one.who, one.volumes) == (who, volumes)]


def _median(values: Iterator[int]) -> float:
    return float(statistics.median(values))
