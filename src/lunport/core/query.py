"""Which rows a caller wants: filters, order and page, without saying how they are found."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Generic, Literal, NamedTuple, TypeVar

Row = TypeVar("Row")

Operator = Literal["=", "in", "like", ">", ">=", "<", "<=", "!="]


@dataclass(frozen=True, slots=True)
class Filter:
    """One condition. ``key`` is a record's field; ``metadata`` takes a mapping as value."""

    key: str
    operator: Operator
    value: object


@dataclass(frozen=True, slots=True)
class Query:
    """Which rows, in which order, which page. All filters must hold.

    ``project_id`` None means every project (the API checks that the caller may). ``sort`` is
    ((field, descending), ...); the id is always the last key. ``marker`` is the id of the
    last row of the page before; an unknown one is NotFound.
    """

    project_id: str | None
    filters: Sequence[Filter] = ()
    sort: Sequence[tuple[str, bool]] = (("created_at", True),)
    limit: int | None = None
    marker: str | None = None
    offset: int = 0


class Page(NamedTuple, Generic[Row]):
    """Rows of one page, and whether more follow."""

    rows: Sequence[Row]
    more: bool
