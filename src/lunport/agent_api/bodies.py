"""The bodies of the agent's requests, checked as they are decoded.

    {"connection_info": {...}, "multipath": true, "wish": {"ready": "all"}, "timeout_s": 60}

A connection info comes as the APIs of Block Storage answer it, and may hold secrets: no error
repeats it. What is left out is as the host's policy has it.
"""

from __future__ import annotations

from typing import Annotated, Literal, TypeVar

import falcon
import msgspec

from lunport.agent.path_wish import PathWish
from lunport.core.connection_info import ConnectionInfo, parse_connection_info
from lunport.core.errors import InvalidInput
from lunport.core.multipath_use import StallProfile

MAX_BODY_BYTES = 1 << 20
MAX_TIMEOUT_S = 3600

Timeout = Annotated[float, msgspec.Meta(gt=0, le=MAX_TIMEOUT_S)]
Body = TypeVar("Body")


class WishBody(msgspec.Struct, forbid_unknown_fields=True, omit_defaults=True):
    """What is wanted of several paths, where that differs from the host's policy."""

    ready: int | Literal["all"] | None = None
    queue_s: float | None = None
    stall: StallProfile | None = None
    resilient: bool | None = None

    @classmethod
    def of(cls, wish: PathWish) -> WishBody:
        """Write a wish."""
        return cls(wish.ready, wish.queue_s, wish.stall, wish.resilient)

    def wish(self) -> PathWish:
        """Read it."""
        return PathWish(self.ready, self.queue_s, self.stall, self.resilient)


class _AboutVolume(msgspec.Struct, forbid_unknown_fields=True, kw_only=True):
    connection_info: dict[str, object]
    timeout_s: Timeout = 60.0

    def info(self) -> ConnectionInfo:
        """Read the connection info. Raises: InvalidConnectionInfo, which shows no secret."""
        return parse_connection_info(self.connection_info)


class ConnectBody(_AboutVolume):
    """``POST /v1/connect``. ``multipath`` None: where multipathd runs here."""

    multipath: bool | None = None
    wish: WishBody = msgspec.field(default_factory=WishBody)


class DisconnectBody(_AboutVolume):
    """``POST /v1/disconnect``."""

    force: bool = False


class ExtendBody(_AboutVolume):
    """``POST /v1/extend``."""


class RecoverBody(msgspec.Struct, forbid_unknown_fields=True):
    """``POST /v1/recover``."""

    remove_leftovers: bool = False
    timeout_s: Timeout = 600.0


RequestBody = ConnectBody | DisconnectBody | ExtendBody | RecoverBody


def encode(body: RequestBody) -> bytes:
    """Encode a body, secrets and all, for the socket."""
    return msgspec.json.encode(body)


def read_body(req: falcon.Request) -> bytes:
    """Read a body. Raises: InvalidInput, which does not show it."""
    length = req.content_length or 0
    if length > MAX_BODY_BYTES:
        reason = f"at most {MAX_BODY_BYTES} are taken"
        raise InvalidInput("request body", f"{length} bytes", reason)
    try:
        body: bytes = req.bounded_stream.read(length)
    except OSError:
        raise InvalidInput("request body", f"{length} bytes", "it did not arrive in time") from None
    if len(body) < length:
        raise InvalidInput("request body", f"{len(body)} bytes", "it is shorter than it says")
    return body


def decode(kind: type[Body], body: bytes) -> Body:
    """Decode a body. Raises: InvalidInput, which does not show it."""
    try:
        return msgspec.json.decode(body, type=kind)
    except (msgspec.MsgspecError, UnicodeDecodeError, RecursionError) as error:
        reason = str(error).encode("utf-8", "replace").decode()
        raise InvalidInput("request body", f"{len(body)} bytes", reason) from None
