"""Volumes on units that somebody else administers: declared, handed out, taken back wiped.

A unit is handed out as a volume of exactly its size (whole GiB; what it has beyond is unused).
Before it is, this host logs in to it and compares its identity with the declared one, so that
a renumbered array gives nobody the wrong disk; the identity found is what hosts then verify.
When the volume goes, the unit is overwritten with zeros through the same look (``wipe =
"zero"``) or returned as it is (``"none"``); until the wipe is over it is given to nobody, and a
wipe that was cut off begins anew when the deletion is carried out again.

It makes, changes and removes nothing on the storage but the bytes of a unit: no snapshots, no
growth, no copies. Who may log in is decided by whoever administers it.
"""

from __future__ import annotations

import tempfile
import threading
from collections.abc import Callable, Collection, Sequence
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Literal

from lunport.core.change import Change
from lunport.core.disk_source import make_disk_source
from lunport.core.errors import (
    AlreadyExists,
    BackendError,
    HostError,
    ImageMissing,
    InvalidInput,
    LunportError,
    OutOfSpace,
    Unavailable,
)
from lunport.core.iqn import Iqn
from lunport.core.probe_outcome import ProbeOutcome, outcome_error
from lunport.core.size import GIB
from lunport.core.target_path import TargetPath
from lunport.core.wwid import Wwid
from lunport.drivers.driver import PROTOCOL_VERSION, Capacity, Image, Offer
from lunport.drivers.static_units import (
    Assignment,
    Assignments,
    Phase,
    StaticUnit,
    choose_unit,
    describe_free,
)
from lunport.host.clock import Deadline
from lunport.host.portal_probe import probe_path
from lunport.host.qemu_img import write_unit

Wipe = Literal["zero", "none"]

_PROBE_S = 5.0
_WIPE_S = 120.0  # and what the slowest storage needs for a unit's bytes:
_WIPE_BYTES_PER_S = 16 << 20


def _never() -> bool:
    return False


@dataclass(frozen=True, slots=True)
class StaticSettings:
    """What a static backend is made from. ``initiator``: who this host is to the targets.

    ``is_discovered``: hosts are told one portal, and find the others by discovery.
    """

    folder: Path
    units: tuple[StaticUnit, ...]
    initiator: Iqn
    wipe: Wipe = "zero"
    is_discovered: bool = False


class StaticDriver:
    """The storage driver over declared units. Safe to use from several threads."""

    protocol_version = PROTOCOL_VERSION
    grows_open_with_snapshots = False

    def __init__(self, settings: StaticSettings, *, stop: Callable[[], bool] = _never) -> None:
        self._settings = settings
        self._stop = stop
        self._units = {unit.key: unit for unit in settings.units}
        self._assignments = Assignments(settings.folder / "assignments.json")
        self._lock = threading.Lock()

    @property
    def copies_atomically(self) -> bool:
        """Tell that it copies nothing."""
        return False

    def check(self) -> None:
        """Verify that what is given away is still declared.

        No unit is asked: storage that is away now must not keep the service from starting.
        Raises: BackendError.
        """
        for key, one in self._assignments.read().items():
            if key not in self._units:
                raise BackendError(
                    f"{one.image} is on {key}, which the configuration declares no more; "
                    "declare it again, or delete the volume first."
                )

    def capacity(self) -> Capacity:
        """Tell the sum of all units, and of those that are free."""
        taken = self._assignments.read()
        sizes = {key: unit.size_gib * GIB for key, unit in self._units.items()}
        free = sum(size for key, size in sizes.items() if key not in taken)
        return Capacity(sum(sizes.values()), free)

    def create(self, image: str, size_bytes: int) -> Change:
        """Give an image the first free unit of its size. What the unit holds is left as it is.

        Raises: BackendError (none is free; none that is free can be reached, or is the right one).
        """
        size_gib = _whole_gib(size_bytes)
        with self._lock:
            taken = self._assignments.read()
            found = _unit_of(image, taken)
            if found is not None:
                return _is_same_size(image, self._units.get(found), size_gib)
            passed_over: list[str] = []
            candidates = dict(self._units)
            while (unit := choose_unit(candidates, taken, size_gib)) is not None:
                try:
                    outcome = self._look(unit)
                except HostError as error:
                    passed_over.append(str(error))
                    del candidates[unit.key]
                    continue
                taken[unit.key] = _assigned(image, unit, outcome)
                self._assignments.write(taken)
                return Change.CHANGED
        if passed_over:
            raise BackendError(f"No free unit can be used: {'; '.join(passed_over)}")
        free = describe_free(self._units, taken)
        raise BackendError(f"No unit of {size_gib} GiB is free (free: {free}); declare more.")

    def clone(self, image: str, source: str, size_bytes: int) -> Change:
        """Refuse: nothing is copied. Raises: BackendError."""
        del size_bytes
        raise BackendError(f"{image}: a static backend makes no copy of {source}.")

    def snapshot(self, image: str, source: str) -> Change:
        """Refuse: there are no snapshots. Raises: BackendError."""
        raise BackendError(f"{image}: a static backend makes no snapshot of {source}.")

    def extend(self, image: str, size_bytes: int) -> Change:
        """Refuse: a unit has the size that it has. Raises: OutOfSpace, ImageMissing."""
        now = self.locate(image).size_bytes
        if size_bytes <= now and _whole_gib(size_bytes) == now // GIB:
            return Change.UNCHANGED
        raise OutOfSpace(f"{image}, whose unit does not grow", size_bytes - now, 0)

    def revert(self, image: str, snapshot: str) -> Change:
        """Refuse: there are no snapshots. Raises: BackendError."""
        raise BackendError(f"{image}: a static backend has no snapshot {snapshot}.")

    def delete(self, image: str) -> Change:
        """Take a unit back, wiped if that is the policy.

        Raises: BackendError, Unavailable (the wipe was stopped); then nobody gets the unit.
        """
        with self._lock:
            taken = self._assignments.read()
            key = _unit_of(image, taken)
            if key is None:
                return Change.UNCHANGED
            if self._settings.wipe == "none":
                del taken[key]
                self._assignments.write(taken)
                return Change.CHANGED
            taken[key] = replace(taken[key], phase=Phase.WIPING)
            self._assignments.write(taken)
        self._wipe(key, taken[key])
        with self._lock:
            taken = self._assignments.read()
            taken.pop(key, None)
            self._assignments.write(taken)
        return Change.CHANGED

    def locate(self, image: str) -> Image:
        """Tell how an image is reached; nothing is asked."""
        taken = self._assignments.read()
        key = _unit_of(image, taken)
        unit = self._units.get(key) if key is not None else None
        if key is None or unit is None or taken[key].phase is Phase.WIPING:
            raise ImageMissing(image)
        paths = unit.paths[:1] if self._settings.is_discovered else unit.paths
        offer = Offer(paths, taken[key].wwid, unit.chap, self._settings.is_discovered)
        return Image(Path(key), taken[key].size_bytes, offer)

    def images(self) -> frozenset[str]:
        """List the images that have a unit."""
        taken = self._assignments.read().values()
        return frozenset(one.image for one in taken if one.phase is Phase.USED)

    def sweep(self, known: Collection[str]) -> tuple[str, ...]:
        """Remove nothing: a unit whose wipe was cut off is wiped by the deletion of its image.

        The operation that deletes a volume is carried out again after a start, so nothing is
        done here that could hold a start up.
        """
        del known
        return ()

    # -- looking and wiping ----------------------------------------------------------------

    def _look(self, unit: StaticUnit, expected: Wwid | None = None) -> ProbeOutcome:
        """Ask a unit who it is and how large, through the first path that answers.

        Raises: HostError (the last path's), WrongDevice at once.
        """
        _, outcome = self._answering(unit, expected or unit.wwid)
        size_gib = (outcome.size_bytes or 0) // GIB
        if size_gib < unit.size_gib:
            raise _TooSmall(f"{unit.key} has {size_gib} GiB and is declared with {unit.size_gib}.")
        return outcome

    def _answering(
        self, unit: StaticUnit, expected: Wwid | None
    ) -> tuple[TargetPath, ProbeOutcome]:
        errors: list[LunportError] = []
        for path in unit.paths:
            outcome = probe_path(
                path,
                self._settings.initiator,
                unit.chap,
                expected_wwid=expected,
                check_lun=True,
                deadline=Deadline.after(_PROBE_S),
            )
            error = outcome_error(outcome, str(path))
            if error is None:
                return path, outcome
            errors.append(error)
        raise _Unreachable(errors)

    def _wipe(self, key: str, assignment: Assignment) -> None:
        """Overwrite a unit with zeros, after one more look at who it is.

        Raises: BackendError, Unavailable.
        """
        unit = self._units.get(key)
        if unit is None:
            raise BackendError(f"{key} is declared no more, so it cannot be wiped.")
        if self._stop():
            raise Unavailable(f"The wipe of {key} was put off: the service ends.")
        try:
            path, outcome = self._answering(unit, assignment.wwid)
            source = make_disk_source(path, self._settings.initiator, unit.chap)
            secret = unit.chap.initiator.password if unit.chap else None
            with tempfile.NamedTemporaryFile(prefix="lunport-zeros-") as zeros:
                size_bytes = outcome.size_bytes or 0
                zeros.truncate(size_bytes)
                limit = Deadline.after(_WIPE_S + size_bytes / _WIPE_BYTES_PER_S)
                write_unit(Path(zeros.name), source, secret, limit)
        except (HostError, InvalidInput) as error:
            raise BackendError(f"{key} was not wiped, and is given to nobody: {error}") from error


class _TooSmall(HostError):
    """A unit has not the size that was declared."""


class _Unreachable(HostError):
    """No path of a unit can be used."""

    def __init__(self, errors: Sequence[LunportError]) -> None:
        super().__init__("; ".join(str(error) for error in errors))


def _assigned(image: str, unit: StaticUnit, outcome: ProbeOutcome) -> Assignment:
    if outcome.wwid is None:
        raise BackendError(f"{unit.key} shows no identity by which a host could verify it.")
    return Assignment(image, unit.size_gib * GIB, outcome.wwid)


def _unit_of(image: str, taken: dict[str, Assignment]) -> str | None:
    return next((key for key, one in taken.items() if one.image == image), None)


def _whole_gib(size_bytes: int) -> int:
    if size_bytes <= 0 or size_bytes % GIB:
        raise InvalidInput("size", size_bytes, "a static backend has whole GiB only")
    return size_bytes // GIB


def _is_same_size(image: str, unit: StaticUnit | None, size_gib: int) -> Change:
    if unit is None or unit.size_gib != size_gib:
        raise AlreadyExists("Image", f"{image} of another size")
    return Change.UNCHANGED
