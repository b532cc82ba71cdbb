"""The paths of a volume as a JSON document: for scripts, and for the volume service.

    {"version": 1, "key": "naa.6001405...", "volume_id": "0c3f...", "wwid": "naa.6001405...",
     "device": "dm-7", "map_name": "dm-7", "size_bytes": 1073741824,
     "wanted": 2, "live": 1, "state": "degraded", "since": 1790000003.0,
     "paths": [
       {"portal": "10.0.1.2:3260", "iqn": "iqn.2026-11.org.example:v", "lun": 1,
        "transport": "tcp", "iface": "default", "state": "live", "sid": 12, "device": "sdc",
        "since": 1790000000.0, "why": null}]}

Every key is always written and must be there. ``live``, ``state`` and ``since`` of the volume
follow from its paths: they are written for readers, and passed over when read, so that no
document can say that all is well with no path. Times are seconds since the epoch. A newer
version is refused, not guessed at. No secret has a place in it.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping
from typing import Final, TypeVar

from lunport.core.errors import InvalidInput
from lunport.core.host_connection import is_key
from lunport.core.iqn import parse_iqn
from lunport.core.path_status import PathState, PathStatus, VolumePaths
from lunport.core.portal import parse_portal
from lunport.core.target_path import TargetPath, parse_lun
from lunport.core.transport import parse_transport
from lunport.core.wire_fields import parse_text, show
from lunport.core.wwid import parse_wwid

T = TypeVar("T")

VERSION: Final = 1
MAX_REASON: Final = 300
MAX_NUMBER: Final = 2**63 - 1
MAX_MOMENT: Final = 1e12
_STATES = {state.value: state for state in PathState}


def format_path_report(volume: VolumePaths) -> dict[str, object]:
    """Write a volume's paths; the inverse of :func:`parse_path_report`.

    A reason that is too long, or that UTF-8 can't carry, is written as far as it can be.
    """
    return {
        "version": VERSION,
        "key": volume.key,
        "volume_id": volume.volume_id,
        "wwid": volume.wwid,
        "device": volume.device,
        "map_name": volume.map_name,
        "size_bytes": volume.size_bytes,
        "wanted": volume.wanted,
        "live": volume.live,
        "state": volume.state.value,
        "since": volume.since,
        "paths": [_format_path(path) for path in volume.paths],
    }


def parse_path_report(document: object) -> VolumePaths:
    """Read a volume's paths. Raises: InvalidInput."""
    wire = _mapping("path report", document)
    version = wire.get("version")
    if isinstance(version, bool) or not isinstance(version, int) or version < 1:
        raise InvalidInput("version", show(version), "expected a number from 1")
    if version > VERSION:
        raise InvalidInput("version", version, f"written by a newer release; known is {VERSION}")
    return VolumePaths(
        key=_require(wire, "key", _parse_key),
        volume_id=_optional(wire, "volume_id", parse_text),
        wwid=_optional(wire, "wwid", parse_wwid),
        device=_optional(wire, "device", parse_text),
        map_name=_optional(wire, "map_name", parse_text),
        size_bytes=_optional(wire, "size_bytes", _parse_count),
        wanted=_require(wire, "wanted", _parse_count),
        paths=_require(wire, "paths", _parse_paths),
    )


# -- parts -----------------------------------------------------------------------------------


def _format_path(status: PathStatus) -> dict[str, object]:
    path = status.path
    return {
        "portal": str(path.portal),
        "iqn": path.iqn,
        "lun": path.lun,
        "transport": path.transport.value,
        "iface": status.iface,
        "state": status.state.value,
        "sid": status.sid,
        "device": status.device,
        "since": status.since,
        "why": None if status.why is None else _carried(status.why),
    }


def _carried(reason: str) -> str:
    text = reason.encode("utf-8", "replace").decode("utf-8").replace("\0", "?")
    return text if len(text) <= MAX_REASON else text[: MAX_REASON - 3] + "..."


def _parse_paths(value: object) -> tuple[PathStatus, ...]:
    if not isinstance(value, list):
        raise InvalidInput("paths", show(value), "expected a list")
    return tuple(map(_parse_path, value))


def _parse_path(value: object) -> PathStatus:
    wire = _mapping("path", value)
    return PathStatus(
        path=TargetPath(
            portal=_require(wire, "portal", parse_portal),
            iqn=_require(wire, "iqn", parse_iqn),
            lun=_require(wire, "lun", parse_lun),
            transport=_require(wire, "transport", parse_transport),
        ),
        iface=_require(wire, "iface", parse_text),
        state=_require(wire, "state", _parse_state),
        sid=_optional(wire, "sid", _parse_count),
        device=_optional(wire, "device", parse_text),
        since=_optional(wire, "since", _parse_moment),
        why=_optional(wire, "why", _parse_reason),
    )


def _mapping(what: str, value: object) -> Mapping[str, object]:
    if not isinstance(value, Mapping):
        raise InvalidInput(what, show(value), "expected an object")
    return value


def _require(wire: Mapping[str, object], key: str, parse: Callable[[object], T]) -> T:
    if key not in wire:
        raise InvalidInput(key, None, "it is missing")
    try:
        return parse(wire[key])
    except InvalidInput as error:
        raise InvalidInput(key, show(wire[key]), error.reason) from None


def _optional(wire: Mapping[str, object], key: str, parse: Callable[[object], T]) -> T | None:
    return _require(wire, key, lambda value: None if value is None else parse(value))


def _parse_key(value: object) -> str:
    if isinstance(value, str) and is_key(value):
        return value
    raise InvalidInput("key", show(value), "expected a name of lower case letters and digits")


def _parse_state(value: object) -> PathState:
    if isinstance(value, str) and value in _STATES:
        return _STATES[value]
    raise InvalidInput("state", show(value), f"expected one of {', '.join(_STATES)}")


def _parse_count(value: object) -> int:
    if isinstance(value, int) and not isinstance(value, bool) and 0 <= value <= MAX_NUMBER:
        return value
    raise InvalidInput("number", show(value), "expected a whole number from 0")


def _parse_moment(value: object) -> float:
    if isinstance(value, int | float) and not isinstance(value, bool) and 0 <= value < MAX_MOMENT:
        return float(value)
    raise InvalidInput("moment", show(value), "expected seconds since the epoch")


def _parse_reason(value: object) -> str:
    if isinstance(value, str) and len(value) <= MAX_REASON and value == _carried(value):
        return value
    raise InvalidInput("reason", show(value), f"expected a text of at most {MAX_REASON} signs")
