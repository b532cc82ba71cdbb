"""What other hosts may ask of this one: next to nothing, and only they by their certificates.

    GET /v1/health  GET /v1/identity  and what is below /v1/peer/

The gate looks at every request. One from the unix socket is this host's own and passes; one
with a certificate is a peer's, whom the resources find by :func:`peer_of`.
"""

from __future__ import annotations

import logging
from dataclasses import dataclass

import falcon
import msgspec

from lunport.core.errors import NotAllowed, NotEnrolled
from lunport.core.peer import peer_hosts

PEER_PREFIX = "/v1/peer/"
_LOG = logging.getLogger(__name__)
_PEER_LOOKS = frozenset({("GET", "/v1/health"), ("GET", "/v1/identity")})


@dataclass(frozen=True, slots=True)
class HostIdentity:
    """What this host is called, and by which initiator it is known (None: it has none)."""

    host: str
    initiator: str | None


class IdentityDocument(msgspec.Struct, frozen=True):
    """``GET /v1/identity``: who answers, and as whom the asker is known."""

    host: str
    initiator: str | None = None
    peers: tuple[str, ...] = ()


class PeerGate:
    """Lets peers at what is for peers."""

    def process_request(self, req: falcon.Request, resp: falcon.Response) -> None:
        """Refuse what is this host's own. Raises: NotAllowed, NotEnrolled (no host is named)."""
        del resp
        peers = peer_hosts(req.env)
        if peers is None:
            return
        if not peers:
            raise NotEnrolled(())
        is_look = (req.method, req.path) in _PEER_LOOKS
        if not is_look and not req.path.startswith(PEER_PREFIX):
            _LOG.warning("peer_refused hosts=%s path=%r", ",".join(peers), req.path[:80])
            raise NotAllowed(f"{req.method} {req.path[:80]} for other hosts")


@dataclass(frozen=True, slots=True)
class IdentityResource:
    """Who answers here."""

    identity: HostIdentity | None

    def on_get_identity(self, req: falcon.Request, resp: falcon.Response) -> None:
        """Say who we are, and as whom we know the asker."""
        known = self.identity or HostIdentity("localhost", None)
        document = IdentityDocument(known.host, known.initiator, peer_hosts(req.env) or ())
        resp.data = msgspec.json.encode(document)


def peer_of(req: falcon.Request) -> tuple[str, ...]:
    """Return the hosts that the asker's certificate names; empty on the unix socket."""
    return peer_hosts(req.env) or ()
