"""Which logical unit number a volume gets on a target that several volumes share.

A host that missed a detach still has the disk of a number that was freed, and would take the
next volume behind that number for the old one (OSSA-2023-003). So a number comes back as late
as it can: those that were never used first, then the one that has been free the longest.
"""

from __future__ import annotations

from collections.abc import Iterable
from dataclasses import dataclass


@dataclass(frozen=True, slots=True)
class LunUse:
    """A number that has been used on a target. ``freed_at`` is None while a volume has it."""

    lun: int
    freed_at: str | None


def allocate_lun(used: Iterable[LunUse], *, first: int, last: int, at_most: int) -> int | None:
    """Choose a number from ``first`` to ``last``; None when no further unit is possible.

    ``at_most``: how many units the target may have at once.
    """
    known = {use.lun: use for use in used}
    held = sum(use.freed_at is None for use in known.values())
    if held >= at_most:
        return None
    fresh = _first_gap(known, first, last)
    if fresh is not None:
        return fresh
    free = [
        (use.freed_at, use.lun)
        for use in known.values()
        if use.freed_at is not None and first <= use.lun <= last
    ]
    return min(free)[1] if free else None


def _first_gap(known: Iterable[int], first: int, last: int) -> int | None:
    lun = first
    for taken in sorted(known):
        if taken > lun:
            break
        if taken == lun:
            lun += 1
    return lun if lun <= last else None
