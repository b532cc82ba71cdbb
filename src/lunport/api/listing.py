"""Lists: from query parameters to a :class:`~lunport.core.query.Query`, as Block Storage does.

Paging (``limit``, ``marker``, ``offset``), order (``sort=name:asc,size`` or ``sort_key`` and
``sort_dir``) and filters. What a filter's value means is a table per resource. A filter that
is not in the table gives, as in Block Storage: nothing at all to an administrator (no row has
it), a 400 to others from 3.31 on, and is ignored for others before that.
"""

from __future__ import annotations

import ast
import json
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from datetime import UTC, datetime
from typing import Any

from lunport.api import microversions as mv
from lunport.api.faults import ApiError, clean
from lunport.api.list_rules import FilterField, Kind, ListRules
from lunport.api.request import ApiRequest, parse_boolean
from lunport.core.query import Filter, Operator, Query

MAX_LIMIT = 1000
MAX_INTEGER = 2147483647
MAX_LITERAL = 4096

_PAGING = frozenset(
    {"limit", "marker", "offset", "sort", "sort_key", "sort_dir", "all_tenants", "with_count"}
)
_TIME_OPERATORS: Mapping[str, Operator] = {
    "gt": ">", "gte": ">=", "eq": "=", "neq": "!=", "lt": "<", "lte": "<=",
}  # fmt: skip


@dataclass(frozen=True, slots=True)
class ListRequest:
    """A translated list request. ``matches_nothing``: a filter that no row can pass."""

    query: Query
    matches_nothing: bool
    with_count: bool


def read_list_request(req: ApiRequest, rules: ListRules) -> ListRequest:
    """Translate a list request. Raises: ApiError (400)."""
    wanted = req.parameters()
    caller = req.caller
    all_tenants = "all_tenants" in wanted and parse_boolean(wanted["all_tenants"], "all_tenants")
    filters: list[Filter] = []
    matches_nothing = False
    for field, name, value, is_like in _allowed_filters(req, rules, wanted):
        found = _translate(field, name, value, is_like=is_like, minor=req.minor) if field else None
        if found is None:
            matches_nothing = True
        else:
            filters.extend(found)
    query = Query(
        project_id=None if all_tenants and caller.is_admin else caller.project_id,
        filters=tuple(filters),
        sort=_read_sort(wanted, rules.sort_keys),
        limit=_read_limit(wanted.get("limit")),
        marker=wanted.get("marker"),
        offset=_read_offset(wanted.get("offset")),
    )
    with_count = (
        req.minor >= mv.COUNT
        and "with_count" in wanted
        and parse_boolean(wanted["with_count"], "with_count")
    )
    return ListRequest(query, matches_nothing, with_count)


def is_full(rows: Sequence[object], query: Query) -> bool:
    """Tell whether a page is as long as it may be.

    Then it has a link to the next one, as in Block Storage, even if that one is empty.
    """
    return bool(rows) and query.limit is not None and len(rows) >= query.limit


def show_page(
    req: ApiRequest,
    path: str,
    items: Sequence[Any],
    *,
    last_id: str | None,
    count: int | None = None,
) -> dict[str, Any]:
    """Show a page of a list: ``last_id`` is the last row's id when the page is full."""
    collection = path.partition("/")[0]
    shown: dict[str, Any] = {collection: items}
    if last_id is not None:
        shown[f"{collection}_links"] = req.next_link(path, last_id)
    if count is not None:
        shown["count"] = count
    return shown


def _allowed_filters(
    req: ApiRequest, rules: ListRules, wanted: Mapping[str, str]
) -> Iterator[tuple[FilterField | None, str, str, bool]]:
    """Give the filters to apply: field (None when unknown), name, value, whether ``name~``."""
    refused = []
    for given, value in wanted.items():
        if given in _PAGING:
            continue
        if not given.isascii():
            raise ApiError(400, "Filter keys can only contain ASCII characters.")
        is_like = given.endswith("~") and req.minor >= mv.LIKE_FILTERS
        name = given.removesuffix("~") if is_like else given
        field = rules.filters.get(name)
        if field is not None and req.minor < min(field.since, mv.CHECKED_FILTERS):
            continue
        if req.caller.is_admin or (field is not None and field.is_public):
            yield field, name, value, is_like
        elif req.minor >= mv.CHECKED_FILTERS:
            refused.append(given)
    if refused:
        raise ApiError(400, f"Invalid filters {','.join(refused)} are found in query options.")


def _translate(
    field: FilterField, name: str, value: str, *, is_like: bool, minor: int
) -> list[Filter] | None:
    """Return the conditions that a filter stands for; None when no row can meet it."""
    match field.kind:
        case Kind.TEXT:
            return [_text_filter(field.key, value, is_like=is_like)]
        case Kind.NUMBER:
            if not (value.isascii() and value.isdigit() and len(value) <= 18):
                return None
            return [Filter(field.key, "=", int(value))]
        case Kind.BOOLEAN:
            return [Filter(field.key, "=", _read_boolean(name, value, minor))]
        case Kind.METADATA:
            return [Filter(field.key, "=", read_mapping(value, name))]
        case Kind.TIME:
            return [_time_filter(field.key, part) for part in value.split(",")]
        case Kind.ALWAYS_TRUE:
            return [] if parse_boolean(value, name) else None
        case Kind.ALWAYS_NULL:
            return None


def _text_filter(key: str, value: str, *, is_like: bool) -> Filter:
    if is_like:
        return Filter(key, "like", value)
    if value[:1] in ("[", "(") and key != "name":
        # ``status=['available', 'error']``, as cinderclient sends a list.
        parsed = _literal(value)
        if isinstance(parsed, list | tuple):
            return Filter(key, "in", tuple(clean(str(one)) for one in parsed))
    return Filter(key, "=", value)


def _read_boolean(name: str, value: str, minor: int) -> bool:
    if minor < mv.STRICT_BOOLEAN_FILTERS:
        return bool(value) and value not in ("False", "false", "FALSE")
    try:
        return parse_boolean(value, name)
    except ApiError:
        raise ApiError(400, f"Invalid input received: '{name} = {value[:80]}'") from None


def read_mapping(value: str, name: str) -> dict[str, str]:
    """Read ``{'key': 'value'}`` (cinderclient) or ``{"key": "value"}``. Raises: ApiError."""
    try:
        parsed = json.loads(value)
    except (ValueError, RecursionError):
        parsed = _literal(value)
    if not isinstance(parsed, dict):
        raise ApiError(400, f"Invalid input received: {name} is filtered by a dictionary.")
    return {clean(str(key)): clean(str(one)) for key, one in parsed.items()}


def _literal(value: str) -> object:
    if len(value) > MAX_LITERAL:
        raise ApiError(400, f"A filter has at most {MAX_LITERAL} characters.")
    try:
        return ast.literal_eval(value)
    except (ValueError, SyntaxError, RecursionError, MemoryError, TypeError):
        return None


def _time_filter(key: str, part: str) -> Filter:
    """Read ``gt:2026-11-20T21:38:00Z``."""
    word, _colon, text = part.partition(":")
    operator = _TIME_OPERATORS.get(word)
    if operator is None:
        raise ApiError(400, f"Invalid {word[:40]} operator")
    try:
        moment = datetime.fromisoformat(text.strip())
        if moment.tzinfo is not None:
            moment = moment.astimezone(UTC)
    except (ValueError, OverflowError):
        raise ApiError(400, f"Invalid {text[:40] or key} value") from None
    return Filter(key, operator, moment.strftime("%Y-%m-%dT%H:%M:%S.%f"))


def _read_sort(
    wanted: Mapping[str, str], sort_keys: Mapping[str, str]
) -> tuple[tuple[str, bool], ...]:
    if "sort" in wanted:
        if "sort_key" in wanted or "sort_dir" in wanted:
            raise ApiError(
                400,
                "The 'sort_key' and 'sort_dir' parameters are deprecated and "
                "cannot be used with the 'sort' parameter.",
            )
        pairs = [part.partition(":")[::2] for part in wanted["sort"].strip().split(",")]
    else:
        pairs = [(wanted.get("sort_key", "created_at"), wanted.get("sort_dir", ""))]
    if len(pairs) > len(sort_keys):
        raise ApiError(400, "Invalid input received: more sort keys than there are.")
    found: dict[str, bool] = {}
    for given, direction in pairs:
        key, word = sort_keys.get(given.strip()), direction.strip().lower() or "desc"
        if key is None:
            raise ApiError(
                400, f"Invalid input received: Sort key supplied is invalid: {given.strip()[:80]}"
            )
        if word not in ("asc", "desc"):
            raise ApiError(
                400, "Invalid input received: Unknown sort direction, must be one of: asc, desc."
            )
        found.setdefault(key, word == "desc")
    return tuple(found.items())


def _read_limit(value: str | None) -> int:
    if value is None:
        return MAX_LIMIT
    number = _read_integer(value, "limit param must be an integer")
    if number < 0:
        raise ApiError(400, "limit param must be positive")
    return min(number, MAX_LIMIT)


def _read_offset(value: str | None) -> int:
    if value is None:
        return 0
    number = _read_integer(value, "offset must be an integer")
    if not 0 <= number <= MAX_INTEGER:
        raise ApiError(400, f"offset must be >= 0 and <= {MAX_INTEGER}")
    return number


def _read_integer(value: str, complaint: str) -> int:
    if len(value) > 20:
        raise ApiError(400, complaint)
    try:
        return int(value)
    except ValueError:
        raise ApiError(400, complaint) from None
