"""Calls that may block for longer than anybody waits."""

from __future__ import annotations

import threading

import pytest

from lunport.core.errors import DeviceStuck
from lunport.host.blocking import call_until, call_within
from lunport.host.clock import Deadline


def test_a_call_that_ends_gives_its_value_or_its_error() -> None:
    """What the call returns or raises is the caller's."""

    def fail() -> None:
        raise OSError(5, "broken")

    soon = Deadline.after(30)
    assert call_within(lambda: 7, soon, "a look", device="sda") == 7
    with pytest.raises(OSError, match="broken"):
        call_within(fail, soon, "a look", device="sda")
    with pytest.raises(OSError, match="broken"):
        call_until(fail, lambda: True, soon, "a look", device="sda")


def test_a_call_that_does_not_end_is_left_at_the_deadline() -> None:
    """The caller hears what was stuck."""
    over = threading.Event()
    try:
        with pytest.raises(DeviceStuck, match="sda: a look"):
            call_within(over.wait, Deadline.after(0.01), "a look", device="sda")
        with pytest.raises(DeviceStuck, match="sda: a look"):
            call_until(over.wait, lambda: False, Deadline.after(0.01), "a look", device="sda")
    finally:
        over.set()


def test_a_call_need_not_end_once_its_purpose_is_reached() -> None:
    """What it was for is done, so nobody waits for its end."""
    over = threading.Event()
    try:
        call_until(over.wait, lambda: True, Deadline.after(30), "a removal", device="sda")
        assert not over.is_set()
    finally:
        over.set()
