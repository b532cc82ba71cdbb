"""``/volumes/{id}/action``: one function for each action, in a table by its wire name."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from dataclasses import dataclass
from typing import Any

import falcon
import msgspec

from lunport.api import microversions as mv
from lunport.api.faults import ApiError
from lunport.api.request import ApiRequest, decode_json, encode
from lunport.api.schemas import actions as schema
from lunport.api.schemas.fields import (
    check_boolean,
    check_required_text,
    check_size,
    check_text,
    check_uuid,
)
from lunport.core.errors import InvalidState
from lunport.volume import actions, reverting, volumes
from lunport.volume.service import Service

_ADMIN = "volume_extension:volume_admin_actions:"

# What an action does with (service, request, volume id, undecoded value). It returns the
# answer's body, or None for an empty one.
VolumeAction = Callable[[Service, ApiRequest, str, msgspec.Raw], dict[str, Any] | None]


@dataclass(frozen=True, slots=True)
class VolumeActionResource:
    """The actions of a volume."""

    service: Service

    def on_post(self, req: ApiRequest, resp: falcon.Response, identifier: str) -> None:
        """Find the action by the body's one key, and do it."""
        name, value = schema.peek(req.body())
        found = VOLUME_ACTIONS.get(name)
        if found is None:
            raise no_such_action(name)
        action, resp.status = found
        answer = action(self.service, req, identifier, value)
        if answer is not None:
            resp.data = encode(answer)


def no_such_action(name: str) -> ApiError:
    """Say that an action does not exist, as Block Storage does."""
    return ApiError(
        400,
        f"There is no such action: {name[:80]}. Verify the request body and Content-Type "
        "header and try again.",
    )


def _reserve(service: Service, req: ApiRequest, volume_id: str, _: msgspec.Raw) -> None:
    actions.reserve(service, req.caller, volume_id)


def _unreserve(service: Service, req: ApiRequest, volume_id: str, _: msgspec.Raw) -> None:
    actions.unreserve(service, req.caller, volume_id)


def _begin_detaching(service: Service, req: ApiRequest, volume_id: str, _: msgspec.Raw) -> None:
    actions.begin_detaching(service, req.caller, volume_id)


def _roll_detaching(service: Service, req: ApiRequest, volume_id: str, _: msgspec.Raw) -> None:
    actions.roll_detaching(service, req.caller, volume_id)


def _attach(service: Service, req: ApiRequest, volume_id: str, value: msgspec.Raw) -> None:
    body = decode_json(schema.ATTACH, value)
    if body.instance_uuid is None and body.host_name is None:
        raise ApiError(
            400,
            "Invalid input for field/attribute os-attach. "
            "'instance_uuid' or 'host_name' is a required property",
        )
    actions.attach(
        service,
        req.caller,
        volume_id,
        instance_uuid=check_uuid(body.instance_uuid, "instance_uuid"),
        host_name=check_text(body.host_name, "host_name", strips=False),
        mountpoint=check_required_text(body.mountpoint, "mountpoint"),
        mode=body.mode,
    )


def _detach(service: Service, req: ApiRequest, volume_id: str, value: msgspec.Raw) -> None:
    body = decode_json(schema.DETACH, value) or schema.Detach()
    attachment_id = check_uuid(body.attachment_id, "attachment_id")
    actions.detach(service, req.caller, volume_id, attachment_id=attachment_id)


def _force_detach(service: Service, req: ApiRequest, volume_id: str, value: msgspec.Raw) -> None:
    body = decode_json(schema.FORCE_DETACH, value)
    _require_admin(service, req, volume_id, "force_detach")
    actions.force_detach(
        service,
        req.caller,
        volume_id,
        attachment_id=check_uuid(body.attachment_id, "attachment_id"),
        connector=schema.to_connector(body.connector),
    )


def _initialize_connection(
    service: Service, req: ApiRequest, volume_id: str, value: msgspec.Raw
) -> dict[str, Any]:
    connector = schema.to_connector(decode_json(schema.INITIALIZE_CONNECTION, value).connector)
    info = actions.initialize_connection(service, req.caller, volume_id, connector or {})
    return {"connection_info": info}


def _terminate_connection(
    service: Service, req: ApiRequest, volume_id: str, value: msgspec.Raw
) -> None:
    connector = schema.to_connector(decode_json(schema.TERMINATE_CONNECTION, value).connector)
    actions.terminate_connection(service, req.caller, volume_id, connector)


def _extend(service: Service, req: ApiRequest, volume_id: str, value: msgspec.Raw) -> None:
    size_gib = check_size(decode_json(schema.EXTEND, value).new_size, "new_size")
    volumes.extend_volume(
        service, req.caller, volume_id, size_gib, allow_in_use=req.minor >= mv.EXTEND_IN_USE
    )


def _revert(service: Service, req: ApiRequest, volume_id: str, value: msgspec.Raw) -> None:
    req.require_version(mv.REVERT)
    body = decode_json(schema.REVERT, value)
    snapshot_id = check_uuid(body.snapshot_id, "snapshot_id") or ""
    try:
        reverting.revert_volume(service, req.caller, volume_id, snapshot_id)
    except InvalidState as error:
        # Of this one action Block Storage says that it is a conflict.
        raise ApiError(409, str(error)) from error


def _extend_completion(
    service: Service, req: ApiRequest, volume_id: str, value: msgspec.Raw
) -> None:
    decode_json(schema.EXTEND_COMPLETION, value)
    _require_admin(service, req, volume_id, "extend_volume_completion")
    raise ApiError(
        400, f"Invalid volume: Volume {volume_id} does not wait for the end of an extend."
    )


def _update_readonly_flag(
    service: Service, req: ApiRequest, volume_id: str, value: msgspec.Raw
) -> None:
    readonly = check_boolean(decode_json(schema.READONLY_FLAG, value).readonly, "readonly")
    volumes.set_readonly(service, req.caller, volume_id, readonly)


def _set_bootable(service: Service, req: ApiRequest, volume_id: str, value: msgspec.Raw) -> None:
    bootable = check_boolean(decode_json(schema.BOOTABLE, value).bootable, "bootable")
    volumes.set_bootable(service, req.caller, volume_id, bootable)


def _reset_status(service: Service, req: ApiRequest, volume_id: str, value: msgspec.Raw) -> None:
    body = decode_json(schema.RESET_VOLUME_STATUS, value)
    if not (body.status or body.attach_status or body.migration_status):
        raise ApiError(
            400, "Must specify 'status', 'attach_status' or 'migration_status' for update."
        )
    _require_admin(service, req, volume_id, "reset_status")
    volumes.reset_status(
        service,
        req.caller,
        volume_id,
        status=body.status or None,
        attach_status=body.attach_status or None,
        migration_status=check_text(body.migration_status or None, "migration_status"),
    )


def _force_delete(service: Service, req: ApiRequest, volume_id: str, _: msgspec.Raw) -> None:
    _require_admin(service, req, volume_id, "force_delete")
    volumes.delete_volume(service, req.caller, volume_id, force=True)


def _show_image_metadata(
    service: Service, req: ApiRequest, volume_id: str, _: msgspec.Raw
) -> dict[str, Any]:
    volumes.get_volume(service, req.caller, volume_id)
    return {"metadata": {}}


def _require_admin(service: Service, req: ApiRequest, volume_id: str, action: str) -> None:
    volumes.get_volume(service, req.caller, volume_id)
    req.require_admin(_ADMIN + action)


VOLUME_ACTIONS: Mapping[str, tuple[VolumeAction, str]] = {
    "os-reserve": (_reserve, falcon.HTTP_202),
    "os-unreserve": (_unreserve, falcon.HTTP_202),
    "os-begin_detaching": (_begin_detaching, falcon.HTTP_202),
    "os-roll_detaching": (_roll_detaching, falcon.HTTP_202),
    "os-attach": (_attach, falcon.HTTP_202),
    "os-detach": (_detach, falcon.HTTP_202),
    "os-force_detach": (_force_detach, falcon.HTTP_202),
    "os-initialize_connection": (_initialize_connection, falcon.HTTP_200),
    "os-terminate_connection": (_terminate_connection, falcon.HTTP_202),
    "os-extend": (_extend, falcon.HTTP_202),
    "revert": (_revert, falcon.HTTP_202),
    "os-extend_volume_completion": (_extend_completion, falcon.HTTP_202),
    "os-update_readonly_flag": (_update_readonly_flag, falcon.HTTP_202),
    "os-set_bootable": (_set_bootable, falcon.HTTP_200),
    "os-reset_status": (_reset_status, falcon.HTTP_202),
    "os-force_delete": (_force_delete, falcon.HTTP_202),
    "os-show_image_metadata": (_show_image_metadata, falcon.HTTP_200),
}
