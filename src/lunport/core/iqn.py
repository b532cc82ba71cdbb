"""iSCSI names (RFC 3720 section 3.2.6, RFC 3721, RFC 3722).

Three forms: ``iqn.2026-11.org.example:volume-1``, ``eui.02004567A425678D`` and
``naa.52004567BA64678D``. Names are compared without regard to case, so they are kept in
lower case.
"""

from __future__ import annotations

import re
from typing import NewType

from lunport.core.errors import InvalidIqn

Iqn = NewType("Iqn", str)

MAX_LENGTH = 223
_FORMS = re.compile(
    r"iqn\.\d{4}-\d{1,2}\.[a-z0-9](?:[a-z0-9.-]*[a-z0-9])?(?::[^\s,;\x00-\x20\"'`\\|<>&]+)?"
    r"|eui\.[0-9a-f]{16}"
    r"|naa\.(?:[0-9a-f]{16}|[0-9a-f]{32})"
)


def parse_iqn(text: object, *, what: str = "IQN") -> Iqn:
    """Parse an iSCSI name. Raises: InvalidIqn."""
    if not isinstance(text, str):
        raise InvalidIqn(what, text, "an iSCSI name is a string")
    name = text.strip().lower()
    if len(name.encode()) > MAX_LENGTH:
        raise InvalidIqn(what, text, f"an iSCSI name has at most {MAX_LENGTH} bytes")
    if not _FORMS.fullmatch(name):
        raise InvalidIqn(
            what, text, "expected iqn.YYYY-MM.domain[:name], eui.16hex or naa.16hex or 32hex"
        )
    return Iqn(name)
