"""``/enrolments``: which hosts' agents may ask for their own exports; for administrators."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Annotated

import falcon
import msgspec

from lunport.api.request import ApiRequest, encode
from lunport.volume import enrolments
from lunport.volume.service import Service

_Name = Annotated[str, msgspec.Meta(min_length=1, max_length=255)]


class EnrolmentKeys(msgspec.Struct, forbid_unknown_fields=True):
    """A host, and the initiator that it is known by."""

    host: _Name
    initiator: _Name


class EnrolBody(msgspec.Struct, forbid_unknown_fields=True):
    """``POST /enrolments``."""

    enrolment: EnrolmentKeys


_ENROL = msgspec.json.Decoder(EnrolBody)


@dataclass(frozen=True, slots=True)
class EnrolmentsResource:
    """The hosts whose agents the service listens to."""

    service: Service

    def on_get(self, req: ApiRequest, resp: falcon.Response) -> None:
        """List them."""
        found = enrolments.list_enrolments(self.service, req.caller)
        resp.data = encode({"enrolments": [one._asdict() for one in found]})

    def on_post(self, req: ApiRequest, resp: falcon.Response) -> None:
        """Enrol a host."""
        req.require_admin("lunport:enrol")
        body = req.decode(_ENROL).enrolment
        done = enrolments.enrol(self.service, req.caller, body.host, body.initiator)
        resp.data = encode({"change": done.change.value, "enrolment": done.enrolment._asdict()})

    def on_delete_host(self, req: ApiRequest, resp: falcon.Response, host: str) -> None:
        """Listen to a host's agent no more."""
        enrolments.dismiss(self.service, req.caller, host)
        resp.status = falcon.HTTP_204
