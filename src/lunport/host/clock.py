"""Deadlines: the one form in which time limits are passed down."""

from __future__ import annotations

import math
import time
from dataclasses import dataclass


@dataclass(frozen=True, slots=True)
class Deadline:
    """A moment on the monotonic clock after which nobody waits any longer."""

    at: float
    budget_s: float

    @classmethod
    def after(cls, seconds: float) -> Deadline:
        """Make a deadline that many seconds from now."""
        return cls(time.monotonic() + seconds, seconds)

    def remaining_s(self) -> float:
        """Return the seconds left, never negative."""
        return max(0.0, self.at - time.monotonic())

    def has_passed(self) -> bool:
        """Tell whether the moment is over."""
        return time.monotonic() >= self.at

    def at_most(self, seconds: float) -> Deadline:
        """Return the earlier of this deadline and that many seconds from now."""
        if seconds is math.inf or self.remaining_s() <= seconds:
            return self
        return Deadline.after(seconds)
