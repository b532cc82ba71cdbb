"""One complete way to one logical unit: portal, target name, LUN."""

from __future__ import annotations

from dataclasses import dataclass

from lunport.core.errors import InvalidLun
from lunport.core.iqn import Iqn
from lunport.core.portal import Portal
from lunport.core.transport import Transport

MAX_LUN = 16383


@dataclass(frozen=True, slots=True)
class TargetPath:
    """(portal, IQN, LUN) and the transport the target offers there."""

    portal: Portal
    iqn: Iqn
    lun: int
    transport: Transport = Transport.TCP

    def __str__(self) -> str:
        return f"{self.portal} {self.iqn} lun {self.lun}"


def parse_lun(value: object, *, what: str = "LUN") -> int:
    """Parse a LUN: an integer or a decimal string, 0 to 16383 (SAM-5 flat space).

    Raises: InvalidLun.
    """
    if isinstance(value, str) and value.isascii() and value.isdigit() and len(value) <= 5:
        value = int(value)
    if isinstance(value, bool) or not isinstance(value, int) or not 0 <= value <= MAX_LUN:
        raise InvalidLun(what, value, f"a LUN is a whole number from 0 to {MAX_LUN}")
    return value
