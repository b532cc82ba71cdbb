"""Tests of the order in which paths are tried."""

from __future__ import annotations

import pytest
from hypothesis import given
from hypothesis import strategies as st

from lunport.core.errors import InvalidConnectionInfo
from lunport.core.iqn import Iqn
from lunport.core.login_plan import plan_logins
from lunport.core.portal import Portal
from lunport.core.target_path import TargetPath

IQN = Iqn("iqn.2026-11.org.example:volume-1")
A, B, C, D = (TargetPath(Portal(f"10.0.0.{n}"), IQN, 1) for n in (1, 2, 3, 4))
PATHS = st.lists(st.sampled_from([A, B, C, D]), min_size=1, max_size=8)
DEAD = st.frozensets(st.sampled_from([path.portal for path in (A, B, C, D)]))


def test_the_order_of_the_connection_info_is_kept() -> None:
    """With nothing remembered the main path is first and the alternatives follow in order."""
    assert plan_logins([B, A, C], frozenset()).paths == (B, A, C)


def test_dead_portals_are_tried_last() -> None:
    """A portal seen dead lately is tried after all others, and the plan says so."""
    plan = plan_logins([A, B, C, D], {A.portal, C.portal})
    assert plan.paths == (B, D, A, C)
    assert plan.postponed == {A, C}


def test_a_memory_of_all_portals_is_ignored() -> None:
    """When every portal is remembered as dead the order is that of the connection info."""
    plan = plan_logins([A, B], {A.portal, B.portal, C.portal})
    assert (plan.paths, plan.postponed) == ((A, B), frozenset())


def test_no_path_is_refused() -> None:
    """Without a path there is nothing to plan."""
    with pytest.raises(InvalidConnectionInfo, match="at least one path"):
        plan_logins([], frozenset())


@given(PATHS, DEAD)
def test_each_path_is_planned_once(paths: list[TargetPath], dead: frozenset[Portal]) -> None:
    """A plan has each path exactly once, whatever is remembered."""
    plan = plan_logins(paths, dead)
    assert len(set(plan.paths)) == len(plan.paths)
    assert set(plan.paths) == set(paths)


@given(PATHS, DEAD)
def test_order_is_kept_among_the_living_and_among_the_dead(
    paths: list[TargetPath], dead: frozenset[Portal]
) -> None:
    """Postponing changes the order of no two paths that are both living or both dead."""
    plan = plan_logins(paths, dead)
    wanted = tuple(dict.fromkeys(paths))
    early = tuple(path for path in plan.paths if path not in plan.postponed)
    late = tuple(path for path in plan.paths if path in plan.postponed)
    assert plan.paths == early + late
    assert early == tuple(path for path in wanted if path not in plan.postponed)
    assert late == tuple(path for path in wanted if path in plan.postponed)
    assert all(path.portal in dead for path in late)
