"""A request as the resources see it: identity, version, link prefix, body and parameters.

Reads what HTTP carries and refuses what cannot be read; knows no resource. Bodies are
bounded as Block Storage bounds them (oslo.middleware's ``max_request_body_size``).
"""

from __future__ import annotations

from typing import Any, TypeVar
from urllib.parse import urlencode

import falcon
import msgspec

from lunport.api.faults import ApiError, clean
from lunport.core.errors import NotAllowed
from lunport.volume.requests import Caller

MAX_BODY_BYTES = 114688
# The server refuses by itself what says that it is longer than this.
MAX_DRAINED_BYTES = 8 * 1024 * 1024
_CHUNK = 65536

CONTENT_TYPES = frozenset({"application/json", "application/vnd.openstack.volume+json"})

TRUE_WORDS = frozenset({"1", "t", "true", "on", "y", "yes"})
FALSE_WORDS = frozenset({"0", "f", "false", "off", "n", "no"})

Body = TypeVar("Body")

_NOBODY = Caller("", "", is_admin=False)


class ApiRequest(falcon.Request):
    """A request that has passed the gate."""

    request_id: str = ""
    caller: Caller = _NOBODY
    minor: int = 0
    # http://HOST, http://HOST/v3/PROJECT or http://HOST/v3, and the latter without the version
    root: str = ""
    link_prefix: str = ""
    bookmark_prefix: str = ""

    def decode(self, decoder: msgspec.json.Decoder[Body]) -> Body:
        """Decode the body. Raises: ApiError (400, 408, 413, 415)."""
        return decode_json(decoder, self.body())

    def body(self) -> bytes:
        """Read a body that must be there. Raises: ApiError (400, 408, 413, 415)."""
        body = self._read()
        if not body:
            raise ApiError(400)
        kind = self.content_type
        if kind is None:
            raise ApiError(400, "The request has a body, and no Content-Type that says of what.")
        if kind.partition(";")[0].strip().lower() not in CONTENT_TYPES:
            raise ApiError(415)
        return body

    def _read(self) -> bytes:
        length = self.content_length or 0
        stream = self.bounded_stream
        try:
            if length > MAX_BODY_BYTES:
                # A client that is still sending would get a reset instead of the answer.
                while stream.read(_CHUNK):
                    pass
                raise ApiError(413)
            body = stream.read(length)
        except OSError:
            raise ApiError(408, "The body did not arrive in time.") from None
        if len(body) < length:
            raise ApiError(400, "The body is shorter than its Content-Length.")
        return body

    def parameter(self, name: str) -> str | None:
        """Return a query parameter; of a repeated one the last."""
        value = self.params.get(name)
        return value[-1] if isinstance(value, list) else value

    def parameters(self) -> dict[str, str]:
        """Return all query parameters; of a repeated one the last."""
        return {
            name: value[-1] if isinstance(value, list) else value
            for name, value in self.params.items()
        }

    def flag(self, name: str) -> bool:
        """Read a boolean parameter; absent is false. Raises: ApiError."""
        value = self.parameter(name)
        return value is not None and parse_boolean(value, name)

    def require_admin(self, action: str) -> None:
        """Let administrators pass. Raises: NotAllowed."""
        if not self.caller.is_admin:
            raise NotAllowed(action)

    def require_version(self, minor: int) -> None:
        """Hide a resource from versions before it. Raises: ApiError (404)."""
        if self.minor < minor:
            raise ApiError(404)

    def next_link(self, collection: str, marker: str) -> list[dict[str, str]]:
        """Return the link to the page behind a marker."""
        wanted = {name: clean(value) for name, value in self.parameters().items()}
        wanted.pop("offset", None)
        wanted["marker"] = marker
        return [{"rel": "next", "href": f"{self.link_prefix}/{collection}?{urlencode(wanted)}"}]


def decode_json(decoder: msgspec.json.Decoder[Body], body: bytes | msgspec.Raw) -> Body:
    """Decode JSON, and say in Block Storage's words what is wrong with it.

    Raises: ApiError (400).
    """
    try:
        return decoder.decode(body)
    except msgspec.ValidationError as error:
        raise ApiError(400, _explain(str(error))) from None
    except (msgspec.DecodeError, UnicodeDecodeError, RecursionError):
        raise ApiError(400, "Malformed request body") from None


def parse_boolean(text: str, name: str) -> bool:
    """Read a boolean word as Block Storage does. Raises: ApiError."""
    word = text.strip().lower()
    if word in TRUE_WORDS:
        return True
    if word in FALSE_WORDS:
        return False
    raise ApiError(400, f"Value '{clean(text)[:80]}' for '{name}' is not a boolean.")


def encode(value: Any) -> bytes:
    """Encode an answer."""
    return msgspec.json.encode(value)


def _explain(text: str) -> str:
    """Rewrite a decoder's sentence: ``Object contains unknown field `x` - at `$.volume```."""
    sentence, _, path = clean(text).partition(" - at `$")
    if sentence.startswith("Object contains unknown field `"):
        unknown = sentence.split("`", 1)[1].removesuffix("`")
        sentence = f"Additional properties are not allowed ('{unknown}' was unexpected)"
    elif sentence.startswith("Object missing required field `"):
        sentence = f"'{sentence.split('`')[1]}' is a required property"
    where = path.removesuffix("`").strip(".")
    if not where:
        return sentence
    return f"Invalid input for field/attribute {where.rpartition('.')[2]}. {sentence}"
