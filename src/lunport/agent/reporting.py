"""Tell the volume service what the paths of its attachments are, when they change.

    healer --offer(paths)--> reporter --lunport:report_paths--> the service of each attachment

An offer never waits: it replaces what was offered before. Sending is bounded in every way: one
report an attachment within some seconds, the newest one; a limit for each request and for each
round; a service that is down is asked less and less, one that refuses (Cinder has no such
action) hardly ever. A report is what this host saw, and nobody's I/O depends on it: failures are
noted in the log, once for each outage, and raised nowhere.
"""

from __future__ import annotations

import logging
import threading
import time
from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import dataclass
from typing import Protocol

from lunport.core.errors import (
    AttachmentNotFound,
    LunportError,
    VolumeApiUnavailable,
)
from lunport.core.host_connection import HostConnection
from lunport.core.path_report import format_path_report
from lunport.core.path_status import VolumePaths
from lunport.host.attachment_notes import AttachmentNote
from lunport.host.clock import Deadline

_LOG = logging.getLogger(__name__)


class ReportApi(Protocol):
    """What is used of the volume service's client."""

    def report_paths(
        self, attachment_id: str, document: Mapping[str, object], deadline: Deadline
    ) -> None:
        """Tell it. Raises: AttachmentNotFound, VolumeApiRefused, VolumeApiUnavailable."""


@dataclass(frozen=True, slots=True)
class ReportPolicy:
    """How often and how long, in seconds.

    ``pause_s``: between two reports of an attachment; ``refresh_s``: after which an unchanged
    one is told again, so that a reader knows a reporter that is alive; ``request_s`` and
    ``round_s`` bound one request and all of a round; a service that is down is asked again after
    ``retry_first_s``, twice as long each time up to ``retry_last_s``; one that refuses after
    ``refused_s``.
    """

    pause_s: float = 5.0
    refresh_s: float = 600.0
    request_s: float = 5.0
    round_s: float = 20.0
    retry_first_s: float = 1.0
    retry_last_s: float = 60.0
    refused_s: float = 900.0


@dataclass(frozen=True, slots=True)
class _Told:
    """What an attachment's service heard last, and when. ``is_gone``: it knows it no more."""

    document: Mapping[str, object]
    at: float
    is_gone: bool = False


@dataclass(frozen=True, slots=True)
class _Silence:
    """Until when a service is not asked, and how long that was."""

    until: float
    pause_s: float


@dataclass(frozen=True, slots=True)
class _Errand:
    """One report that may be due."""

    attachment_id: str
    endpoint: str
    document: Mapping[str, object]


class PathReporter:
    """Reports the paths of one host; safe to offer to from any thread.

    ``connections``: the journal's, whose holders are attachments. ``notes``: the attachments
    that this host asked for, each with its service. ``service`` makes the client of an
    endpoint. ``endpoint``: the service of holders without a note; None leaves them out.
    """

    def __init__(
        self,
        connections: Callable[[], Sequence[HostConnection]],
        notes: Callable[[], Sequence[AttachmentNote]],
        service: Callable[[str], ReportApi],
        *,
        endpoint: str | None = None,
        policy: ReportPolicy | None = None,
        now: Callable[[], float] = time.monotonic,
    ) -> None:
        self._connections = connections
        self._notes = notes
        self._service = service
        self._endpoint = endpoint
        self._policy = policy or ReportPolicy()
        self._now = now
        self._offered: tuple[VolumePaths, ...] = ()
        self._told: dict[str, _Told] = {}
        self._silences: dict[str, _Silence] = {}
        self._clients: dict[str, ReportApi] = {}
        self._wake = threading.Event()
        self._stop = threading.Event()
        self._thread = threading.Thread(target=self._run, name="path-reports", daemon=True)

    def start(self) -> None:
        """Begin to send what is offered."""
        self._thread.start()

    def stop(self, within_s: float) -> None:
        """Send nothing more; return once a request under way has ended, or after that time."""
        self._stop.set()
        self._wake.set()
        if self._thread.is_alive():
            self._thread.join(within_s)

    def offer(self, volumes: Sequence[VolumePaths]) -> None:
        """Say what all paths of this host are now. Never waits, never raises."""
        offered = tuple(volumes)
        if offered != self._offered:
            self._offered = offered
            self._wake.set()

    def send_due(self) -> float:
        """Send what is due; return after how many seconds something may be due again.

        Called by the reporter's thread, or by who has one of their own; by one at a time.
        """
        policy = self._policy
        try:
            errands = tuple(self._errands())
        except LunportError as error:
            _LOG.warning("paths_not_reported error=%s", error)
            return policy.retry_last_s
        self._told = {
            one.attachment_id: self._told[one.attachment_id]
            for one in errands
            if one.attachment_id in self._told
        }
        round_end = self._now() + policy.round_s
        for errand in sorted(errands, key=self._due_at):
            if self._due_at(errand) > self._now():
                break
            left_s = round_end - self._now()
            if left_s <= 0 or self._stop.is_set():
                return 0.0
            self._send(errand, Deadline.after(min(left_s, policy.request_s)))
        next_at = min(map(self._due_at, errands), default=self._now() + policy.refresh_s)
        return min(max(0.0, next_at - self._now()), policy.refresh_s)

    # -- parts -------------------------------------------------------------------------------

    def _run(self) -> None:
        pause_s = 0.0
        while not self._stop.is_set():
            self._wake.wait(pause_s)
            self._wake.clear()
            if not self._stop.is_set():
                pause_s = self.send_due()

    def _errands(self) -> Iterator[_Errand]:
        """Say which attachment is to hear what. Raises: HostLacks, JournalDamaged."""
        offered = self._offered
        if not offered:
            return
        holders = {entry.key: entry.holders for entry in self._connections()}
        notes = self._notes()
        for volume in offered:
            services = dict.fromkeys(holders.get(volume.key, ()), self._endpoint)
            for note in notes:
                if note.volume_id == volume.volume_id:
                    services[note.attachment_id] = note.endpoint
            document = format_path_report(volume)
            for attachment_id, endpoint in services.items():
                if endpoint is not None:
                    yield _Errand(attachment_id, endpoint, document)

    def _due_at(self, errand: _Errand) -> float:
        told = self._told.get(errand.attachment_id)
        silence = self._silences.get(errand.endpoint)
        due = 0.0
        if told is not None and told.is_gone:
            due = told.at + self._policy.refused_s
        elif told is not None and told.document == errand.document:
            due = told.at + self._policy.refresh_s
        elif told is not None:
            due = told.at + self._policy.pause_s
        return due if silence is None else max(due, silence.until)

    def _send(self, errand: _Errand, deadline: Deadline) -> None:
        policy, endpoint = self._policy, errand.endpoint
        try:
            client = self._clients.get(endpoint)
            if client is None:
                client = self._clients[endpoint] = self._service(endpoint)
            client.report_paths(errand.attachment_id, errand.document, deadline)
        except AttachmentNotFound:
            self._silences.pop(endpoint, None)
            self._told[errand.attachment_id] = _Told(errand.document, self._now(), is_gone=True)
        except VolumeApiUnavailable as error:
            before = self._silences.get(endpoint)
            last = 0.0 if before is None else before.pause_s
            pause_s = min(max(2 * last, policy.retry_first_s), policy.retry_last_s)
            self._be_silent(endpoint, pause_s, error)
        except LunportError as error:
            # It refuses reports, or us: the next one would be refused as well.
            self._be_silent(endpoint, policy.refused_s, error)
        else:
            if self._silences.pop(endpoint, None) is not None:
                _LOG.info("paths_reported_again endpoint=%s", endpoint)
            self._told[errand.attachment_id] = _Told(errand.document, self._now())

    def _be_silent(self, endpoint: str, pause_s: float, error: LunportError) -> None:
        if endpoint not in self._silences:
            _LOG.warning("paths_not_reported endpoint=%s error=%s", endpoint, error)
        self._silences[endpoint] = _Silence(self._now() + pause_s, pause_s)
