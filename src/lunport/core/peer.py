"""Who is at the other end of a TLS connection, as the server tells the application.

The key stands in the request's environment only where TLS was spoken; no header of a client
can make one like it, since theirs begin with ``HTTP_``.
"""

from __future__ import annotations

from collections.abc import Mapping

PEER_HOSTS = "lunport.peer_hosts"


def peer_hosts(environment: Mapping[str, object]) -> tuple[str, ...] | None:
    """Return the hosts that the client's certificate names.

    None: no TLS was spoken. Empty: the client showed no certificate, or one without a host.
    """
    found = environment.get(PEER_HOSTS)
    return found if isinstance(found, tuple) else None
