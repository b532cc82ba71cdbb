"""Lists: pages put together are the sorted whole, whatever the order, filter and names."""

from __future__ import annotations

import uuid
from collections.abc import Callable, Sequence
from dataclasses import replace
from pathlib import Path

import pytest
from hypothesis import given
from hypothesis import strategies as st

from lunport.core.errors import InvalidInput, MessageNotFound, VolumeNotFound
from lunport.core.query import Operator
from lunport.core.volume import Volume
from lunport.store import volumes as volume_rows
from lunport.volume import attachments, catalog, messages, snapshots, volumes
from lunport.volume.requests import Filter, NewSnapshot, Query
from tests.fakes.fake_service import FakeBench, make_bench
from tests.fakes.volume_play import (
    ADMIN,
    ME,
    STRANGER,
    make_attached,
    make_volume,
    set_volume,
)

NAMES = (None, None, "", "a", "a", "A", "b", "%", "_", "a%b", "ä", "名", "😀", "'; --", '"', "\\")
COUNT = 64
HUGE = (2**31, 2**63 - 1, 2**63, 10**30, -(2**63), -(10**30))


@pytest.fixture(scope="module")
def bench(tmp_path_factory: pytest.TempPathFactory) -> FakeBench:
    """Volumes of two projects with names that are equal, absent and odd."""
    made = make_bench(tmp_path_factory.mktemp("listing"))
    template = make_volume(made)
    with made.service.store.write() as connection:
        volume_rows.remove(connection, template.id)
        for number in range(COUNT):
            volume_rows.add(
                connection,
                template._replace(
                    id=str(uuid.uuid5(uuid.NAMESPACE_OID, str(number))),
                    project_id="project" if number % 3 else "elsewhere",
                    name=NAMES[number % len(NAMES)],
                    description=None if number % 2 else f"d{number % 5}",
                    size_gib=number % 4 + 1,
                    status=("available", "error", "in-use")[number % 3],
                    bootable=number % 2 == 0,
                    metadata={"n": str(number % 3), "k" * (number % 2 + 1): "v"},
                    wwid=f"naa.{number}",
                    target_number=number + 1,
                    # Ties: many rows of one moment.
                    created_at=f"2026-11-20T12:00:0{number % 4}.000000",
                ),
            )
    return made


def ids_of(bench: FakeBench, query: Query) -> list[str]:
    """List the ids that a query finds."""
    return [view.volume.id for view in volumes.list_volumes(bench.service, ADMIN, query).rows]


def everything(bench: FakeBench) -> list[Volume]:
    """Return all volumes."""
    return [one.volume for one in volumes.list_volumes(bench.service, ADMIN, Query(None)).rows]


def expected(
    bench: FakeBench, query: Query, matches: Callable[[Volume], bool] = lambda volume: True
) -> list[str]:
    """Filter and sort in Python what the store filters and sorts in SQL."""
    found = [
        volume
        for volume in everything(bench)
        if query.project_id in (None, volume.project_id) and matches(volume)
    ]
    keys = [pair for pair in query.sort if pair[0] != "id"]
    last = dict(query.sort).get("id", query.sort[0][1] if query.sort else True)
    for name, descending in reversed([*keys, ("id", last)]):
        found.sort(
            key=lambda volume: "" if getattr(volume, name) is None else getattr(volume, name),
            reverse=descending,
        )
    return [volume.id for volume in found]


def pages_of(bench: FakeBench, query: Query, limit: int) -> list[str]:
    """Put a query's pages together, each from the last row of the one before."""
    found: list[str] = []
    query = replace(query, limit=limit)
    for _ in range(COUNT + 1):
        page = volumes.list_volumes(bench.service, ADMIN, query)
        assert len(page.rows) <= limit
        assert page.more or len(found) + len(page.rows) <= COUNT
        found += [view.volume.id for view in page.rows]
        if not page.more:
            return found
        query = replace(query, marker=found[-1])
    raise AssertionError("the pages do not end")


SORTS = st.lists(
    st.tuples(
        st.sampled_from(
            [
                "name",
                "description",
                "size_gib",
                "status",
                "created_at",
                "updated_at",
                "bootable",
                "id",
                "project_id",
            ]
        ),
        st.booleans(),
    ),
    max_size=4,
    unique_by=lambda pair: pair[0],
)


@given(sort=SORTS, limit=st.integers(1, 20), project=st.sampled_from([None, "project"]))
def test_pages_are_the_whole(
    bench: FakeBench, sort: Sequence[tuple[str, bool]], limit: int, project: str | None
) -> None:
    """Pages put together are the whole list in its order: ties, NULLs and directions mixed."""
    query = Query(project, sort=tuple(sort))
    whole = expected(bench, query)
    assert ids_of(bench, query) == whole
    assert pages_of(bench, query, limit) == whole


@given(
    name=st.sampled_from(NAMES),
    status=st.lists(st.sampled_from(["available", "error", "in-use", "x"]), max_size=3),
    size=st.integers(0, 5),
    limit=st.integers(1, 9),
)
def test_filters_with_pages(
    bench: FakeBench, name: str | None, status: list[str], size: int, limit: int
) -> None:
    """All filters hold on every page, and counting agrees with listing."""
    query = Query(
        None,
        filters=(
            Filter("name", "=", name),
            Filter("status", "in", status),
            Filter("size_gib", ">=", size),
        ),
        sort=(("name", False), ("created_at", True)),
    )
    whole = expected(
        bench,
        query,
        lambda one: one.name == name and one.status in status and one.size_gib >= size,
    )
    assert pages_of(bench, query, limit) == whole
    assert volumes.count_volumes(bench.service, ADMIN, query) == len(whole)
    sizes = {one.id: one.size_gib for one in everything(bench)}
    assert volumes.total_size_gib(bench.service, ADMIN, query) == sum(sizes[one] for one in whole)


@given(text=st.sampled_from([name for name in NAMES if name is not None]) | st.text(max_size=3))
def test_likeness_is_literal(bench: FakeBench, text: str) -> None:
    """``like`` finds a part of a name; its wildcards are letters like others."""
    if not text.isprintable():
        return
    query = Query(None, filters=(Filter("name", "like", text),))
    # SQLite's LIKE folds the case of ASCII letters.
    folded = text.lower() if text.isascii() else text
    found = set(ids_of(bench, query))
    for volume in everything(bench):
        name = volume.name
        if name is not None and text in name:
            assert volume.id in found
        if volume.id in found:
            assert name is not None
            assert folded.lower() in name.lower()


@pytest.mark.parametrize("operator, wanted", [("=", 16), ("!=", 48), (">", 32), ("<=", 32)])
def test_operators(bench: FakeBench, operator: Operator, wanted: int) -> None:
    """Comparisons are those of their signs."""
    filters = (Filter("size_gib", operator, 2),)
    assert volumes.count_volumes(bench.service, ADMIN, Query(None, filters)) == wanted


@pytest.mark.parametrize("value", HUGE, ids=str)
@pytest.mark.parametrize("operator", ["=", "!=", ">", "<", "in"])
def test_huge_numbers(bench: FakeBench, operator: Operator, value: int) -> None:
    """A number that no column holds is compared all the same."""
    filters = (Filter("size_gib", operator, value),)
    is_met = {"=": False, "in": False, "!=": True, ">": value < 0, "<": value > 0}[operator]
    found = volumes.count_volumes(bench.service, ADMIN, Query(None, filters))
    assert found == (COUNT if is_met else 0)


@pytest.mark.parametrize("value", [0, 5, COUNT, COUNT + 1, *(one for one in HUGE if one > 0)])
def test_offsets_and_limits(bench: FakeBench, value: int) -> None:
    """An offset skips, a limit cuts, however large they are."""
    query = Query(None)
    whole = ids_of(bench, query)
    assert ids_of(bench, replace(query, offset=value)) == whole[value:]
    page = volumes.list_volumes(bench.service, ADMIN, replace(query, limit=value))
    assert [view.volume.id for view in page.rows] == whole[:value]
    assert page.more == (value < COUNT)
    both = replace(query, offset=value, limit=3)
    assert ids_of(bench, both) == whole[value : value + 3]


@pytest.mark.parametrize("marker", ["", "\x00", "no-such", "00000000-0000-4000-8000-000000000000"])
def test_unknown_marker(bench: FakeBench, marker: str) -> None:
    """A marker that is no row's id, or a stranger's, is not found."""
    with pytest.raises(VolumeNotFound):
        ids_of(bench, Query(None, limit=2, marker=marker))
    with pytest.raises(VolumeNotFound):
        ids_of(bench, Query("a stranger", marker=ids_of(bench, Query(None, limit=1))[0]))


@pytest.mark.parametrize("key", ["no_such", "metadata", "id; DROP TABLE volumes", "", "\x00"])
def test_unknown_sort_key(bench: FakeBench, key: str) -> None:
    """A field that is none, or cannot be sorted by, is refused."""
    with pytest.raises(InvalidInput, match="sort"):
        ids_of(bench, Query(None, sort=((key, False),)))
    if key != "metadata":
        with pytest.raises(InvalidInput, match="filter"):
            ids_of(bench, Query(None, filters=(Filter(key, "=", "x"),)))


@pytest.mark.parametrize("value", ["\x00", "a\x00", "\ud800", "' OR 1=1 --"], ids=ascii)
def test_hostile_values(bench: FakeBench, value: str) -> None:
    """What no name is finds nothing, or is refused as input; never a database error."""
    operators: tuple[Operator, ...] = ("=", "like")
    for operator in operators:
        filters = (Filter("name", operator, value),)
        try:
            assert ids_of(bench, Query(None, filters)) == []
        except InvalidInput:
            assert value == "\ud800"


# -- metadata ------------------------------------------------------------------------------------

KEYS = (
    "a",
    "",
    " ",
    "a.b",
    "a[0]",
    "$",
    "$.a",
    "'",
    '"',
    "\\",
    "\\u0061",
    "ключ",
    "😀",
    "\x01",
    "\n",
    "a" * 255,
    "1",
    "null",
    "%",
)
texts = st.sampled_from(KEYS) | st.text(
    st.characters(exclude_categories=["Cs"], exclude_characters="\x00"), max_size=6
)


@given(entries=st.dictionaries(texts, texts, min_size=1, max_size=4), other=texts)
def test_any_entry_is_found(
    bench_of_one: tuple[FakeBench, Volume], entries: dict[str, str], other: str
) -> None:
    """A volume is found by each of its entries, by all, and by no other value."""
    bench, volume = bench_of_one
    set_volume(bench, volume, metadata=entries)

    def finds(wanted: dict[str, str]) -> bool:
        query = Query(None, filters=(Filter("metadata", "=", wanted),))
        return ids_of(bench, query) == [volume.id]

    assert finds(entries)
    for key, value in entries.items():
        assert finds({key: value})
        assert finds({key: other}) == (value == other)
        assert finds({key + "x": value}) == (entries.get(key + "x") == value)
    assert finds({other: "v"}) == (entries.get(other) == "v")


@pytest.fixture(scope="module")
def bench_of_one(tmp_path_factory: pytest.TempPathFactory) -> tuple[FakeBench, Volume]:
    """A service with one volume."""
    made = make_bench(tmp_path_factory.mktemp("metadata"))
    return made, make_volume(made)


def test_metadata_with_pages(bench: FakeBench) -> None:
    """A metadata filter holds beside others and on every page."""
    query = Query("project", filters=(Filter("metadata", "=", {"n": "1", "kk": "v"}),))
    whole = expected(
        bench, query, lambda one: one.metadata["n"] == "1" and one.metadata.get("kk") == "v"
    )
    assert len(whole) > 3
    assert pages_of(bench, query, 2) == whole


# -- the other lists -----------------------------------------------------------------------------


def test_attachments_of_a_list(tmp_path: Path) -> None:
    """A list of volumes has each one's attachments, unless they are not wanted."""
    bench = make_bench(tmp_path)
    free = make_volume(bench)
    used = make_volume(bench)
    made = make_attached(bench, used)
    listed = volumes.list_volumes(bench.service, ME, Query("project")).rows
    assert {view.volume.id: list(view.attachments) for view in listed} == {
        free.id: [],
        used.id: [made],
    }
    bare = volumes.list_volumes(bench.service, ME, Query("project"), with_attachments=False).rows
    assert all(view.attachments == () for view in bare)


def test_lists_of_attachments(tmp_path: Path) -> None:
    """Attachments are listed by project and filter, with their connection info on demand."""
    bench = make_bench(tmp_path)
    volume = make_volume(bench)
    made = make_attached(bench, volume)
    mine = Query("project", filters=(Filter("volume_id", "=", volume.id),))
    assert attachments.list_attachments(bench.service, ME, mine).rows == [made]
    details = attachments.list_attachment_details(bench.service, ME, mine).rows
    assert details == [attachments.get_attachment(bench.service, ME, made.id)]
    assert attachments.list_attachments(bench.service, STRANGER, Query("elsewhere")).rows == []


def test_messages(tmp_path: Path) -> None:
    """A project sees, and deletes, its own messages only."""
    bench = make_bench(tmp_path)
    volume = make_volume(bench, size_gib=2**30)
    (message,) = messages.list_messages(bench.service, ME, Query("project")).rows
    assert (message.resource_uuid, message.event_id) == (volume.id, "VOLUME_CREATE")
    assert messages.get_message(bench.service, ME, message.id) == message
    for act in (messages.get_message, messages.delete_message):
        with pytest.raises(MessageNotFound):
            act(bench.service, STRANGER, message.id)
    messages.delete_message(bench.service, ME, message.id)
    assert messages.list_messages(bench.service, ME, Query("project")).rows == []


def test_usage_and_pools(tmp_path: Path) -> None:
    """What a project uses, and what a backend has promised, is what there is."""
    bench = make_bench(tmp_path)
    volume = make_volume(bench, size_gib=3)
    make_volume(bench, size_gib=2)
    snapshots.create_snapshot(bench.service, ME, NewSnapshot(volume.id))
    usage = catalog.read_usage(bench.service, ME)
    assert (usage.volumes, usage.snapshots, usage.gigabytes) == (2, 1, 8)
    assert catalog.read_usage(bench.service, STRANGER).volumes == 0
    (pool,) = catalog.list_pools(bench.service, ME)
    assert (pool.name, pool.provisioned_gib) == ("node@files#files", 5.0)
    bench.helper.crash()
    scheduler, storage = catalog.list_services(bench.service, ME)
    assert (scheduler.is_up, storage.is_up) == (True, False)
