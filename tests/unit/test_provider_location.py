"""Tests of the provider location codec."""

from __future__ import annotations

import re

import pytest
from hypothesis import given
from hypothesis import strategies as st

from lunport.core.errors import InvalidProviderLocation
from lunport.core.portal import Portal
from lunport.core.provider_location import (
    ProviderLocation,
    format_provider_location,
    parse_provider_location,
)
from lunport.core.transport import Transport
from tests import strategies

NAME = "volume-12345678-abcd-1234-5678-12345678abcd"
SPEC_A = f"10.0.1.2:3260;10.0.2.2:3260,0 iqn.2010-10.org.openstack: {NAME}"
CANONICAL = f"10.0.1.2:3260;10.0.2.2:3260,0 iqn.2010-10.org.openstack:{NAME} 0"


@given(strategies.provider_locations())
def test_round_trip(location: ProviderLocation) -> None:
    """A location is the same after it was written and read."""
    assert parse_provider_location(format_provider_location(location)) == location


@given(strategies.provider_locations(), st.sampled_from(["  ", "\n", "\t", " \r\n "]))
def test_blanks_are_tolerated(location: ProviderLocation, blanks: str) -> None:
    """More blanks between the parts change nothing."""
    text = format_provider_location(location)
    loose = blanks + re.sub("([ ;,])", rf"\1{blanks}", text) + blanks
    assert parse_provider_location(loose) == location


@given(strategies.provider_locations())
def test_canonical_form(location: ProviderLocation) -> None:
    """Writing what was read gives the text again: there is one form."""
    text = format_provider_location(location)
    assert format_provider_location(parse_provider_location(text)) == text
    assert len(text.split(" ")) == 3


@given(st.one_of(strategies.json_values(), st.text("0123456789.:;,[] iqnaeu-", max_size=60)))
def test_anything_parses_or_is_refused(value: object) -> None:
    """Whatever is given, the result is a location, or InvalidProviderLocation."""
    try:
        location = parse_provider_location(value)
    except InvalidProviderLocation:
        return
    assert parse_provider_location(format_provider_location(location)) == location


@given(strategies.provider_locations(), st.data())
def test_damaged_locations(location: ProviderLocation, data: st.DataObject) -> None:
    """A location with one character taken out or replaced is read, or cleanly refused."""
    text = format_provider_location(location)
    at = data.draw(st.integers(0, len(text) - 1))
    damaged = text[:at] + data.draw(st.text(max_size=2)) + text[at + 1 :]
    try:
        found = parse_provider_location(damaged)
    except InvalidProviderLocation:
        return
    assert parse_provider_location(format_provider_location(found)) == found


@pytest.mark.parametrize(
    "text",
    [SPEC_A, SPEC_A.replace(": ", ":"), SPEC_A.replace(": ", ":\n    "), CANONICAL],
    ids=["as printed", "unwrapped", "wrapped", "canonical"],
)
def test_spec_a_example(text: str) -> None:
    """The example that spec A prints is read with and without its line wrap."""
    location = parse_provider_location(text)
    assert location.portals == (Portal("10.0.1.2"), Portal("10.0.2.2"))
    assert (location.number, location.lun) == (0, 0)
    assert location.iqn == f"iqn.2010-10.org.openstack:{NAME}"
    assert format_provider_location(location) == CANONICAL


@pytest.mark.parametrize(
    "text, iqn, lun",
    [
        ("10.0.1.2,1 iqn.2014-2.org.example:a: 5", "iqn.2014-2.org.example:a:", 5),
        ("10.0.1.2,1 iqn.2014-2.org.example:a: b 5", "iqn.2014-2.org.example:a:b", 5),
        ("10.0.1.2,1 iqn.2014-2.org.example: 5", "iqn.2014-2.org.example:5", 0),
        ("10.0.1.2,1 iqn.2014-2.org.example: 5 6", "iqn.2014-2.org.example:5", 6),
    ],
)
def test_a_wrap_is_told_from_a_lun(text: str, iqn: str, lun: int) -> None:
    """A number behind a colon is the LUN when the name is whole without it."""
    location = parse_provider_location(text)
    assert (location.iqn, location.lun) == (iqn, lun)


def test_ipv6_and_a_lun() -> None:
    """IPv6 portals, the number and the LUN are kept; a portal named twice counts once."""
    text = "[FD00::2]:3260;10.0.1.2;[fd00:0::2],17 iqn.2014-2.org.example:x 5"
    location = parse_provider_location(text)
    assert (location.number, location.lun) == (17, 5)
    assert format_provider_location(location) == (
        "[fd00::2]:3260;10.0.1.2:3260,17 iqn.2014-2.org.example:x 5"
    )


def test_paths() -> None:
    """A location gives one path for each portal, in the backend's order."""
    location = parse_provider_location("10.0.1.2;10.0.2.2,1 iqn.2014-2.org.example:x 5")
    paths = location.paths(Transport.ISER)
    assert [str(path) for path in paths] == [
        "10.0.1.2:3260 iqn.2014-2.org.example:x lun 5",
        "10.0.2.2:3260 iqn.2014-2.org.example:x lun 5",
    ]
    assert {path.transport for path in paths} == {Transport.ISER}


@pytest.mark.parametrize(
    "value",
    [
        "",
        " ",
        "10.0.1.2:3260",
        "10.0.1.2:3260,1",
        "10.0.1.2:3260 iqn.2014-2.org.example:x",
        "10.0.1.2:3260, iqn.2014-2.org.example:x",
        "10.0.1.2:3260,x iqn.2014-2.org.example:x",
        "10.0.1.2:3260,1.5 iqn.2014-2.org.example:x",
        "10.0.1.2:3260,99999999999 iqn.2014-2.org.example:x",
        "10.0.1.2:3260,\u0661 iqn.2014-2.org.example:x",
        ",1 iqn.2014-2.org.example:x",
        ";,1 iqn.2014-2.org.example:x",
        "10.0.1.2;;10.0.2.2,1 iqn.2014-2.org.example:x",
        "10.0.1.2;,1 iqn.2014-2.org.example:x",
        "10.0.1,1 iqn.2014-2.org.example:x",
        "[::1,1 iqn.2014-2.org.example:x",
        "10.0.1.2,10.0.2.2,1 iqn.2014-2.org.example:x",
        "10.0.1.2,1 volume-1",
        "10.0.1.2,1 iqn.2014-2.org.example:x one",
        "10.0.1.2,1 iqn.2014-2.org.example:x 16384",
        "10.0.1.2,1 iqn.2014-2.org.example:x -1",
        "10.0.1.2,1 iqn.2014-2.org.example:x 1 2",
        "10.0.1.2,1 iqn.2014-2.org.example:x y z",
        None,
        7,
        b"10.0.1.2,1 iqn.2014-2.org.example:x",
        ["10.0.1.2,1 iqn.2014-2.org.example:x"],
    ],
)
def test_refused(value: object) -> None:
    """What is no location is refused, by an error that shows it."""
    with pytest.raises(InvalidProviderLocation) as caught:
        parse_provider_location(value)
    assert caught.value.value == value
    assert str(caught.value).startswith("Invalid provider location ")


def test_the_wrong_part_is_named() -> None:
    """The error says which part is wrong, and why."""
    with pytest.raises(InvalidProviderLocation) as caught:
        parse_provider_location("10.0.1.2;10.0.2.2:0,1 iqn.2014-2.org.example:x")
    assert str(caught.value) == (
        "Invalid provider location '10.0.1.2;10.0.2.2:0,1 iqn.2014-2.org.example:x': "
        "Invalid portal '10.0.2.2:0': the port is a number from 1 to 65535."
    )
