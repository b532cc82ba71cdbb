"""How types, pools, services, limits and messages look on the wire."""

from __future__ import annotations

from datetime import datetime, timedelta
from typing import Any

from lunport.api import microversions as mv
from lunport.api.request import ApiRequest
from lunport.volume.requests import Message, Pool, ServiceState, Usage, VolumeType

UNLIMITED = -1
# Block Storage's default. Messages are kept until they are deleted; clients want a time.
MESSAGE_LIFE = timedelta(days=30)

# Extra specs that callers who are not administrators may see, as in Block Storage.
PUBLIC_SPECS = frozenset({"RESKEY:availability_zones", "multiattach", "replication_enabled"})
_COUNTED = ("volumes", "snapshots", "gigabytes")
_NOT_OFFERED = ("backups", "backup_gigabytes", "groups")


def visible_specs(req: ApiRequest, one: VolumeType) -> dict[str, str]:
    """Return the extra specs that the caller may see."""
    return {
        key: value
        for key, value in one.extra_specs.items()
        if req.caller.is_admin or key in PUBLIC_SPECS
    }


def volume_type(req: ApiRequest, one: VolumeType) -> dict[str, Any]:
    """Show a volume type."""
    shown: dict[str, Any] = {
        "id": one.id,
        "name": one.name,
        "is_public": one.is_public,
        "description": one.description,
        "extra_specs": visible_specs(req, one),
    }
    if req.caller.is_admin:
        shown["qos_specs_id"] = None
        shown["os-volume-type-access:is_public"] = one.is_public
    return shown


def pool(one: Pool, *, with_capabilities: bool) -> dict[str, Any]:
    """Show a pool, with its capabilities when asked for."""
    if not with_capabilities:
        return {"name": one.name}
    return {
        "name": one.name,
        "capabilities": {
            "volume_backend_name": one.backend,
            "pool_name": one.name.rpartition("#")[2],
            "storage_protocol": one.protocol,
            "vendor_name": "Lunport",
            "driver_version": "1",
            "total_capacity_gb": one.total_gib,
            "free_capacity_gb": one.free_gib,
            "provisioned_capacity_gb": one.provisioned_gib,
            "allocated_capacity_gb": one.allocated_gib,
            "max_over_subscription_ratio": str(one.over_subscription_ratio),
            "reserved_percentage": 0,
            "thin_provisioning_support": one.is_thin,
            "thick_provisioning_support": not one.is_thin,
            "multipath": one.multipath,
            "multiattach": one.multiattach,
            "QoS_support": False,
            "backend_state": "up",
        },
    }


def service(req: ApiRequest, one: ServiceState) -> dict[str, Any]:
    """Show a service."""
    is_backend = one.binary == "cinder-volume"
    shown: dict[str, Any] = {
        "binary": one.binary,
        "host": one.host,
        "zone": one.zone,
        "status": "enabled" if one.enabled else "disabled",
        "state": "up" if one.is_up else "down",
        "updated_at": one.updated_at,
        "disabled_reason": None,
    }
    if is_backend and req.minor >= mv.BACKEND_STATE:
        shown["backend_state"] = one.backend_state or ("up" if one.is_up else "down")
    if req.minor >= mv.SERVICE_CLUSTER:
        shown["cluster"] = None
    if is_backend:
        shown |= {"replication_status": "disabled", "active_backend_id": None, "frozen": False}
    return shown


def limits(used: Usage) -> dict[str, Any]:
    """Show the limits (none) and what is used."""
    return {
        "limits": {
            "rate": [],
            "absolute": {
                "maxTotalVolumes": UNLIMITED,
                "maxTotalSnapshots": UNLIMITED,
                "maxTotalVolumeGigabytes": UNLIMITED,
                "maxTotalBackups": UNLIMITED,
                "maxTotalBackupGigabytes": UNLIMITED,
                "totalVolumesUsed": used.volumes,
                "totalSnapshotsUsed": used.snapshots,
                "totalGigabytesUsed": used.gigabytes,
                "totalBackupsUsed": 0,
                "totalBackupGigabytesUsed": 0,
            },
        }
    }


def quota_set(project_id: str, used: Usage | None) -> dict[str, Any]:
    """Show a project's quotas, and its use of them when that is given."""
    in_use = dict.fromkeys(_NOT_OFFERED, 0)
    if used is not None:
        in_use |= {"volumes": used.volumes, "snapshots": used.snapshots}
        in_use["gigabytes"] = used.gigabytes
    names = (*_COUNTED, *_NOT_OFFERED, "per_volume_gigabytes")
    shown: dict[str, Any] = {
        name: UNLIMITED
        if used is None
        else {"limit": UNLIMITED, "in_use": in_use.get(name, 0), "reserved": 0}
        for name in names
    }
    shown["id"] = project_id
    return {"quota_set": shown}


def message(req: ApiRequest, one: Message) -> dict[str, Any]:
    """Show a message."""
    return {
        "id": one.id,
        "event_id": one.event_id,
        "user_message": one.user_message,
        "message_level": "ERROR",
        "created_at": one.created_at,
        "guaranteed_until": _after(one.created_at, MESSAGE_LIFE),
        "request_id": one.request_id,
        "links": [
            {"rel": "self", "href": f"{req.link_prefix}/messages/{one.id}"},
            {"rel": "bookmark", "href": f"{req.bookmark_prefix}/messages/{one.id}"},
        ],
        "resource_type": one.resource_type,
        "resource_uuid": one.resource_uuid,
    }


def _after(moment: str, life: timedelta) -> str:
    return (datetime.fromisoformat(moment) + life).isoformat(timespec="microseconds")
