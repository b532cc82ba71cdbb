"""The bodies of ``POST /volumes/{id}/action`` and ``/snapshots/{id}/action``.

    {"os-extend": {"new_size": 2}}

The one key names the action; its value is decoded by that action's own schema.
"""

from __future__ import annotations

from typing import Any, Literal

import msgspec

from lunport.api.faults import ApiError
from lunport.api.request import decode_json

_ACTION = msgspec.json.Decoder(dict[str, msgspec.Raw])


class Attach(msgspec.Struct, forbid_unknown_fields=True):
    """``os-attach``."""

    mountpoint: str
    instance_uuid: str | None = None
    host_name: str | None = None
    mode: Literal["rw", "ro"] = "rw"


class Detach(msgspec.Struct, forbid_unknown_fields=True):
    """``os-detach``."""

    attachment_id: str | None = None


class ForceDetach(msgspec.Struct, forbid_unknown_fields=True):
    """``os-force_detach``."""

    attachment_id: str | None = None
    connector: dict[str, Any] | str | None = None


class InitializeConnection(msgspec.Struct, forbid_unknown_fields=True):
    """``os-initialize_connection``."""

    connector: dict[str, Any] | str


class TerminateConnection(msgspec.Struct, forbid_unknown_fields=True):
    """``os-terminate_connection``."""

    connector: dict[str, Any] | str | None


class Extend(msgspec.Struct, forbid_unknown_fields=True):
    """``os-extend``."""

    new_size: int | str


class Revert(msgspec.Struct, forbid_unknown_fields=True):
    """``revert``."""

    snapshot_id: str


class ReadonlyFlag(msgspec.Struct, forbid_unknown_fields=True):
    """``os-update_readonly_flag``."""

    readonly: bool | str


class Bootable(msgspec.Struct, forbid_unknown_fields=True):
    """``os-set_bootable``."""

    bootable: bool | str


class ResetVolumeStatus(msgspec.Struct, forbid_unknown_fields=True):
    """``os-reset_status`` of a volume."""

    status: str | None = None
    attach_status: str | None = None
    migration_status: str | None = None


class ResetSnapshotStatus(msgspec.Struct, forbid_unknown_fields=True):
    """``os-reset_status`` of a snapshot."""

    status: str


class ExtendCompletion(msgspec.Struct, forbid_unknown_fields=True):
    """``os-extend_volume_completion``."""

    error: bool | str | None = None


ATTACH = msgspec.json.Decoder(Attach)
DETACH = msgspec.json.Decoder(Detach | None)
FORCE_DETACH = msgspec.json.Decoder(ForceDetach)
INITIALIZE_CONNECTION = msgspec.json.Decoder(InitializeConnection)
TERMINATE_CONNECTION = msgspec.json.Decoder(TerminateConnection)
EXTEND = msgspec.json.Decoder(Extend)
REVERT = msgspec.json.Decoder(Revert)
READONLY_FLAG = msgspec.json.Decoder(ReadonlyFlag)
BOOTABLE = msgspec.json.Decoder(Bootable)
RESET_VOLUME_STATUS = msgspec.json.Decoder(ResetVolumeStatus)
RESET_SNAPSHOT_STATUS = msgspec.json.Decoder(ResetSnapshotStatus)
EXTEND_COMPLETION = msgspec.json.Decoder(ExtendCompletion)


def peek(body: bytes) -> tuple[str, msgspec.Raw]:
    """Return the action's name and its undecoded value. Raises: ApiError (400)."""
    try:
        actions = decode_json(_ACTION, body)
    except ApiError:
        raise ApiError(400, "Malformed request body") from None
    if len(actions) != 1:
        raise ApiError(400, "Malformed request body")
    return next(iter(actions.items()))


def to_connector(value: dict[str, Any] | str | None) -> dict[str, Any] | None:
    """Check a connector; the schemas allow a text, and nothing can be made of one.

    Raises: ApiError.
    """
    if isinstance(value, str):
        raise ApiError(400, "Invalid input received: Connector must be an object.")
    return value
