"""iSCSI names (RFC 7143 section 4.2.7, RFC 3721, RFC 3722).

Three forms: ``iqn.2026-11.org.example:volume-1``, ``eui.02004567A425678D`` and
``naa.52004567BA64678D``. RFC 3722 allows letters, digits, ``-``, ``.`` and ``:`` of ASCII;
``_`` is allowed here as well, because Windows hosts and arrays use it. Everything that could
mean something to a shell, a configuration file or a path is refused.

The case is kept as given, and only :func:`same_iqn` compares without regard to it.

Quirk(tgt): an initiator whose name has a capital letter is refused when its ACL entry is in
lower case, and so is a login that writes the target's name in another case; tgtd compares
byte by byte (target.c, 1.0.85), open-iscsi sends a name as it is configured. LIO folds case.
"""

from __future__ import annotations

import re
import unicodedata
from typing import NewType

from lunport.core.errors import InvalidIqn

Iqn = NewType("Iqn", str)

MAX_LENGTH = 223
_FORMS = re.compile(
    r"iqn\.[0-9]{4}-[0-9]{1,2}\.[a-z0-9](?:[a-z0-9._-]*[a-z0-9])?(?::[a-z0-9._:\x80-\U0010ffff-]+)?"
    r"|eui\.[0-9a-f]{16}"
    r"|naa\.(?:[0-9a-f]{16}|[0-9a-f]{32})"
)


def parse_iqn(text: object, *, what: str = "IQN") -> Iqn:
    """Parse an iSCSI name. Raises: InvalidIqn."""
    if not isinstance(text, str):
        raise InvalidIqn(what, text, "an iSCSI name is a string")
    name = text.strip()
    if not name.isascii() and not _is_prepared(name):
        raise InvalidIqn(what, text, "a name beyond ASCII must be printable and normalised (NFKC)")
    if len(name.encode()) > MAX_LENGTH:
        raise InvalidIqn(what, text, f"an iSCSI name has at most {MAX_LENGTH} bytes")
    if not _FORMS.fullmatch(name.lower()):
        raise InvalidIqn(
            what, text, "expected iqn.YYYY-MM.domain[:name], eui.16hex or naa.16hex or 32hex"
        )
    return Iqn(name)


def same_iqn(one: str, other: str) -> bool:
    """Tell whether two names are the same name; iSCSI names have no case."""
    return fold_iqn(one) == fold_iqn(other)


def fold_iqn(name: str) -> str:
    """Give what is equal for all spellings of a name: a key to look it up by (RFC 3722)."""
    return name.casefold()


def _is_prepared(name: str) -> bool:
    # Surrogates, controls and format characters (bidirectional marks) are not printable.
    return name.isprintable() and unicodedata.normalize("NFKC", name) == name
