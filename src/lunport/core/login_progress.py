"""The fold of failover: from the outcomes so far to the next step.

Attempts begin in the plan's order. The next one begins when the last one begun has failed,
or has not answered within a grace. After the first healthy answer, attempts earlier in the
plan get one more grace; then the earliest healthy one wins. An error whose remedy is
``NEVER`` (a wrong CHAP secret) ends it at once, unless a path is healthy already. The budget
bounds it all.

    0 s       0.25 s      0.26 s        0.51 s
    main ...  alternative healthy       Done(alternative): main stayed silent

Times are seconds on any one clock. Never waits, never starts a thread: the driver in
:mod:`lunport.initiator.portal_choice` does what :func:`next_step` says.
"""

from __future__ import annotations

import enum
from collections.abc import Mapping
from dataclasses import dataclass, field, replace

from lunport.core.errors import InvalidInput, LunportError, Remedy


class Kind(enum.Enum):
    """How an attempt ended."""

    HEALTHY = "healthy"
    FAILED = "failed"  # another path may do better
    FINAL = "final"  # another path would fail in the same way


@dataclass(frozen=True, slots=True)
class ChoicePolicy:
    """How patient to be. ``max_running`` bounds the attempts under way at once."""

    grace_s: float = 0.25
    budget_s: float = 15.0
    max_running: int = 16

    def __post_init__(self) -> None:
        if not 0 <= self.grace_s <= 60:
            raise InvalidInput("grace", self.grace_s, "expected 0 to 60 seconds")
        if not 0 < self.budget_s <= 600:
            raise InvalidInput("budget", self.budget_s, "expected more than 0, at most 600 seconds")
        if not 1 <= self.max_running <= 256:
            raise InvalidInput("attempts at once", self.max_running, "expected 1 to 256")


@dataclass(frozen=True, slots=True)
class Ended:
    """The end of one attempt."""

    at: float
    kind: Kind


@dataclass(frozen=True, slots=True)
class Progress:
    """Attempts by their index in the plan: when each began, how and when it ended."""

    count: int
    began_at: float
    started: tuple[float, ...] = ()
    ended: Mapping[int, Ended] = field(default_factory=dict)

    def with_started(self, at: float) -> Progress:
        """Return the progress with the next attempt begun."""
        return replace(self, started=(*self.started, at))

    def with_ended(self, index: int, at: float, kind: Kind) -> Progress:
        """Return the progress with an attempt ended."""
        return replace(self, ended={**self.ended, index: Ended(at, kind)})

    def running(self) -> tuple[int, ...]:
        """Return the attempts that have begun and not ended."""
        return tuple(i for i in range(len(self.started)) if i not in self.ended)

    def has_waited(self, index: int, now: float, seconds: float) -> bool:
        """Tell whether an attempt began, and so long ago."""
        return index < len(self.started) and now - self.started[index] >= seconds


@dataclass(frozen=True, slots=True)
class Start:
    """Begin this attempt now."""

    index: int


@dataclass(frozen=True, slots=True)
class Wait:
    """Nothing to do until an attempt ends or this moment comes."""

    until: float


@dataclass(frozen=True, slots=True)
class Done:
    """Use this path."""

    index: int


class GiveUpReason(enum.Enum):
    """Why no path was found."""

    ALL_FAILED = "all-failed"
    FINAL = "final"
    BUDGET = "budget"


@dataclass(frozen=True, slots=True)
class GiveUp:
    """Use none. ``index`` is the attempt that made it final, if one did."""

    reason: GiveUpReason
    index: int | None = None


Step = Start | Wait | Done | GiveUp


def begin(count: int, now: float) -> Progress:
    """Begin the choice among that many planned paths."""
    return Progress(count, now)


def classify(error: LunportError | None) -> Kind:
    """Read an attempt's error as the fold does: its remedy, and nothing else."""
    if error is None:
        return Kind.HEALTHY
    return Kind.FINAL if error.remedy is Remedy.NEVER else Kind.FAILED


def next_step(progress: Progress, now: float, policy: ChoicePolicy) -> Step:
    """Say what to do now."""
    end = progress.began_at + policy.budget_s
    healthy = _indexes(progress, Kind.HEALTHY)
    if healthy:
        return _settle(progress, healthy, now, end, policy)
    final = _indexes(progress, Kind.FINAL)
    if final:
        return GiveUp(GiveUpReason.FINAL, final[0])
    if len(progress.ended) == progress.count:
        return GiveUp(GiveUpReason.ALL_FAILED)
    if now >= end:
        return GiveUp(GiveUpReason.BUDGET)
    due = _next_start(progress, policy)
    if due is None:
        return Wait(end)
    return Start(len(progress.started)) if now >= due else Wait(min(due, end))


def _settle(
    progress: Progress, healthy: list[int], now: float, end: float, policy: ChoicePolicy
) -> Step:
    best = healthy[0]
    if not any(index < best for index in progress.running()):
        return Done(best)
    first = min(progress.ended[index].at for index in healthy)
    until = min(first + policy.grace_s, end)
    return Done(best) if now >= until else Wait(until)


def _next_start(progress: Progress, policy: ChoicePolicy) -> float | None:
    """Return when the next attempt is due; None while all have begun or too many run."""
    begun = len(progress.started)
    if begun == progress.count or len(progress.running()) >= policy.max_running:
        return None
    if begun == 0:
        return progress.began_at
    if begun - 1 in progress.ended:
        return progress.ended[begun - 1].at
    return progress.started[-1] + policy.grace_s


def _indexes(progress: Progress, kind: Kind) -> list[int]:
    return sorted(index for index, ended in progress.ended.items() if ended.kind is kind)
