"""The body of ``lunport:report_paths``: the document of :mod:`lunport.core.path_report`.

    {"lunport:report_paths": {"version": 1, "key": "naa.6...", ..., "paths": [...]}}

Types, lengths and unknown keys are checked here; what the texts mean, in the core's codec.
"""

from __future__ import annotations

from typing import Annotated, Literal

import msgspec

from lunport.api.faults import ApiError
from lunport.api.request import decode_json
from lunport.core.path_report import MAX_NUMBER, MAX_REASON, parse_path_report
from lunport.core.path_status import VolumePaths

MAX_PATHS = 128
MAX_REPORT_BYTES = 98304

_Text = Annotated[str, msgspec.Meta(max_length=255)]
_Number = Annotated[int, msgspec.Meta(ge=0, le=MAX_NUMBER)]


class PathKeys(msgspec.Struct, forbid_unknown_fields=True):
    """One path."""

    portal: _Text
    iqn: _Text
    lun: _Number
    transport: _Text
    iface: _Text
    state: _Text
    sid: _Number | None
    device: _Text | None
    since: float | None
    why: Annotated[str, msgspec.Meta(max_length=MAX_REASON)] | None


class PathReportKeys(msgspec.Struct, forbid_unknown_fields=True):
    """A volume's paths. The last three follow from the others, and are not read."""

    version: Literal[1]
    key: _Text
    volume_id: _Text | None
    wwid: _Text | None
    device: _Text | None
    map_name: _Text | None
    size_bytes: _Number | None
    wanted: _Number
    paths: Annotated[list[PathKeys], msgspec.Meta(max_length=MAX_PATHS)]
    live: _Number | None = None
    state: _Text | None = None
    since: float | None = None


_REPORT = msgspec.json.Decoder(PathReportKeys)


def decode_path_report(value: msgspec.Raw) -> VolumePaths:
    """Decode and check a report. Raises: ApiError (400, 413), InvalidInput."""
    if len(bytes(value)) > MAX_REPORT_BYTES:
        raise ApiError(413)
    return parse_path_report(msgspec.to_builtins(decode_json(_REPORT, value)))
