"""The connection info: how a compute host reaches a logical unit, and its wire codec.

    {"driver_volume_type": "iscsi", "enforce_multipath": false, "data": {
        "target_portal": "10.0.1.2:3260", "target_iqn": "iqn.2014-2.org.example:vol1-1",
        "target_lun": 1,
        "target_alternative_portals": ["10.0.2.2:3260"], "target_alternative_iqns": [...],
        "target_alternative_luns": [...], "target_portals": [...], ...}}

Three ways to name paths are read, alone or together, in this order, each path once: one path
(singular keys), the further ones of the same data path (``target_alternative_*``), and all of
them (``target_portals``, ``target_iqns``, ``target_luns``). The attachments API has the same
without the inner ``data``. A list that does not fit is refused, never truncated. A portal is
written with a literal address only; one that a person wrote by its name is read, and resolved
by whoever connects.

What it never does: choose a path, or decide whether a backend offers several.
"""

from __future__ import annotations

import enum
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from typing import NamedTuple

from lunport.core.attachment import AttachMode
from lunport.core.chap import Chap, ChapCredentials, parse_chap_credentials
from lunport.core.errors import InvalidConnectionInfo, InvalidInput
from lunport.core.iqn import Iqn, fold_iqn, parse_iqn
from lunport.core.portal import Portal, parse_portal
from lunport.core.target_path import TargetPath, parse_lun
from lunport.core.transport import Transport, parse_transport
from lunport.core.wire_fields import (
    check_lengths,
    parse_boolean,
    parse_text,
    read_list,
    read_mapping,
    read_optional,
    require,
    show,
)
from lunport.core.wwid import Wwid, parse_wwid

_TYPE = "iscsi"
_TRANSPORT_OF_TYPE = {"iscsi": Transport.TCP, "iser": Transport.ISER}
_ENVELOPE_KEYS = frozenset(("data", "driver_volume_type", "enforce_multipath", "attachment_id"))
_DATA_KEYS = frozenset(
    f"{prefix}{key}"
    for prefix, keys in (
        ("target_", ("portal", "iqn", "lun", "portals", "iqns", "luns", "transports")),
        ("target_", ("discovered",)),
        ("target_alternative_", ("portals", "iqns", "luns")),
        ("auth_", ("method", "username", "password")),
        ("mutual_auth_", ("username", "password")),
        ("discovery_auth_", ("method", "username", "password")),
        ("", ("volume_id", "attachment_id", "wwid", "addressing_mode", "access_mode")),
        ("", ("encrypted", "cacheable", "discard", "enforce_multipath", "qos_specs")),
        ("", ("physical_block_size", "logical_block_size", "resilient")),
    )
    for key in keys
)


class AddressingMode(enum.StrEnum):
    """How a LUN is written into its eight bytes; the wire has the plain number."""

    TRANSPARENT = "transparent"
    SAM = "SAM"
    SAM2 = "SAM2"
    SAM3_FLAT = "SAM3-flat"


@dataclass(frozen=True, slots=True)
class ConnectionInfo:
    """How to reach one logical unit. Never changed once made.

    ``paths``: the main one first, each (portal, IQN) once. ``wwid``: what the unit must say
    it is. ``is_complete``: it came with the list of all paths, so that nothing is left for a
    discovery to find; ``has_alternatives``: its paths are for one at a time. ``resilient``: such
    a one may move to another portal while it is in use. ``extra`` and ``envelope``: keys that
    mean nothing here, kept as they came.
    Raises: InvalidConnectionInfo when the paths contradict one another.
    """

    paths: tuple[TargetPath, ...]
    volume_id: str | None = None
    attachment_id: str | None = None
    chap: Chap | None = None
    discovery_chap: ChapCredentials | None = None
    access_mode: AttachMode = AttachMode.READ_WRITE
    encrypted: bool = False
    cacheable: bool = False
    discard: bool | None = None
    enforce_multipath: bool = False
    target_discovered: bool = False
    is_complete: bool = field(default=False, compare=False)
    has_alternatives: bool = field(default=False, compare=False)
    resilient: bool = False
    qos_specs: Mapping[str, object] | None = field(default=None, hash=False)
    wwid: Wwid | None = None
    addressing_mode: AddressingMode | None = None
    physical_block_size: int | None = None
    logical_block_size: int | None = None
    extra: Mapping[str, object] = field(default_factory=dict, repr=False, hash=False)
    envelope: Mapping[str, object] = field(default_factory=dict, repr=False, hash=False)

    def __post_init__(self) -> None:
        if not self.paths:
            raise InvalidConnectionInfo("paths", (), "there is no path")
        if len({(path.portal, fold_iqn(path.iqn)) for path in self.paths}) != len(self.paths):
            shown = ", ".join(map(str, self.paths))
            raise InvalidConnectionInfo("paths", shown, "a portal and IQN occur twice")

    @property
    def main_path(self) -> TargetPath:
        """The path that the backend wants tried first."""
        return self.paths[0]


# -- writing -------------------------------------------------------------------------------


def format_connection_info(
    info: ConnectionInfo, *, multipath: bool, alternatives: bool = True
) -> dict[str, object]:
    """Write the answer to ``os-initialize_connection``.

    ``multipath``: the connector asked for it and the backend allows it; all paths are listed.
    Without it ``alternatives`` lists the other paths for failover; with neither, only the
    main path is named. Raises: InvalidConnectionInfo for a portal that is named, not addressed.
    """
    _require_addresses(info)
    return {
        **info.envelope,
        "driver_volume_type": _TYPE,
        "enforce_multipath": info.enforce_multipath,
        **({} if info.attachment_id is None else {"attachment_id": info.attachment_id}),
        "data": _format_data(info, multipath=multipath, alternatives=alternatives),
    }


def format_flat_connection_info(
    info: ConnectionInfo, *, multipath: bool, alternatives: bool = True
) -> dict[str, object]:
    """Write the answer of the attachments API: the same keys, without the inner ``data``."""
    _require_addresses(info)
    flat = {**info.envelope, **_format_data(info, multipath=multipath, alternatives=alternatives)}
    flat["driver_volume_type"] = _TYPE
    if info.attachment_id is not None:
        flat["attachment_id"] = info.attachment_id
    return flat


def format_whole_connection_info(info: ConnectionInfo) -> dict[str, object]:
    """Write what reads back as the same value, for another process of the same host.

    Portals that are named stay so, and whether the list of paths is complete. Holds the secrets.
    """
    for_all = info.is_complete and not info.has_alternatives
    data = _format_data(info, multipath=for_all, alternatives=True)
    if not info.is_complete:
        for key in ("target_portals", "target_iqns", "target_luns"):
            data.pop(key, None)
    return {
        **info.envelope,
        "driver_volume_type": _TYPE,
        **({} if info.attachment_id is None else {"attachment_id": info.attachment_id}),
        "data": data,
    }


def _format_data(info: ConnectionInfo, *, multipath: bool, alternatives: bool) -> dict[str, object]:
    main = info.paths[0]
    data: dict[str, object] = {
        **info.extra,
        "target_discovered": info.target_discovered,
        "target_portal": str(main.portal),
        "target_iqn": main.iqn,
        "target_lun": main.lun,
        "volume_id": info.volume_id,
        "encrypted": info.encrypted,
        "qos_specs": None if info.qos_specs is None else dict(info.qos_specs),
        "access_mode": info.access_mode.value,
        "cacheable": info.cacheable,
        "enforce_multipath": info.enforce_multipath,
    }
    paths = info.paths if multipath or alternatives else info.paths[:1]
    if multipath or len(paths) > 1:
        portals = [str(path.portal) for path in paths]
        iqns: list[str] = [path.iqn for path in paths]
        luns = [path.lun for path in paths]
        data |= {"target_portals": portals, "target_iqns": iqns, "target_luns": luns}
        if not multipath:
            data["target_alternative_portals"] = portals[1:]
            data["target_alternative_iqns"] = iqns[1:]
            data["target_alternative_luns"] = luns[1:]
            if info.resilient:
                data["resilient"] = True
    if any(path.transport is not Transport.TCP for path in paths):
        data["target_transports"] = [path.transport.value for path in paths]
    if info.chap is not None:
        data["auth_method"] = "CHAP"
        _put_credentials(data, "auth", info.chap.initiator)
        if info.chap.mutual is not None:
            _put_credentials(data, "mutual_auth", info.chap.mutual)
    if info.discovery_chap is not None:
        data["discovery_auth_method"] = "CHAP"
        _put_credentials(data, "discovery_auth", info.discovery_chap)
    if info.wwid is not None:
        data["wwid"] = info.wwid
    if info.addressing_mode is not None:
        data["addressing_mode"] = info.addressing_mode.value
    if info.discard is not None:
        data["discard"] = info.discard
    # Block sizes are strings on the wire, as Block Storage has them.
    if info.physical_block_size is not None:
        data["physical_block_size"] = str(info.physical_block_size)
    if info.logical_block_size is not None:
        data["logical_block_size"] = str(info.logical_block_size)
    return data


def _require_addresses(info: ConnectionInfo) -> None:
    for path in info.paths:
        if not path.portal.is_literal:
            reason = "a host name must be resolved before it is sent"
            raise InvalidConnectionInfo("portal", str(path.portal), reason)


def _put_credentials(data: dict[str, object], prefix: str, credentials: ChapCredentials) -> None:
    data[f"{prefix}_username"] = credentials.username
    data[f"{prefix}_password"] = credentials.password.reveal()


# -- reading -------------------------------------------------------------------------------


def parse_connection_info(wire: object) -> ConnectionInfo:
    """Read a connection info, with or without the inner ``data``. Null counts as absent.

    Raises: InvalidConnectionInfo, which names the key, the index and the value; never a
    secret.
    """
    whole = read_mapping("connection info", wire)
    nested = "data" in whole
    data = read_mapping("data", whole["data"]) if nested else whole
    known = _DATA_KEYS if nested else _DATA_KEYS | _ENVELOPE_KEYS

    def either(key: str) -> Mapping[str, object]:
        return data if data.get(key) is not None else whole

    return ConnectionInfo(
        paths=_parse_paths(data, _parse_type(whole)),
        volume_id=read_optional(data, "volume_id", parse_text),
        attachment_id=read_optional(either("attachment_id"), "attachment_id", parse_text),
        chap=_parse_chap(data),
        discovery_chap=_parse_credentials(data, "discovery_auth"),
        access_mode=read_optional(data, "access_mode", _parse_mode) or AttachMode.READ_WRITE,
        encrypted=read_optional(data, "encrypted", parse_boolean) or False,
        cacheable=read_optional(data, "cacheable", parse_boolean) or False,
        discard=read_optional(data, "discard", parse_boolean),
        enforce_multipath=read_optional(
            either("enforce_multipath"), "enforce_multipath", parse_boolean
        )
        or False,
        target_discovered=read_optional(data, "target_discovered", parse_boolean) or False,
        is_complete=data.get("target_portals") is not None,
        has_alternatives=bool(data.get("target_alternative_portals")),
        resilient=read_optional(data, "resilient", parse_boolean) or False,
        qos_specs=_parse_qos(data),
        wwid=read_optional(data, "wwid", parse_wwid),
        addressing_mode=read_optional(data, "addressing_mode", _parse_addressing_mode),
        physical_block_size=read_optional(data, "physical_block_size", _parse_block_size),
        logical_block_size=read_optional(data, "logical_block_size", _parse_block_size),
        extra={key: value for key, value in data.items() if key not in known},
        envelope={key: value for key, value in whole.items() if key not in _ENVELOPE_KEYS}
        if nested
        else {},
    )


class _Entry(NamedTuple):
    """One path as it was read; ``keys`` are where its portal, IQN and LUN stood."""

    portal: Portal
    iqn: Iqn
    lun: int
    keys: tuple[str, str, str]


def _parse_paths(data: Mapping[str, object], by_type: Transport) -> tuple[TargetPath, ...]:
    portal = read_optional(data, "target_portal", parse_portal)
    iqn = read_optional(data, "target_iqn", parse_iqn)
    lun = read_optional(data, "target_lun", parse_lun)
    first: list[_Entry] = []
    if portal is not None:
        first.append(
            _Entry(
                portal,
                require("target_iqn", iqn),
                require("target_lun", lun),
                ("target_portal", "target_iqn", "target_lun"),
            )
        )
    first += _parse_lists(data, "target_alternative_", iqn, lun)
    plural = _parse_lists(data, "target_", iqn, lun)
    if not first and not plural:
        raise InvalidConnectionInfo("target_portal", None, "there is no path without it")
    transports = _parse_transports(data, plural or first)
    paths: dict[tuple[Portal, str], TargetPath] = {}
    for entry in (*first, *plural):
        key = (entry.portal, fold_iqn(entry.iqn))
        known = paths.setdefault(
            key, TargetPath(*entry[:3], transport=transports.get(key, by_type))
        )
        if known.lun != entry.lun:
            raise InvalidConnectionInfo(
                entry.keys[2], entry.lun, f"{entry.portal} {entry.iqn} also has LUN {known.lun}"
            )
    return tuple(paths.values())


def _parse_lists(
    data: Mapping[str, object], prefix: str, iqn: Iqn | None, lun: int | None
) -> list[_Entry]:
    names = (f"{prefix}portals", f"{prefix}iqns", f"{prefix}luns")
    portals = read_list(data, names[0], parse_portal)
    iqns = read_list(data, names[1], parse_iqn)
    luns = read_list(data, names[2], parse_lun)
    if portals is None:
        for name, values in ((names[1], iqns), (names[2], luns)):
            if values is not None:
                raise InvalidConnectionInfo(name, values, f"{names[0]} is missing")
        return []
    if iqns is None:
        iqns = [require("target_iqn", iqn)] * len(portals)
    if luns is None:
        luns = [require("target_lun", lun)] * len(portals)
    check_lengths(names[1], iqns, names[0], portals)
    check_lengths(names[2], luns, names[0], portals)
    return [
        _Entry(*values, (f"{names[0]}[{at}]", f"{names[1]}[{at}]", f"{names[2]}[{at}]"))
        for at, values in enumerate(zip(portals, iqns, luns, strict=True))
    ]


def _parse_transports(
    data: Mapping[str, object], entries: Sequence[_Entry]
) -> dict[tuple[Portal, str], Transport]:
    name = "target_transports"
    transports = read_list(data, name, parse_transport)
    if transports is None:
        return {}
    check_lengths(name, transports, "the list of paths", entries)
    found: dict[tuple[Portal, str], Transport] = {}
    for at, (entry, transport) in enumerate(zip(entries, transports, strict=True)):
        known = found.setdefault((entry.portal, fold_iqn(entry.iqn)), transport)
        if known is not transport:
            reason = f"{entry.portal} {entry.iqn} also has {known.value}"
            raise InvalidConnectionInfo(f"{name}[{at}]", transport.value, reason)
    return found


def _parse_chap(data: Mapping[str, object]) -> Chap | None:
    initiator = _parse_credentials(data, "auth")
    mutual = _parse_pair(data, "mutual_auth")
    if initiator is not None:
        return Chap(initiator, mutual)
    if mutual is not None:
        reason = "it is missing, while mutual_auth_username is given"
        raise InvalidConnectionInfo("auth_username", None, reason)
    return None


def _parse_credentials(data: Mapping[str, object], prefix: str) -> ChapCredentials | None:
    key = f"{prefix}_method"
    method = data.get(key)
    credentials = _parse_pair(data, prefix)
    if method is None and credentials is None:
        return None
    if not isinstance(method, str) or method.upper() != "CHAP":
        raise InvalidConnectionInfo(key, show(method), "expected CHAP")
    return require(f"{prefix}_username", credentials)


def _parse_pair(data: Mapping[str, object], prefix: str) -> ChapCredentials | None:
    keys = (f"{prefix}_username", f"{prefix}_password")
    username, password = (data.get(key) for key in keys)
    if username is None and password is None:
        return None
    for key, value, other in ((keys[0], username, keys[1]), (keys[1], password, keys[0])):
        if value is None:
            raise InvalidConnectionInfo(key, None, f"it is missing, while {other} is given")
    try:
        return parse_chap_credentials(username, password, what=prefix)
    except InvalidInput as error:
        what = error.what.replace(" ", "_")
        raise InvalidConnectionInfo(what, show(error.value), error.reason) from error


def _parse_type(whole: Mapping[str, object]) -> Transport:
    kind = whole.get("driver_volume_type")
    if kind is None:
        return Transport.TCP
    if not isinstance(kind, str) or kind.lower() not in _TRANSPORT_OF_TYPE:
        raise InvalidConnectionInfo("driver_volume_type", show(kind), "expected iscsi or iser")
    return _TRANSPORT_OF_TYPE[kind.lower()]


def _parse_qos(data: Mapping[str, object]) -> Mapping[str, object] | None:
    value = data.get("qos_specs")
    return None if value is None else dict(read_mapping("qos_specs", value))


def _parse_mode(value: object) -> AttachMode:
    if isinstance(value, str) and value in tuple(AttachMode):
        return AttachMode(value)
    raise InvalidInput("access mode", value, "expected rw or ro")


def _parse_addressing_mode(value: object) -> AddressingMode:
    if isinstance(value, str) and value in tuple(AddressingMode):
        return AddressingMode(value)
    raise InvalidInput("addressing mode", value, f"expected one of {', '.join(AddressingMode)}")


def _parse_block_size(value: object) -> int:
    if isinstance(value, str) and value.isascii() and value.isdigit() and len(value) <= 8:
        value = int(value)
    if isinstance(value, int) and value >= 512 and value.bit_count() == 1 and value <= 2**24:
        return value
    raise InvalidInput("block size", value, "expected a power of two from 512")
