"""One thing that a recovery did, would do, or only saw, in words."""

from __future__ import annotations

from dataclasses import dataclass

from lunport.initiator.recover import RecoveryStep


@dataclass(frozen=True, slots=True)
class RecoveryLine:
    """One action of a recovery: ``done``, ``failed``, ``would`` be done, or just ``seen``."""

    outcome: str
    sentence: str
    error: str | None = None


def step_line(step: RecoveryStep) -> RecoveryLine:
    """Say what became of an action."""
    if step.error is not None:
        return RecoveryLine("failed", str(step.action), str(step.error))
    return RecoveryLine("done" if step.is_done else "seen", str(step.action))
