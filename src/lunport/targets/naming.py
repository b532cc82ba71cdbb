"""Target names: one per volume, made from its id alone, so that they never change.

    iqn.2026-11.io.lunport:volume-b7a3f0c2-6f0e-4d8e-9d9b-0d2f1f6a8c11

The prefix is configurable. tgtd takes letters, digits, ``:``, ``.`` and ``-`` in a target
name and nothing else (``usr/target.c``, ``tgt_target_create``), so no other is made.
"""

from __future__ import annotations

import re

from lunport.core.errors import InvalidConfig, InvalidInput, InvalidIqn
from lunport.core.iqn import MAX_LENGTH, Iqn, parse_iqn

DEFAULT_PREFIX = "iqn.2026-11.io.lunport:volume-"
_SENDABLE = re.compile(r"[a-z0-9:.-]+")
_ID = re.compile(r"[0-9a-z-]{1,64}")


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


def volume_id_of(name: str, prefix: str = DEFAULT_PREFIX) -> str | None:
    """Return the volume id in a target name; None when the name is not one of ours."""
    rest = name.removeprefix(prefix)
    return rest if rest != name and _ID.fullmatch(rest) else None
