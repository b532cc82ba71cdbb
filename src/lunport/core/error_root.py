"""The root of the error tree, and what every error has.

The tree itself is drawn in :mod:`lunport.core.errors`, from where everybody imports.
"""

from __future__ import annotations

import enum


class Remedy(enum.Enum):
    """What a planner may try after an error."""

    NEXT_PATH = "next-path"
    SAME_PATH_LATER = "same-path-later"
    NEVER = "never"


class LunportError(Exception):
    """The root: everything this project raises on purpose."""

    remedy = Remedy.NEVER


def shorten(value: object, limit: int = 80) -> str:
    """Show a value for an error sentence: quoted, one line, bounded."""
    try:
        text = repr(value)
    except (ValueError, RecursionError):  # a number of 5000 digits, a list nested without end
        text = f"a {type(value).__name__} that is too large to show"
    return text if len(text) <= limit else text[: limit - 3] + "..."
