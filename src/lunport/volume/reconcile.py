"""Make the targets as the database says, after a start and after a target daemon's death.

The database is the desired state. Pending connections, whose client never got an answer,
are undone; every settled one gets its export back, with the same name, LUN, credentials and
identity; targets of ours that nothing implies are taken away; half-made files are removed.
"""

from __future__ import annotations

import contextlib
import logging
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass

from lunport.core.attachment import AttachmentStatus, summarise
from lunport.core.errors import (
    BackendError,
    InvalidInput,
    StoreUnavailable,
    TargetDaemonDown,
    Unavailable,
)
from lunport.core.iqn import Iqn
from lunport.core.snapshot import image_name as snapshot_image
from lunport.core.volume import VolumeStatus
from lunport.core.volume import image_name as volume_image
from lunport.store import attachments as rows
from lunport.store import connections, targets
from lunport.store import snapshots as snapshot_rows
from lunport.store import volumes as volume_rows
from lunport.store.engine import StoreConnection
from lunport.store.targets import Target
from lunport.targets.helper import SeenExport
from lunport.volume import desired
from lunport.volume.desired import Wanted
from lunport.volume.places import forget, target_lock, volume_lock
from lunport.volume.service import Backend, Service

_LOG = logging.getLogger(__name__)


@dataclass(frozen=True, slots=True)
class TargetName:
    """A target by what makes it: a volume's own, or the row of one of several volumes."""

    volume_id: str | None = None
    target: Target | None = None

    @contextlib.contextmanager
    def lock(self, service: Service) -> Iterator[None]:
        """Hold what keeps everybody else from it. Raises: Unavailable."""
        if self.target is not None:
            with target_lock(service, self.target.iqn):
                yield
        else:
            with volume_lock(service, self.volume_id or ""):
                yield

    def wanted(self, service: Service, connection: StoreConnection) -> Wanted | None:
        """Return its desired state. Precondition: the lock is held."""
        if self.target is not None:
            return desired.wanted_of_target(service, connection, self.target)
        volume = volume_rows.find(connection, self.volume_id or "")
        return None if volume is None else desired.wanted_of_volume(service, connection, volume)

    def iqn(self, backend: Backend) -> Iqn:
        """Return its name."""
        if self.target is not None:
            return Iqn(self.target.iqn)
        return backend.target_name(self.volume_id or "")

    def __str__(self) -> str:
        return self.volume_id or (self.target.iqn if self.target is not None else "")


def undo_pending(service: Service) -> int:
    """Forget connections that were never settled; tell how many.

    An attachment that was made together with its connection goes too: nobody knows its id.
    """
    with service.store.write() as connection:
        pending = [row for row in connections.every(connection) if row.pending]
        forget(service, connection, pending)
        for row in pending:
            attachment = rows.find(connection, row.attachment_id or "")
            if attachment is None or attachment.created_at != row.created_at:
                continue
            if attachment.attach_status == AttachmentStatus.RESERVED:
                rows.remove(connection, attachment.id)
                left = rows.of_volume(connection, row.volume_id)
                summary = summarise(one.attach_status for one in left)
                volume_rows.change(
                    connection,
                    row.volume_id,
                    {**summary._asdict(), "updated_at": service.now()},
                    statuses=(VolumeStatus.RESERVED, VolumeStatus.IN_USE),
                )
    return len(pending)


def restore_exports(service: Service, backend: Backend) -> Sequence[str]:
    """Make a backend's targets as the database says; return what could not be, a line each.

    What can be offered of a target is, whatever else is missing.
    Raises: TargetDaemonDown, StoreUnavailable.
    """
    seen = {one.iqn: one for one in backend.helper.exports()}
    failures: list[str] = []
    for name in list_stray_targets(service, backend, tuple(seen.values())):
        failures += remove_stray(service, backend, name)
    for wanted in list_wanted_targets(service, backend):
        failures += restore(service, backend, wanted, seen)
    return failures


def list_wanted_targets(service: Service, backend: Backend) -> Sequence[TargetName]:
    """Name the targets of a backend that connections imply, cut off or not, or may soon.

    A connection that is pending counts: what it told a daemon that died since is lost, and it
    is settled all the same. Whoever restores its target waits for its end, by the lock.
    """
    with service.store.read(snapshot=True) as connection:
        own = {row.volume_id for row in connections.every(connection) if row.target_id is None}
        volumes = volume_rows.connected(connection, backend.name)
        return [
            *(TargetName(volume_id=one.id) for one in volumes if one.id in own),
            *(TargetName(target=one) for one in targets.connected(connection, backend.name)),
        ]


def restore(
    service: Service, backend: Backend, name: TargetName, seen: Mapping[Iqn, SeenExport]
) -> Sequence[str]:
    """Make one target as its connections say now; say what failed. Raises: TargetDaemonDown."""
    try:
        with name.lock(service):
            with service.store.read(snapshot=True) as connection:
                wanted = name.wanted(service, connection)
            if wanted is None:
                if (there := seen.get(name.iqn(backend))) is not None:
                    backend.helper.unexport(there.iqn, there.tid)
                return ()
            units, failures = desired.make_units(service, wanted, seen.get(wanted.iqn))
            if units:
                backend.helper.export(wanted.export(units))
    except (TargetDaemonDown, StoreUnavailable):
        raise  # No other one can be restored either.
    except (BackendError, InvalidInput, Unavailable) as error:
        failures = (f"{name}: {error}",)
    for failure in failures:
        _LOG.error("export_not_restored target=%s error=%s", name, failure)
    return failures


def list_stray_targets(
    service: Service, backend: Backend, seen: Sequence[SeenExport]
) -> Sequence[SeenExport]:
    """Pick the targets of ours that no connection implies.

    One that belongs to another backend behind the same daemon is none.
    """
    with service.store.read(snapshot=True) as connection:
        every = connections.every(connection)
        own = {row.volume_id for row in every if row.target_id is None}
        return [one for one in seen if _is_stray(backend, connection, one, own)]


def _is_stray(
    backend: Backend, connection: StoreConnection, seen: SeenExport, own: set[str]
) -> bool:
    if backend.is_of_several(seen.iqn):
        return not targets.is_connected(connection, seen.iqn)
    volume_id = backend.volume_of(seen.iqn)
    return volume_id is not None and volume_id not in own


def remove_stray(service: Service, backend: Backend, seen: SeenExport) -> Sequence[str]:
    """Take a target away that nothing implies, unless somebody connects at this moment.

    Raises: TargetDaemonDown.
    """
    volume_id = None if backend.is_of_several(seen.iqn) else backend.volume_of(seen.iqn)
    try:
        with contextlib.ExitStack() as locks:
            if volume_id is None:
                locks.enter_context(target_lock(service, seen.iqn))
            else:
                locks.enter_context(volume_lock(service, volume_id))
            with service.store.read(snapshot=True) as connection:
                if volume_id is None and targets.is_connected(connection, seen.iqn):
                    return ()
                present = connections.of_volume(connection, volume_id or "")
                if any(row.target_id is None for row in present):
                    return ()
            backend.helper.unexport(seen.iqn, seen.tid)
    except (TargetDaemonDown, StoreUnavailable):
        raise
    except (BackendError, Unavailable) as error:
        _LOG.error("stray_target_not_removed iqn=%s error=%s", seen.iqn, error)
        return (f"{volume_id or seen.iqn}: {error}",)
    _LOG.info("stray_target_removed iqn=%s", seen.iqn)
    return ()


def sweep_images(service: Service, backend: Backend) -> Sequence[str]:
    """Remove the half-made files that a kill left; return their names. Raises: BackendError."""
    with service.store.read(snapshot=True) as connection:
        known = [volume_image(one) for one in volume_rows.ids(connection, backend.name)]
        known += [snapshot_image(one) for one in snapshot_rows.ids(connection, backend.name)]
    removed = backend.driver.sweep(known)
    for name in removed:
        _LOG.info("partial_image_removed name=%s", name)
    return removed
