"""The few SCSI commands that tell which logical unit answers, and how large it is.

INQUIRY with pages 0x80 and 0x83, TEST UNIT READY, REPORT LUNS (SPC-5) and READ CAPACITY
(SBC-4): command blocks out, answers in. Identities are written as
``/sys/block/X/device/wwid`` shows them (drivers/scsi/scsi_lib.c, scsi_vpd_lun_id):

    naa.60014050123456789abcdef012345678    eui.0023456789abcdef    t10.VENDOR serial

Never talks to a device. Answers that make no sense raise PduError and nothing else.
"""

from __future__ import annotations

import enum
from collections.abc import Sequence
from dataclasses import dataclass

from lunport.core.errors import InvalidInput
from lunport.core.iscsi_pdu import PduError, decode_lun
from lunport.core.wwid import Wwid, parse_wwid

STATUS_GOOD = 0x00
STATUS_CHECK_CONDITION = 0x02
STATUS_BUSY = 0x08
STATUS_RESERVATION_CONFLICT = 0x18
STATUS_TASK_SET_FULL = 0x28

SENSE_NOT_READY = 0x02
SENSE_ILLEGAL_REQUEST = 0x05
SENSE_UNIT_ATTENTION = 0x06
ASC_LUN_NOT_SUPPORTED = 0x25

PAGE_SERIAL = 0x80
PAGE_IDENTIFICATION = 0x83
INQUIRY_LENGTH = 96
PAGE_LENGTH = 1024
REPORT_LUNS_LENGTH = 4096
CAPACITY_10_LENGTH = 8
CAPACITY_16_LENGTH = 32

_DISK = 0x00
_TOO_LARGE_FOR_10 = 0xFFFFFFFF


@dataclass(frozen=True, slots=True)
class Inquiry:
    """What a logical unit says it is. Qualifier 0 means it is there."""

    qualifier: int
    device_type: int

    @property
    def is_there(self) -> bool:
        """Tell whether a unit answers under this LUN at all."""
        return self.qualifier == 0

    @property
    def is_disk(self) -> bool:
        """Tell whether it is a direct access block device."""
        return self.is_there and self.device_type == _DISK


@dataclass(frozen=True, slots=True)
class Sense:
    """Why a command failed: sense key, additional code and qualifier."""

    key: int
    asc: int
    ascq: int

    def __str__(self) -> str:
        return f"sense {self.key:02x}/{self.asc:02x}/{self.ascq:02x}"


class Kind(enum.IntEnum):
    """Designator types that identify a unit, the preferred one first."""

    NAA_16 = 0
    EUI = 1
    NAA_8 = 2
    T10 = 3
    NAME = 4


@dataclass(frozen=True, slots=True, order=True)
class Designator:
    """One identity of page 0x83 that belongs to the logical unit."""

    kind: Kind
    wwid: Wwid


def test_unit_ready_cdb() -> bytes:
    """Build TEST UNIT READY."""
    return _cdb(0x00)


def inquiry_cdb() -> bytes:
    """Build a standard INQUIRY."""
    return _cdb(0x12, 0, 0, 0, INQUIRY_LENGTH)


def inquiry_page_cdb(page: int) -> bytes:
    """Build an INQUIRY for a vital product data page."""
    return _cdb(0x12, 1, page, *PAGE_LENGTH.to_bytes(2))


def read_capacity_16_cdb() -> bytes:
    """Build READ CAPACITY(16)."""
    return _cdb(0x9E, 0x10, *bytes(8), *CAPACITY_16_LENGTH.to_bytes(4))


def read_capacity_10_cdb() -> bytes:
    """Build READ CAPACITY(10)."""
    return _cdb(0x25)


def report_luns_cdb() -> bytes:
    """Build REPORT LUNS."""
    return _cdb(0xA0, *bytes(5), *REPORT_LUNS_LENGTH.to_bytes(4))


def parse_inquiry(data: bytes) -> Inquiry:
    """Parse standard INQUIRY data. Raises: PduError."""
    if not data:
        raise PduError("an empty INQUIRY answer")
    return Inquiry(data[0] >> 5, data[0] & 0x1F)


def parse_serial_page(data: bytes) -> str:
    """Parse page 0x80: the unit's serial, blanks and NULs stripped. Raises: PduError."""
    page = _page(data, PAGE_SERIAL)
    return page.decode("latin-1").strip(" \0")


def parse_identification_page(data: bytes) -> tuple[Designator, ...]:
    """Parse page 0x83: the unit's own designators, the preferred one first.

    Those of its port, its target, or of a kind that identifies nothing are left out.
    Raises: PduError.
    """
    page = _page(data, PAGE_IDENTIFICATION)
    found = []
    while page:
        if len(page) < 4 or len(page) < 4 + page[3]:
            raise PduError("a designator longer than its page")
        code_set, flags, value = page[0] & 0x0F, page[1], page[4 : 4 + page[3]]
        designator = _designator(code_set, flags, value)
        if designator is not None:
            found.append(designator)
        page = page[4 + page[3] :]
    return tuple(sorted(found))


def pick_wwid(designators: Sequence[Designator]) -> Wwid | None:
    """Return the identity to go by, if there is one."""
    return min(designators).wwid if designators else None


def parse_capacity_16(data: bytes) -> int:
    """Parse READ CAPACITY(16) into bytes. Raises: PduError."""
    if len(data) < 12:
        raise PduError(f"a READ CAPACITY(16) answer of {len(data)} bytes")
    return (int.from_bytes(data[:8]) + 1) * int.from_bytes(data[8:12])


def parse_capacity_10(data: bytes) -> int | None:
    """Parse READ CAPACITY(10) into bytes; None when it needs (16). Raises: PduError."""
    if len(data) < 8:
        raise PduError(f"a READ CAPACITY(10) answer of {len(data)} bytes")
    last = int.from_bytes(data[:4])
    return None if last == _TOO_LARGE_FOR_10 else (last + 1) * int.from_bytes(data[4:8])


def parse_report_luns(data: bytes) -> tuple[int, ...]:
    """Parse REPORT LUNS, as far as it was received. Raises: PduError."""
    if len(data) < 8:
        raise PduError(f"a REPORT LUNS answer of {len(data)} bytes")
    listed = data[8 : 8 + int.from_bytes(data[:4])]
    return tuple(decode_lun(listed[at : at + 8]) for at in range(0, len(listed) - 7, 8))


def parse_sense(data: bytes) -> Sense:
    """Parse fixed or descriptor sense; anything else gives zeros."""
    form = data[0] & 0x7F if data else 0
    if form in {0x70, 0x71} and len(data) >= 3:
        asc, ascq = (data[12], data[13]) if len(data) >= 14 else (0, 0)
        return Sense(data[2] & 0x0F, asc, ascq)
    if form in {0x72, 0x73} and len(data) >= 4:
        return Sense(data[1] & 0x0F, data[2], data[3])
    return Sense(0, 0, 0)


def _cdb(*octets: int) -> bytes:
    return bytes(octets).ljust(16, b"\0")


def _page(data: bytes, page: int) -> bytes:
    if len(data) < 4 or data[1] != page:
        raise PduError(f"an INQUIRY answer that is not page {page:#04x}")
    return data[4 : 4 + int.from_bytes(data[2:4])]


def _designator(code_set: int, flags: int, value: bytes) -> Designator | None:
    association, kind = flags >> 4 & 3, flags & 0x0F
    if association != 0:
        return None
    if kind == 3:
        return _identity(Kind.NAA_16 if len(value) == 16 else Kind.NAA_8, f"naa.{value.hex()}")
    if kind == 2:
        return _identity(Kind.EUI, f"eui.{value.hex()}")
    if code_set not in {2, 3}:
        return None
    text = value.rstrip(b"\0").decode("latin-1")
    if kind == 1:
        return _identity(Kind.T10, f"t10.{text}")
    return _identity(Kind.NAME, text) if kind == 8 else None


def _identity(kind: Kind, text: str) -> Designator | None:
    try:
        return Designator(kind, parse_wwid(text))
    except InvalidInput:
        return None
