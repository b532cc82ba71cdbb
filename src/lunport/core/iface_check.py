"""Judge an iface by this host's hardware: can it be used, and if not, what is to be done.

    cxgb4i.00:07:43:2a:11:80  error  cxgb4i needs the module cxgb4i, which is not loaded; the
                              adapter 0000:05:00.4 (1425:5410) is present: modprobe cxgb4i

An *error* means that a login over it can't succeed, or would be another transport than the
record says; a *warning* that something may go wrong; a *note* is for whoever looks. Decides
nothing about what is used in its place: see :mod:`lunport.core.iface_choice`.
"""

from __future__ import annotations

import enum
import ipaddress
from collections.abc import Iterator
from dataclasses import dataclass

from lunport.core.iface import ISER, TCP, Iface, conventional_name, parse_iface_name
from lunport.core.iface_hardware import (
    TRANSPORTS,
    HostHardware,
    NetDevice,
    ScsiHost,
    TransportNeeds,
)

_STRICT = 1  # of rp_filter: a reply must come in where the route to its sender goes out


class Level(enum.StrEnum):
    """How bad a finding is."""

    ERROR = "error"
    WARNING = "warning"
    NOTE = "note"


@dataclass(frozen=True, slots=True)
class Finding:
    """One thing that was found, as a sentence that says what to do."""

    level: Level
    text: str


@dataclass(frozen=True, slots=True)
class Verdict:
    """What is to be said of one iface."""

    iface: Iface
    findings: tuple[Finding, ...] = ()

    @property
    def is_usable(self) -> bool:
        """Tell whether a login over it may succeed."""
        return all(one.level is not Level.ERROR for one in self.findings)

    @property
    def why_not(self) -> str | None:
        """Say in one line why it can't be used; None where it can."""
        texts = [one.text for one in self.findings if one.level is Level.ERROR]
        return "; ".join(texts) or None


def check_iface(iface: Iface, host: HostHardware) -> Verdict:
    """Say whether an iface can be used on this host, and what contradicts it."""
    needs = TRANSPORTS.get(iface.transport)
    if needs is None:
        known = ", ".join(TRANSPORTS)
        text = f"nobody knows a transport {iface.transport}; open-iscsi has {known}"
        return Verdict(iface, (Finding(Level.ERROR, text),))
    return Verdict(iface, tuple(_findings(iface, needs, host)))


def propose_ifaces(host: HostHardware) -> tuple[Iface, ...]:
    """List the records that the adapters of this host call for: one for each of their ports.

    From the drivers' hosts where their module is loaded, else from the network devices of
    adapters whose transport is known.
    """
    found = {}
    for one in host.hosts:
        needs = TRANSPORTS.get(one.transport)
        if needs is not None and needs.is_offload and one.hwaddress is not None:
            name = conventional_name(one.transport, one.hwaddress)
            found[name] = Iface(name, one.transport, one.hwaddress)
    for device in host.net:
        transport = transport_of_device(device, host)
        if transport is not None and device.hwaddress is not None:
            name = conventional_name(transport, device.hwaddress)
            found.setdefault(name, Iface(name, transport, device.hwaddress))
    return tuple(found[name] for name in sorted(found))


def transport_of_device(device: NetDevice, host: HostHardware) -> str | None:
    """Name the offload transport of a network device's adapter; None for a plain one."""
    adapter = host.adapter_at(device.pci)
    if adapter is None:
        return None
    for needs in TRANSPORTS.values():
        if needs.drives(adapter.pci_id) and (
            not needs.network_drivers or device.driver in needs.network_drivers
        ):
            return needs.transport
    return None


def rdma_on(device: NetDevice, host: HostHardware) -> bool:
    """Tell whether an RDMA device that is up is on a network device."""
    return any(link.net_device == device.name and link.is_active for link in host.rdma)


# -- findings ------------------------------------------------------------------------------------


def _findings(iface: Iface, needs: TransportNeeds, host: HostHardware) -> Iterator[Finding]:
    yield from _of_name(iface)
    yield from _of_module(iface, needs, host)
    if needs.is_offload:
        yield from _of_adapter(iface, needs, host)
    else:
        yield from _of_device(iface, host)
    if iface.transport == ISER:
        yield from _of_rdma(iface, host)
    if iface.transport == TCP:
        yield from _of_routes(iface, host)


def _of_name(iface: Iface) -> Iterator[Finding]:
    said = parse_iface_name(iface.name)
    if said is None:
        return
    if said.transport != iface.transport:
        text = f"its name says {said.transport}, its record {iface.transport}: the record counts"
        yield Finding(Level.WARNING, text)
    if iface.hwaddress is not None and said.hwaddress != iface.hwaddress:
        text = f"its name says {said.hwaddress}, its record {iface.hwaddress}: the record counts"
        yield Finding(Level.WARNING, text)


def _of_module(iface: Iface, needs: TransportNeeds, host: HostHardware) -> Iterator[Finding]:
    if iface.transport in host.transports:
        return
    if needs.module is None:
        text = f"mainline Linux has no module for {iface.transport}; use another iface"
        yield Finding(Level.ERROR, text)
        return
    what = f"{iface.transport} needs the module {needs.module}"
    if needs.module not in host.modules:
        yield Finding(Level.ERROR, f"{what}, which this kernel does not have")
        return
    there = host.adapters_of(needs)
    present = ""
    if there:
        named = ", ".join(_adapter_words(one.address, one.pci_id, host) for one in there)
        present = f"; present: {named}"
    # open-iscsi loads the modules of tcp and iser itself as it logs in.
    level = Level.ERROR if needs.is_offload else Level.NOTE
    yield Finding(level, f"{what}, which is not loaded{present}: modprobe {needs.module}")


def _adapter_words(address: str, pci_id: str, host: HostHardware) -> str:
    device = next((one for one in host.net if one.pci == address), None)
    mac = "" if device is None else f", its MAC is {device.hwaddress} ({device.name})"
    return f"the adapter {address} ({pci_id}){mac}"


def _of_adapter(iface: Iface, needs: TransportNeeds, host: HostHardware) -> Iterator[Finding]:
    """See that the adapter is there, and that it is the one the record names."""
    if needs.module is None:
        return
    if iface.net_ifacename is None and iface.hwaddress is None:
        text = "its record has no hardware address (iface.hwaddress): no adapter is named"
        yield Finding(Level.ERROR, text)
        return
    device = host.device_of(iface.hwaddress, iface.net_ifacename)
    own = _host_of(iface, host)
    if iface.transport in host.transports and own is None:
        known = ", ".join(one.hwaddress or f"host{one.number}" for one in
                          host.hosts_of(iface.transport)) or "none"  # fmt: skip
        what = iface.hwaddress or iface.net_ifacename
        text = f"no port of {iface.transport} has {what}; it has {known}"
        yield Finding(Level.ERROR, text)
    if own is None and device is not None:
        transport = transport_of_device(device, host)
        if transport != iface.transport:
            adapter = host.adapter_at(device.pci)
            what = "no adapter" if adapter is None else f"the adapter {adapter.pci_id}"
            text = (
                f"{device.name} ({device.hwaddress}) is {what}, which {iface.transport} "
                f"does not drive" + (f"; {transport} does" if transport else "")
            )
            yield Finding(Level.ERROR, text)
    elif own is None and not host.adapters_of(needs):
        text = f"no adapter that {iface.transport} drives is in this host"
        yield Finding(Level.ERROR, text)
    if needs.own_address and iface.ipaddress is None and (own is None or own.ipaddress is None):
        text = (
            f"{iface.transport} takes an address of its own, and its record has none: "
            f"iscsiadm -m iface -I {iface.name} -o update -n iface.ipaddress -v ADDRESS"
        )
        yield Finding(Level.ERROR, text)


def _host_of(iface: Iface, host: HostHardware) -> ScsiHost | None:
    for one in host.hosts_of(iface.transport):
        if iface.hwaddress is not None and one.hwaddress == iface.hwaddress:
            return one
        if iface.net_ifacename is not None and one.net_ifacename == iface.net_ifacename:
            return one
    return None


def _of_device(iface: Iface, host: HostHardware) -> Iterator[Finding]:
    """See that the network device of a software transport is there, and one only."""
    if not iface.is_bound:
        return
    device = host.device_of(iface.hwaddress, iface.net_ifacename)
    if device is None:
        what = iface.net_ifacename or iface.hwaddress
        yield Finding(Level.ERROR, f"this host has no network device {what}")
        return
    if iface.hwaddress not in (None, device.hwaddress):
        yield Finding(
            Level.ERROR,
            f"{device.name} has the hardware address {device.hwaddress}, "
            f"the record says {iface.hwaddress}",
        )
    own = [address.partition("/")[0] for address in device.addresses]
    if not own:
        text = f"{device.name} has no address: ip address add ADDRESS/PREFIX dev {device.name}"
        yield Finding(Level.ERROR, text)
    elif iface.ipaddress is not None and iface.ipaddress not in own:
        text = f"{device.name} has {', '.join(own)}, the record says {iface.ipaddress}"
        yield Finding(Level.ERROR, text)
    if not device.is_up:
        yield Finding(Level.WARNING, f"{device.name} is down: ip link set {device.name} up")


def _of_rdma(iface: Iface, host: HostHardware) -> Iterator[Finding]:
    if not host.rdma:
        yield Finding(
            Level.ERROR,
            "this host has no RDMA device; without one that is built in, soft-RoCE makes it: "
            "rdma link add rxe0 type rxe netdev DEVICE",
        )
        return
    device = host.device_of(iface.hwaddress, iface.net_ifacename)
    links = [
        link for link in host.rdma if not iface.is_bound or device is None
        or link.net_device == device.name
    ]  # fmt: skip
    if iface.is_bound and device is not None and not links:
        known = ", ".join(f"{one.device} on {one.net_device}" for one in host.rdma)
        yield Finding(Level.ERROR, f"no RDMA device is on {device.name}; there is {known}")
    elif not any(link.is_active for link in links):
        named = ", ".join(f"{one.device} ({one.net_device})" for one in links)
        yield Finding(Level.ERROR, f"no port of {named} is active: see rdma link show")


def _of_routes(iface: Iface, host: HostHardware) -> Iterator[Finding]:
    """See that replies come in over the device, where another one is in the same network."""
    device = host.device_of(iface.hwaddress, iface.net_ifacename) if iface.is_bound else None
    if device is None:
        return
    beside = [
        other.name
        for other in host.net
        if other.name != device.name and _networks(other) & _networks(device)
    ]
    if not beside:
        return
    others = ", ".join(beside)
    if device.rp_filter == _STRICT:
        yield Finding(
            Level.ERROR,
            f"{others} is in the same network, and {device.name} has rp_filter 1: what comes in "
            f"there is dropped; sysctl net.ipv4.conf.{device.name}.rp_filter=2",
        )
    if device.arp_ignore == 0:
        yield Finding(
            Level.WARNING,
            f"{others} is in the same network, and {device.name} has arp_ignore 0: any of them "
            f"answers for its address; sysctl net.ipv4.conf.{device.name}.arp_ignore=1 and "
            f"net.ipv4.conf.{device.name}.arp_announce=2",
        )


def _networks(device: NetDevice) -> set[str]:
    interfaces = (ipaddress.ip_interface(address) for address in device.addresses)
    return {
        str(one.network) for one in interfaces if one.version == 4 and one.network.prefixlen < 32
    }
