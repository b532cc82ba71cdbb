"""``lunport agent``: the host's agent on its unix socket, and by TLS, until a signal.

Started here are the only long-lived threads there are: HTTP workers, the one that recovers the
host after its start, the healer's, the two that report to the service, the one that keeps guests,
and the one that tells systemd that the agent lives. One agent serves a host: a lock says so, not
the socket, which a killed agent leaves behind. At the end what is under way gets some seconds;
what takes longer is cut off as by a kill, which the journal stands for.
"""

from __future__ import annotations

import contextlib
import logging
import os
import threading
import time
from collections.abc import Callable, Iterator
from dataclasses import dataclass, replace

from lunport.agent.agent import Agent
from lunport.agent.boot import BootRecovery, EarlierBoot
from lunport.agent.guest_parts import GuestParts
from lunport.agent.heal_acts import give_queueing_back
from lunport.agent.healer import Healer
from lunport.agent.host_reporter import HostReporter
from lunport.agent.reporting import PathReporter
from lunport.agent_api.app import AgentSettings, make_app
from lunport.agent_api.bodies import MAX_BODY_BYTES
from lunport.agent_api.documents import AwaitedDocument, HealthDocument
from lunport.agent_api.faults import ExitCodeOf
from lunport.agent_api.metrics import Metrics
from lunport.agent_api.peers import HostIdentity
from lunport.agent_api.verbs import Verbs
from lunport.bootstrap.guests import DEFAULT_URI
from lunport.bootstrap.http_server import make_server, prepare, serving_beside
from lunport.bootstrap.listener import Listener, parse_tls_listener
from lunport.bootstrap.migrations import MovingHost, make_guest_side
from lunport.bootstrap.signals import Signals
from lunport.bootstrap.supervised import supervised
from lunport.client.agent import PEER_PORT, socket_path
from lunport.client.block_storage import BlockStorage
from lunport.client.guest_migrations import Enrolments
from lunport.core.errors import (
    AlreadyExists,
    HostLacks,
    InvalidConfig,
    LunportError,
)
from lunport.core.path_status import VolumePaths
from lunport.core.secret import Secret
from lunport.host.attachment_notes import AttachmentNotes
from lunport.host.clock import Deadline
from lunport.host.tls import FreshContext, TlsFolder
from lunport.initiator.connector import Initiator
from lunport.initiator.initiator_host import InitiatorHost
from lunport.initiator.multipath_policy import MultipathPolicy

_LOG = logging.getLogger(__name__)
LOCK = "agent"
_THREADS = 48
_PEER_THREADS = 12
_VERBS_AT_ONCE = 40  # the other threads answer those who only look
_STOP_S = 8.0
_JOIN_S = 2.0
_HEAL_S = 5.0
_GIVE_BACK_S = 5.0


@dataclass(frozen=True, slots=True)
class AgentAccess:
    """Whom the agent answers, and as whom it asks.

    ``listen``: an address for its peers, and ``tls`` the certificates for that; None for the
    unix socket alone. ``host``: what the host is called. ``token``: for the volume service,
    where the certificate is not enough; ``service_token``: the service's own. ``libvirt``: which
    one has this host's guests; ``migration_uri`` and ``graphics_listen``: as in
    :class:`MovingHost`. ``endpoint``: the volume service that is believed when guests come, and
    that hears of attachments which others than this host's commands made.
    """

    host: str
    tls: TlsFolder | None = None
    listen: str | None = None
    token: Secret | None = None
    service_token: Secret | None = None
    libvirt: str = DEFAULT_URI
    migration_uri: str | None = None
    graphics_listen: str | None = None
    endpoint: str | None = None

    def __post_init__(self) -> None:
        if self.listen is not None and self.tls is None:
            reason = "it is for other hosts, and they are known by certificates: give --tls"
            raise InvalidConfig("listen", self.listen, reason)


@dataclass(frozen=True, slots=True)
class Running:
    """An agent that answers: what the caller of :func:`running_agent` may need."""

    listeners: tuple[Listener, ...]
    serve: Callable[[], None]
    stop: Callable[[], None]
    verbs: Verbs


def serve_agent(
    policy: MultipathPolicy,
    exit_code_of: ExitCodeOf,
    announce: Callable[[str], None],
    access: AgentAccess,
) -> None:
    """Run the agent until SIGTERM or SIGINT.

    Raises: AlreadyExists (an agent serves this host), InvalidConfig, PortalUnavailable,
    HostLacks; nothing is left running then.
    """
    signals = Signals()
    signals.take()
    with running_agent(policy, exit_code_of, access) as running:
        signals.call(running.stop)
        announce(" and ".join(map(str, running.listeners)))
        with supervised(socket_path(), os.environ):
            running.serve()
        is_idle = running.verbs.wait_until_idle(Deadline.after(_STOP_S))
    if not is_idle:
        _LOG.warning("agent_cuts_off_what_is_under_way")
        logging.shutdown()
        os._exit(0)  # its threads would be waited for, however long their deadlines are


@contextlib.contextmanager
def agent_beside(
    policy: MultipathPolicy, exit_code_of: ExitCodeOf, access: AgentAccess
) -> Iterator[str]:
    """Run the agent within a process that is something else; say where it answers.

    Raises: as :func:`serve_agent`.
    """
    with running_agent(policy, exit_code_of, access) as running:
        server = threading.Thread(target=running.serve, name="agent-http", daemon=True)
        server.start()
        try:
            yield " and ".join(f"the host's agent on {one}" for one in running.listeners)
        finally:
            running.verbs.wait_until_idle(Deadline.after(_STOP_S))
            running.stop()
            server.join(_JOIN_S)


@contextlib.contextmanager
def running_agent(
    policy: MultipathPolicy, exit_code_of: ExitCodeOf, access: AgentAccess
) -> Iterator[Running]:
    """Start everything, and take it down again in the opposite order."""
    listener = Listener(path=socket_path())
    peers = None if access.listen is None else parse_tls_listener(access.listen, PEER_PORT)
    if access.tls is not None:
        access.tls.client_context()  # what cannot be used is told now, not at the first report
    handover = _Handover()
    with contextlib.ExitStack() as stack:
        host = InitiatorHost(finish=handover.put, keeps_watch=True)
        stack.enter_context(_alone(host))
        initiator = Initiator(host)

        def service(endpoint: str) -> BlockStorage:
            return BlockStorage(endpoint, token=access.token, tls=access.tls)

        reporter = PathReporter(
            initiator.connections,
            AttachmentNotes().all,
            service,
            endpoint=access.endpoint,
        )
        earlier_boot = EarlierBoot(initiator, host, policy, host.multipathd.is_running)
        agent = Agent(
            initiator,
            host.multipathd.is_running,
            policy=policy,
            earlier_boot=earlier_boot,
            brings_back=True,
        )
        metrics = Metrics(agent.paths, lambda: len(earlier_boot.pending()))
        agent = replace(agent, on_recovered=metrics.recovered)
        recovery = BootRecovery(initiator, earlier_boot, on_recovered=metrics.recovered)

        def on_look(volumes: tuple[VolumePaths, ...]) -> None:
            reporter.offer(volumes)
            metrics.paths.observe(agent.paths())

        handover.healer = healer = Healer(initiator, on_look=on_look)
        side = make_guest_side(_moving(access), agent, host, lambda: recovery.is_over)
        settings = AgentSettings(
            exit_code_of=exit_code_of,
            health=_health(recovery, earlier_boot),
            verbs_at_once=_VERBS_AT_ONCE,
            identity=HostIdentity(access.host, _initiator_of(host)),
            destination=None if side is None else side[1],
        )
        app, verbs = make_app(agent, metrics, settings)
        # cheroot would take descriptor 3 for a listening socket, whatever it is.
        os.environ.pop("LISTEN_PID", None)
        if peers is not None and access.tls is not None:
            for_peers = make_server(
                peers,
                app,
                _PEER_THREADS,
                MAX_BODY_BYTES,
                FreshContext(access.tls, TlsFolder.server_context),
            )
            stack.enter_context(serving_beside(for_peers, peers))
        server = make_server(listener, app, _THREADS, MAX_BODY_BYTES)
        prepare(server, listener)
        assert listener.path is not None
        stack.callback(listener.path.unlink, missing_ok=True)

        def stop() -> None:
            # It waits for its workers without a bound, so nobody waits for it.
            threading.Thread(target=server.stop, name="http-stop", daemon=True).start()

        guests = None if side is None else side[1].parts.guests
        stack.enter_context(_telling_of_host(access, guests, initiator, service))
        reporter.start()
        stack.callback(reporter.stop, _JOIN_S)
        stack.callback(lambda: give_queueing_back(initiator, Deadline.after(_GIVE_BACK_S)))
        healer.start()
        stack.callback(healer.stop, _HEAL_S)
        stack.callback(stop)
        recovery.start()
        stack.callback(recovery.stop, _JOIN_S)
        if side is not None:
            keeper, _ = side
            keeper.start()
            stack.callback(keeper.stop, _JOIN_S)
        listeners = (listener,) if peers is None else (listener, peers)
        yield Running(listeners, server.serve, stop, verbs)


@contextlib.contextmanager
def _telling_of_host(
    access: AgentAccess,
    guests: GuestParts | None,
    initiator: Initiator,
    service: Callable[[str], BlockStorage],
) -> Iterator[None]:
    reporter = HostReporter(
        access.host,
        guests,
        initiator.connections,
        lambda: _endpoints(access, guests),
        lambda endpoint: Enrolments(service(endpoint)),
    )
    reporter.start()
    try:
        yield
    finally:
        reporter.stop(_JOIN_S)


def _endpoints(access: AgentAccess, guests: GuestParts | None) -> list[str]:
    """List the services that hear of this host: those of its volumes, and the believed one."""
    named = [] if access.endpoint is None else [access.endpoint]
    named += [one.endpoint for one in AttachmentNotes().all()]
    return named if guests is None else [*named, *(one.endpoint for one in guests.entries())]


def _moving(access: AgentAccess) -> MovingHost:
    return MovingHost(
        name=access.host,
        libvirt=access.libvirt,
        migration_uri=access.migration_uri,
        graphics_listen=access.graphics_listen,
        endpoint=access.endpoint,
        tls=access.tls,
        token=access.token,
        service_token=access.service_token,
    )


def _initiator_of(host: InitiatorHost) -> str | None:
    with contextlib.suppress(LunportError):
        return str(host.initiator_name())
    return None


class _Handover:
    """Passes what connects leave to the healer, which is made after the initiator."""

    healer: Healer | None = None

    def put(self, key: str) -> None:
        if self.healer is not None:
            self.healer.put(key)


@contextlib.contextmanager
def _alone(host: InitiatorHost) -> Iterator[None]:
    """Be the only agent of the host. Raises: AlreadyExists, HostLacks."""
    path = socket_path()
    if len(str(path)) > 100:
        raise HostLacks(f"{path} is too long for a socket", "at most 100 signs", "shorten it")
    with host.locks.try_hold(LOCK) as is_alone:
        if not is_alone:
            raise AlreadyExists("An agent of this host at", str(path))
        yield


def _health(recovery: BootRecovery, earlier_boot: EarlierBoot) -> Callable[[], HealthDocument]:
    since = time.time()

    def look() -> HealthDocument:
        return HealthDocument(
            status="ok" if recovery.is_over else "recovering",
            pid=os.getpid(),
            since=since,
            returning=[AwaitedDocument.of(one) for one in earlier_boot.awaited()],
        )

    return look
