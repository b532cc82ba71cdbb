"""The accounts of a tgt target: made, bound, swapped, compared, swept.

Source: tgt 1.0.85, ``usr/target.c``.

Quirk(tgt): account names are global to the daemon, and a target without an account asks
nobody for a secret.
Quirk(tgt): a secret cannot be read back. A fingerprint of the credentials is kept in the
target's ``nop_count``, which does nothing while ``nop_interval`` is 0, so that a later
service can tell whether they are still those wanted without disturbing anybody.
"""

from __future__ import annotations

import hashlib
from collections.abc import Iterable

from lunport.core.chap import Chap, ChapCredentials
from lunport.core.errors import ExportFailed
from lunport.host.tgt_requests import TgtRequests
from lunport.host.tgt_show import ShownTarget, parse_accounts, parse_settings
from lunport.host.tgt_socket import Direction, TgtStatus
from lunport.targets.helper import Export
from lunport.targets.tgt_target import OneTarget, expect, show_all

_FINGERPRINT = "nop_count"


def chap_of(export: Export) -> Chap | None:
    """Return the credentials of all its initiators; None when there are none."""
    return export.admissions[0].chap if export.admissions else None


def users_of(chap: Chap | None) -> tuple[str, ...]:
    """Name the accounts that credentials need."""
    if chap is None:
        return ()
    mutual = () if chap.mutual is None else (chap.mutual.username,)
    return (chap.initiator.username, *mutual)


def bound_users(target: ShownTarget) -> tuple[str, ...]:
    """Name a target's accounts, both directions."""
    return target.accounts if target.outgoing is None else (*target.accounts, target.outgoing)


def add_credentials(target: OneTarget, chap: Chap | None, made: list[str]) -> None:
    """Make and bind the accounts, then note their fingerprint; ``made`` grows as they do."""
    if chap is None:
        return
    _add_account(target, chap.initiator, Direction.INCOMING, made)
    if chap.mutual is not None:
        _add_account(target, chap.mutual, Direction.OUTGOING, made)
    answer = target.requests.set_target(target.tid, _FINGERPRINT, _fingerprint(chap))
    target.expect(answer, "fingerprint")


def swap_credentials(target: OneTarget, users: Iterable[str], chap: Chap | None) -> None:
    """Replace its accounts, which are ``users``, by those that the credentials need.

    Precondition: nobody is admitted, so the target stays shut meanwhile.
    """
    answer = target.requests.set_target(target.tid, _FINGERPRINT, 0)
    target.expect(answer, "fingerprint")
    delete_accounts(target.requests, target.iqn, users)
    add_credentials(target, chap, [])


def has_accounts(target: ShownTarget, chap: Chap | None) -> bool:
    """Tell whether the accounts that shall be bound are, and no other."""
    mutual = chap.mutual if chap else None
    incoming = (chap.initiator.username,) if chap else ()
    return (target.accounts, target.outgoing) == (incoming, mutual.username if mutual else None)


def has_fingerprint(target: OneTarget, chap: Chap | None) -> bool:
    """Tell whether the credentials that were applied last are those wanted."""
    if chap is None:
        return True
    answer = target.requests.show_settings(target.tid)
    target.expect(answer, "look")
    return parse_settings(answer.text).get(_FINGERPRINT) == str(_fingerprint(chap))


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


def _add_account(
    target: OneTarget, credentials: ChapCredentials, direction: Direction, made: list[str]
) -> None:
    answer = target.requests.new_account(credentials)
    if answer.status is TgtStatus.USER_EXISTS:
        _free_account(target, credentials.username)
        answer = target.requests.new_account(credentials)
    target.expect(answer, "account")
    made.append(credentials.username)
    answer = target.requests.bind_account(target.tid, credentials.username, direction)
    target.expect(answer, "account binding")


def _free_account(target: OneTarget, user: str) -> None:
    """Delete a leftover account, unless another target demands it: names are global."""
    for other in show_all(target.requests):
        if user in bound_users(other) and other.tid != target.tid:
            raise ExportFailed(target.iqn, "account", f"its user name is {other.name}'s")
    delete_accounts(target.requests, target.iqn, [user])


def _fingerprint(chap: Chap) -> int:
    """Make a positive 31-bit number of the credentials: what fits into the daemon's int."""
    digest = hashlib.blake2s(person=b"lunportc")
    for one in (chap.initiator, chap.mutual):
        for text in (one.username, one.password.reveal()) if one else ("", ""):
            digest.update(len(text.encode()).to_bytes(4, "big") + text.encode())
    return int.from_bytes(digest.digest()[:4], "big") >> 1 | 1
