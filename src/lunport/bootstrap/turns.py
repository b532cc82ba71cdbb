"""Let requests take turns with the interpreter.

CPython runs one thread at a time. A request gives the interpreter up for an instant at every
step of SQLite and at every send; with several requests under way another one takes it just
then, and both pay for handing it from processor to processor and back. Taken in turns, eight
clients at once cost a quarter less for a list and a third less for a connection (rows with
c = 8 of ``make bench-api`` on a machine with nothing else to do; figures in bench/README.md).

A turn is a courtesy and never a condition: who has waited 50 ms goes on without one, so that
a request that waits for a disk, a worker or a target daemon holds nobody up for longer.
"""

from __future__ import annotations

import threading
from collections.abc import Callable, Iterable
from typing import Any

from lunport.api.app import WsgiApp

PATIENCE_S = 0.05


def in_turns(app: WsgiApp, patience_s: float = PATIENCE_S) -> WsgiApp:
    """Wrap an application so that its requests take turns."""
    turn = threading.Lock()

    def answer(environ: dict[str, Any], start_response: Callable[..., Any]) -> Iterable[bytes]:
        has_turn = turn.acquire(timeout=patience_s)
        try:
            return app(environ, start_response)
        finally:
            if has_turn:
                turn.release()

    return answer
