"""What healing looks at and does on this host; what of it and when is ``core/heal_plan.py``'s.

    look        journal, sysfs, device-mapper -> sights; what changed is noted, with its reason
    scout       one probe of a portal
    complete    the initiator's own completion of a connection
    break_off   the TCP connection of one session of ours
    stop_queueing, keep_up    the settings of a map and of its sessions

Nothing here logs out, and nothing removes a disk or a map.
"""

from __future__ import annotations

import enum
import logging
import time
from collections.abc import Mapping, Sequence
from contextlib import suppress
from dataclasses import replace
from typing import Final

from lunport.core.change import Change
from lunport.core.errors import CommandTimedOut, JournalDamaged, LunportError, MultipathDown
from lunport.core.heal_memory import Scout, Sight
from lunport.core.host_connection import HostConnection, Phase
from lunport.core.kernel_session import KernelSession
from lunport.core.multipath_table import MapStatus
from lunport.core.path_status import PathState, PathStatus, VolumePaths
from lunport.core.portal import Portal
from lunport.core.probe_outcome import ProbeOutcome, Verdict
from lunport.host.clock import Deadline
from lunport.host.iscsi_sysfs import read_session
from lunport.host.multipath_map import MultipathMap
from lunport.host.path_notes import PathNote
from lunport.host.portal_probe import probe_path
from lunport.host.socket_kill import find_connection, kill_connection
from lunport.host.tasks import Stop
from lunport.initiator.connector import Initiator
from lunport.initiator.lock_names import work_locks
from lunport.initiator.maps import Maps
from lunport.initiator.sessions import Sessions

_LOG = logging.getLogger(__name__)

_LOOK_S: Final = 5.0
_SCOUT_S: Final = 2.0  # a lost SYN is sent again after one
_COMPLETION_S: Final = 30.0
_UPKEEP_S: Final = 15.0
_DARK: Final = frozenset({Verdict.TIMED_OUT, Verdict.UNREACHABLE})


class PortalNews(enum.Enum):
    """What a scout brings back."""

    ANSWERS = "answers"
    REFUSES = "refuses"  # something is there, and takes no connection
    DARK = "dark"  # nothing came back


class HealActs:
    """The eyes and hands of one host's healer. Looks are for one thread, the rest for any."""

    def __init__(self, initiator: Initiator) -> None:
        self._initiator = initiator
        self._host = initiator.host
        self._maps = Maps(initiator.host, initiator.policy)
        self._sessions = Sessions(initiator.host, initiator.policy)
        self._down_at: dict[str, float] = {}
        self._reasons: dict[Portal, str] = {}

    # -- looking -----------------------------------------------------------------------------

    def look(self) -> tuple[Sight, ...]:
        """Look at every connection, and note what changed. Raises: HostLacks, OSError."""
        entries = {entry.key: entry for entry in self._host.journal.connections()}
        volumes = [one for one in self._initiator.paths() if one.key in entries]
        wrong_sids = self._wrongly_patient(volumes, tuple(entries.values()))
        sights = []
        for seen in volumes:
            volume = self._note(seen)
            sights.append(self._sight(volume, entries[volume.key], wrong_sids))
        self._forget({one.key for one in sights})
        return tuple(sights)

    def _sight(
        self, volume: VolumePaths, entry: HostConnection, wrong_sids: frozenset[int]
    ) -> Sight:
        use = entry.multipath
        is_patient = not any(_is_live_at(one, wrong_sids) for one in volume.paths)
        if use is None:
            return Sight(volume, has_map=False, is_kept=is_patient)
        found = self._maps.find(entry.expected_wwid)
        status = None if found is None else self._maps.status(found, Deadline.after(_LOOK_S))
        queues = None if status is None else status.queues
        is_wrong = use.queue_s == 0 and queues is True
        if use.queue_s > 0 and self._host.keeps_watch:
            # While no path is live it stays as it became: failing once is failing.
            is_wrong = queues is False and volume.live > 0
        return Sight(
            volume,
            queue_s=use.queue_s,
            queues=queues,
            is_kept=is_patient and not is_wrong,
            down_at=self._down_since(volume),
        )

    def _wrongly_patient(
        self, volumes: Sequence[VolumePaths], entries: Sequence[HostConnection]
    ) -> frozenset[int]:
        """List the sessions that wait for their portals longer or shorter than they should."""
        sids = {one.sid for volume in volumes for one in volume.paths if one.sid is not None}
        sessions = (read_session(self._host.sys, sid) for sid in sids)
        return frozenset(
            session.sid
            for session in sessions
            if session is not None and not self._maps.patience.is_right(session, entries)
        )

    def _down_since(self, volume: VolumePaths) -> float | None:
        if volume.live > 0:
            self._down_at.pop(volume.key, None)
            return None
        now = time.monotonic()
        if volume.key not in self._down_at:
            # What was noted before this process began counts as well.
            since = time.time() if volume.since is None else volume.since
            self._down_at[volume.key] = now - max(0.0, time.time() - since)
        return self._down_at[volume.key]

    def _note(self, volume: VolumePaths) -> VolumePaths:
        """Note what changed; return the volume with what is noted, as who looks next sees it."""
        before = self._host.path_notes.read(volume.key)
        notes = {str(one.path): self._noted(one, before.get(str(one.path))) for one in volume.paths}
        if notes != dict(before):
            self._host.path_notes.write(volume.key, notes)
            self._tell_changes(volume.key, before, notes)

        def noted(path: PathStatus) -> PathStatus:
            note = notes[str(path.path)]
            return replace(path, since=note.since, why=note.why or path.why)

        return replace(volume, paths=tuple(map(noted, volume.paths)))

    def _tell_changes(
        self, key: str, before: Mapping[str, PathNote], notes: Mapping[str, PathNote]
    ) -> None:
        for text, note in notes.items():
            earlier = before.get(text)
            if earlier is not None and earlier.state is not note.state:
                _LOG.info(
                    "path_changed key=%s path=%s from=%s to=%s why=%s",
                    *(key, text, earlier.state.value, note.state.value, note.why),
                )

    def _noted(self, status: PathStatus, before: PathNote | None) -> PathNote:
        if status.state in {PathState.LIVE, PathState.SPARE}:
            why = None
        else:
            why = self._reasons.get(status.path.portal) or status.why
        if before is not None and before.state is status.state:
            return PathNote(status.state, before.since, why)
        since = time.time() if before is not None or status.since is None else status.since
        return PathNote(status.state, since, why)

    def _forget(self, keys: set[str]) -> None:
        for key in self._down_at.keys() - keys:
            del self._down_at[key]
        for key in self._host.path_notes.connections():
            with suppress(JournalDamaged):
                if key not in keys and self._host.journal.get(key) is None:
                    self._host.path_notes.remove(key)

    # -- doing -------------------------------------------------------------------------------

    def scout(self, step: Scout, stop: Stop) -> PortalNews:
        """Ask whether a portal answers. Raises: LunportError (this host has no name)."""
        outcome = probe_path(
            step.path,
            self._host.initiator_name(),
            self._host.journal.chap(step.key),
            expected_wwid=None,
            check_lun=False,
            deadline=Deadline.after(_SCOUT_S),
            stop=stop,
        )
        news = _news(outcome)
        if news is PortalNews.ANSWERS:
            self._host.memory.forget(step.portal)
            self._reasons.pop(step.portal, None)
        elif outcome.verdict is not Verdict.CANCELLED:
            self._host.memory.remember(step.portal)
            self._reasons[step.portal] = outcome.detail or outcome.verdict.value
        return news

    def complete(self, key: str) -> int:
        """Bring a connection's missing paths in; return how many are live then.

        Raises: HostLacks, JournalDamaged.
        """
        paths = self._initiator.complete(key, deadline=Deadline.after(_COMPLETION_S))
        return 0 if paths is None else paths.live

    def break_off(self, sid: int) -> Change:
        """Kill the connection of a session of ours that is logged in; no other session's.

        Raises: HostLacks, JournalDamaged.
        """
        session = read_session(self._host.sys, sid)
        if session is None or not session.is_logged_in:
            return Change.UNCHANGED
        own = self._sessions.find_own(session.portal, session.iqn)
        connection = find_connection(self._host.sys, sid)
        if own is None or own.sid != sid or connection is None:
            return Change.UNCHANGED
        _LOG.warning("session_broken sid=%s portal=%s", sid, session.portal)
        return kill_connection(connection)

    def stop_queueing(self, key: str) -> None:
        """Let the I/O of a map fail that has no usable path. Raises: LunportError."""
        found = self._map_of(self._host.journal.get(key))
        deadline = Deadline.after(_UPKEEP_S)
        status = None if found is None else self._maps.status(found, deadline)
        if found is not None and status is not None and not status.usable and status.queues:
            _LOG.warning("queueing_ended key=%s map=%s", key, found.device)
            self._maps.fail_when_empty(found, deadline)

    def keep_up(self, key: str) -> None:
        """Put the settings of a map and its sessions back to ours. Raises: LunportError."""
        deadline = Deadline.after(_UPKEEP_S)
        entry = self._host.journal.get(key)
        if entry is None:
            return
        # Not while it is disconnected, for which the map is set to failing.
        with self._host.locks.hold_all(work_locks(key, entry.paths), deadline):
            entry = self._host.journal.get(key)
            if entry is not None and entry.multipath is None:
                self._keep_up_plain(entry)
            found = self._map_of(entry)
            status = None if found is None else self._maps.status(found, deadline)
            if entry is None or entry.multipath is None or found is None or status is None:
                return
            if _is_failing(status) and entry.multipath.queue_s > 0:
                # As multipathd is configured, if we had told it otherwise.
                with suppress(MultipathDown, CommandTimedOut):
                    self._host.multipathd.restore_queueing(found.name, deadline)
            self._maps.tune(found, entry.multipath, self._sessions_of(entry), deadline)

    # -- parts -------------------------------------------------------------------------------

    def _keep_up_plain(self, entry: HostConnection) -> None:
        used = entry.used
        session = None if used is None else self._sessions.find(used.portal, used.iqn)
        if session is not None:
            self._maps.patience.settle_shared(session)

    def _map_of(self, entry: HostConnection | None) -> MultipathMap | None:
        if entry is None or entry.phase is not Phase.CONNECTED or entry.multipath is None:
            return None
        return self._maps.find(entry.expected_wwid)

    def _sessions_of(self, entry: HostConnection) -> Sequence[KernelSession]:
        assert entry.multipath is not None
        found = (
            self._sessions.find(one.path.portal, one.path.iqn) for one in entry.multipath.members
        )
        return [session for session in found if session is not None]


def give_queueing_back(initiator: Initiator, deadline: Deadline) -> None:
    """Leave every map's queueing to multipathd, since nobody watches it from now on.

    A map that multipathd would let wait too long fails from now on, until an agent has it again.
    Idempotent; what can't be done in time is left.
    """
    host = replace(initiator.host, keeps_watch=False)
    maps = Maps(host, initiator.policy)
    for entry in host.journal.connections():
        is_standing = entry.phase is Phase.CONNECTED and entry.boot_id == host.boot_id
        found = maps.find(entry.expected_wwid)
        if found is None or entry.multipath is None or not is_standing or deadline.has_passed():
            continue
        try:
            with host.locks.hold_all(work_locks(entry.key, entry.paths), deadline):
                maps.bound_queueing(found, entry.multipath, deadline)
        except LunportError as error:
            _LOG.warning("queueing_not_given_back key=%s error=%s", entry.key, error)


def portals_of(sights: Sequence[Sight]) -> Mapping[int, Portal]:
    """Say where each session leads that a connection uses."""
    return {
        status.sid: status.path.portal
        for one in sights
        for status in one.volume.paths
        if status.sid is not None
    }


def _is_live_at(status: PathStatus, sids: frozenset[int]) -> bool:
    # A session that has lost its portal takes no other value.
    return status.sid in sids and status.state is PathState.LIVE


def _is_failing(status: MapStatus) -> bool:
    return bool(status.usable) and not status.queues


def _news(outcome: ProbeOutcome) -> PortalNews:
    if outcome.connect_s is not None or not outcome.verdict.is_silence:
        return PortalNews.ANSWERS
    return PortalNews.DARK if outcome.verdict in _DARK else PortalNews.REFUSES
