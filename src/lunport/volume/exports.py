"""Connections of hosts to volumes, and the export that exists while there is one.

The rows of ``connections`` are the intent, ``volume/desired.py`` makes of them what a target
shall be, and this module has the helper follow. Opening one: a pending row first, then the
target helper, then the row is settled; a failure takes the row away again, and a restart finds
pending rows and undoes them. Closing one: the helper first, then the rows; a kill in between
leaves the connection as it was. All of it under the locks of ``volume/places.py``.

On a target of several volumes only what concerns the one volume and the one host is touched,
unit by unit: neither the I/O of other hosts nor an image that is missing elsewhere matters.
"""

from __future__ import annotations

import contextlib
import logging
from collections.abc import Collection, Iterator, Mapping, Sequence

from lunport.core.attachment import Attachment, summarise
from lunport.core.connector import Connector
from lunport.core.errors import (
    ExportFailed,
    HostRevoked,
    InvalidState,
    LunportError,
    TargetDaemonDown,
    UndoFailed,
)
from lunport.core.iqn import Iqn
from lunport.core.volume import Volume, VolumeStatus
from lunport.store import attachments as rows
from lunport.store import connections, revocations
from lunport.store import volumes as volume_rows
from lunport.store.connections import HostConnection
from lunport.store.engine import StoreConnection
from lunport.targets.helper import Unit
from lunport.volume import desired
from lunport.volume.describing import choose_portals, ensure_own_target
from lunport.volume.desired import Wanted
from lunport.volume.places import Place, find_place, forget, make_place
from lunport.volume.service import Service

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
    VolumeStatus.REVERTING,
    VolumeStatus.DELETING,
    VolumeStatus.ERROR_DELETING,
)
_FOLLOWING = tuple(status for status in VolumeStatus if status not in _NOT_FOLLOWING)


# -- opening ---------------------------------------------------------------------------------


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
    Precondition: the locks of the volume and the host's target are held.
    Raises: InvalidState, HostRevoked, ExportLimit.
    """
    if volume.status not in CONNECTABLE:
        raise InvalidState("volume", volume.id, volume.status, " or ".join(CONNECTABLE))
    _refuse_revoked(connection, connector.host, connector.initiator, volume.id)
    present = connections.of_volume(connection, volume.id)
    place = make_place(service, connection, volume, connector.initiator, present)
    portals = choose_portals(connection, place, connector.initiator)
    if place.target is None:
        volume = ensure_own_target(service, connection, volume, portals)
    for row in present:
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
        target_id=None if place.target is None else place.target.id,
        portals=connections.join_portals(portals),
    )
    connections.add(connection, row)
    return volume, row


def _refuse_revoked(
    connection: StoreConnection, host: str | None, initiator: str, volume_id: str
) -> None:
    for one in revocations.active(connection):
        if one.concerns(host, initiator, volume_id):
            raise HostRevoked(host or initiator, one.volume_id, one.created_at, one.reason)


def carry_out(service: Service, volume: Volume, row: HostConnection) -> None:
    """Have the target show a connection's volume to its host, as the rows say.

    Repeating it changes nothing. Precondition: the locks are held.
    Raises: BackendError, HostRevoked.
    """
    with service.store.read(snapshot=True) as connection:
        place = find_place(service, connection, volume, row)
        wanted = desired.wanted_at(service, connection, place)
        if wanted is None or not wanted.shows(place.lun, row.initiator):
            _refuse_revoked(connection, row.host, row.initiator, volume.id)
    if wanted is not None:
        show(service, place, wanted, row.initiator)


def show(service: Service, place: Place, wanted: Wanted, initiator: str) -> None:
    """Have a target show one volume to one host, which it shall. Raises: BackendError."""
    helper = place.backend.helper
    unit = desired.make_unit(service, place.lun, place.volume)
    if place.target is None or (len(wanted.units) == 1 and len(wanted.views) == 1):
        helper.export(wanted.export([unit]))
        return
    try:
        _add(place, wanted, unit, initiator)
    except ExportFailed:
        if any(seen.iqn == wanted.iqn for seen in helper.exports()):
            raise
        # A daemon that came back a moment ago, whose targets are not all restored yet.
        units, _ = desired.make_units(service, wanted, None)
        helper.export(wanted.export(units))


def _add(place: Place, wanted: Wanted, unit: Unit, initiator: str) -> None:
    helper = place.backend.helper
    if wanted.views[initiator] == {unit.lun}:
        # Its first unit here: the unit first, so that what it is let in to is there.
        helper.map_unit(wanted.iqn, wanted.tid, unit, frozenset())
        helper.allow(wanted.iqn, wanted.tid, wanted.admission(initiator))
    else:
        helper.map_unit(wanted.iqn, wanted.tid, unit, frozenset({Iqn(initiator)}))


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
        with service.store.read(snapshot=True) as connection:
            place = find_place(service, connection, volume, row)
        with service.store.write() as connection:
            forget(service, connection, [row])
            if attachment is not None:
                rows.remove(connection, attachment.id)
                follow_attachments(service, connection, volume.id)
        _hide(service, place, {row.initiator})
    except TargetDaemonDown as failure:
        # It comes back with the exports that the rows say, and without this one.
        _LOG.warning("export_not_undone volume=%s error=%s", volume.id, failure)
    except LunportError as failure:
        raise UndoFailed(cause, [failure]) from cause


# -- closing ---------------------------------------------------------------------------------


def close_connections(service: Service, volume: Volume, gone: Sequence[HostConnection]) -> None:
    """Hide the volume, at its targets, from the hosts that only ``gone`` connections admit.

    Precondition: the locks are held. The rows are the caller's to remove afterwards, by
    :func:`lunport.volume.places.forget`. Raises: BackendError.
    """
    with service.store.read(snapshot=True) as connection:
        places = {row.target_id: find_place(service, connection, volume, row) for row in gone}
    ids = {row.id for row in gone}
    for target_id, place in places.items():
        initiators = {row.initiator for row in gone if row.target_id == target_id}
        _hide(service, place, initiators, without=ids)


def _hide(
    service: Service, place: Place, initiators: Collection[str], *, without: Collection[str] = ()
) -> None:
    with service.store.read(snapshot=True) as connection:
        wanted = desired.wanted_at(service, connection, place, without=without)
    hide(place, wanted, initiators)


def hide(place: Place, wanted: Wanted | None, initiators: Collection[str]) -> None:
    """Have a target hide one volume from those of these hosts that shall not see it.

    Idempotent. A host that shall see nothing of the target loses its sessions; a target that
    nobody shall see goes. Raises: BackendError.
    """
    helper = place.backend.helper
    if wanted is None:
        helper.unexport(place.iqn, place.tid)
        return
    hidden = {one for one in initiators if not wanted.shows(place.lun, one)}
    if not hidden:
        return
    for initiator in sorted(hidden - wanted.views.keys()):
        helper.disallow(wanted.iqn, wanted.tid, Iqn(initiator))
    if place.lun not in {lun for lun, _ in wanted.units}:
        helper.unmap_unit(wanted.iqn, wanted.tid, place.lun)
    elif blind := frozenset(Iqn(one) for one in hidden & wanted.views.keys()):
        helper.unmap_unit(wanted.iqn, wanted.tid, place.lun, blind)


# -- growing ---------------------------------------------------------------------------------


def resize(service: Service, volume: Volume, size_bytes: int) -> None:
    """Have every target that shows a volume say its new size, without a lost session.

    Precondition: the image has grown, the locks are held. Idempotent. Raises: BackendError.
    """
    with service.store.read(snapshot=True) as connection:
        shown = {
            place.iqn: place
            for row in connections.of_volume(connection, volume.id)
            for place in [find_place(service, connection, volume, row)]
            if (wanted := desired.wanted_at(service, connection, place)) is not None
            and place.lun in {lun for lun, _ in wanted.units}
        }
    for place in shown.values():
        place.backend.helper.resize(place.iqn, place.tid, place.lun, size_bytes)


# -- statuses --------------------------------------------------------------------------------


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
