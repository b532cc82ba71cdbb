"""How volumes look on the wire, for each microversion and kind of caller.

A page of a thousand volumes is a quarter of a second of a processor in Block Storage's own
service, so this is the one place written for speed: what depends on the request is decided
once, a volume is one struct, and fields that a version does not have are left unset, which
the encoder skips.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass

import msgspec

from lunport.api import microversions as mv
from lunport.api.request import ApiRequest
from lunport.core.attachment import Attachment, AttachmentStatus
from lunport.volume.requests import VolumeView

UNSET = msgspec.UNSET
Optional = str | None | msgspec.UnsetType


class Link(msgspec.Struct, gc=False):
    """A link to the resource itself, or to it whatever the version."""

    rel: str
    href: str


class AttachmentInVolume(msgspec.Struct, gc=False):
    """An attachment as a volume shows it."""

    id: str
    attachment_id: str
    volume_id: str
    server_id: str | None
    host_name: str | None
    device: str | None
    attached_at: str | None


class VolumeSummary(msgspec.Struct, gc=False):
    """A volume in a list without details."""

    id: str
    name: str | None
    links: list[Link]


class VolumeDetail(
    msgspec.Struct,
    gc=False,
    rename={
        "host": "os-vol-host-attr:host",
        "tenant_id": "os-vol-tenant-attr:tenant_id",
        "migstat": "os-vol-mig-status-attr:migstat",
        "name_id": "os-vol-mig-status-attr:name_id",
    },
):
    """A volume with everything that the caller may see."""

    id: str
    status: str
    size: int
    availability_zone: str
    created_at: str
    updated_at: str | None
    name: str | None
    description: str | None
    volume_type: str | None
    snapshot_id: str | None
    source_volid: str | None
    metadata: Mapping[str, str]
    links: list[Link]
    user_id: str
    bootable: str
    encrypted: bool
    replication_status: str | None
    consistencygroup_id: str | None
    multiattach: bool
    attachments: Sequence[AttachmentInVolume]
    migration_status: Optional = UNSET
    group_id: Optional = UNSET
    provider_id: Optional = UNSET
    shared_targets: bool | None | msgspec.UnsetType = UNSET
    service_uuid: Optional = UNSET
    cluster_name: Optional = UNSET
    volume_type_id: Optional = UNSET
    consumes_quota: bool | msgspec.UnsetType = UNSET
    host: Optional = UNSET
    tenant_id: Optional = UNSET
    migstat: Optional = UNSET
    name_id: Optional = UNSET


@dataclass(frozen=True, slots=True)
class VolumeViews:
    """What the views of volumes need beside the volumes.

    ``type_name`` gives a volume type's name. ``service_uuid`` stands for the lock that hosts
    share when ``shared_targets`` is true: where a target has several volumes behind it.
    """

    type_name: Callable[[str], str]
    service_uuid: str | None = None

    def details(
        self, req: ApiRequest, rows: Sequence[VolumeView], *, extended: bool = True
    ) -> list[VolumeDetail]:
        """Show volumes in full. ``extended``: with the attributes of the read requests."""
        minor, is_admin = req.minor, req.caller.is_admin
        link, bookmark = f"{req.link_prefix}/volumes/", f"{req.bookmark_prefix}/volumes/"
        type_name = self.type_name
        # One value for all rows: null from the version on that has the field, else left out.
        group_id: Optional = None if minor >= mv.VOLUME_GROUP_ID else UNSET
        provider_id: Optional = None if is_admin and minor >= mv.VOLUME_PROVIDER_ID else UNSET
        has_sharing = minor >= mv.SHARED_TARGETS
        service_uuid: Optional = self.service_uuid if has_sharing else UNSET
        cluster_name: Optional = None if is_admin and minor >= mv.VOLUME_CLUSTER_NAME else UNSET
        consumes_quota: bool | msgspec.UnsetType = True if minor >= mv.CONSUMES_QUOTA else UNSET
        has_type_id = minor >= mv.VOLUME_TYPE_ID
        shows_host = extended and is_admin
        name_id: Optional = None if shows_host else UNSET
        return [
            VolumeDetail(
                volume.id,
                volume.status,
                volume.size_gib,
                volume.availability_zone,
                volume.created_at,
                volume.updated_at,
                volume.name,
                volume.description,
                type_name(volume.volume_type_id),
                volume.snapshot_id,
                volume.source_volid,
                volume.metadata
                if volume.readonly is None
                else {**volume.metadata, "readonly": str(volume.readonly)},
                [Link("self", link + volume.id), Link("bookmark", bookmark + volume.id)],
                volume.user_id,
                "true" if volume.bootable else "false",
                False,
                None,
                None,
                volume.multiattach,
                _attachments(attachments, is_admin=is_admin) if attachments else (),
                volume.migration_status if is_admin else UNSET,
                group_id,
                provider_id,
                shares_target if has_sharing else UNSET,
                service_uuid,
                cluster_name,
                volume.volume_type_id if has_type_id else UNSET,
                consumes_quota,
                volume.host if shows_host else UNSET,
                volume.project_id if extended else UNSET,
                volume.migration_status if shows_host else UNSET,
                name_id,
            )
            for volume, attachments, shares_target in rows
        ]

    def detail(
        self, req: ApiRequest, row: VolumeView, *, extended: bool = True
    ) -> dict[str, VolumeDetail]:
        """Show one volume in full."""
        return {"volume": self.details(req, (row,), extended=extended)[0]}


def summaries(req: ApiRequest, rows: Sequence[VolumeView]) -> list[VolumeSummary]:
    """Show volumes without details."""
    link, bookmark = f"{req.link_prefix}/volumes/", f"{req.bookmark_prefix}/volumes/"
    return [
        VolumeSummary(
            volume.id,
            volume.name,
            [Link("self", link + volume.id), Link("bookmark", bookmark + volume.id)],
        )
        for volume, *_ in rows
    ]


def _attachments(rows: Sequence[Attachment], *, is_admin: bool) -> list[AttachmentInVolume]:
    return [
        AttachmentInVolume(
            id=one.volume_id,
            attachment_id=one.id,
            volume_id=one.volume_id,
            server_id=one.instance_uuid,
            host_name=one.attached_host if is_admin else None,
            device=one.mountpoint,
            attached_at=one.attached_at,
        )
        for one in rows
        if one.attach_status == AttachmentStatus.ATTACHED
    ]
