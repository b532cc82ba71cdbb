"""One look through the programs serves all who ask, and is never older than the question."""

from __future__ import annotations

import threading
import time
from concurrent.futures import ThreadPoolExecutor

import pytest

from lunport.core.errors import DeviceStuck
from lunport.host.clock import Deadline
from lunport.host.open_devices import Openers, SharedLook, look_through_programs

A_WHILE_S = 20.0


class Looks:
    """Looks that a test lets end. ``began``: when each one did."""

    def __init__(self) -> None:
        self.began: list[float] = []
        self.may_end = threading.Event()
        self.has_begun = threading.Event()
        self.pause = threading.Event()

    def __call__(self) -> Openers:
        self.began.append(time.monotonic())
        self.has_begun.set()
        assert self.may_end.wait(A_WHILE_S)
        return {"8:0": (f"look {len(self.began)}",)}


def test_who_asks_during_a_look_gets_the_next_with_all_others() -> None:
    """Ten who ask while one looks are served by one look more, which began after they asked."""
    looks = Looks()
    shared = SharedLook(looks)
    asked: list[float] = []

    def ask() -> Openers:
        asked.append(time.monotonic())
        return shared.take(Deadline.after(A_WHILE_S), device="sda")

    with ThreadPoolExecutor(11) as pool:
        first = pool.submit(ask)
        assert looks.has_begun.wait(A_WHILE_S)
        others = [pool.submit(ask) for _ in range(10)]
        until = Deadline.after(A_WHILE_S)
        while len(asked) < 11 and not until.has_passed():
            looks.pause.wait(0.01)
        looks.pause.wait(0.1)  # for the last of them to be in its turn
        looks.may_end.set()
        assert first.result(A_WHILE_S) == {"8:0": ("look 1",)}
        assert {other.result(A_WHILE_S)["8:0"] for other in others} == {("look 2",)}
    assert len(looks.began) == 2
    assert looks.began[1] > max(asked)


def test_a_look_that_hangs_ends_with_each_ones_own_time() -> None:
    """Whoever waits behind a look that does not end gives up at his deadline, and not before."""
    looks = Looks()
    shared = SharedLook(looks)
    began = time.monotonic()
    with ThreadPoolExecutor(2) as pool:
        short = pool.submit(shared.take, Deadline.after(0.2), device="sda")
        assert looks.has_begun.wait(A_WHILE_S)
        longer = pool.submit(shared.take, Deadline.after(0.6), device="sdb")
        with pytest.raises(DeviceStuck, match="sda"):
            short.result(A_WHILE_S)
        with pytest.raises(DeviceStuck, match="sdb"):
            longer.result(A_WHILE_S)
    assert time.monotonic() - began >= 0.6
    looks.may_end.set()
    assert shared.take(Deadline.after(A_WHILE_S), device="sda")


def test_an_error_of_the_look_is_everybodys() -> None:
    """What /proc refuses is told, and the next look is another."""
    found: list[OSError | Openers] = [PermissionError("no"), {}]

    def look() -> Openers:
        one = found.pop(0)
        if isinstance(one, OSError):
            raise one
        return one

    shared = SharedLook(look)
    with pytest.raises(PermissionError):
        shared.take(Deadline.after(A_WHILE_S), device="sda")
    assert shared.take(Deadline.after(A_WHILE_S), device="sda") == {}


def test_what_is_open_here_is_no_block_device() -> None:
    """A look at this machine ends, and a test's files are none of a disk's."""
    assert all(number.count(":") == 1 for number in look_through_programs())
