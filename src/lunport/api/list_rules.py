"""What each list understands: filters and sort keys, and the fields they stand for.

Data only; ``listing`` reads requests by it. Public filters are those of Block Storage's
``resource_filters``; the others are for administrators.
"""

from __future__ import annotations

import enum
from collections.abc import Mapping
from dataclasses import dataclass

from lunport.api import microversions as mv


class Kind(enum.Enum):
    """How a filter's value is read."""

    TEXT = enum.auto()
    NUMBER = enum.auto()
    BOOLEAN = enum.auto()
    METADATA = enum.auto()
    TIME = enum.auto()
    # The value is the same for every row: true, or null (which no text equals).
    ALWAYS_TRUE = enum.auto()
    ALWAYS_NULL = enum.auto()


@dataclass(frozen=True, slots=True)
class FilterField:
    """A wire filter: the record's field, how its value is read, who may use it and since when.

    ``is_public``: also for those who are not administrators. Before ``since`` it is ignored.
    """

    key: str
    kind: Kind = Kind.TEXT
    is_public: bool = False
    since: int = mv.BASE


@dataclass(frozen=True, slots=True)
class ListRules:
    """What one resource's list understands."""

    filters: Mapping[str, FilterField]
    sort_keys: Mapping[str, str]


_OWN = {name: name for name in ("id", "status", "project_id", "user_id", "created_at")}

VOLUME_RULES = ListRules(
    filters={
        "name": FilterField("name", is_public=True),
        "status": FilterField("status", is_public=True),
        "metadata": FilterField("metadata", Kind.METADATA, is_public=True),
        "bootable": FilterField("bootable", Kind.BOOLEAN, is_public=True),
        "migration_status": FilterField("migration_status", is_public=True),
        "availability_zone": FilterField("availability_zone", is_public=True),
        "size": FilterField("size_gib", Kind.NUMBER, is_public=True),
        "group_id": FilterField("", Kind.ALWAYS_NULL, is_public=True, since=mv.FILTER_BY_GROUP),
        "created_at": FilterField("created_at", Kind.TIME, is_public=True, since=mv.TIME_FILTERS),
        "updated_at": FilterField("updated_at", Kind.TIME, is_public=True, since=mv.TIME_FILTERS),
        "consumes_quota": FilterField(
            "", Kind.ALWAYS_TRUE, is_public=True, since=mv.CONSUMES_QUOTA
        ),
        "id": FilterField("id"),
        "multiattach": FilterField("multiattach", Kind.BOOLEAN),
        "attach_status": FilterField("attach_status"),
        "description": FilterField("description"),
        "display_name": FilterField("name"),
        "display_description": FilterField("description"),
        "host": FilterField("host"),
        "project_id": FilterField("project_id"),
        "tenant_id": FilterField("project_id"),
        "user_id": FilterField("user_id"),
        "snapshot_id": FilterField("snapshot_id"),
        "source_volid": FilterField("source_volid"),
        "volume_type_id": FilterField("volume_type_id"),
        "glance_metadata": FilterField("", Kind.ALWAYS_NULL),
        "consistencygroup_id": FilterField("", Kind.ALWAYS_NULL),
        "encryption_key_id": FilterField("", Kind.ALWAYS_NULL),
        "cluster_name": FilterField("", Kind.ALWAYS_NULL),
        "replication_status": FilterField("", Kind.ALWAYS_NULL),
    },
    sort_keys=_OWN
    | {
        "name": "name",
        "display_name": "name",
        "size": "size_gib",
        "availability_zone": "availability_zone",
        "bootable": "bootable",
        "attach_status": "attach_status",
        "migration_status": "migration_status",
        "host": "host",
        "updated_at": "updated_at",
        "volume_type_id": "volume_type_id",
        "source_volid": "source_volid",
        "snapshot_id": "snapshot_id",
        "multiattach": "multiattach",
    },
)

SNAPSHOT_RULES = ListRules(
    filters={
        "name": FilterField("name", is_public=True),
        "status": FilterField("status", is_public=True),
        "volume_id": FilterField("volume_id", is_public=True),
        "metadata": FilterField(
            "metadata", Kind.METADATA, is_public=True, since=mv.SNAPSHOT_METADATA_FILTER
        ),
        "consumes_quota": FilterField(
            "", Kind.ALWAYS_TRUE, is_public=True, since=mv.CONSUMES_QUOTA
        ),
        "id": FilterField("id"),
        "description": FilterField("description"),
        "display_name": FilterField("name"),
        "project_id": FilterField("project_id"),
        "tenant_id": FilterField("project_id"),
        "user_id": FilterField("user_id"),
        "volume_size": FilterField("size_gib", Kind.NUMBER),
        "progress": FilterField("progress"),
        "volume_type_id": FilterField("volume_type_id"),
    },
    sort_keys=_OWN
    | {
        "name": "name",
        "display_name": "name",
        "volume_id": "volume_id",
        "volume_size": "size_gib",
        "progress": "progress",
        "updated_at": "updated_at",
    },
)

ATTACHMENT_RULES = ListRules(
    filters={
        "volume_id": FilterField("volume_id", is_public=True),
        "status": FilterField("attach_status", is_public=True),
        "attach_status": FilterField("attach_status", is_public=True),
        "instance_id": FilterField("instance_uuid", is_public=True),
        "instance_uuid": FilterField("instance_uuid"),
        "id": FilterField("id"),
        "project_id": FilterField("project_id"),
        "attached_host": FilterField("attached_host"),
        "mountpoint": FilterField("mountpoint"),
        "attach_mode": FilterField("attach_mode"),
    },
    sort_keys={
        "id": "id",
        "status": "attach_status",
        "attach_status": "attach_status",
        "volume_id": "volume_id",
        "instance_uuid": "instance_uuid",
        "attached_host": "attached_host",
        "created_at": "created_at",
        "updated_at": "updated_at",
    },
)

MESSAGE_RULES = ListRules(
    filters={
        "resource_uuid": FilterField("resource_uuid", is_public=True),
        "resource_type": FilterField("resource_type", is_public=True),
        "event_id": FilterField("event_id", is_public=True),
        "request_id": FilterField("request_id", is_public=True),
        "id": FilterField("id"),
        "project_id": FilterField("project_id"),
    },
    sort_keys={
        name: name
        for name in ("id", "created_at", "event_id", "request_id", "resource_type", "resource_uuid")
    },
)

TYPE_RULES = ListRules(
    filters={
        "is_public": FilterField("is_public", is_public=True),
        "extra_specs": FilterField("extra_specs", is_public=True, since=mv.TYPE_FILTERS),
    },
    sort_keys={name: name for name in ("id", "name", "created_at", "updated_at")},
)
