"""What the kernel says of a multipath map."""

from __future__ import annotations

from collections.abc import Sequence

import pytest
from hypothesis import given
from hypothesis import strategies as st

from lunport.core.errors import InvalidInput
from lunport.core.multipath_table import (
    GroupState,
    MapPath,
    MapStatus,
    PathGroup,
    parse_map_status,
)

# of kernel 6.1 and multipath-tools 0.9.4, with LIO
STATUS = "2 0 1 0 1 1 A 0 2 2 8:0 A 0 90112 1 8:16 F 3 143360 1"
TABLE = "1 queue_if_no_path 1 alua 1 1 service-time 0 2 2 8:0 1 1 8:16 1 1"
FAILING = "2 pg_init_retries 50 1 alua 1 1 service-time 0 2 2 8:0 1 1 8:16 1 1"

words = st.from_regex(r"[a-z0-9_:-]{1,12}", fullmatch=True)
counts = st.integers(0, 999_999_999)
numbers = st.builds("{}:{}".format, st.integers(0, 4095), st.integers(0, 1 << 20))


@st.composite
def statuses(draw: st.DrawFn) -> MapStatus:
    """Maps of any paths, each once."""
    members = draw(st.lists(numbers, max_size=8, unique=True))
    paths = [MapPath(number, draw(st.booleans()), draw(counts)) for number in members]
    cuts = sorted(draw(st.lists(st.integers(0, len(paths)), max_size=3)))
    groups = tuple(
        PathGroup(draw(st.sampled_from(GroupState)), tuple(paths[first:last]))
        for first, last in zip([0, *cuts], [*cuts, len(paths)], strict=True)
    )
    return MapStatus(draw(st.booleans()), groups)


def written(status: MapStatus, draw: st.DataObject) -> tuple[str, str]:
    """Write both texts as dm-mpath.c does, with arguments of any selector."""
    more = draw.draw(st.integers(0, 3))

    def some(count: int) -> Sequence[str]:
        return draw.draw(st.lists(words, min_size=count, max_size=count))

    def counted() -> list[str]:
        found = draw.draw(st.lists(words, max_size=3))
        return [str(len(found)), *found]

    text = [*counted(), *counted(), str(len(status.groups)), "1"]
    for group in status.groups:
        text += [group.state.value, *counted(), str(len(group.paths)), str(more)]
        for path in group.paths:
            text += [path.number, "A" if path.is_usable else "F", str(path.failures), *some(more)]
    features = ["queue_if_no_path"] if status.queues else []
    features += draw.draw(st.lists(words, max_size=3))
    return " ".join(text), " ".join([str(len(features)), *features, "0", "0", "0"])


@given(statuses(), st.data())
def test_what_the_kernel_writes_is_read_as_it_was_meant(
    status: MapStatus, data: st.DataObject
) -> None:
    """Whatever groups, paths and selectors a map has, both texts read as that map."""
    assert parse_map_status(*written(status, data)) == status


@given(st.text(), st.text())
def test_junk_gets_our_error(status: str, table: str) -> None:
    """No text makes anything but a map or InvalidInput."""
    try:
        parse_map_status(status, table)
    except InvalidInput:
        return


@given(st.data())
def test_a_text_that_is_cut_off_is_refused(data: st.DataObject) -> None:
    """A status without its last words is never taken for a smaller map."""
    shown = STATUS.split()
    kept = data.draw(st.integers(0, len(shown) - 1))
    with pytest.raises(InvalidInput):
        parse_map_status(" ".join(shown[:kept]), TABLE)


def test_usable_and_failed_paths_are_told_apart() -> None:
    """A path is usable or failed, and says how often it failed."""
    status = parse_map_status(STATUS, TABLE)
    assert status.paths == {"8:0": True, "8:16": False}
    assert status.usable == ("8:0",)
    assert [group.state for group in status.groups] == [GroupState.ACTIVE]
    assert [path.failures for path in status.groups[0].paths] == [0, 3]


def test_whether_a_map_queues_is_read_from_its_table() -> None:
    """A feature of the table says it; the features of the status are about something else."""
    assert parse_map_status(STATUS, TABLE).queues
    assert not parse_map_status(STATUS, FAILING).queues
    assert not parse_map_status(STATUS.replace("2 0 1", "2 1 1", 1), FAILING).queues


def test_a_map_may_have_no_path() -> None:
    """A map whose last path went is a map without groups."""
    assert parse_map_status("2 0 0 0 0 0", "0 0 0 0") == MapStatus(queues=False, groups=())


@pytest.mark.parametrize(
    "status",
    [
        "0 524288 linear",
        "2 0 0 0 1 1 X 0 1 0 8:0 A 0",
        "2 0 0 0 1 1 A 0 1 0 sda A 0",
        "2 0 0 0 1 1 A 0 1 0 8:0 G 0",
        "2 0 0 0 1 1 A 0 1 0 8:0 A -1",
        "2 0 0 0 1 1 A 0 999999999 2 8:0 A 0",
        STATUS + " 8:32",
    ],
)
def test_other_targets_and_broken_texts_are_refused(status: str) -> None:
    """What is no status of a multipath map is not read as one."""
    with pytest.raises(InvalidInput):
        parse_map_status(status, TABLE)
