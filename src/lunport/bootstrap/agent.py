"""``lunport agent``: the host's agent on its unix socket, until a signal.

Started here are the only long-lived threads there are: HTTP workers, the one that recovers the
host after its start, and the healer's. One agent serves a host: a lock says so, not the socket,
which a killed agent leaves behind. At the end what is under way gets some seconds; what takes
longer is cut off as by a kill, which the journal stands for.
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
from lunport.agent.heal_acts import give_queueing_back
from lunport.agent.healer import Healer
from lunport.agent.reporting import PathReporter
from lunport.agent_api.app import AgentSettings, Verbs, make_app
from lunport.agent_api.bodies import MAX_BODY_BYTES
from lunport.agent_api.documents import AwaitedDocument, HealthDocument
from lunport.agent_api.faults import ExitCodeOf
from lunport.agent_api.metrics import Metrics
from lunport.bootstrap.http_server import make_server
from lunport.bootstrap.listener import Listener, bind_reason
from lunport.bootstrap.signals import Signals
from lunport.client.agent import socket_path
from lunport.client.block_storage import BlockStorage
from lunport.core.errors import AlreadyExists, HostLacks, PortalUnavailable
from lunport.core.path_status import VolumePaths
from lunport.core.secret import Secret
from lunport.host.attachment_notes import AttachmentNotes
from lunport.host.clock import Deadline
from lunport.initiator.connector import Initiator
from lunport.initiator.initiator_host import InitiatorHost
from lunport.initiator.multipath_policy import MultipathPolicy

_LOG = logging.getLogger(__name__)
LOCK = "agent"
_THREADS = 48
_VERBS_AT_ONCE = 40  # the other threads answer those who only look
_STOP_S = 8.0
_JOIN_S = 2.0
_HEAL_S = 5.0
_GIVE_BACK_S = 5.0


@dataclass(frozen=True, slots=True)
class Running:
    """An agent that answers: what the caller of :func:`running_agent` may need."""

    listener: Listener
    serve: Callable[[], None]
    stop: Callable[[], None]
    verbs: Verbs


def serve_agent(
    policy: MultipathPolicy,
    exit_code_of: ExitCodeOf,
    announce: Callable[[str], None],
    token: Secret | None = None,
    endpoint: str | None = None,
) -> None:
    """Run the agent until SIGTERM or SIGINT.

    ``endpoint``: the volume service of attachments that were not made by this host's commands.

    Raises: AlreadyExists (an agent serves this host), PortalUnavailable, HostLacks; nothing is
    left running then.
    """
    signals = Signals()
    signals.take()
    with running_agent(policy, exit_code_of, token, endpoint) as running:
        signals.call(running.stop)
        announce(str(running.listener))
        running.serve()
        is_idle = running.verbs.wait_until_idle(Deadline.after(_STOP_S))
    if not is_idle:
        _LOG.warning("agent_cuts_off_what_is_under_way")
        logging.shutdown()
        os._exit(0)  # its threads would be waited for, however long their deadlines are


@contextlib.contextmanager
def running_agent(
    policy: MultipathPolicy,
    exit_code_of: ExitCodeOf,
    token: Secret | None = None,
    endpoint: str | None = None,
) -> Iterator[Running]:
    """Start everything, and take it down again in the opposite order."""
    listener = Listener(path=socket_path())
    handover = _Handover()
    with contextlib.ExitStack() as stack:
        host = InitiatorHost(finish=handover.put, keeps_watch=True)
        stack.enter_context(_alone(host))
        initiator = Initiator(host)
        reporter = PathReporter(
            initiator.connections,
            AttachmentNotes().all,
            lambda service: BlockStorage(service, token=token),
            endpoint=endpoint,
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
        settings = AgentSettings(
            exit_code_of=exit_code_of,
            health=_health(recovery, earlier_boot),
            verbs_at_once=_VERBS_AT_ONCE,
        )
        app, verbs = make_app(agent, metrics, settings)
        server = make_server(listener, app, _THREADS, MAX_BODY_BYTES)
        # cheroot would take descriptor 3 for a listening socket, whatever it is.
        os.environ.pop("LISTEN_PID", None)
        try:
            server.prepare()
        except OSError as error:
            raise PortalUnavailable(str(listener), bind_reason(error)) from error
        assert listener.path is not None
        stack.callback(listener.path.unlink, missing_ok=True)

        def stop() -> None:
            # It waits for its workers without a bound, so nobody waits for it.
            threading.Thread(target=server.stop, name="http-stop", daemon=True).start()

        reporter.start()
        stack.callback(reporter.stop, _JOIN_S)
        stack.callback(lambda: give_queueing_back(initiator, Deadline.after(_GIVE_BACK_S)))
        healer.start()
        stack.callback(healer.stop, _HEAL_S)
        stack.callback(stop)
        recovery.start()
        stack.callback(recovery.stop, _JOIN_S)
        yield Running(listener, server.serve, stop, verbs)


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
