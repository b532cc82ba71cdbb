"""The bodies of ``/migrations``: ours, for administrators and the two agents concerned.

{"migration": {"guest": ID, "source": "node-a", "destination": "node-b",
               "volumes": [{"volume_id": ID, "source_attachment": ID}]}}
{"lunport:prepared": {"volume_id": ID, "attachment_id": ID}}
{"lunport:moving": {}}
{"lunport:settle": {"source": "absent", "destination": "runs"}}
{"lunport:release": {}}
{"lunport:abort": {"keep": null}}
{"lunport:note": {"what": "connected", "document": {}}}
"""

from __future__ import annotations

from typing import Annotated, Any

import msgspec

from lunport.api.request import decode_json
from lunport.api.schemas.fields import check_required_uuid, check_uuid
from lunport.core.migration_plan import MovedVolume, Side, Word
from lunport.volume.migrations import NewMigration

MAX_VOLUMES = 64
_Name = Annotated[str, msgspec.Meta(min_length=1, max_length=255)]


class VolumeKeys(msgspec.Struct, forbid_unknown_fields=True):
    """One volume of the guest; the destination's attachment may be named later."""

    volume_id: str
    source_attachment: str
    destination_attachment: str | None = None


class MigrationKeys(msgspec.Struct, forbid_unknown_fields=True):
    """A move."""

    guest: str
    source: _Name
    destination: _Name
    volumes: Annotated[list[VolumeKeys], msgspec.Meta(min_length=1, max_length=MAX_VOLUMES)]


class StartBody(msgspec.Struct, forbid_unknown_fields=True):
    """``POST /migrations``."""

    migration: MigrationKeys


class PreparedKeys(msgspec.Struct, forbid_unknown_fields=True):
    """``lunport:prepared``."""

    volume_id: str
    attachment_id: str


class NoKeys(msgspec.Struct, forbid_unknown_fields=True):
    """``lunport:moving``, ``lunport:release``."""


class SettleKeys(msgspec.Struct, forbid_unknown_fields=True):
    """``lunport:settle``; null: nothing is known of that side."""

    source: Word | None = None
    destination: Word | None = None


class AbortKeys(msgspec.Struct, forbid_unknown_fields=True):
    """``lunport:abort``."""

    keep: Side | None = None


class NoteKeys(msgspec.Struct, forbid_unknown_fields=True):
    """``lunport:note``."""

    what: str
    document: dict[str, Any] = msgspec.field(default_factory=dict)


START = msgspec.json.Decoder(StartBody)
_PREPARED = msgspec.json.Decoder(PreparedKeys)
_NOTHING = msgspec.json.Decoder(NoKeys)
_SETTLE = msgspec.json.Decoder(SettleKeys)
_ABORT = msgspec.json.Decoder(AbortKeys)
_NOTE = msgspec.json.Decoder(NoteKeys)


def to_new_migration(body: StartBody) -> NewMigration:
    """Return the move to record. Raises: ApiError."""
    keys = body.migration
    return NewMigration(
        guest=check_required_uuid(keys.guest, "guest"),
        source=keys.source,
        destination=keys.destination,
        volumes=tuple(
            MovedVolume(
                check_required_uuid(one.volume_id, "volume_id"),
                check_required_uuid(one.source_attachment, "source_attachment"),
                check_uuid(one.destination_attachment, "destination_attachment"),
            )
            for one in keys.volumes
        ),
    )


def decode_prepared(value: msgspec.Raw) -> tuple[str, str]:
    """Return a volume and its attachment. Raises: ApiError."""
    keys = decode_json(_PREPARED, value)
    volume_id = check_required_uuid(keys.volume_id, "volume_id")
    return volume_id, check_required_uuid(keys.attachment_id, "attachment_id")


def decode_nothing(value: msgspec.Raw) -> None:
    """Check that nothing is said. Raises: ApiError."""
    if bytes(value).strip() != b"null":
        decode_json(_NOTHING, value)


def decode_settle(value: msgspec.Raw) -> dict[Side, Word]:
    """Return what is said of each side. Raises: ApiError."""
    keys = decode_json(_SETTLE, value)
    said = {Side.SOURCE: keys.source, Side.DESTINATION: keys.destination}
    return {side: word for side, word in said.items() if word is not None}


def decode_abort(value: msgspec.Raw) -> Side | None:
    """Return which side to keep, if one is named. Raises: ApiError."""
    return None if bytes(value).strip() == b"null" else decode_json(_ABORT, value).keep


def decode_note(value: msgspec.Raw) -> tuple[str, dict[str, Any]]:
    """Return what to keep. Raises: ApiError."""
    keys = decode_json(_NOTE, value)
    return keys.what, keys.document
