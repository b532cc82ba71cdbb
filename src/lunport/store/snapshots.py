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
_OF_VOLUME = sa.select(snapshots).where(snapshots.c.volume_id == sa.bindparam("volume_id"))
_IDS = sa.select(snapshots.c.id).where(snapshots.c.backend == sa.bindparam("backend"))
_CHANGE = snapshots.update().where(snapshots.c.id == sa.bindparam("snapshot_id"))
_SWAP = _CHANGE.where(snapshots.c.status.in_(sa.bindparam("is_status", expanding=True)))
_REMOVE = snapshots.delete().where(snapshots.c.id == sa.bindparam("snapshot_id"))


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
    rows = connection.execute(_OF_VOLUME, {"volume_id": volume_id})
    return [Snapshot._make(row) for row in rows]


def ids(connection: sa.Connection, backend: str) -> Sequence[str]:
    """Return the ids of all snapshots of a backend."""
    return connection.scalars(_IDS, {"backend": backend}).all()


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
    parameters = {"snapshot_id": snapshot_id, **values}
    if statuses is None:
        return connection.execute(_CHANGE, parameters).rowcount == 1
    parameters["is_status"] = [str(one) for one in statuses]
    return connection.execute(_SWAP, parameters).rowcount == 1


def remove(connection: sa.Connection, snapshot_id: str) -> bool:
    """Delete the row. Tells whether it was there."""
    return connection.execute(_REMOVE, {"snapshot_id": snapshot_id}).rowcount == 1
