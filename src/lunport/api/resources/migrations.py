"""``/migrations``: guests' moves between hosts, for administrators and the two agents."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from dataclasses import dataclass

import falcon
import msgspec

from lunport.api.request import ApiRequest, encode
from lunport.api.resources.actions import no_such_action
from lunport.api.schemas import actions as action_schema
from lunport.api.schemas import migrations as schema
from lunport.api.views import migrations as views
from lunport.volume import migrations
from lunport.volume.migrations import MigrationView
from lunport.volume.service import Service

MigrationAction = Callable[[Service, ApiRequest, str, msgspec.Raw], MigrationView]


@dataclass(frozen=True, slots=True)
class MigrationsResource:
    """The moves that are open, and those that were."""

    service: Service

    def on_get(self, req: ApiRequest, resp: falcon.Response) -> None:
        """List them: the open ones, or all with ``?all=true``."""
        found = migrations.list_migrations(self.service, req.caller, with_done=req.flag("all"))
        resp.data = encode({"migrations": [views.summary(one) for one in found]})

    def on_post(self, req: ApiRequest, resp: falcon.Response) -> None:
        """Record one."""
        new = schema.to_new_migration(req.decode(schema.START))
        done = migrations.start(self.service, req.caller, new)
        resp.data = encode({"change": done.change.value, **views.detail(done.view)})

    def on_get_one(self, req: ApiRequest, resp: falcon.Response, migration_id: str) -> None:
        """Show one with what happened to it."""
        view = migrations.get_migration(self.service, req.caller, migration_id)
        resp.data = encode(views.detail(view))

    def on_post_action(self, req: ApiRequest, resp: falcon.Response, migration_id: str) -> None:
        """Find the action by the body's one key, and do it."""
        name, value = action_schema.peek(req.body())
        action = MIGRATION_ACTIONS.get(name)
        if action is None:
            raise no_such_action(name)
        resp.data = encode(views.detail(action(self.service, req, migration_id, value)))


def _prepared(
    service: Service, req: ApiRequest, migration_id: str, value: msgspec.Raw
) -> MigrationView:
    volume_id, attachment_id = schema.decode_prepared(value)
    return migrations.prepared(service, req.caller, migration_id, volume_id, attachment_id)


def _moving(
    service: Service, req: ApiRequest, migration_id: str, value: msgspec.Raw
) -> MigrationView:
    schema.decode_nothing(value)
    return migrations.advance(service, req.caller, migration_id)


def _settle(
    service: Service, req: ApiRequest, migration_id: str, value: msgspec.Raw
) -> MigrationView:
    return migrations.settle(service, req.caller, migration_id, schema.decode_settle(value))


def _release(
    service: Service, req: ApiRequest, migration_id: str, value: msgspec.Raw
) -> MigrationView:
    schema.decode_nothing(value)
    return migrations.release(service, req.caller, migration_id)


def _abort(
    service: Service, req: ApiRequest, migration_id: str, value: msgspec.Raw
) -> MigrationView:
    return migrations.abort(service, req.caller, migration_id, schema.decode_abort(value))


def _note(
    service: Service, req: ApiRequest, migration_id: str, value: msgspec.Raw
) -> MigrationView:
    what, document = schema.decode_note(value)
    return migrations.note(service, req.caller, migration_id, what, document)


MIGRATION_ACTIONS: Mapping[str, MigrationAction] = {
    "lunport:prepared": _prepared,
    "lunport:moving": _moving,
    "lunport:settle": _settle,
    "lunport:release": _release,
    "lunport:abort": _abort,
    "lunport:note": _note,
}
