"""Waiting for the end of accepted work: whoever waits is told, and nobody waits in vain."""

from __future__ import annotations

import threading

from lunport.host.clock import Deadline
from lunport.store.operations import Operation
from lunport.volume.worklist import WorkList

OPERATION = Operation(1, "create", "a-volume", {}, "req-1", "2026-11-20T21:38:00.123456")
PATIENCE_S = 30.0


def test_who_waits_for_an_operation_learns_of_its_end() -> None:
    """A wait ends with the operation, long before its deadline."""
    work = WorkList()
    work.add(OPERATION)
    taken = work.take()
    assert taken is not None
    found: list[bool] = []
    waiter = threading.Thread(
        target=lambda: found.append(
            work.wait_for_end(OPERATION, Deadline.after(PATIENCE_S), at_most=1)
        )
    )
    waiter.start()
    work.done(taken)
    waiter.join(PATIENCE_S)
    assert found == [True]


def test_an_operation_that_has_ended_is_not_waited_for() -> None:
    """What is on the list no more has ended, whatever the deadline."""
    work = WorkList()
    work.add(OPERATION)
    taken = work.take()
    assert taken is not None
    work.done(taken)
    assert work.wait_for_end(OPERATION, Deadline.after(PATIENCE_S), at_most=0)


def test_a_wait_ends_with_its_deadline() -> None:
    """Work that goes on is reported as such, and may be waited for again."""
    work = WorkList()
    work.add(OPERATION)
    assert not work.wait_for_end(OPERATION, Deadline.after(0), at_most=1)
    assert not work.wait_for_end(OPERATION, Deadline.after(0), at_most=1)


def test_only_so_many_wait() -> None:
    """Where enough wait already nobody else does, and the work goes on all the same."""
    work = WorkList()
    work.add(OPERATION)
    assert not work.wait_for_end(OPERATION, Deadline.after(PATIENCE_S), at_most=0)
    assert work.take() == OPERATION
