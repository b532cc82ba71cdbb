"""Run named tasks in threads that never outlive the call that started them.

Each task gets a copy of the caller's ``contextvars``, so that log fields survive. A
:class:`TaskGroup` hands over reports as they come; leaving it sets the group's :class:`Stop`
and joins every thread. :func:`run_all` is the plain form: run all, wait for all, keep every
result and every error. Decides nothing about order, retries or what an error means.
"""

from __future__ import annotations

import contextvars
import itertools
import os
import queue
import threading
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from types import TracebackType
from typing import Generic, Self, TypeVar

T = TypeVar("T")

_A_DAY_S = 86_400.0  # tasks end by their own deadlines


class Stop:
    """A flag that can be polled together with sockets: its descriptor is readable once set."""

    def __init__(self) -> None:
        self._descriptor = os.eventfd(0, os.EFD_CLOEXEC | os.EFD_NONBLOCK)
        self._is_set = threading.Event()

    def set(self) -> None:
        """Raise the flag, for good."""
        self._is_set.set()
        os.eventfd_write(self._descriptor, 1)

    def is_set(self) -> bool:
        """Tell whether the flag is up."""
        return self._is_set.is_set()

    def fileno(self) -> int:
        """Return the descriptor, for ``select.poll``. Never read from it."""
        return self._descriptor

    def close(self) -> None:
        """Give the descriptor back; nobody may poll it any more."""
        os.close(self._descriptor)


@dataclass(frozen=True, slots=True)
class Report(Generic[T]):
    """What a task that ended left: a value, or the error it raised."""

    name: str
    value: T | None
    error: Exception | None

    def unwrap(self) -> T:
        """Return the value, or raise the task's error."""
        if self.error is not None:
            raise self.error
        return self.value  # type: ignore[return-value]  # no error: the task returned a T


class TaskGroup(Generic[T]):
    """Start tasks, take their reports, and leave no thread behind.

    On leaving the ``with`` block ``stop`` is set and every thread is joined: a task must
    watch ``stop`` at each wait, or bound the wait by a deadline.
    """

    def __init__(self, name: str) -> None:
        self._name = name
        self._reports: queue.SimpleQueue[Report[T]] = queue.SimpleQueue()
        self._threads: list[threading.Thread] = []
        self.stop = Stop()

    def __enter__(self) -> Self:
        return self

    def __exit__(
        self,
        kind: type[BaseException] | None,
        error: BaseException | None,
        trace: TracebackType | None,
    ) -> None:
        self.stop.set()
        for thread in self._threads:
            thread.join()
        self.stop.close()

    def start(self, name: str, task: Callable[[], T]) -> None:
        """Start a task in a thread of its own."""
        context = contextvars.copy_context()
        thread = threading.Thread(
            target=context.run, args=(self._run, name, task), name=f"{self._name}:{name}"
        )
        thread.start()
        self._threads.append(thread)

    def next_report(self, timeout_s: float) -> Report[T] | None:
        """Wait for the next task to end; None when none did in time."""
        try:
            return self._reports.get(timeout=max(0.0, timeout_s))
        except queue.Empty:
            return None

    def _run(self, name: str, task: Callable[[], T]) -> None:
        try:
            report = Report(name, task(), None)
        except Exception as error:  # the top of a thread: the error goes to whoever waits
            report = Report(name, None, error)
        self._reports.put(report)


def run_all(tasks: Mapping[str, Callable[[], T]], *, limit: int = 8) -> Sequence[Report[T]]:
    """Run all tasks, at most ``limit`` at once; return their reports in the order given.

    A task that fails does not stop the others.
    """
    waiting = iter(tasks.items())
    done: dict[str, Report[T]] = {}
    with TaskGroup[T]("run-all") as group:
        for name, task in itertools.islice(waiting, max(1, limit)):
            group.start(name, task)
        while len(done) < len(tasks):
            report = group.next_report(_A_DAY_S)
            if report is None:
                continue
            done[report.name] = report
            for name, task in itertools.islice(waiting, 1):
                group.start(name, task)
    return [done[name] for name in tasks]
