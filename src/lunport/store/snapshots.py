"""The rows of snapshots."""

from __future__ import annotations

from collections.abc import Collection, Mapping, Sequence
from typing import Any

import sqlalchemy as sa

from lunport.core.query import Page, Query
from lunport.core.snapshot import Snapshot
from lunport.store.listing import conditions, select_page
from lunport.store.tables import snapshots

_BY_ID = sa.select(snapshots).where(snapshots.c.id == sa.bindparam("id"))


def find(connection: sa.Connection, snapshot_id: str) -> Snapshot | None:
    """Return the snapshot of that id, if any."""
    row = connection.execute(_BY_ID, {"id": snapshot_id}).first()
    return None if row is None else Snapshot._make(row)


def page(connection: sa.Connection, query: Query) -> Page[Snapshot]:
    """Return one page of snapshots. Raises: InvalidInput."""
    rows, more = select_page(connection, snapshots, query)
    return Page([Snapshot._make(row) for row in rows], more)


def of_volume(connection: sa.Connection, volume_id: str) -> Sequence[Snapshot]:
    """Return a volume's snapshots."""
    rows = connection.execute(sa.select(snapshots).where(snapshots.c.volume_id == volume_id))
    return [Snapshot._make(row) for row in rows]


def every(connection: sa.Connection, backend: str) -> Sequence[Snapshot]:
    """Return all snapshots of a backend."""
    rows = connection.execute(sa.select(snapshots).where(snapshots.c.backend == backend))
    return [Snapshot._make(row) for row in rows]


def totals(connection: sa.Connection, query: Query) -> tuple[int, int]:
    """Return how many snapshots match, and their GiB."""
    statement = sa.select(
        sa.func.count(), sa.func.coalesce(sa.func.sum(snapshots.c.size_gib), 0)
    ).where(*conditions(snapshots.c, query))
    count, gibibytes = connection.execute(statement).one()
    return count, gibibytes


def add(connection: sa.Connection, snapshot: Snapshot) -> None:
    """Insert a snapshot."""
    connection.execute(snapshots.insert(), snapshot._asdict())


def change(
    connection: sa.Connection,
    snapshot_id: str,
    values: Mapping[str, Any],
    *,
    statuses: Collection[str] | None = None,
) -> bool:
    """Compare and swap: change a snapshot if its status is still one of those."""
    statement = snapshots.update().where(snapshots.c.id == snapshot_id)
    if statuses is not None:
        statement = statement.where(snapshots.c.status.in_([str(one) for one in statuses]))
    return connection.execute(statement.values(**values)).rowcount == 1


def remove(connection: sa.Connection, snapshot_id: str) -> bool:
    """Delete the row. Tells whether it was there."""
    statement = snapshots.delete().where(snapshots.c.id == snapshot_id)
    return connection.execute(statement).rowcount == 1
