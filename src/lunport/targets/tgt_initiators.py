"""Who may log in to a tgt target, who is, and how the whole target is taken away.

Source: tgt 1.0.85, ``usr/target.c``, ``usr/iscsi/target.c``.
"""

from __future__ import annotations

import threading
from collections.abc import Iterable

from lunport.core.change import Change
from lunport.core.errors import ExportFailed
from lunport.host.tgt_show import ShownTarget, parse_connections
from lunport.host.tgt_socket import TgtStatus
from lunport.targets.tgt_accounts import bound_users, delete_accounts
from lunport.targets.tgt_target import OneTarget

_LOOK_S = 0.005
_pause = threading.Event()


def admit(target: OneTarget, initiator: str) -> Change:
    """Let an initiator log in."""
    answer = target.requests.admit(target.tid, initiator)
    did = target.expect(answer, "initiator", TgtStatus.ACL_EXISTS)
    return Change.CHANGED if did else Change.UNCHANGED


def shut_out(target: OneTarget, initiators: Iterable[str]) -> None:
    """Refuse initiators from now on; their sessions stay. Raises: ExportFailed."""
    for initiator in initiators:
        answer = target.requests.refuse(target.tid, initiator)
        target.expect(answer, "initiator", TgtStatus.NO_ACL)


def expel(target: OneTarget, initiator: str) -> Change:
    """Refuse an initiator and drop its sessions."""
    answer = target.requests.refuse(target.tid, initiator)
    if answer.status is TgtStatus.NO_TARGET:
        return Change.UNCHANGED
    did = target.expect(answer, "initiator", TgtStatus.NO_ACL)
    removed = Change.CHANGED if did else Change.UNCHANGED
    return removed | drop_sessions(target, initiator)


def drop_sessions(target: OneTarget, initiator: str | None) -> Change:
    """Close an initiator's connections, or all, and wait until they are gone."""
    left = connections(target, initiator)
    change = Change.CHANGED if left else Change.UNCHANGED
    while left:
        if target.requests.deadline.has_passed():
            raise ExportFailed(target.iqn, "sessions", f"{len(left)} did not end in time")
        for sid, cid in left:
            target.requests.close_connection(target.tid, sid, cid)
        _pause.wait(_LOOK_S)
        left = connections(target, initiator)
    return change


def connections(target: OneTarget, initiator: str | None = None) -> list[tuple[int, int]]:
    """List an initiator's connections, or all, by the numbers that close them."""
    answer = target.requests.show_connections(target.tid)
    target.expect(answer, "sessions", TgtStatus.NO_TARGET)
    shown = parse_connections(answer.text)
    return [(one.sid, one.cid) for one in shown if initiator in (None, one.initiator)]


def remove_target(target: OneTarget, shown: ShownTarget, *, by_force: bool = True) -> None:
    """Shut a target, drop its sessions (only by force), delete it, then its accounts."""
    requests = target.requests
    for initiator in shown.initiators:
        requests.refuse(target.tid, initiator)
    if by_force:
        drop_sessions(target, None)
    answer = requests.delete_target(target.tid, by_force=by_force)
    while answer.status is TgtStatus.LUN_ACTIVE and not requests.deadline.has_passed():
        _pause.wait(_LOOK_S)
        answer = requests.delete_target(target.tid, by_force=by_force)
    target.expect(answer, "target", TgtStatus.NO_TARGET)
    delete_accounts(requests, target.iqn, bound_users(shown))
