"""Read the entries of journals: JSON objects with a version, field by field, each told by name.

A version that is newer than what is known is refused, so that no release loses what a later one
noted. Values that are secrets belong to those who read them; nothing here shows a whole entry.
"""

from __future__ import annotations

import json
from collections.abc import Callable, Mapping
from typing import TypeVar

from lunport.core.errors import InvalidInput
from lunport.core.wire_fields import show

T = TypeVar("T")


def load_entry(text: str, known_version: int) -> Mapping[str, object]:
    """Read an entry up to its fields. Raises: InvalidInput."""
    try:
        wire = json.loads(text)
    except (ValueError, RecursionError):
        raise InvalidInput("journal entry", f"of {len(text)} characters", "not JSON") from None
    if not isinstance(wire, dict):
        raise InvalidInput("journal entry", f"a {type(wire).__name__}", "expected an object")
    version = wire.get("version")
    if isinstance(version, bool) or not isinstance(version, int) or version < 1:
        raise InvalidInput("version", show(version), "expected a number from 1")
    if version > known_version:
        reason = f"written by a newer release; known is {known_version}"
        raise InvalidInput("version", version, reason)
    return wire


def require(wire: Mapping[str, object], key: str, parse: Callable[[object], T]) -> T:
    """Read a field that must be there. Raises: InvalidInput, with the field's name."""
    if key not in wire:
        raise InvalidInput(key, None, "it is missing")
    try:
        return parse(wire[key])
    except InvalidInput as error:
        raise InvalidInput(key, error.value, error.reason) from None


def optional(wire: Mapping[str, object], key: str, parse: Callable[[object], T]) -> T | None:
    """Read a field that must be there and may be null. Raises: InvalidInput."""
    return require(wire, key, lambda value: None if value is None else parse(value))


def parse_text(value: object) -> str:
    """Read a text that is not empty. Raises: InvalidInput."""
    if isinstance(value, str) and value:
        return value
    raise InvalidInput("text", show(value), "expected a text that is not empty")


def parse_flag(value: object) -> bool:
    """Read true or false. Raises: InvalidInput."""
    if isinstance(value, bool):
        return value
    raise InvalidInput("flag", show(value), "expected true or false")


def parse_moment(value: object) -> float:
    """Read seconds since the epoch, or of a span. Raises: InvalidInput."""
    if isinstance(value, (int, float)) and not isinstance(value, bool) and 0 <= value < 1e12:
        return float(value)
    raise InvalidInput("moment", show(value), "expected seconds since the epoch")
