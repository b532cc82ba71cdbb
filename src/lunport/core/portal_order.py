"""In which order a host is told the portals of a target; the first is the main one.

Chosen once, when a host is connected, and kept with the connection: a host that asks again is
told the same. What changes is only what can't be helped: portals that are configured no more
are left out, new ones come behind, and one that is not bound now is never before one that is.
"""

from __future__ import annotations

from collections.abc import Collection, Mapping, Sequence
from typing import Literal

from lunport.core.portal import Portal

PortalOrder = Literal["fixed", "rotate", "least_loaded"]


def order_portals(
    portals: Sequence[Portal],
    order: PortalOrder,
    *,
    turn: int,
    load: Mapping[Portal, int],
    missing: Collection[Portal] = (),
) -> tuple[Portal, ...]:
    """Put configured portals in order for a new connection.

    ``turn`` counts what is connected (``rotate``); ``load`` tells how many connections have a
    portal as their main one (``least_loaded``): the fewest first, and of equals the one that
    is configured first.
    """
    ordered = tuple(portals)
    if order == "rotate" and ordered:
        first = turn % len(ordered)
        ordered = ordered[first:] + ordered[:first]
    elif order == "least_loaded":
        ordered = tuple(sorted(ordered, key=lambda portal: load.get(portal, 0)))
    return _missing_last(ordered, missing)


def keep_order(
    chosen: Sequence[Portal], portals: Sequence[Portal], missing: Collection[Portal] = ()
) -> tuple[Portal, ...]:
    """Return the order that was chosen, as far as it can still be had."""
    kept = [portal for portal in chosen if portal in portals]
    return _missing_last([*kept, *(portal for portal in portals if portal not in kept)], missing)


def _missing_last(portals: Sequence[Portal], missing: Collection[Portal]) -> tuple[Portal, ...]:
    return tuple(sorted(portals, key=lambda portal: portal in missing))
