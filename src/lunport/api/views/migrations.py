"""How guests' moves look on the wire."""

from __future__ import annotations

from typing import Any

from lunport.store.guest_migrations import GuestMigration
from lunport.volume.migrations import MigrationView, snapshot


def summary(one: GuestMigration) -> dict[str, Any]:
    """Show a migration without its events."""
    return {
        "id": one.plan.id,
        "guest": one.guest,
        "source": one.plan.source,
        "destination": one.plan.destination,
        **snapshot(one.plan),
        "created_at": one.created_at,
        "created_by": one.created_by,
        "updated_at": one.updated_at,
    }


def detail(view: MigrationView) -> dict[str, Any]:
    """Show one migration with what happened to it."""
    events = [one._asdict() for one in view.events]
    return {"migration": {**summary(view.migration), "events": events}}
