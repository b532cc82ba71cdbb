"""Offer images through the kernel's own target (LIO), by configfs.

A target has one group (tag 1) that listens on exactly the configured portals; an initiator is
admitted by an ACL of its own, with its own credentials, and sees the units that are mapped there.
What differs from what shall be is mended object by object while I/O runs on the rest: a verb
looks at its one target, plans (``targets/lio_plan.py``), and does the steps in order.

The kernel is shared with whoever else configures LIO. Ours are the targets whose name begins
with the configured prefix and whose alias names this backend; devices that are named as ours.
``saveconfig.json`` is neither read nor written. There is one writer at a time on a host: each verb
holds a lock between processes (``/run/lunport/locks/lio``).

No verb can be cut short while the kernel waits for the storage behind it.
"""

from __future__ import annotations

import contextlib
import select
from collections.abc import Callable, Iterator, Sequence
from pathlib import Path

from lunport.core.change import Change
from lunport.core.errors import (
    ExportFailed,
    HostLacks,
    InvalidInput,
    InvalidIqn,
    LunportError,
    TargetDaemonDown,
    Unavailable,
    UndoFailed,
)
from lunport.core.iqn import Iqn, fold_iqn, parse_iqn
from lunport.core.portal import Portal
from lunport.host.clock import Deadline
from lunport.host.file_locks import FileLocks
from lunport.host.lio import LioAuth, LioTarget, LioTree
from lunport.host.tasks import Stop
from lunport.targets.export_checks import (
    check_admission,
    check_export,
    check_target_count,
    check_unit,
    check_unit_count,
)
from lunport.targets.helper import (
    PROTOCOL_VERSION,
    Admission,
    Export,
    HelperLimits,
    SeenExport,
    SeenUnit,
    Unit,
)
from lunport.targets.lio_plan import (
    ATTRIBUTES,
    Shape,
    Step,
    plan_admission,
    plan_export,
    plan_hiding,
    plan_portals,
    plan_unit_coming,
    plan_unit_going,
)
from lunport.targets.lio_start import NAME, check_portals, how_to_load, load, missing
from lunport.targets.lio_units import LioUnits, digits_of

# The kernel has no list of a fixed size any more (since 4.2); its LUN numbers have 64 bits, those
# on the wire 14. From 6.5 every enabled target has one of 65535 relative port identifiers.
LIMITS = HelperLimits(
    max_lun=16383,
    max_units=16383,
    max_targets=65535,
    masks_units=True,
    own_credentials=True,
    grows_live=True,
)
LOCKS = Path("/run/lunport/locks")
_LOCK = "lio"
_HALF_MADE = "LIO Target"  # the alias that a new target has
_TIMEOUT_S = 30.0
_LOOK_S = 1.0


class LioHelper:
    """The target helper over the kernel's target."""

    protocol_version = PROTOCOL_VERSION
    limits = LIMITS

    def __init__(
        self,
        portals: Sequence[Portal],
        *,
        backend: str,
        target_prefix: str,
        direct_io: bool = True,
        tree: LioTree | None = None,
        locks: Path = LOCKS,
        timeout_s: float = _TIMEOUT_S,
        on_step: Callable[[str], None] = lambda _: None,
    ) -> None:
        """Offer on these portals; ``on_step`` hears each step before it is done."""
        self._portals = tuple(portals)
        self._prefix = target_prefix
        self._mark = f"{target_prefix}@{backend}#"
        self._tree = tree or LioTree()
        self._units = LioUnits(self._tree, direct_io=direct_io, timeout_s=timeout_s)
        self._locks = FileLocks(locks)
        self._timeout_s = timeout_s
        self._on_step = on_step

    @property
    def portals(self) -> Sequence[Portal]:
        """The configured portals, in configuration order."""
        return self._portals

    @property
    def missing_portals(self) -> tuple[Portal, ...]:
        """The configured portals whose address is not on this host now.

        Targets listen there all the same, and serve as soon as the address is there.
        """
        return missing(self._portals)

    # -- the kernel's target ---------------------------------------------------------------

    def start(self) -> Change:
        """Load what LIO is made of, and have every target listen where it shall."""
        change = load(self._tree, Deadline.after(self._timeout_s))
        try:
            with self._locked("the portals"):
                check_portals(self._tree, self._portals)
                for iqn in self._own_targets():
                    target = self._look(iqn)
                    if target is not None and target.has_group:
                        steps = plan_portals(
                            self._tree, iqn, target.portals, self._shape(0).portals
                        )
                        change |= self._do(iqn, steps)
        except LunportError:
            if change is Change.CHANGED:
                self._tree.remove_fabric()
            raise
        return change

    def is_alive(self) -> bool:
        """Tell whether LIO is there to be configured."""
        return self._tree.is_there()

    def wait_for_exit(self, deadline: Deadline, stop: Stop | None = None) -> bool:
        """Wait for the deadline; True as soon as LIO is not there any more.

        There is no process to wait for, so it is looked at every second.
        """
        poller = select.poll()
        if stop is not None:
            poller.register(stop, select.POLLIN)
        while self._tree.is_there():
            if deadline.has_passed():
                return False
            if poller.poll(min(_LOOK_S, deadline.remaining_s()) * 1000):
                return not self._tree.is_there()
        return True

    def stop(self) -> Change:
        """Take every target of ours away; LIO itself too, if nobody else has a target there."""
        if not self._tree.is_there():
            return Change.UNCHANGED
        with self._locked("all targets"):
            change = Change.UNCHANGED
            for iqn in self._own_targets():
                change |= self._remove(iqn)
            return change | _changed(self._tree.remove_fabric())

    # -- exports ---------------------------------------------------------------------------

    def export(self, export: Export) -> Change:
        """Make the target exist exactly so; see :meth:`TargetHelper.export`."""
        self._check(export)
        with self._locked(export.iqn):
            seen = self._look(export.iqn)
            if seen is None:
                with self._telling(export.iqn, "look"):
                    names = self._tree.target_names(self._prefix)
                check_target_count(len(names) + 1, self.limits)
            steps = self._plan(export, seen)
            if seen is None:
                return self._do(export.iqn, steps, undo=lambda: self._remove_new(export))
            if seen.sessions and any(step.needs_idle for step in steps):
                detail = next(step.sentence for step in steps if step.needs_idle)
                raise ExportFailed(
                    export.iqn, "replacement", f"{detail}, and an initiator is logged in"
                )
            return self._do(export.iqn, steps)

    def unexport(self, iqn: Iqn, tid: int) -> Change:
        """Take the target away, sessions and credentials included."""
        self._check_target(iqn)
        with self._locked(iqn):
            return self._remove(iqn)

    def map_unit(self, iqn: Iqn, tid: int, unit: Unit, initiators: frozenset[Iqn]) -> Change:
        """Put one more unit on a target that is there, seen by these admitted initiators."""
        self._check_target(iqn)
        check_unit(unit, self.limits)
        digits_of(unit.identity)
        step = f"unit {unit.lun}"
        with self._locked(iqn):
            target = self._demand(iqn, step)
            names = [fold_iqn(initiator) for initiator in sorted(initiators)]
            for name in names:
                if name not in target.acls:
                    raise ExportFailed(iqn, step, f"initiator {name} is not admitted")
            place = target.luns.get(unit.lun)
            steps: list[Step] = []
            if place is None:
                check_unit_count(len(target.luns.keys() | {unit.lun}), self.limits)
                steps += plan_unit_coming(self._tree, self._units, iqn, unit, f"{step} is missing")
            else:
                fault = self._fault(iqn, unit, place)
                if fault is not None:
                    raise ExportFailed(iqn, step, fault)
            news = [name for name in names if place is None or self._hides(target, name, unit.lun)]
            for name in news:
                one = Admission(Iqn(name), None, frozenset({unit.lun}))
                remade = {unit.lun} if place is None else ()
                luns = frozenset({unit.lun})
                steps += [
                    mapping
                    for mapping in plan_admission(
                        self._tree, iqn, one, target.acls[name], luns, remade
                    )
                    if mapping.name == f"{step} for initiator {name}"
                ]

            def undo() -> None:
                for name in news:
                    self._tree.unmap_lun(iqn, name, unit.lun)
                if place is None:
                    self._tree.remove_lun(iqn, unit.lun)
                    self._units.drop(self._units.place_of(unit))

            return self._do(iqn, steps, undo=undo)

    def unmap_unit(
        self, iqn: Iqn, tid: int, lun: int, initiators: frozenset[Iqn] | None = None
    ) -> Change:
        """Take a unit away, from these initiators only or (None) from all and off the target."""
        self._check_target(iqn)
        with self._locked(iqn):
            target = self._look(iqn)
            if target is None:
                return Change.UNCHANGED
            if initiators is None:
                why = f"unit {lun} is there"
                steps = plan_unit_going(self._tree, self._units, iqn, target, lun, why)
                return self._do(iqn, steps)
            names = {fold_iqn(initiator) for initiator in initiators}
            return self._do(iqn, [
                plan_hiding(self._tree, iqn, name, lun)
                for name, acl in target.acls.items() if name in names and lun in acl.mapped
            ])  # fmt: skip

    def allow(self, iqn: Iqn, tid: int, admission: Admission) -> Change:
        """Let an initiator log in, with these credentials and units."""
        self._check_target(iqn)
        check_admission(admission, self.limits)
        _check_credentials(admission)
        name = fold_iqn(admission.initiator)
        step = f"initiator {admission.initiator}"
        with self._locked(iqn):
            target = self._demand(iqn, step)
            luns = frozenset(lun for lun, place in target.luns.items() if place is not None)
            unknown = sorted((admission.luns or frozenset()) - luns)
            if unknown:
                raise ExportFailed(iqn, step, f"there are no units {unknown}")
            acl = target.acls.get(name)
            steps = tuple(plan_admission(self._tree, iqn, admission, acl, luns))
            if acl is not None:
                return self._do(iqn, steps)
            return self._do(iqn, steps, undo=lambda: self._tree.remove_acl(iqn, name))

    def disallow(self, iqn: Iqn, tid: int, initiator: Iqn) -> Change:
        """Refuse an initiator from now on; its sessions are gone when this returns."""
        self._check_target(iqn)
        _check_initiator(initiator)
        step = f"initiator {initiator}"
        with self._locked(iqn), self._telling(iqn, step):
            self._on_step(step)
            return _changed(self._tree.remove_acl(iqn, fold_iqn(initiator)))

    def resize(self, iqn: Iqn, tid: int, lun: int, size_bytes: int) -> Change:
        """Have initiators find a unit's new size at their next rescan; no session is dropped."""
        self._check_target(iqn)
        step = f"size of unit {lun}"
        with self._locked(iqn), self._telling(iqn, step):
            self._on_step(step)
            return _changed(self._units.grow(iqn, lun, size_bytes))

    def exports(self) -> tuple[SeenExport, ...]:
        """List what is there of this backend."""
        with self._locked("the targets", shared=True):
            return tuple(
                SeenExport(
                    iqn=Iqn(iqn),
                    tid=_number(target.alias.removeprefix(self._mark)),
                    units=tuple(
                        SeenUnit(lun, self._units.path_behind(place))
                        for lun, place in target.luns.items()
                    ),
                    initiators=frozenset(map(Iqn, target.acls)),
                    sessions=target.sessions,
                )
                for iqn in self._own_targets()
                if (target := self._look(iqn)) is not None
            )

    def compare(self, export: Export) -> tuple[str, ...]:
        """Say how the target differs from ``export``; changes nothing."""
        self._check(export)
        with self._locked(export.iqn, shared=True):
            seen = self._look(export.iqn)
            if seen is None:
                return ("it is not there",)
            return tuple(dict.fromkeys(step.sentence for step in self._plan(export, seen)))

    # -- looking ---------------------------------------------------------------------------

    def _plan(self, export: Export, seen: LioTarget | None) -> tuple[Step, ...]:
        present = {} if seen is None else seen.luns
        placed = [
            (unit, place) for unit in export.units if (place := present.get(unit.lun)) is not None
        ]
        faults = {
            unit.lun: fault
            for unit, place in placed
            if (fault := self._fault(export.iqn, unit, place)) is not None
        }
        with self._telling(export.iqn, "look"):
            lacking = [unit.lun for unit, place in placed if self._units.lacks_discard(place)]
        return plan_export(
            self._tree,
            self._units,
            export,
            seen,
            faults,
            self._shape(export.tid),
            lacking_discard=lacking,
        )

    def _look(self, iqn: str) -> LioTarget | None:
        with self._telling(iqn, "look"):
            return self._tree.target(iqn, tuple(ATTRIBUTES))

    def _demand(self, iqn: str, step: str) -> LioTarget:
        target = self._look(iqn)
        if target is None or not target.has_group:
            raise ExportFailed(iqn, step, "there is no such target")
        return target

    def _fault(self, iqn: str, unit: Unit, place: Path) -> str | None:
        with self._telling(iqn, f"unit {unit.lun}"):
            return self._units.fault(unit, place)

    def _own_targets(self) -> tuple[str, ...]:
        """Name the targets of this backend; one without an alias was being made by somebody."""
        with self._telling("the targets", "look"):
            return tuple(
                iqn
                for iqn in self._tree.target_names(self._prefix)
                if (alias := self._tree.alias(iqn)) is None
                or alias.startswith(self._mark)
                or alias == _HALF_MADE
            )

    @staticmethod
    def _hides(target: LioTarget, name: str, lun: int) -> bool:
        return target.acls[name].mapped.get(lun) != lun

    def _shape(self, tid: int) -> Shape:
        return Shape(tuple(map(str, self._portals)), f"{self._mark}{tid}")

    # -- doing -----------------------------------------------------------------------------

    def _do(
        self,
        iqn: str,
        steps: Sequence[Step] | Iterator[Step],
        *,
        undo: Callable[[], object] | None = None,
    ) -> Change:
        change = Change.UNCHANGED
        try:
            for step in steps:
                self._on_step(step.name)
                with self._telling(iqn, step.name):
                    step.act()
                change = Change.CHANGED
        except LunportError as cause:
            if undo is None or isinstance(cause, TargetDaemonDown):
                raise
            try:
                with self._telling(iqn, "undo"):
                    undo()
            except LunportError as failure:
                raise UndoFailed(cause, [failure]) from cause
            raise
        return change

    def _remove(self, iqn: str) -> Change:
        target = self._look(iqn)
        if target is None:
            return Change.UNCHANGED
        with self._telling(iqn, "target"):
            self._on_step("target")
            self._tree.remove_target(iqn)
        for place in target.luns.values():
            if place is not None:
                with self._telling(iqn, "device"):
                    self._on_step("device")
                    self._units.drop(place)
        return Change.CHANGED

    def _remove_new(self, export: Export) -> None:
        self._tree.remove_target(export.iqn)
        for unit in export.units:
            self._units.drop(self._units.place_of(unit))

    @contextlib.contextmanager
    def _locked(self, what: str, *, shared: bool = False) -> Iterator[None]:
        if not self._tree.is_there():
            raise TargetDaemonDown(NAME, how_to_load())
        deadline = Deadline.after(self._timeout_s)
        try:
            stack = contextlib.ExitStack()
            stack.enter_context(self._locks.hold(_LOCK, deadline, shared=shared))
        except (Unavailable, HostLacks) as error:
            raise ExportFailed(what, "lock", str(error)) from error
        with stack:
            yield

    @contextlib.contextmanager
    def _telling(self, iqn: str, step: str) -> Iterator[None]:
        """Turn what configfs says into our errors."""
        try:
            yield
        except OSError as error:
            if not self._tree.is_there():
                raise TargetDaemonDown(NAME, how_to_load()) from error
            where = f" ({error.filename})" if error.filename else ""
            raise ExportFailed(iqn, step, f"{error.strerror or error}{where}") from error

    # -- checks before anything is done ----------------------------------------------------

    def _check(self, export: Export) -> None:
        self._check_target(export.iqn)
        check_export(export, self.limits)
        for unit in export.units:
            digits_of(unit.identity)
        names = [fold_iqn(one.initiator) for one in export.admissions]
        for admission in export.admissions:
            _check_credentials(admission)
            if names.count(fold_iqn(admission.initiator)) > 1:
                raise InvalidIqn("initiator", admission.initiator, "LIO folds case: named twice")

    def _check_target(self, iqn: str) -> None:
        if not iqn.startswith(self._prefix):
            raise InvalidIqn("target name", iqn, f"those of this backend begin with {self._prefix}")
        if "/" in parse_iqn(iqn, what="target name"):
            raise InvalidIqn("target name", iqn, "it is the name of a folder")


def _check_credentials(admission: Admission) -> None:
    """Refuse what LIO would misread. Raises: InvalidInput."""
    _check_initiator(admission.initiator)
    chap = admission.chap
    if chap is None:
        return
    if LioAuth.of(chap).is_misread():
        raise InvalidInput("credentials", "***", "LIO takes what begins with NULL for none")
    if chap.mutual is not None and chap.mutual.password == chap.initiator.password:
        # RFC 7143, 12.1.3: one secret for both directions can be reflected
        raise InvalidInput("mutual password", "***", "it must differ from the initiator's")


def _check_initiator(initiator: str) -> None:
    parse_iqn(initiator, what="initiator")


def _changed(did: bool) -> Change:
    return Change.CHANGED if did else Change.UNCHANGED


def _number(text: str) -> int:
    return int(text) if text.isdecimal() else 0
