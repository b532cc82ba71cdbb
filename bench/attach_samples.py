"""The samples of a run, by scenario, implementation and operation: medians and ratios.

A sample: ``scenario``, ``who``, ``what`` (connect, all paths, disconnect, disconnect at once),
``s``, and what was counted. ``who`` is os-brick, lunport (through os-brick's calls),
lunport-direct, or floor.
"""

from __future__ import annotations

import statistics
from collections.abc import Mapping, Sequence
from typing import Any

OS_BRICK, LUNPORT, DIRECT, FLOOR = "os-brick", "lunport", "lunport-direct", "floor"
OURS = (LUNPORT, DIRECT)
WORK = ("reads", "lists", "writes")
FIELDS = {"programs": "own programs", "processes": "processes of the whole machine"}

Sample = Mapping[str, Any]


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
        found = [value_of(sample, field) for sample in self.of(scenario, who, what)]
        known = [value for value in found if value is not None]
        return statistics.median(known) if known else None

    def ratio(self, scenario: str, who: str, what: str, field: str = "s") -> float | None:
        """Return a row's median by os-brick's."""
        return by(
            self.median(scenario, who, what, field), self.median(scenario, OS_BRICK, what, field)
        )

    def sum(self, scenario: str, who: str, field: str, *whats: str) -> float | None:
        """Return the sum of the medians of several operations; None where one is missing."""
        found = [self.median(scenario, who, what, field) for what in whats]
        known = [value for value in found if value is not None]
        return sum(known) if len(known) == len(whats) else None

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


def by(ours: float | None, other: float | None) -> float | None:
    """Divide, where both are known and there is something to divide by."""
    return None if ours is None or not other else ours / other


def value_of(sample: Sample, field: str) -> float | None:
    """Return what a sample says of a field."""
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
