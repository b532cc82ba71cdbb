"""Read os-brick's connection properties: ``connection_info["data"]``, or the whole of it.

Tolerates what os-brick's callers are used to: a portal with its portal group behind it
(``10.0.1.2:3260,1``), and empty texts that mean nothing. What they mean is decided by
:mod:`lunport.core.connection_info` alone.
"""

from __future__ import annotations

import re
from collections.abc import Mapping
from dataclasses import replace

from lunport.core.connection_info import ConnectionInfo, parse_connection_info
from lunport.core.errors import InvalidConnectionInfo
from lunport.core.wire_fields import read_mapping

Properties = Mapping[str, object]

_PORTAL_GROUP = re.compile(r",-?[0-9]+\s*\Z")


def read_connection_properties(properties: Properties, *, transport: str) -> ConnectionInfo:
    """Read the properties of a volume; ``transport`` is the connector's own.

    Raises: InvalidConnectionInfo.
    """
    given = read_mapping("connection properties", properties)
    data = given.get("data")
    data = read_mapping("data", data) if data is not None else given
    kind = given.get("driver_volume_type")
    if kind is None:
        kind = "iser" if transport == "iser" else "iscsi"
    whole: dict[str, object] = {"driver_volume_type": kind, "data": _tidy(data)}
    # Behind os-brick's face a volume of one path stays on it, as its callers know it.
    return replace(parse_connection_info(whole), resilient=False)


def all_paths_wanted(info: ConnectionInfo) -> ConnectionInfo:
    """Have the portals of a volume discovered, unless all are listed.

    os-brick does so for multipath, whatever ``target_discovered`` says.
    """
    return info if info.is_complete else replace(info, target_discovered=True)


def device_path(properties: Properties, device_info: Properties | None) -> str:
    """Return the path that a connect gave the caller; empty where nobody says."""
    path = (device_info or {}).get("path") or properties.get("device_path") or ""
    if isinstance(path, bytes):
        path = path.decode(errors="surrogateescape")
    if not isinstance(path, str):
        raise InvalidConnectionInfo("path", type(path).__name__, "a path is a string")
    return path


def _tidy(data: Properties) -> dict[str, object]:
    return {
        key: _without_group(value) if key.endswith(("_portal", "_portals")) else value
        for key, value in data.items()
        if value is not None and value != ""
    }


def _without_group(value: object) -> object:
    if isinstance(value, str):
        return _PORTAL_GROUP.sub("", value)
    if isinstance(value, (list, tuple)):
        return [_without_group(one) for one in value]
    return value
