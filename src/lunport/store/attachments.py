"""The rows of attachments, and of the connections that hold a volume's export open."""

from __future__ import annotations

from collections import defaultdict
from collections.abc import Mapping, Sequence
from typing import Any, NamedTuple

import sqlalchemy as sa

from lunport.core.attachment import Attachment
from lunport.core.query import Page, Query
from lunport.store.listing import select_page
from lunport.store.tables import attachments, connections

_BY_ID = sa.select(attachments).where(attachments.c.id == sa.bindparam("id"))
_OF_VOLUME = (
    sa.select(attachments)
    .where(attachments.c.volume_id == sa.bindparam("volume_id"))
    .order_by(attachments.c.created_at, attachments.c.id)
)
_CONNECTIONS = (
    sa.select(connections)
    .where(connections.c.volume_id == sa.bindparam("volume_id"))
    .order_by(connections.c.created_at, connections.c.id)
)
_EVERY_CONNECTION = sa.select(connections).order_by(connections.c.created_at, connections.c.id)
_CHANGE = attachments.update().where(attachments.c.id == sa.bindparam("attachment_id"))
_REMOVE = attachments.delete().where(attachments.c.id == sa.bindparam("attachment_id"))
_SETTLE = connections.update().where(connections.c.id == sa.bindparam("connection_id"))
_REMOVE_CONNECTIONS = connections.delete().where(
    connections.c.id.in_(sa.bindparam("connection_ids", expanding=True))
)
_OF_VOLUMES = (
    sa.select(attachments)
    .where(attachments.c.volume_id.in_(sa.bindparam("volume_ids", expanding=True)))
    .order_by(attachments.c.created_at, attachments.c.id)
)
_IDS_A_QUERY = 500


class HostConnection(NamedTuple):
    """An initiator that may log in to a volume's target, and why.

    ``attachment_id`` is None for a bare os-initialize_connection; ``pending`` until the
    target helper has acted.
    """

    id: str
    volume_id: str
    attachment_id: str | None
    initiator: str
    connector: Mapping[str, object]
    pending: bool
    created_at: str


def find(connection: sa.Connection, attachment_id: str) -> Attachment | None:
    """Return the attachment of that id, if any."""
    row = connection.execute(_BY_ID, {"id": attachment_id}).first()
    return None if row is None else Attachment._make(row)


def of_volume(connection: sa.Connection, volume_id: str) -> Sequence[Attachment]:
    """Return a volume's attachments, oldest first."""
    rows = connection.execute(_OF_VOLUME, {"volume_id": volume_id})
    return [Attachment._make(row) for row in rows]


def of_volumes(
    connection: sa.Connection, volume_ids: Sequence[str]
) -> Mapping[str, Sequence[Attachment]]:
    """Return the attachments of several volumes, by volume id."""
    found: dict[str, list[Attachment]] = defaultdict(list)
    for start in range(0, len(volume_ids), _IDS_A_QUERY):
        some = volume_ids[start : start + _IDS_A_QUERY]
        for row in connection.execute(_OF_VOLUMES, {"volume_ids": some}):
            found[row.volume_id].append(Attachment._make(row))
    return found


def page(connection: sa.Connection, query: Query) -> Page[Attachment]:
    """Return one page of attachments. Raises: InvalidInput."""
    rows, more = select_page(connection, attachments, query)
    return Page([Attachment._make(row) for row in rows], more)


def add(connection: sa.Connection, attachment: Attachment) -> None:
    """Insert an attachment."""
    connection.execute(attachments.insert(), attachment._asdict())


def change(connection: sa.Connection, attachment_id: str, values: Mapping[str, Any]) -> bool:
    """Change an attachment. Tells whether it was there."""
    parameters = {"attachment_id": attachment_id, **values}
    return connection.execute(_CHANGE, parameters).rowcount == 1


def remove(connection: sa.Connection, attachment_id: str) -> bool:
    """Delete the row. Tells whether it was there."""
    return connection.execute(_REMOVE, {"attachment_id": attachment_id}).rowcount == 1


def connections_of(connection: sa.Connection, volume_id: str) -> Sequence[HostConnection]:
    """Return who may log in to a volume's target, oldest first."""
    rows = connection.execute(_CONNECTIONS, {"volume_id": volume_id})
    return [HostConnection._make(row) for row in rows]


def every_connection(connection: sa.Connection) -> Sequence[HostConnection]:
    """Return all connections of all volumes."""
    statement = sa.select(connections).order_by(connections.c.created_at, connections.c.id)
    return [HostConnection._make(row) for row in connection.execute(statement)]


def add_connection(connection: sa.Connection, row: HostConnection) -> None:
    """Insert a connection."""
    connection.execute(connections.insert(), row._asdict())


def settle_connection(
    connection: sa.Connection, connection_id: str, connector: Mapping[str, object]
) -> bool:
    """Say that the target helper has acted on a connection. Tells whether it is still there."""
    parameters = {"connection_id": connection_id, "pending": False, "connector": connector}
    return connection.execute(_SETTLE, parameters).rowcount == 1


def remove_connections(connection: sa.Connection, connection_ids: Sequence[str]) -> int:
    """Delete connections. Tells how many were there."""
    if not connection_ids:
        return 0
    return connection.execute(_REMOVE_CONNECTIONS, {"connection_ids": connection_ids}).rowcount
