"""Iface records and names: written, read, and refused where open-iscsi could not use them."""

from __future__ import annotations

import contextlib

import pytest
from hypothesis import given
from hypothesis import strategies as st

from lunport.core.errors import InvalidInput
from lunport.core.iface import (
    BUILT_IN,
    MADE_BY_COMMAND,
    MADE_ON_THE_FLY,
    Iface,
    conventional_name,
    format_iface_record,
    heading_of,
    parse_hwaddress,
    parse_iface_listing,
    parse_iface_name,
    parse_iface_record,
)

MAC = "00:07:43:2a:11:80"

macs = st.lists(st.integers(0, 255), min_size=6, max_size=6).map(
    lambda octets: ":".join(f"{octet:02x}" for octet in octets)
)
names = st.from_regex(r"[A-Za-z0-9_][A-Za-z0-9_.:-]{0,63}", fullmatch=True).filter(
    lambda name: name not in BUILT_IN
)
ifaces = st.builds(
    Iface,
    name=names,
    transport=st.sampled_from(("tcp", "iser", "cxgb4i", "qedi", "be2iscsi")),
    hwaddress=st.none() | macs,
    ipaddress=st.none() | st.ip_addresses().map(str),
    net_ifacename=st.none() | st.from_regex(r"[a-z][a-z0-9.@_]{0,14}", fullmatch=True).filter(
        lambda name: name != "default"
    ),
    initiatorname=st.none() | st.just("iqn.2026-11.org.example:second"),
)  # fmt: skip


@given(ifaces, st.sampled_from((MADE_ON_THE_FLY, MADE_BY_COMMAND)))
def test_what_is_written_reads_back(iface: Iface, heading: str) -> None:
    """A record says what it was made of, and whose it is."""
    text = format_iface_record(iface, heading=heading)
    assert parse_iface_record(iface.name, text) == iface
    assert heading_of(text) == heading


@given(st.text(max_size=300))
def test_junk_is_refused_or_read(text: str) -> None:
    """Whatever a file holds, it is an iface or our error."""
    with contextlib.suppress(InvalidInput):
        assert parse_iface_record("x", text).transport


def test_open_iscsis_own_example_reads() -> None:
    """A record as etc/iface.example of open-iscsi has it, empty values left out."""
    text = (
        "# BEGIN RECORD 2.0-872\n"
        "iface.iscsi_ifacename = qla4xxx-3\n"
        "iface.ipaddress = 192.168.1.75\n"
        "iface.hwaddress = 00:0E:1E:04:93:92\n"
        "iface.transport_name = qla4xxx\n"
        "iface.net_ifacename = <empty>\n"
        "iface.vlan = <empty>\n"
        "# END RECORD\n"
    )
    expected = Iface("qla4xxx-3", "qla4xxx", "00:0e:1e:04:93:92", "192.168.1.75")
    assert parse_iface_record("qla4xxx-3", text) == expected
    assert heading_of(text) is None


@pytest.mark.parametrize(
    "line",
    [
        "iface.hwaddress = 00:07:43:2a:11:80",  # no transport
        "iface.transport_name = <empty>",
        "iface.transport_name = cxgb4i\niface.hwaddress = 00:07:43",
        "iface.transport_name = cxgb4i\niface.ipaddress = 10.0.1",
        "iface.transport_name = tcp\niface.net_ifacename = a/b",
        "iface.transport_name = Tcp Offload",
    ],
)
def test_a_record_that_can_not_be_used_is_refused(line: str) -> None:
    """A missing transport, and values that are none, are said to be so."""
    with pytest.raises(InvalidInput):
        parse_iface_record("x", line + "\n")


@given(st.sampled_from(("cxgb3i", "cxgb4i", "be2iscsi", "tcp")), macs)
def test_the_conventional_name_reads_back(transport: str, mac: str) -> None:
    """TRANSPORT.MAC is what open-iscsi calls a record of an adapter."""
    said = parse_iface_name(conventional_name(transport, mac))
    assert said is not None
    assert (said.transport, said.hwaddress, said.kind) == (transport, mac, None)


@pytest.mark.parametrize(
    "name, kind, number",
    [
        (f"be2iscsi.{MAC}.ipv4.0", "ipv4", 0),
        (f"qla4xxx.{MAC}.ipv6.1", "ipv6", 1),
        (f"bnx2i.{MAC}.10.0.1.9.2", "10.0.1.9", 2),
    ],
)
def test_names_with_an_address_are_read(name: str, kind: str, number: int) -> None:
    """Adapters with several addresses have a record for each of them."""
    said = parse_iface_name(name)
    assert said is not None
    assert (said.hwaddress, said.kind, said.number) == (MAC, kind, number)


@pytest.mark.parametrize("name", ["default", "iface0", "cxgb4i", f"cxgb4i.{MAC}.ipv4", "a.b.c"])
def test_a_name_that_somebody_chose_says_nothing(name: str) -> None:
    """Only names of the convention are read."""
    assert parse_iface_name(name) is None


def test_hardware_addresses_are_lower_case() -> None:
    """However it is written, it is compared as one."""
    assert parse_hwaddress("00-07-43-2A-11-80") == MAC


def test_what_iscsiadm_prints_is_read() -> None:
    """The listing of iscsiadm -m iface, 2.1.8: built-in ones, a bound one, an adapter's."""
    said = (
        "default tcp,<empty>,<empty>,<empty>,<empty>\n"
        "iser iser,<empty>,<empty>,<empty>,<empty>\n"
        "if1 tcp,<empty>,<empty>,san1,<empty>\n"
        f"cxgb4i.{MAC} cxgb4i,{MAC},10.0.1.9,<empty>,<empty>\n"
        "iscsiadm: something else\n"
    )
    assert parse_iface_listing(said) == (
        BUILT_IN["default"],
        BUILT_IN["iser"],
        Iface("if1", "tcp", net_ifacename="san1"),
        Iface(f"cxgb4i.{MAC}", "cxgb4i", MAC, "10.0.1.9"),
    )


def test_built_in_ifaces_have_no_record() -> None:
    """Nobody writes one that open-iscsi has by itself."""
    with pytest.raises(InvalidInput, match="built in"):
        format_iface_record(BUILT_IN["default"])
