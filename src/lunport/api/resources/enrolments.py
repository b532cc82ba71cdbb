"""``/enrolments``: which hosts' agents may ask for their own exports; for administrators."""

from __future__ import annotations

from dataclasses import dataclass

import falcon

from lunport.api.request import ApiRequest, encode
from lunport.api.schemas import enrolments as schema
from lunport.volume import enrolments
from lunport.volume.service import Service


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
        body = req.decode(schema.ENROL).enrolment
        done = enrolments.enrol(self.service, req.caller, body.host, body.initiator)
        resp.data = encode({"change": done.change.value, "enrolment": done.enrolment._asdict()})

    def on_delete_host(self, req: ApiRequest, resp: falcon.Response, host: str) -> None:
        """Listen to a host's agent no more."""
        enrolments.dismiss(self.service, req.caller, host)
        resp.status = falcon.HTTP_204
