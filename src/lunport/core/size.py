"""Sizes: gibibytes on the wire, bytes everywhere else, and a form for people to read.

Block Storage counts in GiB and takes a positive whole number or its decimal digits; the
upper bound is the one of its database column.
"""

from __future__ import annotations

from lunport.core.errors import InvalidInput

GIB = 2**30
MAX_SIZE_GIB = 2**31 - 1
_UNITS = ("bytes", "KiB", "MiB", "GiB", "TiB", "PiB", "EiB", "ZiB")
_NOT_A_SIZE = (
    "the size argument must be an integer (or string representation of an integer) "
    "and greater than zero"
)


def parse_size_gib(value: object, *, what: str = "volume size") -> int:
    """Parse a size in GiB as it comes over the wire: ``10`` or ``"10"``.

    Raises: InvalidInput.
    """
    number = value
    if isinstance(value, str) and value.isascii() and value.isdigit():
        # More than ten digits are too many, and int() refuses some thousands of them.
        digits = value.lstrip("0")
        number = int(digits or "0") if len(digits) <= 10 else MAX_SIZE_GIB + 1
    if isinstance(number, bool) or not isinstance(number, int) or number <= 0:
        raise InvalidInput(what, value, _NOT_A_SIZE)
    if number > MAX_SIZE_GIB:
        raise InvalidInput(what, value, f"it is greater than the maximum of {MAX_SIZE_GIB} GiB")
    return number


def gib_to_bytes(size_gib: int) -> int:
    """Convert whole GiB to bytes."""
    return size_gib * GIB


def bytes_to_gib(size_bytes: int) -> int:
    """Convert bytes to the whole GiB that hold them, rounded up."""
    return -(-size_bytes // GIB)


def format_size(size_bytes: int) -> str:
    """Write a number of bytes for a person: ``1.5 GiB``, ``64 MiB``, ``512 bytes``.

    Rounds down to one decimal, so that nothing is shown as larger than it is.
    """
    exponent = 0
    while exponent + 1 < len(_UNITS) and size_bytes >= 1024 ** (exponent + 1):
        exponent += 1
    whole, tenth = divmod(size_bytes * 10 // 1024**exponent, 10)
    number = f"{whole}.{tenth}" if tenth else f"{whole}"
    return f"{number} {_UNITS[exponent] if size_bytes != 1 else 'byte'}"
