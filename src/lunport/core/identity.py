"""The SCSI identity of a volume's logical unit, derived from the volume id alone.

The same volume has the same identity on every export, restart, storage node and helper:

    naa.6001405 + 25 hex digits of BLAKE2s(volume id)

which is what both helpers can show unchanged. tgt builds the NAA-6 designator of page 0x83
from ``scsi_id`` read as hex digits and keeps the last 31; LIO puts its prefix ``6001405``
before the first 25 hex digits of the unit serial. 25 digits are 100 bits; the store's unique
constraint on the WWID makes a collision impossible rather than improbable.
"""

from __future__ import annotations

import hashlib
from dataclasses import dataclass

NAA_PREFIX = "6001405"
KEPT_DIGITS = 25


@dataclass(frozen=True, slots=True)
class LuIdentity:
    """``wwid`` as ``/sys/block/X/device/wwid`` shows it; ``serial`` for page 0x80."""

    wwid: str
    serial: str


def derive_identity(volume_id: str) -> LuIdentity:
    """Derive a volume's identity from its id."""
    digest = hashlib.blake2s(volume_id.encode(), person=b"lunportl").hexdigest()[:KEPT_DIGITS]
    return LuIdentity(wwid=f"naa.{NAA_PREFIX}{digest}", serial=volume_id)
