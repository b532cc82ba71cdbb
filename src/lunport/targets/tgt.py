"""Offer images through tgtd: one target a volume, one logical unit behind it.

Everything is done by requests on the management socket, seven for an export. A new target is
simply made; only when tgtd says that it is there already is it looked at and repaired object
by object. The order keeps a half-made target shut: initiators are admitted last and taken
away first, because tgtd asks nobody for a secret while a target has no account.

To show all targets costs tgtd some 25 µs each, during which it serves no I/O, so a verb does
without where it can: what this process made itself is checked by the answers to requests
that change nothing, and what :meth:`TgtHelper.exports` just showed is not asked for again.

Concurrent verbs on different targets are fine; those on one target are the caller's to keep
apart.
"""

from __future__ import annotations

import contextlib
import threading
from collections.abc import Iterator, Sequence
from dataclasses import dataclass, replace

from lunport.core.change import Change
from lunport.core.errors import ExportFailed, LunportError, TargetDaemonDown, UndoFailed
from lunport.core.iqn import Iqn
from lunport.core.portal import Portal
from lunport.host.clock import Deadline
from lunport.host.tasks import Stop
from lunport.host.tgt_requests import TgtRequests
from lunport.host.tgt_show import ShownTarget, find_targets
from lunport.host.tgt_socket import TgtStatus
from lunport.host.tgtd import TgtDaemon
from lunport.targets.helper import Export, SeenExport
from lunport.targets.tgt_target import (
    MAX_LUN,
    add_credentials,
    add_unit,
    admit,
    check_export,
    check_initiator,
    delete_accounts,
    expect,
    expel,
    has_accounts,
    has_fingerprint,
    has_the_unit,
    remove_target,
    show_all,
    show_text,
    swap_credentials,
    sweep_accounts,
    users_of,
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

    protocol_version = 1
    max_lun = MAX_LUN

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
                for target in self._show(requests):
                    remove_target(requests, target)
                    change = Change.CHANGED
                    if self._is_own and requests.deadline.remaining_s() < self._timeout_s / 2:
                        break
        return change | self._daemon.stop(Deadline.after(self._timeout_s))

    # -- exports -------------------------------------------------------------------------

    def export(self, export: Export) -> Change:
        """Make the target exist exactly so; see :meth:`TargetHelper.export`."""
        check_export(export)
        requests = self._requests()
        answer = requests.new_target(export.tid, export.iqn)
        made = self._made.pop(export.tid, None)
        viewed = self._take_view(export.tid)
        if answer.status is not TgtStatus.TARGET_EXISTS:
            expect(answer, export.iqn, "target")
            self._furnish(requests, export)
            change = Change.CHANGED
        elif viewed is not None and _is_right(viewed, export):
            change = self._repair(requests, viewed, export)
        elif made is not None and viewed is None and self._knows(made, export, answer.pid):
            change = self._confirm(requests, made.export, export)
        else:
            change = self._look_and_repair(requests, export)
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
                delete_accounts(requests, iqn, users_of(made.export.chap))
                return Change.CHANGED
        for target in find_targets(show_text(requests), tid, iqn):
            if target.name == iqn:
                self._take_view(target.tid)
                other = self._made.get(target.tid)
                if other is not None and other.export.iqn != iqn:
                    raise ExportFailed(iqn, "target", f"id {target.tid} is {other.export.iqn}'s")
                self._made.pop(target.tid, None)
                remove_target(requests, target)
                return Change.CHANGED
        return Change.UNCHANGED

    def allow(self, iqn: Iqn, tid: int, initiator: Iqn) -> Change:
        """Let one more initiator log in."""
        check_initiator(initiator)
        requests = self._requests()
        if not self._is_named(requests, iqn, tid):
            raise ExportFailed(iqn, "initiator", "there is no such target")
        change = admit(requests, iqn, tid, initiator)
        self._note_initiators(tid, plus=frozenset({initiator}))
        return change

    def disallow(self, iqn: Iqn, tid: int, initiator: Iqn) -> Change:
        """Refuse an initiator from now on, and drop its sessions."""
        check_initiator(initiator)
        requests = self._requests()
        if not self._is_named(requests, iqn, tid):
            return Change.UNCHANGED
        change = expel(requests, iqn, tid, initiator)
        self._note_initiators(tid, minus=frozenset({initiator}))
        return change

    def exports(self) -> tuple[SeenExport, ...]:
        """List what the daemon shows now."""
        targets = self._show(self._requests())
        self._view = {target.tid: target for target in targets}
        self._view_until = Deadline.after(_VIEW_S)
        return tuple(
            SeenExport(
                iqn=Iqn(target.name),
                tid=target.tid,
                path=next((lun.path for lun in target.luns), None),
                initiators=frozenset(Iqn(name) for name in target.initiators),
                sessions=target.sessions,
            )
            for target in targets
        )

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

    def _furnish(self, requests: TgtRequests, export: Export) -> None:
        """Fill a target that was made just now; it is not there after a failure."""
        accounts: list[str] = []
        try:
            add_unit(requests, export)
            with self._accounts(requests.deadline):
                add_credentials(requests, export, accounts)
            for initiator in sorted(export.initiators):
                admit(requests, export.iqn, export.tid, initiator)
        except TargetDaemonDown:
            raise  # What it held died with it, or is found by the next look at it.
        except LunportError as cause:
            try:
                answer = requests.delete_target(export.tid, by_force=True)
                expect(answer, export.iqn, "undo", TgtStatus.NO_TARGET)
                delete_accounts(requests, export.iqn, accounts)
            except LunportError as failure:
                raise UndoFailed(cause, [failure]) from cause
            raise

    # -- repairing -----------------------------------------------------------------------

    def _confirm(self, requests: TgtRequests, made: Export, export: Export) -> Change:
        """Check a target that this process made, and is still as it made it, part by part."""
        change = Change.CHANGED if add_unit(requests, export) else Change.UNCHANGED
        if not has_fingerprint(requests, export):
            return change | self._look_and_repair(requests, export)
        for initiator in sorted(made.initiators - export.initiators):
            change |= expel(requests, export.iqn, export.tid, initiator)
        for initiator in sorted(export.initiators):
            change |= admit(requests, export.iqn, export.tid, initiator)
        return change

    def _look_and_repair(self, requests: TgtRequests, export: Export) -> Change:
        found = find_targets(show_text(requests), export.tid, export.iqn)
        for target in found:
            if target.name != export.iqn:
                raise ExportFailed(export.iqn, "target", f"id {export.tid} is {target.name}'s")
        if found and _is_right(found[0], export):
            return self._repair(requests, found[0], export)
        if found:
            self._clear_the_way(requests, found[0], export)
        expect(requests.new_target(export.tid, export.iqn), export.iqn, "target")
        self._furnish(requests, export)
        return Change.CHANGED

    def _clear_the_way(self, requests: TgtRequests, target: ShownTarget, export: Export) -> None:
        """Remove a target that is wrong, which nobody may be using."""
        if target.sessions:
            detail = "its image, identity or id is another, and an initiator is logged in"
            raise ExportFailed(export.iqn, "replacement", detail)
        remove_target(requests, target, by_force=False)

    def _repair(self, requests: TgtRequests, target: ShownTarget, export: Export) -> Change:
        """Make initiators and credentials right; sessions that may stay are not touched."""
        change = Change.UNCHANGED
        present = set(target.initiators)
        for initiator in sorted(present - export.initiators):
            change |= expel(requests, export.iqn, export.tid, initiator)
        present &= export.initiators
        if not (has_accounts(target, export) and has_fingerprint(requests, export)):
            # Shut while the accounts are swapped; a target without one asks for no secret.
            for initiator in present:
                requests.refuse(export.tid, initiator)
            present.clear()
            with self._accounts(requests.deadline):
                swap_credentials(requests, target, export)
            change = Change.CHANGED
        for initiator in sorted(export.initiators - present):
            change |= admit(requests, export.iqn, export.tid, initiator)
        return change

    # -- what is known -------------------------------------------------------------------

    @property
    def _is_own(self) -> bool:
        return self._daemon.is_ours

    def _requests(self) -> TgtRequests:
        return TgtRequests(self._daemon.socket, Deadline.after(self._timeout_s))

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
        same = replace(made.export, initiators=export.initiators) == export
        return same and made.daemon == daemon and self._is_own

    def _is_named(self, requests: TgtRequests, iqn: str, tid: int) -> bool:
        """Tell whether the target of that id has that name, without a look if we made it."""
        self._take_view(tid)
        made = self._made.get(tid)
        if made is not None and self._is_own:
            return made.export.iqn == iqn
        found = find_targets(show_text(requests), tid, iqn)
        return any(target.tid == tid and target.name == iqn for target in found)

    def _note_initiators(
        self,
        tid: int,
        *,
        plus: frozenset[Iqn] = frozenset(),
        minus: frozenset[Iqn] = frozenset(),
    ) -> None:
        made = self._made.get(tid)
        if made is not None:
            initiators = (made.export.initiators | plus) - minus
            export = replace(made.export, initiators=initiators)
            self._made[tid] = replace(made, export=export)


def _is_right(target: ShownTarget, export: Export) -> bool:
    return (target.tid, target.name) == (export.tid, export.iqn) and has_the_unit(target, export)
