"""The HTTP server of our services: cheroot, its words in the log, its surprises mended.

Who listens where, and with which application, is decided by whoever makes one.
"""

from __future__ import annotations

import contextlib
import logging
import math
import socket
import sys
import threading
from collections.abc import Callable, Iterable, Iterator
from pathlib import Path
from typing import Any

from cheroot import wsgi
from cheroot.connections import ConnectionManager
from cheroot.server import HTTPConnection

from lunport.bootstrap.http_connection import Connection
from lunport.bootstrap.http_tls import TlsAdapter, TlsConnection
from lunport.bootstrap.listener import Listener, bind_reason, clear_socket
from lunport.core.errors import PortalUnavailable
from lunport.host.process import EXHAUSTED
from lunport.host.tls import FreshContext

WsgiApp = Callable[[dict[str, Any], Callable[..., Any]], Iterable[bytes]]

_LOG = logging.getLogger(__name__)
_MAX_HEADER_BYTES = 64 * 1024
_STALL_S = 10.0
_JOIN_S = 2.0
_EXHAUSTED_PAUSE_S = 0.1
_pause = threading.Event()


class Server(wsgi.Server):
    """cheroot's server; its words go to the log, and silence keeps no thread."""

    _connections: ConnectionManager

    # Quirk(cheroot): a new connection gets a worker before it has said anything, and keeps it
    # until the timeout: as many silent clients as there are threads stop the service
    # (seen in 11.1.2, ``connections.py``). A kept-alive one waits without; so may a new one.
    def process_conn(self, conn: HTTPConnection) -> None:
        """Give a connection to a worker, a new one when its first request arrives."""
        if conn.last_used is None:
            self.put_conn(conn)
        else:
            # Within a request or an answer nobody may be silent for as long as between them.
            conn.socket.settimeout(_STALL_S)
            super().process_conn(conn)

    def bind_unix_socket(self, bind_addr: str) -> socket.socket:
        """Bind the socket, which only our user may connect to. Raises: PortalUnavailable."""
        # Quirk(cheroot): listening on a unix socket it removes whatever has the name, and lets
        # everybody in (11.1.2).
        clear_socket(Path(bind_addr))
        bound: socket.socket = super().bind_unix_socket(bind_addr)  # type: ignore[no-untyped-call]
        Path(bind_addr).chmod(0o600)  # before listen(): nobody has connected yet
        return bound

    def error_log(self, msg: str = "", level: int = logging.INFO, traceback: bool = False) -> None:
        """Log what the server says of connections and faults."""
        error = sys.exc_info()[1]
        in_loop = "HTTPServer.serve" in msg
        if in_loop and isinstance(error, OSError) and error.errno in EXHAUSTED:
            # Quirk(cheroot): when descriptors run out in accept it tries again at once, and logs
            # that, for ever (11.1.2).
            _LOG.error("http_server_exhausted error=%s", error.strerror)
            self._connections._expire(math.inf)  # type: ignore[attr-defined]  # noqa: SLF001
            _pause.wait(_EXHAUSTED_PAUSE_S)
            return
        _LOG.log(level, "http_server %s", msg.strip(), exc_info=traceback)


def make_server(
    listener: Listener,
    app: WsgiApp,
    threads: int,
    max_body_bytes: int,
    tls: FreshContext | None = None,
) -> Server:
    """Make a server that is not bound yet. ``max_body_bytes``: longer ones are refused unread.

    With ``tls`` the application finds the hosts that the client's certificate names in the
    environment, at :data:`lunport.core.peer.PEER_HOSTS`.
    """
    server = Server(listener.bind, app, numthreads=threads, request_queue_size=128, timeout=60)
    server.ConnectionClass = Connection
    if tls is not None:
        server.ConnectionClass = TlsConnection
        server.ssl_adapter = TlsAdapter(tls)
    server.max_request_body_size = max_body_bytes
    server.max_request_header_size = _MAX_HEADER_BYTES
    server.shutdown_timeout = 5
    server.keep_alive_conn_limit = 1000
    return server


def prepare(server: Server, listener: Listener) -> None:
    """Bind and listen. Raises: PortalUnavailable."""
    try:
        server.prepare()
    except OSError as error:
        raise PortalUnavailable(str(listener), bind_reason(error)) from error


@contextlib.contextmanager
def serving_beside(server: Server, listener: Listener) -> Iterator[None]:
    """Serve in a thread of its own, beside the one that the process waits for.

    Raises: PortalUnavailable.
    """
    prepare(server, listener)
    thread = threading.Thread(target=server.serve, name="http-tls", daemon=True)
    thread.start()
    try:
        yield
    finally:
        # It waits for its workers without a bound, so nobody waits for it.
        threading.Thread(target=server.stop, name="http-tls-stop", daemon=True).start()
        thread.join(_JOIN_S)
