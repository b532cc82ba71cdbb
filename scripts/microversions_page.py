#!/usr/bin/env python3
"""Write docs/reference/microversions.md from the table in lunport.api.microversions."""

from __future__ import annotations

from pathlib import Path

from lunport.api.microversions import as_markdown

PAGE = Path(__file__).parents[1] / "docs" / "reference" / "microversions.md"

if __name__ == "__main__":
    PAGE.write_text(as_markdown(), encoding="utf-8")
    print(PAGE)
