"""A client of this host's agent: HTTP over its unix socket, each call within a deadline.

    agent = AgentSocket()
    if agent.answers(Deadline.after(1)):
        agent.ask("POST", "/v1/connect", body, Deadline.after(60))

Carries documents and gives back the agent's errors as the errors they were. Never repeats a
request, and never decides what to do when nobody answers.
"""

from __future__ import annotations

import contextlib
import http.client
import socket
from collections.abc import Iterator
from pathlib import Path
from typing import TYPE_CHECKING

import msgspec

from lunport.core.error_document import parse_error
from lunport.core.errors import AgentUnavailable, LunportError
from lunport.host.clock import Deadline
from lunport.host.host_root import run_directory

if TYPE_CHECKING:
    from _typeshed import ReadableBuffer, WriteableBuffer

SOCKET_FILE = "agent.sock"
_LEAST_S = 0.001
_MAX_ANSWER_BYTES = 64 << 20


class _Failure(msgspec.Struct):
    error: dict[str, object]


def socket_path() -> Path:
    """Return where the agent of this host listens, if it runs."""
    return run_directory() / SOCKET_FILE


class AgentSocket:
    """The agent that listens at ``path``. Safe to share between threads."""

    def __init__(self, path: Path | None = None) -> None:
        self.path = socket_path() if path is None else path

    def answers(self, deadline: Deadline) -> bool:
        """Tell whether an agent is there and answers in time; one that we may not ask is not."""
        with contextlib.suppress(LunportError):
            self.ask("GET", "/v1/health", None, deadline)
            return True
        return False

    def ask(self, method: str, target: str, body: bytes | None, deadline: Deadline) -> bytes:
        """Make one request, and return the answer's document.

        Raises: AgentUnavailable (nobody answers, or not to the end), and the agent's errors.
        """
        with self._telling(deadline), contextlib.closing(_Connection(self.path, deadline)) as one:
            headers = {} if body is None else {"Content-Type": "application/json"}
            one.request(method, target, body, headers)
            response = one.getresponse()
            answer = response.read(_MAX_ANSWER_BYTES + 1)
            if len(answer) > _MAX_ANSWER_BYTES:
                raise AgentUnavailable(f"The agent at {self.path} answers without an end.")
        return read_answer(response.status, answer)

    @contextlib.contextmanager
    def _telling(self, deadline: Deadline) -> Iterator[None]:
        try:
            yield
        except TimeoutError as error:
            words = f"did not answer within {deadline.budget_s:.1f} s"
            raise AgentUnavailable(f"The agent at {self.path} {words}.") from error
        except (OSError, http.client.HTTPException) as error:
            words = (isinstance(error, OSError) and error.strerror) or str(error)
            raise AgentUnavailable(f"No agent answers at {self.path}: {words}.") from error


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


class _Connection(http.client.HTTPConnection):
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
