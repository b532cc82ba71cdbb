"""Compare every target with what the rows imply, and mend the differences one by one.

    export check             says what differs, and changes nothing
    export check --repair    mends it, target by target, while I/O goes on at all others

What is looked at: that each target that a connection implies is there with exactly its units,
identities, credentials, initiators and masks; that nothing of ours is there beside them; that
the images are there and whole; and that every configured portal is bound. An image that is
missing and a portal whose address is absent are told, and are nobody's to mend here.
"""

from __future__ import annotations

import logging
from collections.abc import Mapping
from dataclasses import dataclass

from lunport.core.errors import (
    BackendError,
    LunportError,
    NotAllowed,
    StoreUnavailable,
    TargetDaemonDown,
    Unavailable,
)
from lunport.core.iqn import Iqn
from lunport.targets.helper import SeenExport
from lunport.volume import desired
from lunport.volume.desired import Wanted
from lunport.volume.reconcile import (
    TargetName,
    list_stray_targets,
    list_wanted_targets,
    remove_stray,
)
from lunport.volume.requests import Caller
from lunport.volume.service import Backend, Service

_LOG = logging.getLogger(__name__)


@dataclass(frozen=True, slots=True)
class Difference:
    """What is not as it shall be, at which target or portal; ``mended``: now it is."""

    where: str
    what: str
    mended: bool = False


@dataclass(frozen=True, slots=True)
class BackendCheck:
    """What a check found at one backend. ``targets``: how many there shall be."""

    backend: str
    targets: int
    differences: tuple[Difference, ...]

    @property
    def is_whole(self) -> bool:
        """Tell whether all is as it shall be now."""
        return all(one.mended for one in self.differences)


def check_exports(
    service: Service, caller: Caller, *, repair: bool = False
) -> tuple[BackendCheck, ...]:
    """Check the targets of all backends, and mend them if asked to (admin).

    Raises: NotAllowed, StoreUnavailable.
    """
    if not caller.is_admin:
        raise NotAllowed("lunport:check")
    return tuple(
        check_backend(service, backend, repair=repair) for backend in service.backends.values()
    )


def check_backend(service: Service, backend: Backend, *, repair: bool) -> BackendCheck:
    """Check the targets of one backend. A daemon that is down is a difference."""
    wanted = list_wanted_targets(service, backend)
    found: list[Difference] = []
    try:
        found += _check_portals(backend, repair=repair)
        seen = {one.iqn: one for one in backend.helper.exports()}
        for stray in list_stray_targets(service, backend, tuple(seen.values())):
            found.append(_check_stray(service, backend, stray, repair=repair))
        for name in wanted:
            found += _check_target(service, backend, name, seen, repair=repair)
    except TargetDaemonDown as error:
        found.append(Difference(backend.name, str(error)))
    for one in found:
        _LOG.warning(
            "export_differs backend=%s where=%s mended=%s what=%s",
            backend.name,
            one.where,
            one.mended,
            one.what,
        )
    return BackendCheck(backend.name, len(wanted), tuple(found))


def _check_portals(backend: Backend, *, repair: bool) -> list[Difference]:
    """Say which portals are not bound; the daemon is started again if one may be now."""
    before = backend.helper.missing_portals
    if before and repair:
        try:
            backend.helper.start()
        except TargetDaemonDown:
            raise
        except LunportError as error:
            return [Difference(str(portal), str(error)) for portal in before]
    missing = backend.helper.missing_portals
    what = "it is not bound: its address is not on this host"
    return [Difference(str(portal), what, portal not in missing) for portal in before]


def _check_stray(
    service: Service, backend: Backend, seen: SeenExport, *, repair: bool
) -> Difference:
    failures = remove_stray(service, backend, seen) if repair else ()
    what = "no connection implies this target"
    return Difference(seen.iqn, "; ".join([what, *failures]), mended=repair and not failures)


def _check_target(
    service: Service,
    backend: Backend,
    name: TargetName,
    seen: Mapping[Iqn, SeenExport],
    *,
    repair: bool,
) -> list[Difference]:
    try:
        with name.lock(service):
            with service.store.read(snapshot=True) as connection:
                wanted = name.wanted(service, connection)
            if wanted is None:
                there = seen.get(name.iqn(backend))
                return [] if there is None else [_check_closed(backend, there, repair=repair)]
            return _compare(service, wanted, seen.get(wanted.iqn), repair=repair)
    except (TargetDaemonDown, StoreUnavailable):
        raise
    except (BackendError, Unavailable) as error:
        return [Difference(name.iqn(backend), str(error))]


def _check_closed(backend: Backend, there: SeenExport, *, repair: bool) -> Difference:
    if repair:
        backend.helper.unexport(there.iqn, there.tid)
    return Difference(there.iqn, "it is there, and all its hosts are cut off", mended=repair)


def _compare(
    service: Service, wanted: Wanted, seen: SeenExport | None, *, repair: bool
) -> list[Difference]:
    """Compare one target with its rows, and mend it as far as its images are there."""
    helper = wanted.backend.helper
    units, failures = desired.make_units(service, wanted, seen)
    found = [Difference(wanted.iqn, failure) for failure in failures]
    if not units:
        return found
    export = wanted.export(units)
    lines = helper.compare(export)
    if not lines:
        return found
    failure = ""
    if repair:
        try:
            helper.export(export)
        except TargetDaemonDown:
            raise
        except LunportError as error:
            failure = f"; {error}"
    mended = repair and not failure
    return found + [Difference(wanted.iqn, line + failure, mended) for line in lines]
