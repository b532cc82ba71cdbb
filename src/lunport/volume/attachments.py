"""Use cases on attachments (Block Storage 3.27): reserve, connect, complete, delete."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import replace
from typing import Any

from lunport.core.attachment import Attachment, AttachmentStatus, AttachMode, summarise
from lunport.core.connector import Connector, parse_connector
from lunport.core.errors import AttachedElsewhere, InvalidInput, InvalidState, NotItsHost
from lunport.core.volume import TRANSITIONS, Action, Volume, VolumeStatus
from lunport.store import attachments as rows
from lunport.store import connections, lookup, path_reports
from lunport.store import guest_migrations as migration_rows
from lunport.store import volumes as volume_rows
from lunport.store.connections import HostConnection
from lunport.store.engine import StoreConnection
from lunport.volume import exports
from lunport.volume.actions import guard
from lunport.volume.describing import describe_attachment
from lunport.volume.places import connection_locks, forget
from lunport.volume.requests import AttachmentView, Caller, Filter, NewAttachment, Page, Query
from lunport.volume.service import Service

# In which another attachment of the same instance is the other end of a live migration.
_MIGRATABLE = (VolumeStatus.IN_USE, VolumeStatus.RESERVED)


def create_attachment(service: Service, caller: Caller, new: NewAttachment) -> AttachmentView:
    """Reserve an attachment; with a connector, connect it too, or leave nothing.

    A volume that cannot be attached twice may get a second attachment for the *same*
    instance: that is a live migration.
    Raises: VolumeNotFound, InvalidState, InvalidConnector, NotItsHost, HostRevoked,
    ExportLimit, BackendError.
    """
    connector = parse_connector(new.connector) if new.connector else None
    if caller.agent is not None and connector is not None:
        caller.agent.require_own_connector(connector)
    if new.mode not in (None, "null", *AttachMode):
        raise InvalidInput("mode", new.mode, "expected rw or ro")
    mode = None if new.mode == "null" else new.mode
    initiator = None if connector is None else connector.initiator
    with connection_locks(service, new.volume_id, initiator):
        with service.store.write() as connection:
            volume = lookup.get_volume(connection, new.volume_id, caller.sees_project)
            attachment = _reserve(service, connection, caller, volume, new.instance_uuid, mode)
            row = None
            if connector is not None and new.connector is not None:
                volume, row = exports.begin_connection(
                    service,
                    connection,
                    volume,
                    connector,
                    new.connector,
                    attachment.id,
                    now=attachment.created_at,
                )
        if connector is None or row is None or new.connector is None:
            return AttachmentView(attachment, None)
        with exports.undone_on_failure(service, volume, row, attachment):
            exports.carry_out(service, volume, row)
            return _settle(service, attachment, connector, new.connector, row)


def get_attachment(service: Service, caller: Caller, attachment_id: str) -> AttachmentView:
    """Return an attachment with its connection info, and its paths as its host told them.

    Raises: AttachmentNotFound, NotItsHost.
    """
    with service.store.read(snapshot=True) as connection:
        attachment = lookup.get_attachment(connection, attachment_id, caller.sees_project)
        require_own(caller, attachment)
        told = path_reports.find(connection, attachment_id)
        return _view(service, connection, attachment)._replace(paths=told)


def list_attachments(service: Service, caller: Caller, query: Query) -> Page[Attachment]:
    """Return one page of attachments. Raises: InvalidInput."""
    with service.store.read() as connection:
        return rows.page(connection, _own(caller, query))


def list_attachment_details(service: Service, caller: Caller, query: Query) -> Page[AttachmentView]:
    """Return one page of attachments with their connection info. Raises: InvalidInput."""
    with service.store.read(snapshot=True) as connection:
        page = rows.page(connection, _own(caller, query))
        return Page([_view(service, connection, one) for one in page.rows], page.more)


def update_attachment(
    service: Service, caller: Caller, attachment_id: str, connector: Mapping[str, object]
) -> AttachmentView:
    """Connect a reserved attachment to the host that the connector declares.

    Idempotent for the same host. A failure leaves the attachment as it was.
    Raises: AttachmentNotFound, InvalidConnector, InvalidState, AttachedElsewhere, NotItsHost,
    HostRevoked, ExportLimit, BackendError.
    """
    parsed = parse_connector(connector)
    if caller.agent is not None:
        caller.agent.require_own_connector(parsed)
    with service.store.read() as connection:
        volume_id = lookup.get_attachment(connection, attachment_id, caller.sees_project).volume_id
    with connection_locks(service, volume_id, parsed.initiator):
        with service.store.write() as connection:
            attachment = lookup.get_attachment(connection, attachment_id, caller.sees_project)
            volume = lookup.get_volume(connection, volume_id, None)
            if attachment.attached_host is not None:
                require_own(caller, attachment)
            if attachment.connector is not None and (
                attachment.connector.get("initiator") != parsed.initiator
            ):
                raise AttachedElsewhere(volume_id, attachment_id)
            if not volume.multiattach:
                _check_alone(connection, caller, volume, attachment)
            volume, row = exports.begin_connection(
                service, connection, volume, parsed, connector, attachment_id, now=service.now()
            )
        with exports.undone_on_failure(service, volume, row):
            exports.carry_out(service, volume, row)
            return _settle(service, attachment, parsed, connector, row)


def complete_attachment(service: Service, caller: Caller, attachment_id: str) -> None:
    """Say that the host uses the volume now: ``attached``, ``in-use``.

    Raises: AttachmentNotFound, NotItsHost.
    """
    now = service.now()
    with service.store.write() as connection:
        attachment = lookup.get_attachment(connection, attachment_id, caller.sees_project)
        require_own(caller, attachment)
        rows.change(
            connection,
            attachment_id,
            {
                "attach_status": AttachmentStatus.ATTACHED,
                "attached_at": attachment.attached_at or now,
                "updated_at": now,
            },
        )
        exports.follow_attachments(service, connection, attachment.volume_id)


def delete_attachment(service: Service, caller: Caller, attachment_id: str) -> Sequence[Attachment]:
    """Close an attachment's connection and forget it; return the ones that remain.

    A host's agent may take away what is its own host's, an instance's volume too.
    Raises: AttachmentNotFound, GuardedAttachment, NotItsHost, BackendError (then it is still
    there).
    """
    with service.store.read() as connection:
        volume_id = lookup.get_attachment(connection, attachment_id, caller.sees_project).volume_id
    with connection_locks(service, volume_id):
        with service.store.read(snapshot=True) as connection:
            attachment = lookup.get_attachment(connection, attachment_id, caller.sees_project)
            volume = lookup.get_volume(connection, volume_id, None)
            present = connections.of_volume(connection, volume_id)
        require_own(caller, attachment)
        if caller.agent is None:
            guard(caller, volume, [attachment], attachment_id)
        gone = [row for row in present if row.attachment_id == attachment_id]
        exports.close_connections(service, volume, gone)
        with service.store.write() as connection:
            forget(service, connection, gone)
            rows.remove(connection, attachment_id)
            remaining = exports.follow_attachments(service, connection, volume_id)
    return [one for one in remaining if caller.agent is None or caller.agent.owns(one)]


def require_own(caller: Caller, attachment: Attachment) -> None:
    """Refuse an agent what is not of its own host. Raises: NotItsHost."""
    if caller.agent is not None:
        caller.agent.require_own_attachment(attachment)


def _own(caller: Caller, query: Query) -> Query:
    """Narrow a query to what the caller may see beside its project."""
    if caller.agent is None:
        return query
    own = Filter("attached_host", "=", caller.agent.host)
    return replace(query, project_id=None, filters=(*query.filters, own))


def _reserve(
    service: Service,
    connection: StoreConnection,
    caller: Caller,
    volume: Volume,
    instance_uuid: str | None,
    mode: str | None,
) -> Attachment:
    transition = TRANSITIONS[Action.RESERVE_ATTACHMENT]
    allowed = transition.allowed
    if volume.multiattach:
        allowed = (*allowed, *transition.multiattach_also)
    present = rows.of_volume(connection, volume.id)
    now = service.now()
    attachment = Attachment(
        id=service.new_id(),
        volume_id=volume.id,
        project_id=volume.project_id,
        instance_uuid=instance_uuid,
        attached_host=None if caller.agent is None else caller.agent.host,
        mountpoint=None,
        attach_mode=mode,
        attach_status=AttachmentStatus.RESERVED,
        connector=None,
        attached_at=None,
        created_at=now,
        updated_at=None,
    )
    if volume.status in allowed:
        summary = summarise([*(one.attach_status for one in present), attachment.attach_status])
        volume_rows.change(
            connection,
            volume.id,
            {**summary._asdict(), "updated_at": now},
            statuses=allowed,
            multiattach=volume.multiattach,
        )
    elif not (
        volume.status in _MIGRATABLE
        and instance_uuid
        and instance_uuid in {one.instance_uuid for one in present}
    ):
        raise InvalidState("volume", volume.id, volume.status, " or ".join(allowed))
    else:
        _require_migration(connection, caller, volume, instance_uuid)
    rows.add(connection, attachment)
    return attachment


def _require_migration(
    connection: StoreConnection, caller: Caller, volume: Volume, instance_uuid: str
) -> None:
    """Let an agent at an instance's volume beside another host only as a migration's end.

    Raises: NotItsHost.
    """
    if caller.agent is None:
        return
    known = migration_rows.open_with_volume(connection, volume.id)
    if known is None or known.guest != instance_uuid or not known.expects(caller.agent.host):
        what = f"volume {volume.id}: its instance is on another host"
        raise NotItsHost(caller.agent.host, f"{what}, and no migration to this one is prepared")


def _check_alone(
    connection: StoreConnection, caller: Caller, volume: Volume, attachment: Attachment
) -> None:
    """Refuse a second connected attachment, unless it is the same instance's (a migration)."""
    for other in rows.of_volume(connection, volume.id):
        if other.id == attachment.id or other.connector is None:
            continue
        if attachment.instance_uuid is None or other.instance_uuid != attachment.instance_uuid:
            raise AttachedElsewhere(volume.id, other.id)
        _require_migration(connection, caller, volume, attachment.instance_uuid)


def _settle(
    service: Service,
    attachment: Attachment,
    connector: Connector,
    wire: Mapping[str, object],
    row: HostConnection,
) -> AttachmentView:
    """Record that the target admits the host, and answer with the connection info."""
    mode = attachment.attach_mode or connector.mode or AttachMode.READ_WRITE
    values: dict[str, Any] = {
        "connector": dict(wire),
        "attached_host": connector.host,
        "mountpoint": connector.mountpoint or attachment.mountpoint,
        "attach_mode": mode,
        "updated_at": service.now(),
    }
    if attachment.attach_status == AttachmentStatus.RESERVED:
        values["attach_status"] = AttachmentStatus.ATTACHING
        values["attached_at"] = service.now()
    with service.store.write() as connection:
        connections.settle(connection, row.id, dict(wire))
        rows.change(connection, attachment.id, values)
        exports.follow_attachments(service, connection, attachment.volume_id)
        volume = lookup.get_volume(connection, attachment.volume_id, None)
        settled = attachment._replace(**values)
        info = describe_attachment(service, connection, volume, connector, settled)
    return AttachmentView(settled, info)


def _view(service: Service, connection: StoreConnection, attachment: Attachment) -> AttachmentView:
    if attachment.connector is None:
        return AttachmentView(attachment, None)
    volume = lookup.get_volume(connection, attachment.volume_id, None)
    connector = parse_connector(attachment.connector)
    info = describe_attachment(service, connection, volume, connector, attachment)
    return AttachmentView(attachment, info)
