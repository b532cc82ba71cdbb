"""One figure of a measurement, held against its limit."""

from __future__ import annotations

from dataclasses import dataclass


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
