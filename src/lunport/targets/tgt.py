"""Offer images through tgtd: targets with one unit or several behind them.

Everything is done by requests on the management socket, seven for an export of one unit. A
new target is simply made; only when tgtd says that it is there already is it looked at and
repaired object by object. The order keeps a half-made target shut: initiators are admitted
last and taken away first, because tgtd asks nobody for a secret while a target has no account.

To show all targets costs tgtd some 25 µs each, during which it serves no I/O, so a verb does
without where it can: what this process made itself is checked by the answers to requests
that change nothing, and what :meth:`TgtHelper.exports` just showed is not asked for again.

Concurrent verbs on different targets are fine; those on one target are the caller's to keep
apart.
"""

from __future__ import annotations

import contextlib
import threading
from collections.abc import Iterable, Iterator, Sequence
from dataclasses import dataclass, replace

from lunport.core.change import Change
from lunport.core.chap import Chap
from lunport.core.errors import (
    ExportFailed,
    InvalidInput,
    InvalidState,
    LunportError,
    TargetDaemonDown,
    UndoFailed,
)
from lunport.core.iqn import Iqn
from lunport.core.portal import Portal
from lunport.host.clock import Deadline
from lunport.host.tasks import Stop
from lunport.host.tgt_requests import TgtRequests
from lunport.host.tgt_show import ShownTarget, find_targets, shown_mb
from lunport.host.tgt_socket import TgtStatus
from lunport.host.tgtd import TgtDaemon
from lunport.targets.export_checks import check_target_count, check_unit_count
from lunport.targets.helper import (
    PROTOCOL_VERSION,
    Admission,
    Export,
    SeenExport,
    SeenUnit,
    Unit,
)
from lunport.targets.tgt_accounts import (
    add_credentials,
    bound_users,
    chap_of,
    delete_accounts,
    has_accounts,
    has_fingerprint,
    swap_credentials,
    sweep_accounts,
    users_of,
)
from lunport.targets.tgt_checks import (
    LIMITS,
    check_admission,
    check_export,
    check_initiator,
    check_unit,
)
from lunport.targets.tgt_compare import differences
from lunport.targets.tgt_initiators import admit, connections, expel, remove_target, shut_out
from lunport.targets.tgt_target import OneTarget, show_all, show_text
from lunport.targets.tgt_units import (
    UnitRepair,
    add_unit,
    map_beside,
    name_unit,
    plan_repair,
    remove_unit,
    reopen_image,
)

_TIMEOUT_S = 10.0
_VIEW_S = 60.0


@dataclass(frozen=True, slots=True)
class _Made:
    """What this process has made of a target, and the process id of the daemon it told."""

    export: Export
    daemon: int


class TgtHelper:
    """The target helper over one tgtd."""

    protocol_version = PROTOCOL_VERSION
    limits = LIMITS

    def __init__(
        self, daemon: TgtDaemon, *, target_prefix: str = "", timeout_s: float = _TIMEOUT_S
    ) -> None:
        """Use that daemon. On the system's only targets with ``target_prefix`` are ours."""
        self._daemon = daemon
        self._prefix = "" if daemon.is_ours else target_prefix
        self._timeout_s = timeout_s
        self._made: dict[int, _Made] = {}
        self._view: dict[int, ShownTarget] = {}
        self._view_until = Deadline.after(0)
        self._accounts_lock = threading.Lock()

    @property
    def portals(self) -> Sequence[Portal]:
        """The configured portals, in configuration order."""
        return self._daemon.portals

    @property
    def missing_portals(self) -> tuple[Portal, ...]:
        """The configured portals that the last start found no address for."""
        return self._daemon.missing_portals

    # -- the daemon ----------------------------------------------------------------------

    def start(self) -> Change:
        """Bring the daemon up with exactly the configured portals bound."""
        change = self._daemon.start(Deadline.after(self._timeout_s))
        self._forget()
        if self._daemon.is_ours:
            requests = self._requests()
            with self._accounts(requests.deadline):
                sweep_accounts(requests)
        return change

    def is_alive(self) -> bool:
        """Tell whether the daemon answers now."""
        return self._daemon.is_alive(Deadline.after(self._timeout_s))

    def wait_for_exit(self, deadline: Deadline, stop: Stop | None = None) -> bool:
        """Wait for the daemon's end; tell whether it has ended."""
        return self._daemon.wait_for_exit(deadline, stop)

    def stop(self) -> Change:
        """Take every target of ours away and end the daemon, if it is ours.

        One of ours with very many targets is killed instead: that closes all of them, and
        what was written is with the kernel already.
        """
        requests = self._requests()
        change = Change.UNCHANGED
        self._forget()
        if self._daemon.is_alive(requests.deadline):
            # One of ours that does not let go of a target is killed by the daemon's stop.
            tolerated = (ExportFailed, TargetDaemonDown) if self._is_own else ()
            with contextlib.suppress(*tolerated):
                for shown in self._show(requests):
                    remove_target(OneTarget(requests, shown.name, shown.tid), shown)
                    change = Change.CHANGED
                    if self._is_own and requests.deadline.remaining_s() < self._timeout_s / 2:
                        break
        return change | self._daemon.stop(Deadline.after(self._timeout_s))

    # -- exports -------------------------------------------------------------------------

    def export(self, export: Export) -> Change:
        """Make the target exist exactly so; see :meth:`TargetHelper.export`."""
        check_export(export)
        check_target_count(len(self._made) + (export.tid not in self._made), LIMITS)
        target = self._target(export.iqn, export.tid)
        answer = target.requests.new_target(export.tid, export.iqn)
        made = self._made.pop(export.tid, None)
        viewed = self._take_view(export.tid)
        if answer.status is not TgtStatus.TARGET_EXISTS:
            target.expect(answer, "target")
            self._furnish(target, export)
            change = Change.CHANGED
        elif viewed is not None and _is_right(viewed, export):
            change = self._repair(target, viewed, export)
        elif made is not None and viewed is None and self._knows(made, export, answer.pid):
            change = self._confirm(target, made.export, export)
        else:
            change = self._look_and_repair(target, export)
        self._made[export.tid] = _Made(export, answer.pid)
        return change

    def unexport(self, iqn: Iqn, tid: int) -> Change:
        """Take the target away, sessions and credentials included."""
        requests = self._requests()
        self._take_view(tid)
        made = self._made.pop(tid, None)
        if made is not None and made.export.iqn == iqn and self._is_own:
            answer = requests.delete_target(tid, by_force=False)
            if answer.status is TgtStatus.SUCCESS:
                delete_accounts(requests, iqn, users_of(chap_of(made.export)))
                return Change.CHANGED
        for shown in find_targets(show_text(requests), tid, iqn):
            if shown.name == iqn:
                self._take_view(shown.tid)
                other = self._made.get(shown.tid)
                if other is not None and other.export.iqn != iqn:
                    raise ExportFailed(iqn, "target", f"id {shown.tid} is {other.export.iqn}'s")
                self._made.pop(shown.tid, None)
                remove_target(OneTarget(requests, shown.name, shown.tid), shown)
                return Change.CHANGED
        return Change.UNCHANGED

    def exports(self) -> tuple[SeenExport, ...]:
        """List what the daemon shows now."""
        targets = self._show(self._requests())
        self._view = {target.tid: target for target in targets}
        self._view_until = Deadline.after(_VIEW_S)
        return tuple(
            SeenExport(
                iqn=Iqn(target.name),
                tid=target.tid,
                units=tuple(SeenUnit(unit.lun, unit.path) for unit in target.luns),
                initiators=frozenset(Iqn(name) for name in target.initiators),
                sessions=target.sessions,
            )
            for target in targets
        )

    def compare(self, export: Export) -> tuple[str, ...]:
        """Say how the target differs from the export; see :meth:`TargetHelper.compare`."""
        target = self._target(export.iqn, export.tid)
        found = find_targets(show_text(target.requests), export.tid, export.iqn)
        return differences(target, found, export)

    # -- one unit ------------------------------------------------------------------------

    def map_unit(self, iqn: Iqn, tid: int, unit: Unit, initiators: frozenset[Iqn]) -> Change:
        """Put one more unit on a target; every initiator of the target sees it."""
        del initiators
        check_unit(unit)
        target = self._target(iqn, tid)
        self._take_view(tid)
        made = self._known(iqn, tid)
        if made is None:
            shown = self._look(target, "logical unit")
            check_unit_count(len({unit.lun, *(lun.lun for lun in shown.luns)}), LIMITS)
            return map_beside(target, shown, unit)
        others = [one for one in made.export.units if one.lun != unit.lun]
        check_unit_count(len(others) + 1, LIMITS)
        if add_unit(target, unit):
            change = Change.CHANGED
        elif unit in made.export.units:
            return Change.UNCHANGED
        else:
            change = map_beside(target, self._look(target, "logical unit"), unit)
        units = tuple(sorted([*others, unit], key=lambda one: one.lun))
        self._made[tid] = replace(made, export=replace(made.export, units=units))
        return change

    def unmap_unit(
        self, iqn: Iqn, tid: int, lun: int, initiators: frozenset[Iqn] | None = None
    ) -> Change:
        """Take a unit off the target, from all of its initiators."""
        if initiators is not None:
            names = ", ".join(sorted(initiators))
            reason = "every initiator of a tgt target sees all of its units"
            raise InvalidInput("initiators that a unit is hidden from", names, reason)
        if not LIMITS.min_lun <= lun <= LIMITS.max_lun:
            return Change.UNCHANGED
        target = self._target(iqn, tid)
        self._take_view(tid)
        made = self._known(iqn, tid)
        if made is None:
            return Change.UNCHANGED if target.look() is None else remove_unit(target, lun)
        change = remove_unit(target, lun)
        units = tuple(one for one in made.export.units if one.lun != lun)
        self._made[tid] = replace(made, export=replace(made.export, units=units))
        return change

    def resize(self, iqn: Iqn, tid: int, lun: int, size_bytes: int) -> Change:
        """Have the next login find the unit's new size; refused while anybody is connected."""
        target = self._target(iqn, tid)
        self._take_view(tid)
        shown = self._look(target, "size")
        unit = next((one for one in shown.luns if one.lun == lun), None)
        if unit is None or unit.path is None:
            raise ExportFailed(iqn, "size", f"there is no LUN {lun}")
        if unit.size_mb == shown_mb(size_bytes):
            return Change.UNCHANGED
        count = f"in use by {max(1, shown.sessions)} session(s)"
        needs = "without sessions: tgt shows a new size only to those that log in afterwards"
        with self._shut(target, shown.initiators, InvalidState("target", iqn, count, needs)):
            reopen_image(target, lun, unit.path)
        return Change.CHANGED

    # -- one initiator -------------------------------------------------------------------

    def allow(self, iqn: Iqn, tid: int, admission: Admission) -> Change:
        """Let an initiator log in; its credentials must be those of the target's others."""
        check_admission(admission)
        initiator, chap = admission.initiator, admission.chap
        target = self._target(iqn, tid)
        self._take_view(tid)
        made = self._known(iqn, tid)
        if made is not None:
            users, present = users_of(chap_of(made.export)), made.export.initiators
            is_same = chap_of(made.export) == chap
        else:
            shown = self._look(target, "initiator")
            users, present = bound_users(shown), frozenset(map(Iqn, shown.initiators))
            is_same = has_accounts(shown, chap) and has_fingerprint(target, chap)
        change = Change.UNCHANGED
        if not is_same:
            if present - {initiator}:
                names = ", ".join(sorted(present - {initiator}))
                reason = f"a tgt target has one pair for all, and has another with {names}"
                raise InvalidInput("credentials", "***", reason)
            self._made.pop(tid, None)
            self._swap(target, users, chap, present)
            change = Change.CHANGED
        change |= admit(target, initiator)
        if made is not None:
            kept = [one for one in made.export.admissions if one.initiator != initiator]
            self._note_admissions(tid, made, [*kept, admission])
        return change

    def disallow(self, iqn: Iqn, tid: int, initiator: Iqn) -> Change:
        """Refuse an initiator from now on, and drop its sessions.

        The credentials go with the last one.
        """
        check_initiator(initiator)
        target = self._target(iqn, tid)
        self._take_view(tid)
        made = self._known(iqn, tid)
        if made is not None:
            users, present = users_of(chap_of(made.export)), made.export.initiators
        else:
            shown = target.look()
            if shown is None:
                return Change.UNCHANGED
            users, present = bound_users(shown), frozenset(map(Iqn, shown.initiators))
        change = expel(target, initiator)
        if users and not present - {initiator}:
            self._made.pop(tid, None)
            self._swap(target, users, None, ())
            change = Change.CHANGED
        if made is not None:
            kept = [one for one in made.export.admissions if one.initiator != initiator]
            self._note_admissions(tid, made, kept)
        return change

    @contextlib.contextmanager
    def _accounts(self, deadline: Deadline) -> Iterator[None]:
        """Keep a sweep away while an account is made and not yet bound.

        A swept account would leave a target that asks nobody for a secret.
        """
        if not self._accounts_lock.acquire(timeout=deadline.remaining_s()):
            raise TargetDaemonDown("tgtd", f"its accounts were busy for {deadline.budget_s:.0f} s")
        try:
            yield
        finally:
            self._accounts_lock.release()

    # -- making --------------------------------------------------------------------------

    def _furnish(self, target: OneTarget, export: Export) -> None:
        """Fill a target that was made just now; it is not there after a failure."""
        requests = target.requests
        accounts: list[str] = []
        try:
            for unit in export.units:
                add_unit(target, unit)
            with self._accounts(requests.deadline):
                add_credentials(target, chap_of(export), accounts)
            for initiator in sorted(export.initiators):
                admit(target, initiator)
        except TargetDaemonDown:
            raise  # What it held died with it, or is found by the next look at it.
        except LunportError as cause:
            try:
                answer = requests.delete_target(export.tid, by_force=True)
                target.expect(answer, "undo", TgtStatus.NO_TARGET)
                delete_accounts(requests, export.iqn, accounts)
            except LunportError as failure:
                raise UndoFailed(cause, [failure]) from cause
            raise

    # -- repairing -----------------------------------------------------------------------

    def _confirm(self, target: OneTarget, made: Export, export: Export) -> Change:
        """Check a target that this process made, and is still as it made it, part by part."""
        change = Change.UNCHANGED
        for unit in export.units:
            if add_unit(target, unit):
                change = Change.CHANGED
            elif unit not in made.units:
                return change | self._look_and_repair(target, export)
        if not has_fingerprint(target, chap_of(export)):
            return change | self._look_and_repair(target, export)
        for lun in sorted({unit.lun for unit in made.units} - {unit.lun for unit in export.units}):
            change |= remove_unit(target, lun)
        for initiator in sorted(made.initiators - export.initiators):
            change |= expel(target, initiator)
        for initiator in sorted(export.initiators):
            change |= admit(target, initiator)
        return change

    def _look_and_repair(self, target: OneTarget, export: Export) -> Change:
        found = find_targets(show_text(target.requests), export.tid, export.iqn)
        for shown in found:
            if shown.name != export.iqn:
                raise ExportFailed(export.iqn, "target", f"id {export.tid} is {shown.name}'s")
        if found and found[0].tid == export.tid:
            return self._repair(target, found[0], export)
        for shown in found:
            if shown.sessions:
                detail = f"it is target {shown.tid}, and an initiator is logged in"
                raise ExportFailed(export.iqn, "replacement", detail)
            elsewhere = OneTarget(target.requests, shown.name, shown.tid)
            remove_target(elsewhere, shown, by_force=False)
            self._made.pop(shown.tid, None)
        target.expect(target.requests.new_target(export.tid, export.iqn), "target")
        self._furnish(target, export)
        return Change.CHANGED

    def _repair(self, target: OneTarget, shown: ShownTarget, export: Export) -> Change:
        """Make a target right, object by object; sessions that may stay are not touched."""
        change = Change.UNCHANGED
        present = {Iqn(name) for name in shown.initiators}
        for initiator in sorted(present - export.initiators):
            change |= expel(target, initiator)
        present &= export.initiators
        plan = plan_repair(shown.luns, export.units)
        if plan.wrong:
            detail = "its image or identity is another, and an initiator is logged in"
            with self._shut(target, present, ExportFailed(export.iqn, "replacement", detail)):
                for unit in plan.wrong:
                    remove_unit(target, unit.lun)
        change |= self._repair_units(target, plan)
        chap = chap_of(export)
        if not (has_accounts(shown, chap) and has_fingerprint(target, chap)):
            self._swap(target, bound_users(shown), chap, present)
            present.clear()
            change = Change.CHANGED
        for initiator in sorted(export.initiators - present):
            change |= admit(target, initiator)
        return change

    @staticmethod
    def _repair_units(target: OneTarget, plan: UnitRepair) -> Change:
        change = Change.UNCHANGED
        for lun in plan.surplus:
            change |= remove_unit(target, lun)
        for unit in plan.unnamed:
            name_unit(target, unit)
            change = Change.CHANGED
        for unit in (*plan.wrong, *plan.absent):
            add_unit(target, unit)
            change = Change.CHANGED
        return change

    @contextlib.contextmanager
    def _shut(
        self, target: OneTarget, initiators: Iterable[str], busy: LunportError
    ) -> Iterator[None]:
        """Keep its initiators out meanwhile. Raises: ``busy`` (one is connected)."""
        if connections(target):
            raise busy
        try:
            shut_out(target, initiators)
            if connections(target):
                raise busy  # It came at this moment.
            yield
        finally:
            for initiator in initiators:
                admit(target, initiator)

    def _swap(
        self,
        target: OneTarget,
        users: Sequence[str],
        chap: Chap | None,
        present: Iterable[Iqn],
    ) -> None:
        """Swap the credentials. A target without any asks for no secret, so it is shut before."""
        shut_out(target, present)
        with self._accounts(target.requests.deadline):
            swap_credentials(target, users, chap)

    # -- what is known -------------------------------------------------------------------

    @property
    def _is_own(self) -> bool:
        return self._daemon.is_ours

    def _requests(self) -> TgtRequests:
        return TgtRequests(self._daemon.socket, Deadline.after(self._timeout_s))

    def _target(self, iqn: Iqn, tid: int) -> OneTarget:
        return OneTarget(self._requests(), iqn, tid)

    def _show(self, requests: TgtRequests) -> tuple[ShownTarget, ...]:
        return tuple(one for one in show_all(requests) if one.name.startswith(self._prefix))

    def _forget(self) -> None:
        self._made.clear()
        self._view = {}

    def _take_view(self, tid: int) -> ShownTarget | None:
        """Take what was shown of a target a moment ago; it is good for one use."""
        viewed = self._view.pop(tid, None)
        return None if self._view_until.has_passed() else viewed

    def _knows(self, made: _Made, export: Export, daemon: int) -> bool:
        """Tell whether it is known but for units and initiators that come or go."""
        wanted = {unit.lun: unit for unit in export.units}
        return (
            self._is_own
            and made.daemon == daemon
            and made.export.iqn == export.iqn
            and chap_of(made.export) == chap_of(export)
            and all(wanted.get(unit.lun, unit) == unit for unit in made.export.units)
        )

    def _known(self, iqn: Iqn, tid: int) -> _Made | None:
        """Return what this process made under that name and number, if it did."""
        made = self._made.get(tid)
        return made if made is not None and self._is_own and made.export.iqn == iqn else None

    def _look(self, target: OneTarget, step: str) -> ShownTarget:
        """Look at a target that must be there. Raises: ExportFailed."""
        shown = target.look()
        if shown is None:
            raise ExportFailed(target.iqn, step, "there is no such target")
        return shown

    def _note_admissions(self, tid: int, made: _Made, admissions: Sequence[Admission]) -> None:
        ordered = tuple(sorted(admissions, key=lambda one: one.initiator))
        self._made[tid] = replace(made, export=replace(made.export, admissions=ordered))


def _is_right(target: ShownTarget, export: Export) -> bool:
    is_it = (target.tid, target.name) == (export.tid, export.iqn)
    return is_it and not plan_repair(target.luns, export.units)
