"""The desired state of a target: one function of the rows, whoever asks.

Connecting, restoring, checking and cutting off all compare with this and nothing else. A
connection counts from the moment its row is there until it is gone, unless its host is cut
off (``store/revocations.py``).
"""

from __future__ import annotations

from collections.abc import Collection, Mapping, Sequence
from dataclasses import dataclass

from lunport.core.chap import Chap, ChapCredentials
from lunport.core.errors import BackendError
from lunport.core.identity import derive_identity
from lunport.core.iqn import Iqn
from lunport.core.size import gib_to_bytes
from lunport.core.volume import Volume, image_name
from lunport.drivers.driver import Image
from lunport.store import connections, revocations, targets, volumes
from lunport.store.connections import HostConnection, Viewer
from lunport.store.engine import StoreConnection
from lunport.store.revocations import Revocation
from lunport.store.targets import Target
from lunport.targets.helper import Admission, Export, SeenExport, Unit
from lunport.volume.places import Place
from lunport.volume.service import Backend, Service


@dataclass(frozen=True, slots=True)
class Wanted:
    """A target as it shall be, before anybody has looked where the images are.

    ``units``: LUN and volume id, ascending. ``views``: who is let in, and the LUNs that each
    one shall see.
    """

    backend: Backend
    iqn: Iqn
    tid: int
    units: tuple[tuple[int, str], ...]
    views: Mapping[str, frozenset[int]]
    credentials: Mapping[str, ChapCredentials | None]
    masks: bool

    def shows(self, lun: int, initiator: str) -> bool:
        """Tell whether an initiator shall see a unit."""
        return lun in self.views.get(initiator, frozenset())

    def admission(self, initiator: str) -> Admission:
        """Return how an initiator is let in. Precondition: it is."""
        credentials = self.credentials.get(initiator)
        return Admission(
            Iqn(initiator),
            Chap(credentials) if credentials else None,
            self.views[initiator] if self.masks else None,
        )

    def export(self, units: Sequence[Unit]) -> Export:
        """Return the export that has these units of its own, and everybody who is let in."""
        there = frozenset(unit.lun for unit in units)
        admissions = (self.admission(one) for one in sorted(self.views))
        return Export(
            iqn=self.iqn,
            tid=self.tid,
            units=tuple(units),
            admissions=tuple(
                one if one.luns is None else Admission(one.initiator, one.chap, one.luns & there)
                for one in admissions
            ),
        )


def wanted_at(
    service: Service,
    connection: StoreConnection,
    place: Place,
    *,
    without: Collection[str] = (),
) -> Wanted | None:
    """Return the desired state of the target at a place; None when there shall be none.

    ``without``: the ids of connections that shall count no more.
    """
    if place.target is None:
        return wanted_of_volume(service, connection, place.volume, without=without)
    return wanted_of_target(service, connection, place.target, without=without)


def wanted_of_volume(
    service: Service,
    connection: StoreConnection,
    volume: Volume,
    *,
    without: Collection[str] = (),
) -> Wanted | None:
    """Return the desired state of a volume's own target."""
    backend = service.backend(volume.backend)
    rows = [row for row in connections.of_volume(connection, volume.id) if row.target_id is None]
    views = _views(rows, {volume.id: backend.policy.lun}, _in_force(connection, rows), without)
    if not views:
        return None
    return Wanted(
        backend=backend,
        iqn=backend.target_name(volume.id),
        tid=volume.target_number,
        units=((backend.policy.lun, volume.id),),
        views=views,
        credentials=dict.fromkeys(views, chap_of(volume)),
        masks=False,
    )


def wanted_of_target(
    service: Service,
    connection: StoreConnection,
    target: Target,
    *,
    without: Collection[str] = (),
) -> Wanted | None:
    """Return the desired state of a target of several volumes."""
    in_force = revocations.active(connection)
    read = connections.on_target if in_force else connections.viewers
    rows: Sequence[HostConnection | Viewer] = read(connection, target.id)
    luns = targets.luns(connection, target.id)
    views = _views(rows, luns, in_force, without)
    if not views:
        return None
    shown = {lun for seen in views.values() for lun in seen}
    return Wanted(
        backend=service.backend(target.backend),
        iqn=Iqn(target.iqn),
        tid=target.number,
        units=tuple(sorted((lun, one) for one, lun in luns.items() if lun in shown)),
        views=views,
        credentials=targets.initiators(connection, target.id),
        masks=target.kind == "shared",
    )


def _views(
    rows: Sequence[HostConnection | Viewer],
    luns: Mapping[str, int],
    in_force: Sequence[Revocation],
    without: Collection[str],
) -> Mapping[str, frozenset[int]]:
    """Fold the connections that count into what each initiator shall see."""
    views: dict[str, frozenset[int]] = {}
    for row in rows:
        if row.id not in without and row.volume_id in luns and not is_revoked(in_force, row):
            seen = views.get(row.initiator, frozenset())
            views[row.initiator] = seen | {luns[row.volume_id]}
    return views


def _in_force(connection: StoreConnection, rows: Sequence[HostConnection]) -> Sequence[Revocation]:
    return revocations.active(connection) if rows else ()


def is_revoked(in_force: Sequence[Revocation], row: HostConnection | Viewer) -> bool:
    """Tell whether a connection's host is cut off from its volume."""
    return any(one.concerns(row.host, row.initiator, row.volume_id) for one in in_force)


# -- the images ------------------------------------------------------------------------------


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


def make_unit(service: Service, lun: int, volume: Volume) -> Unit:
    """Return a volume as a unit. Raises: ImageMissing, BackendError."""
    return Unit(lun, whole_image(service, volume).path, derive_identity(volume.id))


def make_units(
    service: Service, wanted: Wanted, seen: SeenExport | None
) -> tuple[tuple[Unit, ...], tuple[str, ...]]:
    """Return a target's units as far as they can be had, and a line for each that can't.

    One whose image is missing stays as it is where it is shown: nobody's I/O is made worse.
    """
    units: list[Unit] = []
    failures: list[str] = []
    shown = {one.lun: one.path for one in seen.units} if seen is not None else {}
    with service.store.read() as connection:
        found = volumes.find_all(connection, [volume_id for _, volume_id in wanted.units])
    for lun, volume_id in wanted.units:
        volume = found.get(volume_id)
        if volume is None:
            continue  # It was deleted at this moment.
        try:
            units.append(make_unit(service, lun, volume))
        except BackendError as error:
            failures.append(f"{volume_id}: {error}")
            path = shown.get(lun)
            if path is not None:
                units.append(Unit(lun, path, derive_identity(volume_id)))
    return tuple(units), tuple(failures)


def chap_of(volume: Volume) -> ChapCredentials | None:
    """Return the credentials of a volume's own target, once it has some."""
    if volume.chap_username is None or volume.chap_password is None:
        return None
    return ChapCredentials(volume.chap_username, volume.chap_password)
