"""What this host wants of several paths, when a connect is done, and what a lost path costs."""

from __future__ import annotations

from dataclasses import dataclass, replace
from typing import Final

from lunport.core.errors import InvalidInput
from lunport.core.multipath_use import MultipathUse, StallProfile
from lunport.core.node_record import RecordSettings

MAX_QUEUE_S: Final = 86_400.0


@dataclass(frozen=True, slots=True)
class MultipathPolicy:
    """How a map is made and kept.

    ``ready``: how many live paths a connect waits for; None waits for all that answer. The rest
    is made in the background. ``resilient``: a connection with one data path rides on a map too,
    so that it can move to another portal. ``queue_s``: how long I/O waits when all paths are
    gone. ``settle_s`` bounds the wait for one path to be in its map.
    Raises: InvalidInput.
    """

    ready: int | None = 1
    resilient: bool = False
    queue_s: float = 60.0
    stall: StallProfile = StallProfile.DEFAULT
    settle_s: float = 20.0

    def __post_init__(self) -> None:
        if self.ready is not None and not 1 <= self.ready <= 256:
            raise InvalidInput("number of paths", self.ready, "expected 1 to 256")
        if not 0 <= self.queue_s <= MAX_QUEUE_S:
            raise InvalidInput("queueing", self.queue_s, "expected 0 to 86400 seconds")


@dataclass(frozen=True, slots=True)
class StallTimes:
    """When a silent path is given up: the ping's pause and patience, then the recovery's."""

    noop_interval_s: int
    noop_timeout_s: int
    recovery_s: int


STALL_TIMES: Final = {
    StallProfile.DEFAULT: StallTimes(noop_interval_s=2, noop_timeout_s=2, recovery_s=0),
    StallProfile.FAST: StallTimes(noop_interval_s=1, noop_timeout_s=1, recovery_s=0),
}


def record_settings(settings: RecordSettings, use: MultipathUse | None) -> RecordSettings:
    """Return what a node record says where its session is to carry a path of a map."""
    if use is None:
        return settings
    times = STALL_TIMES[use.stall]
    return replace(
        settings,
        noop_interval_s=times.noop_interval_s,
        noop_timeout_s=times.noop_timeout_s,
        replacement_timeout_s=times.recovery_s,
    )
