"""Tests of how a resolver's answer is read; asking is tested on the real resolver."""

from __future__ import annotations

from hypothesis import given
from hypothesis import strategies as st

from lunport.core.portal import Portal
from lunport.host.clock import Deadline
from lunport.host.resolve import parse_ahosts, resolve_portal

ANSWER = """\
fd00::2         STREAM san-a.example
fd00::2         DGRAM
10.0.1.2        STREAM
10.0.1.2        RAW
fe80::1%eth0    STREAM
"""


def test_addresses_come_once_in_order() -> None:
    """Each address comes once, in the system's order, without those of one link only."""
    assert parse_ahosts(ANSWER, 3261) == (Portal("fd00::2", 3261), Portal("10.0.1.2", 3261))


@given(st.text(max_size=80))
def test_any_answer_is_read(text: str) -> None:
    """Whatever the resolver prints, what comes out are literal addresses."""
    assert all(portal.is_literal for portal in parse_ahosts(text, 3260))


def test_an_address_needs_no_resolver() -> None:
    """A literal address is its own answer; no program is run for it."""
    portal = Portal("fd00::2", 3260)
    assert resolve_portal(portal, Deadline.after(0)) == (portal,)
