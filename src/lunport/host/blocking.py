"""Call what may block in the kernel for longer than anybody wants to wait.

A thread makes the call; the caller leaves it at the deadline. Nothing can end a call that the
kernel does not end (uninterruptible sleep), so the thread stays until then; it is a daemon
thread and holds nothing of ours. In normal operation it has ended when ``call_within`` returns.
"""

from __future__ import annotations

import contextvars
import threading
import time
from collections.abc import Callable
from typing import Generic, TypeVar

from lunport.core.errors import DeviceStuck
from lunport.host.clock import Deadline

T = TypeVar("T")

_LOOK_S = 0.5


class _Call(Generic[T]):
    """One call in a thread, and what came of it."""

    def __init__(self, function: Callable[[], T], name: str) -> None:
        self._function = function
        self._error: OSError | None = None
        self._values: list[T] = []
        self.thread = threading.Thread(
            target=contextvars.copy_context().run, args=(self._run,), name=name, daemon=True
        )

    def _run(self) -> None:
        try:
            self._values.append(self._function())
        except OSError as error:
            self._error = error

    def result(self) -> T:
        """Return what the call returned, or raise what it raised."""
        if self._error is not None:
            raise self._error
        return self._values[0]


def call_within(function: Callable[[], T], deadline: Deadline, what: str, *, device: str) -> T:
    """Make a call and wait for it until the deadline.

    What the call itself may raise is OSError. At the deadline the call goes on in its thread,
    unseen: make only calls whose late end does no harm.
    Raises: DeviceStuck, OSError.
    """
    call = _Call(function, f"{device}: {what}")
    started = time.monotonic()
    call.thread.start()
    call.thread.join(deadline.remaining_s())
    if call.thread.is_alive():
        raise DeviceStuck(device, what, time.monotonic() - started)
    return call.result()


def call_until(
    function: Callable[[], object],
    is_done: Callable[[], bool],
    deadline: Deadline,
    what: str,
    *,
    device: str,
) -> None:
    """Make a call and wait until it ends or what it is for is done, whichever is first.

    As :func:`call_within` otherwise. Raises: DeviceStuck, OSError.
    """
    call = _Call(function, f"{device}: {what}")
    started = time.monotonic()
    call.thread.start()
    has_time = True
    while has_time:
        has_time = not deadline.has_passed()
        call.thread.join(min(_LOOK_S, deadline.remaining_s()))
        if not call.thread.is_alive():
            call.result()
            return
        if is_done():
            return
    raise DeviceStuck(device, what, time.monotonic() - started)
