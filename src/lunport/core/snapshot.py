"""Snapshots: the record and its states."""

from __future__ import annotations

import enum
from collections.abc import Mapping
from typing import NamedTuple


class SnapshotStatus(enum.StrEnum):
    """Block Storage's snapshot statuses."""

    CREATING = "creating"
    AVAILABLE = "available"
    RESTORING = "restoring"
    DELETING = "deleting"
    ERROR = "error"
    ERROR_DELETING = "error_deleting"


DELETABLE = (SnapshotStatus.AVAILABLE, SnapshotStatus.ERROR, SnapshotStatus.ERROR_DELETING)


class Snapshot(NamedTuple):
    """One snapshot as the store has it."""

    id: str
    volume_id: str
    project_id: str
    user_id: str
    name: str | None
    description: str | None
    size_gib: int
    status: str
    progress: str
    volume_type_id: str
    backend: str
    metadata: Mapping[str, str]
    created_at: str
    updated_at: str | None


def image_name(snapshot_id: str) -> str:
    """Name the driver's image of a snapshot."""
    return f"snapshot-{snapshot_id}"
