"""A small iSCSI target that misbehaves as told, for what no real target can be made to show.

It listens on loopback, serves each connection in a thread, and speaks just enough to be
probed: login with CHAP, SendTargets, INQUIRY, TEST UNIT READY, READ CAPACITY, logout. What it
does wrong is in its :class:`Manners`. What it saw is in its attributes, for tests to look at.
"""

from __future__ import annotations

import contextlib
import socket
import struct
import threading
from dataclasses import dataclass, field, replace
from types import TracebackType
from typing import Self

from lunport.core.chap import Chap
from lunport.core.chap_exchange import (
    answer_challenge,
    format_binary,
    is_right_answer,
    parse_binary,
)
from lunport.core.iscsi_pdu import (
    HEADER_LENGTH,
    NO_TAG,
    STAGE_OPERATIONAL,
    STAGE_SECURITY,
    AsyncMessage,
    DataIn,
    InitiatorPdu,
    LoginRequest,
    LoginResponse,
    LogoutRequest,
    LogoutResponse,
    NopIn,
    NopOut,
    Reject,
    ScsiCommand,
    ScsiResponse,
    TextRequest,
    TextResponse,
    decode_initiator_pdu,
    decode_lun,
    parse_lengths,
)
from lunport.core.iscsi_text import decode_keys, encode_keys
from lunport.core.portal import Portal
from lunport.core.wwid import Wwid

CHALLENGE = bytes(range(16))
WWID = Wwid("naa.60014050000000000000000000000001")
BLOCKS = 32768
_UNIT_ATTENTION = bytes.fromhex("70000600000000060000000029000000")
_NOT_READY = bytes.fromhex("70000200000000060000000004010000")
_ILLEGAL = bytes.fromhex("70000500000000060000000020000000")


@dataclass(frozen=True, slots=True)
class Manners:
    """How the target behaves; all defaults together are a healthy one without CHAP.

    ``raw``: bytes to answer the first request with. ``hang_at``: fall silent when asked for
    the ``connect``, ``login``, ``command`` or ``logout``. ``delay_s``: answer a login late.
    ``mutual``: the target's proof is ``right``, ``wrong`` or ``none``.
    """

    hang_at: str = ""
    close_at: str = ""
    raw: bytes = b""
    delay_s: float = 0.0
    login_status: int = 0
    redirect_to: str = ""
    chap: Chap | None = None
    algorithm: str = "5"
    encoding: str = "hex"
    mutual: str = "right"
    offers: tuple[tuple[str, str], ...] = ()
    tpgt: str = ""
    is_split: bool = False
    targets: tuple[tuple[str, str], ...] = ()
    first_byte: int = 0x00
    wwid: Wwid | None = WWID
    unit_attentions: int = 0
    status: int = 0
    is_not_ready: bool = False
    has_capacity_16: bool = True
    interjects: bool = False
    asks_to_leave: bool = False
    rejects: bool = False


@dataclass(slots=True)
class _Connection:
    """One initiator's connection and where it stands."""

    socket: socket.socket
    stat_sn: int = 0
    rounds: int = 0
    is_authenticated: bool = False
    has_offered: bool = False
    received: bytearray = field(default_factory=bytearray)


class FakeTarget:
    """A listening target; use as a context manager."""

    def __init__(self, manners: Manners | None = None, host: str = "127.0.0.1") -> None:
        self.manners = manners or Manners()
        family = socket.AF_INET6 if ":" in host else socket.AF_INET
        self._listener = socket.create_server((host, 0), family=family, backlog=64)
        self.portal = Portal(host, self._listener.getsockname()[1])
        self.isids: list[bytes] = []
        self.login_keys: list[tuple[str, str]] = []
        self.lun_fields: list[bytes] = []
        self.connections = 0
        self.logouts = 0
        self.nop_outs = 0
        self.is_open = 0
        self._stopped = threading.Event()
        self._lock = threading.Lock()
        self._threads: list[threading.Thread] = []
        self._sockets: set[socket.socket] = set()

    def __enter__(self) -> Self:
        self._spawn(self._accept)
        return self

    def __exit__(
        self,
        kind: type[BaseException] | None,
        error: BaseException | None,
        trace: TracebackType | None,
    ) -> None:
        self._stopped.set()
        with contextlib.suppress(OSError):
            self._listener.shutdown(socket.SHUT_RDWR)
        self._listener.close()
        with self._lock:
            sockets = list(self._sockets)
        for one in sockets:
            with contextlib.suppress(OSError):
                one.shutdown(socket.SHUT_RDWR)
        for thread in self._threads:
            thread.join()

    @property
    def luns(self) -> list[int]:
        """The LUN of each command so far."""
        return [decode_lun(field) for field in self.lun_fields]

    def wait_until_left(self, timeout_s: float = 5.0) -> bool:
        """Wait until no initiator is connected any more."""
        pause = threading.Event()
        for _ in range(int(timeout_s / 0.01)):
            if self.is_open == 0:
                return True
            pause.wait(0.01)
        return False

    def _spawn(self, work: object, *arguments: object) -> None:
        assert callable(work)
        thread = threading.Thread(target=work, args=arguments, name="fake-target")
        self._threads.append(thread)
        thread.start()

    def _accept(self) -> None:
        while not self._stopped.is_set():
            try:
                accepted, _ = self._listener.accept()
            except OSError:
                return
            with self._lock:
                self.connections += 1
                self.is_open += 1
                self._sockets.add(accepted)
            self._spawn(self._serve, accepted)

    def _serve(self, accepted: socket.socket) -> None:
        try:
            with accepted, contextlib.suppress(OSError, EOFError):
                self._talk(_Connection(accepted))
        finally:
            with self._lock:
                self._sockets.discard(accepted)
                self.is_open -= 1

    def _talk(self, connection: _Connection) -> None:
        if not self._goes_on(connection, "connect"):
            return
        while not self._stopped.is_set():
            request = self._receive(connection)
            if self.manners.raw:
                connection.socket.sendall(self.manners.raw)
                self._read(connection, 1)
                return
            if not self._answer(connection, request):
                return

    def _goes_on(self, connection: _Connection, at: str) -> bool:
        """Do what the manners say for this point: hang, close, or go on."""
        if self.manners.hang_at == at:
            while connection.socket.recv(65536):
                continue
            return False
        if self.manners.close_at == at:
            linger = struct.pack("ii", 1, 0)
            connection.socket.setsockopt(socket.SOL_SOCKET, socket.SO_LINGER, linger)
            return False
        return True

    def _answer(self, connection: _Connection, request: InitiatorPdu) -> bool:
        if isinstance(request, LoginRequest):
            return self._login(connection, request)
        if isinstance(request, LogoutRequest):
            if self._goes_on(connection, "logout"):
                self.logouts += 1
                reply = LogoutResponse(request.tag, self._stat_sn(connection), 0)
                connection.socket.sendall(reply.encode())
            return False
        if isinstance(request, NopOut):
            self.nop_outs += 1
            return True
        if not self._goes_on(connection, "command"):
            return False
        self._interject(connection)
        if self.manners.rejects:
            connection.socket.sendall(Reject(0x05, self._stat_sn(connection)).encode())
        elif isinstance(request, TextRequest):
            self._send_targets(connection, request)
        else:
            self._run(connection, request)
        return True

    def _interject(self, connection: _Connection) -> None:
        if self.manners.interjects:
            ping = NopIn(NO_TAG, 0x77, connection.stat_sn)
            sense = AsyncMessage(0, self._stat_sn(connection))
            connection.socket.sendall(ping.encode() + sense.encode())
        if self.manners.asks_to_leave:
            connection.socket.sendall(AsyncMessage(1, self._stat_sn(connection)).encode())

    # -- login -----------------------------------------------------------------------------

    def _login(self, connection: _Connection, request: LoginRequest) -> bool:
        manners = self.manners
        connection.rounds += 1
        keys = dict(decode_keys(request.keys))
        self.login_keys += keys.items()
        if connection.rounds == 1:
            self.isids.append(request.isid)
            self._stopped.wait(manners.delay_s)
        if not self._goes_on(connection, "login"):
            return False
        if manners.redirect_to:
            moved = encode_keys([("TargetAddress", manners.redirect_to)])
            self._respond(connection, request, moved, status=0x0101)
            return False
        if manners.login_status:
            self._respond(connection, request, b"", status=manners.login_status)
            return False
        if request.stage == STAGE_SECURITY and connection.is_authenticated:
            self._respond(connection, request, b"")
            return True
        if request.stage == STAGE_SECURITY and manners.chap is not None:
            return self._authenticate(connection, request, keys, manners.chap)
        if request.stage == STAGE_SECURITY:
            group = [("TargetPortalGroupTag", manners.tpgt)] if manners.tpgt else []
            self._respond(connection, request, encode_keys([("AuthMethod", "None"), *group]))
            return True
        if manners.offers and not connection.has_offered:
            connection.has_offered = True
            self._respond(connection, request, encode_keys(manners.offers), transit=False)
            return True
        self._respond(connection, request, encode_keys([("MaxRecvDataSegmentLength", "8192")]))
        return True

    def _authenticate(
        self, connection: _Connection, request: LoginRequest, keys: dict[str, str], chap: Chap
    ) -> bool:
        if "CHAP_R" in keys:
            return self._judge(connection, request, keys, chap)
        if "CHAP_A" in keys:
            challenge = format_binary(CHALLENGE)
            if self.manners.encoding == "base64":
                challenge = "0bAAECAwQFBgcICQoLDA0ODw=="
            answer = [("CHAP_A", self.manners.algorithm), ("CHAP_I", "7"), ("CHAP_C", challenge)]
            self._respond(connection, request, encode_keys(answer), transit=False)
            return True
        if "CHAP" not in keys.get("AuthMethod", "CHAP"):
            self._respond(connection, request, b"", status=0x0201)
            return False
        answer = [("AuthMethod", "CHAP"), ("TargetPortalGroupTag", "1")]
        self._respond(connection, request, encode_keys(answer), transit=False)
        return True

    def _judge(
        self, connection: _Connection, request: LoginRequest, keys: dict[str, str], chap: Chap
    ) -> bool:
        algorithm, response = self.manners.algorithm, parse_binary(keys["CHAP_R"])
        known = chap.initiator
        right = is_right_answer(algorithm, 7, known.password, CHALLENGE, response)
        if not right or keys["CHAP_N"] != known.username:
            self._respond(connection, request, b"", status=0x0201)
            return False
        answer: list[tuple[str, str]] = []
        if "CHAP_C" in keys and chap.mutual is not None and self.manners.mutual != "none":
            secret = known.password if self.manners.mutual == "wrong" else chap.mutual.password
            challenge, identifier = parse_binary(keys["CHAP_C"]), int(keys["CHAP_I"])
            proof = answer_challenge(algorithm, identifier, secret, challenge)
            answer = [("CHAP_N", chap.mutual.username), ("CHAP_R", format_binary(proof))]
        connection.is_authenticated = True
        self._respond(connection, request, encode_keys(answer))
        return True

    def _respond(
        self,
        connection: _Connection,
        request: LoginRequest,
        keys: bytes,
        *,
        status: int = 0,
        transit: bool | None = None,
    ) -> None:
        goes_on = request.transit if transit is None else transit
        first, last = keys, b""
        if self.manners.is_split and request.keys and len(keys) > 4 and status == 0:
            first, last = keys[:-4], keys[-4:]
            part = self._response(connection, request, first, status, transit=False, more=True)
            connection.socket.sendall(part.encode())
            request_for_more = self._receive(connection)
            assert isinstance(request_for_more, LoginRequest)
            first, goes_on = last, False  # that request did not ask to go on
        whole = self._response(connection, request, first, status, transit=goes_on, more=False)
        connection.socket.sendall(whole.encode())

    def _response(
        self,
        connection: _Connection,
        request: LoginRequest,
        keys: bytes,
        status: int,
        *,
        transit: bool,
        more: bool,
    ) -> LoginResponse:
        following = STAGE_OPERATIONAL if request.stage == STAGE_SECURITY else 3
        return LoginResponse(
            isid=request.isid,
            tsih=1,
            tag=request.tag,
            stat_sn=self._stat_sn(connection),
            exp_cmd_sn=request.cmd_sn,
            max_cmd_sn=request.cmd_sn + 1,
            status=status,
            stage=request.stage,
            next_stage=following,
            transit=transit,
            keys=keys,
            continues=more,
        )

    # -- full feature phase ------------------------------------------------------------------

    def _send_targets(self, connection: _Connection, request: TextRequest) -> None:
        text = encode_keys(self.manners.targets)
        half = len(text) // 2 if self.manners.is_split else 0
        is_first = request.transfer_tag == NO_TAG
        if half and is_first:
            part = TextResponse(request.tag, 9, self._stat_sn(connection), False, text[:half])
            connection.socket.sendall(part.encode())
            return
        stat_sn = self._stat_sn(connection)
        reply = TextResponse(request.tag, NO_TAG, stat_sn, True, text[half:])
        connection.socket.sendall(reply.encode())

    def _run(self, connection: _Connection, command: ScsiCommand) -> None:
        self.lun_fields.append(command.lun)
        status, data, sense = self._execute(command)
        if status == 0 and data:
            half = len(data) // 2
            stat_sn = self._stat_sn(connection)
            parts = (
                DataIn(command.tag, 0, 0, data[:half], None, final=False),
                DataIn(command.tag, stat_sn, half, data[half:], 0),
            )
            connection.socket.sendall(b"".join(part.encode() for part in parts))
            return
        reply = ScsiResponse(command.tag, self._stat_sn(connection), 0, status, sense=sense)
        connection.socket.sendall(reply.encode())

    def _execute(self, command: ScsiCommand) -> tuple[int, bytes, bytes]:
        manners, code = self.manners, command.cdb[0]
        if code == 0x12 and command.cdb[1] == 0:
            return 0, bytes((manners.first_byte, *bytes(35))), b""
        if code == 0x12 and manners.wwid is not None:
            return 0, _page_83(manners.wwid)[: command.expected], b""
        if code == 0x12:
            return 2, b"", _ILLEGAL
        if manners.unit_attentions:
            self.manners = _with_one_less(manners)
            return 2, b"", _UNIT_ATTENTION
        if manners.status:
            return manners.status, b"", b""
        if manners.is_not_ready:
            return 2, b"", _NOT_READY
        if code == 0x00:
            return 0, b"", b""
        if code == 0x9E and manners.has_capacity_16:
            return 0, struct.pack(">QI20x", BLOCKS - 1, 512), b""
        if code == 0x25:
            return 0, struct.pack(">II", BLOCKS - 1, 512), b""
        return 2, b"", _ILLEGAL

    # -- wire --------------------------------------------------------------------------------

    def _stat_sn(self, connection: _Connection) -> int:
        connection.stat_sn += 1
        return connection.stat_sn

    def _receive(self, connection: _Connection) -> InitiatorPdu:
        header = self._read(connection, HEADER_LENGTH)
        return decode_initiator_pdu(header + self._read(connection, parse_lengths(header).rest))

    def _read(self, connection: _Connection, length: int) -> bytes:
        while len(connection.received) < length:
            more = connection.socket.recv(65536)
            if not more:
                raise EOFError
            connection.received += more
        taken = bytes(connection.received[:length])
        del connection.received[:length]
        return taken


def _with_one_less(manners: Manners) -> Manners:
    return replace(manners, unit_attentions=manners.unit_attentions - 1)


def _page_83(wwid: Wwid) -> bytes:
    value = bytes.fromhex(wwid.removeprefix("naa."))
    vendor = bytes((0x02, 0x01, 0x00, 8)) + b"LUNPORT "
    designators = vendor + bytes((0x01, 0x03, 0x00, len(value))) + value
    return bytes((0x00, 0x83)) + len(designators).to_bytes(2) + designators
