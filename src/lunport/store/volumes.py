"""The rows of volumes."""

from __future__ import annotations

from collections.abc import Collection, Mapping, Sequence
from typing import Any

import sqlalchemy as sa

from lunport.core.query import Page, Query
from lunport.core.volume import Volume
from lunport.store.listing import conditions, select_page
from lunport.store.tables import attachments, volumes

_BY_ID = sa.select(volumes).where(volumes.c.id == sa.bindparam("id"))


def find(connection: sa.Connection, volume_id: str) -> Volume | None:
    """Return the volume of that id, if any."""
    row = connection.execute(_BY_ID, {"id": volume_id}).first()
    return None if row is None else Volume._make(row)


def page(connection: sa.Connection, query: Query) -> Page[Volume]:
    """Return one page of volumes. Raises: InvalidInput."""
    rows, more = select_page(connection, volumes, query)
    return Page([Volume._make(row) for row in rows], more)


def every(connection: sa.Connection, backend: str) -> Sequence[Volume]:
    """Return all volumes of a backend."""
    rows = connection.execute(sa.select(volumes).where(volumes.c.backend == backend))
    return [Volume._make(row) for row in rows]


def totals(connection: sa.Connection, query: Query) -> tuple[int, int]:
    """Return how many volumes match, and their GiB."""
    statement = sa.select(
        sa.func.count(), sa.func.coalesce(sa.func.sum(volumes.c.size_gib), 0)
    ).where(*conditions(volumes.c, query))
    count, gibibytes = connection.execute(statement).one()
    return count, gibibytes


def add(connection: sa.Connection, volume: Volume) -> None:
    """Insert a volume."""
    connection.execute(volumes.insert(), volume._asdict())


def next_target_number(connection: sa.Connection, backend: str) -> int:
    """Return a target number that no volume of the backend has."""
    highest = connection.scalar(
        sa.select(sa.func.max(volumes.c.target_number)).where(volumes.c.backend == backend)
    )
    return (highest or 0) + 1


def change(
    connection: sa.Connection,
    volume_id: str,
    values: Mapping[str, Any],
    *,
    statuses: Collection[str] | None = None,
    attach_statuses: Collection[str] | None = None,
    multiattach: bool | None = None,
) -> bool:
    """Compare and swap: change a volume if it is still as said. Tells whether it was."""
    statement = volumes.update().where(volumes.c.id == volume_id)
    if statuses is not None:
        statement = statement.where(volumes.c.status.in_([str(one) for one in statuses]))
    if attach_statuses is not None:
        statement = statement.where(
            volumes.c.attach_status.in_([str(one) for one in attach_statuses])
        )
    if multiattach is not None:
        statement = statement.where(volumes.c.multiattach == multiattach)
    return connection.execute(statement.values(**values)).rowcount == 1


def remove(connection: sa.Connection, volume_id: str) -> bool:
    """Delete the row and the rows of its attachments. Tells whether it was there."""
    connection.execute(attachments.delete().where(attachments.c.volume_id == volume_id))
    return connection.execute(volumes.delete().where(volumes.c.id == volume_id)).rowcount == 1
