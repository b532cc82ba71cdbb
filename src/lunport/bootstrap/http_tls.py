"""TLS under cheroot's server, so that no stranger holds it up.

Quirk(cheroot): a handshake is made in the thread that accepts, so one silent client stops all
others for as long as the timeout (11.1.2, ``connections.py``).

Here the socket is only wrapped there. Each time that the client has said something a worker
takes the handshake a step further and lets the connection go again; so does it with a connection
whose handshake is done and whose request has not begun. A client that says nothing, or half a
handshake, has nobody's turn.

Who is refused is told why by TLS itself (an alert) and named in the log, with the reason and
without a secret.
"""

from __future__ import annotations

import contextlib
import logging
import socket
import ssl

from cheroot.makefile import StreamReader, StreamWriter
from cheroot.ssl import Adapter

from lunport.bootstrap.http_connection import Connection
from lunport.core.peer import PEER_HOSTS
from lunport.host.clock import Deadline
from lunport.host.tls import BoundedSocket, FreshContext, explain, hosts_of

_LOG = logging.getLogger(__name__)
_HANDSHAKE_S = 10.0
_REQUEST_S = 10.0  # for reading all of a request; an answer may take as long as it has to
_STALL_S = 10.0
_LEAST_S = 0.001
_DRAIN_S = 1.0
_DRAINED_BYTES = 1 << 16


class TlsAdapter(Adapter):
    """Wraps accepted sockets, and shakes no hands."""

    def __init__(self, fresh: FreshContext) -> None:
        self._fresh = fresh

    def bind(self, sock: socket.socket) -> socket.socket:
        """Leave the listening socket as it is."""
        return sock

    def wrap(self, sock: socket.socket) -> tuple[ssl.SSLSocket, dict[str, str]]:
        """Wrap a socket that has just been accepted."""
        wrapped = self._fresh.get().wrap_socket(
            sock, server_side=True, do_handshake_on_connect=False
        )
        return wrapped, {}

    def get_environ(self) -> dict[str, str]:
        """Say nothing of the server as a whole."""
        return {}

    def makefile(
        self, sock: socket.socket, mode: str = "r", bufsize: int = -1
    ) -> StreamReader | StreamWriter:
        """Make a file of a wrapped socket."""
        kind = StreamReader if "r" in mode else StreamWriter
        return kind(sock, mode, bufsize)


class TlsConnection(Connection):
    """A connection that begins with a handshake, made when the client has said something."""

    socket: BoundedSocket
    ssl_env: dict[str, object]
    _is_greeted = False
    _greet_by: Deadline | None = None

    def communicate(self) -> bool:
        """Go on with the handshake, or read a request; tell whether the connection stays."""
        if not self._is_greeted:
            return self._greet()
        self.socket.stall_s = _STALL_S
        self.socket.read_by = Deadline.after(_REQUEST_S)
        return bool(super().communicate())  # type: ignore[no-untyped-call]

    def _greet(self) -> bool:
        """Take the handshake as far as what the client has said allows."""
        self._greet_by = self._greet_by or Deadline.after(_HANDSHAKE_S)
        self.socket.settimeout(0)
        try:
            self.socket.do_handshake()
        except (ssl.SSLWantReadError, ssl.SSLWantWriteError):
            if not self._greet_by.has_passed():
                return True
            self._say("it said too little in time")
        except (ssl.SSLZeroReturnError, ssl.SSLEOFError, ConnectionError):
            _LOG.debug("tls_left peer=%s", self.remote_addr)
        except ssl.SSLError as error:
            self._say(explain(error))
            self._let_the_alert_arrive()
        except OSError as error:
            self._say(error.strerror or str(error))
        else:
            self.ssl_env = {PEER_HOSTS: hosts_of(self.socket.getpeercert())}
            self._is_greeted = True
            return True
        return False

    def _say(self, reason: str) -> None:
        _LOG.warning(
            "tls_refused peer=%s port=%s reason=%r", self.remote_addr, self.remote_port, reason
        )

    def _let_the_alert_arrive(self) -> None:
        """Take what the client still sends: to close on it would take our alert away (RST)."""
        end, left = Deadline.after(_DRAIN_S), _DRAINED_BYTES
        with contextlib.suppress(OSError, ValueError):
            self.socket.shutdown(socket.SHUT_WR)
            while left > 0 and not end.has_passed():
                self.socket.settimeout(max(_LEAST_S, end.remaining_s()))
                taken = self.socket.recv(4096)
                if not taken:
                    break
                left -= len(taken)
