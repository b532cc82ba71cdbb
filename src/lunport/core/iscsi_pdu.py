r"""The few iSCSI PDUs that a probe needs, encoded and decoded in both directions.

Login, Text, SCSI command and response, Data-In, Logout, NOP, Reject and Async (RFC 7143
section 11). A PDU is a 48 byte header, optional additional header segments, and a data
segment padded to four bytes:

    01 23 45 67 ...           48 bytes: opcode, flags, lengths, ITT, then the opcode's own
    key=value\0key=value\0     DataSegmentLength bytes, then 0-3 bytes of padding

No digests: a probe never negotiates any. Never reads a socket, never chooses a tag, an ISID
or a challenge. Whatever bytes come in, the only error that goes out is PduError.
"""

from __future__ import annotations

import struct
from collections.abc import Callable
from dataclasses import dataclass

from lunport.core.errors import LunportError

HEADER_LENGTH = 48
MAX_DATA_LENGTH = 64 * 1024
NO_TAG = 0xFFFFFFFF

OP_NOP_OUT = 0x00
OP_SCSI_COMMAND = 0x01
OP_LOGIN_REQUEST = 0x03
OP_TEXT_REQUEST = 0x04
OP_LOGOUT_REQUEST = 0x06
OP_NOP_IN = 0x20
OP_SCSI_RESPONSE = 0x21
OP_LOGIN_RESPONSE = 0x23
OP_TEXT_RESPONSE = 0x24
OP_DATA_IN = 0x25
OP_LOGOUT_RESPONSE = 0x26
OP_ASYNC = 0x32
OP_REJECT = 0x3F

STAGE_SECURITY = 0
STAGE_OPERATIONAL = 1
STAGE_FULL_FEATURE = 3

_IMMEDIATE = 0x40
_FINAL = 0x80
_CONTINUE = 0x40
_READ = 0x40
_UNDERFLOW = 0x02
_OVERFLOW = 0x04
_STATUS = 0x01
_SIMPLE_TASK = 0x01


class PduError(LunportError):
    """Bytes that are not what the peer should have sent."""

    def __init__(self, what: str) -> None:
        super().__init__(what)
        self.what = what

    def __str__(self) -> str:
        return f"not valid iSCSI: {self.what}"


@dataclass(frozen=True, slots=True)
class Lengths:
    """What follows a header on the wire: additional headers, data, and padding."""

    extra: int
    data: int

    @property
    def rest(self) -> int:
        """Return how many bytes to read after the header."""
        return self.extra + self.data + (-self.data % 4)


@dataclass(frozen=True, slots=True)
class LoginRequest:
    """Section 11.12. ``isid`` has 6 bytes and is the caller's choice."""

    isid: bytes
    tag: int
    cmd_sn: int
    exp_stat_sn: int
    stage: int
    next_stage: int
    transit: bool
    keys: bytes = b""
    continues: bool = False
    tsih: int = 0
    cid: int = 0

    def encode(self) -> bytes:
        """Encode; a login is always sent as an immediate command."""
        flags = _stage_flags(self.stage, self.next_stage, self.transit, self.continues)
        tail = struct.pack(">H2xII16x", self.cid, self.cmd_sn, self.exp_stat_sn)
        head = struct.pack(">BB2x", OP_LOGIN_REQUEST | _IMMEDIATE, flags)
        session = self.isid + struct.pack(">HI", self.tsih, self.tag)
        return _assemble(head, session + tail, self.keys)


@dataclass(frozen=True, slots=True)
class LoginResponse:
    """Section 11.13. ``status`` is class and detail as one number: 0x0203."""

    isid: bytes
    tsih: int
    tag: int
    stat_sn: int
    exp_cmd_sn: int
    max_cmd_sn: int
    status: int
    stage: int
    next_stage: int
    transit: bool
    keys: bytes = b""
    continues: bool = False

    def encode(self) -> bytes:
        """Encode as a target does."""
        flags = _stage_flags(self.stage, self.next_stage, self.transit, self.continues)
        head = struct.pack(">BB2x", OP_LOGIN_RESPONSE, flags)
        session = self.isid + struct.pack(">HI4x", self.tsih, self.tag)
        numbers = (self.stat_sn, self.exp_cmd_sn, self.max_cmd_sn, self.status)
        return _assemble(head, session + struct.pack(">IIIH10x", *numbers), self.keys)


@dataclass(frozen=True, slots=True)
class TextRequest:
    """Section 11.10. ``transfer_tag`` continues an answer that came in parts."""

    tag: int
    transfer_tag: int
    cmd_sn: int
    exp_stat_sn: int
    keys: bytes = b""

    def encode(self) -> bytes:
        """Encode as one whole, final request."""
        numbers = (self.tag, self.transfer_tag, self.cmd_sn, self.exp_stat_sn)
        head = struct.pack(">BB2x", OP_TEXT_REQUEST, _FINAL)
        return _assemble(head, struct.pack(">8xIIII16x", *numbers), self.keys)


@dataclass(frozen=True, slots=True)
class TextResponse:
    """Section 11.11."""

    tag: int
    transfer_tag: int
    stat_sn: int
    final: bool
    keys: bytes = b""
    continues: bool = False

    def encode(self) -> bytes:
        """Encode as a target does."""
        flags = _FINAL * self.final | _CONTINUE * self.continues
        head = struct.pack(">BB2x", OP_TEXT_RESPONSE, flags)
        numbers = (self.tag, self.transfer_tag, self.stat_sn)
        return _assemble(head, struct.pack(">8xIII20x", *numbers), self.keys)


@dataclass(frozen=True, slots=True)
class ScsiCommand:
    """Section 11.3: a command that reads ``expected`` bytes, or none.

    ``lun`` is the field of eight bytes as :mod:`lunport.core.scsi_address` writes it.
    """

    lun: bytes
    tag: int
    cmd_sn: int
    exp_stat_sn: int
    cdb: bytes
    expected: int

    def encode(self) -> bytes:
        """Encode with the simple task attribute."""
        flags = _FINAL | _SIMPLE_TASK | (_READ if self.expected else 0)
        head = struct.pack(">BB2x", OP_SCSI_COMMAND, flags)
        numbers = (self.tag, self.expected, self.cmd_sn, self.exp_stat_sn)
        fields = struct.pack(">IIII16s", *numbers, self.cdb)
        return _assemble(head, self.lun + fields, b"")


@dataclass(frozen=True, slots=True)
class ScsiResponse:
    """Section 11.4. ``response`` 0 means the target ran the command; ``sense`` is bare."""

    tag: int
    stat_sn: int
    response: int
    status: int
    residual: int = 0
    underflow: bool = False
    sense: bytes = b""

    def encode(self) -> bytes:
        """Encode as a target does."""
        flags = _FINAL | _UNDERFLOW * self.underflow
        head = struct.pack(">BBBB", OP_SCSI_RESPONSE, flags, self.response, self.status)
        numbers = (self.tag, self.stat_sn, self.residual)
        data = struct.pack(">H", len(self.sense)) + self.sense if self.sense else b""
        return _assemble(head, struct.pack(">8xI4xI16xI", *numbers), data)


@dataclass(frozen=True, slots=True)
class DataIn:
    """Section 11.7. ``status`` is None unless the PDU carries the command's status."""

    tag: int
    stat_sn: int
    offset: int
    data: bytes
    status: int | None
    final: bool = True

    def encode(self) -> bytes:
        """Encode as a target does."""
        has_status = self.status is not None
        flags = _FINAL * self.final | _STATUS * has_status
        head = struct.pack(">BBBB", OP_DATA_IN, flags, 0, self.status or 0)
        numbers = (self.tag, NO_TAG, self.stat_sn, self.offset)
        return _assemble(head, struct.pack(">8xIII12xI4x", *numbers), self.data)


@dataclass(frozen=True, slots=True)
class LogoutRequest:
    """Section 11.14: close the session."""

    tag: int
    cmd_sn: int
    exp_stat_sn: int

    def encode(self) -> bytes:
        """Encode as an immediate command, so that it passes a closed command window."""
        head = struct.pack(">BB2x", OP_LOGOUT_REQUEST | _IMMEDIATE, _FINAL)
        numbers = (self.tag, self.cmd_sn, self.exp_stat_sn)
        return _assemble(head, struct.pack(">8xI4xII16x", *numbers), b"")


@dataclass(frozen=True, slots=True)
class LogoutResponse:
    """Section 11.15."""

    tag: int
    stat_sn: int
    response: int

    def encode(self) -> bytes:
        """Encode as a target does."""
        head = struct.pack(">BBB1x", OP_LOGOUT_RESPONSE, _FINAL, self.response)
        return _assemble(head, struct.pack(">8xI4xI20x", self.tag, self.stat_sn), b"")


@dataclass(frozen=True, slots=True)
class NopIn:
    """Section 11.19. With a transfer tag it asks for an answer."""

    tag: int
    transfer_tag: int
    stat_sn: int
    lun: bytes = bytes(8)

    def encode(self) -> bytes:
        """Encode as a target does."""
        head = struct.pack(">BB2x", OP_NOP_IN, _FINAL)
        numbers = (self.tag, self.transfer_tag, self.stat_sn)
        return _assemble(head, self.lun + struct.pack(">III20x", *numbers), b"")


@dataclass(frozen=True, slots=True)
class NopOut:
    """Section 11.18: the answer to a target's NOP-In."""

    transfer_tag: int
    cmd_sn: int
    exp_stat_sn: int
    lun: bytes = bytes(8)

    def encode(self) -> bytes:
        """Encode as an immediate command that wants no answer."""
        head = struct.pack(">BB2x", OP_NOP_OUT | _IMMEDIATE, _FINAL)
        numbers = (NO_TAG, self.transfer_tag, self.cmd_sn, self.exp_stat_sn)
        return _assemble(head, self.lun + struct.pack(">IIII16x", *numbers), b"")


@dataclass(frozen=True, slots=True)
class Reject:
    """Section 11.17: the target could not take a PDU of ours."""

    reason: int
    stat_sn: int
    rejected: bytes = b""

    def encode(self) -> bytes:
        """Encode as a target does."""
        head = struct.pack(">BBB1x", OP_REJECT, _FINAL, self.reason)
        return _assemble(head, struct.pack(">8xI4xI20x", NO_TAG, self.stat_sn), self.rejected)


@dataclass(frozen=True, slots=True)
class AsyncMessage:
    """Section 11.9. Event 0 is SCSI sense; 1 asks for a logout; 2 and 3 announce a drop."""

    event: int
    stat_sn: int

    def encode(self) -> bytes:
        """Encode as a target does."""
        head = struct.pack(">BB2x", OP_ASYNC, _FINAL)
        return _assemble(head, struct.pack(">8xI4xI8xB11x", NO_TAG, self.stat_sn, self.event), b"")


TargetPdu = (
    LoginResponse
    | TextResponse
    | ScsiResponse
    | DataIn
    | LogoutResponse
    | NopIn
    | Reject
    | AsyncMessage
)
InitiatorPdu = LoginRequest | TextRequest | ScsiCommand | LogoutRequest | NopOut


def decode_lun(field: bytes) -> int:
    """Decode the first level of a LUN field, however it is addressed."""
    return (field[0] & 0x3F) << 8 | field[1]


def parse_lengths(header: bytes, *, max_data: int = MAX_DATA_LENGTH) -> Lengths:
    """Read from a header how much follows it.

    Raises: PduError, also for a data segment longer than ``max_data``.
    """
    if len(header) != HEADER_LENGTH:
        raise PduError(f"a header of {len(header)} bytes")
    lengths = Lengths(header[4] * 4, int.from_bytes(header[5:8]))
    if lengths.data > max_data:
        raise PduError(f"a data segment of {lengths.data} bytes, more than {max_data}")
    return lengths


def decode_target_pdu(pdu: bytes) -> TargetPdu:
    """Decode one whole PDU that a target sent. Raises: PduError."""
    header, data = _split(pdu)
    decoder = _FROM_TARGET.get(header[0] & 0x3F)
    if decoder is None:
        raise PduError(f"opcode {header[0] & 0x3F:#04x}, which a target must not send here")
    return decoder(header, data)


def decode_initiator_pdu(pdu: bytes) -> InitiatorPdu:
    """Decode one whole PDU that an initiator sent. Raises: PduError."""
    header, data = _split(pdu)
    decoder = _FROM_INITIATOR.get(header[0] & 0x3F)
    if decoder is None:
        raise PduError(f"opcode {header[0] & 0x3F:#04x}, which is not spoken here")
    return decoder(header, data)


def _assemble(head: bytes, fields: bytes, data: bytes) -> bytes:
    header = head + len(data).to_bytes(4) + fields
    assert len(header) == HEADER_LENGTH
    return header + data + bytes(-len(data) % 4)


def _split(pdu: bytes) -> tuple[bytes, bytes]:
    header = pdu[:HEADER_LENGTH]
    lengths = parse_lengths(header)
    if len(pdu) != HEADER_LENGTH + lengths.rest:
        raise PduError(f"{len(pdu)} bytes where {HEADER_LENGTH + lengths.rest} were announced")
    start = HEADER_LENGTH + lengths.extra
    return header, pdu[start : start + lengths.data]


def _stage_flags(stage: int, next_stage: int, transit: bool, continues: bool) -> int:
    return _FINAL * transit | _CONTINUE * continues | stage << 2 | (next_stage if transit else 0)


def _word(header: bytes, offset: int) -> int:
    return int.from_bytes(header[offset : offset + 4])


def _half(header: bytes, offset: int) -> int:
    return int.from_bytes(header[offset : offset + 2])


def _stages(flags: int) -> tuple[int, int, bool, bool]:
    transit = bool(flags & _FINAL)
    return flags >> 2 & 3, flags & 3 if transit else 0, transit, bool(flags & _CONTINUE)


def _login_request(header: bytes, data: bytes) -> LoginRequest:
    stage, next_stage, transit, continues = _stages(header[1])
    return LoginRequest(
        isid=header[8:14],
        tsih=_half(header, 14),
        tag=_word(header, 16),
        cid=_half(header, 20),
        cmd_sn=_word(header, 24),
        exp_stat_sn=_word(header, 28),
        stage=stage,
        next_stage=next_stage,
        transit=transit,
        continues=continues,
        keys=data,
    )


def _login_response(header: bytes, data: bytes) -> LoginResponse:
    stage, next_stage, transit, continues = _stages(header[1])
    return LoginResponse(
        isid=header[8:14],
        tsih=_half(header, 14),
        tag=_word(header, 16),
        stat_sn=_word(header, 24),
        exp_cmd_sn=_word(header, 28),
        max_cmd_sn=_word(header, 32),
        status=_half(header, 36),
        stage=stage,
        next_stage=next_stage,
        transit=transit,
        continues=continues,
        keys=data,
    )


def _text_request(header: bytes, data: bytes) -> TextRequest:
    tags = _word(header, 16), _word(header, 20)
    return TextRequest(*tags, _word(header, 24), _word(header, 28), data)


def _text_response(header: bytes, data: bytes) -> TextResponse:
    tags = _word(header, 16), _word(header, 20)
    final, continues = bool(header[1] & _FINAL), bool(header[1] & _CONTINUE)
    return TextResponse(*tags, _word(header, 24), final, data, continues)


def _scsi_command(header: bytes, _data: bytes) -> ScsiCommand:
    return ScsiCommand(
        lun=header[8:16],
        tag=_word(header, 16),
        expected=_word(header, 20) if header[1] & _READ else 0,
        cmd_sn=_word(header, 24),
        exp_stat_sn=_word(header, 28),
        cdb=header[32:48],
    )


def _scsi_response(header: bytes, data: bytes) -> ScsiResponse:
    sense = b""
    if data:
        length = _half(data, 0)
        if len(data) < 2 + length:
            raise PduError(f"sense of {length} bytes in a data segment of {len(data)}")
        sense = data[2 : 2 + length]
    has_residual = header[1] & (_UNDERFLOW | _OVERFLOW)
    return ScsiResponse(
        tag=_word(header, 16),
        stat_sn=_word(header, 24),
        response=header[2],
        status=header[3],
        residual=_word(header, 44) if has_residual else 0,
        underflow=bool(header[1] & _UNDERFLOW),
        sense=sense,
    )


def _data_in(header: bytes, data: bytes) -> DataIn:
    return DataIn(
        tag=_word(header, 16),
        stat_sn=_word(header, 24),
        offset=_word(header, 40),
        data=data,
        status=header[3] if header[1] & _STATUS else None,
        final=bool(header[1] & _FINAL),
    )


def _logout_request(header: bytes, _data: bytes) -> LogoutRequest:
    return LogoutRequest(_word(header, 16), _word(header, 24), _word(header, 28))


def _logout_response(header: bytes, _data: bytes) -> LogoutResponse:
    return LogoutResponse(_word(header, 16), _word(header, 24), header[2])


def _nop_in(header: bytes, _data: bytes) -> NopIn:
    return NopIn(_word(header, 16), _word(header, 20), _word(header, 24), header[8:16])


def _nop_out(header: bytes, _data: bytes) -> NopOut:
    return NopOut(_word(header, 20), _word(header, 24), _word(header, 28), header[8:16])


def _reject(header: bytes, data: bytes) -> Reject:
    return Reject(header[2], _word(header, 24), data)


def _async(header: bytes, _data: bytes) -> AsyncMessage:
    return AsyncMessage(header[36], _word(header, 24))


_FROM_TARGET: dict[int, Callable[[bytes, bytes], TargetPdu]] = {
    OP_LOGIN_RESPONSE: _login_response,
    OP_TEXT_RESPONSE: _text_response,
    OP_SCSI_RESPONSE: _scsi_response,
    OP_DATA_IN: _data_in,
    OP_LOGOUT_RESPONSE: _logout_response,
    OP_NOP_IN: _nop_in,
    OP_REJECT: _reject,
    OP_ASYNC: _async,
}
_FROM_INITIATOR: dict[int, Callable[[bytes, bytes], InitiatorPdu]] = {
    OP_LOGIN_REQUEST: _login_request,
    OP_TEXT_REQUEST: _text_request,
    OP_SCSI_COMMAND: _scsi_command,
    OP_LOGOUT_REQUEST: _logout_request,
    OP_NOP_OUT: _nop_out,
}
