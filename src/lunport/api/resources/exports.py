"""``/exports``: what is exported to whom, cutting hosts off, checking; for administrators."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from dataclasses import dataclass
from typing import Any

import falcon
import msgspec

from lunport.api.request import ApiRequest, encode
from lunport.api.resources.actions import no_such_action
from lunport.api.schemas import actions as action_schema
from lunport.api.schemas import exports as schema
from lunport.api.views import exports as views
from lunport.volume import checking, export_list, fencing
from lunport.volume.service import Service

ExportAction = Callable[[Service, ApiRequest, msgspec.Raw], dict[str, Any]]


@dataclass(frozen=True, slots=True)
class ExportsResource:
    """The exports of all backends."""

    service: Service

    def on_get(self, req: ApiRequest, resp: falcon.Response) -> None:
        """List what is exported to whom."""
        resp.data = encode(views.listed(export_list.list_exports(self.service, req.caller)))

    def on_post_action(self, req: ApiRequest, resp: falcon.Response) -> None:
        """Find the action by the body's one key, and do it."""
        name, value = action_schema.peek(req.body())
        action = EXPORT_ACTIONS.get(name)
        if action is None:
            raise no_such_action(name)
        req.require_admin(name)
        resp.data = encode(action(self.service, req, value))


def _revoke(service: Service, req: ApiRequest, value: msgspec.Raw) -> dict[str, Any]:
    selector, reason = schema.decode_revoke(value)
    return views.fenced(fencing.revoke(service, req.caller, selector, reason))


def _restore(service: Service, req: ApiRequest, value: msgspec.Raw) -> dict[str, Any]:
    selector = schema.decode_restore(value)
    return views.fenced(fencing.lift(service, req.caller, selector))


def _check(service: Service, req: ApiRequest, value: msgspec.Raw) -> dict[str, Any]:
    repair = schema.decode_check(value)
    return views.checked(checking.check_exports(service, req.caller, repair=repair))


EXPORT_ACTIONS: Mapping[str, ExportAction] = {
    "lunport:revoke": _revoke,
    "lunport:restore": _restore,
    "lunport:check": _check,
}
