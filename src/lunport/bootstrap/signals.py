"""What SIGTERM, SIGINT and SIGHUP do to a service.

The first one ends it, or its start, and with that all that was started; no later one
disturbs the end. Python runs handlers in the main thread, between any two of its steps.
"""

from __future__ import annotations

import signal
import threading
from collections.abc import Callable
from types import FrameType


class Signals:
    """Which signals have come, and what they end."""

    def __init__(self) -> None:
        self._stop: Callable[[], None] | None = None
        self._taken: frozenset[signal.Signals] = frozenset()

    def take(self) -> None:
        """Handle the signals from now on; a hang-up that is ignored (nohup) stays so."""
        signals = {signal.SIGTERM, signal.SIGINT, signal.SIGHUP}
        if signal.getsignal(signal.SIGHUP) is signal.SIG_IGN:
            signals.discard(signal.SIGHUP)
        self._taken = frozenset(signals)
        for signum in self._taken:
            signal.signal(signum, self._on_signal)

    def call(self, stop: Callable[[], None]) -> None:
        """Stop the service by that, from now on."""
        self._stop = stop

    def _on_signal(self, _signum: int, _frame: FrameType | None) -> None:
        # Ignored rather than handled: the interpreter gives handled ones back to the system
        # while it ends, and the next one would then kill it.
        for signum in self._taken:
            signal.signal(signum, signal.SIG_IGN)
        if self._stop is None:
            raise SystemExit(0)
        # From a thread: the main one is inside the server's loop, which it would wait for.
        threading.Thread(target=self._stop, name="stop").start()
