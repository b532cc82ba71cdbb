"""A Block Storage client for measurements: one kept-alive connection, nothing clever.

Standard library only, as the peer was measured with; one :class:`Client` belongs to one
thread. An answer that is not a success is an :class:`UnexpectedAnswer`.
"""

from __future__ import annotations

import http.client
import json
import socket
import time
from collections.abc import Mapping
from typing import Any, Self

PROJECT = "0123456789abcdef0123456789abcdef"
MICROVERSION = "3.59"
POLL_S = 0.01
_PATIENCE_S = 60.0
_HEADERS = {
    "X-Auth-Token": f"admin:{PROJECT}",
    "Accept": "application/json",
    "OpenStack-API-Version": f"volume {MICROVERSION}",
}


class UnexpectedAnswer(Exception):
    """The service did not do what the measurement asks of it."""


class Client:
    """One connection to a service on a loopback port."""

    def __init__(self, port: int) -> None:
        self._connection = http.client.HTTPConnection("127.0.0.1", port, timeout=_PATIENCE_S)

    def __enter__(self) -> Self:
        self._connection.connect()
        self._connection.sock.setsockopt(socket.IPPROTO_TCP, socket.TCP_NODELAY, 1)
        return self

    def __exit__(self, *_: object) -> None:
        self._connection.close()

    def exchange(self, method: str, path: str, body: object = None) -> tuple[int, bytes]:
        """Send a request to that very path; return status and body."""
        headers: Mapping[str, str] = _HEADERS
        content = None
        if body is not None:
            content = json.dumps(body).encode()
            headers = {**_HEADERS, "Content-Type": "application/json"}
        self._connection.request(method, path, content, headers)
        answer = self._connection.getresponse()
        return answer.status, answer.read()

    def call(self, method: str, path: str, body: object = None) -> Any:
        """Make a call in the project, and decode what it answers."""
        status, text = self.exchange(method, f"/v3/{PROJECT}{path}", body)
        if not 200 <= status < 300:
            raise UnexpectedAnswer(f"{method} {path}: {status} {text[:200]!r}")
        return json.loads(text) if text else None

    def fetch(self, path: str) -> bytes:
        """Get an answer of the project without decoding it."""
        status, text = self.exchange("GET", f"/v3/{PROJECT}{path}")
        if status != 200:
            raise UnexpectedAnswer(f"GET {path}: {status} {text[:200]!r}")
        return text

    def wait_until(self, kind: str, identifier: str, wanted: str | None) -> None:
        """Ask every 10 ms, the first time at once, until a status is there (None: gone)."""
        end = time.monotonic() + _PATIENCE_S
        while time.monotonic() < end:
            status, text = self.exchange("GET", f"/v3/{PROJECT}/{kind}s/{identifier}")
            if status == 404 and wanted is None:
                return
            if status != 200:
                raise UnexpectedAnswer(f"{kind} {identifier}: {status} {text[:200]!r}")
            now = json.loads(text)[kind]["status"]
            if now == wanted:
                return
            if now.startswith("error"):
                raise UnexpectedAnswer(f"{kind} {identifier} is {now}")
            time.sleep(POLL_S)
        raise UnexpectedAnswer(f"{kind} {identifier} is not {wanted or 'gone'} in {_PATIENCE_S} s")

    # -- what the scenarios are made of --------------------------------------------------

    def create_volume(self, **fields: object) -> str:
        """Create a volume of 1 GiB and wait until it is available."""
        asked = {"volume": {"size": 1, **fields}}
        identifier: str = self.call("POST", "/volumes", asked)["volume"]["id"]
        self.wait_until("volume", identifier, "available")
        return identifier

    def delete_volume(self, identifier: str) -> None:
        """Delete a volume and wait until it is gone."""
        self.call("DELETE", f"/volumes/{identifier}")
        self.wait_until("volume", identifier, None)

    def create_attachment(self, volume: str, connector: Mapping[str, object] | None) -> str:
        """Attach a volume; without a connector only reserve it."""
        asked: dict[str, object] = {"volume_uuid": volume}
        if connector is not None:
            asked["connector"] = connector
        answer = self.call("POST", "/attachments", {"attachment": asked})
        identifier: str = answer["attachment"]["id"]
        return identifier


def connector(number: int = 1) -> dict[str, object]:
    """Describe a compute host that wants all paths."""
    return {
        "initiator": f"iqn.2026-01.example:h{number}",
        "ip": "127.0.0.1",
        "host": f"h{number}",
        "multipath": True,
        "platform": "x86_64",
        "os_type": "linux",
    }
