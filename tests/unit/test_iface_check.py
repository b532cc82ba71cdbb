"""What this host's hardware says of an iface, in words that say what to do; and which it calls for.

The adapters are made of the kernel's documented sysfs; none of them is in this machine.
"""

from __future__ import annotations

from dataclasses import replace

import pytest

from lunport.core.errors import InvalidInput
from lunport.core.iface import BUILT_IN, Iface
from lunport.core.iface_check import Level, check_iface, propose_ifaces
from lunport.core.iface_choice import find_ifaces, parse_iface_wish, parse_iface_wishes
from lunport.core.iface_hardware import (
    TRANSPORTS,
    HostHardware,
    NetDevice,
    PciAdapter,
    RdmaLink,
    ScsiHost,
)

MAC = "00:07:43:2a:11:80"
OTHER = "00:07:43:2a:11:88"
PLAIN = "52:54:00:00:00:01"
T5 = PciAdapter("0000:05:00.4", "1425:5410", "cxgb4")
CHELSIO = NetDevice("enp5s0f4", MAC, ("10.0.1.1/24",), T5.address, "cxgb4")
NIC = NetDevice("eth1", PLAIN, ("10.0.2.1/24",), "0000:01:00.0", "e1000e")
MODULES = frozenset(needs.module for needs in TRANSPORTS.values() if needs.module)
BARE = HostHardware(frozenset({"tcp"}), MODULES, (T5,), (CHELSIO, NIC))
OFFLOAD = replace(
    BARE,
    transports=frozenset({"tcp", "cxgb4i"}),
    hosts=(ScsiHost(7, "cxgb4i", MAC, "10.0.1.9", "enp5s0f4", T5.address),),
)
CXGB4I = Iface(f"cxgb4i.{MAC}", "cxgb4i", MAC)


def errors(iface: Iface, host: HostHardware) -> str:
    """Say why an iface can't be used."""
    return check_iface(iface, host).why_not or ""


def test_an_adapter_whose_module_is_loaded_can_be_used() -> None:
    """Module, host, adapter and address agree."""
    verdict = check_iface(CXGB4I, OFFLOAD)
    assert verdict.is_usable
    assert verdict.findings == ()


def test_the_verdict_names_the_module_and_the_adapter() -> None:
    """Whoever reads it knows what to load, and that it is worth it."""
    said = errors(CXGB4I, BARE)
    assert "cxgb4i needs the module cxgb4i, which is not loaded" in said
    assert f"0000:05:00.4 (1425:5410), its MAC is {MAC}" in said
    assert "modprobe cxgb4i" in said


@pytest.mark.parametrize(
    "iface, host, words",
    [
        (Iface("x", "srp"), BARE, "nobody knows a transport srp"),
        (Iface("ocs.x", "ocs", MAC), BARE, "mainline Linux has no module for ocs"),
        (CXGB4I, replace(BARE, modules=frozenset()), "which this kernel does not have"),
        (Iface("c", "cxgb4i"), OFFLOAD, "no hardware address"),
        (Iface("c", "cxgb4i", OTHER), OFFLOAD, f"no port of cxgb4i has {OTHER}; it has {MAC}"),
        (Iface("c", "cxgb4i", PLAIN), OFFLOAD, "which cxgb4i does not drive"),
        (Iface("q", "qla4xxx", MAC), BARE, "which qla4xxx does not drive; cxgb4i does"),
        (Iface("q", "qedi", OTHER), BARE, "no adapter that qedi drives is in this host"),
        (Iface("q", "qedi", OTHER), BARE, "takes an address of its own"),
        (Iface("t", "tcp", net_ifacename="eth9"), BARE, "no network device eth9"),
        (Iface("t", "tcp", MAC, net_ifacename="eth1"), BARE, f"the record says {MAC}"),
        (Iface("t", "tcp", None, "10.0.2.7", "eth1"), BARE, "the record says 10.0.2.7"),
        (BUILT_IN["iser"], BARE, "this host has no RDMA device"),
    ],
)
def test_what_contradicts_the_hardware_is_said(
    iface: Iface, host: HostHardware, words: str
) -> None:
    """Each kind of contradiction is an error with its reason."""
    assert words in errors(iface, host)


def test_a_name_that_lies_is_a_warning() -> None:
    """The record counts; a name is only a name."""
    verdict = check_iface(Iface(f"cxgb4i.{MAC}", "tcp"), OFFLOAD)
    assert verdict.is_usable
    assert [one.level for one in verdict.findings] == [Level.WARNING]
    assert "its name says cxgb4i, its record tcp" in verdict.findings[0].text


def test_iser_needs_rdma_on_its_network_device() -> None:
    """An RDMA device elsewhere does not do, nor one whose port is down."""
    host = replace(BARE, rdma=(RdmaLink("rxe0", 1, "eth1", is_active=True),))
    assert check_iface(BUILT_IN["iser"], host).is_usable
    assert check_iface(Iface("r", "iser", net_ifacename="eth1"), host).is_usable
    bound = Iface("r", "iser", net_ifacename="enp5s0f4")
    assert "no RDMA device is on enp5s0f4; there is rxe0 on eth1" in errors(bound, host)
    down = replace(host, rdma=(RdmaLink("rxe0", 1, "eth1", is_active=False),))
    assert "no port of rxe0 (eth1) is active" in errors(BUILT_IN["iser"], down)


@pytest.mark.parametrize(
    "rp_filter, arp_ignore, levels",
    [
        (1, 1, [Level.ERROR]),
        (2, 0, [Level.WARNING]),
        (1, 0, [Level.ERROR, Level.WARNING]),
        (2, 1, []),
        (0, 1, []),
    ],
)
def test_two_devices_in_one_subnet_need_their_settings(
    rp_filter: int, arp_ignore: int, levels: list[Level]
) -> None:
    """With strict rp_filter replies are dropped, without arp_ignore they come in anywhere."""
    one = NetDevice("eth1", PLAIN, ("10.0.2.1/24",), rp_filter=rp_filter, arp_ignore=arp_ignore)
    other = NetDevice("eth2", OTHER, ("10.0.2.2/24",))
    host = HostHardware(frozenset({"tcp"}), MODULES, net=(one, other))
    bound = Iface("t", "tcp", net_ifacename="eth1")
    assert [finding.level for finding in check_iface(bound, host).findings] == levels
    assert check_iface(BUILT_IN["default"], host).findings == ()
    apart = replace(host, net=(one, replace(other, addresses=("10.0.3.2/24",))))
    assert check_iface(bound, apart).findings == ()


def test_the_hardware_present_calls_for_its_records() -> None:
    """Of loaded drivers' hosts, and of adapters whose driver is not loaded; never of plain NICs."""
    expected = (Iface(f"cxgb4i.{MAC}", "cxgb4i", MAC),)
    assert propose_ifaces(OFFLOAD) == expected
    assert propose_ifaces(BARE) == expected
    assert propose_ifaces(HostHardware(net=(NIC,))) == ()


# -- choices -------------------------------------------------------------------------------------


def chosen(entry: str, host: HostHardware, *records: Iface) -> tuple[Iface, ...]:
    """Say which ifaces an entry of the configuration stands for."""
    return find_ifaces(parse_iface_wish(entry), {one.name: one for one in records}, host)


def test_an_entry_names_a_record_first() -> None:
    """A record, or one that is built in, is what its name says."""
    mine = Iface("eth1", "tcp", net_ifacename="enp5s0f4")
    assert chosen("eth1", BARE, mine) == (mine,)
    assert chosen("iser", BARE) == (BUILT_IN["iser"],)
    assert chosen("default", BARE) == (BUILT_IN["default"],)
    assert chosen(f"cxgb4i.{MAC}", BARE) == (CXGB4I,)


def test_a_transport_stands_for_all_its_ports() -> None:
    """Records first, then adapters that have none."""
    named = Iface("chelsio-a", "cxgb4i", MAC)
    assert chosen("cxgb4i", OFFLOAD) == (CXGB4I,)
    assert chosen("transport:cxgb4i", OFFLOAD, named) == (named,)
    with pytest.raises(InvalidInput, match="no adapter"):
        chosen("qedi", OFFLOAD)


def test_a_source_address_leads_to_the_adapter() -> None:
    """Address, device, MAC, adapter, transport; plain TCP where the offload is not loaded."""
    assert chosen("10.0.1.9", OFFLOAD) == (CXGB4I,)
    assert chosen("address:10.0.1.1", OFFLOAD) == (CXGB4I,)
    assert chosen("10.0.1.1", BARE) == (Iface(f"tcp.{MAC}", "tcp", net_ifacename="enp5s0f4"),)
    assert chosen("10.0.2.1", OFFLOAD) == (Iface(f"tcp.{PLAIN}", "tcp", net_ifacename="eth1"),)
    with pytest.raises(InvalidInput, match="no device of this host"):
        chosen("10.9.9.9", OFFLOAD)


def test_a_network_device_is_bound_by_its_name() -> None:
    """A record that binds it is used; a MAC that several devices have is in no name."""
    known = Iface("if1", "tcp", PLAIN)
    assert chosen("eth1", BARE, known) == (known,)
    vlan = replace(NIC, name="eth1.7")
    shared = replace(BARE, net=(NIC, vlan))
    assert chosen("device:eth1.7", shared) == (Iface("tcp.eth1.7", "tcp", net_ifacename="eth1.7"),)
    with pytest.raises(InvalidInput, match="this host has"):
        chosen("eth9", BARE)


@pytest.mark.parametrize("entry", ["", " ", "a b", 3, "transport:srp", "address:ten", "device:a/b"])
def test_an_entry_that_is_none_is_refused(entry: object) -> None:
    """The configuration is refused before anything is tried."""
    with pytest.raises(InvalidInput):
        parse_iface_wish(entry)


def test_each_entry_counts_once() -> None:
    """A list keeps its order."""
    assert [str(one) for one in parse_iface_wishes(["iser", "device:eth1", "iser"])] == [
        "iser",
        "device:eth1",
    ]
    with pytest.raises(InvalidInput, match="at most"):
        parse_iface_wishes([f"if{number}" for number in range(17)])
