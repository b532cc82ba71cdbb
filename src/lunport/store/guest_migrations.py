"""The rows of guests' moves between hosts, and of what happened to each.

A row is changed only by who has seen its newest revision. None is ever deleted: together they
are the record of where guests were.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any, NamedTuple

import sqlalchemy as sa

from lunport.core.errors import StaleWrite
from lunport.core.migration_plan import MigrationPlan, MovedVolume, Side, State, Told, Word
from lunport.store.tables import guest_migration_events as events
from lunport.store.tables import guest_migration_volumes as moved
from lunport.store.tables import guest_migrations as migrations

_EVERY = sa.select(migrations).order_by(migrations.c.created_at, migrations.c.id)
_OPEN = _EVERY.where(migrations.c.state != State.DONE.value)
_BY_ID = _EVERY.where(migrations.c.id == sa.bindparam("id"))
_OPEN_OF_GUEST = _OPEN.where(migrations.c.guest == sa.bindparam("guest"))
_OPEN_WITH_VOLUME = _OPEN.join(moved, moved.c.migration_id == migrations.c.id).where(
    moved.c.volume_id == sa.bindparam("volume_id")
)
_VOLUMES = (
    sa.select(moved.c.volume_id, moved.c.source_attachment, moved.c.destination_attachment)
    .where(moved.c.migration_id == sa.bindparam("id"))
    .order_by(moved.c.position)
)
_EVENTS = (
    sa.select(events.c.at, events.c.who, events.c.what, events.c.document)
    .where(events.c.migration_id == sa.bindparam("id"))
    .order_by(events.c.id)
)
_CHANGE = migrations.update().where(
    migrations.c.id == sa.bindparam("migration_id"),
    migrations.c.revision == sa.bindparam("seen"),
)
_NAME_ATTACHMENT = moved.update().where(
    moved.c.migration_id == sa.bindparam("the_migration"),
    moved.c.volume_id == sa.bindparam("the_volume"),
)


class GuestMigration(NamedTuple):
    """A guest's move, as it is kept. ``guest`` is the instance's id."""

    guest: str
    plan: MigrationPlan
    revision: int
    created_at: str
    created_by: str
    updated_at: str

    def expects(self, host: str) -> bool:
        """Tell whether the volumes are being prepared for that host."""
        is_destination = self.plan.side_of(host) is Side.DESTINATION
        return is_destination and self.plan.state is State.PREPARING


class Event(NamedTuple):
    """One thing that happened, by whom, and what the migration was like then."""

    at: str
    who: str
    what: str
    document: Mapping[str, object]


def find(connection: sa.Connection, migration_id: str) -> GuestMigration | None:
    """Return a migration, if there is one of that id."""
    return _first(connection, _BY_ID, {"id": migration_id})


def open_of_guest(connection: sa.Connection, guest: str) -> GuestMigration | None:
    """Return the open migration of a guest, if it has one."""
    return _first(connection, _OPEN_OF_GUEST, {"guest": guest})


def open_with_volume(connection: sa.Connection, volume_id: str) -> GuestMigration | None:
    """Return the open migration that a volume is part of, if it is."""
    return _first(connection, _OPEN_WITH_VOLUME, {"volume_id": volume_id})


def listed(connection: sa.Connection, *, with_done: bool) -> Sequence[GuestMigration]:
    """Return the open migrations, or all that there ever were; oldest first."""
    rows = connection.execute(_EVERY if with_done else _OPEN).all()
    return [_read(connection, row) for row in rows]


def add(connection: sa.Connection, one: GuestMigration) -> None:
    """Insert a migration."""
    plan = one.plan
    connection.execute(
        migrations.insert(),
        {
            "id": plan.id,
            "guest": one.guest,
            "source": plan.source,
            "destination": plan.destination,
            "revision": one.revision,
            "created_at": one.created_at,
            "created_by": one.created_by,
            "updated_at": one.updated_at,
            **_changing(plan),
        },
    )
    connection.execute(
        moved.insert(),
        [
            {"migration_id": plan.id, "position": position, **volume._asdict()}
            for position, volume in enumerate(plan.volumes)
        ],
    )


def change(
    connection: sa.Connection, seen: GuestMigration, plan: MigrationPlan, *, now: str
) -> GuestMigration:
    """Put a plan in place of the one that was seen. Raises: StaleWrite (somebody was first)."""
    values = {"revision": seen.revision + 1, "updated_at": now, **_changing(plan)}
    parameters = {"migration_id": plan.id, "seen": seen.revision, **values}
    if connection.execute(_CHANGE, parameters).rowcount != 1:
        raise StaleWrite("Migration", plan.id)
    for one in set(plan.volumes) - set(seen.plan.volumes):
        parameters = {
            "the_migration": plan.id,
            "the_volume": one.volume_id,
            "destination_attachment": one.destination_attachment,
        }
        connection.execute(_NAME_ATTACHMENT, parameters)
    return seen._replace(plan=plan, revision=seen.revision + 1, updated_at=now)


def add_event(connection: sa.Connection, migration_id: str, event: Event) -> None:
    """Insert what happened."""
    connection.execute(events.insert(), {"migration_id": migration_id, **event._asdict()})


def events_of(connection: sa.Connection, migration_id: str) -> Sequence[Event]:
    """Return what happened to a migration, in order."""
    return [Event._make(row) for row in connection.execute(_EVENTS, {"id": migration_id})]


def _first(
    connection: sa.Connection, query: sa.Select[Any], parameters: Mapping[str, str]
) -> GuestMigration | None:
    row = connection.execute(query, parameters).first()
    return None if row is None else _read(connection, row)


def _read(connection: sa.Connection, row: sa.Row[Any]) -> GuestMigration:
    volumes = connection.execute(_VOLUMES, {"id": row.id})
    plan = MigrationPlan(
        id=row.id,
        source=row.source,
        destination=row.destination,
        volumes=tuple(MovedVolume._make(one) for one in volumes),
        state=State(row.state),
        told=(
            Told(Word(row.source_word), row.source_first_hand),
            Told(Word(row.destination_word), row.destination_first_hand),
        ),
        winner=None if row.winner is None else Side(row.winner),
        must_fence=row.must_fence,
        reason=row.reason,
    )
    return GuestMigration(
        guest=row.guest,
        plan=plan,
        revision=row.revision,
        created_at=row.created_at,
        created_by=row.created_by,
        updated_at=row.updated_at,
    )


def _changing(plan: MigrationPlan) -> dict[str, object]:
    source, destination = plan.told
    return {
        "state": plan.state.value,
        "source_word": source.word.value,
        "source_first_hand": source.is_first_hand,
        "destination_word": destination.word.value,
        "destination_first_hand": destination.is_first_hand,
        "winner": None if plan.winner is None else plan.winner.value,
        "must_fence": plan.must_fence,
        "reason": plan.reason,
    }
