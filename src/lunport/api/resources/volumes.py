"""``/volumes``, ``/volumes/detail``, ``/volumes/summary`` and ``/volumes/{id}``."""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass, replace

import falcon

from lunport.api import list_rules, listing
from lunport.api import microversions as mv
from lunport.api.request import ApiRequest, encode
from lunport.api.schemas import volumes as schema
from lunport.api.views.volumes import VolumeViews, summaries
from lunport.core.query import Query
from lunport.volume import volumes
from lunport.volume.requests import Page, VolumeView
from lunport.volume.service import Service

_NO_ROWS: Page[VolumeView] = Page((), more=False)


@dataclass(frozen=True, slots=True)
class VolumesResource:
    """The volumes of a project."""

    service: Service
    views: VolumeViews

    def on_get(self, req: ApiRequest, resp: falcon.Response) -> None:
        """List volumes."""
        self._list(req, resp, is_detail=False)

    def on_get_detail(self, req: ApiRequest, resp: falcon.Response) -> None:
        """List volumes in full."""
        self._list(req, resp, is_detail=True)

    def on_post(self, req: ApiRequest, resp: falcon.Response) -> None:
        """Create a volume."""
        keys = schema.decode_create(req.body(), req.minor)
        row = volumes.create_volume(self.service, req.caller, schema.to_new_volume(keys))
        resp.status = falcon.HTTP_202
        resp.data = encode(self.views.detail(req, row, extended=False))

    def on_get_summary(self, req: ApiRequest, resp: falcon.Response) -> None:
        """Count volumes and GiB."""
        req.require_version(mv.VOLUME_SUMMARY)
        is_all = req.caller.is_admin and req.flag("all_tenants")
        query = Query(project_id=None if is_all else req.caller.project_id)
        shown: dict[str, object] = {
            "total_count": volumes.count_volumes(self.service, req.caller, query),
            "total_size": volumes.total_size_gib(self.service, req.caller, query),
        }
        if req.minor >= mv.VOLUME_SUMMARY_METADATA:
            values: dict[str, set[str]] = {}
            for row in self._every(req, query):
                for key, value in row.volume.metadata.items():
                    values.setdefault(key, set()).add(value)
            shown["metadata"] = {key: sorted(found) for key, found in sorted(values.items())}
        resp.data = encode({"volume-summary": shown})

    def _list(self, req: ApiRequest, resp: falcon.Response, *, is_detail: bool) -> None:
        wanted = listing.read_list_request(req, list_rules.VOLUME_RULES)
        page, count = _NO_ROWS, 0
        if not wanted.matches_nothing:
            page = volumes.list_volumes(
                self.service, req.caller, wanted.query, with_attachments=is_detail
            )
            if wanted.with_count:
                count = volumes.count_volumes(self.service, req.caller, wanted.query)
        shown = self.views.details(req, page.rows) if is_detail else summaries(req, page.rows)
        resp.data = encode(
            listing.show_page(
                req,
                "volumes/detail" if is_detail else "volumes",
                shown,
                last_id=page.rows[-1].volume.id
                if listing.is_full(page.rows, wanted.query)
                else None,
                count=count if wanted.with_count else None,
            )
        )

    def _every(self, req: ApiRequest, query: Query) -> Iterator[VolumeView]:
        marker: str | None = None
        more = True
        while more:
            page = volumes.list_volumes(
                self.service,
                req.caller,
                replace(query, limit=listing.MAX_LIMIT, marker=marker),
                with_attachments=False,
            )
            yield from page.rows
            more = page.more and bool(page.rows)
            marker = page.rows[-1].volume.id if page.rows else None


@dataclass(frozen=True, slots=True)
class VolumeResource:
    """One volume."""

    service: Service
    views: VolumeViews

    def on_get(self, req: ApiRequest, resp: falcon.Response, identifier: str) -> None:
        """Show the volume."""
        row = volumes.get_volume(self.service, req.caller, identifier)
        resp.data = encode(self.views.detail(req, row))

    def on_put(self, req: ApiRequest, resp: falcon.Response, identifier: str) -> None:
        """Change its name, description or metadata."""
        changes = schema.to_changes(req.decode(schema.UPDATE).volume, req.minor)
        row = volumes.update_volume(
            self.service,
            req.caller,
            identifier,
            name=changes.name,
            description=changes.description,
            metadata=changes.metadata,
        )
        resp.data = encode(self.views.detail(req, row, extended=False))

    def on_delete(self, req: ApiRequest, resp: falcon.Response, identifier: str) -> None:
        """Delete it."""
        cascade = req.flag("cascade")
        force = req.minor >= mv.FORCED_DELETE and req.flag("force")
        if force and not req.caller.is_admin:
            volumes.get_volume(self.service, req.caller, identifier)
            req.require_admin("volume:force_delete")
        volumes.delete_volume(self.service, req.caller, identifier, force=force, cascade=cascade)
        resp.status = falcon.HTTP_202

    def on_get_encryption(self, req: ApiRequest, resp: falcon.Response, identifier: str) -> None:
        """Say that it is not encrypted."""
        volumes.get_volume(self.service, req.caller, identifier)
        resp.data = encode({"encryption_key_id": None})
