"""The identity of a logical unit, in the forms in which Linux writes it.

One form is ours, the one of ``/sys/block/X/device/wwid`` (kernel: scsi_vpd_lun_id):

    naa.60014051c2d...  eui.0025385971b04f2e  t10.ATA     Disk-7  iqn.2001-04.com.example,t,0x1

Others are read and written here and nowhere else (multipath-tools: parse_vpd_pg83; udev:
scsi_id(8) and 60-persistent-storage.rules):

    multipath      3 + NAA digits   2 + EUI digits   1 + T10 text, blanks as "_"   8 + name
    dm uuid        mpath-360014051c2d...
    by-id links    scsi-360014051c2d...   wwn-0x60014051c2d...   dm-uuid-mpath-360014051c2d...

Hexadecimal digits are in lower case. T10 texts and SCSI names keep their case, and runs of
blanks in them are one "_", since that is all that multipath and udev keep.
"""

from __future__ import annotations

import re
from typing import NewType

from lunport.core.errors import InvalidInput

Wwid = NewType("Wwid", str)

MAX_LENGTH = 256
_BY_ID = re.compile(r"(?:/dev/disk/by-id/)?(?:scsi-|dm-uuid-mpath-|mpath-)")
_PARTITION = re.compile(r"-part[0-9]+")
# udev gives this link to NAA identities alone.
_WWN = re.compile(r"(?:/dev/disk/by-id/)?(?:wwn-)?0x([0-9a-f]+)", re.IGNORECASE)
# NAA 2, 3 and 5 have 8 bytes, NAA 6 has 16 (SPC-5 section 7.7.6.6).
_NAA = re.compile(r"[235][0-9a-f]{15}|6[0-9a-f]{31}", re.IGNORECASE)
_EUI = re.compile(r"[0-9a-f]{16}(?:[0-9a-f]{8}|[0-9a-f]{16})?", re.IGNORECASE)
_NAME = re.compile(r"[!-~]+")
_BLANKS = re.compile(r"[\s_]+")
_DIGIT_OF_KIND = {"t10": "1", "eui": "2", "naa": "3", "iqn": "8"}
_KIND_OF_DIGIT = {"1": "t10", "2": "eui", "3": "naa"}


def parse_wwid(text: object, *, what: str = "WWID") -> Wwid:
    """Read an identity in any of the forms above. Raises: InvalidInput."""
    wwid = _read(text) if isinstance(text, str) and len(text) <= MAX_LENGTH else None
    if wwid is None:
        raise InvalidInput(
            what, text, "expected naa.HEX, eui.HEX or t10.TEXT as /sys/block/X/device/wwid has it"
        )
    return wwid


def format_multipath_wwid(wwid: Wwid) -> str:
    """Write the identity as multipath(8) and scsi_id(8) do: ``36001405...``."""
    kind, _, rest = wwid.partition(".")
    return _DIGIT_OF_KIND[kind] + (wwid if kind == "iqn" else rest)


def by_id_names(wwid: Wwid) -> tuple[str, ...]:
    """List the names that udev's links for the whole unit can have, the surest first."""
    kind, _, digits = wwid.partition(".")
    multipath = format_multipath_wwid(wwid)
    names = (f"dm-uuid-mpath-{multipath}", f"scsi-{multipath}")
    return (*names, f"wwn-0x{digits}") if kind == "naa" else names


def same_wwid(one: object, other: object) -> bool:
    """Tell whether two texts, in whatever form, are the same identity.

    What cannot be read is the same as nothing, not even as itself.
    """
    try:
        return parse_wwid(one).lower() == parse_wwid(other).lower()
    except InvalidInput:
        return False


def _read(text: str) -> Wwid | None:
    text = text.strip().strip("\0")
    if (wwn := _WWN.fullmatch(text)) is not None:
        return _build("naa", wwn[1])
    if (link := _BY_ID.match(text)) is not None:
        text = text[link.end() :]
        if _PARTITION.search(text):
            return None
    if text[:1] in _KIND_OF_DIGIT:
        return _build(_KIND_OF_DIGIT[text[0]], text[1:])
    # "8" is a SCSI name string, which is an iSCSI name or the two others written out.
    kind, _, rest = text.removeprefix("8").partition(".")
    return _build(kind.lower(), rest)


def _build(kind: str, rest: str) -> Wwid | None:
    if kind == "naa":
        return Wwid(f"naa.{rest.lower()}") if _NAA.fullmatch(rest) else None
    if kind == "eui":
        return Wwid(f"eui.{rest.lower()}") if _EUI.fullmatch(rest) else None
    if kind == "iqn":
        return Wwid(f"iqn.{rest}") if _NAME.fullmatch(rest) else None
    text = _BLANKS.sub("_", rest.strip("\0")).strip("_")
    usable = kind == "t10" and text and text.isascii() and text.isprintable()
    return Wwid(f"t10.{text}") if usable else None
