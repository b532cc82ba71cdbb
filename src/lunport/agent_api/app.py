"""The agent over HTTP: the routes, and what is between a request and the use case.

    POST /v1/connect /v1/disconnect /v1/extend /v1/recover
    GET  /v1/paths /v1/connections /v1/health /v1/identity /metrics

For processes of this host that may open its socket, which is root; and, as far as
``agent_api/peers.py`` lets them, for agents of other hosts. Translates, and decides nothing;
never logs a body, which may hold secrets. Verbs that take long leave room for those that only
look.
"""

from __future__ import annotations

from collections.abc import Callable, Iterable
from dataclasses import dataclass
from typing import Any

import falcon

from lunport.agent.agent import Agent
from lunport.agent.migrate_destination import MigrationDestination
from lunport.agent.path_metrics import CONTENT_TYPE
from lunport.agent_api import documents
from lunport.agent_api.bodies import (
    Body,
    ConnectBody,
    DisconnectBody,
    ExtendBody,
    RecoverBody,
    decode,
    read_body,
)
from lunport.agent_api.documents import HealthDocument
from lunport.agent_api.faults import ExitCodeOf, error_handler
from lunport.agent_api.metrics import Metrics
from lunport.agent_api.moves import PREFIX, MovesResource
from lunport.agent_api.peers import HostIdentity, IdentityResource, PeerGate
from lunport.agent_api.verbs import Verbs
from lunport.core.connection_info import ConnectionInfo
from lunport.host.clock import Deadline

WsgiApp = Callable[[dict[str, Any], Callable[..., Any]], Iterable[bytes]]


@dataclass(frozen=True, slots=True)
class AgentSettings:
    """What the application is told beside the agent.

    ``health`` says how the agent is; ``verbs_at_once`` bounds what is done at a time;
    ``identity`` is what this host tells its peers; ``destination`` takes guests that come.
    """

    exit_code_of: ExitCodeOf
    health: Callable[[], HealthDocument]
    verbs_at_once: int
    identity: HostIdentity | None = None
    destination: MigrationDestination | None = None


@dataclass(frozen=True, slots=True)
class _VerbResource:
    agent: Agent
    verbs: Verbs
    metrics: Metrics

    def on_post_connect(self, req: falcon.Request, resp: falcon.Response) -> None:
        body = _body(req, ConnectBody)
        info, deadline = body.info(), Deadline.after(body.timeout_s)
        with self.verbs.one("connect", _name(info)):
            volume = self.agent.connect(
                info, multipath=body.multipath, wish=body.wish.wish(), deadline=deadline
            )
        self.metrics.connected(volume)
        resp.data = documents.format_connected(volume)

    def on_post_disconnect(self, req: falcon.Request, resp: falcon.Response) -> None:
        body = _body(req, DisconnectBody)
        info, deadline = body.info(), Deadline.after(body.timeout_s)
        with self.verbs.one("disconnect", _name(info)):
            change = self.agent.disconnect(info, force=body.force, deadline=deadline)
        resp.data = documents.format_change(change)

    def on_post_extend(self, req: falcon.Request, resp: falcon.Response) -> None:
        body = _body(req, ExtendBody)
        info, deadline = body.info(), Deadline.after(body.timeout_s)
        with self.verbs.one("extend", _name(info)):
            size_bytes = self.agent.extend(info, deadline=deadline)
        resp.data = documents.format_size(size_bytes)

    def on_post_recover(self, req: falcon.Request, resp: falcon.Response) -> None:
        body = _body(req, RecoverBody)
        deadline = Deadline.after(body.timeout_s)
        with self.verbs.one("recover"):
            lines = self.agent.recover(remove_leftovers=body.remove_leftovers, deadline=deadline)
        resp.data = documents.format_lines(lines)


@dataclass(frozen=True, slots=True)
class _LookResource:
    agent: Agent
    metrics: Metrics
    settings: AgentSettings

    def on_get_paths(self, req: falcon.Request, resp: falcon.Response) -> None:
        del req
        resp.data = documents.format_paths(self.agent.paths())

    def on_get_connections(self, req: falcon.Request, resp: falcon.Response) -> None:
        del req
        resp.data = documents.format_connections(self.agent.connections())

    def on_get_health(self, req: falcon.Request, resp: falcon.Response) -> None:
        del req
        resp.data = documents.format_health(self.settings.health())

    def on_get_metrics(self, req: falcon.Request, resp: falcon.Response) -> None:
        del req
        resp.content_type = CONTENT_TYPE
        resp.data = self.metrics.page()


def make_app(agent: Agent, metrics: Metrics, settings: AgentSettings) -> tuple[WsgiApp, Verbs]:
    """Make the WSGI application, and what tells when it is idle."""
    app = falcon.App(media_type=falcon.MEDIA_JSON, middleware=[PeerGate()])
    # Falcon has a handler of its own for its own errors; the nearest class decides.
    answer_error = error_handler(settings.exit_code_of)
    for kind in (Exception, falcon.HTTPError):
        app.add_error_handler(kind, answer_error)
    verbs = Verbs(metrics, settings.verbs_at_once)
    verb = _VerbResource(agent, verbs, metrics)
    for name in ("connect", "disconnect", "extend", "recover"):
        app.add_route(f"/v1/{name}", verb, suffix=name)
    look = _LookResource(agent, metrics, settings)
    for name in ("paths", "connections", "health"):
        app.add_route(f"/v1/{name}", look, suffix=name)
    app.add_route("/metrics", look, suffix="metrics")
    app.add_route("/v1/identity", IdentityResource(settings.identity), suffix="identity")
    moves = MovesResource(settings.destination, verbs)
    for name in ("facts", "prepare", "look", "tell", "confirm", "undo"):
        app.add_route(f"{PREFIX}/{name}", moves, suffix=name)
    return app, verbs


def _body(req: falcon.Request, kind: type[Body]) -> Body:
    """Read and check a body. Raises: InvalidInput, which does not show it."""
    return decode(kind, read_body(req))


def _name(info: ConnectionInfo) -> str:
    return info.volume_id or info.wwid or str(info.main_path)
