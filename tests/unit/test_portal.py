"""Tests of the portal codec."""

from __future__ import annotations

import pytest
from hypothesis import given
from hypothesis import strategies as st

from lunport.core.errors import InvalidPortal
from lunport.core.portal import Portal, format_portal, parse_portal
from tests import strategies


@given(strategies.portals())
def test_literal_portals_round_trip(portal: Portal) -> None:
    """A portal with an address is the same after it was written and read."""
    assert parse_portal(format_portal(portal)) == portal
    assert portal.is_literal


@given(strategies.host_names(), strategies.ports())
def test_named_portals_round_trip(name: str, port: int) -> None:
    """A portal with a host name is the same after it was written and read, and not literal."""
    portal = Portal(name, port)
    assert parse_portal(format_portal(portal)) == portal
    assert not portal.is_literal


@given(st.one_of(strategies.json_values(), st.text(), st.from_regex(r"\[?[0-9a-f.:]*\]?:?[0-9]*")))
def test_anything_parses_or_is_refused(value: object) -> None:
    """Whatever is given, the result is a portal in its canonical form, or InvalidPortal."""
    try:
        portal = parse_portal(value)
    except InvalidPortal:
        return
    assert parse_portal(format_portal(portal)) == portal


@pytest.mark.parametrize(
    "text, host, port, written",
    [
        ("10.0.1.2:3260", "10.0.1.2", 3260, "10.0.1.2:3260"),
        ("10.0.1.2", "10.0.1.2", 3260, "10.0.1.2:3260"),
        ("  10.0.1.2:860\n", "10.0.1.2", 860, "10.0.1.2:860"),
        ("10.0.1.2:00860", "10.0.1.2", 860, "10.0.1.2:860"),
        ("[fd00::2]:3261", "fd00::2", 3261, "[fd00::2]:3261"),
        ("[FD00:0:0::2]", "fd00::2", 3260, "[fd00::2]:3260"),
        ("fd00::2", "fd00::2", 3260, "[fd00::2]:3260"),
        ("San-A.Example:3261", "san-a.example", 3261, "san-a.example:3261"),
        ("localhost", "localhost", 3260, "localhost:3260"),
    ],
)
def test_accepted_forms(text: str, host: str, port: int, written: str) -> None:
    """Addresses, bracketed or not, and names are read; the port is 3260 when left out."""
    portal = parse_portal(text)
    assert (portal.host, portal.port) == (host, port)
    assert str(portal) == written


@pytest.mark.parametrize(
    "value",
    [
        "",
        " ",
        ":",
        ":3260",
        "10.0.1",
        "10.0.1.2.3",
        "10.0.1.256",
        "010.0.1.2",
        "10.0.1.2:",
        "10.0.1.2:0",
        "10.0.1.2:65536",
        "10.0.1.2:999999",
        "10.0.1.2:+326",
        "10.0.1.2:-1",
        "10.0.1.2: 3260",
        "10.0.1.2:3260 x",
        "10.0.1.2:3260,1",
        "10.0.1.2:3260;10.0.2.2:3260",
        "10.0.1.2:\u0663\u0662\u0666\u0660",
        "10.0.1.2:²",
        "\uff11\uff10.0.1.2:3260",
        "0x7f.1:3260",
        "0x7f000001",
        "host.0x1",
        "2130706433",
        "[::1",
        "[::1]3260",
        "[::1]:",
        "[::1]x",
        "[]",
        "[]:3260",
        "[10.0.1.2]:3260",
        "[san-a]:3260",
        "[::1]]:3260",
        "::1]:3260",
        "[fe80::1%eth0]:3260",
        "fe80::1%eth0",
        "fd00::2:3260:x",
        "fd00:::2",
        "-san:3260",
        "san-:3260",
        "san..example:3260",
        "\u212aelvin:3260",
        "san\x00:3260",
        "san/../:3260",
        "iqn.2014-2.org.example:vol1",
        "\ud800:3260",
        "a" * 64,
        ".".join(["a" * 60] * 5),
        None,
        True,
        3260,
        10.5,
        b"10.0.1.2:3260",
        ["10.0.1.2:3260"],
        {"host": "10.0.1.2"},
    ],
)
def test_refused(value: object) -> None:
    """What is no portal is refused, by an error that names it and shows the value."""
    with pytest.raises(InvalidPortal) as caught:
        parse_portal(value, what="target_portals[3]")
    assert caught.value.what == "target_portals[3]"
    assert caught.value.value == value
    assert str(caught.value).startswith("Invalid target_portals[3] ")
