"""What one connect wants of several paths, where that differs from the host's policy."""

from __future__ import annotations

from dataclasses import dataclass, replace
from typing import Literal

from lunport.core.multipath_use import StallProfile
from lunport.initiator.multipath_policy import MultipathPolicy

Ready = int | Literal["all"]


@dataclass(frozen=True, slots=True)
class PathWish:
    """The parts of a :class:`MultipathPolicy` that somebody asked for; None leaves it as it is."""

    ready: Ready | None = None
    queue_s: float | None = None
    stall: StallProfile | None = None
    resilient: bool | None = None

    def on(self, policy: MultipathPolicy) -> MultipathPolicy:
        """Return the policy with what is wished. Raises: InvalidInput."""
        if self.ready is not None:
            policy = replace(policy, ready=self.ready if isinstance(self.ready, int) else None)
        if self.queue_s is not None:
            policy = replace(policy, queue_s=self.queue_s)
        if self.stall is not None:
            policy = replace(policy, stall=self.stall)
        if self.resilient is not None:
            policy = replace(policy, resilient=self.resilient)
        return policy
