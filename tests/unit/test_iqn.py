"""Tests of the iSCSI name codec."""

from __future__ import annotations

import pytest
from hypothesis import given
from hypothesis import strategies as st

from lunport.core.errors import InvalidIqn
from lunport.core.iqn import MAX_LENGTH, Iqn, parse_iqn, same_iqn
from tests import strategies


@given(strategies.iqns())
def test_names_are_kept_as_given(name: Iqn) -> None:
    """A name is kept byte for byte, since tgt compares names so."""
    assert parse_iqn(name) == name
    assert parse_iqn(f" {name}\n") == name


@given(strategies.iqns())
def test_same_name_in_another_case(name: Iqn) -> None:
    """Two names that differ in case alone are the same name."""
    capitals = "".join(letter.upper() if letter.isascii() else letter for letter in name)
    assert same_iqn(name, capitals)
    assert not same_iqn(name, name + "x")


@given(st.one_of(strategies.json_values(), st.text().map("iqn.2014-2.org.example:".__add__)))
def test_anything_parses_or_is_refused(value: object) -> None:
    """Whatever is given, the result is a name without meaning to a shell, or InvalidIqn."""
    try:
        name = parse_iqn(value)
    except InvalidIqn:
        return
    assert not set(name) & set(" \t\n\0/\\,;'\"`$#*?[]{}()<>|&=%@!~^+")
    assert parse_iqn(name) == name


@pytest.mark.parametrize(
    "name",
    [
        "iqn.2014-2.org.example:vol1-1",
        "iqn.2010-10.org.openstack:volume-12345678-abcd-1234-5678-12345678abcd",
        "iqn.1993-08.org.debian:01:5a8bdc3ff",
        "iqn.1991-05.com.microsoft:win_host.example",
        "iqn.2001-04.com.example",
        "iqn.2001-04.com.example:storage:diskarrays-sn-a8675309",
        "iqn.2000-01.com.synology:NAS.Target-1",
        "iqn.2001-04.com.example:größe",
        "eui.02004567A425678D",
        "naa.52004567BA64678D",
        "naa.62004567BA64678D0123456789ABCDEF",
    ],
)
def test_accepted_names(name: str) -> None:
    """Names of all three forms are read, as hosts and arrays write them."""
    assert parse_iqn(name) == name


def test_length_limit() -> None:
    """A name of 223 bytes is read and one of 224 is refused, counted in UTF-8."""
    stem = "iqn.2014-2.org.example:"
    assert len(parse_iqn(stem + "x" * (MAX_LENGTH - len(stem)))) == 223
    with pytest.raises(InvalidIqn, match="at most 223 bytes"):
        parse_iqn(stem + "x" * (MAX_LENGTH + 1 - len(stem)))
    with pytest.raises(InvalidIqn, match="at most 223 bytes"):
        parse_iqn(stem + "ö" * 101)


@pytest.mark.parametrize(
    "value",
    [
        "",
        "iqn",
        "iqn.",
        "iqn.2014-2",
        "iqn.2014-2.",
        "iqn.2014.org.example:x",
        "iqn.14-2.org.example:x",
        "iqn.2014-2.org.example:",
        "iqn.2014-2.org.example: x",
        "iqn.2014-2.org.example:x y",
        "iqn.2014-2.org.example:x\ny",
        "iqn.2014-2.org.example:x,y",
        "iqn.2014-2.org.example:../x",
        "iqn.2014-2.org.example:$(id)",
        "iqn.2014-2.org.example:#x",
        "iqn.2014-2.org.example:x\x7f",
        "iqn.2014-2.org.example:x\x85y",
        "iqn.2014-2.org.example:\u202ex",
        "iqn.2014-2.org.example:\ud800",
        "iqn.2014-2.org.example:\uff58",
        "iqn.\u0662\u0660\u0661\u0664-2.org.example:x",
        "iqn.2014-2.org.e\u017fample:x",
        "iqn.2014-2..org",
        "iqn.2014-2.-org",
        "eui.02004567A425678",
        "eui.02004567A425678DD",
        "eui.02004567A425678G",
        "naa.52004567BA64678D0",
        "volume-1",
        None,
        7,
        b"iqn.2014-2.org.example:x",
        ["iqn.2014-2.org.example:x"],
    ],
)
def test_refused(value: object) -> None:
    """What is no iSCSI name is refused, by an error that names it and shows the value."""
    with pytest.raises(InvalidIqn) as caught:
        parse_iqn(value, what="target_iqns[1]")
    assert caught.value.what == "target_iqns[1]"
    assert caught.value.value == value
