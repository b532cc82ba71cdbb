"""``/attachments`` (3.27): reserve, connect, complete (3.44), disconnect."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any

import falcon

from lunport.api import list_rules, listing
from lunport.api import microversions as mv
from lunport.api.request import ApiRequest, encode
from lunport.api.resources.actions import no_such_action
from lunport.api.schemas import actions as action_schema
from lunport.api.schemas import attachments as schema
from lunport.api.schemas import path_reports as report_schema
from lunport.api.views import attachments as views
from lunport.volume import attachments, path_reports
from lunport.volume.service import Service

_REPORT_PATHS = "lunport:report_paths"


@dataclass(frozen=True, slots=True)
class AttachmentsResource:
    """The attachments of a project."""

    service: Service

    def on_get(self, req: ApiRequest, resp: falcon.Response) -> None:
        """List attachments."""
        req.require_version(mv.ATTACHMENTS)
        wanted = listing.read_list_request(req, list_rules.ATTACHMENT_RULES)
        rows: list[dict[str, Any]] = []
        if not wanted.matches_nothing:
            page = attachments.list_attachments(self.service, req.caller, wanted.query)
            rows = [views.summary(one) for one in page.rows]
        resp.data = encode({"attachments": rows})

    def on_get_detail(self, req: ApiRequest, resp: falcon.Response) -> None:
        """List attachments with their connections."""
        req.require_version(mv.ATTACHMENTS)
        wanted = listing.read_list_request(req, list_rules.ATTACHMENT_RULES)
        rows: list[dict[str, Any]] = []
        if not wanted.matches_nothing:
            page = attachments.list_attachment_details(self.service, req.caller, wanted.query)
            rows = [views.full(one) for one in page.rows]
        resp.data = encode({"attachments": rows})

    def on_post(self, req: ApiRequest, resp: falcon.Response) -> None:
        """Reserve a volume, and connect it when there is a connector."""
        req.require_version(mv.ATTACHMENTS)
        new = schema.to_new_attachment(schema.decode_create(req.body(), req.minor))
        view = attachments.create_attachment(self.service, req.caller, new)
        resp.data = encode(views.detail(view))


@dataclass(frozen=True, slots=True)
class AttachmentResource:
    """One attachment."""

    service: Service

    def on_get(self, req: ApiRequest, resp: falcon.Response, attachment_id: str) -> None:
        """Show the attachment."""
        req.require_version(mv.ATTACHMENTS)
        view = attachments.get_attachment(self.service, req.caller, attachment_id)
        resp.data = encode(views.detail(view))

    def on_put(self, req: ApiRequest, resp: falcon.Response, attachment_id: str) -> None:
        """Connect it to the host that the connector declares."""
        req.require_version(mv.ATTACHMENTS)
        connector = schema.to_connector(req.decode(schema.UPDATE).attachment)
        view = attachments.update_attachment(self.service, req.caller, attachment_id, connector)
        resp.data = encode(views.detail(view))

    def on_delete(self, req: ApiRequest, resp: falcon.Response, attachment_id: str) -> None:
        """Disconnect and forget it; show the ones that remain."""
        req.require_version(mv.ATTACHMENTS)
        remaining = attachments.delete_attachment(self.service, req.caller, attachment_id)
        resp.data = encode(views.summaries(remaining))

    def on_post_action(self, req: ApiRequest, resp: falcon.Response, attachment_id: str) -> None:
        """Complete it: the host uses the volume now. Or (ours) keep what its host tells."""
        req.require_version(mv.ATTACHMENTS)
        name, value = action_schema.peek(req.body())
        if name == _REPORT_PATHS:
            told = report_schema.decode_path_report(value)
            path_reports.report_paths(self.service, req.caller, attachment_id, told)
            resp.status = falcon.HTTP_202
            return
        if name != "os-complete":
            raise no_such_action(name)
        req.require_version(mv.ATTACHMENT_COMPLETE)
        attachments.complete_attachment(self.service, req.caller, attachment_id)
        resp.status = falcon.HTTP_204
