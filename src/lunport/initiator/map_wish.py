"""Decide whether a volume gets a map, over how many paths at once, and what is said if not.

A volume whose paths are alternatives has one data path: they are never used at once. It may ride
on a map of one path, which moves, as long as somebody lives on to move it.
"""

from __future__ import annotations

from collections.abc import Iterable
from dataclasses import replace

from lunport.core.connection_info import ConnectionInfo
from lunport.core.errors import MultipathDown
from lunport.core.host_connection import HostConnection
from lunport.core.multipath_use import MultipathUse
from lunport.host.clock import Deadline
from lunport.host.iscsi_sysfs import ping_times
from lunport.initiator.maps import Maps
from lunport.initiator.multipath_policy import STALL_TIMES, MultipathPolicy
from lunport.initiator.sessions import Sessions

_NOT_RUNNING = "multipathd does not run on this host: one path is used"
_ONE_AT_A_TIME = "the volume's portals are alternatives, for one path at a time: one path is used"
_NOBODY_MOVES_IT = (
    "no agent runs that would move the volume to another portal: it is used without a map"
)


def wanted_use(
    info: ConnectionInfo, wish: MultipathPolicy, maps: Maps, *, multipath: bool
) -> tuple[MultipathUse | None, str | None]:
    """Say what map is wanted, and what stands against it. Raises: MultipathDown."""
    is_for_one = not are_for_all(info)
    note = None
    if multipath and is_for_one:
        if info.enforce_multipath:
            what = "The volume's portals are alternatives, for one path at a time"
            raise MultipathDown(what, "connect it without multipath")
        multipath, note = False, _ONE_AT_A_TIME
    # One that can't move has no use for a map.
    moves = (wish.resilient or info.resilient) and len(info.paths) > 1
    if not multipath and not moves:
        return None, note
    if info.enforce_multipath and multipath:
        maps.require()
    elif not maps.are_possible():
        return None, _NOT_RUNNING
    if not multipath and not maps.host.keeps_watch:
        # Its I/O would fail or wait when the portal dies, and not even the session's time.
        return None, _NOBODY_MOVES_IT
    wanted = None if multipath else 1
    return MultipathUse(wanted=wanted, queue_s=wish.queue_s, stall=wish.stall), None


def are_for_all(info: ConnectionInfo) -> bool:
    """Tell whether the storage side lets all paths of a volume be used at once."""
    return not info.has_alternatives or info.is_complete or info.target_discovered


def asking_for_all(info: ConnectionInfo, use: MultipathUse | None) -> ConnectionInfo:
    """Have a volume's portal asked for more where several are wanted and one alone is named.

    Drivers name one to a host that they take for one that will ask for the others.
    """
    wants_all = use is not None and use.wanted is None
    if wants_all and len(info.paths) == 1 and not info.is_complete:
        return replace(info, target_discovered=True)
    return info


def not_as_wished(
    entry: HostConnection,
    wish: MultipathPolicy,
    maps: Maps,
    sessions: Sessions,
    deadline: Deadline,
) -> list[str | None]:
    """Say what of a map and its sessions is not as it was asked for."""
    found = maps.find(entry.expected_wwid)
    if entry.multipath is None or found is None:
        return []
    return [maps.queueing_note(found, entry.multipath, deadline), _pings(entry, wish, sessions)]


def _pings(entry: HostConnection, wish: MultipathPolicy, sessions: Sessions) -> str | None:
    """Say which sessions notice a silent portal later than is wished, as they were there before."""
    assert entry.multipath is not None
    times = STALL_TIMES[wish.stall]
    late = []
    for member in entry.multipath.members:
        session = sessions.find(member.path.portal, member.path.iqn)
        pings = None if session is None else ping_times(sessions.host.sys, session.sid)
        wanted_s = times.noop_interval_s + times.noop_timeout_s
        if pings is not None and (0 in pings or sum(pings) > wanted_s):
            late.append(f"{member.path.portal} ({pings[0]} + {pings[1]} s)")
    if not late:
        return None
    return f"sessions that were there already keep their own pings: {', '.join(late)}"


def joined(notes: Iterable[str | None]) -> str | None:
    """Make one note of several."""
    return "; ".join(note for note in notes if note) or None
