"""The gate: what every request passes before its resource, in one piece of middleware.

In this order: a request id, the method, the version document for whoever asks, the identity,
the microversion, and the project in the URL, which is taken out of the path so that each
resource has one route. The last step of an answer, its headers, is here as well.

    /v3/0123abcd/volumes/detail  ->  project 0123abcd, route /volumes/detail
    /v3/volumes/detail           ->  the token's project, route /volumes/detail
    /v3, /v3/, /v3/0123abcd/     ->  route /v3, the version document
"""

from __future__ import annotations

import uuid
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from urllib.parse import quote

import falcon

from lunport.api import microversions
from lunport.api.agent_gate import check_route
from lunport.api.auth import MAX_NAME, Authenticator, is_service_token
from lunport.api.faults import ApiError
from lunport.api.request import ApiRequest
from lunport.core.agent_identity import AgentIdentity
from lunport.core.errors import NotAuthenticated
from lunport.core.peer import peer_hosts
from lunport.volume.requests import Caller

METHODS = frozenset({"GET", "POST", "PUT", "DELETE"})
VERSION_ROUTE = "/v3"
_UNKNOWN = "/-"

# Block Storage resources that do not exist here; the name alone is never a project.
ABSENT = frozenset(
    {
        "backups",
        "capabilities",
        "cgsnapshots",
        "clusters",
        "consistencygroups",
        "default-types",
        "group_snapshots",
        "group_types",
        "groups",
        "manageable_snapshots",
        "manageable_volumes",
        "os-hosts",
        "os-quota-class-sets",
        "os-snapshot-manage",
        "os-volume-manage",
        "os-volume-transfer",
        "qos-specs",
        "volume-transfers",
        "workers",
    }
)


@dataclass(frozen=True, slots=True)
class Gate:
    """What the gate needs to know. ``resources`` are the first words of the routes."""

    authenticator: Authenticator
    service_token_hash: str | None
    default_project: str
    public_endpoint: str | None
    resources: frozenset[str]
    identify_agent: Callable[[Sequence[str]], AgentIdentity]

    def process_request(self, req: ApiRequest, resp: falcon.Response) -> None:
        """Fill in what the resources rely on, or refuse.

        Raises: ApiError, NotAuthenticated, NotEnrolled, NotItsHost.
        """
        req.request_id = request_id = f"req-{uuid.uuid4()}"
        resp.set_header("x-openstack-request-id", request_id)
        resp.set_header("x-compute-request-id", request_id)
        if req.method not in METHODS:
            raise ApiError(405)
        project, route = self._split(req.path)
        req.root = root = self.public_endpoint or _root(req)
        in_url = f"/{project if project.isalnum() else quote(project)}" if project else ""
        req.link_prefix = f"{root}/v3{in_url}"
        req.bookmark_prefix = f"{root}{in_url}"
        req.path = route
        is_document = route in ("/", VERSION_ROUTE)
        if not is_document:
            req.caller = self._identify(req, project)
            if req.caller.agent is not None:
                check_route(req.caller.agent, req.method, route)
        req.minor = minor = microversions.negotiate(req.get_header(microversions.HEADER))
        resp.set_header(microversions.HEADER, microversions.header_value(minor))
        resp.set_header("Vary", microversions.HEADER)

    def _split(self, path: str) -> tuple[str, str]:
        """Return the URL's project, if any, and the route."""
        words = path.split("/", 3)  # "", "v3", first, rest
        if len(words) < 3:
            return "", VERSION_ROUTE if path == "/v3" else "/" if path in ("", "/") else _UNKNOWN
        if words[1] != "v3":
            return "", _UNKNOWN
        first, rest = words[2], words[3] if len(words) > 3 else ""
        if first in self.resources or first in ABSENT:
            project, route = "", path[len(VERSION_ROUTE) :]
        elif rest:
            project, route = first, f"/{rest}"
        else:
            return first, VERSION_ROUTE
        # An id that was left out is the id of nothing: the list is not what was asked for.
        return project, _UNKNOWN if route.endswith("/") else route

    def _identify(self, req: ApiRequest, project: str) -> Caller:
        agent = self._agent(req)
        if agent is None:
            token = req.get_header("X-Auth-Token")
            user, own_project, is_admin = self.authenticator.identify(token)
        else:
            user, own_project, is_admin = f"agent:{agent.host}", None, False
        is_service = is_service_token(req.get_header("X-Service-Token"), self.service_token_hash)
        if len(project) > MAX_NAME or "\x00" in project:
            raise ApiError(404)
        if project and own_project is not None and project != own_project and not is_admin:
            raise ApiError(400, "Malformed request url")
        return Caller(
            user_id=user,
            project_id=project or own_project or self.default_project,
            is_admin=is_admin,
            is_service=is_service,
            request_id=req.request_id,
            agent=agent,
        )

    def _agent(self, req: ApiRequest) -> AgentIdentity | None:
        """Return whose agent asks; None: whom a token stands for.

        By TLS who shows neither a token that counts nor a certificate is nobody.
        Raises: NotAuthenticated, NotEnrolled.
        """
        peers = peer_hosts(req.env)
        if peers is None:
            return None
        if req.get_header("X-Auth-Token") and not self.authenticator.believes_all:
            return None
        if not peers:
            raise NotAuthenticated
        return self.identify_agent(peers)


def _root(req: ApiRequest) -> str:
    """Return ``http://HOST:PORT`` as the client, or the proxy before us, wrote it."""
    env = req.env
    scheme = env.get("HTTP_X_FORWARDED_PROTO") or env["wsgi.url_scheme"]
    host = env.get("HTTP_X_FORWARDED_HOST")
    if host:
        return f"{scheme}://{host.rpartition(',')[2].strip()}"
    host = env.get("HTTP_HOST")
    if host:
        return f"{scheme}://{host}"
    return f"{scheme}://{env['SERVER_NAME']}:{env['SERVER_PORT']}"
