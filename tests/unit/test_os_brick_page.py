"""The page about os-brick says what the comparison in the lab holds to be so."""

from __future__ import annotations

import re
from pathlib import Path

from lunport.compat.os_brick.error_mapping import CONNECT, DISCONNECT, EXTEND
from tests.lab import os_brick_multipath_scenarios as several_paths
from tests.lab import os_brick_scenarios as one_path

DIFFERENCES = one_path.DIFFERENCES + several_paths.DIFFERENCES
SCENARIOS = {**one_path.SCENARIOS, **several_paths.SCENARIOS}
PAGE = (Path(__file__).parents[2] / "docs/reference/os-brick.md").read_text()


def section(title: str) -> str:
    """Return the text below a heading."""
    return PAGE.split(f"\n## {title}\n")[1].split("\n## ")[0]


def first_cells(text: str) -> set[str]:
    """Return what the first column of a table names."""
    return set(re.findall(r"^\| `([\w-]+)` \|", text, re.MULTILINE))


def test_every_row_is_proven_and_every_difference_has_a_row() -> None:
    """The rows of the table are the differences that the lab expects."""
    rows = first_cells(section("Where the answers differ on purpose"))
    assert rows == {difference.row for difference in DIFFERENCES}


def test_every_difference_is_of_a_scenario_that_is_played() -> None:
    """No difference waits for a scenario that nobody plays."""
    assert {difference.scenario for difference in DIFFERENCES} <= set(SCENARIOS.values())


def test_every_exception_that_is_raised_is_explained() -> None:
    """The exceptions of the tables, and the chain, are the ones on the page."""
    raised = {
        kind.__name__ for table in (CONNECT, DISCONNECT, EXTEND) for kind, _ in table.values()
    }
    assert first_cells(section("Which exception means what")) == raised | {"ExceptionChainer"}
