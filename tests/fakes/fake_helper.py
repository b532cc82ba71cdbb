"""A target helper in memory, held to the same contract suite as the real ones.

It plays tgt by default, with ``FakeHelper(limits=LIKE_LIO)`` LIO. Initiators are played by
:meth:`FakeHelper.log_in`. ``crash`` loses everything, as the death of a daemon does;
``fail_next`` makes a verb fail once, before it does anything; ``absent`` are the portals
whose address is not there.
"""

from __future__ import annotations

import threading
from collections.abc import Sequence
from dataclasses import dataclass, field, replace
from pathlib import Path

from lunport.core.change import Change
from lunport.core.chap import Chap, ChapCredentials
from lunport.core.errors import (
    AuthenticationFailed,
    ExportFailed,
    InvalidInput,
    InvalidIqn,
    InvalidState,
    LunMissing,
    PortalUnavailable,
    TargetDaemonDown,
    TargetUnknown,
)
from lunport.core.iqn import Iqn
from lunport.core.portal import Portal
from lunport.host.clock import Deadline
from lunport.host.tasks import Stop
from lunport.targets import export_checks
from lunport.targets.helper import (
    PROTOCOL_VERSION,
    Admission,
    Export,
    HelperLimits,
    SeenExport,
    SeenUnit,
    Unit,
)

LIKE_TGT = HelperLimits(max_lun=255, max_units=255, max_targets=4096)
LIKE_LIO = HelperLimits(
    min_lun=0,
    max_lun=16383,
    max_units=255,
    max_targets=4096,
    masks_units=True,
    own_credentials=True,
    grows_live=True,
)


@dataclass(slots=True)
class _Target:
    """A target; ``admitted`` says which LUNs each initiator sees."""

    iqn: Iqn
    tid: int
    units: dict[int, Unit] = field(default_factory=dict)
    admitted: dict[Iqn, tuple[Chap | None, frozenset[int]]] = field(default_factory=dict)
    sessions: list[Iqn] = field(default_factory=list)
    sizes: dict[int, int] = field(default_factory=dict)


class FakeHelper:
    """Targets in memory. Safe to use from several threads."""

    protocol_version = PROTOCOL_VERSION

    def __init__(
        self,
        portals: Sequence[Portal] = (Portal("127.0.0.1"),),
        *,
        limits: HelperLimits = LIKE_TGT,
    ) -> None:
        self.limits = limits
        # tgt's: targets have numbers of their own, and the names of accounts are global.
        self._is_like_tgt = not limits.own_credentials
        self._portals = tuple(portals)
        self._missing: tuple[Portal, ...] = ()
        self._targets: dict[Iqn, _Target] = {}
        self._lock = threading.RLock()
        self._ended = threading.Event()
        self._ended.set()
        self.calls: list[str] = []
        self.fail_next: dict[str, Exception] = {}
        self.absent: set[Portal] = set()

    @property
    def portals(self) -> Sequence[Portal]:
        """The configured portals."""
        return self._portals

    @property
    def missing_portals(self) -> tuple[Portal, ...]:
        """Those that were absent at the last start."""
        return self._missing

    # -- what a test does to it ----------------------------------------------------------

    def log_in(self, iqn: Iqn, initiator: Iqn, credentials: ChapCredentials | None = None) -> None:
        """Play an initiator. Raises: TargetUnknown, AuthenticationFailed."""
        with self._lock:
            target = self._targets.get(iqn)
            if target is None or initiator not in target.admitted:
                raise TargetUnknown(iqn, "target not found")
            chap = target.admitted[initiator][0]
            if (chap.initiator if chap else None) != credentials:
                raise AuthenticationFailed(iqn, "wrong credentials")
            target.sessions.append(initiator)

    def do_io(self, iqn: Iqn, initiator: Iqn, lun: int) -> Path:
        """Play I/O of a session that is there; return the image. Raises: LunMissing."""
        with self._lock:
            target = self._targets.get(iqn)
            if target is None or initiator not in target.sessions:
                raise TargetUnknown(iqn, "no session")
            if lun not in target.admitted[initiator][1]:
                raise LunMissing(iqn, f"no LUN {lun}")
            return target.units[lun].path

    def size_seen(self, iqn: Iqn, lun: int) -> int:
        """Return the size that a rescan finds."""
        with self._lock:
            return self._targets[iqn].sizes[lun]

    def crash(self) -> None:
        """Lose everything at once."""
        with self._lock:
            self._targets.clear()
            self._ended.set()

    def described(self, iqn: Iqn) -> Export | None:
        """Return the export of that name as it is now."""
        with self._lock:
            target = self._targets.get(iqn)
            return None if target is None else self._describe(target)

    # -- the daemon ----------------------------------------------------------------------

    def start(self) -> Change:
        """Come up, without targets if it was down."""
        self._begin("start")
        missing = tuple(portal for portal in self._portals if portal in self.absent)
        if missing == self._portals:
            raise PortalUnavailable(str(missing[0]), "the address is not on this host")
        came_up = self._ended.is_set() or missing != self._missing
        self._missing = missing
        self._ended.clear()
        return Change.CHANGED if came_up else Change.UNCHANGED

    def is_alive(self) -> bool:
        """Tell whether it is up."""
        return not self._ended.is_set()

    def wait_for_exit(self, deadline: Deadline, stop: Stop | None = None) -> bool:
        """Wait for a crash or a stop."""
        if stop is not None and stop.is_set():
            return self._ended.is_set()
        return self._ended.wait(deadline.remaining_s())

    def stop(self) -> Change:
        """Go down."""
        self._begin("stop")
        with self._lock:
            change = Change.UNCHANGED if self._ended.is_set() else Change.CHANGED
            self.crash()
        return change

    # -- exports -------------------------------------------------------------------------

    def export(self, export: Export) -> Change:
        """Make the target exist exactly so."""
        self._begin("export")
        self._check(export)
        with self._lock:
            self._require_up()
            target = self._targets.get(export.iqn)
            if target is not None and not self._is_like_tgt:
                target.tid = export.tid
            others = [one for one in self._targets.values() if one is not target]
            export_checks.check_target_count(len(others) + 1, self.limits)
            self._require_free(others, export.iqn, export.tid, export.admissions)
            if target is not None and self._describe(target) == self._normal(export):
                return Change.UNCHANGED
            wanted = {unit.lun: unit for unit in export.units}
            if target is not None and target.sessions:
                shown = target.units
                wrong = [lun for lun in wanted if shown.get(lun, wanted[lun]) != wanted[lun]]
                if wrong or target.tid != export.tid:
                    raise ExportFailed(export.iqn, "replacement", "an initiator is logged in")
            sizes = {unit.lun: _size_of(unit) for unit in export.units}
            if target is None:
                target = self._targets[export.iqn] = _Target(export.iqn, export.tid)
            target.tid = export.tid
            target.sizes = {
                lun: target.sizes.get(lun, size) if lun in target.units else size
                for lun, size in sizes.items()
            }
            target.units = wanted
            target.admitted = {
                one.initiator: (one.chap, frozenset(wanted) if one.luns is None else one.luns)
                for one in export.admissions
            }
            self._drop_refused(target)
            return Change.CHANGED

    def unexport(self, iqn: Iqn, tid: int) -> Change:
        """Take the target away."""
        del tid
        self._begin("unexport")
        with self._lock:
            self._require_up()
            gone = self._targets.pop(iqn, None)
        return Change.UNCHANGED if gone is None else Change.CHANGED

    def exports(self) -> tuple[SeenExport, ...]:
        """List what is there."""
        self._begin("exports")
        with self._lock:
            self._require_up()
            return tuple(
                SeenExport(
                    iqn=one.iqn,
                    tid=one.tid,
                    units=tuple(
                        SeenUnit(lun, unit.path) for lun, unit in sorted(one.units.items())
                    ),
                    initiators=frozenset(one.admitted),
                    sessions=len(one.sessions),
                )
                for one in sorted(self._targets.values(), key=lambda one: one.tid)
            )

    def compare(self, export: Export) -> tuple[str, ...]:
        """Say what differs."""
        self._begin("compare")
        with self._lock:
            self._require_up()
            target = self._targets.get(export.iqn)
            if target is None:
                return ("there is no such target",)
            is_elsewhere = target.tid != export.tid and self._is_like_tgt
            said = [f"it is target {target.tid}"] if is_elsewhere else []
            wanted = {unit.lun: unit for unit in export.units}
            said += [
                f"LUN {lun} is another, missing or too many"
                for lun in sorted({*wanted, *target.units})
                if wanted.get(lun) != target.units.get(lun)
            ]
            admitted = {
                one.initiator: (one.chap, frozenset(wanted) if one.luns is None else one.luns)
                for one in export.admissions
            }
            for name in sorted({*admitted, *target.admitted}):
                chap, luns = target.admitted.get(name, (None, frozenset()))
                if (name in admitted) != (name in target.admitted):
                    said.append(f"initiator {name} is missing or too many")
                elif chap != admitted[name][0]:
                    said.append(f"initiator {name} has other credentials")
                elif luns != admitted[name][1] and self.limits.masks_units:
                    said.append(f"initiator {name} sees other units")
            return tuple(said)

    # -- one unit ------------------------------------------------------------------------

    def map_unit(self, iqn: Iqn, tid: int, unit: Unit, initiators: frozenset[Iqn]) -> Change:
        """Put one more unit on a target."""
        self._begin("map_unit")
        export_checks.check_unit(unit, self.limits)
        with self._lock:
            target = self._find(iqn, tid)
            if target is None:
                raise ExportFailed(iqn, "logical unit", "there is no such target")
            export_checks.check_unit_count(len({*target.units, unit.lun}), self.limits)
            if target.units.get(unit.lun, unit) != unit:
                raise ExportFailed(iqn, "logical unit", f"LUN {unit.lun} shows another image")
            if not initiators <= target.admitted.keys():
                raise ExportFailed(iqn, "logical unit", "an initiator is not admitted")
            before = self._describe(target)
            target.sizes.setdefault(unit.lun, _size_of(unit))
            target.units[unit.lun] = unit
            for name in initiators if self.limits.masks_units else target.admitted:
                chap, luns = target.admitted[name]
                target.admitted[name] = (chap, luns | {unit.lun})
            return self._change_since(target, before)

    def unmap_unit(
        self, iqn: Iqn, tid: int, lun: int, initiators: frozenset[Iqn] | None = None
    ) -> Change:
        """Take a unit away."""
        self._begin("unmap_unit")
        if initiators is not None and not self.limits.masks_units:
            names = ", ".join(sorted(initiators))
            raise InvalidInput("initiators", names, "every initiator sees all units")
        with self._lock:
            target = self._find(iqn, tid)
            if target is None:
                return Change.UNCHANGED
            before = self._describe(target)
            for name in target.admitted if initiators is None else initiators:
                if name in target.admitted:
                    chap, luns = target.admitted[name]
                    target.admitted[name] = (chap, luns - {lun})
            if initiators is None:
                target.units.pop(lun, None)
                target.sizes.pop(lun, None)
            return self._change_since(target, before)

    def resize(self, iqn: Iqn, tid: int, lun: int, size_bytes: int) -> Change:
        """Show a unit's new size."""
        self._begin("resize")
        with self._lock:
            target = self._find(iqn, tid)
            if target is None or lun not in target.units:
                raise ExportFailed(iqn, "size", f"there is no LUN {lun}")
            if target.sizes[lun] == size_bytes:
                return Change.UNCHANGED
            if target.sessions and not self.limits.grows_live:
                raise InvalidState("target", iqn, "in use", "without sessions")
            target.sizes[lun] = size_bytes
            return Change.CHANGED

    # -- one initiator -------------------------------------------------------------------

    def allow(self, iqn: Iqn, tid: int, admission: Admission) -> Change:
        """Let an initiator log in."""
        self._begin("allow")
        export_checks.check_admission(admission, self.limits)
        _check_initiator(admission.initiator)
        _check_chap(admission.chap)
        with self._lock:
            target = self._find(iqn, tid)
            if target is None:
                raise ExportFailed(iqn, "initiator", "there is no such target")
            others = [one for one in self._targets.values() if one is not target]
            self._require_free(others, iqn, tid, [admission])
            luns = frozenset(target.units) if admission.luns is None else admission.luns
            if not luns <= target.units.keys():
                unknown = sorted(luns - target.units.keys())
                raise InvalidInput("units seen", unknown, "the target has no such units")
            present = {
                chap for name, (chap, _) in target.admitted.items() if name != admission.initiator
            }
            if not self.limits.own_credentials and present - {admission.chap}:
                raise InvalidInput("credentials", "***", "the target has one pair for all")
            before = self._describe(target)
            target.admitted[admission.initiator] = (admission.chap, luns)
            return self._change_since(target, before)

    def disallow(self, iqn: Iqn, tid: int, initiator: Iqn) -> Change:
        """Refuse an initiator from now on, and drop its sessions."""
        self._begin("disallow")
        _check_initiator(initiator)
        with self._lock:
            target = self._find(iqn, tid)
            if target is None:
                return Change.UNCHANGED
            gone = target.admitted.pop(initiator, None)
            self._drop_refused(target)
            return Change.UNCHANGED if gone is None else Change.CHANGED

    # -- inside --------------------------------------------------------------------------

    def _begin(self, verb: str) -> None:
        self.calls.append(verb)
        error = self.fail_next.pop(verb, None)
        if error is not None:
            raise error

    def _require_up(self) -> None:
        if self._ended.is_set():
            raise TargetDaemonDown("the fake", "it is down")

    def _check(self, export: Export) -> None:
        export_checks.check_export(export, self.limits)
        for one in export.admissions:
            _check_initiator(one.initiator)
            _check_chap(one.chap)

    def _require_free(
        self, others: Sequence[_Target], iqn: Iqn, tid: int, admissions: Sequence[Admission]
    ) -> None:
        users = {user for one in admissions for user in _users(one.chap)}
        for other in others:
            if other.tid == tid and self._is_like_tgt:
                raise ExportFailed(iqn, "target", f"id {tid} is in use")
            taken = {user for chap, _ in other.admitted.values() for user in _users(chap)}
            if users & taken and self._is_like_tgt:
                raise ExportFailed(iqn, "account", "its user name is in use")

    def _find(self, iqn: Iqn, tid: int) -> _Target | None:
        self._require_up()
        target = self._targets.get(iqn)
        is_it = target is not None and (target.tid == tid or not self._is_like_tgt)
        return target if is_it else None

    def _change_since(self, target: _Target, before: Export) -> Change:
        return Change.UNCHANGED if self._describe(target) == before else Change.CHANGED

    @staticmethod
    def _drop_refused(target: _Target) -> None:
        target.sessions = [one for one in target.sessions if one in target.admitted]

    def _describe(self, target: _Target) -> Export:
        return self._normal(
            Export(
                iqn=target.iqn,
                tid=target.tid,
                units=tuple(unit for _, unit in sorted(target.units.items())),
                admissions=tuple(
                    Admission(name, chap, luns)
                    for name, (chap, luns) in sorted(target.admitted.items())
                ),
            )
        )

    @staticmethod
    def _normal(export: Export) -> Export:
        """Write a mask that hides nothing as none."""
        every = frozenset(unit.lun for unit in export.units)
        return replace(
            export,
            admissions=tuple(
                replace(one, luns=None if one.luns == every else one.luns)
                for one in export.admissions
            ),
        )


def _size_of(unit: Unit) -> int:
    return unit.path.stat().st_size if unit.path.exists() else 0


def _users(chap: Chap | None) -> frozenset[str]:
    both = (chap.initiator, chap.mutual) if chap else ()
    return frozenset(one.username for one in both if one is not None)


def _check_chap(chap: Chap | None) -> None:
    if chap is not None and chap.mutual is not None and len(_users(chap)) == 1:
        raise InvalidInput("mutual username", "", "it must differ from the initiator's")


def _check_initiator(initiator: str) -> None:
    if any(character in initiator for character in " ,=") or initiator == "ALL":
        raise InvalidIqn("initiator", initiator, "not a name")
