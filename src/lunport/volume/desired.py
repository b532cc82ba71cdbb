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
from lunport.store.connections import HostConnection
from lunport.store.engine import StoreConnection
from lunport.store.revocations import Revocation
from lunport.store.targets import Target
from lunport.targets.helper import Admission, Export, SeenExport, Unit
from lunport.volume.places import Place
from lunport.volume.service import Backend, Service


@dataclass(frozen=True, slots=True)
class Wanted:
    """A target as it shall be, before anybody has looked where the images are.

    ``units``: the volumes by LUN, ascending. ``views``: who is let in, and the LUNs that each
    one shall see.
    """

    backend: Backend
    iqn: Iqn
    tid: int
    units: tuple[tuple[int, Volume], ...]
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
    chap = chap_of(volume)
    return _fold(
        Place(backend, volume, None, backend.policy.lun),
        _effective(connection, rows, without),
        {volume.id: (backend.policy.lun, volume)},
        {row.initiator: chap for row in rows},
    )


def wanted_of_target(
    service: Service,
    connection: StoreConnection,
    target: Target,
    *,
    without: Collection[str] = (),
) -> Wanted | None:
    """Return the desired state of a target of several volumes."""
    backend = service.backend(target.backend)
    rows = _effective(connection, connections.on_target(connection, target.id), without)
    if not rows:
        return None
    luns = targets.luns(connection, target.id)
    places = {
        volume_id: (lun, volume)
        for volume_id in {row.volume_id for row in rows}
        if (lun := luns.get(volume_id)) is not None
        and (volume := volumes.find(connection, volume_id)) is not None
    }
    credentials = targets.initiators(connection, target.id)
    some = next(iter(places.values()), None)
    if some is None:
        return None
    return _fold(Place(backend, some[1], target, some[0]), rows, places, credentials)


def _fold(
    place: Place,
    rows: Sequence[HostConnection],
    places: Mapping[str, tuple[int, Volume]],
    credentials: Mapping[str, ChapCredentials | None],
) -> Wanted | None:
    """Fold connections that count into the state of their target."""
    rows = [row for row in rows if row.volume_id in places]
    if not rows:
        return None
    views: dict[str, frozenset[int]] = {}
    for row in rows:
        lun = places[row.volume_id][0]
        views[row.initiator] = views.get(row.initiator, frozenset()) | {lun}
    shown = {lun for luns in views.values() for lun in luns}
    return Wanted(
        backend=place.backend,
        iqn=place.iqn,
        tid=place.tid,
        units=tuple(sorted((unit for unit in places.values() if unit[0] in shown), key=_by_lun)),
        views=views,
        credentials=credentials,
        masks=place.target is not None and place.target.kind == "shared",
    )


def _by_lun(unit: tuple[int, Volume]) -> int:
    return unit[0]


def _effective(
    connection: StoreConnection, rows: Sequence[HostConnection], without: Collection[str]
) -> Sequence[HostConnection]:
    """Leave out what shall count no more, and whoever is cut off."""
    rows = [row for row in rows if row.id not in without]
    in_force = revocations.active(connection) if rows else ()
    return [row for row in rows if not is_revoked(in_force, row)] if in_force else rows


def is_revoked(in_force: Sequence[Revocation], row: HostConnection) -> bool:
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
    for lun, volume in wanted.units:
        try:
            units.append(make_unit(service, lun, volume))
        except BackendError as error:
            failures.append(f"{volume.id}: {error}")
            path = shown.get(lun)
            if path is not None:
                units.append(Unit(lun, path, derive_identity(volume.id)))
    return tuple(units), tuple(failures)


def chap_of(volume: Volume) -> ChapCredentials | None:
    """Return the credentials of a volume's own target, once it has some."""
    if volume.chap_username is None or volume.chap_password is None:
        return None
    return ChapCredentials(volume.chap_username, volume.chap_password)
