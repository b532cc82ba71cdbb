"""The result: rows with the peer beside them, as a table and as JSON."""

from __future__ import annotations

import json
from collections.abc import Iterator, Sequence
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any

from bench.load import Measured

PEER_FILE = Path(__file__).with_name("peer.json")
README_FILE = Path(__file__).with_name("README.md")
_MARKS = ("<!-- results -->\n", "<!-- end of results -->\n")
WANTED = 10.0
MAX_START_S = 1.0
MAX_RSS_MIB = 120.0


@dataclass(frozen=True, slots=True)
class Row:
    """One measured row, and what the peer gave there (None: it was not measured)."""

    key: str
    title: str
    c: int
    measured: Measured
    peer: dict[str, Any] | None

    @property
    def cpu_times(self) -> float | None:
        """How many times less CPU an operation takes than at the peer."""
        return self.peer["cpu_ms"] / self.measured.cpu_ms if self.peer else None

    @property
    def rate_times(self) -> float | None:
        """How many times more operations a second there are than at the peer."""
        return self.measured.per_s / self.peer["per_s"] if self.peer else None

    @property
    def is_binding(self) -> bool:
        """Whether the CPU of this row has to be a tenth of the peer's."""
        return bool(self.peer and self.peer["binding"])


@dataclass(frozen=True, slots=True)
class Start:
    """Seconds from starting the process to its first answer."""

    title: str
    median_s: float
    worst_s: float
    count: int


@dataclass(frozen=True, slots=True)
class Memory:
    """Memory of the service and its target daemon."""

    title: str
    rss_mib: float
    pss_mib: float


@dataclass(frozen=True, slots=True)
class Result:
    """Everything that one call of the measurement found."""

    machine: dict[str, Any]
    rows: Sequence[Row]
    starts: Sequence[Start]
    memory: Sequence[Memory]


def read_peer() -> dict[tuple[str, int], dict[str, Any]]:
    """Read the peer's rows by key and concurrency."""
    return {(row["key"], row["c"]): row for row in _peer()["rows"]}


def table(result: Result) -> str:
    """Write the result in Markdown."""
    return "\n".join(_table(result))


def shortfalls(result: Result) -> tuple[list[str], list[str]]:
    """Name what misses a binding demand, and what misses a goal only."""
    binding, goals = [], []
    for row in result.rows:
        name = f"{row.title} at concurrency {row.c}"
        if not row.is_binding or row.cpu_times is None or row.rate_times is None:
            continue
        if row.cpu_times < WANTED:
            binding.append(f"{name}: CPU {row.cpu_times:.1f} times less than the peer's")
        if row.rate_times < WANTED:
            goals.append(f"{name}: {row.rate_times:.1f} times the peer's operations per second")
    binding += [
        f"{start.title}: {start.median_s:.2f} s to the first answer"
        for start in result.starts
        if start.median_s >= MAX_START_S
    ]
    binding += [
        f"{memory.title}: RSS {memory.rss_mib:.0f} MiB"
        for memory in result.memory
        if memory.rss_mib >= MAX_RSS_MIB
    ]
    return binding, goals


def write_json(result: Result, path: Path) -> None:
    """Write the result for programs."""
    shown = asdict(result)
    for row, found in zip(shown["rows"], result.rows, strict=True):
        row["cpu_times"], row["rate_times"] = found.cpu_times, found.rate_times
    shown["peer"] = _peer()["source"]
    path.parent.mkdir(parents=True, exist_ok=True)
    path.write_text(json.dumps(shown, indent=1) + "\n")


def write_readme(result: Result) -> None:
    """Put the table where the README has the last one."""
    machine = result.machine
    text = README_FILE.read_text()
    before, rest = text.split(_MARKS[0])
    after = rest.split(_MARKS[1])[1]
    said = (
        f"Measured {machine['when'][:10]}, {machine['cpus']} CPUs, Python {machine['python']}, "
        f"load average {machine['load'][0]:.1f} at the end; medians of {machine['repeats']} runs.\n"
    )
    README_FILE.write_text(f"{before}{_MARKS[0]}\n{said}\n{table(result)}\n\n{_MARKS[1]}{after}")


def _peer() -> dict[str, Any]:
    content: dict[str, Any] = json.loads(PEER_FILE.read_text())
    return content


def _table(result: Result) -> Iterator[str]:
    yield (
        "| operation | c | per s | p50 ms | p99 ms | CPU ms/op "
        "| peer per s | peer CPU | × per s | × CPU |"
    )
    yield "|---|---:|---:|---:|---:|---:|---:|---:|---:|---:|"
    for row in result.rows:
        one = row.measured
        cells = [row.title, str(row.c), _number(one.per_s), _number(one.p50_ms)]
        cells += [_number(one.p99_ms), _number(one.cpu_ms)]
        if row.peer:
            cells += [_number(row.peer["per_s"]), _number(row.peer["cpu_ms"])]
            cells += [_number(row.rate_times or 0), _number(row.cpu_times or 0)]
        else:
            cells += ["", "", "", ""]
        yield f"| {' | '.join(cells)} |"
    peer = _peer()
    yield ""
    yield "| start to the first answer | median s | worst s | n | peer s |"
    yield "|---|---:|---:|---:|---:|"
    quiet, loaded = peer["start_s"].values()
    for start in result.starts:
        yield (
            f"| {start.title} | {start.median_s:.2f} | {start.worst_s:.2f} | {start.count} "
            f"| {quiet} - {loaded} |"
        )
    yield ""
    yield "| memory, service and tgtd | RSS MiB | PSS MiB | peer RSS | peer PSS |"
    yield "|---|---:|---:|---:|---:|"
    sums = peer["memory_mib"]
    for memory in result.memory:
        yield (
            f"| {memory.title} | {memory.rss_mib:.0f} | {memory.pss_mib:.0f} "
            f"| {sums['rss_fresh']} - {sums['rss_after']} "
            f"| {sums['pss_fresh']} - {sums['pss_after']} |"
        )


def _number(value: float) -> str:
    """Show three digits, so that no figure claims more than was measured."""
    if value >= 100:
        return f"{value:,.0f}".replace(",", " ")
    return f"{value:.1f}" if value >= 10 else f"{value:.2f}"
