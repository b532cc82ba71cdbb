"""A client of the API in this process: no socket, the WSGI application called directly."""

from __future__ import annotations

import json
from dataclasses import dataclass
from typing import Any

from falcon import testing

from lunport.api.app import ApiSettings, make_app
from lunport.core.peer import PEER_HOSTS
from tests.fakes.fake_service import FakeBench

PROJECT = "0123456789abcdef0123456789abcdef"
HOST_1 = {"initiator": "iqn.2026-01.example:h1", "ip": "127.0.0.1", "host": "h1"}
HOST_2 = {"initiator": "iqn.2026-01.example:h2", "ip": "127.0.0.1", "host": "h2"}


@dataclass(frozen=True, slots=True)
class Answer:
    """An answer of the API."""

    status: int
    headers: dict[str, str]
    text: str

    @property
    def json(self) -> Any:
        """The body, decoded."""
        return json.loads(self.text)

    @property
    def fault(self) -> tuple[str, int, str]:
        """The one fault of an error's body: name, code, message."""
        ((name, inner),) = self.json.items()
        assert set(inner) == {"code", "message"}, self.text
        return name, inner["code"], inner["message"]


class ApiClient:
    """Speak to an application as one user, at the latest version unless told otherwise.

    ``peers``: as by TLS, with a certificate that names these hosts (none: without one).
    """

    def __init__(
        self,
        bench: FakeBench,
        settings: ApiSettings | None = None,
        *,
        token: str | None = None,
        service_token: str | None = None,
        version: str | None = "latest",
        project: str = PROJECT,
        peers: tuple[str, ...] | None = None,
    ) -> None:
        self.bench = bench
        self._extras: dict[str, Any] = {} if peers is None else {PEER_HOSTS: peers}
        self.project = project
        self._client = testing.TestClient(make_app(bench.service, settings or ApiSettings()))
        self._headers = {
            name: value
            for name, value in (
                ("X-Auth-Token", token),
                ("X-Service-Token", service_token),
                ("OpenStack-API-Version", version and f"volume {version}"),
            )
            if value is not None
        }

    def call(
        self,
        method: str,
        path: str,
        body: object = None,
        *,
        version: str | None = None,
        headers: dict[str, str] | None = None,
        raw: bytes | None = None,
        query: str = "",
    ) -> Answer:
        """Send a request; a path that does not begin with ``/v3`` is the project's."""
        sent = dict(self._headers)
        data = raw
        if body is not None:
            data = json.dumps(body).encode()
        if data is not None:
            sent["Content-Type"] = "application/json"
        if version is not None:
            sent["OpenStack-API-Version"] = f"volume {version}"
        sent |= headers or {}
        whole = path if path.startswith("/v3") or path == "/" else f"/v3/{self.project}{path}"
        result = self._client.simulate_request(
            method,
            whole,
            body=data,
            headers={name: value for name, value in sent.items() if value},
            query_string=query,
            extras=dict(self._extras),
        )
        return Answer(result.status_code, dict(result.headers), result.text)

    def get(self, path: str, query: str = "", **more: Any) -> Answer:
        """Read."""
        return self.call("GET", path, query=query, **more)

    def post(self, path: str, body: object = None, **more: Any) -> Answer:
        """Create or act."""
        return self.call("POST", path, body, **more)

    def put(self, path: str, body: object = None, **more: Any) -> Answer:
        """Write."""
        return self.call("PUT", path, body, **more)

    def delete(self, path: str, query: str = "", **more: Any) -> Answer:
        """Delete."""
        return self.call("DELETE", path, query=query, **more)

    def act(self, volume_id: str, action: str, value: object = None, **more: Any) -> Answer:
        """Do an action on a volume."""
        return self.post(f"/volumes/{volume_id}/action", {action: value}, **more)

    def make_volume(self, **keys: Any) -> str:
        """Create a volume and return its id."""
        answer = self.post("/volumes", {"volume": {"size": 1, **keys}})
        assert answer.status == 202, answer.text
        identifier: str = answer.json["volume"]["id"]
        return identifier

    def status_of(self, volume_id: str) -> str:
        """Return a volume's status."""
        status: str = self.get(f"/volumes/{volume_id}").json["volume"]["status"]
        return status
