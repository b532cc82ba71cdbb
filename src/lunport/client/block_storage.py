"""A client of Block Storage v3: volumes and attachments, typed, each call within a deadline.

    client = BlockStorage("http://127.0.0.1:8776")
    volume = client.create_volume("data", 10, Deadline.after(5))

Speaks microversion 3.70 and asks for nothing that another Block Storage service lacks. Never
decides what to do about a refusal, and never repeats a request that may have been carried
out. Source: the Block Storage API reference, v3.
"""

from __future__ import annotations

import contextlib
import ssl
import threading
from collections.abc import Callable, Mapping
from typing import TypeVar

import msgspec
import urllib3

from lunport.core.attachment import AttachMode
from lunport.core.connection_info import ConnectionInfo, parse_connection_info
from lunport.core.connector import Connector, format_connector
from lunport.core.errors import (
    AttachmentNotFound,
    Conflict,
    LunportError,
    NotAuthenticated,
    NotFound,
    NotTrusted,
    VolumeApiRefused,
    VolumeApiUnavailable,
    VolumeNotFound,
)
from lunport.core.secret import Secret
from lunport.host.clock import Deadline
from lunport.host.tls import FreshContext, TlsFolder, explain

T = TypeVar("T")

VERSION = "3.70"
_POLL_S = 0.02
_LOOK_S = 1.0
_MAX_MESSAGE = 300
_MIN_TIMEOUT_S = 0.001


class Volume(msgspec.Struct, frozen=True):
    """What is used of a volume."""

    id: str
    status: str
    size: int
    name: str | None = None
    multiattach: bool = False


class Attachment(msgspec.Struct, frozen=True):
    """An attachment; ``connection`` says how to reach the unit once a host is connected."""

    id: str
    status: str
    volume_id: str
    instance: str | None = None
    connection_info: dict[str, object] = msgspec.field(default_factory=dict)

    @property
    def connection(self) -> ConnectionInfo | None:
        """The connection info, checked; None while no host is connected.

        Raises: InvalidConnectionInfo.
        """
        return parse_connection_info(self.connection_info) if self.connection_info else None


class ExportedVolume(msgspec.Struct, frozen=True):
    """One volume to one host: ``exported``, ``pending`` or ``revoked``."""

    volume_id: str
    host: str | None
    initiator: str
    backend: str
    iqn: str
    lun: int
    portals: tuple[str, ...]
    state: str
    since: str
    attachment_id: str | None = None


class Revocation(msgspec.Struct, frozen=True):
    """A host that is, or was, cut off; from all volumes if none is named."""

    host: str | None
    initiator: str | None
    volume_id: str | None
    reason: str
    created_at: str
    created_by: str
    lifted_at: str | None = None
    lifted_by: str | None = None


class ExportList(msgspec.Struct, frozen=True):
    """What is exported to whom, and who is cut off."""

    exports: tuple[ExportedVolume, ...]
    revocations: tuple[Revocation, ...]


class Fenced(msgspec.Struct, frozen=True):
    """What a revocation or its end did."""

    change: str
    volume_ids: tuple[str, ...]
    revocations: tuple[Revocation, ...]


class Difference(msgspec.Struct, frozen=True):
    """What is not as it shall be, where; ``mended``: now it is."""

    where: str
    what: str
    mended: bool


class CheckedBackend(msgspec.Struct, frozen=True):
    """What a check found at one backend."""

    name: str
    targets: int
    differences: tuple[Difference, ...]


class Checked(msgspec.Struct, frozen=True):
    """What a check found; ``whole``: all is as it shall be now."""

    whole: bool
    backends: tuple[CheckedBackend, ...]


class _OneVolume(msgspec.Struct):
    volume: Volume


class _Volumes(msgspec.Struct):
    volumes: list[Volume]


class _OneAttachment(msgspec.Struct):
    attachment: Attachment


class _Attachments(msgspec.Struct):
    attachments: list[Attachment]


class _FaultText(msgspec.Struct):
    message: str


_FAULT = msgspec.json.Decoder(dict[str, _FaultText])


class BlockStorage:
    """One service at ``endpoint`` (``http://HOST:PORT``). Safe to share between threads.

    ``service_token``: the service identity, which may take an instance's volume away.
    ``tls``: for an endpoint with ``https``; without it the system's authorities are believed,
    and no certificate is shown.
    """

    def __init__(
        self,
        endpoint: str,
        *,
        token: Secret | None = None,
        service_token: Secret | None = None,
        tls: TlsFolder | None = None,
    ) -> None:
        """Make a client; nothing is asked yet. Raises: InvalidConfig (``tls``)."""
        self.endpoint = endpoint.rstrip("/")
        self._headers = {
            "Accept": "application/json",
            "Content-Type": "application/json",
            "OpenStack-API-Version": f"volume {VERSION}",
        }
        if token is not None:
            self._headers["X-Auth-Token"] = token.reveal()
        if service_token is not None:
            self._headers["X-Service-Token"] = service_token.reveal()
        self._certificates = None if tls is None else FreshContext(tls, TlsFolder.client_context)
        self._context = None if self._certificates is None else self._certificates.get()
        self._pool = urllib3.PoolManager(maxsize=8, ssl_context=self._context)

    def close(self) -> None:
        """Close idle connections."""
        self._pool.clear()

    # -- volumes -------------------------------------------------------------------------

    def create_volume(self, name: str, size_gib: int, deadline: Deadline) -> Volume:
        """Ask for a volume; it is ``creating`` when this returns."""
        body = {"volume": {"name": name, "size": size_gib}}
        return self._ask(_OneVolume, "POST", "/volumes", deadline, body).volume

    def get_volume(self, volume_id: str, deadline: Deadline) -> Volume:
        """Show a volume. Raises: VolumeNotFound."""
        missing = VolumeNotFound(volume_id)
        path = f"/volumes/{volume_id}"
        return self._ask(_OneVolume, "GET", path, deadline, missing=missing).volume

    def list_volumes(self, deadline: Deadline) -> tuple[Volume, ...]:
        """List the first page of volumes."""
        return tuple(self._ask(_Volumes, "GET", "/volumes/detail", deadline).volumes)

    def delete_volume(self, volume_id: str, deadline: Deadline) -> None:
        """Ask for a volume's deletion; it is ``deleting`` when this returns."""
        missing = VolumeNotFound(volume_id)
        self._send("DELETE", f"/volumes/{volume_id}", deadline, missing=missing)

    def wait_for_volume(self, volume_id: str, status: str, deadline: Deadline) -> Volume:
        """Wait until a volume has a status.

        Raises: Conflict (it went to an error, or did not get there in time), VolumeNotFound.
        """

        def look() -> Volume | None:
            volume = self.get_volume(volume_id, _to_look(deadline))
            if volume.status.startswith("error"):
                raise Conflict(f"Volume {volume_id} went to {volume.status}.")
            return volume if volume.status == status else None

        return _wait_for(look, deadline, f"Volume {volume_id} did not become {status}")

    def wait_until_deleted(self, volume_id: str, deadline: Deadline) -> None:
        """Wait until a volume is gone. Raises: Conflict (as above)."""

        def look() -> bool | None:
            try:
                volume = self.get_volume(volume_id, _to_look(deadline))
            except VolumeNotFound:
                return True
            if volume.status.startswith("error"):
                raise Conflict(f"Volume {volume_id} went to {volume.status}.")
            return None

        _wait_for(look, deadline, f"Volume {volume_id} was not deleted")

    # -- attachments ---------------------------------------------------------------------

    def create_attachment(
        self,
        volume_id: str,
        deadline: Deadline,
        *,
        instance: str | None = None,
        mode: AttachMode = AttachMode.READ_WRITE,
    ) -> Attachment:
        """Reserve a volume for an instance, or for a host that is none."""
        keys = {"volume_uuid": volume_id, "instance_uuid": instance, "mode": mode.value}
        missing = VolumeNotFound(volume_id)
        body = {"attachment": keys}
        return self._ask(_OneAttachment, "POST", "/attachments", deadline, body, missing).attachment

    def get_attachment(self, attachment_id: str, deadline: Deadline) -> Attachment:
        """Show an attachment. Raises: AttachmentNotFound."""
        missing = AttachmentNotFound(attachment_id)
        path = f"/attachments/{attachment_id}"
        return self._ask(_OneAttachment, "GET", path, deadline, missing=missing).attachment

    def list_attachments(self, deadline: Deadline) -> tuple[Attachment, ...]:
        """List the first page of attachments, without their connections."""
        return tuple(self._ask(_Attachments, "GET", "/attachments", deadline).attachments)

    def connect_attachment(
        self, attachment_id: str, connector: Connector, deadline: Deadline
    ) -> Attachment:
        """Have the volume offered to a host; the answer holds the connection."""
        body = {"attachment": {"connector": format_connector(connector)}}
        missing = AttachmentNotFound(attachment_id)
        path = f"/attachments/{attachment_id}"
        return self._ask(_OneAttachment, "PUT", path, deadline, body, missing).attachment

    def complete_attachment(self, attachment_id: str, deadline: Deadline) -> None:
        """Say that the host uses the volume now."""
        path = f"/attachments/{attachment_id}/action"
        missing = AttachmentNotFound(attachment_id)
        self._send("POST", path, deadline, {"os-complete": {}}, missing)

    def report_paths(
        self, attachment_id: str, document: Mapping[str, object], deadline: Deadline
    ) -> None:
        """Tell the service what the paths are now: Lunport's own, others refuse it.

        ``document``: as :func:`lunport.core.path_report.format_path_report` writes it.
        Raises: AttachmentNotFound, VolumeApiRefused, VolumeApiUnavailable.
        """
        path = f"/attachments/{attachment_id}/action"
        missing = AttachmentNotFound(attachment_id)
        self._send("POST", path, deadline, {"lunport:report_paths": document}, missing)

    def delete_attachment(self, attachment_id: str, deadline: Deadline) -> None:
        """Take the volume from the host and forget the attachment."""
        missing = AttachmentNotFound(attachment_id)
        self._send("DELETE", f"/attachments/{attachment_id}", deadline, missing=missing)

    # -- exports: Lunport's own, for administrators --------------------------------------

    def list_exports(self, deadline: Deadline) -> ExportList:
        """List what is exported to whom. Raises: VolumeApiRefused (no administrator)."""
        return self._ask(ExportList, "GET", "/exports", deadline)

    def revoke_host(
        self,
        deadline: Deadline,
        *,
        host: str | None = None,
        initiator: str | None = None,
        volume_id: str | None = None,
        reason: str = "",
    ) -> Fenced:
        """Cut a host off from a volume, or from all; it is when this returns.

        Raises: VolumeNotFound, VolumeApiRefused, VolumeApiUnavailable (it may be cut off).
        """
        keys = {"host": host, "initiator": initiator, "volume_id": volume_id, "reason": reason}
        return self._act_on_exports(Fenced, {"lunport:revoke": keys}, deadline, volume_id)

    def restore_host(
        self,
        deadline: Deadline,
        *,
        host: str | None = None,
        initiator: str | None = None,
        volume_id: str | None = None,
    ) -> Fenced:
        """Let a host in again that was cut off. Raises: as :meth:`revoke_host`."""
        keys = {"host": host, "initiator": initiator, "volume_id": volume_id}
        return self._act_on_exports(Fenced, {"lunport:restore": keys}, deadline, volume_id)

    def check_exports(self, deadline: Deadline, *, repair: bool = False) -> Checked:
        """Compare every target with what it shall be, and mend it if asked to."""
        return self._act_on_exports(Checked, {"lunport:check": {"repair": repair}}, deadline)

    def _act_on_exports(
        self,
        shape: type[T],
        body: Mapping[str, object],
        deadline: Deadline,
        volume_id: str | None = None,
    ) -> T:
        missing = None if volume_id is None else VolumeNotFound(volume_id)
        return self._ask(shape, "POST", "/exports/action", deadline, body, missing)

    # -- the seam ------------------------------------------------------------------------

    def is_up(self, deadline: Deadline) -> bool:
        """Tell whether the service answers."""
        with contextlib.suppress(VolumeApiUnavailable):
            self._send("GET", "/", deadline)
            return True
        return False

    def ask(
        self,
        shape: type[T],
        method: str,
        path: str,
        deadline: Deadline,
        body: Mapping[str, object] | None = None,
        missing: NotFound | None = None,
    ) -> T:
        """Make a request of Lunport's own API, and read its answer. Raises: as all do."""
        return self._ask(shape, method, path, deadline, body, missing)

    def send(
        self,
        method: str,
        path: str,
        deadline: Deadline,
        body: Mapping[str, object] | None = None,
        *,
        missing: NotFound | None = None,
    ) -> None:
        """Make a request whose answer holds nothing. Raises: as all do."""
        self._send(method, path, deadline, body, missing)

    def _ask(
        self,
        shape: type[T],
        method: str,
        path: str,
        deadline: Deadline,
        body: Mapping[str, object] | None = None,
        missing: NotFound | None = None,
    ) -> T:
        answer = self._send(method, path, deadline, body, missing)
        try:
            return msgspec.json.decode(answer, type=shape)
        except msgspec.MsgspecError as error:
            detail = f"{self.endpoint} answers {method} {path} with something else: {error}"
            raise VolumeApiUnavailable(detail) from error

    def _send(
        self,
        method: str,
        path: str,
        deadline: Deadline,
        body: Mapping[str, object] | None = None,
        missing: NotFound | None = None,
    ) -> bytes:
        """Send one request. Raises: VolumeApiUnavailable, VolumeApiRefused, ``missing``."""
        try:
            response = self._connections().request(
                method,
                f"{self.endpoint}/v3{path}",
                body=None if body is None else msgspec.json.encode(body),
                headers=self._headers,
                timeout=urllib3.Timeout(total=max(_MIN_TIMEOUT_S, deadline.remaining_s())),
                retries=False,
                redirect=False,
            )
        except urllib3.exceptions.NewConnectionError as error:
            # urllib3 counts it among the timeouts.
            detail = f"{self.endpoint} cannot be reached: {error}"
            raise VolumeApiUnavailable(detail) from error
        except urllib3.exceptions.TimeoutError as error:
            detail = f"{self.endpoint} did not answer within {deadline.budget_s:.1f} s."
            raise VolumeApiUnavailable(detail) from error
        except urllib3.exceptions.SSLError as error:
            cause = error.args[0] if error.args else error
            words = explain(cause) if isinstance(cause, ssl.SSLError) else str(error)
            raise NotTrusted(f"the volume service at {self.endpoint}", words) from error
        except urllib3.exceptions.HTTPError as error:
            raise VolumeApiUnavailable(f"{self.endpoint} cannot be reached: {error}") from error
        if response.status < 400:
            return response.data
        raise _refusal(f"{method} {path}", response.status, response.data, missing)

    def _connections(self) -> urllib3.PoolManager:
        """Return the connections; new ones when the certificates were replaced."""
        context = None if self._certificates is None else self._certificates.get()
        if context is not self._context:
            self._context = context
            self._pool = urllib3.PoolManager(maxsize=8, ssl_context=context)
        return self._pool


def as_document(answer: object) -> object:
    """Return an answer as it can be written as JSON."""
    return msgspec.to_builtins(answer)


def _refusal(request: str, code: int, body: bytes, missing: NotFound | None) -> LunportError:
    # A body is {"itemNotFound": {"code": 404, "message": "Volume X could not be found."}}.
    message = body[:_MAX_MESSAGE].decode(errors="replace")
    with contextlib.suppress(msgspec.MsgspecError, StopIteration):
        message = next(iter(_FAULT.decode(body).values())).message
    if code == 404 and missing is not None:
        return missing
    if code == 401:
        return NotAuthenticated()
    if code == 409:
        return Conflict(message)
    if code >= 500:
        return VolumeApiUnavailable(f"The volume service failed at {request} ({code}): {message}")
    return VolumeApiRefused(request, code, message)


def _to_look(deadline: Deadline) -> Deadline:
    """Return the deadline of a look: one begun in time is given the time to be answered."""
    return deadline if deadline.remaining_s() > _LOOK_S else Deadline.after(_LOOK_S)


def _wait_for(look: Callable[[], T | None], deadline: Deadline, otherwise: str) -> T:
    pause = threading.Event()
    found = look()
    while found is None:
        if deadline.has_passed():
            raise Conflict(f"{otherwise} within {deadline.budget_s:.1f} s.")
        pause.wait(min(_POLL_S, deadline.remaining_s()))
        found = look()
    return found
