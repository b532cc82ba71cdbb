"""What the samples of ``bench.attach`` come to: medians, ratios, demands, tables."""

from __future__ import annotations

import json
import statistics
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any

README_FILE = Path(__file__).with_name("README.md")
_MARKS = ("<!-- attach results -->\n", "<!-- end of attach results -->\n")

OS_BRICK, LUNPORT, DIRECT, FLOOR = "os-brick", "lunport", "lunport-direct", "floor"
OURS = (LUNPORT, DIRECT)
AS_ALONE = 1.2  # "no slower than alone", with the noise of a median of seven
WORK = ("reads", "lists", "writes")

Sample = Mapping[str, Any]


@dataclass(frozen=True, slots=True)
class Demand:
    """One figure and its limit; ``found`` None: this run did not measure it."""

    what: str
    found: float | None
    limit: float
    unit: str = ""
    is_binding: bool = True

    @property
    def is_missed(self) -> bool:
        """Whether the run fails for it."""
        return self.is_binding and self.found is not None and self.found > self.limit

    @property
    def verdict(self) -> str:
        """PASS, FAIL, or that there is no figure."""
        if self.found is None:
            return "not measured"
        return "PASS" if self.found <= self.limit else "FAIL"

    def __str__(self) -> str:
        shown = "-" if self.found is None else f"{self.found:.2f}{self.unit}"
        wanted = "at most" if self.is_binding else "goal: at most"
        return f"{self.verdict:4} {self.what}: {shown} ({wanted} {self.limit:g}{self.unit})"


class Samples:
    """All samples of a run."""

    def __init__(self, samples: Sequence[Sample]) -> None:
        self.all = samples
        self._timed = [sample for sample in samples if "s" in sample]

    @property
    def machine(self) -> dict[str, Any]:
        """What the guest says of itself, and the versions measured."""
        found: dict[str, Any] = {}
        for sample in self.all:
            if sample["scenario"] == "machine":
                found |= {name: value for name, value in sample.items() if name != "scenario"}
            elif sample["scenario"] == "start":
                found.setdefault("versions", {})[sample["who"]] = sample["version"]
        return found

    def of(self, scenario: str, who: str, what: str) -> list[Sample]:
        """Return the samples of one row."""
        wanted = (scenario, who, what)
        return [
            sample
            for sample in self._timed
            if (sample["scenario"], sample["who"], sample["what"]) == wanted
        ]

    def rows(self) -> list[tuple[str, str, str]]:
        """List the rows in the order in which they came."""
        keys = ((one["scenario"], one["who"], one["what"]) for one in self._timed)
        return list(dict.fromkeys(keys))

    def median(self, scenario: str, who: str, what: str, field: str = "s") -> float | None:
        """Return a row's median of a field, over the samples that have it."""
        found = [_value(sample, field) for sample in self.of(scenario, who, what)]
        known = [value for value in found if value is not None]
        return statistics.median(known) if known else None

    def ratio(self, scenario: str, who: str, what: str, field: str = "s") -> float | None:
        """Return a row's median by os-brick's."""
        ours = self.median(scenario, who, what, field)
        peer = self.median(scenario, OS_BRICK, what, field)
        return None if ours is None or not peer else ours / peer

    def broken(self) -> list[str]:
        """Say what went wrong where nothing should."""
        found = [f"{one['scenario']}: {one['broken']}" for one in self.all if "broken" in one]
        for sample in self._timed:
            where = f"{sample['scenario']}, {sample['who']}, {sample['what']}"
            is_ours = sample["who"] in OURS and sample["scenario"] != "hanging"
            if is_ours and sample.get("errors"):
                found.append(f"{where}: {sample['errors'][0]}")
            if is_ours and sample.get("left"):
                found.append(f"{where} left {', '.join(sample['left'])}")
        return found


def judge(samples: Samples) -> list[Demand]:
    """Hold the samples against the demands."""
    return [
        *_judge_healthy(samples),
        *_judge_failover(samples),
        *_judge_many(samples),
        *_judge_apart(samples),
        *_judge_present(samples),
    ]


def _judge_healthy(samples: Samples) -> Iterator[Demand]:
    for who in OURS:
        for what, limit in (("connect", 0.3), ("disconnect", 0.5)):
            found = samples.ratio("healthy", who, what)
            yield Demand(f"healthy, {who}, {what}: time by os-brick's", found, limit)
        for field in ("programs", "processes"):
            both = [_sum(samples, "healthy", name, field) for name in (who, OS_BRICK)]
            found = None if both[0] is None or not both[1] else both[0] / both[1]
            yield Demand(
                f"healthy, {who}, both: {_FIELDS[field]} by os-brick's",
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
        yield Demand(f"many, {who}, connect: {_FIELDS['programs']} by os-brick's", found, 0.25)


def _judge_apart(samples: Samples) -> Iterator[Demand]:
    for hanging in ("connect", "disconnect"):
        scenario = f"beside a {hanging} that hangs"
        for what in ("connect", "disconnect"):
            alone = samples.median("alone", DIRECT, what)
            found = samples.median(scenario, DIRECT, what)
            ratio = None if found is None or not alone else found / alone
            yield Demand(f"{scenario}, {what}: time by that alone", ratio, AS_ALONE)


def _judge_present(samples: Samples) -> Iterator[Demand]:
    for few, full in (("second unit", "unit 65"), ("first login", "login beside 64 units")):
        for field in (*WORK, "commands"):
            found, base = (samples.median(name, DIRECT, "connect", field) for name in (full, few))
            # nothing at all is nothing more
            ratio = None if found is None or base is None else max(found, 1) / max(base, 1)
            yield Demand(f"{full}, connect: {field} by those of {few}", ratio, 1.2)


_FIELDS = {"programs": "own programs", "processes": "processes of the whole machine"}


def _sum(samples: Samples, scenario: str, who: str, field: str) -> float | None:
    both = [samples.median(scenario, who, what, field) for what in ("connect", "disconnect")]
    return None if both[0] is None or both[1] is None else both[0] + both[1]


def _value(sample: Sample, field: str) -> float | None:
    if field == "commands":
        return float(sum(sample["commands"].values()))
    if field == "choice_s":
        chosen: float | None = sample["volumes"][0].get("choice_s")
        return chosen
    if field in WORK:
        work = sample["volumes"][0].get("work")
        return None if work is None else work[field]
    value: float | None = sample.get(field)
    return value


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


def write_readme(samples: Samples, demands: Sequence[Demand], machine: Mapping[str, Any]) -> None:
    """Put the tables where the README has the last ones."""
    text = README_FILE.read_text()
    before, rest = text.split(_MARKS[0])
    after = rest.split(_MARKS[1])[1]
    versions = ", ".join(sorted(set(machine["versions"].values())))
    said = (
        f"Measured {machine['when'][:10]}: {versions}, kernel {machine['kernel']}, open-iscsi "
        f"{machine['iscsiadm']}, {machine['cpus']} CPUs, load average {machine['load'][0]:.1f} "
        "at the end."
    )
    verdicts = "\n".join(f"- {demand}" for demand in demands if demand.found is not None)
    README_FILE.write_text(
        f"{before}{_MARKS[0]}\n{said}\n\n{table(samples)}\n\n{verdicts}\n\n{_MARKS[1]}{after}"
    )
