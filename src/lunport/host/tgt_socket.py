"""Speak tgtd's management protocol over its unix socket.

One request a connection: a fixed header, then parameters; the answer is an error number and
a text, then the daemon closes. No ``tgtadm`` processes: a call costs some tens of
microseconds, and secrets appear in no argv. What the texts mean is read in
``host/tgt_show.py``; this module decides nothing.

Source: tgt's ``usr/tgtadm.h``, ``usr/tgtadm_error.h`` and ``usr/mgmt.c`` (1.0.85).
"""

from __future__ import annotations

import contextlib
import enum
import errno
import os
import socket
import struct
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path

from lunport.core.errors import InvalidInput, TargetDaemonDown
from lunport.core.secret import Secret
from lunport.host.clock import Deadline
from lunport.host.process import EXHAUSTED

# struct tgtadm_req: mode, op, lld[64], len, tid, sid, lun, cid, host_no, device_type, ac_dir,
# pack, force; 80 bytes stand before the first 64-bit field, so native alignment adds nothing.
_REQUEST = struct.Struct("@ii64sIiQQIIIIII")
_ANSWER = struct.Struct("@II")
_CREDENTIALS = struct.Struct("@iII")
_MAX_PARAMETERS = 8 * 1024
_MAX_SUN_PATH = 107
_NO_TID = -1
_LLD = b"iscsi"
_CHUNK = 65536
_PATIENCE_S = 1.0


class Mode(enum.IntEnum):
    """What a request is about (``enum tgtadm_mode``)."""

    SYSTEM = 0
    TARGET = 1
    DEVICE = 2
    PORTAL = 3
    LLD = 4
    SESSION = 5
    CONNECTION = 6
    ACCOUNT = 7


class Op(enum.IntEnum):
    """What a request does (``enum tgtadm_op``)."""

    NEW = 0
    DELETE = 1
    SHOW = 2
    BIND = 3
    UNBIND = 4
    UPDATE = 5
    STATS = 6
    START = 7
    STOP = 8


class TgtStatus(enum.IntEnum):
    """What the daemon says of a request (``enum tgtadm_errno``)."""

    SUCCESS = 0
    UNKNOWN_ERROR = 1
    OUT_OF_MEMORY = 2
    NO_DRIVER = 3
    NO_TARGET = 4
    NO_LUN = 5
    NO_SESSION = 6
    NO_CONNECTION = 7
    NO_BINDING = 8
    TARGET_EXISTS = 9
    LUN_EXISTS = 10
    BINDING_EXISTS = 11
    ACL_EXISTS = 12
    NO_ACL = 13
    USER_EXISTS = 14
    NO_USER = 15
    TOO_MANY_USERS = 16
    INVALID_REQUEST = 17
    OUT_ACCOUNT_EXISTS = 18
    TARGET_ACTIVE = 19
    LUN_ACTIVE = 20
    DRIVER_ACTIVE = 21
    UNSUPPORTED_OPERATION = 22
    UNKNOWN_PARAMETER = 23
    REMOVAL_PREVENTED = 24


_SENTENCES = {
    TgtStatus.SUCCESS: "success",
    TgtStatus.UNKNOWN_ERROR: "tgtd gives no reason",
    TgtStatus.OUT_OF_MEMORY: "tgtd is out of memory",
    TgtStatus.NO_DRIVER: "tgtd has no iscsi driver",
    TgtStatus.NO_TARGET: "no such target",
    TgtStatus.NO_LUN: "no such logical unit",
    TgtStatus.NO_SESSION: "no such session",
    TgtStatus.NO_CONNECTION: "no such connection",
    TgtStatus.NO_BINDING: "no such binding",
    TgtStatus.TARGET_EXISTS: "the target id or name is in use",
    TgtStatus.LUN_EXISTS: "the logical unit is there already",
    TgtStatus.BINDING_EXISTS: "the binding is there already",
    TgtStatus.ACL_EXISTS: "the initiator is admitted already",
    TgtStatus.NO_ACL: "the initiator is not admitted",
    TgtStatus.USER_EXISTS: "the account is there already",
    TgtStatus.NO_USER: "no such account",
    TgtStatus.TOO_MANY_USERS: "too many accounts",
    TgtStatus.INVALID_REQUEST: "tgtd refuses the request",
    TgtStatus.OUT_ACCOUNT_EXISTS: "the target has an outgoing account already",
    TgtStatus.TARGET_ACTIVE: "the target has sessions",
    TgtStatus.LUN_ACTIVE: "the logical unit has commands in flight",
    TgtStatus.DRIVER_ACTIVE: "the driver has targets",
    TgtStatus.UNSUPPORTED_OPERATION: "tgtd does not support the operation",
    TgtStatus.UNKNOWN_PARAMETER: "tgtd does not know a parameter",
    TgtStatus.REMOVAL_PREVENTED: "an initiator prevents the removal",
}


@dataclass(frozen=True, slots=True)
class Answer:
    """What the daemon said; ``pid`` is the process that listens on the socket."""

    status: TgtStatus
    text: str
    pid: int

    @property
    def sentence(self) -> str:
        """Say the status in words."""
        return _SENTENCES[self.status]


_NUMBERS = frozenset(TgtStatus)


class Direction(enum.IntEnum):
    """Who proves itself with an account (``enum tgtadm_account_dir``)."""

    INCOMING = 0
    OUTGOING = 1


_NOTHING_TO_DO = _REQUEST.pack(
    *(Mode.PORTAL, Op.SHOW, _LLD, _REQUEST.size, _NO_TID, 0, 0, 0, 0, 0, 0, 0, 0)
)


class TgtSocket:
    """The management socket of one tgtd. Holds no connection; safe to use from any thread.

    A daemon that did not answer in time gets little time from then on, until it answers: so
    one that hangs does not hold up everybody who asks for something.
    """

    def __init__(self, path: Path) -> None:
        self.path = path
        self._is_silent = False

    def call(
        self,
        mode: Mode,
        op: Op,
        deadline: Deadline,
        *,
        tid: int = _NO_TID,
        lun: int = 0,
        sid: int = 0,
        cid: int = 0,
        direction: Direction = Direction.INCOMING,
        force: bool = False,
        parameters: bytes = b"",
    ) -> Answer:
        """Make one request.

        Raises: TargetDaemonDown (not there, hung, or it broke off); InvalidInput (too long).
        """
        tail = parameters + b"\0" if parameters else b""
        if len(tail) > _MAX_PARAMETERS:
            raise InvalidInput("tgtd request", f"{len(tail)} bytes", "at most 8 KiB fit")
        header = _REQUEST.pack(
            mode, op, _LLD, _REQUEST.size + len(tail), tid, sid, lun, cid, 0, 0, direction, 0, force
        )
        if self._is_silent:
            deadline = deadline.at_most(_PATIENCE_S)
        try:
            with _connect(self.path, deadline) as connection:
                connection.sendall(header + tail)
                answer = _receive(connection, deadline)
                self._is_silent = False
                return answer
        except (BlockingIOError, TimeoutError):
            self._is_silent = True
            detail = f"no answer within {deadline.budget_s:.1f} s"
            raise TargetDaemonDown(f"tgtd at {self.path}", detail) from None
        except OSError as error:
            detail = _explain(error)
            raise TargetDaemonDown(f"tgtd at {self.path}", detail) from error

    def peer_pid(self, deadline: Deadline) -> int | None:
        """Return the id of the process that listens on the socket; None when nobody does.

        The kernel says it (``SO_PEERCRED``), so a daemon that hangs is found as well.
        Raises: OSError (one of ``EXHAUSTED``: nobody knows).
        """
        try:
            with _connect(self.path, deadline) as connection:
                pid = _peer_pid(connection)
                # Quirk(tgt): a connection that is closed before a request was sent is taken for
                # one that has yet to send it, when the daemon's last errno is EAGAIN, as it is
                # while initiators work: it stays open for ever, and is read in a busy loop
                # (usr/mgmt.c, mtask_recv_send_handler). So a request it is, whose answer nobody
                # waits for: it closes when it can't send that.
                with contextlib.suppress(OSError):
                    connection.sendall(_NOTHING_TO_DO)
                return pid
        except OSError as error:
            if error.errno in EXHAUSTED:
                raise
            return None


def format_parameters(**values: str | int | Path | Secret) -> bytes:
    """Write ``key=value,key=value``. The protocol has no quoting, so a comma is refused.

    A secret may contain anything but must come last: tgtd reads it to the end.
    Raises: InvalidInput.
    """
    pairs = []
    last = list(values)[-1]
    for key, value in values.items():
        if isinstance(value, Secret):
            if key != last:
                raise TypeError("a secret comes last")
            text = value.reveal()
        else:
            text = str(value)
            if "," in text:
                raise InvalidInput(key, text, "tgtd has no way to take a comma")
        if "\0" in text or "\n" in text:
            raise InvalidInput(key, "***", "NUL and newline cannot be sent to tgtd")
        pairs.append(f"{key}={text}")
    return ",".join(pairs).encode("utf-8", "surrogateescape")


@contextlib.contextmanager
def reachable(path: Path) -> Iterator[str]:
    """Give a name for a socket that is short enough, however long its path is.

    A unix address holds 107 bytes. A longer path is reached through an open descriptor of
    its folder: ``/proc/PID/fd/N/socket``, which a child of ours may use as well, as long as
    the context lasts.
    """
    direct = os.fspath(path)
    if len(os.fsencode(direct)) <= _MAX_SUN_PATH:
        yield direct
        return
    folder = os.open(path.parent, os.O_PATH | os.O_DIRECTORY | os.O_CLOEXEC)
    try:
        yield f"/proc/{os.getpid()}/fd/{folder}/{path.name}"
    finally:
        os.close(folder)


@contextlib.contextmanager
def _connect(path: Path, deadline: Deadline) -> Iterator[socket.socket]:
    connection = socket.socket(socket.AF_UNIX, socket.SOCK_STREAM | socket.SOCK_CLOEXEC)
    try:
        # The kernel's own timeouts: a Python timeout would cost a poll for every call.
        limit = _timeval(deadline)
        connection.setsockopt(socket.SOL_SOCKET, socket.SO_SNDTIMEO, limit)
        connection.setsockopt(socket.SOL_SOCKET, socket.SO_RCVTIMEO, limit)
        with reachable(path) as name:
            connection.connect(name)
        yield connection
    finally:
        connection.close()


def _receive(connection: socket.socket, deadline: Deadline) -> Answer:
    received = bytearray()
    wanted = _ANSWER.size
    while len(received) < wanted:
        chunk = connection.recv(_CHUNK)
        if not chunk:
            raise ConnectionResetError(errno.ECONNRESET, "it closed the connection")
        received += chunk
        if len(received) >= _ANSWER.size:
            wanted = max(_ANSWER.size, _ANSWER.unpack_from(received)[1])
        if deadline.has_passed() and len(received) < wanted:
            raise TimeoutError
    number = _ANSWER.unpack_from(received)[0]
    status = TgtStatus(number) if number in _NUMBERS else TgtStatus.UNKNOWN_ERROR
    text = received[_ANSWER.size : wanted].decode("utf-8", "surrogateescape")
    return Answer(status, text.rstrip("\0"), _peer_pid(connection))


def _peer_pid(connection: socket.socket) -> int:
    raw = connection.getsockopt(socket.SOL_SOCKET, socket.SO_PEERCRED, _CREDENTIALS.size)
    pid: int = _CREDENTIALS.unpack(raw)[0]
    return pid


def _timeval(deadline: Deadline) -> bytes:
    microseconds = max(1000, int(deadline.remaining_s() * 1_000_000))
    return struct.pack("@ll", *divmod(microseconds, 1_000_000))


def _explain(error: OSError) -> str:
    if error.errno in (errno.ENOENT, errno.ECONNREFUSED):
        return "nobody listens on its management socket"
    if error.errno in (errno.ECONNRESET, errno.EPIPE):
        return "it broke the request off (it died, or runs as another user)"
    return error.strerror or str(error)
