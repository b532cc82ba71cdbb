"""Who ends the wait of I/O for a map without a path, and when.

multipathd counts by its own ``no_path_retry``, in checks, for each map; the agent by the
attachment's bound. Where nobody would end it in time the map does not queue: a wait without a
bound is worse than an error.

    12 chk    as many checks, each after ``polling_interval`` seconds       (print.c, %Q)
    35 sec    it counts down now
    on, off   for ever, not at all; "-" where nothing is configured
"""

from __future__ import annotations

import enum
import math
import re
from typing import Final

_COUNT: Final = re.compile(r"([0-9]{1,9}) (chk|sec)", re.ASCII)
_POLLING: Final = re.compile(
    r"^\s*polling_interval\s+\"?([0-9]{1,6})\"?\s*$", re.ASCII | re.MULTILINE
)
_USUAL_POLLING_S: Final = 5  # multipath.conf(5)


class QueuePlan(enum.Enum):
    """What is to be done about a map's queueing."""

    QUEUE = "queue"  # we end it
    LEAVE = "leave"  # multipathd ends it in time
    FAIL = "fail"


def polling_interval_s(configuration: str) -> int:
    """Read how often multipathd looks at paths, of what it says of its configuration."""
    match = _POLLING.search(configuration)
    return _USUAL_POLLING_S if match is None else int(match[1])


def own_bound_s(queueing: str, polling_s: int) -> float | None:
    """Read after how many seconds multipathd ends a map's queueing; None where it does not say."""
    if queueing in {"on", "off"}:
        return math.inf if queueing == "on" else 0.0
    match = _COUNT.fullmatch(queueing)
    if match is None:
        return None
    return float(int(match[1]) * (polling_s if match[2] == "chk" else 1))


def plan_queueing(queue_s: float, own_s: float | None, *, is_watched: bool) -> QueuePlan:
    """Decide it, for an attachment whose I/O may wait ``queue_s``."""
    if queue_s <= 0:
        return QueuePlan.FAIL
    if is_watched:
        return QueuePlan.QUEUE
    return QueuePlan.LEAVE if own_s is not None and 0 < own_s <= queue_s else QueuePlan.FAIL


def queueing_note(queue_s: float, own_s: float | None, *, is_watched: bool) -> str | None:
    """Say what is not as the attachment has it; None if it is."""
    plan = plan_queueing(queue_s, own_s, is_watched=is_watched)
    if queue_s <= 0 or plan is QueuePlan.LEAVE:
        return None
    if plan is QueuePlan.FAIL:
        nobody = "no agent runs that would end the wait of I/O in time"
        # Once it was told to fail multipathd says no more than that.
        alone = f", and multipathd alone {_words(own_s)}" if own_s else ""
        return (
            f"{nobody}{alone}: it fails at once when all paths are gone, and does not wait "
            f"{queue_s:g} s"
        )
    if own_s is not None and own_s < queue_s:
        return (
            f"multipathd {_words(own_s)} (no_path_retry), which is before the {queue_s:g} s asked "
            "for"
        )
    return None


def _words(own_s: float) -> str:
    if own_s == 0:
        return "lets no I/O wait"
    if math.isinf(own_s):
        return "lets it wait without an end"
    return f"ends the wait after {own_s:g} s"
