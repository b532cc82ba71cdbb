"""The older attach verbs: a volume's status by hand, and connections without an attachment.

They are what clients without the attachments API use, and what Cinder kept. The guard of
OSSA-2023-003 is here too: who owns an instance takes its volumes away, nobody else.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from uuid import UUID

from lunport.core.attachment import Attachment, AttachmentStatus, AttachMode, summarise
from lunport.core.connector import parse_connector
from lunport.core.errors import GuardedAttachment, InvalidInput, InvalidState
from lunport.core.volume import TRANSITIONS, Action, AttachStatus, Volume, VolumeStatus
from lunport.store import attachments as rows
from lunport.store import connections as connection_rows
from lunport.store import lookup
from lunport.store import volumes as volume_rows
from lunport.store.engine import StoreConnection
from lunport.volume import exports
from lunport.volume.describing import describe
from lunport.volume.places import connection_locks, forget
from lunport.volume.requests import Caller
from lunport.volume.service import Service

# Nobody has attached such a volume, so ``detach`` may say that it is free again.
_PROMISED = (
    VolumeStatus.RESERVED,
    VolumeStatus.ATTACHING,
    VolumeStatus.IN_USE,
    VolumeStatus.DETACHING,
)


def reserve(service: Service, caller: Caller, volume_id: str) -> None:
    """Promise a volume: ``attaching``. Raises: VolumeNotFound, InvalidState."""
    transition = TRANSITIONS[Action.RESERVE]
    with service.store.write() as connection:
        volume = lookup.get_volume(connection, volume_id, caller.sees_project)
        allowed = transition.allowed
        if volume.multiattach:
            allowed = (*allowed, *transition.multiattach_also)
        swapped = volume_rows.change(
            connection,
            volume_id,
            {"status": transition.to, "updated_at": service.now()},
            statuses=allowed,
            multiattach=volume.multiattach,
        )
        if not swapped:
            raise InvalidState("volume", volume_id, volume.status, " or ".join(allowed))


def unreserve(service: Service, caller: Caller, volume_id: str) -> None:
    """Take a promise back; a volume that is not ``attaching`` stays as it is."""
    with service.store.write() as connection:
        lookup.get_volume(connection, volume_id, caller.sees_project)
        _unreserve(service, connection, volume_id)


def begin_detaching(service: Service, caller: Caller, volume_id: str) -> None:
    """Say that a detach has begun. Raises: VolumeNotFound, InvalidState."""
    transition = TRANSITIONS[Action.BEGIN_DETACHING]
    with service.store.write() as connection:
        volume = lookup.get_volume(connection, volume_id, caller.sees_project)
        swapped = volume_rows.change(
            connection,
            volume_id,
            {"status": transition.to, "updated_at": service.now()},
            statuses=transition.allowed,
            attach_statuses=(AttachStatus.ATTACHED,),
        )
        if not swapped:
            raise InvalidState(
                "volume", volume_id, f"{volume.status}, {volume.attach_status}", "in-use, attached"
            )


def roll_detaching(service: Service, caller: Caller, volume_id: str) -> None:
    """Take a begun detach back; a volume that is not ``detaching`` stays as it is."""
    transition = TRANSITIONS[Action.ROLL_DETACHING]
    with service.store.write() as connection:
        lookup.get_volume(connection, volume_id, caller.sees_project)
        volume_rows.change(
            connection,
            volume_id,
            {"status": transition.to, "updated_at": service.now()},
            statuses=transition.allowed,
        )


def attach(
    service: Service,
    caller: Caller,
    volume_id: str,
    *,
    instance_uuid: str | None,
    host_name: str | None,
    mountpoint: str,
    mode: str,
) -> None:
    """Record that a volume is attached to an instance or a host.

    Repeating it for the same instance or host changes nothing more.
    Raises: VolumeNotFound, InvalidInput, InvalidState.
    """
    if instance_uuid is not None and not _is_uuid(instance_uuid):
        raise InvalidInput("instance_uuid", instance_uuid, "expected a UUID")
    if mode not in tuple(AttachMode):
        raise InvalidInput("mode", mode, "expected rw or ro")
    now = service.now()
    attached = {"status": VolumeStatus.IN_USE, "attach_status": AttachStatus.ATTACHED}
    with service.store.write() as connection:
        volume = lookup.get_volume(connection, volume_id, caller.sees_project)
        if volume.readonly and mode != AttachMode.READ_ONLY:
            raise InvalidInput("mode", mode, f"volume {volume_id} is read-only: use ro")
        present = rows.of_volume(connection, volume_id)
        for one in present:
            same = (
                one.instance_uuid == instance_uuid
                if instance_uuid
                else one.attached_host == host_name
            )
            if same and one.attach_status == AttachmentStatus.ATTACHED:
                volume_rows.change(
                    connection,
                    volume_id,
                    {**attached, "updated_at": now},
                    statuses=exports.CONNECTABLE,
                )
                return
        allowed: tuple[VolumeStatus, ...] = (VolumeStatus.AVAILABLE, VolumeStatus.ATTACHING)
        if volume.multiattach:
            allowed = (*allowed, VolumeStatus.IN_USE)
        swapped = volume_rows.change(
            connection, volume_id, {**attached, "updated_at": now}, statuses=allowed
        )
        if not swapped:
            raise InvalidState("volume", volume_id, volume.status, " or ".join(allowed))
        rows.add(
            connection,
            Attachment(
                id=service.new_id(),
                volume_id=volume_id,
                project_id=volume.project_id,
                instance_uuid=instance_uuid,
                attached_host=host_name,
                mountpoint=mountpoint,
                attach_mode=mode,
                attach_status=AttachmentStatus.ATTACHED,
                connector=None,
                attached_at=now,
                created_at=now,
                updated_at=None,
            ),
        )


def detach(service: Service, caller: Caller, volume_id: str, *, attachment_id: str | None) -> None:
    """Forget an attachment, and close its connection; the only one when none is named.

    When the last one goes, so does the export.
    Raises: VolumeNotFound, GuardedAttachment, InvalidState, BackendError.
    """
    with connection_locks(service, volume_id):
        with service.store.read(snapshot=True) as connection:
            volume = lookup.get_volume(connection, volume_id, caller.sees_project)
            present = rows.of_volume(connection, volume_id)
            connections = connection_rows.of_volume(connection, volume_id)
        guard(caller, volume, present, attachment_id)
        if volume.status == VolumeStatus.MAINTENANCE:
            raise InvalidState("volume", volume_id, volume.status, "not in maintenance")
        if attachment_id is None and len(present) > 1:
            raise InvalidState(
                "volume", volume_id, "attached more than once", "named with an attachment_id"
            )
        gone = [one for one in present if attachment_id in (None, one.id)]
        kept = [one for one in present if one not in gone]
        gone_ids = {one.id for one in gone}
        closing = [row for row in connections if not kept or row.attachment_id in gone_ids]
        exports.close_connections(service, volume, closing)
        with service.store.write() as connection:
            forget(service, connection, closing)
            for one in gone:
                rows.remove(connection, one.id)
            if present or volume.status in _PROMISED:
                exports.follow_attachments(service, connection, volume_id)


def force_detach(
    service: Service,
    caller: Caller,
    volume_id: str,
    *,
    attachment_id: str | None,
    connector: Mapping[str, object] | None,
) -> None:
    """Close a connection and forget an attachment whatever the status (admin).

    Raises: as :func:`terminate_connection` and :func:`detach`.
    """
    terminate_connection(service, caller, volume_id, connector)
    detach(service, caller, volume_id, attachment_id=attachment_id)


def initialize_connection(
    service: Service, caller: Caller, volume_id: str, connector: Mapping[str, object]
) -> dict[str, object]:
    """Export a volume to a host and say how it is reached. Idempotent for the same initiator.

    A failure leaves no export and no connection that was not there before.
    Raises: VolumeNotFound, InvalidConnector, InvalidState, HostRevoked, ExportLimit,
    BackendError.
    """
    parsed = parse_connector(connector)
    with connection_locks(service, volume_id, parsed.initiator):
        with service.store.read(snapshot=True) as connection:
            volume = lookup.get_volume(connection, volume_id, caller.sees_project)
            present = connection_rows.of_volume(connection, volume_id)
        if volume.status in exports.CONNECTABLE:
            for row in present:
                is_same = row.attachment_id is None and row.initiator == parsed.initiator
                if is_same and not row.pending:
                    exports.carry_out(service, volume, row)
                    return describe(service, volume, row, parsed)
        with service.store.write() as connection:
            volume = lookup.get_volume(connection, volume_id, None)
            volume, row = exports.begin_connection(
                service, connection, volume, parsed, connector, None, now=service.now()
            )
        with exports.undone_on_failure(service, volume, row):
            exports.carry_out(service, volume, row)
            with service.store.write() as connection:
                connection_rows.settle(connection, row.id, dict(connector))
            return describe(service, volume, row, parsed)


def terminate_connection(
    service: Service, caller: Caller, volume_id: str, connector: Mapping[str, object] | None
) -> None:
    """Close the bare connections of a host, all of them when no connector is given.

    A connection that is not there is fine. Ends a reservation as ``unreserve`` does.
    Raises: VolumeNotFound, InvalidConnector, GuardedAttachment, BackendError.
    """
    initiator = parse_connector(connector).initiator if connector else None
    with connection_locks(service, volume_id):
        with service.store.read(snapshot=True) as connection:
            volume = lookup.get_volume(connection, volume_id, caller.sees_project)
            guard(caller, volume, rows.of_volume(connection, volume_id), None)
            present = connection_rows.of_volume(connection, volume_id)
        gone = [
            row
            for row in present
            if row.attachment_id is None and initiator in (None, row.initiator)
        ]
        exports.close_connections(service, volume, gone)
        with service.store.write() as connection:
            forget(service, connection, gone)
            _unreserve(service, connection, volume_id)


def guard(
    caller: Caller,
    volume: Volume,
    present: Sequence[Attachment],
    attachment_id: str | None,
) -> None:
    """Refuse to take a connected instance's volume away, unless its service asks.

    OSSA-2023-003: a host that still has the device would read the next volume behind the
    same address. Raises: GuardedAttachment, InvalidInput.
    """
    if caller.is_service or not present:
        return
    if attachment_id is None:
        named = present[0] if len(present) == 1 else None
    else:
        named = next((one for one in present if one.id == attachment_id), None)
    if named is None:
        # Several, or one that is not there: the strictest of them decides.
        connected = next((one for one in present if _is_guarded(one)), None)
        if connected is not None:
            raise GuardedAttachment(volume.id, connected.instance_uuid or "")
        return
    if _is_guarded(named):
        raise GuardedAttachment(volume.id, named.instance_uuid or "")


def _is_guarded(attachment: Attachment) -> bool:
    return attachment.instance_uuid is not None and attachment.connector is not None


def _unreserve(service: Service, connection: StoreConnection, volume_id: str) -> None:
    transition = TRANSITIONS[Action.UNRESERVE]
    present = rows.of_volume(connection, volume_id)
    volume_rows.change(
        connection,
        volume_id,
        {
            "status": summarise(one.attach_status for one in present).status,
            "updated_at": service.now(),
        },
        statuses=transition.allowed,
    )


def _is_uuid(text: str) -> bool:
    try:
        UUID(text)
    except ValueError:
        return False
    return True
