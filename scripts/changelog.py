#!/usr/bin/env python3
"""Make the changelog of the next release from the fragments in ``changes/``.

Without arguments prints it; ``--check`` only says whether every fragment fits; ``--release
VERSION --date DATE`` writes it into CHANGELOG.md and removes the fragments. The convention is
in ``changes/README.md``. Standard library only.
"""

from __future__ import annotations

import argparse
import re
import sys
from pathlib import Path

KINDS = ("security", "added", "changed", "fixed", "removed")
MARK = "<!-- releases -->\n"
MAX_SIGNS = 600
_NAME = re.compile(r"[a-z0-9]+(?:-[a-z0-9]+)*\.(?P<kind>[a-z]+)\.md")


class BadFragment(Exception):
    """A file in ``changes/`` that does not follow the convention."""


def read_fragments(folder: Path) -> dict[str, list[str]]:
    """Read the fragments by kind, in the order of their names. Raises: BadFragment."""
    entries: dict[str, list[str]] = {kind: [] for kind in KINDS}
    for path in fragments_in(folder):
        name = _NAME.fullmatch(path.name)
        if name is None or name["kind"] not in KINDS:
            raise BadFragment(
                f"{path.name}: expected TOPIC.KIND.md with a kind of {', '.join(KINDS)}"
            )
        text = " ".join(path.read_text().split())
        if (
            not text.endswith((".", "`"))
            or len(text) > MAX_SIGNS
            or text.startswith(("#", "-", "*"))
        ):
            raise BadFragment(
                f"{path.name}: expected one to three whole sentences, no heading or list"
            )
        entries[name["kind"]].append(text)
    return entries


def fragments_in(folder: Path) -> list[Path]:
    """List the fragments' files."""
    return sorted(path for path in folder.iterdir() if path.name != "README.md")


def format_release(entries: dict[str, list[str]], title: str) -> str:
    """Format one release's chapter; kinds without an entry have no heading."""
    chapters = [f"## {title}\n"]
    for kind, texts in entries.items():
        if texts:
            items = "\n".join(f"- {text}" for text in texts)
            chapters.append(f"### {kind.capitalize()}\n\n{items}\n")
    return "\n".join(chapters)


def insert_release(changelog: str, chapter: str) -> str:
    """Put a chapter above the earlier ones. Raises: ValueError (the mark is not there)."""
    head, mark, rest = changelog.partition(MARK)
    if not mark:
        raise ValueError(f"CHANGELOG.md has no line {MARK.strip()}")
    return f"{head}{mark}\n{chapter}{rest}"


def main(argv: list[str]) -> int:
    """Do what the command line says."""
    parser = argparse.ArgumentParser(description=(__doc__ or "").splitlines()[0])
    parser.add_argument("--check", action="store_true", help="only check the fragments")
    parser.add_argument("--release", metavar="VERSION", help="write CHANGELOG.md")
    parser.add_argument("--date", metavar="YYYY-MM-DD", help="the day of the release")
    options = parser.parse_args(argv)
    if bool(options.release) != bool(options.date):
        parser.error("--release and --date go together")
    root = Path(__file__).parents[1]
    try:
        entries = read_fragments(root / "changes")
    except BadFragment as error:
        print(f"changes/{error}", file=sys.stderr)
        return 1
    if options.check:
        return 0
    if not options.release:
        print(format_release(entries, "Next release"), end="")
        return 0
    changelog = root / "CHANGELOG.md"
    chapter = format_release(entries, f"{options.release} ({options.date})")
    changelog.write_text(insert_release(changelog.read_text(), chapter))
    for path in fragments_in(root / "changes"):
        path.unlink()
    return 0


if __name__ == "__main__":
    sys.exit(main(sys.argv[1:]))
