"""Turn a :class:`lunport.core.query.Query` into SQL: filters, order, keyset pages."""

from __future__ import annotations

import functools
from collections.abc import Mapping, Sequence
from typing import Any

import sqlalchemy as sa

from lunport.core.errors import (
    AttachmentNotFound,
    InvalidInput,
    MessageNotFound,
    NotFound,
    SnapshotNotFound,
    VolumeNotFound,
)
from lunport.core.query import Filter, Query

_MAX_INTEGER = 2**63 - 1

Columns = sa.ColumnCollection[str, sa.Column[Any]]
_SortKeys = list[tuple[sa.Column[Any], bool]]

# What an unknown marker is, as in Block Storage: the row it names is not found.
_NO_SUCH_ROW: Mapping[str, type[NotFound]] = {
    "volumes": VolumeNotFound,
    "snapshots": SnapshotNotFound,
    "attachments": AttachmentNotFound,
    "messages": MessageNotFound,
}


def select_page(
    connection: sa.Connection, table: sa.Table, query: Query
) -> tuple[Sequence[sa.Row[Any]], bool]:
    """Return one page of whole rows, and whether more follow.

    Raises: InvalidInput (an unknown filter or sort key), NotFound (an unknown marker).
    """
    if query.marker is None and not query.filters:
        sort = tuple(query.sort)
        statement = _plain_page(table, query.project_id, sort, query.limit, query.offset)
    else:
        statement = _page(connection, table, query)
    rows = connection.execute(statement).all()
    if query.limit is None:
        return rows, False
    return rows[: query.limit], len(rows) > query.limit


def _page(connection: sa.Connection, table: sa.Table, query: Query) -> sa.Select[Any]:
    statement = sa.select(table).where(*conditions(table.c, query))
    keys = _sort_keys(table.c, query)
    if query.marker is not None:
        marker = connection.execute(sa.select(table).where(table.c.id == query.marker)).first()
        if marker is None or query.project_id not in (None, marker.project_id):
            raise _NO_SUCH_ROW[table.name](query.marker)
        statement = statement.where(_after(keys, marker))
    return _cut(statement, keys, query)


@functools.lru_cache(maxsize=64)
def _plain_page(
    table: sa.Table,
    project_id: str | None,
    sort: tuple[tuple[str, bool], ...],
    limit: int | None,
    offset: int,
) -> sa.Select[Any]:
    """Build the page that is asked for again and again, once: it takes as long as the query."""
    query = Query(project_id, sort=sort, limit=limit, offset=offset)
    statement = sa.select(table).where(*conditions(table.c, query))
    return _cut(statement, _sort_keys(table.c, query), query)


def _cut(statement: sa.Select[Any], keys: _SortKeys, query: Query) -> sa.Select[Any]:
    """Put the rows in order, and take one page and a row of them: so many are more."""
    statement = statement.order_by(*(_order(column, descending) for column, descending in keys))
    if query.offset:
        statement = statement.offset(min(query.offset, _MAX_INTEGER))
    if query.limit is not None:
        return statement.limit(min(query.limit, _MAX_INTEGER - 1) + 1)
    return statement.limit(_MAX_INTEGER) if query.offset else statement


def conditions(columns: Any, query: Query) -> list[sa.ColumnElement[bool]]:
    """Return the conditions of a query's project and filters. Raises: InvalidInput."""
    found: list[sa.ColumnElement[bool]] = []
    if query.project_id is not None:
        found.append(columns.project_id == query.project_id)
    for item in query.filters:
        found.extend(_conditions(columns, item))
    return found


def _conditions(columns: Any, item: Filter) -> list[sa.ColumnElement[bool]]:
    if item.key not in columns:
        raise InvalidInput("filter", item.key, "no such field")
    column = columns[item.key]
    if isinstance(item.value, Mapping):
        return [_has_entry(column, str(key), str(value)) for key, value in item.value.items()]
    return [_compare(column, item)]


def _has_entry(column: Any, key: str, value: str) -> sa.ColumnElement[bool]:
    # Every entry is looked at, because a path cannot address each key: SQLite compares it with
    # the stored text, in which quotes, backslashes and letters beyond ASCII are escaped.
    if "\x00" in key or "\x00" in value:  # SQLite ends a text there
        return sa.false()
    entry = sa.func.json_each(column).table_valued("key", "value")
    return sa.exists().where(entry.c.key == key, entry.c.value == value).correlate(column.table)


def _compare(column: sa.Column[Any], item: Filter) -> sa.ColumnElement[bool]:
    if item.operator == "in":
        values = item.value if isinstance(item.value, (list, tuple, frozenset)) else [item.value]
        return column.in_([_bounded(value) for value in values if not _is_nowhere(value)])
    if _is_nowhere(item.value):
        return sa.false()
    value = _bounded(item.value)
    match item.operator:
        case "=":
            return column == value if value is not None else column.is_(None)
        case "!=":
            return column != value
        case "like":
            return column.contains(str(value), autoescape=True)
        case ">":
            return column > value
        case ">=":
            return column >= value
        case "<":
            return column < value
        case "<=":
            return column <= value


def _is_nowhere(value: object) -> bool:
    """Tell whether no row has such a value: no text holds a NUL, at which SQLite would end it."""
    return isinstance(value, str) and "\x00" in value


def _bounded(value: object) -> object:
    """Bring an integer to where the database can compare it: no row is out there."""
    if isinstance(value, int) and not isinstance(value, bool):
        return max(-_MAX_INTEGER, min(value, _MAX_INTEGER))
    return value


def _sort_keys(columns: Any, query: Query) -> _SortKeys:
    keys = []
    for name, descending in query.sort:
        if name not in columns or isinstance(columns[name].type, sa.JSON):
            raise InvalidInput("sort key", name, "no such field to sort by")
        if name != "id":
            keys.append((columns[name], descending))
    id_descending = dict(query.sort).get("id", query.sort[0][1] if query.sort else True)
    keys.append((columns.id, id_descending))
    return keys


def _never_null(column: sa.Column[Any]) -> sa.ColumnElement[Any]:
    return sa.func.coalesce(column, "") if column.nullable else column


def _order(column: sa.Column[Any], descending: bool) -> sa.ColumnElement[Any]:
    key = _never_null(column)
    return key.desc() if descending else key.asc()


def _after(keys: _SortKeys, marker: sa.Row[Any]) -> sa.ColumnElement[bool]:
    """Say "behind the marker" for keys (a, b, id): a > x or (a = x and (b > y or ...))."""
    condition: sa.ColumnElement[bool] = sa.false()
    for column, descending in reversed(keys):
        key = _never_null(column)
        value = getattr(marker, column.name)
        value = sa.literal("" if value is None else value, column.type)
        beyond = key < value if descending else key > value
        condition = sa.or_(beyond, sa.and_(key == value, condition))
    return condition
