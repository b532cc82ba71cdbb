"""One short iSCSI session of our own, in user space, over one socket.

Connects, logs in, sends single commands, logs out. Every wait is bounded by the session's
deadline and ends at once when its :class:`Stop` is set. The socket is closed on every exit.
Knows no policy: what goes wrong leaves as :class:`SessionError` with a verdict. Its ISID is
random in each session, so that no live session can be reinstated (RFC 7143 section 6.3.5).
"""

from __future__ import annotations

import contextlib
import errno
import os
import select
import socket
import time
from collections.abc import Iterator
from dataclasses import dataclass, field

from lunport.core.chap import Chap
from lunport.core.errors import LunportError
from lunport.core.iqn import Iqn
from lunport.core.iscsi_login import (
    Ask,
    Denied,
    LoginIntent,
    LoginStep,
    Redirected,
    advance_login,
    begin_login,
    make_isid,
)
from lunport.core.iscsi_pdu import (
    HEADER_LENGTH,
    NO_TAG,
    AsyncMessage,
    DataIn,
    LoginResponse,
    LogoutRequest,
    LogoutResponse,
    NopIn,
    NopOut,
    PduError,
    Reject,
    ScsiCommand,
    ScsiResponse,
    TargetPdu,
    TextRequest,
    TextResponse,
    decode_target_pdu,
    parse_lengths,
)
from lunport.core.iscsi_text import (
    MAX_TEXT_LENGTH,
    Keys,
    TargetAddress,
    decode_keys,
    encode_keys,
)
from lunport.core.portal import Portal
from lunport.core.probe_outcome import Verdict
from lunport.core.scsi_commands import STATUS_GOOD
from lunport.host.clock import Deadline
from lunport.host.tasks import Stop

_LOGOUT_S = 1.0
_MAX_STRAY_PDUS = 64
_ASYNC_SCSI_SENSE = 0
_UNREACHABLE = frozenset(
    {errno.ENETUNREACH, errno.EHOSTUNREACH, errno.ENETDOWN, errno.EHOSTDOWN, errno.EADDRNOTAVAIL}
)


class SessionError(LunportError):
    """A session ended early; caught by whoever opened it, never seen beyond."""

    def __init__(self, verdict: Verdict, detail: str) -> None:
        super().__init__(verdict, detail)
        self.verdict = verdict
        self.detail = detail

    def __str__(self) -> str:
        return self.detail


@dataclass(frozen=True, slots=True)
class ScsiAnswer:
    """What a command gave: status, data read, and sense if the status is CHECK CONDITION."""

    status: int
    data: bytes
    sense: bytes

    @property
    def is_good(self) -> bool:
        """Tell whether the command succeeded."""
        return self.status == STATUS_GOOD


@dataclass(slots=True)
class Session:
    """A connected socket and the numbers of the session on it."""

    portal: Portal
    deadline: Deadline
    stop: Stop | None
    _socket: socket.socket
    connect_s: float
    tpgt: int | None = None
    _is_full_feature: bool = False
    _cmd_sn: int = 1
    _exp_stat_sn: int = 0
    _tag: int = 16
    _received: bytearray = field(default_factory=bytearray)

    def login(self, initiator: Iqn, target: Iqn | None, chap: Chap | None) -> TargetAddress | None:
        """Log in; return where the target redirects to, or None once the session stands.

        Raises: SessionError, PduError.
        """
        intent = LoginIntent(
            initiator=initiator,
            target=target,
            chap=chap,
            isid=make_isid(os.urandom(5)),
            challenge=os.urandom(16),
            challenge_id=os.urandom(1)[0],
        )
        step: LoginStep = begin_login(intent)
        while isinstance(step, Ask):
            self._send(step.request.encode())
            response = self._receive()
            if isinstance(response, Reject):
                raise SessionError(Verdict.PROTOCOL_ERROR, "the portal rejects a login")
            if not isinstance(response, LoginResponse):
                raise PduError("something other than a login response")
            step = advance_login(step.state, response)
        if isinstance(step, Denied):
            raise SessionError(step.verdict, step.detail)
        if isinstance(step, Redirected):
            return step.address
        self._cmd_sn = step.cmd_sn
        self._exp_stat_sn = step.exp_stat_sn
        self.tpgt = step.tpgt
        self._is_full_feature = True
        return None

    def send_targets(self) -> Keys:
        """Ask for all targets, in a discovery session. Raises: SessionError, PduError."""
        text = b""
        transfer_tag = NO_TAG
        question = encode_keys([("SendTargets", "All")])
        tag = self._next_tag()
        for _ in range(MAX_TEXT_LENGTH // 512):
            self._send(
                TextRequest(tag, transfer_tag, self._cmd_sn, self._exp_stat_sn, question).encode()
            )
            self._cmd_sn = self._cmd_sn + 1 & 0xFFFFFFFF
            answer = self._receive_for(tag)
            if not isinstance(answer, TextResponse):
                raise PduError("something other than a text response")
            text += answer.keys
            if len(text) > MAX_TEXT_LENGTH:
                break
            if answer.final and not answer.continues:
                return decode_keys(text)
            transfer_tag, question = answer.transfer_tag, b""
        raise PduError("a list of targets without end")

    def execute(self, lun: bytes, cdb: bytes, expected: int) -> ScsiAnswer:
        """Run one command that reads up to ``expected`` bytes; ``lun`` is the field of eight.

        Raises: SessionError, PduError.
        """
        tag = self._next_tag()
        command = ScsiCommand(lun, tag, self._cmd_sn, self._exp_stat_sn, cdb, expected)
        self._send(command.encode())
        self._cmd_sn = self._cmd_sn + 1 & 0xFFFFFFFF
        data = bytearray()
        for _ in range(_MAX_STRAY_PDUS):
            answer = self._receive_for(tag)
            if isinstance(answer, ScsiResponse):
                if answer.response != 0:
                    raise SessionError(Verdict.NOT_READY, "the target could not run a command")
                return ScsiAnswer(answer.status, bytes(data), answer.sense)
            if not isinstance(answer, DataIn) or answer.offset != len(data):
                raise PduError("an answer that does not belong to a command")
            data += answer.data
            if len(data) > expected:
                raise PduError("more data than was asked for")
            if answer.status is not None:
                return ScsiAnswer(answer.status, bytes(data), b"")
        raise PduError("a command that does not end")

    def close(self) -> None:
        """Log out if logged in, without insisting on an answer, and close the socket."""
        try:
            if self._is_full_feature:
                with contextlib.suppress(SessionError, PduError):
                    self._logout()
        finally:
            self._socket.close()

    def _logout(self) -> None:
        self.deadline = self.deadline.at_most(_LOGOUT_S)
        tag = self._next_tag()
        with contextlib.suppress(OSError):
            self._socket.send(LogoutRequest(tag, self._cmd_sn, self._exp_stat_sn).encode())
        while not isinstance(self._receive_for(tag), LogoutResponse):
            continue

    def _next_tag(self) -> int:
        self._tag += 1
        return self._tag

    def _receive_for(self, tag: int) -> TargetPdu:
        """Return the next PDU that answers ``tag``, taking care of what a target may interject."""
        for _ in range(_MAX_STRAY_PDUS):
            pdu = self._receive()
            if isinstance(pdu, NopIn):
                self._answer_nop(pdu)
            elif isinstance(pdu, AsyncMessage):
                if pdu.event != _ASYNC_SCSI_SENSE:
                    raise SessionError(Verdict.CLOSED, "the target asks to be left")
            elif isinstance(pdu, Reject):
                detail = f"the target rejects a request (reason {pdu.reason:#04x})"
                raise SessionError(Verdict.PROTOCOL_ERROR, detail)
            elif isinstance(pdu, LoginResponse) or pdu.tag != tag:
                raise PduError("an answer to nothing that was asked")
            else:
                if not isinstance(pdu, DataIn) or pdu.status is not None:
                    self._exp_stat_sn = pdu.stat_sn + 1 & 0xFFFFFFFF
                return pdu
        raise PduError("nothing but interjections")

    def _answer_nop(self, nop: NopIn) -> None:
        if nop.transfer_tag != NO_TAG:
            reply = NopOut(nop.transfer_tag, self._cmd_sn, self._exp_stat_sn, nop.lun)
            self._send(reply.encode())

    def _receive(self) -> TargetPdu:
        header = self._read(HEADER_LENGTH)
        return decode_target_pdu(header + self._read(parse_lengths(header).rest))

    def _read(self, length: int) -> bytes:
        while len(self._received) < length:
            self._wait(select.POLLIN, "an answer")
            try:
                more = self._socket.recv(65536)
            except BlockingIOError:
                continue
            except OSError as error:
                raise SessionError(Verdict.CLOSED, _words(error)) from error
            if not more:
                raise SessionError(Verdict.CLOSED, "the portal closed the connection")
            self._received += more
        taken = bytes(self._received[:length])
        del self._received[:length]
        return taken

    def _send(self, pdu: bytes) -> None:
        left = memoryview(pdu)
        while left:
            try:
                left = left[self._socket.send(left) :]
            except BlockingIOError:
                self._wait(select.POLLOUT, "room to send")
            except OSError as error:
                raise SessionError(Verdict.CLOSED, _words(error)) from error

    def _wait(self, events: int, what: str) -> None:
        wait_for_socket(self._socket, events, self.deadline, self.stop, what)


@contextlib.contextmanager
def open_session(portal: Portal, deadline: Deadline, stop: Stop | None = None) -> Iterator[Session]:
    """Connect to a literal portal and give a session that is not logged in yet.

    Raises: SessionError. Leaves neither socket nor session behind.
    """
    began = time.monotonic()
    with contextlib.closing(_make_socket(portal)) as connection:
        _connect(connection, portal, deadline, stop)
        session = Session(portal, deadline, stop, connection, time.monotonic() - began)
        try:
            yield session
        finally:
            session.close()


def wait_for_socket(
    connection: socket.socket, events: int, deadline: Deadline, stop: Stop | None, what: str
) -> None:
    """Wait until the socket has one of the events. Raises: SessionError."""
    late = SessionError(Verdict.TIMED_OUT, f"no sign of {what} within {deadline.budget_s:.1f} s")
    if deadline.has_passed():
        raise late
    poll = select.poll()
    poll.register(connection, events)
    if stop is not None:
        poll.register(stop, select.POLLIN)
    ready = poll.poll(deadline.remaining_s() * 1000)
    if stop is not None and stop.is_set():
        raise SessionError(Verdict.CANCELLED, "was not waited for any longer")
    if not ready:
        raise late


def _make_socket(portal: Portal) -> socket.socket:
    family = socket.AF_INET6 if portal.is_ipv6 else socket.AF_INET
    try:
        connection = socket.socket(family, socket.SOCK_STREAM)
    except OSError as error:
        raise SessionError(Verdict.UNREACHABLE, f"no socket: {error.strerror}") from error
    connection.setblocking(False)
    connection.setsockopt(socket.IPPROTO_TCP, socket.TCP_NODELAY, 1)
    return connection


def _connect(
    connection: socket.socket, portal: Portal, deadline: Deadline, stop: Stop | None
) -> None:
    try:
        status = connection.connect_ex((portal.host, portal.port))
        if status == errno.EINPROGRESS:
            wait_for_socket(connection, select.POLLOUT, deadline, stop, "a connection")
            status = connection.getsockopt(socket.SOL_SOCKET, socket.SO_ERROR)
    except OSError as error:
        status = error.errno or errno.EIO
    if status == 0:
        return
    words = os.strerror(status)
    if status == errno.ECONNREFUSED:
        raise SessionError(Verdict.REFUSED, "the connection was refused")
    if status == errno.ETIMEDOUT:
        raise SessionError(Verdict.TIMED_OUT, "nothing answered the connection")
    if status in _UNREACHABLE:
        raise SessionError(Verdict.UNREACHABLE, f"there is no way there: {words}")
    if status in {errno.ECONNRESET, errno.EPIPE}:
        raise SessionError(Verdict.CLOSED, f"the connection was cut: {words}")
    raise SessionError(Verdict.UNREACHABLE, f"no connection: {words}")


def _words(error: OSError) -> str:
    return f"the connection was cut: {error.strerror or error}"
