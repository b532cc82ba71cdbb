"""Volume types, and the messages that tell a user why something failed later."""

from __future__ import annotations

from collections.abc import Mapping
from typing import NamedTuple


class VolumeType(NamedTuple):
    """A kind of volume."""

    id: str
    name: str
    description: str | None
    is_public: bool
    extra_specs: Mapping[str, str]


class Message(NamedTuple):
    """What a user is told about a request that failed after it was accepted."""

    id: str
    project_id: str
    request_id: str
    resource_type: str
    resource_uuid: str
    event_id: str
    user_message: str
    created_at: str
