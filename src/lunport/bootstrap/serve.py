"""The all-in-one: API, storage worker, SQLite and target daemons in one process.

Started here are the only long-lived threads there are: HTTP workers, operation workers, and
one that watches each target daemon.
"""

from __future__ import annotations

import contextlib
import logging
import os
import resource
import socket
import ssl
import threading
from collections.abc import Callable, Iterator
from contextlib import AbstractContextManager
from dataclasses import dataclass
from pathlib import Path

from lunport.api.app import ApiSettings, make_app
from lunport.api.auth import Authenticator, NoAuth, TokenAuth, hash_token, read_tokens
from lunport.api.request import MAX_DRAINED_BYTES
from lunport.bootstrap.backends import keep_port, known_portals, make_backend
from lunport.bootstrap.http_server import make_server, prepare, serving_beside
from lunport.bootstrap.listener import (
    TLS_PORT,
    Listener,
    check_authentication,
    parse_listener,
    parse_tls_listener,
)
from lunport.bootstrap.secrets import ensure_service_token, new_chap, new_id, now
from lunport.bootstrap.signals import Signals
from lunport.bootstrap.supervisor import Supervisor
from lunport.bootstrap.turns import in_turns
from lunport.config import Config
from lunport.core.errors import BackendError, InvalidConfig
from lunport.core.secret import Secret
from lunport.host.locks import NamedLocks, hold_directory
from lunport.host.tls import FreshContext, TlsFolder
from lunport.store import operations
from lunport.store.engine import Store, sqlite_url
from lunport.store.schema import ensure_schema
from lunport.volume.migrations import take_up
from lunport.volume.operations import Worker
from lunport.volume.reconcile import sweep_images, undo_pending
from lunport.volume.service import Backend, Service

_LOG = logging.getLogger(__name__)
_STOP_S = 10.0
_MAX_FILES = 65536
DATABASE_FILE = "lunport.sqlite"
Beside = Callable[[Secret, str | None], AbstractContextManager[str]]


@dataclass(frozen=True, slots=True)
class Running:
    """A service that answers: what the caller of :func:`running_service` may need."""

    service: Service
    listener: Listener
    serve: Callable[[], None]
    stop: Callable[[], None]
    tls_listener: Listener | None = None


def serve(
    config: Config,
    data_dir: Path,
    listen: str | None,
    announce: Callable[[str], None],
    *,
    beside: Beside | None = None,
) -> None:
    """Run the service until SIGTERM or SIGINT.

    ``beside``: what runs in this process as long as the service does, given the service's own
    token and where it answers this host; it says where it answers itself. Raises:
    InvalidConfig, AlreadyExists (another service has the data directory), StoreUnavailable,
    BackendError, and what ``beside`` raises; nothing is left running then.
    """
    signals = Signals()
    signals.take()
    with running_service(config, data_dir, listen) as running, contextlib.ExitStack() as stack:
        found = [str(one) for one in (running.listener, running.tls_listener) if one is not None]
        if beside is not None:
            endpoint = None if running.listener.path is not None else str(running.listener)
            token = ensure_service_token(data_dir)
            found.append(stack.enter_context(beside(token, endpoint)))
        signals.call(running.stop)
        announce(" and ".join(found))
        running.serve()


@contextlib.contextmanager
def running_service(config: Config, data_dir: Path, listen: str | None) -> Iterator[Running]:
    """Start everything, and take it down again in the opposite order.

    Target daemons outlive the block while a host may use them (``on_stop = "keep"``):
    losing the service never loses I/O.
    """
    listener = parse_listener(listen or config.service.listen)
    check_authentication(listener, config.service.auth)
    by_tls = config.service.tls_listen
    tls_listener = None if by_tls is None else parse_tls_listener(by_tls, TLS_PORT)
    _raise_file_limit()
    with contextlib.ExitStack() as stack:
        stack.enter_context(_hold_data_dir(data_dir))
        store = Store(sqlite_url(data_dir / DATABASE_FILE))
        stack.callback(store.close)
        ensure_schema(store)
        settings = _api_settings(config, data_dir, store)
        stopping = threading.Event()
        service, worker = _make_service(config, data_dir, store, stopping)
        undone = undo_pending(service)
        if undone:
            _LOG.info("pending_connections_undone count=%d", undone)
        for backend in service.backends.values():
            backend.driver.check()
            sweep_images(service, backend)
        stack.callback(_stop_daemons, service, config.service.on_stop)
        for name, backend in service.backends.items():
            backend.helper.start()
            for portal in backend.helper.missing_portals:
                _LOG.warning("portal_missing backend=%s portal=%s", name, portal)
            keep_port(name, config.backend[name], backend.helper.portals, store)
        taken_up = take_up(service)
        if taken_up:
            _LOG.info("migrations_taken_up count=%d", taken_up)
        app = in_turns(make_app(service, settings))
        server = make_server(listener, app, config.service.threads, MAX_DRAINED_BYTES)
        supervisor = Supervisor(service)
        supervisor.start()
        stack.callback(supervisor.stop, _STOP_S)
        worker.start(service)
        stack.callback(worker.stop, _STOP_S)
        # Before that: a long copy ends early, and is begun anew by the next start.
        stack.callback(stopping.set)
        # cheroot would take descriptor 3 for a listening socket, whatever it is.
        os.environ.pop("LISTEN_PID", None)
        if tls_listener is not None:
            tls = _certificates(config)
            secure = make_server(tls_listener, app, config.service.threads, MAX_DRAINED_BYTES, tls)
            stack.enter_context(serving_beside(secure, tls_listener))
        prepare(server, listener)
        if listener.path is not None:
            stack.callback(listener.path.unlink, missing_ok=True)
        stack.callback(server.stop)
        yield Running(service, listener, server.serve, server.stop, tls_listener)


def _certificates(config: Config) -> FreshContext:
    """Ask for certificates, and insist where no token could do instead. Raises: InvalidConfig."""
    assert config.service.tls is not None
    verify = ssl.CERT_OPTIONAL if config.service.auth == "token" else ssl.CERT_REQUIRED
    folder = TlsFolder(Path(config.service.tls))
    return FreshContext(folder, lambda one: one.server_context(verify))


def _make_service(
    config: Config, data_dir: Path, store: Store, stopping: threading.Event
) -> tuple[Service, Worker]:
    host = config.service.host or socket.gethostname()
    worker = Worker(config.service.workers)
    backends: dict[str, Backend] = {}
    taken = known_portals(config.backend, store)
    for name, one in config.backend.items():
        backends[name] = make_backend(
            name,
            one,
            data_dir=data_dir,
            store=store,
            host=host,
            stop=stopping.is_set,
            taken=taken,
        )
        taken |= {*backends[name].helper.portals}
    service = Service(
        store=store,
        backends=backends,
        default_backend=config.default_backend,
        queue=worker,
        locks=NamedLocks(),
        now=now,
        new_id=new_id,
        new_chap=new_chap,
        host=host,
        zone=config.service.zone,
    )
    return service, worker


def _api_settings(config: Config, data_dir: Path, store: Store) -> ApiSettings:
    return ApiSettings(
        authenticator=_authenticator(config),
        service_token_hash=hash_token(ensure_service_token(data_dir)),
        service_uuid=_service_uuid(store),
    )


def _authenticator(config: Config) -> Authenticator:
    if config.service.auth == "none":
        return NoAuth()
    if config.service.tokens is None:
        raise InvalidConfig("service.tokens", None, 'auth = "token" needs the file of tokens')
    return TokenAuth(read_tokens(Path(config.service.tokens)))


def _service_uuid(store: Store) -> str:
    """Return the id under which Block Storage's clients know this service, made once."""
    with store.write() as connection:
        known = operations.read_choice(connection, "service_uuid")
        if known is None:
            known = new_id()
            operations.write_choice(connection, "service_uuid", known)
        return known


def _stop_daemons(service: Service, on_stop: str) -> None:
    """End the target daemons that no host may be using, or all."""
    is_wanted_gone = on_stop == "stop"
    for backend in service.backends.values():
        # One that hangs goes as well when all shall go.
        if not is_wanted_gone and not backend.helper.is_alive():
            continue
        try:
            if is_wanted_gone or not backend.helper.exports():
                backend.helper.stop()
            else:
                _LOG.info("target_daemon_kept backend=%s", backend.name)
        except BackendError as error:
            _LOG.warning("target_daemon_not_stopped backend=%s error=%s", backend.name, error)


@contextlib.contextmanager
def _hold_data_dir(data_dir: Path) -> Iterator[None]:
    """Make the data directory, and hold it for this process alone.

    Raises: InvalidConfig, AlreadyExists.
    """
    with contextlib.ExitStack() as stack:
        try:
            data_dir.mkdir(mode=0o700, parents=True, exist_ok=True)
            stack.enter_context(hold_directory(data_dir, "A service on the data directory"))
            # It holds CHAP secrets: made before SQLite makes it with a wider mode.
            database = data_dir / DATABASE_FILE
            os.close(os.open(database, os.O_RDWR | os.O_CREAT | os.O_CLOEXEC, 0o600))
        except OSError as error:
            reason = f"{error.filename}: {error.strerror}"
            raise InvalidConfig("data directory", str(data_dir), reason) from error
        yield


def _raise_file_limit() -> None:
    """Take more than the usual 1024 files if we may: each connection is one."""
    soft, hard = resource.getrlimit(resource.RLIMIT_NOFILE)
    wanted = _MAX_FILES if hard == resource.RLIM_INFINITY else min(hard, _MAX_FILES)
    if soft != resource.RLIM_INFINITY and soft < wanted:
        resource.setrlimit(resource.RLIMIT_NOFILE, (wanted, hard))
