"""Clients that connect and say nothing: they hold up nobody else."""

from __future__ import annotations

import contextlib
import http.client
import socket
import threading
from collections.abc import Callable, Iterable
from typing import Any

from lunport.bootstrap.http_server import make_server
from lunport.bootstrap.listener import Listener

THREADS = 2
SILENT = 4 * THREADS
PATIENCE_S = 20.0


def _app(_environ: dict[str, Any], start_response: Callable[..., Any]) -> Iterable[bytes]:
    start_response("200 OK", [("Content-Length", "5")])
    return [b"hello"]


def _free_port() -> int:
    with socket.socket() as trial:
        trial.bind(("127.0.0.1", 0))
        port: int = trial.getsockname()[1]
        return port


def test_silent_connections_hold_no_worker() -> None:
    """More open connections than threads, all silent, and a request is still answered."""
    port = _free_port()
    server = make_server(Listener("127.0.0.1", port), _app, THREADS, 1024)
    server.prepare()
    serving = threading.Thread(target=server.serve)
    serving.start()
    try:
        with contextlib.ExitStack() as stack:
            for _ in range(SILENT):
                stack.enter_context(socket.create_connection(("127.0.0.1", port), PATIENCE_S))
            speaker = http.client.HTTPConnection("127.0.0.1", port, timeout=PATIENCE_S)
            stack.callback(speaker.close)
            for _ in range(3):
                speaker.request("GET", "/")
                assert speaker.getresponse().read() == b"hello"
    finally:
        server.stop()
        serving.join(PATIENCE_S)
    assert not serving.is_alive()
