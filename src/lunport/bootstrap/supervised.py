"""Tell the service manager how the agent is, while it serves.

READY once it listens, STOPPING when it ends, and in between WATCHDOG as long as it *answers*:
what is asked is its own socket, as a command would. An agent that hangs falls silent, and is
started anew by who listens; its journal has what it was doing.
"""

from __future__ import annotations

import contextlib
import logging
import threading
from collections.abc import Callable, Iterator, Mapping
from pathlib import Path

from lunport.client.agent import AgentSocket
from lunport.host.clock import Deadline
from lunport.host.service_manager import ServiceManager

_LOG = logging.getLogger(__name__)
_JOIN_S = 1.0
_LOOKS = 3  # within the manager's patience


@contextlib.contextmanager
def supervised(path: Path, environment: Mapping[str, str]) -> Iterator[None]:
    """Keep the service manager told within the block; do nothing where there is none."""
    manager = ServiceManager.of(environment)
    over = threading.Event()
    watch: threading.Thread | None = None
    manager.tell("READY=1", f"STATUS=answers at {path}")
    if manager.watchdog_s is not None:
        answers = AgentSocket(path).answers
        arguments = (manager, manager.watchdog_s / _LOOKS, answers, over)
        watch = threading.Thread(target=_watch, args=arguments, name="watchdog", daemon=True)
        watch.start()
    try:
        yield
    finally:
        manager.tell("STOPPING=1")
        over.set()
        if watch is not None:
            watch.join(_JOIN_S)


def _watch(
    manager: ServiceManager,
    pause_s: float,
    answers: Callable[[Deadline], bool],
    over: threading.Event,
) -> None:
    """Say that the agent lives, each time that it has answered."""
    is_first = True
    while is_first or not over.wait(pause_s):
        is_first = False
        if answers(Deadline.after(pause_s)):
            manager.tell("WATCHDOG=1")
        elif not over.is_set():
            _LOG.error("agent_does_not_answer_itself within=%.1f", pause_s)
