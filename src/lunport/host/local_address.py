"""By which of its addresses this host reaches another one: as the kernel's routes say.

Sends nothing: connecting a UDP socket only looks a route up (udp(7)).
"""

from __future__ import annotations

import contextlib
import socket

from lunport.core.portal import Portal

_ANYWHERE = (Portal("192.0.2.1", 9), Portal("2001:db8::1", 9))  # for documentation, RFC 5737


def local_address(towards: Portal | None = None) -> str | None:
    """Return the local address of the route to a literal address, or of the default route.

    None where there is no such route.
    """
    for portal in (towards,) if towards is not None else _ANYWHERE:
        family = socket.AF_INET6 if portal.is_ipv6 else socket.AF_INET
        with contextlib.suppress(OSError), socket.socket(family, socket.SOCK_DGRAM) as probe:
            probe.connect((portal.host, portal.port))
            return str(probe.getsockname()[0])
    return None
