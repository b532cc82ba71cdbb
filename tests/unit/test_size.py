"""Tests of sizes."""

from __future__ import annotations

import pytest
from hypothesis import given
from hypothesis import strategies as st

from lunport.core.errors import InvalidInput
from lunport.core.size import (
    GIB,
    MAX_SIZE_GIB,
    bytes_to_gib,
    format_size,
    gib_to_bytes,
    parse_size_gib,
)
from tests import strategies


@given(st.integers(1, MAX_SIZE_GIB))
def test_sizes_as_numbers_and_strings(size_gib: int) -> None:
    """A size is the same whether it arrives as a number or as decimal digits."""
    assert parse_size_gib(size_gib) == size_gib
    assert parse_size_gib(str(size_gib)) == size_gib
    assert parse_size_gib(f"{size_gib:012d}") == size_gib


@given(strategies.json_values())
def test_any_size_parses_or_is_refused(value: object) -> None:
    """Whatever is given, the result is a positive number that the database takes, or an error."""
    try:
        size_gib = parse_size_gib(value)
    except InvalidInput:
        return
    assert type(size_gib) is int
    assert 1 <= size_gib <= MAX_SIZE_GIB


NUMBERS = (0, -1, True, False, 1.0, 1.5, float("nan"))
TEXTS = ("", "0", "000", "-1", "+1", "1.0", "1e3", " 1", "1\n", "1_0", "0x10", "\u0661", "\u00b2")


@pytest.mark.parametrize("value", [*NUMBERS, *TEXTS, "one", None, [1], {"size": 1}])
def test_no_sizes(value: object) -> None:
    """What is no size is refused in Block Storage's words."""
    with pytest.raises(InvalidInput) as caught:
        parse_size_gib(value)
    assert caught.value.what == "volume size"
    assert "must be an integer (or string representation of an integer)" in str(caught.value)
    assert "greater than zero" in str(caught.value)


@pytest.mark.parametrize(
    "value",
    [2**31, 10**5000, str(2**31), "9" * 5000],
    ids=["number", "long number", "text", "long text"],
)
def test_absurd_sizes(value: object) -> None:
    """A size beyond the database column is refused, however many digits it has."""
    with pytest.raises(InvalidInput, match=r"greater than the maximum of 2147483647 GiB"):
        parse_size_gib(value, what="new size")


@given(st.integers(0, 2**80))
def test_bytes_and_gibibytes(size_bytes: int) -> None:
    """Bytes become the fewest whole GiB that hold them, and GiB convert back exactly."""
    size_gib = bytes_to_gib(size_bytes)
    assert gib_to_bytes(size_gib) >= size_bytes > gib_to_bytes(size_gib - 1)
    assert bytes_to_gib(gib_to_bytes(size_gib)) == size_gib


@pytest.mark.parametrize(
    "size_bytes, text",
    [
        (0, "0 bytes"),
        (1, "1 byte"),
        (1023, "1023 bytes"),
        (1024, "1 KiB"),
        (1536, "1.5 KiB"),
        (64 * 2**20, "64 MiB"),
        (GIB - 1, "1023.9 MiB"),
        (GIB, "1 GiB"),
        (10 * GIB + 1, "10 GiB"),
        (2**40 * 3 // 2, "1.5 TiB"),
        (2**90, "1048576 ZiB"),
    ],
)
def test_for_people(size_bytes: int, text: str) -> None:
    """A size is shown with one decimal in the largest unit it fills, never rounded up."""
    assert format_size(size_bytes) == text


@given(st.integers(0, 2**79))
def test_never_shown_larger(size_bytes: int) -> None:
    """What is shown is at most the size, and short of it by less than a tenth of the unit."""
    number, unit = format_size(size_bytes).split()
    names = ("bytes", "KiB", "MiB", "GiB", "TiB", "PiB", "EiB", "ZiB")
    exponent = names.index("bytes" if unit == "byte" else unit)
    whole, _, tenth = number.partition(".")
    tenths = int(whole) * 10 + int(tenth or 0)
    step = 1024**exponent if exponent else 10
    assert 0 <= size_bytes * 10 - tenths * 1024**exponent < step
