"""What a host is told of a volume: the connection info, of the target that it was connected by.

``provider_location`` is a property of the volume, and a place on a host's or the shared target
is none: it is written for a volume's own target alone, and stays NULL (or what it was) under
the other policies. The wire never shows it.
"""

from __future__ import annotations

from dataclasses import dataclass, replace
from typing import Any

from lunport.core.attachment import Attachment, AttachMode
from lunport.core.chap import Chap
from lunport.core.connection_info import (
    ConnectionInfo,
    format_connection_info,
    format_flat_connection_info,
)
from lunport.core.connector import Connector
from lunport.core.errors import BackendError
from lunport.core.portal import Portal
from lunport.core.portal_order import keep_order, order_portals
from lunport.core.provider_location import ProviderLocation, format_provider_location
from lunport.core.target_path import TargetPath
from lunport.core.volume import Volume, image_name
from lunport.core.wwid import Wwid
from lunport.store import connections, targets
from lunport.store import volumes as volume_rows
from lunport.store.connections import HostConnection
from lunport.store.engine import StoreConnection
from lunport.volume.desired import chap_of
from lunport.volume.places import Place, find_place
from lunport.volume.service import Backend, ExportPolicy, Service


@dataclass(frozen=True, slots=True)
class Way:
    """How one host reaches one volume."""

    paths: tuple[TargetPath, ...]
    chap: Chap | None
    is_discovered: bool = False


def describe(
    service: Service, volume: Volume, row: HostConnection, connector: Connector
) -> dict[str, object]:
    """Say how a host reaches a volume: the wire connection info, envelope included."""
    policy = service.backend(volume.backend).policy
    with service.store.read(snapshot=True) as connection:
        way = find_way(service, connection, volume, row)
    return format_connection_info(
        _connection_info(policy, volume, way, connector, None),
        multipath=connector.multipath and policy.multipath and not way.is_discovered,
        alternatives=_has_alternatives(policy, connector),
    )


def describe_attachment(
    service: Service,
    connection: StoreConnection,
    volume: Volume,
    connector: Connector,
    attachment: Attachment,
) -> dict[str, object]:
    """Say the same in the flattened form of the attachments API."""
    policy = service.backend(volume.backend).policy
    row = connections.of_attachment(connection, attachment.id)
    way = find_way(service, connection, volume, row)
    info = _connection_info(policy, volume, way, connector, attachment.attach_mode)
    return format_flat_connection_info(
        replace(info, attachment_id=attachment.id),
        multipath=connector.multipath and policy.multipath and not way.is_discovered,
        alternatives=_has_alternatives(policy, connector),
    )


def _has_alternatives(policy: ExportPolicy, connector: Connector) -> bool:
    """Decide whether other portals are named when they are not all to be used at once.

    A multipath host that is answered without multipath gets the main path alone: it would
    use any list for multipath.
    """
    return policy.alternatives and (policy.multipath or not connector.multipath)


def _connection_info(
    policy: ExportPolicy,
    volume: Volume,
    way: Way,
    connector: Connector,
    attach_mode: str | None,
) -> ConnectionInfo:
    return ConnectionInfo(
        paths=way.paths,
        volume_id=volume.id,
        chap=way.chap,
        access_mode=_access_mode(volume, attach_mode),
        wwid=Wwid(volume.wwid),
        target_discovered=way.is_discovered,
        enforce_multipath=connector.enforce_multipath,
        resilient=policy.resilient,
    )


def _access_mode(volume: Volume, attach_mode: str | None) -> AttachMode:
    if volume.readonly or attach_mode == AttachMode.READ_ONLY:
        return AttachMode.READ_ONLY
    return AttachMode.READ_WRITE


def find_way(
    service: Service, connection: StoreConnection, volume: Volume, row: HostConnection | None
) -> Way:
    """Return how a connection's host reaches its volume. Raises: BackendNotFound, BackendError."""
    backend = service.backend(volume.backend)
    if backend.is_elsewhere:
        offer = backend.driver.locate(image_name(volume.id)).offer
        if offer is None:
            raise BackendError(f"{volume.id}: its driver does not say how hosts reach it.")
        return Way(offer.paths, offer.chap, offer.is_discovered)
    if row is None:  # Its connection was closed behind its back: what it would be again.
        place = Place(backend, volume, None, backend.policy.lun)
    else:
        place = find_place(service, connection, volume, row)
    if row is None or place.target is None:
        credentials = chap_of(volume)
    else:
        credentials = targets.initiators(connection, place.target.id).get(row.initiator)
    portals = portals_of(backend, volume, row)
    return Way(
        tuple(TargetPath(portal, place.iqn, place.lun) for portal in portals),
        Chap(credentials) if credentials else None,
    )


# -- portals -----------------------------------------------------------------------------------


def portals_of(backend: Backend, volume: Volume, row: HostConnection | None) -> tuple[Portal, ...]:
    """Return a connection's portals in the order that its host was told before."""
    helper = backend.helper
    if row is not None and row.portals is not None:
        return _kept(backend, row.portals)
    return order_portals(
        helper.portals,
        backend.policy.portal_order,
        turn=volume.target_number,
        load={},
        missing=helper.missing_portals,
    )


def _kept(backend: Backend, told: str) -> tuple[Portal, ...]:
    chosen = connections.split_portals(told)
    return keep_order(chosen, backend.helper.portals, backend.helper.missing_portals)


def choose_portals(connection: StoreConnection, place: Place, initiator: str) -> tuple[Portal, ...]:
    """Choose the order for a host's connection through a target.

    All its volumes behind one target have the same order, so that one session does for them.
    """
    backend, target = place.backend, place.target
    if target is None:
        rows = connections.of_volume(connection, place.volume.id)
        own = (row.portals for row in rows if row.target_id is None and row.initiator == initiator)
        told = next((portals for portals in own if portals is not None), None)
    else:
        told = connections.portals_beside(connection, target.id, initiator)
    if told is not None:
        return _kept(backend, told)
    order = backend.policy.portal_order
    return order_portals(
        backend.helper.portals,
        order,
        turn=_turn(connection, place, initiator),
        load=connections.loads(connection, backend.name) if order == "least_loaded" else {},
        missing=backend.helper.missing_portals,
    )


def _turn(connection: StoreConnection, place: Place, initiator: str) -> int:
    """Count what the main portal goes round by: volumes, hosts, or the hosts of a target."""
    if place.target is None:
        return place.volume.target_number
    if place.target.kind == "host":
        return place.target.number
    known = targets.initiators(connection, place.target.id)
    return len(known.keys() - {initiator})


def ensure_own_target(
    service: Service, connection: StoreConnection, volume: Volume, portals: tuple[Portal, ...]
) -> Volume:
    """Give a volume the credentials and the provider location of its own target.

    One whose unit is offered by somebody else's targets needs neither.
    """
    backend = service.backend(volume.backend)
    if backend.is_elsewhere:
        return volume
    values: dict[str, Any] = {}
    if backend.policy.chap and chap_of(volume) is None:
        chap = service.new_chap()
        values |= {"chap_username": chap.username, "chap_password": chap.password}
    location = format_provider_location(
        ProviderLocation(
            portals=portals,
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
