"""Names of the locks that everybody who connects volumes on this host shares.

``volume-`` and ``unit-``: one volume, one LUN of one target; held alone by whoever works on
it. ``use-`` and ``login-``: one target through one portal, see ``initiator/sessions.py``.
"""

from __future__ import annotations

from collections.abc import Iterable
from hashlib import blake2s

from lunport.core.iqn import Iqn, fold_iqn
from lunport.core.portal import Portal
from lunport.core.target_path import TargetPath


def work_locks(key: str, paths: Iterable[TargetPath]) -> frozenset[str]:
    """Name what to hold while working on a volume: itself, and each unit it may be at."""
    units = {f"unit-{_digest(f'{fold_iqn(path.iqn)} {path.lun}')}" for path in paths}
    return frozenset({f"volume-{_digest(key)}", *units})


def use_lock(portal: Portal, iqn: Iqn) -> str:
    """Name the lock of those who need a session to that target through that portal."""
    return f"use-{_digest(f'{portal} {fold_iqn(iqn)}')}"


def login_lock(portal: Portal, iqn: Iqn) -> str:
    """Name the lock of whoever logs in to or out of that target through that portal."""
    return f"login-{_digest(f'{portal} {fold_iqn(iqn)}')}"


def attachment_lock(volume_id: str) -> str:
    """Name the lock of whoever attaches a volume here or takes it away, service and all."""
    return f"attachment-{volume_id}"


def guest_lock(guest_id: str) -> str:
    """Name the lock of whoever changes a guest's disks here, or moves it."""
    return f"guest-{guest_id}"


def _digest(text: str) -> str:
    return blake2s(text.encode(), digest_size=12).hexdigest()
