r"""The text part of Login and Text PDUs: keys, values and SendTargets answers.

    InitiatorName=iqn.2026-11.org.example:host\0AuthMethod=CHAP,None\0

Follows RFC 7143 sections 6.1 (format), 13 (keys) and appendix C (SendTargets). Decides
nothing about what a value means for a login; see :mod:`lunport.core.iscsi_login`.
"""

from __future__ import annotations

from collections.abc import Iterable
from dataclasses import dataclass

from lunport.core.errors import InvalidInput
from lunport.core.iqn import Iqn, parse_iqn
from lunport.core.iscsi_pdu import PduError
from lunport.core.portal import Portal, parse_portal

MAX_TEXT_LENGTH = 1024 * 1024
_MAX_KEYS = 40_000

Keys = tuple[tuple[str, str], ...]


@dataclass(frozen=True, slots=True)
class TargetAddress:
    """One line of a SendTargets answer, or where a redirect points; ``tpgt`` may be absent."""

    portal: Portal
    tpgt: int | None


@dataclass(frozen=True, slots=True)
class DiscoveredTarget:
    """A target and one portal through which it is offered."""

    portal: Portal
    tpgt: int | None
    iqn: Iqn


def encode_keys(keys: Iterable[tuple[str, str]]) -> bytes:
    """Encode keys and values in order."""
    return b"".join(f"{key}={value}\0".encode() for key, value in keys)


def decode_keys(text: bytes) -> Keys:
    """Decode keys and values, in order; one key may come more than once.

    A missing last NUL is accepted. Raises: PduError.
    """
    pairs = []
    for item in text.split(b"\0"):
        if not item:
            continue
        key, equals, value = item.partition(b"=")
        if not equals or not 0 < len(key) <= 63:
            raise PduError("text that is not key=value")
        try:
            pairs.append((key.decode("ascii"), value.decode("utf-8")))
        except UnicodeDecodeError:
            raise PduError("text that is not UTF-8") from None
    if len(pairs) > _MAX_KEYS:
        raise PduError(f"{len(pairs)} keys")
    return tuple(pairs)


def parse_target_address(text: str) -> TargetAddress:
    """Parse ``host[:port][,tpgt]`` as in TargetAddress. Raises: PduError."""
    where, comma, tag = text.partition(",")
    if comma and not (tag.isascii() and tag.isdigit() and len(tag) <= 5 and int(tag) <= 65535):
        raise PduError(f"the portal group tag of {text!r}")
    try:
        return TargetAddress(parse_portal(where), int(tag) if comma else None)
    except InvalidInput as error:
        raise PduError(f"the target address {text!r}: {error.reason}") from None


def parse_discovered(keys: Keys, asked: Portal) -> tuple[DiscoveredTarget, ...]:
    """Read a SendTargets answer.

    A target without an address is reached where it was asked for (appendix C). An entry
    whose name or address nobody could log in to (a link-local address, say) is left out.
    Raises: PduError for an address before any name.
    """
    found: dict[DiscoveredTarget, None] = {}
    name: str | None = None
    bare: str | None = None
    for key, value in keys:
        if key == "TargetName":
            _note(found, bare, TargetAddress(asked, None))
            name = bare = value
        elif key == "TargetAddress":
            if name is None:
                raise PduError("a TargetAddress before any TargetName")
            bare = None
            try:
                _note(found, name, parse_target_address(value))
            except PduError:
                continue
    _note(found, bare, TargetAddress(asked, None))
    return tuple(found)


def _note(found: dict[DiscoveredTarget, None], name: str | None, address: TargetAddress) -> None:
    if name is None:
        return
    try:
        target = DiscoveredTarget(address.portal, address.tpgt, parse_iqn(name))
    except InvalidInput:
        return
    found[target] = None
