"""Target names: what they are made of alone decides, so that they never change.

    iqn.2026-11.io.lunport:volume-b7a3f0c2-6f0e-4d8e-9d9b-0d2f1f6a8c11   a volume's, from its id
    iqn.2026-11.io.lunport:volume-host-3f0e...   a host's, from its initiator and the pool
    iqn.2026-11.io.lunport:volume-shared-8c11...   the one of a pool

A pool is Block Storage's ``HOST@BACKEND#POOL``: a host that uses two of them meets two names.
The prefix is configurable. tgtd takes letters, digits, ``:``, ``.`` and ``-`` in a target
name and nothing else (``usr/target.c``, ``tgt_target_create``), so no other is made.
"""

from __future__ import annotations

import hashlib
import re

from lunport.core.errors import InvalidConfig, InvalidInput, InvalidIqn
from lunport.core.iqn import MAX_LENGTH, Iqn, parse_iqn

DEFAULT_PREFIX = "iqn.2026-11.io.lunport:volume-"
_SENDABLE = re.compile(r"[a-z0-9:.-]+")
_ID = re.compile(r"[0-9a-z-]{1,64}")
_OF_SEVERAL = re.compile(r"(?:host|shared)-[0-9a-f]{32}")


def parse_prefix(text: object, *, what: str = "target_prefix") -> str:
    """Check what target names begin with. Raises: InvalidConfig."""
    if not isinstance(text, str):
        raise InvalidConfig(what, text, f"expected a string such as {DEFAULT_PREFIX}")
    if not _SENDABLE.fullmatch(text) or not text.startswith("iqn.") or ":" not in text:
        raise InvalidConfig(
            what, text, f"expected lower-case letters, digits, : . and -, such as {DEFAULT_PREFIX}"
        )
    try:
        parse_iqn(text + "x")
    except InvalidIqn as error:
        raise InvalidConfig(what, text, error.reason) from error
    if len(text) > MAX_LENGTH - 64:
        raise InvalidConfig(what, text, f"at most {MAX_LENGTH - 64} characters leave room")
    return text


def target_name(volume_id: str, prefix: str = DEFAULT_PREFIX) -> Iqn:
    """Make a volume's target name. Raises: InvalidInput (not a volume id)."""
    if not _ID.fullmatch(volume_id):
        raise InvalidInput("volume id", volume_id, "expected a lower-case UUID")
    return parse_iqn(prefix + volume_id)


def host_target_name(pool: str, initiator: str, prefix: str = DEFAULT_PREFIX) -> Iqn:
    """Make the name of the target that a pool has for one initiator."""
    return parse_iqn(f"{prefix}host-{_digest(pool, initiator)}")


def shared_target_name(pool: str, prefix: str = DEFAULT_PREFIX) -> Iqn:
    """Make the name of a pool's one target for all initiators."""
    return parse_iqn(f"{prefix}shared-{_digest(pool)}")


def volume_id_of(name: str, prefix: str = DEFAULT_PREFIX) -> str | None:
    """Return the volume id in a target name; None when it is not a volume's, or not ours."""
    rest = name.removeprefix(prefix)
    is_volume = rest != name and _ID.fullmatch(rest) and not _OF_SEVERAL.fullmatch(rest)
    return rest if is_volume else None


def is_of_several(name: str, prefix: str = DEFAULT_PREFIX) -> bool:
    """Tell whether a name is one of ours for several volumes: a host's, or the shared one."""
    rest = name.removeprefix(prefix)
    return rest != name and _OF_SEVERAL.fullmatch(rest) is not None


def _digest(*texts: str) -> str:
    digest = hashlib.blake2s(digest_size=16, person=b"lunportt")
    for text in texts:
        digest.update(len(text.encode()).to_bytes(4, "big") + text.encode())
    return digest.hexdigest()
