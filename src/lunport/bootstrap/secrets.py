"""The generated service token: the one identity that may take an instance's volumes away."""

from __future__ import annotations

import os
import secrets
import string
import uuid
from datetime import UTC, datetime
from pathlib import Path

from lunport.core.chap import ALPHABET, PASSWORD_LENGTH, USERNAME_LENGTH, ChapCredentials
from lunport.core.errors import InvalidConfig
from lunport.core.secret import Secret

SERVICE_TOKEN_FILE = "service-token"  # noqa: S105 - a file's name


def ensure_service_token(data_dir: Path) -> Secret:
    """Return the service token, made at the first start and readable by the owner alone.

    Raises: InvalidConfig.
    """
    path = data_dir / SERVICE_TOKEN_FILE
    try:
        token = _read_or_make(path)
    except OSError as error:
        raise InvalidConfig("service token", str(path), error.strerror or str(error)) from error
    except UnicodeDecodeError:
        token = ""
    if not token:
        raise InvalidConfig(
            "service token", str(path), "no token is in it; remove it for a new one"
        )
    return Secret(token)


def _read_or_make(path: Path) -> str:
    if not path.exists():
        partial = path.with_suffix(".partial")
        partial.unlink(missing_ok=True)
        handle = os.open(partial, os.O_WRONLY | os.O_CREAT | os.O_EXCL | os.O_CLOEXEC, 0o600)
        with os.fdopen(handle, "w", encoding="ascii") as file:
            file.write(secrets.token_urlsafe(32))
            file.flush()
            os.fsync(file.fileno())
        partial.rename(path)
    return path.read_text(encoding="ascii").strip()


def new_chap() -> ChapCredentials:
    """Make fresh credentials: letters and digits, the length that every initiator takes."""
    username = secrets.choice(string.ascii_letters) + _random(USERNAME_LENGTH - 1)
    return ChapCredentials(username, Secret(_random(PASSWORD_LENGTH)))


def new_id() -> str:
    """Make an id."""
    return str(uuid.uuid4())


def now() -> str:
    """Return the time as the store keeps it: UTC with microseconds."""
    return datetime.now(UTC).strftime("%Y-%m-%dT%H:%M:%S.%f")


def _random(length: int) -> str:
    return "".join(secrets.choice(ALPHABET) for _ in range(length))
