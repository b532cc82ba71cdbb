"""CHAP credentials (RFC 7143 section 12.1, RFC 1994).

They belong to the pair (target, initiator). ``mutual`` is what the *target* proves itself
with. Generated secrets use letters and digits only, because initiators disagree about the
rest, and have 16 characters: open-iscsi and Windows want 12 to 16.
"""

from __future__ import annotations

import json
import string
from dataclasses import dataclass

from lunport.core.errors import InvalidInput
from lunport.core.secret import Secret

ALPHABET = string.ascii_letters + string.digits
USERNAME_LENGTH = 20
PASSWORD_LENGTH = 16
MAX_LENGTH = 255
_EXPECTED = f"expected printable characters, 1 to {MAX_LENGTH} bytes"


@dataclass(frozen=True, slots=True)
class ChapCredentials:
    """A name and its secret."""

    username: str
    password: Secret


@dataclass(frozen=True, slots=True)
class Chap:
    """What the initiator proves itself with, and what it demands of the target, if anything."""

    initiator: ChapCredentials
    mutual: ChapCredentials | None = None


def parse_chap_credentials(username: object, password: object, *, what: str) -> ChapCredentials:
    """Check a name and a secret that came from outside.

    Raises: InvalidInput; the secret's value is never part of it.
    """
    if not isinstance(username, str) or not _is_sendable(username):
        raise InvalidInput(f"{what} username", username, _EXPECTED)
    if not isinstance(password, str) or not _is_sendable(password):
        raise InvalidInput(f"{what} password", "***", _EXPECTED)
    return ChapCredentials(username, Secret(password))


def format_chap(chap: Chap) -> str:
    """Write credentials as a JSON object, secrets and all: for a file that only root reads."""
    sides = {"initiator": chap.initiator, "mutual": chap.mutual}
    return json.dumps(
        {
            side: {"username": one.username, "password": one.password.reveal()}
            for side, one in sides.items()
            if one is not None
        }
    )


def parse_chap(text: str) -> Chap:
    """Read what :func:`format_chap` wrote. Raises: InvalidInput, which never shows a secret."""
    try:
        sides = json.loads(text)
        read = {
            side: parse_chap_credentials(one["username"], one["password"], what=side)
            for side, one in sides.items()
        }
        return Chap(read["initiator"], read.get("mutual"))
    except (ValueError, RecursionError, LookupError, TypeError, AttributeError):
        raise InvalidInput("credentials", "***", "expected what was written here") from None


def _is_sendable(text: str) -> bool:
    return text.isprintable() and 0 < len(text.encode()) <= MAX_LENGTH
