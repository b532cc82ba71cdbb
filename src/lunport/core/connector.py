"""The connector: what a compute host declares of itself when it asks for a volume.

    {"initiator": "iqn.1993-08.org.debian:01:5a8b", "ip": "10.0.0.7", "host": "node-7",
     "multipath": true, "enforce_multipath": true, "mountpoint": "/dev/vdb", "mode": "rw"}

It comes from os-brick, from Nova, or typed into a client: a boolean may arrive as a string
(``cinder --multipath True`` sends ``"True"``). Keys that mean nothing here are kept, because
drivers of third parties read them.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping
from dataclasses import dataclass, field
from typing import TypeVar

from lunport.core.attachment import AttachMode
from lunport.core.errors import InvalidConnector, InvalidInput
from lunport.core.iqn import Iqn, parse_iqn
from lunport.core.wire_fields import MAX_TEXT, parse_boolean, parse_text, show

T = TypeVar("T")

MAX_KEYS = 100
_TEXT_KEYS = ("ip", "host", "mountpoint")
_KNOWN = frozenset(("initiator", "multipath", "enforce_multipath", "mode", *_TEXT_KEYS))
_NO_INITIATOR = (
    "it lacks the required information: initiator, the host's iSCSI name; with open-iscsi "
    "installed the host has it in /etc/iscsi/initiatorname.iscsi"
)


@dataclass(frozen=True, slots=True)
class Connector:
    """A compute host as it declared itself. ``mode`` is None where it left that open."""

    initiator: Iqn
    ip: str | None = None
    host: str | None = None
    multipath: bool = False
    enforce_multipath: bool = False
    mountpoint: str | None = None
    mode: AttachMode | None = None
    extra: Mapping[str, object] = field(default_factory=dict, repr=False, hash=False)


def parse_connector(wire: object) -> Connector:
    """Read a connector as it came over the wire. A key that is null counts as absent.

    Raises: InvalidConnector.
    """
    if not isinstance(wire, Mapping):
        raise InvalidConnector("connector", show(wire), "expected an object")
    if len(wire) > MAX_KEYS:
        raise InvalidConnector("connector", f"{len(wire)} keys", f"at most {MAX_KEYS} are taken")
    for key in wire:
        if not isinstance(key, str) or len(key) > MAX_TEXT:
            reason = f"a key has at most {MAX_TEXT} characters"
            raise InvalidConnector("connector", show(key), reason)
    return Connector(
        initiator=_parse_initiator(wire.get("initiator")),
        ip=_parse_text(wire, "ip"),
        host=_parse_text(wire, "host"),
        multipath=_parse_flag(wire, "multipath"),
        enforce_multipath=_parse_flag(wire, "enforce_multipath"),
        mountpoint=_parse_text(wire, "mountpoint"),
        mode=_parse_mode(wire.get("mode")),
        extra={key: value for key, value in wire.items() if key not in _KNOWN},
    )


def format_connector(connector: Connector) -> dict[str, object]:
    """Write a connector for the wire; the inverse of :func:`parse_connector`."""
    wire: dict[str, object] = {
        **connector.extra,
        "initiator": str(connector.initiator),
        "multipath": connector.multipath,
        "enforce_multipath": connector.enforce_multipath,
    }
    for key in _TEXT_KEYS:
        text = getattr(connector, key)
        if text is not None:
            wire[key] = text
    if connector.mode is not None:
        wire["mode"] = connector.mode.value
    return wire


def _parse_initiator(value: object) -> Iqn:
    if value is None or value == "":
        raise InvalidConnector("connector's initiator", value, _NO_INITIATOR)
    return _convert("initiator", value, parse_iqn)


def _parse_text(wire: Mapping[str, object], key: str) -> str | None:
    value = wire.get(key)
    return None if value is None or value == "" else _convert(key, value, parse_text)


def _parse_flag(wire: Mapping[str, object], key: str) -> bool:
    value = wire.get(key)
    return value is not None and _convert(key, value, parse_boolean)


def _parse_mode(value: object) -> AttachMode | None:
    if value is None or value == "":
        return None
    # Membership by string: an unhashable value must not reach the enum.
    if isinstance(value, str) and value in tuple(AttachMode):
        return AttachMode(value)
    raise InvalidConnector("connector's mode", show(value), "expected rw or ro")


def _convert(key: str, value: object, parse: Callable[[object], T]) -> T:
    try:
        return parse(value)
    except InvalidInput as error:
        raise InvalidConnector(f"connector's {key}", show(value), error.reason) from error
