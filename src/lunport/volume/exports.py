"""Connections of hosts to volumes, and the export that exists while there is one.

The rows of ``connections`` are the desired state. Opening one: a pending row first, then the
target helper, then the row is settled; a failure takes the row away again, and a restart
finds pending rows and undoes them. Closing one: the helper first, then the rows; a kill in
between leaves the connection as it was. All of it under the volume's lock.
"""

from __future__ import annotations

import contextlib
import logging
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import replace
from typing import Any

from lunport.core.attachment import Attachment, AttachMode, summarise
from lunport.core.chap import Chap
from lunport.core.connection_info import (
    ConnectionInfo,
    format_connection_info,
    format_flat_connection_info,
)
from lunport.core.connector import Connector
from lunport.core.errors import (
    BackendError,
    InvalidState,
    LunportError,
    TargetDaemonDown,
    UndoFailed,
)
from lunport.core.identity import derive_identity
from lunport.core.iqn import Iqn
from lunport.core.portal import Portal
from lunport.core.provider_location import (
    ProviderLocation,
    format_provider_location,
)
from lunport.core.size import gib_to_bytes
from lunport.core.target_path import TargetPath
from lunport.core.volume import Volume, VolumeStatus, image_name
from lunport.core.wwid import Wwid
from lunport.drivers.driver import Image
from lunport.store import attachments as rows
from lunport.store import volumes as volume_rows
from lunport.store.attachments import HostConnection
from lunport.store.engine import StoreConnection
from lunport.targets.helper import Admission, Export, Unit
from lunport.volume.service import LOCK_WAIT_S, Backend, ExportPolicy, Service
from lunport.volume.volumes import chap_of

_LOG = logging.getLogger(__name__)

Wire = Mapping[str, object]

CONNECTABLE = (
    VolumeStatus.AVAILABLE,
    VolumeStatus.RESERVED,
    VolumeStatus.ATTACHING,
    VolumeStatus.IN_USE,
    VolumeStatus.DETACHING,
)
# Work is under way, or went wrong so that no attachment can make the volume good again.
_NOT_FOLLOWING = (
    VolumeStatus.CREATING,
    VolumeStatus.EXTENDING,
    VolumeStatus.DELETING,
    VolumeStatus.ERROR_DELETING,
)
_FOLLOWING = tuple(status for status in VolumeStatus if status not in _NOT_FOLLOWING)


@contextlib.contextmanager
def volume_lock(service: Service, *volume_ids: str) -> Iterator[None]:
    """Hold the locks of volumes. Raises: Unavailable."""
    with service.locks.hold([f"Volume {one}" for one in volume_ids], LOCK_WAIT_S):
        yield


def ensure_target(service: Service, connection: StoreConnection, volume: Volume) -> Volume:
    """Give a volume its credentials and provider location, once and for all its exports."""
    backend = service.backend(volume.backend)
    values: dict[str, Any] = {}
    if backend.policy.chap and chap_of(volume) is None:
        chap = service.new_chap()
        values |= {"chap_username": chap.username, "chap_password": chap.password}
    location = format_provider_location(
        ProviderLocation(
            portals=portals_of(backend, volume),
            number=volume.target_number,
            iqn=backend.target_name(volume.id),
            lun=backend.policy.lun,
        )
    )
    if location != volume.provider_location:
        values["provider_location"] = location
    if values:
        volume_rows.change(connection, volume.id, values)
        volume = volume._replace(**values)
    return volume


def portals_of(backend: Backend, volume: Volume) -> tuple[Portal, ...]:
    """Order a volume's portals by the backend's policy; the first is the main one."""
    portals = tuple(backend.helper.portals)
    if backend.policy.portal_order == "rotate":
        turn = volume.target_number % len(portals)
        portals = portals[turn:] + portals[:turn]
    return portals


def describe(
    service: Service,
    volume: Volume,
    connector: Connector,
    *,
    attach_mode: str | None = None,
) -> dict[str, object]:
    """Say how a host reaches a volume: the wire connection info, envelope included."""
    policy = service.backend(volume.backend).policy
    return format_connection_info(
        _connection_info(service, volume, connector, attach_mode),
        multipath=connector.multipath and policy.multipath,
        alternatives=_has_alternatives(policy, connector),
    )


def describe_attachment(
    service: Service, volume: Volume, connector: Connector, attachment: Attachment
) -> dict[str, object]:
    """Say the same in the flattened form of the attachments API."""
    policy = service.backend(volume.backend).policy
    info = _connection_info(service, volume, connector, attachment.attach_mode)
    return format_flat_connection_info(
        replace(info, attachment_id=attachment.id),
        multipath=connector.multipath and policy.multipath,
        alternatives=_has_alternatives(policy, connector),
    )


def _has_alternatives(policy: ExportPolicy, connector: Connector) -> bool:
    """Decide whether other portals are named when they are not all to be used at once.

    A multipath host that is answered without multipath gets the main path alone: it would
    use any list for multipath.
    """
    return policy.alternatives and (policy.multipath or not connector.multipath)


def _connection_info(
    service: Service, volume: Volume, connector: Connector, attach_mode: str | None
) -> ConnectionInfo:
    backend = service.backend(volume.backend)
    iqn = backend.target_name(volume.id)
    credentials = chap_of(volume)
    return ConnectionInfo(
        paths=tuple(
            TargetPath(portal, iqn, backend.policy.lun) for portal in portals_of(backend, volume)
        ),
        volume_id=volume.id,
        chap=Chap(credentials) if credentials else None,
        access_mode=_access_mode(volume, attach_mode),
        wwid=Wwid(volume.wwid),
        enforce_multipath=connector.enforce_multipath,
        resilient=backend.policy.resilient,
    )


def _access_mode(volume: Volume, attach_mode: str | None) -> AttachMode:
    if volume.readonly or attach_mode == AttachMode.READ_ONLY:
        return AttachMode.READ_ONLY
    return AttachMode.READ_WRITE


def begin_connection(
    service: Service,
    connection: StoreConnection,
    volume: Volume,
    connector: Connector,
    wire: Wire,
    attachment_id: str | None,
    *,
    now: str,
) -> tuple[Volume, HostConnection]:
    """Record the wish that a host be connected; the row is pending unless it was there.

    ``now`` is the attachment's own ``created_at`` when both are made in one transaction:
    by that a restart knows that nobody has heard of the attachment.
    Raises: InvalidState.
    """
    if volume.status not in CONNECTABLE:
        raise InvalidState("volume", volume.id, volume.status, " or ".join(CONNECTABLE))
    volume = ensure_target(service, connection, volume)
    for row in rows.connections_of(connection, volume.id):
        if row.attachment_id == attachment_id and row.initiator == connector.initiator:
            return volume, row
    row = HostConnection(
        id=service.new_id(),
        volume_id=volume.id,
        attachment_id=attachment_id,
        initiator=connector.initiator,
        connector=dict(wire),
        pending=True,
        created_at=now,
    )
    rows.add_connection(connection, row)
    return volume, row


def carry_out(service: Service, volume: Volume) -> None:
    """Make the target as the volume's connection rows say, pending ones included.

    Precondition: the volume's lock is held. Raises: BackendError.
    """
    with service.store.read() as connection:
        wanted = rows.connections_of(connection, volume.id)
    align(service, volume, wanted)


def align(service: Service, volume: Volume, wanted: Sequence[HostConnection]) -> None:
    """Make the target admit exactly these; take it away when there is none.

    Raises: BackendError, BackendNotFound.
    """
    backend = service.backend(volume.backend)
    iqn = backend.target_name(volume.id)
    if not wanted:
        backend.helper.unexport(iqn, volume.target_number)
        return
    credentials = chap_of(volume)
    chap = Chap(credentials) if credentials else None
    path = whole_image(service, volume).path
    backend.helper.export(
        Export(
            iqn=iqn,
            tid=volume.target_number,
            units=(Unit(backend.policy.lun, path, derive_identity(volume.id)),),
            admissions=tuple(
                Admission(Iqn(initiator), chap)
                for initiator in sorted({row.initiator for row in wanted})
            ),
        )
    )


def whole_image(service: Service, volume: Volume) -> Image:
    """Return a volume's image, unless it was cut short: a host would find another disk.

    Raises: ImageMissing, BackendError.
    """
    image = service.backend(volume.backend).driver.locate(image_name(volume.id))
    expected_bytes = gib_to_bytes(volume.size_gib)
    if image.size_bytes < expected_bytes:
        raise BackendError(
            f"{image.path} has {image.size_bytes} bytes and shall have {expected_bytes}."
        )
    return image


@contextlib.contextmanager
def undone_on_failure(
    service: Service, volume: Volume, row: HostConnection, attachment: Attachment | None = None
) -> Iterator[None]:
    """Take a pending connection back when the block fails, and the attachment made with it.

    A connection that was settled before stays. Raises: UndoFailed, or what the block raised.
    """
    try:
        yield
    except Exception as cause:  # the undo collector: whatever a helper raises is undone
        if row.pending:
            _abandon(service, volume, row, attachment, cause)
        raise


def _abandon(
    service: Service,
    volume: Volume,
    row: HostConnection,
    attachment: Attachment | None,
    cause: Exception,
) -> None:
    try:
        with service.store.write() as connection:
            rows.remove_connections(connection, [row.id])
            if attachment is not None:
                rows.remove(connection, attachment.id)
                follow_attachments(service, connection, volume.id)
        carry_out(service, volume)
    except TargetDaemonDown as failure:
        # It comes back with the exports that the rows say, and without this one.
        _LOG.warning("export_not_undone volume=%s error=%s", volume.id, failure)
    except LunportError as failure:
        raise UndoFailed(cause, [failure]) from cause


def follow_attachments(
    service: Service, connection: StoreConnection, volume_id: str
) -> Sequence[Attachment]:
    """Set a volume's statuses from its attachments, and return these.

    While work is under way, its end decides the status instead.
    """
    present = rows.of_volume(connection, volume_id)
    summary = summarise(one.attach_status for one in present)
    volume_rows.change(
        connection,
        volume_id,
        {**summary._asdict(), "updated_at": service.now()},
        statuses=_FOLLOWING,
    )
    return present


def close_connections(
    service: Service,
    volume: Volume,
    present: Sequence[HostConnection],
    gone: Sequence[HostConnection],
) -> None:
    """Refuse, at the target, the initiators that only ``gone`` connections admit.

    Precondition: the volume's lock is held. The rows are the caller's to remove afterwards.
    Raises: BackendError.
    """
    if not gone:
        return
    kept = [row for row in present if row not in gone]
    backend = service.backend(volume.backend)
    if not kept:
        backend.helper.unexport(backend.target_name(volume.id), volume.target_number)
        return
    remaining = {row.initiator for row in kept}
    for initiator in {row.initiator for row in gone} - remaining:
        backend.helper.disallow(
            backend.target_name(volume.id), volume.target_number, Iqn(initiator)
        )
