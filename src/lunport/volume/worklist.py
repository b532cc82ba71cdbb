"""Which accepted work may run now.

In the order of acceptance for each resource, one at a time; what shares no resource runs
beside it. So a volume is copied before a later request deletes it, and no worker waits for
another one's lock. What cannot run now is kept for later, and keeps its place.
"""

from __future__ import annotations

import threading
from collections.abc import Mapping

from lunport.host.clock import Deadline
from lunport.store.operations import Operation

PAUSE_S = 1.0


def resources_of(operation: Operation) -> frozenset[str]:
    """Name the volumes and snapshots that an operation touches: its own, and its sources."""
    named: Mapping[str, object] = operation.arguments
    found = {operation.resource_id}
    for key in ("volume_id", "source_volid", "snapshot_id"):
        value = named.get(key)
        if isinstance(value, str):
            found.add(value)
    several = named.get("snapshot_ids")
    if isinstance(several, (list, tuple)):
        found.update(str(one) for one in several)
    return frozenset(found)


class WorkList:
    """Accepted operations, waiting or under way. Safe to use from any thread."""

    def __init__(self) -> None:
        self._changed = threading.Condition()
        self._waiting: dict[int, Operation] = {}
        self._running: dict[int, frozenset[str]] = {}
        self._not_before: dict[int, Deadline] = {}
        self._ends: dict[int, threading.Event] = {}
        self._is_closed = False

    def add(self, operation: Operation) -> None:
        """Append an operation; one that is known already is not added again."""
        with self._changed:
            if operation.id not in self._running:
                self._waiting.setdefault(operation.id, operation)
                self._changed.notify()

    def take(self) -> Operation | None:
        """Wait for an operation that may run; None once the list is closed."""
        with self._changed:
            while not self._is_closed:
                operation = self._first_runnable()
                if operation is not None:
                    del self._waiting[operation.id]
                    self._not_before.pop(operation.id, None)
                    self._running[operation.id] = resources_of(operation)
                    return operation
                self._changed.wait(self._pause_s())
        return None

    def done(self, operation: Operation) -> None:
        """Say that an operation has ended; what waited for it may run."""
        with self._changed:
            self._running.pop(operation.id, None)
            self._changed.notify_all()
            ended = self._ends.pop(operation.id, None)
        if ended is not None:
            ended.set()

    def wait_for_end(self, operation: Operation, deadline: Deadline, *, at_most: int) -> bool:
        """Wait until an operation has ended, unless so many wait already; tell whether it has."""
        with self._changed:
            if operation.id not in self._waiting and operation.id not in self._running:
                return True
            if len(self._ends) >= at_most:
                return False
            ended = self._ends.setdefault(operation.id, threading.Event())
        if ended.wait(deadline.remaining_s()):
            return True
        with self._changed:
            self._ends.pop(operation.id, None)
        return False

    def put_back(self, operation: Operation, pause_s: float = PAUSE_S) -> None:
        """Let an operation wait at the head of what shares its resources."""
        with self._changed:
            self._running.pop(operation.id, None)
            self._not_before[operation.id] = Deadline.after(pause_s)
            self._waiting = {operation.id: operation, **self._waiting}
            self._changed.notify_all()

    def close(self) -> None:
        """Give nothing more out."""
        with self._changed:
            self._is_closed = True
            self._changed.notify_all()

    def _first_runnable(self) -> Operation | None:
        busy = {name for names in self._running.values() for name in names}
        for operation in self._waiting.values():
            names = resources_of(operation)
            pause = self._not_before.get(operation.id)
            if busy.isdisjoint(names) and (pause is None or pause.has_passed()):
                return operation
            busy |= names
        return None

    def _pause_s(self) -> float | None:
        """Return when to look again by itself; None: when something changes."""
        return min((one.remaining_s() for one in self._not_before.values()), default=None)
