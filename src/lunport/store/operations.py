"""The rows of accepted work, of user messages, of volume types, and of kept choices."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any, NamedTuple

import sqlalchemy as sa

from lunport.core.catalog import Message, VolumeType
from lunport.core.query import Page, Query
from lunport.store.listing import select_page
from lunport.store.tables import choices, messages, operations, volume_types

_EVERY = sa.select(operations).order_by(operations.c.id)
_FINISH = operations.delete().where(operations.c.id == sa.bindparam("operation_id"))
_TYPES = sa.select(volume_types).order_by(volume_types.c.name)


class Operation(NamedTuple):
    """Work that was accepted: what, on which resource, with which arguments."""

    id: int
    kind: str
    resource_id: str
    arguments: Mapping[str, Any]
    request_id: str
    created_at: str


def add(
    connection: sa.Connection,
    kind: str,
    resource_id: str,
    arguments: Mapping[str, Any],
    *,
    request_id: str,
    now: str,
) -> Operation:
    """Insert an operation."""
    result = connection.execute(
        operations.insert(),
        {
            "kind": kind,
            "resource_id": resource_id,
            "arguments": dict(arguments),
            "request_id": request_id,
            "created_at": now,
        },
    )
    key = result.inserted_primary_key
    assert key is not None
    return Operation(key[0], kind, resource_id, arguments, request_id, now)


def every(connection: sa.Connection) -> Sequence[Operation]:
    """Return all unfinished operations, oldest first."""
    rows = connection.execute(_EVERY)
    return [Operation._make(row) for row in rows]


def finish(connection: sa.Connection, operation_id: int) -> bool:
    """Delete a finished operation. Tells whether it was still there."""
    return connection.execute(_FINISH, {"operation_id": operation_id}).rowcount == 1


def add_message(connection: sa.Connection, message: Message) -> None:
    """Insert a user message."""
    connection.execute(messages.insert(), message._asdict())


def find_message(connection: sa.Connection, message_id: str) -> Message | None:
    """Return the message of that id, if any."""
    row = connection.execute(sa.select(messages).where(messages.c.id == message_id)).first()
    return None if row is None else Message._make(row)


def page_of_messages(connection: sa.Connection, query: Query) -> Page[Message]:
    """Return one page of messages. Raises: InvalidInput."""
    rows, more = select_page(connection, messages, query)
    return Page([Message._make(row) for row in rows], more)


def remove_message(connection: sa.Connection, message_id: str) -> bool:
    """Delete a message. Tells whether it was there."""
    statement = messages.delete().where(messages.c.id == message_id)
    return connection.execute(statement).rowcount == 1


def types(connection: sa.Connection) -> Sequence[VolumeType]:
    """Return all volume types by name."""
    rows = connection.execute(_TYPES)
    return [VolumeType._make(row) for row in rows]


def read_choice(connection: sa.Connection, key: str) -> str | None:
    """Return what was chosen once, if it was."""
    return connection.scalar(sa.select(choices.c.value).where(choices.c.key == key))


def write_choice(connection: sa.Connection, key: str, value: str) -> None:
    """Keep a choice."""
    connection.execute(choices.delete().where(choices.c.key == key))
    connection.execute(choices.insert(), {"key": key, "value": value})
