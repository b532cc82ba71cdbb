"""Which ifaces a list in the configuration stands for, on this host, in order.

    ifaces = ["cxgb4i.00:07:43:2a:11:80", "iser", "device:eth2", "address:10.0.1.1", "default"]

An entry names a record, a transport (all its ports), a network device (TCP bound to it) or a
source address of this host, whose network device and adapter say the rest. Where nothing says
which is meant it is tried in this order: record, transport, address, network device. A record
that is called for and not there is made on the fly.
"""

from __future__ import annotations

import ipaddress
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass
from typing import Final

from lunport.core.errors import InvalidInput
from lunport.core.iface import (
    BUILT_IN,
    ISER,
    TCP,
    Iface,
    conventional_name,
    parse_address,
    parse_iface_name,
    parse_net_device,
)
from lunport.core.iface_check import propose_ifaces, transport_of_device
from lunport.core.iface_hardware import TRANSPORTS, HostHardware, NetDevice
from lunport.core.node_record import DEFAULT_IFACE, check_iface_name

KINDS: Final = ("name", "transport", "device", "address")
MAX_IFACES: Final = 16


@dataclass(frozen=True, slots=True)
class IfaceWish:
    """One entry of a list; ``kind`` None where it does not say which of :data:`KINDS` it is."""

    text: str
    kind: str | None = None

    def __str__(self) -> str:
        return self.text if self.kind is None else f"{self.kind}:{self.text}"


def parse_iface_wish(entry: object) -> IfaceWish:
    """Read an entry of a list. Raises: InvalidInput."""
    if not isinstance(entry, str) or not entry.strip():
        raise InvalidInput("iface", entry, "expected a name, a transport, a device or an address")
    text = entry.strip()
    kind, colon, rest = text.partition(":")
    if not colon or kind not in KINDS:
        if not _is_address(text):
            check_iface_name(text)
        return IfaceWish(text)
    if kind == "address":
        return IfaceWish(parse_address(rest), kind)
    if kind == "device":
        return IfaceWish(parse_net_device(rest), kind)
    if kind == "transport" and rest not in TRANSPORTS:
        raise InvalidInput("transport", rest, f"expected one of {', '.join(TRANSPORTS)}")
    check_iface_name(rest)
    return IfaceWish(rest, kind)


def parse_iface_wishes(entries: Iterable[object]) -> tuple[IfaceWish, ...]:
    """Read a list, each entry once. Raises: InvalidInput."""
    wishes = tuple(dict.fromkeys(map(parse_iface_wish, entries)))
    if len(wishes) > MAX_IFACES:
        raise InvalidInput("ifaces", len(wishes), f"at most {MAX_IFACES} are taken")
    return wishes


def find_ifaces(
    wish: IfaceWish, records: Mapping[str, Iface], host: HostHardware
) -> tuple[Iface, ...]:
    """Say which ifaces an entry stands for; some may have no record yet.

    ``records``: those that are there, by name. Raises: InvalidInput where nothing fits.
    """
    text, kind = wish.text, wish.kind
    if kind in (None, "name"):
        known = records.get(text) or BUILT_IN.get(text)
        if known is not None:
            return (known,)
        said = parse_iface_name(text)
        if said is not None and said.kind is None:
            return (Iface(text, said.transport, said.hwaddress),)
        if kind == "name":
            raise InvalidInput("iface", text, "open-iscsi has no record of that name")
    if kind == "transport" or (kind is None and text in TRANSPORTS):
        return _of_transport(text, records, host)
    if kind == "address" or (kind is None and _is_address(text)):
        return (iface_of_source(parse_address(text), records, host),)
    device = host.device_of(None, text)
    if device is None:
        what = "network device" if kind == "device" else "iface"
        names = ", ".join((*records, *BUILT_IN, *(one.name for one in host.net)))
        raise InvalidInput(what, text, f"this host has {names}")
    return (_bound_to(device, records, host),)


def iface_of_source(address: str, records: Mapping[str, Iface], host: HostHardware) -> Iface:
    """Find the iface of an address of this host: device, MAC, adapter, transport, record.

    An adapter's own address (an iscsi_host's) counts before those of network devices; an
    adapter whose offload module is not loaded is a plain network card. Raises: InvalidInput.
    """
    for one in host.hosts:
        if one.ipaddress == address and one.hwaddress and _is_offload(one.transport):
            return _existing(Iface(conventional_name(one.transport, one.hwaddress),
                                   one.transport, one.hwaddress), records)  # fmt: skip
    for record in records.values():
        if record.ipaddress == address:
            return record
    device = host.device_with(address)
    if device is None:
        raise InvalidInput("source address", address, "no device of this host has it")
    transport = transport_of_device(device, host)
    if transport is not None and transport in host.transports and device.hwaddress is not None:
        made = Iface(conventional_name(transport, device.hwaddress), transport, device.hwaddress)
        return _existing(made, records)
    return _bound_to(device, records, host)


def iface_of_tuple(transport: str, hwaddress: str, address: str | None, name: str | None) -> Iface:
    """Make an iface of the three-tuple: transport, hardware address, IP address."""
    called = name or conventional_name(transport, hwaddress)
    check_iface_name(called)
    return Iface(called, transport, hwaddress, address)


def is_default(iface: Iface) -> bool:
    """Tell whether it is the one that needs nothing."""
    return iface.name == DEFAULT_IFACE


# -- parts ---------------------------------------------------------------------------------------


def _of_transport(
    transport: str, records: Mapping[str, Iface], host: HostHardware
) -> tuple[Iface, ...]:
    if transport == TCP:
        return (BUILT_IN[DEFAULT_IFACE],)
    if transport == ISER:
        return (BUILT_IN[ISER],)
    found = [one for _, one in sorted(records.items()) if one.transport == transport]
    bound = {one.hwaddress for one in found}
    found += [
        one
        for one in propose_ifaces(host)
        if one.transport == transport and one.hwaddress not in bound
    ]
    if not found:
        reason = "no record and no adapter of it is on this host: lunport iface check"
        raise InvalidInput("transport", transport, reason)
    return tuple(found)


def _bound_to(device: NetDevice, records: Mapping[str, Iface], host: HostHardware) -> Iface:
    known = [
        one
        for _, one in sorted(records.items())
        if one.transport == TCP
        and one.initiatorname is None
        and (one.net_ifacename == device.name or (one.hwaddress or "-") == device.hwaddress)
    ]
    if known:
        return known[0]
    # VLANs and bonds share a MAC, which then names none of them.
    is_alone = sum(one.hwaddress == device.hwaddress for one in host.net) == 1
    end = device.hwaddress if is_alone and device.hwaddress is not None else device.name
    return Iface(f"{TCP}.{end}", TCP, net_ifacename=device.name)


def _existing(made: Iface, records: Mapping[str, Iface]) -> Iface:
    if made.name in records:
        return records[made.name]
    same: Sequence[Iface] = [
        one
        for _, one in sorted(records.items())
        if (one.transport, one.hwaddress) == (made.transport, made.hwaddress)
    ]
    return same[0] if same else made


def _is_offload(transport: str) -> bool:
    return transport in TRANSPORTS and TRANSPORTS[transport].is_offload


def _is_address(text: str) -> bool:
    try:
        ipaddress.ip_address(text.strip("[]"))
    except ValueError:
        return False
    return True
