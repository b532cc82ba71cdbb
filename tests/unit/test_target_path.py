"""Tests of target paths, LUNs and transports."""

from __future__ import annotations

import pytest
from hypothesis import given
from hypothesis import strategies as st

from lunport.core.errors import InvalidInput, InvalidLun
from lunport.core.iqn import Iqn
from lunport.core.portal import Portal
from lunport.core.target_path import MAX_LUN, TargetPath, parse_lun
from lunport.core.transport import Transport, parse_transport
from tests import strategies


@given(strategies.luns())
def test_luns_as_numbers_and_strings(lun: int) -> None:
    """A LUN is the same whether it arrives as a number or as decimal digits."""
    assert parse_lun(lun) == lun
    assert parse_lun(str(lun)) == lun


@given(strategies.json_values())
def test_any_lun_parses_or_is_refused(value: object) -> None:
    """Whatever is given, the result is a number from 0 to 16383, or InvalidLun."""
    try:
        lun = parse_lun(value)
    except InvalidLun:
        return
    assert type(lun) is int
    assert 0 <= lun <= MAX_LUN


NUMBERS = (-1, 16384, pytest.param(10**5000, id="huge"), True, False, 1.0)
TEXTS = (
    "",
    "-1",
    "+1",
    " 1",
    "1 ",
    "0x1",
    "1_0",
    "16384",
    "000001",
    "9" * 5000,
    "\u0661",
    "\u00b2",
)


@pytest.mark.parametrize("value", [*NUMBERS, *TEXTS, None, [1], {}])
def test_luns_refused(value: object) -> None:
    """What is no LUN is refused, however large, by an error that can be shown."""
    with pytest.raises(InvalidLun) as caught:
        parse_lun(value, what="target_luns[0]")
    assert len(str(caught.value)) < 200
    assert str(caught.value).startswith("Invalid target_luns[0] ")


@given(strategies.transports())
def test_transports_round_trip(transport: Transport) -> None:
    """A transport is the same after it was written and read, in any case."""
    assert parse_transport(transport.value) is transport
    assert parse_transport(transport.value.upper()) is transport


@given(strategies.json_values())
def test_any_transport_parses_or_is_refused(value: object) -> None:
    """Whatever is given, the result is a transport, or InvalidInput."""
    try:
        transport = parse_transport(value)
    except InvalidInput:
        return
    assert transport in Transport


@given(st.lists(strategies.target_paths(), max_size=6))
def test_paths_are_values(paths: list[TargetPath]) -> None:
    """Equal paths are one path in a set, so that folds can key on them."""
    copies = [TargetPath(p.portal, p.iqn, p.lun, p.transport) for p in paths]
    assert set(copies) == set(paths)


def test_path_as_text() -> None:
    """A path shows its portal, its target and its LUN."""
    path = TargetPath(Portal("fd00::2"), Iqn("iqn.2014-2.org.example:x"), 7)
    assert str(path) == "[fd00::2]:3260 iqn.2014-2.org.example:x lun 7"
