"""Tests of the tasks in threads."""

from __future__ import annotations

import contextvars
import select
import threading

import pytest

from lunport.host.tasks import Stop, TaskGroup, run_all

NAME = contextvars.ContextVar("NAME", default="nobody")


def test_all_run_and_all_is_kept() -> None:
    """Every task runs; results and errors come back in the order given."""

    def fail() -> int:
        raise ValueError("broken")

    first, second, third = run_all({"a": lambda: 1, "b": fail, "c": lambda: 3})
    assert (first.name, first.unwrap(), third.unwrap()) == ("a", 1, 3)
    with pytest.raises(ValueError, match="broken"):
        second.unwrap()


def test_no_more_run_at_once_than_allowed() -> None:
    """The bound on tasks at once holds, and all of them run all the same."""
    running, most = set[int](), list[int]()
    lock, pause = threading.Lock(), threading.Event()

    def work(number: int) -> int:
        with lock:
            running.add(number)
            most.append(len(running))
        pause.wait(0.005)
        with lock:
            running.discard(number)
        return number

    reports = run_all({str(n): lambda n=n: work(n) for n in range(12)}, limit=3)  # type: ignore[misc]  # mypy cannot infer a default
    assert [report.unwrap() for report in reports] == list(range(12))
    assert 1 <= max(most) <= 3


def test_context_variables_reach_the_task() -> None:
    """A task sees the context of whoever started it."""
    token = NAME.set("volume-1")
    try:
        (report,) = run_all({"a": NAME.get})
    finally:
        NAME.reset(token)
    assert report.unwrap() == "volume-1"


def test_no_tasks() -> None:
    """Nothing to run gives no reports."""
    assert list(run_all({})) == []


def test_leaving_the_group_stops_and_joins() -> None:
    """Leaving the block raises the stop flag and waits for every thread."""
    before = set(threading.enumerate())
    with TaskGroup[bool]("test") as group:
        stop = group.stop

        def wait_for_stop() -> bool:
            poll = select.poll()
            poll.register(stop, select.POLLIN)
            return bool(poll.poll(10_000))

        group.start("one", wait_for_stop)
        group.start("two", wait_for_stop)
        assert group.next_report(0.0) is None
    assert set(threading.enumerate()) == before
    one, two = group.next_report(0.0), group.next_report(0.0)
    assert one is not None
    assert two is not None
    assert {one.name, two.name} == {"one", "two"}
    assert one.unwrap()


def test_an_error_in_the_block_still_joins() -> None:
    """Threads are joined when the block ends by an error too."""
    before = set(threading.enumerate())

    def fail_inside() -> None:
        with TaskGroup[bool]("test") as group:
            stop = group.stop
            group.start("one", lambda: bool(stop.is_set()))
            raise KeyError("inside")

    with pytest.raises(KeyError):
        fail_inside()
    assert set(threading.enumerate()) == before


def test_a_stop_can_be_polled() -> None:
    """The flag's descriptor is readable from when it is set, however often it is polled."""
    stop = Stop()
    poll = select.poll()
    poll.register(stop, select.POLLIN)
    assert poll.poll(0) == []
    stop.set()
    stop.set()
    assert stop.is_set()
    assert [poll.poll(0), poll.poll(0)] == [[(stop.fileno(), select.POLLIN)]] * 2
    stop.close()
