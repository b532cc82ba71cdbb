"""An error of ours as a document, and the same error again in another process.

    {"kind": "DeviceBusy", "message": "/dev/sda is in use by mounted on /mnt; ...",
     "fields": ["/dev/sda", ["mounted on /mnt"]]}

Every error is made of its fields alone (:mod:`lunport.core.errors`), so its class and fields
are all of it; ``message`` is for people, and for a reader that does not know the class. Errors
hold no secrets. Decides nothing.
"""

from __future__ import annotations

from collections.abc import Mapping
from contextlib import suppress

from lunport.core import errors
from lunport.core.error_root import LunportError, shorten

_NESTED = frozenset({"kind", "message", "fields"})


def format_error(error: BaseException) -> dict[str, object]:
    """Write an error; what is none of ours becomes one that has its message alone."""
    kind = type(error).__name__
    is_known = _class_of(kind) is type(error)
    return {
        "kind": kind if is_known else LunportError.__name__,
        "message": str(error),
        "fields": _format(error.args) if is_known else [str(error)],
    }


def parse_error(document: object) -> LunportError:
    """Make the error that a document stands for; junk and newer kinds become plain ones."""
    if not isinstance(document, Mapping):
        return LunportError(f"an error that cannot be read: {shorten(document)}")
    message = str(document.get("message", "it says nothing"))
    kind, fields = _class_of(document.get("kind")), document.get("fields")
    if kind is not None and isinstance(fields, list):
        with suppress(TypeError, ValueError, AttributeError):
            error = kind(*_parse(fields))
            str(error)  # where fields of a wrong type come to light
            return error
    return LunportError(message)


def _class_of(kind: object) -> type[LunportError] | None:
    found = getattr(errors, kind, None) if isinstance(kind, str) else None
    is_ours = isinstance(found, type) and issubclass(found, LunportError)
    return found if is_ours else None


def _format(value: object) -> object:
    if value is None or isinstance(value, (str, int, float)):
        return value
    if isinstance(value, (list, tuple)):
        return [_format(one) for one in value]
    return format_error(value) if isinstance(value, BaseException) else str(value)


def _parse(value: object) -> tuple[object, ...]:
    assert isinstance(value, list)
    return tuple(_parse_one(one) for one in value)


def _parse_one(value: object) -> object:
    if isinstance(value, list):
        return _parse(value)
    if isinstance(value, Mapping) and value.keys() >= _NESTED:
        return parse_error(value)
    return value
