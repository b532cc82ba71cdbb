"""The document of a volume's paths: what is written is read back, and junk is refused."""

from __future__ import annotations

import contextlib
import json

import pytest
from hypothesis import given
from hypothesis import strategies as st

from lunport.core.errors import InvalidInput
from lunport.core.path_report import (
    MAX_REASON,
    VERSION,
    format_path_report,
    parse_path_report,
)
from lunport.core.path_status import PathState, PathStatus, VolumePaths
from tests import strategies

NAMES = st.text(st.characters(codec="utf-8", categories=["L", "N", "P"]), min_size=1, max_size=40)
COUNTS = st.integers(0, 2**63 - 1)
MOMENTS = st.floats(0, 1e11)
# No lone surrogates and no NUL: what UTF-8 and every database can carry.
REASONS = st.text(st.characters(codec="utf-8", exclude_characters="\0"), max_size=MAX_REASON)


def path_statuses(
    reasons: st.SearchStrategy[str] = REASONS,
) -> st.SearchStrategy[PathStatus]:
    """One path in whatever state."""
    return st.builds(
        PathStatus,
        path=strategies.target_paths(),
        iface=NAMES,
        state=st.sampled_from(PathState),
        sid=st.none() | COUNTS,
        device=st.none() | NAMES,
        since=st.none() | MOMENTS,
        why=st.none() | reasons,
    )


def volume_paths(
    reasons: st.SearchStrategy[str] = REASONS,
) -> st.SearchStrategy[VolumePaths]:
    """A volume with some paths."""
    return st.builds(
        VolumePaths,
        key=st.from_regex(r"[a-z0-9][a-z0-9.:_-]{0,119}", fullmatch=True),
        volume_id=st.none() | strategies.uuids(),
        wwid=st.none() | strategies.wwids(),
        device=st.none() | NAMES,
        map_name=st.none() | NAMES,
        size_bytes=st.none() | COUNTS,
        wanted=COUNTS,
        paths=st.lists(path_statuses(reasons), max_size=4).map(tuple),
    )


@given(volume_paths())
def test_what_is_written_is_read_back(volume: VolumePaths) -> None:
    """A report that went through JSON is the same volume with the same paths."""
    assert parse_path_report(json.loads(json.dumps(format_path_report(volume)))) == volume


@given(volume_paths(st.text(max_size=2 * MAX_REASON)))
def test_any_reason_can_be_reported(volume: VolumePaths) -> None:
    """Whatever a reason says, the report is one that is read, and reads the same once more."""
    document = format_path_report(volume)
    assert json.dumps(document, ensure_ascii=False).encode()
    assert format_path_report(parse_path_report(document)) == document


@given(strategies.json_values())
def test_junk_is_refused(value: object) -> None:
    """What is no report is refused with our error, and no other."""
    with pytest.raises(InvalidInput):
        parse_path_report(value)


@given(volume_paths(), st.data())
def test_junk_in_a_field_is_refused_or_read(volume: VolumePaths, data: st.DataObject) -> None:
    """One field of any value gives a report or our error, and no other."""
    document = format_path_report(volume)
    paths = document["paths"]
    assert isinstance(paths, list)
    targets: list[dict[str, object]] = [document, *paths]
    target = data.draw(st.sampled_from(targets))
    target[data.draw(st.sampled_from(sorted(target)))] = data.draw(strategies.json_values())
    with contextlib.suppress(InvalidInput):
        parse_path_report(document)


def a_volume() -> VolumePaths:
    """Return a volume without paths."""
    return VolumePaths("naa.6", None, None, None, None, None, wanted=2, paths=())


@pytest.mark.parametrize("key", sorted(format_path_report(a_volume())))
def test_a_missing_key_is_named(key: str) -> None:
    """A report without one of its keys is refused by that key's name, or the key follows."""
    document = format_path_report(a_volume())
    del document[key]
    if key in {"live", "state", "since"}:
        assert parse_path_report(document) == a_volume()
        return
    with pytest.raises(InvalidInput, match=key):
        parse_path_report(document)


def test_a_newer_version_is_refused() -> None:
    """A report of a later version is not guessed at."""
    with pytest.raises(InvalidInput, match="newer release"):
        parse_path_report({**format_path_report(a_volume()), "version": VERSION + 1})


def test_no_document_claims_health_that_its_paths_lack() -> None:
    """The state of a volume is computed from its paths, whatever the document says."""
    document = {**format_path_report(a_volume()), "state": "ok", "live": 7}
    assert format_path_report(parse_path_report(document))["state"] == "down"
