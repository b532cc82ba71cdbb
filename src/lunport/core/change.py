"""What an idempotent verb says it did."""

from __future__ import annotations

import enum


class Change(enum.Enum):
    """``CHANGED`` when the verb had to act, ``UNCHANGED`` when all was so already."""

    CHANGED = "changed"
    UNCHANGED = "unchanged"

    def __or__(self, other: Change) -> Change:
        return Change.CHANGED if Change.CHANGED in (self, other) else Change.UNCHANGED
