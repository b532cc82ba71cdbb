"""The page of quirks is what the source says."""

from __future__ import annotations

from scripts import quirks_page


def test_the_page_is_current() -> None:
    """docs/reference/quirks.md was written after the last change of a quirk."""
    assert quirks_page.PAGE.read_text(encoding="utf-8") == quirks_page.as_markdown()


def test_each_quirk_says_enough() -> None:
    """Every quirk names its tool and says more than a few words."""
    quirks = quirks_page.read_quirks()
    assert len(quirks) >= 10
    assert all(tool and len(text.split()) >= 8 for tool, text, _ in quirks)
