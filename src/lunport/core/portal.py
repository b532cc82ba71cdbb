"""Portals: the address and TCP port where a target is reached.

    10.0.1.2:3260    [fd00::2]:3260    10.0.1.2    san-a.example:3261

A host name is allowed where a person types one; it is resolved at the edge
(``host/resolve.py``), and only literal addresses go on the wire.
"""

from __future__ import annotations

import ipaddress
import re
from dataclasses import dataclass

from lunport.core.errors import InvalidPortal

DEFAULT_PORT = 3260
_LABEL = re.compile(r"[A-Za-z0-9_](?:[A-Za-z0-9_-]{0,61}[A-Za-z0-9_])?")
_NUMBER = re.compile(r"[0-9]+|0[xX][0-9A-Fa-f]*")


@dataclass(frozen=True, slots=True, order=True)
class Portal:
    """One portal. ``host`` is a canonical address literal without brackets, or a name."""

    host: str
    port: int = DEFAULT_PORT

    @property
    def is_ipv6(self) -> bool:
        """Tell whether the host is an IPv6 literal."""
        return ":" in self.host

    @property
    def is_literal(self) -> bool:
        """Tell whether the host is an address rather than a name to resolve."""
        return _parse_address(self.host) is not None

    def __str__(self) -> str:
        return f"[{self.host}]:{self.port}" if self.is_ipv6 else f"{self.host}:{self.port}"


def parse_portal(text: object, *, what: str = "portal") -> Portal:
    """Parse ``host[:port]``; the port defaults to 3260.

    Raises: InvalidPortal.
    """
    if not isinstance(text, str):
        raise InvalidPortal(what, text, "a portal is a string such as 10.0.1.2:3260")
    host, port = _split(text.strip(), text, what)
    address = _parse_address(host)
    if address is not None:
        return Portal(address, port)
    if _looks_numeric(host) or not _is_host_name(host):
        raise InvalidPortal(what, text, "expected ADDRESS:PORT, [IPV6]:PORT or NAME:PORT")
    return Portal(host.lower(), port)


def format_portal(portal: Portal) -> str:
    """Format a portal as ``host:port``; the inverse of :func:`parse_portal`."""
    return str(portal)


def _split(text: str, given: str, what: str) -> tuple[str, int]:
    if text.startswith("["):
        host, closed, rest = text[1:].partition("]")
        if not closed or ":" not in host or (rest and not rest.startswith(":")):
            raise InvalidPortal(what, given, "expected [IPV6]:PORT")
        if _parse_address(host) is None:
            raise InvalidPortal(what, given, f"{host!r} is not an IPv6 address")
        return host, _parse_port(rest[1:], given, what) if rest else DEFAULT_PORT
    if text.count(":") > 1:
        if _parse_address(text) is not None:
            return text, DEFAULT_PORT
        raise InvalidPortal(what, given, "write an IPv6 address in brackets: [fd00::2]:3260")
    host, colon, port = text.partition(":")
    return host, _parse_port(port, given, what) if colon else DEFAULT_PORT


def _parse_port(text: str, given: str, what: str) -> int:
    if not (text.isascii() and text.isdigit() and len(text) <= 5 and 1 <= int(text) <= 65535):
        raise InvalidPortal(what, given, "the port is a number from 1 to 65535")
    return int(text)


def _parse_address(host: str) -> str | None:
    if "%" in host:
        return None
    try:
        return str(ipaddress.ip_address(host))
    except ValueError:
        return None


def _looks_numeric(host: str) -> bool:
    # inet_aton(3) reads "10.1" and "0x7f.1" as addresses; no top-level domain is a number.
    return bool(_NUMBER.fullmatch(host.removesuffix(".").rpartition(".")[2]))


def _is_host_name(host: str) -> bool:
    labels = host.removesuffix(".").split(".")
    return 0 < len(host) <= 253 and all(_LABEL.fullmatch(label) for label in labels)
