"""The bodies of the metadata requests of volumes and snapshots."""

from __future__ import annotations

import msgspec

from lunport.api.faults import ApiError
from lunport.api.schemas.fields import check_metadata


class Metadata(msgspec.Struct, forbid_unknown_fields=True):
    """``POST`` and ``PUT .../metadata``."""

    metadata: dict[str, str]


class Meta(msgspec.Struct, forbid_unknown_fields=True):
    """``PUT .../metadata/{key}``."""

    meta: dict[str, str]


METADATA = msgspec.json.Decoder(Metadata)
META = msgspec.json.Decoder(Meta)


def to_entries(body: Metadata) -> dict[str, str]:
    """Check the entries to write. Raises: ApiError."""
    return check_metadata(body.metadata)


def to_entry(body: Meta, key: str) -> dict[str, str]:
    """Check the one entry to write. Raises: ApiError."""
    entry = check_metadata(body.meta, "meta")
    if key not in entry:
        raise ApiError(400, "Request body and URI mismatch")
    if len(entry) > 1:
        raise ApiError(400, "Request body contains too many items")
    return entry
