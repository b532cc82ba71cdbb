"""The order of portals: by policy for a new connection, kept for one that is there."""

from __future__ import annotations

import pytest
from hypothesis import given
from hypothesis import strategies as st

from lunport.core.portal import Portal
from lunport.core.portal_order import PortalOrder, keep_order, order_portals

A, B, C = (Portal(f"10.0.{number}.2") for number in (1, 2, 3))
portals = st.lists(st.sampled_from((A, B, C)), unique=True, min_size=1)
some = st.frozensets(st.sampled_from((A, B, C)))


@pytest.mark.parametrize(
    "order, turn, load, expected",
    [
        ("fixed", 1, {A: 9}, [A, B, C]),
        ("rotate", 0, {}, [A, B, C]),
        ("rotate", 1, {}, [B, C, A]),
        ("rotate", 5, {A: 9}, [C, A, B]),
        ("least_loaded", 1, {}, [A, B, C]),
        ("least_loaded", 0, {A: 2, B: 1, C: 1}, [B, C, A]),
        ("least_loaded", 0, {A: 1, B: 1}, [C, A, B]),
    ],
)
def test_orders(
    order: PortalOrder, turn: int, load: dict[Portal, int], expected: list[Portal]
) -> None:
    """Fixed is the configuration's, rotate goes round, least_loaded begins with the fewest."""
    assert list(order_portals([A, B, C], order, turn=turn, load=load)) == expected


@given(
    portals,
    st.sampled_from(("fixed", "rotate", "least_loaded")),
    st.integers(0, 9),
    st.dictionaries(st.sampled_from((A, B, C)), st.integers(0, 3)),
    some,
)
def test_none_is_lost_and_a_missing_one_does_not_lead(
    configured: list[Portal],
    order: PortalOrder,
    turn: int,
    load: dict[Portal, int],
    missing: frozenset[Portal],
) -> None:
    """Every portal is named once, and those that are not bound come last."""
    ordered = order_portals(configured, order, turn=turn, load=load, missing=missing)
    assert sorted(ordered) == sorted(configured)
    behind = [portal in missing for portal in ordered]
    assert behind == sorted(behind)


@given(portals, portals, some)
def test_a_kept_order_stays(
    chosen: list[Portal], configured: list[Portal], missing: frozenset[Portal]
) -> None:
    """What was chosen keeps its order, without what is configured no more, new ones behind."""
    kept = keep_order(chosen, configured, missing)
    assert sorted(kept) == sorted(configured)
    there = [portal for portal in kept if portal not in missing]
    old = [portal for portal in there if portal in chosen]
    assert old == [portal for portal in chosen if portal in old]
    assert there[: len(old)] == old
    assert kept[: len(there)] == tuple(there)
    assert keep_order(kept, configured, missing) == kept
