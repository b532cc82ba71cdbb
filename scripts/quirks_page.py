#!/usr/bin/env python3
"""Write docs/reference/quirks.md from the ``Quirk(TOOL):`` paragraphs in the source."""

from __future__ import annotations

import re
from pathlib import Path

ROOT = Path(__file__).parents[1]
PAGE = ROOT / "docs" / "reference" / "quirks.md"
_START = re.compile(r"^\s*(?:# )?Quirk\((?P<tool>[\w-]+)\): (?P<text>.*)$")

HEAD = """# Quirks of the programs we live with

Surprising behaviour that was seen and is worked around, gathered from the source by
`scripts/quirks_page.py`; the code beside each one is the workaround.
"""


def read_quirks() -> list[tuple[str, str, str]]:
    """Return (tool, text, file) of every quirk, by tool and file."""
    found = []
    for file in sorted((ROOT / "src").rglob("*.py")):
        lines = file.read_text(encoding="utf-8").splitlines()
        for index, line in enumerate(lines):
            started = _START.match(line)
            if started:
                text = [started["text"], *_continued(line, lines[index + 1 :])]
                name = str(file.relative_to(ROOT / "src"))
                found.append((started["tool"], " ".join(text), name))
    return sorted(found, key=lambda one: (one[0], one[2]))


def as_markdown() -> str:
    """Write the page."""
    parts = [HEAD]
    tool = ""
    for now, text, name in read_quirks():
        if now != tool:
            parts.append(f"\n## {now}\n\n")
            tool = now
        parts.append(f"- {text.replace('``', '`')} (`{name}`)\n")
    return "".join(parts)


def _continued(first: str, rest: list[str]) -> list[str]:
    """Return the lines that go on: comment lines, or a docstring's until it or the text ends."""
    is_comment = first.lstrip().startswith("#")
    words = []
    for line in rest:
        text = line.strip()
        if _START.match(line) or not text or text.startswith('"""'):
            break
        if is_comment != text.startswith("#"):
            break
        words.append(text.removeprefix("#").strip())
    return words


if __name__ == "__main__":
    PAGE.write_text(as_markdown(), encoding="utf-8")
    print(PAGE)
