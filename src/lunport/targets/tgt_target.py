"""Steps on one tgt target, each made of requests: its unit, accounts, initiators, sessions.

What order they come in, and what is undone when one fails, is decided in ``targets/tgt.py``.

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
from collections.abc import Iterable

from lunport.core.change import Change
from lunport.core.chap import Chap, ChapCredentials
from lunport.core.errors import ExportFailed, InvalidInput, InvalidIqn, InvalidLun
from lunport.host.tgt_requests import TgtRequests
from lunport.host.tgt_show import (
    ShownTarget,
    parse_accounts,
    parse_connections,
    parse_settings,
    parse_targets,
)
from lunport.host.tgt_socket import Answer, Direction, TgtStatus
from lunport.targets.helper import Export

MAX_LUN = 255
VENDOR = "LUNPORT"
PRODUCT = "VOLUME"
_OK = TgtStatus.SUCCESS
_FINGERPRINT = "nop_count"
_TARGET_NAME = re.compile(r"[A-Za-z0-9:.-]+")
_INITIATOR_NAME = re.compile(r"[^\s,=\x00]+")
_WWID = re.compile(r"naa\.6[0-9a-f]{31}")
_LOOK_S = 0.005
_pause = threading.Event()


def expect(answer: Answer, target: str, step: str, *accepted: TgtStatus) -> bool:
    """Tell whether the step did something; an accepted status says that it was done before.

    Raises: ExportFailed.
    """
    if answer.status is _OK:
        return True
    if answer.status in accepted:
        return False
    raise ExportFailed(target, step, answer.sentence)


# -- checks before anything is done --------------------------------------------------------


def check_export(export: Export) -> None:
    """Refuse what tgtd would misread. Raises: InvalidInput."""
    if not 1 <= export.lun <= MAX_LUN:
        # Quirk(tgt): only one byte of a flat LUN is read: 257 would reach LUN 1.
        raise InvalidLun("LUN", export.lun, f"tgtd offers 1 to {MAX_LUN}")
    if not 1 <= export.tid < 2**31:
        raise InvalidInput("target id", export.tid, "expected a positive 31-bit number")
    if not _TARGET_NAME.fullmatch(export.iqn):
        raise InvalidIqn("target name", export.iqn, "tgtd takes letters, digits, : . and -")
    if not _WWID.fullmatch(export.identity.wwid):
        raise InvalidInput("identity", export.identity.wwid, "expected naa.6 and 31 hex digits")
    users = users_of(export.chap)
    if len(set(users)) != len(users):
        raise InvalidInput("mutual username", users[0], "it must differ from the initiator's")
    for initiator in export.initiators:
        check_initiator(initiator)


def check_initiator(initiator: str) -> None:
    """Refuse a name that tgtd would take for something else. Raises: InvalidIqn."""
    if not _INITIATOR_NAME.fullmatch(initiator) or initiator == "ALL":
        raise InvalidIqn("initiator", initiator, "tgtd cannot tell spaces, commas or = apart")


# -- the logical unit ----------------------------------------------------------------------


def add_unit(requests: TgtRequests, export: Export) -> bool:
    """Put the image behind the LUN and give it its identity; False when a unit was there."""
    answer = requests.new_unit(export.tid, export.lun, export.path)
    if answer.status is TgtStatus.INVALID_REQUEST:
        why = "tgtd cannot open it" if export.path.exists() else "it is gone"
        raise ExportFailed(export.iqn, "logical unit", f"{export.path}: {why}")
    if not expect(answer, export.iqn, "logical unit", TgtStatus.LUN_EXISTS):
        return False
    answer = requests.set_unit(
        export.tid,
        export.lun,
        scsi_id=_scsi_id(export),
        scsi_sn=export.identity.serial,
        vendor_id=VENDOR,
        product_id=PRODUCT,
        thin_provisioning=1,
    )
    return expect(answer, export.iqn, "identity")


def has_the_unit(target: ShownTarget, export: Export) -> bool:
    """Tell whether the target shows the one unit it shall, with its identity."""
    return [(lun.lun, lun.path, lun.scsi_id, lun.serial, lun.is_thin) for lun in target.luns] == [
        (export.lun, export.path, _scsi_id(export), export.identity.serial, True)
    ]


def _scsi_id(export: Export) -> str:
    # tgtd reads it as hexadecimal and keeps the last 31 digits behind the 6.
    return export.identity.wwid.removeprefix("naa.")


# -- accounts ------------------------------------------------------------------------------


def add_credentials(requests: TgtRequests, export: Export, made: list[str]) -> None:
    """Make and bind the accounts, then note their fingerprint; ``made`` grows as they do."""
    if export.chap is None:
        return
    _add_account(requests, export, export.chap.initiator, Direction.INCOMING, made)
    if export.chap.mutual is not None:
        _add_account(requests, export, export.chap.mutual, Direction.OUTGOING, made)
    answer = requests.set_target(export.tid, _FINGERPRINT, _fingerprint(export.chap))
    expect(answer, export.iqn, "fingerprint")


def swap_credentials(requests: TgtRequests, target: ShownTarget, export: Export) -> None:
    """Replace the accounts. Precondition: nobody is admitted, so it stays shut meanwhile."""
    expect(requests.set_target(export.tid, _FINGERPRINT, 0), export.iqn, "fingerprint")
    delete_accounts(requests, export.iqn, bound_users(target))
    add_credentials(requests, export, [])


def has_accounts(target: ShownTarget, export: Export) -> bool:
    """Tell whether the accounts that shall be bound are, and no other."""
    mutual = export.chap.mutual if export.chap else None
    incoming = (export.chap.initiator.username,) if export.chap else ()
    return (target.accounts, target.outgoing) == (incoming, mutual.username if mutual else None)


def has_fingerprint(requests: TgtRequests, export: Export) -> bool:
    """Tell whether the credentials that were applied last are those wanted."""
    if export.chap is None:
        return True
    answer = requests.show_settings(export.tid)
    expect(answer, export.iqn, "look")
    return parse_settings(answer.text).get(_FINGERPRINT) == str(_fingerprint(export.chap))


def delete_accounts(requests: TgtRequests, iqn: str, users: Iterable[str]) -> None:
    """Delete accounts, which unbinds them as well."""
    for user in users:
        expect(requests.delete_account(user), iqn, "account", TgtStatus.NO_USER)


def sweep_accounts(requests: TgtRequests) -> None:
    """Delete accounts that a killed service left bound to no target."""
    accounts = parse_accounts(requests.show_accounts().text)
    if accounts:
        bound = {user for target in show_all(requests) for user in bound_users(target)}
        delete_accounts(requests, "no target", sorted(set(accounts) - bound))


def bound_users(target: ShownTarget) -> tuple[str, ...]:
    """Name a target's accounts, both directions."""
    return target.accounts if target.outgoing is None else (*target.accounts, target.outgoing)


def users_of(chap: Chap | None) -> tuple[str, ...]:
    """Name the accounts that credentials need."""
    if chap is None:
        return ()
    mutual = () if chap.mutual is None else (chap.mutual.username,)
    return (chap.initiator.username, *mutual)


def _add_account(
    requests: TgtRequests,
    export: Export,
    credentials: ChapCredentials,
    direction: Direction,
    made: list[str],
) -> None:
    answer = requests.new_account(credentials)
    if answer.status is TgtStatus.USER_EXISTS:
        _free_account(requests, export, credentials.username)
        answer = requests.new_account(credentials)
    expect(answer, export.iqn, "account")
    made.append(credentials.username)
    answer = requests.bind_account(export.tid, credentials.username, direction)
    expect(answer, export.iqn, "account binding")


def _free_account(requests: TgtRequests, export: Export, user: str) -> None:
    """Delete a leftover account, unless another target demands it: names are global."""
    for target in show_all(requests):
        if user in bound_users(target) and target.tid != export.tid:
            raise ExportFailed(export.iqn, "account", f"its user name is {target.name}'s")
    delete_accounts(requests, export.iqn, [user])


def _fingerprint(chap: Chap) -> int:
    """Make a positive 31-bit number of the credentials: what fits into the daemon's int."""
    digest = hashlib.blake2s(person=b"lunportc")
    for one in (chap.initiator, chap.mutual):
        for text in (one.username, one.password.reveal()) if one else ("", ""):
            digest.update(len(text.encode()).to_bytes(4, "big") + text.encode())
    return int.from_bytes(digest.digest()[:4], "big") >> 1 | 1


# -- initiators and sessions ---------------------------------------------------------------


def admit(requests: TgtRequests, iqn: str, tid: int, initiator: str) -> Change:
    """Let an initiator log in."""
    answer = requests.admit(tid, initiator)
    did = expect(answer, iqn, "initiator", TgtStatus.ACL_EXISTS)
    return Change.CHANGED if did else Change.UNCHANGED


def expel(requests: TgtRequests, iqn: str, tid: int, initiator: str) -> Change:
    """Refuse an initiator and drop its sessions."""
    answer = requests.refuse(tid, initiator)
    if answer.status is TgtStatus.NO_TARGET:
        return Change.UNCHANGED
    did = expect(answer, iqn, "initiator", TgtStatus.NO_ACL)
    removed = Change.CHANGED if did else Change.UNCHANGED
    return removed | drop_sessions(requests, iqn, tid, initiator)


def drop_sessions(requests: TgtRequests, iqn: str, tid: int, initiator: str | None) -> Change:
    """Close an initiator's connections, or all, and wait until they are gone."""
    left = _connections(requests, iqn, tid, initiator)
    change = Change.CHANGED if left else Change.UNCHANGED
    while left:
        if requests.deadline.has_passed():
            raise ExportFailed(iqn, "sessions", f"{len(left)} did not end in time")
        for sid, cid in left:
            requests.close_connection(tid, sid, cid)
        _pause.wait(_LOOK_S)
        left = _connections(requests, iqn, tid, initiator)
    return change


def _connections(
    requests: TgtRequests, iqn: str, tid: int, initiator: str | None
) -> list[tuple[int, int]]:
    answer = requests.show_connections(tid)
    expect(answer, iqn, "sessions", TgtStatus.NO_TARGET)
    shown = parse_connections(answer.text)
    return [(one.sid, one.cid) for one in shown if initiator in (None, one.initiator)]


# -- the target ----------------------------------------------------------------------------


def remove_target(requests: TgtRequests, target: ShownTarget, *, by_force: bool = True) -> None:
    """Shut a target, drop its sessions (only by force), delete it, then its accounts."""
    for initiator in target.initiators:
        requests.refuse(target.tid, initiator)
    if by_force:
        drop_sessions(requests, target.name, target.tid, None)
    answer = requests.delete_target(target.tid, by_force=by_force)
    while answer.status is TgtStatus.LUN_ACTIVE and not requests.deadline.has_passed():
        _pause.wait(_LOOK_S)
        answer = requests.delete_target(target.tid, by_force=by_force)
    expect(answer, target.name, "target", TgtStatus.NO_TARGET)
    delete_accounts(requests, target.name, bound_users(target))


def show_all(requests: TgtRequests) -> tuple[ShownTarget, ...]:
    """Look at every target."""
    return parse_targets(show_text(requests))


def show_text(requests: TgtRequests) -> str:
    """Return the daemon's description of every target, unparsed."""
    answer = requests.show_targets()
    expect(answer, "the targets", "look")
    return answer.text
