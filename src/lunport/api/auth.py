"""Who asks: the two ways in which a request's identity is found.

``NoAuth`` believes everybody (bootstrap allows it on loopback and unix sockets only): the
token is ``USER:PROJECT`` as in Block Storage's noauth mode, and may be missing. ``TokenAuth``
knows static tokens by the SHA-256 of their text; tokens are generated with 256 random bits,
so a plain hash is enough (a slow one guards what people choose). A service token, also known
by its hash, is the only thing that makes a caller the service (OSSA-2023-003).

By TLS a host's agent shows a certificate instead (``api/gate.py``), and nobody is believed
without one or the other. Tokens are never stored or logged. Where Keystone will stand later is
this same seam.
"""

from __future__ import annotations

import hashlib
import hmac
import json
import secrets
import tomllib
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import NamedTuple, Protocol

from lunport.api.faults import ApiError
from lunport.core.errors import InvalidConfig, NotAuthenticated
from lunport.core.secret import Secret

ADMIN_ROLE = "admin"
DEFAULT_USER = "admin"
MAX_NAME = 255
# What keystoneauth's plug-in "none" sends.
_UNUSED_TOKEN = "notused"  # noqa: S105 - everybody knows it
_TOKEN_BYTES = 32
_HASH_PREFIX = "sha256:"


class Identity(NamedTuple):
    """A user in a project. ``project_id`` None: the request's URL may say."""

    user_id: str
    project_id: str | None
    is_admin: bool


class Authenticator(Protocol):
    """What finds an identity. ``believes_all``: it refuses nobody."""

    @property
    def believes_all(self) -> bool:
        """Tell whether it refuses nobody, and so is for this machine alone."""

    def identify(self, token: str | None) -> Identity:
        """Return who the token stands for. Raises: NotAuthenticated, ApiError."""


class NoAuth:
    """Believe whoever asks; everybody is an administrator."""

    believes_all = True

    def identify(self, token: str | None) -> Identity:
        """Read ``USER:PROJECT``; what is missing is the default user, the URL's project."""
        if not token or token == _UNUSED_TOKEN:
            return Identity(DEFAULT_USER, None, is_admin=True)
        user, _, project = token.partition(":")
        if len(user) > MAX_NAME or len(project) > MAX_NAME:
            raise ApiError(400, f"A user or project has at most {MAX_NAME} characters.")
        return Identity(user or DEFAULT_USER, project or None, is_admin=True)


@dataclass(frozen=True, slots=True)
class TokenEntry:
    """One static token: the hash of its text, and whom it stands for."""

    token_hash: str
    user_id: str
    project_id: str
    roles: frozenset[str]


class TokenAuth:
    """Know a few static tokens."""

    believes_all = False

    def __init__(self, entries: Sequence[TokenEntry]) -> None:
        self._entries = tuple(
            (entry.token_hash, Identity(entry.user_id, entry.project_id, _is_admin(entry)))
            for entry in entries
        )

    def identify(self, token: str | None) -> Identity:
        """Find the token; every entry is compared, each in constant time."""
        if not token:
            raise NotAuthenticated
        given = hash_token(token)
        found: Identity | None = None
        for known, identity in self._entries:
            if hmac.compare_digest(known, given):
                found = identity
        if found is None:
            raise NotAuthenticated
        return found


def generate_token() -> Secret:
    """Make a new token."""
    return Secret(secrets.token_urlsafe(_TOKEN_BYTES))


def hash_token(token: str | Secret) -> str:
    """Return what is stored of a token: ``sha256:HEX``."""
    text = token.reveal() if isinstance(token, Secret) else token
    return _HASH_PREFIX + hashlib.sha256(text.encode("utf-8", "surrogatepass")).hexdigest()


def is_service_token(token: str | None, known_hash: str | None) -> bool:
    """Tell whether a request carries the service token.

    Raises: NotAuthenticated (it carries another one: a caller who claims to be the service).
    """
    if not token:
        return False
    if known_hash is None or not hmac.compare_digest(known_hash, hash_token(token)):
        raise NotAuthenticated
    return True


def read_tokens(path: Path) -> tuple[TokenEntry, ...]:
    """Read a token file: TOML, or JSON when its name ends so. Raises: InvalidConfig.

    [[token]]
    hash = "sha256:9f86d081884c7d659a2feaa0c55ad015a3bf4f1b2b0b822cd15d6c15b0f00a08"
    user = "alice"
    project = "demo"
    roles = ["admin"]
    """
    try:
        text = path.read_text(encoding="utf-8")
        content = json.loads(text) if path.suffix == ".json" else tomllib.loads(text)
    except OSError as error:
        raise InvalidConfig("token file", str(path), error.strerror or str(error)) from error
    except ValueError as error:
        raise InvalidConfig("token file", str(path), f"not readable: {error}") from error
    return parse_tokens(content, what=str(path))


def parse_tokens(content: object, *, what: str) -> tuple[TokenEntry, ...]:
    """Check the content of a token file. Raises: InvalidConfig; never shows a hash."""
    listed = content.get("token") if isinstance(content, Mapping) else None
    if not isinstance(listed, list) or set(content if isinstance(content, Mapping) else ()) != {
        "token"
    }:
        raise InvalidConfig(what, "token", "expected a list of [[token]] tables and nothing else")
    return tuple(
        _parse_entry(entry, what=f"{what} token {number}")
        for number, entry in enumerate(listed, start=1)
    )


def _parse_entry(entry: object, *, what: str) -> TokenEntry:
    if not isinstance(entry, Mapping):
        raise InvalidConfig(what, "entry", "expected a table")
    unknown = sorted(set(entry) - {"hash", "user", "project", "roles"}, key=str)
    if unknown:
        raise InvalidConfig(what, unknown[0], "expected hash, user, project and roles")
    token_hash = entry.get("hash")
    if not isinstance(token_hash, str) or not _is_hash(token_hash.lower()):
        raise InvalidConfig(what, "hash", "expected sha256: and 64 hexadecimal digits")
    names = [entry.get("user"), entry.get("project")]
    if not all(isinstance(name, str) and 0 < len(name) <= MAX_NAME for name in names):
        raise InvalidConfig(what, names, f"user and project have 1 to {MAX_NAME} characters")
    roles = entry.get("roles", [])
    if not isinstance(roles, list) or not all(isinstance(role, str) for role in roles):
        raise InvalidConfig(what, roles, "roles is a list of names")
    return TokenEntry(token_hash.lower(), str(names[0]), str(names[1]), frozenset(roles))


def _is_hash(text: str) -> bool:
    digits = text.removeprefix(_HASH_PREFIX)
    return len(digits) == 64 and digits != text and set(digits) <= set("0123456789abcdef")


def _is_admin(entry: TokenEntry) -> bool:
    return ADMIN_ROLE in entry.roles
