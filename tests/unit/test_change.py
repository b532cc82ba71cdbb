"""Tests of what idempotent verbs say."""

from __future__ import annotations

import functools
import operator

from hypothesis import given
from hypothesis import strategies as st

from lunport.core.change import Change


@given(st.lists(st.sampled_from(Change), min_size=1))
def test_changed_wins(changes: list[Change]) -> None:
    """Verbs done one after another changed something exactly if one of them did."""
    together = functools.reduce(operator.or_, changes)
    assert (together is Change.CHANGED) is (Change.CHANGED in changes)
