"""The bodies of the attachments resource (3.27, ``mode`` from 3.54 on)."""

from __future__ import annotations

from typing import Any, Literal

import msgspec

from lunport.api import microversions as mv
from lunport.api.faults import ApiError
from lunport.api.request import decode_json
from lunport.api.schemas.fields import check_required_uuid, check_uuid
from lunport.volume.requests import NewAttachment


class AttachmentKeys(msgspec.Struct, forbid_unknown_fields=True):
    """What a new attachment may say before 3.54."""

    volume_uuid: str
    instance_uuid: str | None = None
    connector: dict[str, Any] | None = None


class AttachmentKeysWithMode(AttachmentKeys, forbid_unknown_fields=True):
    """The same with a mode."""

    mode: Literal["rw", "ro"] | None = None


class CreateAttachment(msgspec.Struct, forbid_unknown_fields=True):
    """``POST /attachments`` before 3.54."""

    attachment: AttachmentKeys


class CreateAttachmentWithMode(msgspec.Struct, forbid_unknown_fields=True):
    """``POST /attachments`` from 3.54 on."""

    attachment: AttachmentKeysWithMode


class AttachmentConnector(msgspec.Struct, forbid_unknown_fields=True):
    """What an update of an attachment says."""

    connector: dict[str, Any]


class UpdateAttachment(msgspec.Struct, forbid_unknown_fields=True):
    """``PUT /attachments/{id}``."""

    attachment: AttachmentConnector


_CREATE = msgspec.json.Decoder(CreateAttachment)
_CREATE_WITH_MODE = msgspec.json.Decoder(CreateAttachmentWithMode)
UPDATE = msgspec.json.Decoder(UpdateAttachment)


def decode_create(body: bytes, minor: int) -> AttachmentKeys:
    """Decode ``POST /attachments`` as a version has it. Raises: ApiError."""
    if minor >= mv.ATTACHMENT_MODE:
        return decode_json(_CREATE_WITH_MODE, body).attachment
    return decode_json(_CREATE, body).attachment


def to_new_attachment(keys: AttachmentKeys) -> NewAttachment:
    """Check a new attachment's values. Raises: ApiError."""
    return NewAttachment(
        volume_id=check_required_uuid(keys.volume_uuid, "volume_uuid"),
        instance_uuid=check_uuid(keys.instance_uuid, "instance_uuid"),
        connector=keys.connector or None,
        mode=keys.mode if isinstance(keys, AttachmentKeysWithMode) else None,
    )


def to_connector(keys: AttachmentConnector) -> dict[str, Any]:
    """Check the connector of an update. Raises: ApiError."""
    if not keys.connector:
        raise ApiError(
            400,
            "Invalid input for field/attribute connector. Value: {}. "
            "{} does not have enough properties",
        )
    return keys.connector
