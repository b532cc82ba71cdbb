"""What an agent is doing now: bounded, counted, logged, and waited for at its end."""

from __future__ import annotations

import logging
import threading
import time
from collections.abc import Iterator
from contextlib import contextmanager

from lunport.agent_api.metrics import Metrics
from lunport.core.errors import LunportError, Unavailable
from lunport.host.clock import Deadline

_LOG = logging.getLogger(__name__)


class Verbs:
    """What is being done now: bounded, counted, and waited for at the end."""

    def __init__(self, metrics: Metrics, at_once: int) -> None:
        self._metrics = metrics
        self._at_once = at_once
        self._running = 0
        self._changed = threading.Condition()

    @contextmanager
    def one(self, verb: str, about: str | None = None) -> Iterator[None]:
        """Do one. Raises: Unavailable (too many are being done)."""
        with self._changed:
            if self._running >= self._at_once:
                raise Unavailable(f"The agent is doing {self._running} things already; try again.")
            self._running += 1
        began = time.monotonic()
        outcome = "failed"
        try:
            yield
            outcome = "done"
        except LunportError as error:
            outcome = type(error).__name__
            _LOG.warning("%s_failed volume=%s error=%s", verb, about, error)
            raise
        finally:
            self._metrics.count(verb, outcome)
            with self._changed:
                self._running -= 1
                self._changed.notify_all()
            if outcome == "done":
                seconds = time.monotonic() - began
                _LOG.info("%s_done volume=%s seconds=%.2f", verb, about, seconds)

    def wait_until_idle(self, deadline: Deadline) -> bool:
        """Wait until nothing is being done; tell whether that is so."""
        with self._changed:
            return self._changed.wait_for(lambda: self._running == 0, deadline.remaining_s())
