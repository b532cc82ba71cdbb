"""Types, pools, services, limits, quotas, zones and messages: what is read about the service.

Volume types come from the configuration, so every write to them is a 405.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any

import falcon

from lunport.api import list_rules, listing
from lunport.api import microversions as mv
from lunport.api.faults import ApiError
from lunport.api.request import ApiRequest, encode
from lunport.api.views import catalog as views
from lunport.core.errors import NotAllowed
from lunport.volume import catalog, messages
from lunport.volume.requests import Query, VolumeType
from lunport.volume.service import Service


@dataclass(frozen=True, slots=True)
class TypesResource:
    """Volume types."""

    service: Service

    def on_get(self, req: ApiRequest, resp: falcon.Response) -> None:
        """List the types; few enough for one page unless a smaller one is asked for."""
        wanted = listing.read_list_request(req, list_rules.TYPE_RULES)
        found = [
            one
            for one in catalog.list_types(self.service, req.caller)
            if one.is_public or req.caller.is_admin
        ]
        specs = req.parameter("extra_specs")
        if specs is not None and req.minor >= mv.TYPE_FILTERS:
            asked = listing.read_mapping(specs, "extra_specs").items()
            found = [one for one in found if asked <= views.visible_specs(req, one).items()]
        rows = _slice(found, wanted.query)
        shown: dict[str, Any] = {"volume_types": [views.volume_type(req, one) for one in rows]}
        if listing.is_full(rows, wanted.query):
            shown["volume_type_links"] = req.next_link("types", rows[-1].id)
        resp.data = encode(shown)

    def on_get_one(self, req: ApiRequest, resp: falcon.Response, type_id: str) -> None:
        """Show a type; ``default`` is the one that volumes get when none is named."""
        resp.data = encode({"volume_type": views.volume_type(req, self._find(req, type_id))})

    def on_get_specs(self, req: ApiRequest, resp: falcon.Response, type_id: str) -> None:
        """Show a type's extra specs."""
        resp.data = encode({"extra_specs": views.visible_specs(req, self._find(req, type_id))})

    def on_get_spec(self, req: ApiRequest, resp: falcon.Response, type_id: str, key: str) -> None:
        """Show one extra spec."""
        specs = views.visible_specs(req, self._find(req, type_id))
        if key not in specs:
            raise ApiError(404, f"Volume Type {type_id} has no extra specs with key {key[:255]}.")
        resp.data = encode({key: specs[key]})

    def on_get_encryption(self, req: ApiRequest, resp: falcon.Response, type_id: str) -> None:
        """Say that no type encrypts."""
        self._find(req, type_id)
        resp.data = encode({})

    def on_get_access(self, req: ApiRequest, resp: falcon.Response, type_id: str) -> None:
        """Say that every type is public."""
        self._find(req, type_id)
        raise ApiError(404, "Access list not available for public volume types.")

    def _find(self, req: ApiRequest, type_id: str) -> VolumeType:
        if type_id == "default":
            return catalog.default_type(self.service, req.caller)
        return catalog.get_type(self.service, req.caller, type_id)


@dataclass(frozen=True, slots=True)
class CapacityResource:
    """Pools, services, limits and quotas."""

    service: Service

    def on_get_pools(self, req: ApiRequest, resp: falcon.Response) -> None:
        """List the backends as a scheduler sees them."""
        req.require_admin("scheduler_extension:scheduler_stats:get_pools")
        is_detail = req.flag("detail")
        name = req.parameter("name") if req.minor >= mv.POOL_FILTERS else None
        wanted = req.parameter("volume_type") if req.minor >= mv.POOL_TYPE_FILTER else None
        if wanted:
            catalog.get_type(self.service, req.caller, wanted)
        pools = [
            views.pool(one, with_capabilities=is_detail)
            for one in catalog.list_pools(self.service, req.caller)
            if name in (None, one.name)
        ]
        resp.data = encode({"pools": pools})

    def on_get_services(self, req: ApiRequest, resp: falcon.Response) -> None:
        """List the parts of the service."""
        req.require_admin("volume_extension:services:index")
        host, binary = req.parameter("host"), req.parameter("binary")
        found = [
            views.service(req, one)
            for one in catalog.list_services(self.service, req.caller)
            # A host is also the host of its backends: ``storage`` of ``storage@fast``.
            if host in (None, one.host, one.host.partition("@")[0]) and binary in (None, one.binary)
        ]
        resp.data = encode({"services": found})

    def on_get_limits(self, req: ApiRequest, resp: falcon.Response) -> None:
        """Show limits and use."""
        project = None
        if req.caller.is_admin and req.minor >= mv.LIMITS_OF_PROJECT:
            project = req.parameter("project_id") or req.parameter("tenant_id")
        resp.data = encode(views.limits(catalog.read_usage(self.service, req.caller, project)))

    def on_get_quotas(self, req: ApiRequest, resp: falcon.Response, project_id: str) -> None:
        """Show a project's quotas, all unlimited, with its use when asked for."""
        self._require_own(req, project_id)
        used = (
            catalog.read_usage(self.service, req.caller, project_id) if req.flag("usage") else None
        )
        resp.data = encode(views.quota_set(project_id, used))

    def on_get_defaults(self, req: ApiRequest, resp: falcon.Response, project_id: str) -> None:
        """Show the quotas that projects start with."""
        self._require_own(req, project_id)
        resp.data = encode(views.quota_set(project_id, None))

    def on_get_zones(self, req: ApiRequest, resp: falcon.Response) -> None:
        """List availability zones."""
        zones = [
            {"zoneName": name, "zoneState": {"available": True}}
            for name in catalog.availability_zones(self.service)
        ]
        resp.data = encode({"availabilityZoneInfo": zones})

    def _require_own(self, req: ApiRequest, project_id: str) -> None:
        if project_id != req.caller.project_id and not req.caller.is_admin:
            raise NotAllowed("volume_extension:quotas:show")


@dataclass(frozen=True, slots=True)
class MessagesResource:
    """Messages (3.3): why something that was accepted failed later."""

    service: Service

    def on_get(self, req: ApiRequest, resp: falcon.Response) -> None:
        """List messages."""
        req.require_version(mv.MESSAGES)
        query = Query(project_id=req.caller.project_id, limit=listing.MAX_LIMIT)
        is_empty = False
        if req.minor >= mv.MESSAGES_PAGED:
            wanted = listing.read_list_request(req, list_rules.MESSAGE_RULES)
            query, is_empty = wanted.query, wanted.matches_nothing
        rows = () if is_empty else messages.list_messages(self.service, req.caller, query).rows
        resp.data = encode(
            listing.show_page(
                req,
                "messages",
                [views.message(req, one) for one in rows],
                last_id=rows[-1].id if listing.is_full(rows, query) else None,
            )
        )

    def on_get_one(self, req: ApiRequest, resp: falcon.Response, message_id: str) -> None:
        """Show a message."""
        req.require_version(mv.MESSAGES)
        one = messages.get_message(self.service, req.caller, message_id)
        resp.data = encode({"message": views.message(req, one)})

    def on_delete_one(self, req: ApiRequest, resp: falcon.Response, message_id: str) -> None:
        """Delete a message."""
        req.require_version(mv.MESSAGES)
        messages.delete_message(self.service, req.caller, message_id)
        resp.status = falcon.HTTP_204


def _slice(found: list[VolumeType], query: Query) -> list[VolumeType]:
    """Return a page of a short list that is not in the store's hands."""
    if query.marker is not None:
        ids = [one.id for one in found]
        if query.marker not in ids:
            raise ApiError(400, f"marker {query.marker[:80]} could not be found.")
        found = found[ids.index(query.marker) + 1 :]
    found = found[query.offset :]
    return found[: query.limit]
