"""Ifaces: what open-iscsi calls a way out of this host, and the records that describe them.

    # BEGIN RECORD 2.1.8
    iface.iscsi_ifacename = cxgb4i.00:07:43:2a:11:80
    iface.transport_name = cxgb4i
    iface.hwaddress = 00:07:43:2a:11:80
    iface.ipaddress = 10.0.1.9
    # END RECORD

A record is a file below ``ifaces``, beside ``nodes``, read as every other of open-iscsi
(:func:`lunport.core.node_record.parse_settings`). ``default`` and ``iser`` are built in and need
none. Its name says nothing for sure about its transport: that is in the record, and after a
login in sysfs. Format: ``usr/iface.c`` of open-iscsi 2.1.8 to 2.1.11, iscsiadm(8). Touches no
file; what the hardware has to say is in :mod:`lunport.core.iface_check`.
"""

from __future__ import annotations

import ipaddress
import re
from collections.abc import Mapping
from dataclasses import dataclass
from typing import Final

from lunport.core.errors import InvalidInput
from lunport.core.iqn import parse_iqn
from lunport.core.node_record import DEFAULT_IFACE, parse_settings
from lunport.core.node_record import check_iface_name as check_iface_name

TCP: Final = "tcp"
ISER: Final = "iser"

_EMPTY = frozenset({"", "<empty>", "default"})  # what open-iscsi writes for a value that is not set
_MAC = re.compile(r"[0-9a-f]{2}(?::[0-9a-f]{2}){5}", re.ASCII)
_TRANSPORT = re.compile(r"[a-z][a-z0-9_]{1,15}", re.ASCII)
_NET_DEVICE = re.compile(r"[^\s/:]{1,15}")
# cxgb4i.00:07:43:2a:11:80 and be2iscsi.00:90:fa:1b:2c:3d.ipv4.0
_NAME = re.compile(
    r"(?P<transport>[a-z][a-z0-9_]{1,15})\.(?P<mac>[0-9a-fA-F]{2}(?::[0-9a-fA-F]{2}){5})"
    r"(?:\.(?P<kind>ipv4|ipv6|\d{1,3}(?:\.\d{1,3}){3})\.(?P<number>\d{1,4}))?",
    re.ASCII,
)
_FLAT = re.compile(r"(\S+) ([^,\s]+),([^,\s]+),([^,\s]+),([^,\s]+),(\S+)")

MADE_ON_THE_FLY: Final = "# Written by lunport, which takes it away when nothing uses it.\n"
MADE_BY_COMMAND: Final = "# Written by lunport iface create; lunport iface delete takes it away.\n"


@dataclass(frozen=True, slots=True)
class Iface:
    """One iface. ``hwaddress`` is in lower case; what is None is left to open-iscsi.

    ``ipaddress`` is the address that an adapter takes for itself, none of the host's.
    """

    name: str
    transport: str
    hwaddress: str | None = None
    ipaddress: str | None = None
    net_ifacename: str | None = None
    initiatorname: str | None = None

    @property
    def is_built_in(self) -> bool:
        """Tell whether open-iscsi knows it without a record."""
        return self.name in BUILT_IN

    @property
    def is_bound(self) -> bool:
        """Tell whether it names a device, so that it is no longer the routes that choose one."""
        return self.hwaddress is not None or self.net_ifacename is not None


@dataclass(frozen=True, slots=True)
class IfaceName:
    """What a conventional name says. ``kind``: "ipv4", "ipv6" or an address, where it has one."""

    transport: str
    hwaddress: str
    kind: str | None = None
    number: int | None = None


BUILT_IN: Final[Mapping[str, Iface]] = {
    DEFAULT_IFACE: Iface(DEFAULT_IFACE, TCP),
    ISER: Iface(ISER, ISER),
}


# -- names ---------------------------------------------------------------------------------------


def conventional_name(transport: str, hwaddress: str) -> str:
    """Return the name that open-iscsi itself would give: ``TRANSPORT.HWADDRESS``."""
    return f"{parse_transport_name(transport)}.{parse_hwaddress(hwaddress)}"


def parse_iface_name(name: str) -> IfaceName | None:
    """Read a conventional name; None for one that somebody chose.

    Drivers with addresses of their own (qla4xxx, be2iscsi) have one record for each of these:
    ``TRANSPORT.HWADDRESS.ipv4.NUMBER``.
    """
    match = _NAME.fullmatch(name)
    if match is None:
        return None
    number = None if match["number"] is None else int(match["number"])
    return IfaceName(match["transport"], match["mac"].lower(), match["kind"], number)


def parse_hwaddress(text: str) -> str:
    """Parse a MAC address, in lower case. Raises: InvalidInput."""
    lower = text.strip().lower().replace("-", ":")
    if not _MAC.fullmatch(lower):
        raise InvalidInput("hardware address", text, "expected six bytes: 00:07:43:2a:11:80")
    return lower


def parse_transport_name(text: str) -> str:
    """Parse the name of a transport, known or not. Raises: InvalidInput."""
    if not _TRANSPORT.fullmatch(text):
        raise InvalidInput("transport", text, "expected a name such as tcp, iser or cxgb4i")
    return text


def parse_net_device(text: str) -> str:
    """Parse the name of a network device. Raises: InvalidInput."""
    if not _NET_DEVICE.fullmatch(text) or text in {".", ".."}:
        raise InvalidInput("network device", text, "expected a name of 1 to 15 characters")
    return text


def parse_address(text: str) -> str:
    """Parse an IP address. Raises: InvalidInput."""
    try:
        return str(ipaddress.ip_address(text.strip().strip("[]")))
    except ValueError:
        raise InvalidInput("IP address", text, "expected an IPv4 or IPv6 address") from None


# -- records -------------------------------------------------------------------------------------


def format_iface_record(iface: Iface, *, heading: str = MADE_ON_THE_FLY) -> str:
    """Write a record; the inverse of :func:`parse_iface_record`. Raises: InvalidInput."""
    check_iface_name(iface.name)
    if iface.is_built_in:
        raise InvalidInput("iface", iface.name, "open-iscsi has it built in")
    lines = {
        "iface.iscsi_ifacename": iface.name,
        "iface.net_ifacename": iface.net_ifacename,
        "iface.ipaddress": iface.ipaddress,
        "iface.hwaddress": iface.hwaddress,
        "iface.transport_name": parse_transport_name(iface.transport),
        "iface.initiatorname": iface.initiatorname,
    }
    written = (f"{name} = {value}\n" for name, value in lines.items() if value is not None)
    return heading + "# BEGIN RECORD 2.1\n" + "".join(written) + "# END RECORD\n"


def parse_iface_record(name: str, text: str) -> Iface:
    """Read the record of that name. Raises: InvalidInput for one that open-iscsi can't use."""
    return iface_of_settings(name, parse_settings(text))


def iface_of_settings(name: str, settings: Mapping[str, str]) -> Iface:
    """Make an iface of a record's settings. Raises: InvalidInput."""

    def value(key: str) -> str | None:
        found = settings.get(f"iface.{key}", "")
        return None if found in _EMPTY else found

    transport = value("transport_name")
    if transport is None:
        raise InvalidInput("iface", name, "its record names no transport (iface.transport_name)")
    hwaddress, address, device = (value(key) for key in ("hwaddress", "ipaddress", "net_ifacename"))
    initiator = value("initiatorname")
    return Iface(
        name=name,
        transport=parse_transport_name(transport),
        hwaddress=None if hwaddress is None else parse_hwaddress(hwaddress),
        ipaddress=None if address is None else parse_address(address),
        net_ifacename=None if device is None else parse_net_device(device),
        initiatorname=None if initiator is None else parse_iqn(initiator),
    )


def heading_of(text: str) -> str | None:
    """Return which of our headings a record begins with; None for a record of others."""
    ours = (MADE_ON_THE_FLY, MADE_BY_COMMAND)
    return next((heading for heading in ours if text.startswith(heading)), None)


def parse_iface_listing(text: str) -> tuple[Iface, ...]:
    """Read what ``iscsiadm -m iface`` prints, lines that say nothing left out.

    ``default tcp,<empty>,<empty>,<empty>,<empty>``: transport, hardware address, IP address,
    network device, initiator name.
    """
    found = []
    for line in text.splitlines():
        match = _FLAT.fullmatch(line.strip())
        if match is not None:
            keys = ("transport_name", "hwaddress", "ipaddress", "net_ifacename", "initiatorname")
            values = zip(keys, match.groups()[1:], strict=True)
            found.append(iface_of_settings(match[1], {f"iface.{k}": v for k, v in values}))
    return tuple(found)
