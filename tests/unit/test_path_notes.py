"""Notes of paths: written and read back, and junk that is as if nothing were noted."""

from __future__ import annotations

import json
from pathlib import Path

from hypothesis import given
from hypothesis import strategies as st

from lunport.core.path_status import PathState
from lunport.host.path_notes import PathNote, PathNotes, format_path_notes, parse_path_notes

KEY = "naa.60014050000000000000000000000001"
PATH = "10.0.1.2:3260 iqn.2026-11.example:a lun 1"

texts = st.text(st.characters(exclude_categories=["Cs"]), max_size=40)
notes = st.dictionaries(
    texts,
    st.builds(
        PathNote,
        state=st.sampled_from(PathState),
        since=st.floats(allow_nan=False, allow_infinity=False),
        why=st.none() | texts,
    ),
    max_size=5,
)


@given(notes)
def test_what_is_written_is_read(given_notes: dict[str, PathNote]) -> None:
    """Notes parse to what was formatted."""
    assert dict(parse_path_notes(format_path_notes(given_notes))) == given_notes


@given(
    st.text()
    | st.recursive(
        st.none() | st.booleans() | st.integers() | st.floats() | texts,
        lambda inner: (
            st.lists(inner)
            | st.dictionaries(
                st.sampled_from(["version", "paths", "state", "since", "why", PATH]), inner
            )
        ),
    ).map(json.dumps)
)
def test_junk_is_nothing_noted(text: str) -> None:
    """Whatever a file holds, reading it gives notes and no error."""
    assert all(isinstance(note, PathNote) for note in parse_path_notes(text).values())


def test_notes_are_kept_by_connection_and_forgotten(tmp_path: Path) -> None:
    """What is noted of one connection is read back, replaced and removed, twice if asked."""
    kept = PathNotes(tmp_path / "paths")
    assert (kept.read(KEY), kept.connections()) == ({}, ())
    first = {PATH: PathNote(PathState.MISSING, 1790000000.0, "no answer within 5 s")}
    assert kept.write(KEY, first)
    assert (dict(kept.read(KEY)), kept.connections()) == (first, (KEY,))
    second = {PATH: PathNote(PathState.LIVE, 1790000009.0)}
    assert kept.write(KEY, second)
    assert dict(kept.read(KEY)) == second
    kept.remove(KEY)
    kept.remove(KEY)
    assert (kept.read(KEY), kept.connections()) == ({}, ())


def test_what_is_no_key_is_no_file(tmp_path: Path) -> None:
    """A key that could leave the folder is not written, read or removed."""
    kept = PathNotes(tmp_path / "paths")
    (tmp_path / "outside.json").write_text("{}")
    assert not kept.write("../outside", {})
    assert kept.read("../outside") == {}
    kept.remove("../outside")
    assert (tmp_path / "outside.json").exists()


def test_a_folder_that_cannot_be_used_fails_nobody(tmp_path: Path) -> None:
    """Where the folder is a file, nothing is noted and nothing raised."""
    (tmp_path / "paths").write_text("")
    kept = PathNotes(tmp_path / "paths")
    assert not kept.write(KEY, {})
    assert (kept.read(KEY), kept.connections()) == ({}, ())
    kept.remove(KEY)
