"""The bodies of ``POST /exports/action``: ours, for administrators.

{"lunport:revoke": {"host": "node-7", "volume_id": null, "reason": "it does not answer"}}
{"lunport:restore": {"host": "node-7"}}
{"lunport:check": {"repair": true}}
"""

from __future__ import annotations

from typing import Annotated

import msgspec

from lunport.api.request import decode_json
from lunport.api.schemas.fields import check_uuid
from lunport.core.iqn import parse_iqn
from lunport.volume.fencing import MAX_REASON, HostSelector

_Name = Annotated[str, msgspec.Meta(min_length=1, max_length=255)]


class HostKeys(msgspec.Struct, forbid_unknown_fields=True):
    """``lunport:restore``."""

    host: _Name | None = None
    initiator: _Name | None = None
    volume_id: str | None = None


class RevokeKeys(msgspec.Struct, forbid_unknown_fields=True):
    """``lunport:revoke``."""

    host: _Name | None = None
    initiator: _Name | None = None
    volume_id: str | None = None
    reason: Annotated[str, msgspec.Meta(max_length=MAX_REASON)] = ""


class CheckKeys(msgspec.Struct, forbid_unknown_fields=True):
    """``lunport:check``."""

    repair: bool = False


_RESTORE = msgspec.json.Decoder(HostKeys)
_REVOKE = msgspec.json.Decoder(RevokeKeys)
_CHECK = msgspec.json.Decoder(CheckKeys)


def decode_revoke(value: msgspec.Raw) -> tuple[HostSelector, str]:
    """Return whom to cut off, and why. Raises: ApiError, InvalidInput."""
    body = decode_json(_REVOKE, value)
    return _selector(body), body.reason


def decode_restore(value: msgspec.Raw) -> HostSelector:
    """Return whom to let in again. Raises: ApiError, InvalidInput."""
    return _selector(decode_json(_RESTORE, value))


def decode_check(value: msgspec.Raw) -> bool:
    """Tell whether to mend what differs. Raises: ApiError."""
    return decode_json(_CHECK, value).repair


def _selector(body: HostKeys | RevokeKeys) -> HostSelector:
    initiator = None if body.initiator is None else parse_iqn(body.initiator, what="initiator")
    return HostSelector(body.host, initiator, check_uuid(body.volume_id, "volume_id"))
