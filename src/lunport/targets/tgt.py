"""Offer images through tgtd: one target a volume, one logical unit behind it.

Everything is done by requests on the management socket, six or seven for an export. A new
target is simply made; only when tgtd says that it is there already is it looked at and
repaired object by object. The order keeps a half-made target shut: initiators are admitted
last and taken away first, because tgtd asks nobody for a secret while a target has no
account.

Concurrent verbs on different targets are fine; those on one target are the caller's to keep
apart.

Source: tgt 1.0.85, ``usr/target.c``, ``usr/spc.c``, ``usr/iscsi/target.c``.

Quirk(tgt): an initiator name is searched for ``initiator-address=`` (``usr/mgmt.c``), so a
name holding that text could admit every address: ``=`` is refused.
Quirk(tgt): a secret cannot be read back. A fingerprint of the credentials is kept in the
target's ``nop_count``, which does nothing while ``nop_interval`` is 0, so that a later
service can tell whether they are still those wanted without disturbing anybody.
"""

from __future__ import annotations

import hashlib
import re
import threading
from collections.abc import Iterable, Sequence
from dataclasses import dataclass

from lunport.core.change import Change
from lunport.core.chap import Chap, ChapCredentials
from lunport.core.errors import (
    ExportFailed,
    InvalidInput,
    InvalidIqn,
    InvalidLun,
    LunportError,
    TargetDaemonDown,
    UndoFailed,
)
from lunport.core.iqn import Iqn
from lunport.core.portal import Portal
from lunport.host.clock import Deadline
from lunport.host.tgt_requests import TgtRequests
from lunport.host.tgt_show import (
    ShownTarget,
    find_targets,
    parse_accounts,
    parse_connections,
    parse_settings,
    parse_targets,
)
from lunport.host.tgt_socket import Answer, Direction, TgtStatus
from lunport.host.tgtd import TgtDaemon
from lunport.targets.helper import Export, SeenExport

MAX_LUN = 255
VENDOR = "LUNPORT"
PRODUCT = "VOLUME"
_FINGERPRINT = "nop_count"
_TARGET_NAME = re.compile(r"[A-Za-z0-9:.-]+")
_INITIATOR_NAME = re.compile(r"[^\s,=\x00]+")
_TIMEOUT_S = 10.0
_LOOK_S = 0.005
_OK = TgtStatus.SUCCESS


@dataclass(frozen=True, slots=True)
class _Known:
    """What this process has made of a target, so that taking it away needs no look."""

    name: str
    users: tuple[str, ...]


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
        self._known: dict[int, _Known] = {}
        self._pause = threading.Event()

    @property
    def portals(self) -> Sequence[Portal]:
        """The configured portals, in configuration order."""
        return self._daemon.portals

    # -- the daemon ----------------------------------------------------------------------

    def start(self) -> Change:
        """Bring the daemon up with exactly the configured portals bound."""
        change = self._daemon.start(Deadline.after(self._timeout_s))
        self._known.clear()
        if self._daemon.is_ours:
            self._sweep_accounts(self._requests())
        return change

    def is_alive(self) -> bool:
        """Tell whether the daemon answers now."""
        return self._daemon.is_alive(Deadline.after(self._timeout_s))

    def wait_for_exit(self, deadline: Deadline) -> bool:
        """Wait for the daemon's end; tell whether it has ended."""
        return self._daemon.wait_for_exit(deadline)

    def stop(self) -> Change:
        """Take every target of ours away and end the daemon, if it is ours."""
        requests = self._requests()
        change = Change.UNCHANGED
        if self._daemon.is_alive(requests.deadline):
            for target in self._show(requests):
                self._remove(requests, target)
                change = Change.CHANGED
        self._known.clear()
        return change | self._daemon.stop(Deadline.after(self._timeout_s))

    # -- exports -------------------------------------------------------------------------

    def export(self, export: Export) -> Change:
        """Make the target exist exactly so; see :meth:`TargetHelper.export`."""
        _check(export)
        requests = self._requests()
        if self._create(requests, export):
            return Change.CHANGED
        found = self._look(requests, export.tid, export.iqn)
        for target in found:
            if target.name != export.iqn:
                raise ExportFailed(export.iqn, "target", f"id {export.tid} is {target.name}'s")
        if not found:
            raise ExportFailed(export.iqn, "target", "its id or name was in use a moment ago")
        if found[0].tid != export.tid or not _has_the_unit(found[0], export):
            return self._replace(requests, found[0], export)
        change = self._repair(requests, found[0], export)
        self._known[export.tid] = _Known(export.iqn, _users(export.chap))
        return change

    def unexport(self, iqn: Iqn, tid: int) -> Change:
        """Take the target away, sessions and credentials included."""
        requests = self._requests()
        known = self._known.pop(tid, None)
        if known is not None and known.name == iqn and self._daemon.is_ours:
            answer = requests.delete_target(tid, by_force=False)
            if answer.status is _OK:
                _delete_accounts(requests, iqn, known.users)
                return Change.CHANGED
        for target in self._look(requests, tid, iqn):
            if target.name == iqn:
                self._remove(requests, target)
                return Change.CHANGED
        return Change.UNCHANGED

    def allow(self, iqn: Iqn, tid: int, initiator: Iqn) -> Change:
        """Let one more initiator log in."""
        _check_initiator(initiator)
        requests = self._requests()
        if not self._is_named(requests, iqn, tid):
            raise ExportFailed(iqn, "initiator", "there is no such target")
        return _admit(requests, iqn, tid, initiator)

    def disallow(self, iqn: Iqn, tid: int, initiator: Iqn) -> Change:
        """Refuse an initiator from now on, and drop its sessions."""
        _check_initiator(initiator)
        requests = self._requests()
        if not self._is_named(requests, iqn, tid):
            return Change.UNCHANGED
        return self._expel(requests, iqn, tid, initiator)

    def exports(self) -> tuple[SeenExport, ...]:
        """List what the daemon shows now."""
        return tuple(
            SeenExport(
                iqn=Iqn(target.name),
                tid=target.tid,
                path=next((lun.path for lun in target.luns), None),
                initiators=frozenset(Iqn(name) for name in target.initiators),
                sessions=target.sessions,
            )
            for target in self._show(self._requests())
        )

    # -- making --------------------------------------------------------------------------

    def _create(self, requests: TgtRequests, export: Export) -> bool:
        """Make the target anew, or nothing; False when its id or name is in use."""
        answer = requests.new_target(export.tid, export.iqn)
        if answer.status is TgtStatus.TARGET_EXISTS:
            return False
        _expect(answer, export.iqn, "target")
        made: list[str] = []
        try:
            _add_unit(requests, export)
            self._add_credentials(requests, export, made)
            for initiator in sorted(export.initiators):
                _admit(requests, export.iqn, export.tid, initiator)
        except TargetDaemonDown:
            raise  # What it held died with it, or is found by the next look at it.
        except LunportError as cause:
            try:
                answer = requests.delete_target(export.tid, by_force=True)
                _expect(answer, export.iqn, "undo", TgtStatus.NO_TARGET)
                _delete_accounts(requests, export.iqn, made)
            except LunportError as failure:
                raise UndoFailed(cause, [failure]) from cause
            raise
        self._known[export.tid] = _Known(export.iqn, tuple(made))
        return True

    def _add_credentials(self, requests: TgtRequests, export: Export, made: list[str]) -> None:
        """Make and bind the accounts, then note their fingerprint; ``made`` grows as they do."""
        if export.chap is None:
            return
        incoming, outgoing = export.chap.initiator, export.chap.mutual
        self._add_account(requests, export, incoming, Direction.INCOMING, made)
        if outgoing is not None:
            self._add_account(requests, export, outgoing, Direction.OUTGOING, made)
        answer = requests.set_target(export.tid, _FINGERPRINT, _fingerprint(export.chap))
        _expect(answer, export.iqn, "fingerprint")

    def _add_account(
        self,
        requests: TgtRequests,
        export: Export,
        credentials: ChapCredentials,
        direction: Direction,
        made: list[str],
    ) -> None:
        answer = requests.new_account(credentials)
        if answer.status is TgtStatus.USER_EXISTS:
            self._free_account(requests, export, credentials.username)
            answer = requests.new_account(credentials)
        _expect(answer, export.iqn, "account")
        made.append(credentials.username)
        answer = requests.bind_account(export.tid, credentials.username, direction)
        _expect(answer, export.iqn, "account binding")

    def _free_account(self, requests: TgtRequests, export: Export, user: str) -> None:
        """Delete a leftover account, unless another target demands it: names are global."""
        for target in parse_targets(_show_text(requests)):
            if user in _bound_users(target) and target.tid != export.tid:
                raise ExportFailed(export.iqn, "account", f"its user name is {target.name}'s")
        _delete_accounts(requests, export.iqn, [user])

    # -- repairing -----------------------------------------------------------------------

    def _replace(self, requests: TgtRequests, target: ShownTarget, export: Export) -> Change:
        """Make a wrong target anew, which nobody may be using."""
        if target.sessions:
            detail = "its image, identity or id is another, and an initiator is logged in"
            raise ExportFailed(export.iqn, "replacement", detail)
        self._remove(requests, target, by_force=False)
        if not self._create(requests, export):
            raise ExportFailed(export.iqn, "replacement", f"id {export.tid} is in use")
        return Change.CHANGED

    def _repair(self, requests: TgtRequests, target: ShownTarget, export: Export) -> Change:
        """Make initiators and credentials right; sessions that may stay are not touched."""
        change = Change.UNCHANGED
        present = set(target.initiators)
        for initiator in sorted(present - export.initiators):
            change |= self._expel(requests, export.iqn, export.tid, initiator)
        present &= export.initiators
        if not _has_credentials(requests, target, export):
            # Shut while the accounts are swapped; a target without one asks for no secret.
            for initiator in present:
                _expect(requests.refuse(export.tid, initiator), export.iqn, "initiator")
            present.clear()
            _expect(requests.set_target(export.tid, _FINGERPRINT, 0), export.iqn, "fingerprint")
            _delete_accounts(requests, export.iqn, _bound_users(target))
            self._add_credentials(requests, export, [])
            change = Change.CHANGED
        for initiator in sorted(export.initiators - present):
            change |= _admit(requests, export.iqn, export.tid, initiator)
        return change

    # -- taking away ---------------------------------------------------------------------

    def _remove(self, requests: TgtRequests, target: ShownTarget, *, by_force: bool = True) -> None:
        """Take a target away: shut it, drop its sessions, delete it, then its accounts."""
        self._known.pop(target.tid, None)
        for initiator in target.initiators:
            requests.refuse(target.tid, initiator)
        if by_force:
            self._drop_sessions(requests, target.name, target.tid, None)
        answer = requests.delete_target(target.tid, by_force=by_force)
        while answer.status is TgtStatus.LUN_ACTIVE and not requests.deadline.has_passed():
            self._pause.wait(_LOOK_S)
            answer = requests.delete_target(target.tid, by_force=by_force)
        _expect(answer, target.name, "target", TgtStatus.NO_TARGET)
        _delete_accounts(requests, target.name, _bound_users(target))

    def _expel(self, requests: TgtRequests, iqn: str, tid: int, initiator: str) -> Change:
        answer = requests.refuse(tid, initiator)
        if answer.status is TgtStatus.NO_TARGET:
            return Change.UNCHANGED
        _expect(answer, iqn, "initiator", TgtStatus.NO_ACL)
        removed = Change.CHANGED if answer.status is _OK else Change.UNCHANGED
        return removed | self._drop_sessions(requests, iqn, tid, initiator)

    def _drop_sessions(
        self, requests: TgtRequests, iqn: str, tid: int, initiator: str | None
    ) -> Change:
        """Close an initiator's connections, or all, and wait until they are gone."""
        left = _connections(requests, iqn, tid, initiator)
        change = Change.CHANGED if left else Change.UNCHANGED
        while left:
            if requests.deadline.has_passed():
                raise ExportFailed(iqn, "sessions", f"{len(left)} did not end in time")
            for sid, cid in left:
                requests.close_connection(tid, sid, cid)
            self._pause.wait(_LOOK_S)
            left = _connections(requests, iqn, tid, initiator)
        return change

    def _sweep_accounts(self, requests: TgtRequests) -> None:
        """Delete accounts that a killed service left bound to no target."""
        accounts = parse_accounts(requests.show_accounts().text)
        if accounts:
            targets = parse_targets(_show_text(requests))
            bound = {user for target in targets for user in _bound_users(target)}
            _delete_accounts(requests, "no target", sorted(set(accounts) - bound))

    # -- looking -------------------------------------------------------------------------

    def _requests(self) -> TgtRequests:
        return TgtRequests(self._daemon.socket, Deadline.after(self._timeout_s))

    def _show(self, requests: TgtRequests) -> tuple[ShownTarget, ...]:
        targets = parse_targets(_show_text(requests))
        return tuple(target for target in targets if target.name.startswith(self._prefix))

    def _look(self, requests: TgtRequests, tid: int, iqn: str) -> tuple[ShownTarget, ...]:
        return find_targets(_show_text(requests), tid, iqn)

    def _is_named(self, requests: TgtRequests, iqn: str, tid: int) -> bool:
        """Tell whether the target of that id has that name, without a look if we made it."""
        known = self._known.get(tid)
        if known is not None and self._daemon.is_ours:
            return known.name == iqn
        found = self._look(requests, tid, iqn)
        return any(target.tid == tid and target.name == iqn for target in found)


def _add_unit(requests: TgtRequests, export: Export) -> None:
    answer = requests.new_unit(export.tid, export.lun, export.path)
    if answer.status is TgtStatus.INVALID_REQUEST:
        why = "tgtd cannot open it" if export.path.exists() else "it is gone"
        raise ExportFailed(export.iqn, "logical unit", f"{export.path}: {why}")
    _expect(answer, export.iqn, "logical unit")
    answer = requests.set_unit(
        export.tid,
        export.lun,
        scsi_id=_scsi_id(export),
        scsi_sn=export.identity.serial,
        vendor_id=VENDOR,
        product_id=PRODUCT,
        thin_provisioning=1,
    )
    _expect(answer, export.iqn, "identity")


def _admit(requests: TgtRequests, iqn: str, tid: int, initiator: str) -> Change:
    answer = requests.admit(tid, initiator)
    _expect(answer, iqn, "initiator", TgtStatus.ACL_EXISTS)
    return Change.CHANGED if answer.status is _OK else Change.UNCHANGED


def _delete_accounts(requests: TgtRequests, iqn: str, users: Iterable[str]) -> None:
    for user in users:
        _expect(requests.delete_account(user), iqn, "account", TgtStatus.NO_USER)


def _connections(
    requests: TgtRequests, iqn: str, tid: int, initiator: str | None
) -> list[tuple[int, int]]:
    answer = requests.show_connections(tid)
    _expect(answer, iqn, "sessions", TgtStatus.NO_TARGET)
    shown = parse_connections(answer.text)
    return [(one.sid, one.cid) for one in shown if initiator in (None, one.initiator)]


def _show_text(requests: TgtRequests) -> str:
    answer = requests.show_targets()
    _expect(answer, "the targets", "look")
    return answer.text


def _has_the_unit(target: ShownTarget, export: Export) -> bool:
    """Tell whether the target shows the one unit it shall, with its identity."""
    return [(lun.lun, lun.path, lun.scsi_id, lun.serial, lun.is_thin) for lun in target.luns] == [
        (export.lun, export.path, _scsi_id(export), export.identity.serial, True)
    ]


def _has_credentials(requests: TgtRequests, target: ShownTarget, export: Export) -> bool:
    mutual = export.chap.mutual if export.chap else None
    incoming = (export.chap.initiator.username,) if export.chap else ()
    outgoing = mutual.username if mutual else None
    if (target.accounts, target.outgoing) != (incoming, outgoing):
        return False
    if export.chap is None:
        return True
    answer = requests.show_settings(export.tid)
    _expect(answer, export.iqn, "look")
    return parse_settings(answer.text).get(_FINGERPRINT) == str(_fingerprint(export.chap))


def _bound_users(target: ShownTarget) -> tuple[str, ...]:
    return target.accounts if target.outgoing is None else (*target.accounts, target.outgoing)


def _users(chap: Chap | None) -> tuple[str, ...]:
    if chap is None:
        return ()
    mutual = () if chap.mutual is None else (chap.mutual.username,)
    return (chap.initiator.username, *mutual)


def _fingerprint(chap: Chap) -> int:
    """Make a positive 31-bit number of the credentials: what fits into the daemon's int."""
    digest = hashlib.blake2s(person=b"lunportc")
    for one in (chap.initiator, chap.mutual):
        for text in (one.username, one.password.reveal()) if one else ("", ""):
            digest.update(len(text).to_bytes(4, "big") + text.encode())
    return int.from_bytes(digest.digest()[:4], "big") >> 1 | 1


def _scsi_id(export: Export) -> str:
    return export.identity.wwid.removeprefix("naa.")


def _check(export: Export) -> None:
    """Refuse what tgtd would misread, before anything is done."""
    if not 1 <= export.lun <= MAX_LUN:
        # Quirk(tgt): only one byte of a flat LUN is read: 257 would reach LUN 1.
        raise InvalidLun("LUN", export.lun, f"tgtd offers 1 to {MAX_LUN}")
    if not 1 <= export.tid < 2**31:
        raise InvalidInput("target id", export.tid, "expected a positive 31-bit number")
    if not _TARGET_NAME.fullmatch(export.iqn):
        raise InvalidIqn("target name", export.iqn, "tgtd takes letters, digits, : . and -")
    if not re.fullmatch(r"naa\.6[0-9a-f]{31}", export.identity.wwid):
        raise InvalidInput("identity", export.identity.wwid, "expected naa.6 and 31 hex digits")
    if export.chap is not None and len(set(users := _users(export.chap))) != len(users):
        raise InvalidInput("mutual username", users[0], "it must differ from the initiator's")
    for initiator in export.initiators:
        _check_initiator(initiator)


def _check_initiator(initiator: str) -> None:
    if not _INITIATOR_NAME.fullmatch(initiator) or initiator == "ALL":
        raise InvalidIqn("initiator", initiator, "tgtd cannot tell spaces, commas or = apart")


def _expect(answer: Answer, target: str, step: str, *accepted: TgtStatus) -> None:
    if answer.status is not _OK and answer.status not in accepted:
        raise ExportFailed(target, step, answer.sentence)
