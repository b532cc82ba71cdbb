"""The client of Block Storage against a service that answers what the test says."""

from __future__ import annotations

import http.server
import json
import socket
import threading
from collections.abc import Iterator
from dataclasses import dataclass, field

import pytest

from lunport.client.block_storage import BlockStorage
from lunport.core.connector import Connector
from lunport.core.errors import (
    AttachmentNotFound,
    Conflict,
    InvalidConnectionInfo,
    LunportError,
    NotAuthenticated,
    VolumeApiRefused,
    VolumeApiUnavailable,
    VolumeNotFound,
)
from lunport.core.iqn import Iqn
from lunport.core.secret import Secret
from lunport.host.clock import Deadline

VOLUME = {"id": "v1", "status": "available", "size": 1, "name": "n", "more": [1]}
ATTACHMENT = {"id": "a1", "status": "attaching", "volume_id": "v1", "instance": None}
DATA = {"target_portal": "10.0.0.1:3260", "target_iqn": "iqn.2026-11.io.x:y", "target_lun": 1}
HOST = Connector(Iqn("iqn.2026-11.io.lunport.test:host-a"))


@dataclass
class Service:
    """Answers in order, and what it was asked."""

    port: int = 0
    answers: list[tuple[int, object]] = field(default_factory=list)
    asked: list[tuple[str, str, object]] = field(default_factory=list)
    headers: list[dict[str, str]] = field(default_factory=list)

    def client(self, token: Secret | None = None) -> BlockStorage:
        """Make a client of it."""
        return BlockStorage(f"http://127.0.0.1:{self.port}", token=token)


@pytest.fixture
def service() -> Iterator[Service]:
    """Run a service."""
    played = Service()

    class Handler(http.server.BaseHTTPRequestHandler):
        def answer(self) -> None:
            length = int(self.headers.get("Content-Length", "0"))
            body = self.rfile.read(length)
            played.asked.append((self.command, self.path, json.loads(body) if body else None))
            played.headers.append(dict(self.headers.items()))
            status, answer = played.answers.pop(0)
            text = answer if isinstance(answer, bytes) else json.dumps(answer).encode()
            self.send_response(status)
            self.send_header("Content-Length", str(len(text)))
            self.end_headers()
            self.wfile.write(text)

        do_GET = do_POST = do_PUT = do_DELETE = answer  # noqa: N815 - http.server's names

        def log_message(self, format: str, *args: object) -> None:  # noqa: A002
            del format, args

    server = http.server.ThreadingHTTPServer(("127.0.0.1", 0), Handler)
    played.port = server.server_address[1]
    thread = threading.Thread(target=server.serve_forever, args=(0.01,))
    thread.start()
    yield played
    server.shutdown()
    server.server_close()
    thread.join()


def soon() -> Deadline:
    """Return a deadline that no test reaches."""
    return Deadline.after(10)


def test_volume_is_created_and_awaited(service: Service) -> None:
    """A volume is asked for at 3.70, and polled until it has the status."""
    creating = {**VOLUME, "status": "creating"}
    service.answers = [(202, {"volume": creating}), (200, {"volume": creating})]
    service.answers += [(200, {"volume": VOLUME})]
    client = service.client(Secret("token-4-tests"))
    assert client.create_volume("n", 1, soon()).status == "creating"
    assert client.wait_for_volume("v1", "available", soon()).size == 1
    assert service.asked[0] == ("POST", "/v3/volumes", {"volume": {"name": "n", "size": 1}})
    assert service.headers[0]["OpenStack-API-Version"] == "volume 3.70"
    assert service.headers[0]["X-Auth-Token"] == "token-4-tests"
    client.close()


def test_paths_are_reported(service: Service) -> None:
    """A report is one action of the attachment; a service that has no such action refuses it."""
    refused = {"badRequest": {"code": 400, "message": "There is no such action: x."}}
    gone = {"itemNotFound": {"code": 404, "message": "no"}}
    service.answers = [(202, b""), (400, refused), (404, gone)]
    client = service.client()
    client.report_paths("a1", {"version": 1}, soon())
    assert service.asked == [
        ("POST", "/v3/attachments/a1/action", {"lunport:report_paths": {"version": 1}})
    ]
    with pytest.raises(VolumeApiRefused, match="no such action"):
        client.report_paths("a1", {}, soon())
    with pytest.raises(AttachmentNotFound):
        client.report_paths("a1", {}, soon())
    client.close()


def test_attachment_goes_through_its_calls(service: Service) -> None:
    """An attachment is reserved, connected, completed and deleted by the standard calls."""
    connected = {**ATTACHMENT, "connection_info": {**DATA, "driver_volume_type": "iscsi"}}
    service.answers = [(200, {"attachment": ATTACHMENT}), (200, {"attachment": connected})]
    service.answers += [(204, b""), (200, {"attachments": []})]
    client = service.client()
    assert client.create_attachment("v1", soon()).connection is None
    info = client.connect_attachment("a1", HOST, soon()).connection
    assert info is not None
    assert str(info.main_path) == "10.0.0.1:3260 iqn.2026-11.io.x:y lun 1"
    client.complete_attachment("a1", soon())
    client.delete_attachment("a1", soon())
    assert [one[:2] for one in service.asked] == [
        ("POST", "/v3/attachments"),
        ("PUT", "/v3/attachments/a1"),
        ("POST", "/v3/attachments/a1/action"),
        ("DELETE", "/v3/attachments/a1"),
    ]
    assert service.asked[2][2] == {"os-complete": {}}
    client.close()


@pytest.mark.parametrize(
    "code,error",
    [
        (400, VolumeApiRefused),
        (401, NotAuthenticated),
        (403, VolumeApiRefused),
        (404, VolumeNotFound),
        (409, Conflict),
        (413, VolumeApiRefused),
        (500, VolumeApiUnavailable),
        (503, VolumeApiUnavailable),
    ],
)
def test_refusals_are_errors_of_ours(
    service: Service, code: int, error: type[LunportError]
) -> None:
    """Each refusal is the error that a caller acts on, with the service's own words."""
    service.answers = [(code, {"someFault": {"code": code, "message": "the words"}})]
    client = service.client()
    with pytest.raises(error) as caught:
        client.get_volume("v1", soon())
    if code not in (401, 404):
        assert "the words" in str(caught.value)
    client.close()


def test_missing_attachment_is_named(service: Service) -> None:
    """A 404 on an attachment names the attachment."""
    service.answers = [(404, b"no JSON")]
    client = service.client()
    with pytest.raises(AttachmentNotFound, match="a1"):
        client.delete_attachment("a1", soon())
    client.close()


@pytest.mark.parametrize("answer", [b"", b"<html>", {"volume": {"id": 1}}, {}])
def test_answer_that_is_no_block_storage(service: Service, answer: object) -> None:
    """Something else on the port is said to be something else."""
    service.answers = [(200, answer)]
    client = service.client()
    with pytest.raises(VolumeApiUnavailable, match="with something else"):
        client.get_volume("v1", soon())
    client.close()


def test_bad_connection_info_is_refused(service: Service) -> None:
    """A connection info that cannot be acted on is refused when it is looked at."""
    broken = {**ATTACHMENT, "connection_info": {**DATA, "target_lun": -1}}
    service.answers = [(200, {"attachment": broken})]
    client = service.client()
    attachment = client.get_attachment("a1", soon())
    with pytest.raises(InvalidConnectionInfo, match="target_lun"):
        _ = attachment.connection
    client.close()


@pytest.mark.parametrize("status", ["error", "error_deleting"])
def test_wait_ends_at_an_error(service: Service, status: str) -> None:
    """A volume that went to an error is not waited for any longer."""
    service.answers = [(200, {"volume": {**VOLUME, "status": status}})] * 2
    client = service.client()
    with pytest.raises(Conflict, match=status):
        client.wait_for_volume("v1", "in-use", soon())
    with pytest.raises(Conflict, match=status):
        client.wait_until_deleted("v1", soon())
    client.close()


def test_wait_ends_at_the_deadline(service: Service) -> None:
    """A volume that does not get there in time is a conflict that says for how long."""
    service.answers = [(200, {"volume": VOLUME})] * 50
    client = service.client()
    with pytest.raises(Conflict, match="did not become in-use within"):
        client.wait_for_volume("v1", "in-use", Deadline.after(0.1))
    client.close()


def test_deleted_volume_is_gone(service: Service) -> None:
    """A volume is deleted once the service does not know it any more."""
    service.answers = [(202, b""), (200, {"volume": {**VOLUME, "status": "deleting"}})]
    service.answers += [(404, b"")]
    client = service.client()
    client.delete_volume("v1", soon())
    client.wait_until_deleted("v1", soon())
    assert service.answers == []
    client.close()


def test_nobody_listens() -> None:
    """A service that is not there cannot be reached, and is not up."""
    with socket.socket() as unused:
        unused.bind(("127.0.0.1", 0))
        client = BlockStorage(f"http://127.0.0.1:{unused.getsockname()[1]}")
        assert not client.is_up(soon())
        with pytest.raises(VolumeApiUnavailable, match="cannot be reached"):
            client.list_volumes(soon())
        client.close()


def test_silent_service_ends_at_the_deadline() -> None:
    """A service that takes the request and says nothing is left at the deadline."""
    with socket.create_server(("127.0.0.1", 0)) as silent:
        client = BlockStorage(f"http://127.0.0.1:{silent.getsockname()[1]}")
        with pytest.raises(VolumeApiUnavailable, match="did not answer within"):
            client.list_volumes(Deadline.after(0.1))
        client.close()
