"""iSCSI transports as open-iscsi names them (``iface.transport_name``, iscsiadm(8))."""

from __future__ import annotations

import enum

from lunport.core.errors import InvalidInput


class Transport(enum.StrEnum):
    """How a session's PDUs travel. On the wire only ``tcp`` and ``iser`` are named."""

    TCP = "tcp"
    ISER = "iser"


def parse_transport(text: object, *, what: str = "transport") -> Transport:
    """Parse a wire transport. Raises: InvalidInput."""
    if isinstance(text, str):
        try:
            return Transport(text.lower())
        except ValueError:
            pass
    raise InvalidInput(what, text, "expected tcp or iser")
