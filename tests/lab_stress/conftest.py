"""The lab's fixtures, and how much of the stress is wanted.

``make stress`` runs this folder in the lab, ``make lab`` does not. ``LUNPORT_STRESS_PART=0.05``
tries a twentieth of it.
"""

from __future__ import annotations

import os
from collections.abc import Iterator

import pytest

from tests.lab.conftest import lab_host as lab_host
from tests.lab.conftest import leftovers as leftovers
from tests.lab.conftest import pytest_runtest_logreport as pytest_runtest_logreport
from tests.lab.conftest import san as san
from tests.lab.kill_play import Player

# Read at import: a test session takes all LUNPORT_ variables away.
_PART = float(os.environ.get("LUNPORT_STRESS_PART", "1"))


def part_of(count: int) -> int:
    """Scale a number of rounds."""
    return max(1, round(_PART * count))


@pytest.fixture
def player() -> Iterator[Player]:
    """The process that plays acts and is killed in their place."""
    with Player.started() as made:
        yield made
