"""How attachments look on the wire."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

from lunport.core.attachment import Attachment
from lunport.volume.requests import AttachmentView

# Ours: what the attachment's host last told of its paths. Other clients pass it over.
PATHS_KEY = "lunport:paths"


def summary(one: Attachment) -> dict[str, Any]:
    """Show an attachment without its connection."""
    return {
        "id": one.id,
        "status": one.attach_status,
        "instance": one.instance_uuid,
        "volume_id": one.volume_id,
    }


def full(view: AttachmentView) -> dict[str, Any]:
    """Show an attachment with its connection; times that are not there are empty texts."""
    one = view.attachment
    shown = {
        **summary(one),
        "attached_at": one.attached_at or "",
        "detached_at": "",
        "attach_mode": one.attach_mode,
        "connection_info": view.connection_info or {},
    }
    if view.paths is not None:
        shown[PATHS_KEY] = {"reported_at": view.paths.reported_at, **view.paths.document}
    return shown


def detail(view: AttachmentView) -> dict[str, Any]:
    """Show one attachment."""
    return {"attachment": full(view)}


def summaries(rows: Sequence[Attachment]) -> dict[str, Any]:
    """Show attachments without their connections."""
    return {"attachments": [summary(one) for one in rows]}
