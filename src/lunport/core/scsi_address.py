"""Where Linux puts a logical unit: SCSI host, channel, target, LUN.

    3:0:0:1        host 3, channel 0, target 0, LUN 1: the name in /sys/bus/scsi/devices
    3:0:0:16640    LUN 256 of a target that wants flat addressing

Linux does not interpret a LUN: the number that it shows is the first two bytes on the wire
read as one, further levels above it (drivers/scsi/scsi_common.c, int_to_scsilun). So whoever
knows how the storage addresses its units says which number that is. Reads nothing.
"""

from __future__ import annotations

import re
from dataclasses import dataclass

from lunport.core.connection_info import AddressingMode
from lunport.core.errors import InvalidInput, InvalidLun
from lunport.core.target_path import MAX_LUN

_ADDRESS = re.compile(r"(\d{1,10}):(\d{1,10}):(\d{1,10}):(\d{1,20})", re.ASCII)
_FLAT = 1 << 14  # address method 01b in the two top bits (SAM-5 section 4.7.7.3)
_LEVELS = range(0, 8, 2)


@dataclass(frozen=True, slots=True, order=True)
class ScsiAddress:
    """The four numbers that name a unit on this host, until it is removed."""

    scsi_host: int
    channel: int
    target: int
    lun: int

    def __str__(self) -> str:
        return f"{self.scsi_host}:{self.channel}:{self.target}:{self.lun}"


def parse_scsi_address(text: object, *, what: str = "SCSI address") -> ScsiAddress:
    """Parse ``HOST:CHANNEL:TARGET:LUN``. Raises: InvalidInput."""
    match = _ADDRESS.fullmatch(text) if isinstance(text, str) else None
    if match is None:
        raise InvalidInput(what, text, "expected HOST:CHANNEL:TARGET:LUN")
    return ScsiAddress(*map(int, match.groups()))


def kernel_lun(lun: int, mode: AddressingMode | None) -> int:
    """Give the number by which Linux shows and takes a LUN. Raises: InvalidLun."""
    if not 0 <= lun <= MAX_LUN:
        raise InvalidLun("LUN", lun, f"a LUN is a whole number from 0 to {MAX_LUN}")
    is_flat = mode is AddressingMode.SAM3_FLAT or (mode is AddressingMode.SAM2 and lun > 255)
    return lun + _FLAT if is_flat else lun


def lun_bytes(lun: int, mode: AddressingMode | None) -> bytes:
    """Give the eight bytes by which Linux addresses a LUN. Raises: InvalidLun."""
    number = kernel_lun(lun, mode)
    return b"".join((number >> 8 * level & 0xFFFF).to_bytes(2) for level in _LEVELS)
