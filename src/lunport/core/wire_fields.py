"""Reading single fields of the loosely typed objects that Block Storage sends around.

A reader takes the object, the key and a parser, and turns whatever the parser refuses into
an :class:`InvalidConnectionInfo` that names the key and the index. Null counts as absent. A
value that is nested is shown in an error by its type only, since it may hold a secret.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from typing import TypeVar

from lunport.core.errors import InvalidConnectionInfo, InvalidInput

T = TypeVar("T")

MAX_TEXT = 255
_BOOLEANS = {
    **dict.fromkeys(("true", "yes", "on", "1", "t", "y"), True),
    **dict.fromkeys(("false", "no", "off", "0", "f", "n", "none", ""), False),
}


def read_mapping(what: str, value: object) -> Mapping[str, object]:
    """Require an object whose keys are strings. Raises: InvalidConnectionInfo."""
    if not isinstance(value, Mapping):
        raise InvalidConnectionInfo(what, show(value), "expected an object")
    for key in value:
        if not isinstance(key, str):
            raise InvalidConnectionInfo(what, show(key), "a key is a string")
    return value


def read_optional(wire: Mapping[str, object], key: str, parse: Callable[[object], T]) -> T | None:
    """Read the value of a key, None when it is absent. Raises: InvalidConnectionInfo."""
    value = wire.get(key)
    return None if value is None else _convert(key, value, parse)


def read_list(wire: Mapping[str, object], key: str, parse: Callable[[object], T]) -> list[T] | None:
    """Read a list that is not empty, None when it is absent. Raises: InvalidConnectionInfo."""
    values = wire.get(key)
    if values is None:
        return None
    if not isinstance(values, (list, tuple)):
        raise InvalidConnectionInfo(key, show(values), "expected a list")
    if not values:
        raise InvalidConnectionInfo(key, [], "the list is empty")
    return [_convert(f"{key}[{at}]", value, parse) for at, value in enumerate(values)]


def require(key: str, value: T | None) -> T:
    """Require that an optional value is there. Raises: InvalidConnectionInfo."""
    if value is None:
        raise InvalidConnectionInfo(key, None, "it is missing")
    return value


def check_lengths(
    key: str, values: Sequence[object], of_key: str, of_values: Sequence[object]
) -> None:
    """Require as many values as there are of another key. Raises: InvalidConnectionInfo."""
    have, need = len(values), len(of_values)
    if have == need:
        return
    reason = f"{have} entries, while {of_key} has {need}"
    if have < need:
        raise InvalidConnectionInfo(f"{key}[{have}]", None, f"it is missing: {reason}")
    raise InvalidConnectionInfo(f"{key}[{need}]", show(values[need]), f"too many: {reason}")


def parse_boolean(value: object) -> bool:
    """Parse a boolean that may have become a string on its way. Raises: InvalidInput."""
    if isinstance(value, str):
        flag = _BOOLEANS.get(value.strip().lower())
        if flag is not None:
            return flag
    # True == 1 and False == 0, so the booleans are among these.
    elif isinstance(value, int) and value in (0, 1):
        return bool(value)
    raise InvalidInput("flag", value, "expected true or false")


def parse_text(value: object) -> str:
    """Parse a short text without control characters. Raises: InvalidInput."""
    if isinstance(value, str) and value.isprintable() and 0 < len(value) <= MAX_TEXT:
        return value
    raise InvalidInput("text", value, f"expected 1 to {MAX_TEXT} printable characters")


def show(value: object) -> object:
    """Give what an error may show of a value."""
    plain = value is None or isinstance(value, (str, int, float))
    return value if plain else f"a {type(value).__name__}"


def _convert(what: str, value: object, parse: Callable[[object], T]) -> T:
    try:
        return parse(value)
    except InvalidInput as error:
        raise InvalidConnectionInfo(what, show(value), error.reason) from error
