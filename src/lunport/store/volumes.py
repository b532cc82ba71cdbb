"""The rows of volumes."""

from __future__ import annotations

import functools
from collections.abc import Collection, Mapping, Sequence
from typing import Any

import sqlalchemy as sa

from lunport.core.query import Page, Query
from lunport.core.volume import Volume
from lunport.store.listing import conditions, select_page
from lunport.store.tables import attachments, connections, targets, volumes

_BY_ID = sa.select(volumes).where(volumes.c.id == sa.bindparam("id"))
_BY_IDS = sa.select(volumes).where(volumes.c.id.in_(sa.bindparam("ids", expanding=True)))
_IDS_A_QUERY = 500
_OF_BACKEND = volumes.c.backend == sa.bindparam("backend")
_CONNECTED = sa.select(volumes).where(
    _OF_BACKEND, volumes.c.id.in_(sa.select(connections.c.volume_id))
)
_IDS = sa.select(volumes.c.id).where(_OF_BACKEND)
_GIB = sa.select(sa.func.coalesce(sa.func.sum(volumes.c.size_gib), 0)).where(_OF_BACKEND)
_HIGHEST = sa.select(sa.func.max(volumes.c.target_number)).where(_OF_BACKEND)
_HIGHEST_SHARED = sa.select(sa.func.max(targets.c.number)).where(
    targets.c.backend == sa.bindparam("backend")
)
_REMOVE = volumes.delete().where(volumes.c.id == sa.bindparam("volume_id"))
_REMOVE_ATTACHMENTS = attachments.delete().where(
    attachments.c.volume_id == sa.bindparam("volume_id")
)


def find(connection: sa.Connection, volume_id: str) -> Volume | None:
    """Return the volume of that id, if any."""
    row = connection.execute(_BY_ID, {"id": volume_id}).first()
    return None if row is None else Volume._make(row)


def find_all(connection: sa.Connection, volume_ids: Sequence[str]) -> Mapping[str, Volume]:
    """Return the volumes of these ids that are there, by id."""
    found: dict[str, Volume] = {}
    for start in range(0, len(volume_ids), _IDS_A_QUERY):
        some = volume_ids[start : start + _IDS_A_QUERY]
        for row in connection.execute(_BY_IDS, {"ids": some}):
            found[row.id] = Volume._make(row)
    return found


def page(connection: sa.Connection, query: Query) -> Page[Volume]:
    """Return one page of volumes. Raises: InvalidInput."""
    rows, more = select_page(connection, volumes, query)
    return Page([Volume._make(row) for row in rows], more)


def connected(connection: sa.Connection, backend: str) -> Sequence[Volume]:
    """Return the volumes of a backend that a host is connected to, or about to be."""
    return [Volume._make(row) for row in connection.execute(_CONNECTED, {"backend": backend})]


def ids(connection: sa.Connection, backend: str) -> Sequence[str]:
    """Return the ids of all volumes of a backend."""
    return connection.scalars(_IDS, {"backend": backend}).all()


def total_gib(connection: sa.Connection, backend: str) -> int:
    """Add up the GiB of all volumes of a backend."""
    gibibytes: int = connection.execute(_GIB, {"backend": backend}).scalar_one()
    return gibibytes


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
    """Return a number that no target of the backend has, a volume's own or another."""
    found = (connection.scalar(one, {"backend": backend}) for one in (_HIGHEST, _HIGHEST_SHARED))
    return max(highest or 0 for highest in found) + 1


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
    expected: dict[str, object] = {}
    if statuses is not None:
        expected["is_status"] = [str(one) for one in statuses]
    if attach_statuses is not None:
        expected["is_attach_status"] = [str(one) for one in attach_statuses]
    if multiattach is not None:
        expected["is_multiattach"] = multiattach
    parameters = {"volume_id": volume_id, **expected, **values}
    return connection.execute(_swap(*expected), parameters).rowcount == 1


def remove(connection: sa.Connection, volume_id: str) -> bool:
    """Delete the row and the rows of its attachments. Tells whether it was there."""
    connection.execute(_REMOVE_ATTACHMENTS, {"volume_id": volume_id})
    return connection.execute(_REMOVE, {"volume_id": volume_id}).rowcount == 1


@functools.cache
def _swap(*expected: str) -> sa.Update:
    """Build the update under these conditions; what it sets is named by the parameters."""
    statement = volumes.update().where(volumes.c.id == sa.bindparam("volume_id"))
    for name in expected:
        column = volumes.c[name.removeprefix("is_")]
        if name == "is_multiattach":
            statement = statement.where(column == sa.bindparam(name))
        else:
            statement = statement.where(column.in_(sa.bindparam(name, expanding=True)))
    return statement
