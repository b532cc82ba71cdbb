"""The HTTP server: cheroot, with limits, and each answer in one piece.

cheroot sends an answer's head and body apart, which costs a system call and wakes the client
twice; here both leave together when the answer is whole. What it writes while it still reads
a request (100 Continue, a refusal) goes at once, as before.
"""

from __future__ import annotations

import logging
import socket

from cheroot import server, wsgi

from lunport.api.app import WsgiApp
from lunport.bootstrap.listener import Listener

_LOG = logging.getLogger(__name__)
_BACKLOG = 128
_TIMEOUT_S = 60
_STOP_S = 5
_MAX_HEADER_BYTES = 64 * 1024
_MAX_CONNECTIONS = 1000


def make_server(listener: Listener, app: WsgiApp, threads: int) -> wsgi.Server:
    """Make the server; nothing is bound yet."""
    made = _Server(
        listener.bind, app, numthreads=threads, request_queue_size=_BACKLOG, timeout=_TIMEOUT_S
    )
    made.max_request_header_size = _MAX_HEADER_BYTES
    made.shutdown_timeout = _STOP_S
    made.keep_alive_conn_limit = _MAX_CONNECTIONS
    return made


class _Writer:
    """A connection's outgoing side, which can hold back what is written to it."""

    def __init__(self, connection: socket.socket) -> None:
        self._connection = connection
        self._held: list[bytes] | None = None
        self.bytes_written = 0

    def hold(self) -> None:
        """Keep what is written from now on."""
        self._held = []

    def release(self) -> None:
        """Send what was kept in one piece, and keep nothing more."""
        held, self._held = self._held, None
        if held:
            self._connection.sendall(b"".join(held))

    def write(self, data: bytes) -> int:
        """Take all of it."""
        if self._held is None:
            self._connection.sendall(data)
        else:
            self._held.append(data)
        self.bytes_written += len(data)
        return len(data)


class _Request(server.HTTPRequest):
    def respond(self) -> None:
        self.conn.wfile.hold()
        try:
            super().respond()
        finally:
            self.conn.wfile.release()


class _Connection(server.HTTPConnection):
    RequestHandlerClass = _Request

    def __init__(self, *arguments: object) -> None:
        super().__init__(*arguments)
        self.wfile = _Writer(self.socket)


class _Server(wsgi.Server):
    ConnectionClass = _Connection

    def error_log(self, msg: str = "", level: int = logging.INFO, traceback: bool = False) -> None:
        """Log what the server says of connections and faults."""
        _LOG.log(level, "http_server %s", msg.strip(), exc_info=traceback)
