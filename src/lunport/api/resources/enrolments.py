"""``/enrolments``: which hosts' agents may ask for their own exports; for administrators."""

from __future__ import annotations

from dataclasses import asdict, dataclass

import falcon

from lunport.api.request import ApiRequest, encode
from lunport.api.schemas import enrolments as schema
from lunport.api.schemas.host_reports import REPORT
from lunport.volume import enrolments, host_reports
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

    def on_put_report(self, req: ApiRequest, resp: falcon.Response, host: str) -> None:
        """Take what a host's agent tells of it."""
        host_reports.tell(self.service, req.caller, host, req.decode(REPORT).report.value())
        resp.status = falcon.HTTP_204

    def on_get_report(self, req: ApiRequest, resp: falcon.Response, host: str) -> None:
        """Show what a host has told last; null where that is nothing."""
        told = host_reports.read(self.service, req.caller, host)
        document = None if told is None else {"at": told.at, **asdict(told.report)}
        resp.data = encode({"report": document})
