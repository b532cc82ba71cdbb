"""How long a session that lost its portal keeps I/O waiting, where several disks share it.

A disk in a map need not wait: the map has other paths, and does the waiting where it has none.
A disk by itself has nothing else, so it waits as the host is configured to. The kernel knows one
time for a session (``recovery_tmo``), which is the longest that any disk on it needs.
"""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from typing import Final

from lunport.core.scsi_address import ScsiAddress

UNCONFIGURED_S: Final = 120  # open-iscsi's own (DEF_REPLACEMENT_TIMEO, usr/initiator.h)
_SETTING: Final = "node.session.timeo.replacement_timeout"


def needed_patience_s(
    disks: Iterable[ScsiAddress], in_maps: Mapping[ScsiAddress, int], plain_s: int | None
) -> int | None:
    """Return the longest time that a disk of a session needs; None is without an end.

    ``in_maps``: what the disks need that are in maps; any other one needs ``plain_s``, and so
    does a session without a disk.
    """
    needs = [in_maps.get(disk, plain_s) for disk in disks] or [plain_s]
    return None if None in needs else max(need for need in needs if need is not None)


def configured_patience_s(*settings: Mapping[str, str]) -> int | None:
    """Return what the first of these settings says that says something; None is without an end."""
    for one in settings:
        text = one.get(_SETTING, "")
        if text.isascii() and text.removeprefix("-").isdigit() and len(text) < 10:
            return None if text.startswith("-") else int(text)
    return UNCONFIGURED_S
