"""``/snapshots``, ``/snapshots/detail``, ``/snapshots/{id}`` and their actions."""

from __future__ import annotations

from dataclasses import dataclass

import falcon

from lunport.api import list_rules, listing
from lunport.api.request import ApiRequest, decode_json, encode
from lunport.api.resources.actions import no_such_action
from lunport.api.schemas import actions as action_schema
from lunport.api.schemas import snapshots as schema
from lunport.api.views import snapshots as views
from lunport.core.snapshot import Snapshot
from lunport.volume import snapshots
from lunport.volume.requests import Page
from lunport.volume.service import Service

_ADMIN = "volume_extension:snapshot_admin_actions:"
_NO_ROWS: Page[Snapshot] = Page((), more=False)


@dataclass(frozen=True, slots=True)
class SnapshotsResource:
    """The snapshots of a project."""

    service: Service

    def on_get(self, req: ApiRequest, resp: falcon.Response) -> None:
        """List snapshots."""
        self._list(req, resp, is_detail=False)

    def on_get_detail(self, req: ApiRequest, resp: falcon.Response) -> None:
        """List snapshots in full."""
        self._list(req, resp, is_detail=True)

    def on_post(self, req: ApiRequest, resp: falcon.Response) -> None:
        """Take a snapshot."""
        body = req.decode(schema.CREATE)
        row = snapshots.create_snapshot(
            self.service, req.caller, schema.to_new_snapshot(body.snapshot, req.minor)
        )
        resp.status = falcon.HTTP_202
        resp.data = encode(views.detail(req, row, extended=False))

    def _list(self, req: ApiRequest, resp: falcon.Response, *, is_detail: bool) -> None:
        wanted = listing.read_list_request(req, list_rules.SNAPSHOT_RULES)
        page, count = _NO_ROWS, 0
        if not wanted.matches_nothing:
            page = snapshots.list_snapshots(self.service, req.caller, wanted.query)
            if wanted.with_count:
                count = snapshots.count_snapshots(self.service, req.caller, wanted.query)
        resp.data = encode(
            listing.show_page(
                req,
                "snapshots/detail" if is_detail else "snapshots",
                views.details(req, page.rows, full=is_detail),
                last_id=page.rows[-1].id if listing.is_full(page.rows, wanted.query) else None,
                count=count if wanted.with_count else None,
            )
        )


@dataclass(frozen=True, slots=True)
class SnapshotResource:
    """One snapshot."""

    service: Service

    def on_get(self, req: ApiRequest, resp: falcon.Response, identifier: str) -> None:
        """Show the snapshot."""
        row = snapshots.get_snapshot(self.service, req.caller, identifier)
        resp.data = encode(views.detail(req, row))

    def on_put(self, req: ApiRequest, resp: falcon.Response, identifier: str) -> None:
        """Change its name or description."""
        name, description = schema.to_changes(req.decode(schema.UPDATE).snapshot)
        row = snapshots.update_snapshot(
            self.service, req.caller, identifier, name=name, description=description
        )
        resp.data = encode(views.detail(req, row, extended=False))

    def on_delete(self, req: ApiRequest, resp: falcon.Response, identifier: str) -> None:
        """Delete it."""
        snapshots.delete_snapshot(self.service, req.caller, identifier)
        resp.status = falcon.HTTP_202


@dataclass(frozen=True, slots=True)
class SnapshotActionResource:
    """The actions of a snapshot, all for administrators."""

    service: Service

    def on_post(self, req: ApiRequest, resp: falcon.Response, identifier: str) -> None:
        """Find the action by the body's one key, and do it."""
        name, value = action_schema.peek(req.body())
        if name == "os-reset_status":
            status = decode_json(action_schema.RESET_SNAPSHOT_STATUS, value).status
            self._require_admin(req, identifier, "reset_status")
            snapshots.reset_status(self.service, req.caller, identifier, status)
        elif name == "os-force_delete":
            self._require_admin(req, identifier, "force_delete")
            snapshots.delete_snapshot(self.service, req.caller, identifier, force=True)
        else:
            raise no_such_action(name)
        resp.status = falcon.HTTP_202

    def _require_admin(self, req: ApiRequest, identifier: str, action: str) -> None:
        snapshots.get_snapshot(self.service, req.caller, identifier)
        req.require_admin(_ADMIN + action)
