"""Names of hosts, as certificates, connectors and administrators write them (RFC 1123).

``_`` is allowed beside letters, digits, ``-`` and ``.``, because hosts use it. Names have no
case: they are compared, and kept where they are a key, in lower case.
"""

from __future__ import annotations

import re

from lunport.core.errors import InvalidInput

MAX_LENGTH = 253
_LABEL = r"[A-Za-z0-9_](?:[A-Za-z0-9_-]{0,61}[A-Za-z0-9_])?"
_NAME = re.compile(rf"{_LABEL}(?:\.{_LABEL})*")


def parse_host_name(text: object, *, what: str = "host name") -> str:
    """Parse a host's name, and give it in lower case. Raises: InvalidInput."""
    if not isinstance(text, str) or len(text) > MAX_LENGTH or not _NAME.fullmatch(text):
        reason = "expected letters, digits, - and _, in labels with dots between them"
        raise InvalidInput(what, text, reason)
    return fold_host(text)


def fold_host(name: str) -> str:
    """Give what is equal for all spellings of a name."""
    return name.lower()


def same_host(one: str | None, other: str | None) -> bool:
    """Tell whether two names are the same name; nobody's name is none."""
    return one is not None and other is not None and fold_host(one) == fold_host(other)
