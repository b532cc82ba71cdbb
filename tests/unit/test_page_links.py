"""The pages: what they link is there, and a reader who follows links finds every page."""

from __future__ import annotations

import re
from pathlib import Path

ROOT = Path(__file__).resolve().parents[2]
_LINK = re.compile(r"\]\(([^)#\s]+)(?:#[^)]*)?\)")
_CODE = re.compile(r"^```.*?^```", re.DOTALL | re.MULTILINE)


def linked_from(page: Path) -> dict[str, Path]:
    """Return the files and folders of ours that a page links, by how it writes them."""
    text = _CODE.sub("", page.read_text())
    return {
        link: (page.parent / link).resolve()
        for link in _LINK.findall(text)
        if "://" not in link and not link.startswith("mailto:")
    }


def pages() -> set[Path]:
    """Return every page that people are meant to read."""
    found = {*ROOT.glob("*.md"), *ROOT.glob("docs/**/*.md")}
    return found | {ROOT / "bench/README.md", ROOT / "changes/README.md"}


def test_every_link_leads_somewhere() -> None:
    """A link to a file or folder of ours names one that exists."""
    dead = [
        f"{page.relative_to(ROOT)}: {link}"
        for page in sorted(pages())
        for link, file in linked_from(page).items()
        if not file.exists()
    ]
    assert dead == []


def test_every_page_is_found_from_the_first() -> None:
    """Whoever starts at README.md and follows links reaches every page."""
    seen: set[Path] = set()
    waiting = [ROOT / "README.md"]
    while waiting:
        page = waiting.pop()
        if page not in seen and page.suffix == ".md" and page.is_file():
            seen.add(page)
            waiting.extend(linked_from(page).values())
    assert sorted(str(page.relative_to(ROOT)) for page in pages() - seen) == []
