"""The body of ``POST /enrolments``: ours, for administrators.

{"enrolment": {"host": "node-a", "initiator": "iqn.1993-08.org.debian:01:5a8b"}}
"""

from __future__ import annotations

from typing import Annotated

import msgspec

_Name = Annotated[str, msgspec.Meta(min_length=1, max_length=255)]


class EnrolmentKeys(msgspec.Struct, forbid_unknown_fields=True):
    """A host, and the initiator that it is known by."""

    host: _Name
    initiator: _Name


class EnrolBody(msgspec.Struct, forbid_unknown_fields=True):
    """``POST /enrolments``."""

    enrolment: EnrolmentKeys


ENROL = msgspec.json.Decoder(EnrolBody)
