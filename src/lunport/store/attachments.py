"""The rows of attachments."""

from __future__ import annotations

from collections import defaultdict
from collections.abc import Mapping, Sequence
from typing import Any

import sqlalchemy as sa

from lunport.core.attachment import Attachment
from lunport.core.query import Page, Query
from lunport.store.listing import select_page
from lunport.store.tables import attachments

_BY_ID = sa.select(attachments).where(attachments.c.id == sa.bindparam("id"))
_OF_VOLUME = (
    sa.select(attachments)
    .where(attachments.c.volume_id == sa.bindparam("volume_id"))
    .order_by(attachments.c.created_at, attachments.c.id)
)
_CONNECTORS = sa.select(attachments.c.connector).where(attachments.c.connector.is_not(None))
_CHANGE = attachments.update().where(attachments.c.id == sa.bindparam("attachment_id"))
_REMOVE = attachments.delete().where(attachments.c.id == sa.bindparam("attachment_id"))
_OF_VOLUMES = (
    sa.select(attachments)
    .where(attachments.c.volume_id.in_(sa.bindparam("volume_ids", expanding=True)))
    .order_by(attachments.c.created_at, attachments.c.id)
)
_IDS_A_QUERY = 500


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


def connectors(connection: sa.Connection) -> Sequence[Mapping[str, object]]:
    """Return what hosts declared in all attachments that are connected."""
    found = connection.scalars(_CONNECTORS)
    return [wire for wire in found if isinstance(wire, Mapping)]


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
