"""The values that several request bodies hold, checked as Block Storage's JSON schemas do.

Each function takes a decoded value and the name of its key, and returns what the use cases
want. Raises :class:`ApiError` (400) with a sentence in Block Storage's form:

    Invalid input for field/attribute size. Value: -1. -1 is less than the minimum of 1
"""

from __future__ import annotations

import re
from collections.abc import Mapping
from typing import NoReturn

from lunport.api.faults import ApiError, clean
from lunport.api.request import FALSE_WORDS, TRUE_WORDS

MAX_TEXT = 255
MAX_SIZE_GIB = 2147483647

_UUID = re.compile(
    r"[0-9a-f]{8}-?[0-9a-f]{4}-?[0-9a-f]{4}-?[0-9a-f]{4}-?[0-9a-f]{12}", re.IGNORECASE
)
_METADATA_KEY = re.compile(r"[a-zA-Z0-9_:. /-]{1,255}")


def refuse(name: str, value: object, reason: str) -> NoReturn:
    """Refuse a value."""
    shown = clean(repr(value) if not isinstance(value, str) else value)
    shown = shown if len(shown) <= 80 else shown[:77] + "..."
    raise ApiError(400, f"Invalid input for field/attribute {name}. Value: {shown}. {reason}")


def check_text(value: str | None, name: str, *, strips: bool = True) -> str | None:
    """Check a name or description: at most 255 characters, white space around it removed."""
    if value is None:
        return None
    text = value.strip() if strips else value
    if len(text) > MAX_TEXT:
        raise ApiError(
            400,
            f"Invalid input received: {name} has {len(text)} characters, more than {MAX_TEXT}.",
        )
    if "\x00" in text:
        refuse(name, value.replace("\x00", "\\0"), "It must not contain NUL.")
    return text


def check_required_text(value: str, name: str) -> str:
    """Check a text of 1 to 255 characters."""
    text = check_text(value, name, strips=False)
    if not text:
        refuse(name, value, "'' is too short")
    return text


def check_uuid(value: str | None, name: str) -> str | None:
    """Check an identifier that is not in the URL."""
    if value is not None and not _UUID.fullmatch(value):
        refuse(name, value, f"'{clean(value[:80])}' is not a 'uuid'")
    return value


def check_required_uuid(value: str | None, name: str) -> str:
    """Check an identifier that must be there."""
    checked = check_uuid(value, name)
    if checked is None:
        refuse(name, None, "None is not a 'uuid'")
    return checked


def check_size(value: int | str, name: str) -> int:
    """Check a number of GiB: a whole number or its digits, 1 to 2147483647."""
    if isinstance(value, str):
        if not (value.isascii() and value.isdigit()):
            refuse(name, value, f"'{clean(value[:40])}' does not match '^[0-9]+$'")
        number = int(value[:20])
    else:
        number = value
    if number < 1:
        refuse(name, value, f"{number} is less than the minimum of 1")
    if number > MAX_SIZE_GIB:
        refuse(name, value, f"It is greater than the maximum of {MAX_SIZE_GIB}")
    return number


def check_boolean(value: bool | str, name: str) -> bool:
    """Check a boolean or one of the words that Block Storage takes for one."""
    if isinstance(value, bool):
        return value
    word = value.lower()
    if word in TRUE_WORDS:
        return True
    if word in FALSE_WORDS:
        return False
    refuse(name, value, "It is not a boolean.")


def check_metadata(value: Mapping[str, str] | None, name: str = "metadata") -> dict[str, str]:
    """Check the entries of a metadata object."""
    if value is None:
        return {}
    for key, text in value.items():
        if not _METADATA_KEY.fullmatch(key):
            raise ApiError(
                400,
                f"Invalid input for field/attribute {name}. Additional properties are not "
                f"allowed ('{clean(key[:80])}' was unexpected)",
            )
        if len(text) > MAX_TEXT:
            refuse(key, text, "It is too long")
        if "\x00" in text:
            refuse(key, text.replace("\x00", "\\0"), "It must not contain NUL.")
    return dict(value)
