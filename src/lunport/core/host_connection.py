"""What a host's journal holds, and how it is written: one JSON object for each entry.

    {"version": 1, "phase": "connected", "key": "naa.6001405...", "paths": [...], ...}

A *connection* is one volume that is a disk of this host, or is about to be or not to be. An
*owned session* is one that we logged in, or are about to, with the node record we wrote for
it. Every key is always written and must be there; a newer version is refused, not guessed at.
Version 1 knew no maps; its entries are read as those of one path.

No secret of ours is in either. ``replaced_record``, the text of somebody else's node record
that ours took the place of, may hold theirs, since it has to be put back as it was.
"""

from __future__ import annotations

import enum
import json
import re
from collections.abc import Mapping
from dataclasses import dataclass, replace
from hashlib import blake2s
from typing import Final

from lunport.core.connection_info import AddressingMode, ConnectionInfo
from lunport.core.errors import InvalidInput
from lunport.core.iqn import Iqn, fold_iqn, parse_iqn
from lunport.core.journal_fields import (
    load_entry,
    optional,
    parse_flag,
    parse_moment,
    parse_text,
    require,
)
from lunport.core.multipath_use import MemberPath, MultipathUse, StallProfile
from lunport.core.portal import Portal, parse_portal
from lunport.core.scsi_address import ScsiAddress, parse_scsi_address
from lunport.core.secret import Secret
from lunport.core.target_path import TargetPath, parse_lun
from lunport.core.transport import parse_transport
from lunport.core.wire_fields import show
from lunport.core.wwid import Wwid, parse_wwid

VERSION: Final = 2
_FILE_NAME = re.compile(r"[a-z0-9][a-z0-9.:_-]{0,119}")


class Phase(enum.StrEnum):
    """How far a connection has come."""

    CONNECTING = "connecting"
    CONNECTED = "connected"
    DISCONNECTING = "disconnecting"


@dataclass(frozen=True, slots=True)
class HostConnection:
    """One volume of this host.

    ``used``: the path in use or being tried. ``wwid`` is what the storage side stated,
    ``seen_wwid`` what the disk said. With a map (``multipath``) ``used``, ``unit`` and
    ``disk_name`` are those of the first path that was in it. ``boot_id``: the boot in which this
    was written, without which nothing about the kernel holds. ``since``: seconds since the epoch.
    """

    key: str
    phase: Phase
    paths: tuple[TargetPath, ...]
    used: TargetPath | None
    iface: str
    addressing_mode: AddressingMode | None
    wwid: Wwid | None
    seen_wwid: Wwid | None
    volume_id: str | None
    holders: tuple[str, ...]
    unit: ScsiAddress | None
    disk_name: str | None
    size_bytes: int | None
    boot_id: str
    since: float
    multipath: MultipathUse | None = None

    @property
    def expected_wwid(self) -> Wwid | None:
        """What the disk must say it is: the stated identity, or else the one seen before."""
        return self.wwid if self.wwid is not None else self.seen_wwid

    @property
    def units(self) -> frozenset[ScsiAddress]:
        """Where its disks are: one, or one for each member of its map."""
        members = () if self.multipath is None else self.multipath.members
        own = () if self.unit is None else (self.unit,)
        return frozenset((*own, *(member.unit for member in members)))

    def is_of_another_volume(self, volume_id: str | None) -> bool:
        """Tell whether it stands for another volume than this, as far as both are known."""
        return None not in (self.volume_id, volume_id) and self.volume_id != volume_id

    def without_unit(self, unit: ScsiAddress) -> HostConnection:
        """Return it without what it says of a disk that is not its any more."""
        use = self.multipath
        if use is not None:
            left = tuple(member for member in use.members if member.unit != unit)
            use = replace(use, members=left)
        if self.unit != unit:
            return replace(self, multipath=use)
        return replace(self, unit=None, disk_name=None, multipath=use)


@dataclass(frozen=True, slots=True)
class OwnedSession:
    """One session of ours and its node record.

    ``sid`` is None until the login is known to have succeeded. ``place``: the record's, below
    the folder of node records.
    """

    portal: Portal
    iqn: Iqn
    iface: str
    tpgt: int | None
    place: str
    sid: int | None
    boot_id: str
    replaced_record: Secret | None


def connection_key(info: ConnectionInfo) -> str:
    """Name a volume of this host: by its stated identity, or else by all its targets and LUNs.

    The order of the paths and the spelling of names do not matter. Safe as a file name.
    """
    if info.wwid is None:
        units = sorted({(fold_iqn(path.iqn), path.lun) for path in info.paths})
        return f"paths-{_digest(json.dumps(units))}"
    wwid = info.wwid.lower()
    return wwid if is_key(wwid) else f"wwid-{_digest(wwid)}"


def session_key(portal: Portal, iqn: str) -> str:
    """Name an owned session; names without regard to case. Safe as a file name."""
    return f"session-{_digest(f'{portal} {fold_iqn(iqn)}')}"


def is_key(text: str) -> bool:
    """Tell whether a text can be the key of a connection, which is a file name."""
    return _FILE_NAME.fullmatch(text) is not None


def _digest(text: str) -> str:
    return blake2s(text.encode(errors="surrogatepass"), digest_size=16).hexdigest()


def known_connection(entry: HostConnection, attachment_id: str | None) -> ConnectionInfo:
    """Return what the journal knows of a connection; no credentials, which it does not keep."""
    return ConnectionInfo(
        paths=entry.paths,
        volume_id=entry.volume_id,
        attachment_id=attachment_id,
        wwid=entry.wwid,
        addressing_mode=entry.addressing_mode,
    )


# -- writing -------------------------------------------------------------------------------


def format_host_connection(connection: HostConnection) -> str:
    """Write an entry of the journal; the inverse of :func:`parse_host_connection`."""
    used = connection.used
    return _dump(
        {
            "key": connection.key,
            "phase": connection.phase.value,
            "paths": [_format_path(path) for path in connection.paths],
            "used": None if used is None else _format_path(used),
            "iface": connection.iface,
            "addressing_mode": _value(connection.addressing_mode),
            "wwid": connection.wwid,
            "seen_wwid": connection.seen_wwid,
            "volume_id": connection.volume_id,
            "holders": list(connection.holders),
            "unit": None if connection.unit is None else str(connection.unit),
            "disk_name": connection.disk_name,
            "size_bytes": connection.size_bytes,
            "boot_id": connection.boot_id,
            "since": connection.since,
            "multipath": _format_use(connection.multipath),
        }
    )


def format_owned_session(session: OwnedSession) -> str:
    """Write an owned session; the inverse of :func:`parse_owned_session`. May hold a secret."""
    replaced = session.replaced_record
    return _dump(
        {
            "portal": str(session.portal),
            "iqn": session.iqn,
            "iface": session.iface,
            "tpgt": session.tpgt,
            "place": session.place,
            "sid": session.sid,
            "boot_id": session.boot_id,
            "replaced_record": None if replaced is None else replaced.reveal(),
        }
    )


def _dump(fields: Mapping[str, object]) -> str:
    return json.dumps({"version": VERSION, **fields}, indent=1) + "\n"


def _format_path(path: TargetPath) -> dict[str, object]:
    return {
        "portal": str(path.portal),
        "iqn": path.iqn,
        "lun": path.lun,
        "transport": path.transport.value,
    }


def _format_use(use: MultipathUse | None) -> dict[str, object] | None:
    if use is None:
        return None
    return {
        "wanted": use.wanted,
        "queue_s": use.queue_s,
        "stall": use.stall.value,
        "is_registered": use.is_registered,
        "members": [
            {
                "path": _format_path(member.path),
                "iface": member.iface,
                "unit": str(member.unit),
                "disk_name": member.disk_name,
                "since": member.since,
            }
            for member in use.members
        ],
    }


def _value(member: enum.Enum | None) -> object:
    return None if member is None else member.value


# -- reading -------------------------------------------------------------------------------


def parse_host_connection(text: str) -> HostConnection:
    """Read an entry of the journal. Raises: InvalidInput."""
    wire = load_entry(text, VERSION)
    return HostConnection(
        key=require(wire, "key", _parse_key),
        phase=require(wire, "phase", _parse_phase),
        paths=require(wire, "paths", _parse_paths),
        used=optional(wire, "used", _parse_path),
        iface=require(wire, "iface", parse_text),
        addressing_mode=optional(wire, "addressing_mode", _parse_mode),
        wwid=optional(wire, "wwid", parse_wwid),
        seen_wwid=optional(wire, "seen_wwid", parse_wwid),
        volume_id=optional(wire, "volume_id", parse_text),
        holders=require(wire, "holders", _parse_texts),
        unit=optional(wire, "unit", _parse_unit),
        disk_name=optional(wire, "disk_name", parse_text),
        size_bytes=optional(wire, "size_bytes", _parse_count),
        boot_id=require(wire, "boot_id", parse_text),
        since=require(wire, "since", parse_moment),
        multipath=optional(wire, "multipath", _parse_use) if wire["version"] != 1 else None,
    )


def parse_owned_session(text: str) -> OwnedSession:
    """Read an owned session. Raises: InvalidInput, which never shows the replaced record."""
    wire = load_entry(text, VERSION)
    return OwnedSession(
        portal=require(wire, "portal", parse_portal),
        iqn=require(wire, "iqn", parse_iqn),
        iface=require(wire, "iface", parse_text),
        tpgt=optional(wire, "tpgt", _parse_count),
        place=require(wire, "place", _parse_place),
        sid=optional(wire, "sid", _parse_count),
        boot_id=require(wire, "boot_id", parse_text),
        replaced_record=optional(wire, "replaced_record", _parse_secret),
    )


def _parse_paths(value: object) -> tuple[TargetPath, ...]:
    if not isinstance(value, list) or not value:
        raise InvalidInput("paths", show(value), "expected a list that is not empty")
    return tuple(map(_parse_path, value))


def _parse_path(value: object) -> TargetPath:
    if not isinstance(value, dict):
        raise InvalidInput("path", show(value), "expected an object")
    return TargetPath(
        portal=require(value, "portal", parse_portal),
        iqn=require(value, "iqn", parse_iqn),
        lun=require(value, "lun", parse_lun),
        transport=require(value, "transport", parse_transport),
    )


def _parse_use(value: object) -> MultipathUse:
    if not isinstance(value, dict):
        raise InvalidInput("multipath", show(value), "expected an object")
    return MultipathUse(
        members=require(value, "members", _parse_members),
        wanted=optional(value, "wanted", _parse_count),
        queue_s=require(value, "queue_s", parse_moment),
        stall=require(value, "stall", _parse_stall),
        is_registered=require(value, "is_registered", parse_flag),
    )


def _parse_members(value: object) -> tuple[MemberPath, ...]:
    if not isinstance(value, list):
        raise InvalidInput("members", show(value), "expected a list")
    return tuple(map(_parse_member, value))


def _parse_member(value: object) -> MemberPath:
    if not isinstance(value, dict):
        raise InvalidInput("member", show(value), "expected an object")
    return MemberPath(
        path=require(value, "path", _parse_path),
        iface=require(value, "iface", parse_text),
        unit=require(value, "unit", _parse_unit),
        disk_name=require(value, "disk_name", parse_text),
        since=require(value, "since", parse_moment),
    )


def _parse_stall(value: object) -> StallProfile:
    if isinstance(value, str) and value in tuple(StallProfile):
        return StallProfile(value)
    raise InvalidInput("stall", show(value), f"expected one of {', '.join(StallProfile)}")


def _parse_key(value: object) -> str:
    if isinstance(value, str) and is_key(value):
        return value
    raise InvalidInput("key", show(value), "expected a name of lower case letters and digits")


def _parse_phase(value: object) -> Phase:
    if isinstance(value, str) and value in tuple(Phase):
        return Phase(value)
    raise InvalidInput("phase", show(value), f"expected one of {', '.join(Phase)}")


def _parse_mode(value: object) -> AddressingMode:
    if isinstance(value, str) and value in tuple(AddressingMode):
        return AddressingMode(value)
    raise InvalidInput("addressing mode", show(value), f"expected {', '.join(AddressingMode)}")


def _parse_texts(value: object) -> tuple[str, ...]:
    if not isinstance(value, list):
        raise InvalidInput("texts", show(value), "expected a list")
    return tuple(map(parse_text, value))


def _parse_place(value: object) -> str:
    # "iqn.2026-11.org.example:a/10.0.1.2,3260,1/default": never out of the records' folder.
    text = parse_text(value)
    if "\0" in text or any(part in ("", ".", "..") for part in text.split("/")):
        raise InvalidInput("place", text, "expected a path below the folder of node records")
    return text


def _parse_unit(value: object) -> ScsiAddress:
    return parse_scsi_address(parse_text(value))


def _parse_count(value: object) -> int:
    if isinstance(value, int) and not isinstance(value, bool) and value >= 0:
        return value
    raise InvalidInput("number", show(value), "expected a whole number from 0")


def _parse_secret(value: object) -> Secret:
    if isinstance(value, str):
        return Secret(value)
    raise InvalidInput("record", "***", "expected a text")
