"""The changelog's fragments and what is made of them."""

from __future__ import annotations

from pathlib import Path

import pytest

from scripts.changelog import BadFragment, format_release, insert_release, read_fragments

ROOT = Path(__file__).parents[2]


def test_the_fragments_of_this_tree_fit() -> None:
    """Every file in changes/ follows the convention, so that a release cannot stumble over it."""
    read_fragments(ROOT / "changes")


def test_fragments_become_a_chapter(tmp_path: Path) -> None:
    """Entries stand under their kind, one line each; a kind without entries has no heading."""
    (tmp_path / "README.md").write_text("not a fragment")
    (tmp_path / "b-two.fixed.md").write_text("A thing\nis right now.\n")
    (tmp_path / "a-one.fixed.md").write_text("Another is.\n")
    (tmp_path / "17.security.md").write_text("Beware.\n")
    assert format_release(read_fragments(tmp_path), "1.2.3 (2026-12-01)") == (
        "## 1.2.3 (2026-12-01)\n\n"
        "### Security\n\n- Beware.\n\n"
        "### Fixed\n\n- Another is.\n- A thing is right now.\n"
    )


@pytest.mark.parametrize(
    "name,text",
    [
        ("a.better.md", "A sentence."),
        ("a.md", "A sentence."),
        ("A thing.added.md", "A sentence."),
        ("a.added.txt", "A sentence."),
        ("a.added.md", "no end"),
        ("a.added.md", ""),
        ("a.added.md", "# Heading."),
        ("a.added.md", "Long. " * 200),
    ],
)
def test_what_does_not_fit_is_refused(tmp_path: Path, name: str, text: str) -> None:
    """A wrong name or text is refused by name, rather than lost at the release."""
    (tmp_path / name).write_text(text)
    with pytest.raises(BadFragment, match=name.split(maxsplit=1)[0]):
        read_fragments(tmp_path)


def test_a_release_goes_above_the_earlier_ones() -> None:
    """The newest chapter stands first; what was there stays as it was."""
    once = insert_release("# Changelog\n\n<!-- releases -->\n", "## 1\n")
    twice = insert_release(once, "## 2\n")
    assert twice == "# Changelog\n\n<!-- releases -->\n\n## 2\n\n## 1\n"


def test_a_changelog_without_its_mark_is_refused() -> None:
    """Nothing is written into a file whose place for releases is gone."""
    with pytest.raises(ValueError, match="releases"):
        insert_release("# Changelog\n", "## 1\n")
