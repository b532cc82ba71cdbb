"""Clients of agents: this host's by its unix socket, another host's by TLS with certificates.

    agent = AgentSocket()
    if agent.answers(Deadline.after(1)):
        agent.ask("POST", "/v1/connect", body, Deadline.after(60))

    peer = AgentPeer("node-b", TlsFolder(Path("/etc/lunport/tls")))
    peer.identity(Deadline.after(5)).initiator

Every call ends by its deadline, the resolving of a name and the handshake included.

Carries documents and gives back the agent's errors as the errors they were. Never repeats a
request, and never decides what to do when nobody answers.
"""

from __future__ import annotations

import contextlib
import http.client
import socket
import ssl
from abc import ABC, abstractmethod
from collections.abc import Iterator
from pathlib import Path
from typing import TYPE_CHECKING, Any

import msgspec

from lunport.core.error_document import parse_error
from lunport.core.errors import AgentUnavailable, IscsiError, LunportError, NotTrusted
from lunport.core.host_name import same_host
from lunport.core.portal import Portal
from lunport.host.clock import Deadline
from lunport.host.host_root import run_directory
from lunport.host.resolve import resolve_portal
from lunport.host.tls import BoundedSocket, TlsFolder, explain

if TYPE_CHECKING:
    from _typeshed import ReadableBuffer, WriteableBuffer

SOCKET_FILE = "agent.sock"
PEER_PORT = 8778
_LEAST_S = 0.001
_MAX_ANSWER_BYTES = 64 << 20


class _Failure(msgspec.Struct):
    error: dict[str, object]


class PeerIdentity(msgspec.Struct, frozen=True):
    """Who answered: its host, the initiator that this is known by, and as whom it knows us."""

    host: str
    initiator: str | None = None
    peers: tuple[str, ...] = ()


def socket_path() -> Path:
    """Return where the agent of this host listens, if it runs."""
    return run_directory() / SOCKET_FILE


class _AgentClient(ABC):
    """What asks an agent, wherever it is. Safe to share between threads."""

    @property
    @abstractmethod
    def where(self) -> str:
        """Where the agent is, for people."""

    @abstractmethod
    def _connection(self, deadline: Deadline) -> http.client.HTTPConnection:
        """Make a connection that is not open yet, and whose every wait ends by the deadline."""

    def answers(self, deadline: Deadline) -> bool:
        """Tell whether an agent is there and answers in time; one that we may not ask is not."""
        with contextlib.suppress(LunportError):
            self.ask("GET", "/v1/health", None, deadline)
            return True
        return False

    def ask(self, method: str, target: str, body: bytes | None, deadline: Deadline) -> bytes:
        """Make one request, and return the answer's document.

        Raises: AgentUnavailable (nobody answers, or not to the end), NotTrusted, and the
        agent's errors.
        """
        with self._telling(deadline), contextlib.closing(self._connection(deadline)) as one:
            headers = {} if body is None else {"Content-Type": "application/json"}
            one.request(method, target, body, headers)
            response = one.getresponse()
            answer = response.read(_MAX_ANSWER_BYTES + 1)
            if len(answer) > _MAX_ANSWER_BYTES:
                raise AgentUnavailable(f"The agent at {self.where} answers without an end.")
        return read_answer(response.status, answer)

    @contextlib.contextmanager
    def _telling(self, deadline: Deadline) -> Iterator[None]:
        try:
            yield
        except TimeoutError as error:
            words = f"did not answer within {deadline.budget_s:.1f} s"
            raise AgentUnavailable(f"The agent at {self.where} {words}.") from error
        except (ssl.SSLEOFError, ssl.SSLZeroReturnError) as error:
            raise AgentUnavailable(f"The agent at {self.where} closed the connection.") from error
        except ssl.SSLError as error:
            raise NotTrusted(f"the agent at {self.where}", explain(error)) from error
        except (OSError, http.client.HTTPException) as error:
            words = (isinstance(error, OSError) and error.strerror) or str(error)
            raise AgentUnavailable(f"No agent answers at {self.where}: {words}.") from error


class AgentSocket(_AgentClient):
    """The agent that listens at ``path``."""

    def __init__(self, path: Path | None = None) -> None:
        self.path = socket_path() if path is None else path

    @property
    def where(self) -> str:
        """The socket's path."""
        return str(self.path)

    def _connection(self, deadline: Deadline) -> http.client.HTTPConnection:
        return _SocketConnection(self.path, deadline)


class AgentPeer(_AgentClient):
    """The agent of another host, whose certificate has to name that host.

    ``at``: the address or name where it is reached, if that is not the host's name.
    """

    def __init__(
        self, host: str, tls: TlsFolder, *, port: int = PEER_PORT, at: str | None = None
    ) -> None:
        self.host = host
        self.portal = Portal(at or host, port)
        self._tls = tls

    @property
    def where(self) -> str:
        """The host, and where it is reached."""
        portal = str(self.portal)
        return portal if self.portal.host == self.host else f"{self.host} ({portal})"

    def identity(self, deadline: Deadline) -> PeerIdentity:
        """Ask who it is. Raises: AgentUnavailable, NotTrusted (it calls itself otherwise)."""
        answer = self.ask("GET", "/v1/identity", None, deadline)
        try:
            found = msgspec.json.decode(answer, type=PeerIdentity)
        except msgspec.MsgspecError as error:
            raise AgentUnavailable(f"The agent at {self.where} answers something else.") from error
        if not same_host(found.host, self.host):
            raise NotTrusted(f"the agent at {self.where}", f"it says that it is {found.host}")
        return found

    def _connection(self, deadline: Deadline) -> http.client.HTTPConnection:
        return _PeerConnection(self.host, self.portal, self._tls, deadline)


def read_answer(status: int, answer: bytes) -> bytes:
    """Return the document of an answer. Raises: the error that it stands for."""
    if status < 400:
        return answer
    try:
        error = parse_error(msgspec.json.decode(answer, type=_Failure).error)
    except (msgspec.MsgspecError, UnicodeDecodeError):
        error = LunportError(f"The agent refuses the request (HTTP {status}).")
    raise error


class _DeadlineSocket(socket.socket):
    """A socket whose every wait ends by one deadline, however many waits there are."""

    deadline: Deadline

    def recv_into(self, buffer: WriteableBuffer, nbytes: int = 0, flags: int = 0) -> int:
        self._bound()
        return super().recv_into(buffer, nbytes, flags)

    def sendall(self, data: ReadableBuffer, flags: int = 0) -> None:
        self._bound()
        super().sendall(data, flags)

    def _bound(self) -> None:
        if self.deadline.has_passed():
            raise TimeoutError
        self.settimeout(max(_LEAST_S, self.deadline.remaining_s()))


class _SocketConnection(http.client.HTTPConnection):
    def __init__(self, path: Path, deadline: Deadline) -> None:
        super().__init__("localhost")
        self._path = path
        self._deadline = deadline

    def connect(self) -> None:
        """Connect to the socket."""
        opened = _DeadlineSocket(socket.AF_UNIX, socket.SOCK_STREAM | socket.SOCK_CLOEXEC)
        opened.deadline = self._deadline
        self.sock = opened
        opened.settimeout(max(_LEAST_S, self._deadline.remaining_s()))
        opened.connect(str(self._path))


class _PeerConnection(http.client.HTTPConnection):
    def __init__(self, name: str, portal: Portal, tls: TlsFolder, deadline: Deadline) -> None:
        super().__init__(name, portal.port)
        self._name = name
        self._portal = portal
        self._tls = tls
        self._deadline = deadline

    def connect(self) -> None:
        """Connect to the first address that takes it, and shake hands."""
        context = self._tls.client_context()
        plain = self._open()
        try:
            plain.settimeout(max(_LEAST_S, self._deadline.remaining_s()))
            opened = context.wrap_socket(
                plain, server_hostname=self._name, do_handshake_on_connect=False
            )
        except BaseException:
            plain.close()
            raise
        self.sock = opened
        assert isinstance(opened, BoundedSocket)
        opened.read_by = opened.write_by = self._deadline
        opened.settimeout(max(_LEAST_S, self._deadline.remaining_s()))
        opened.do_handshake()  # in all within that time

    def send(self, data: Any) -> None:  # noqa: ANN401 - whatever http.client sends
        """Send; what the other side said before it closed is worth more than that it did."""
        try:
            super().send(data)
        except ConnectionError:
            if isinstance(self.sock, BoundedSocket):
                with contextlib.suppress(ConnectionError, TimeoutError):
                    self.sock.recv_into(bytearray(1))
            raise

    def _open(self) -> socket.socket:
        failure: OSError | None = None
        for portal in _resolve(self._portal, self._deadline):
            try:
                return socket.create_connection(
                    (portal.host, portal.port), max(_LEAST_S, self._deadline.remaining_s())
                )
            except OSError as error:
                failure = error
        raise failure or ConnectionError("it has no address")


def _resolve(portal: Portal, deadline: Deadline) -> tuple[Portal, ...]:
    try:
        return resolve_portal(portal, deadline)
    except IscsiError as error:  # a portal of another kind, and the same words
        raise ConnectionError(error.detail) from error
