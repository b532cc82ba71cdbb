"""Turn a portal's host name into addresses, within a deadline.

Runs ``getent ahosts NAME``, because the C library's resolver cannot be told to give up: a
process can. Literal addresses cost nothing. getent(1), nsswitch.conf(5).
"""

from __future__ import annotations

from lunport.core.errors import (
    CommandError,
    CommandTimedOut,
    InvalidPortal,
    LoginTimedOut,
    PortalUnreachable,
)
from lunport.core.portal import Portal, parse_portal
from lunport.host.clock import Deadline
from lunport.host.runner import run

_NOT_FOUND = 2


def resolve_portal(portal: Portal, deadline: Deadline) -> tuple[Portal, ...]:
    """Return the portal at each address of its name, the system's preferred one first.

    Raises: PortalUnreachable (no such name), LoginTimedOut (no answer).
    """
    if portal.is_literal:
        return (portal,)
    try:
        found = run(
            ["getent", "ahosts", portal.host],
            deadline,
            accepted=(0, _NOT_FOUND),
            package="libc-bin",
        )
    except CommandTimedOut as error:
        detail = f"the name {portal.host} did not resolve in time"
        raise LoginTimedOut(str(portal), detail) from error
    except CommandError as error:
        detail = f"the name {portal.host} cannot be resolved: {error}"
        raise PortalUnreachable(str(portal), detail) from error
    addresses = parse_ahosts(found.stdout, portal.port)
    if not addresses:
        raise PortalUnreachable(str(portal), f"the name {portal.host} has no address")
    return addresses


def parse_ahosts(text: str, port: int) -> tuple[Portal, ...]:
    """Read getent's answer, a line for each address and socket type.

    10.0.1.2        STREAM san-a.example
    """
    found: dict[Portal, None] = {}
    for line in text.splitlines():
        words = line.split()
        if not words:
            continue
        try:
            literal = parse_portal(f"[{words[0]}]" if ":" in words[0] else words[0])
        except InvalidPortal:
            continue
        if literal.is_literal:
            found[Portal(literal.host, port)] = None
    return tuple(found)
