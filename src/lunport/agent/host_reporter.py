"""Tell the volume services what guests and connections this host has, when that changes.

Every look is bounded, and so is every report; a service that is away, refuses, or does not know
this host hears the next one. Nobody's I/O depends on it. The look asks the portal of each disk
that QEMU reaches itself: QEMU knows that one alone, and does not say when it dies, so it is
said here. Attaching anew is for whoever has the guest.
"""

from __future__ import annotations

import logging
import threading
import time
from collections.abc import Callable, Mapping, Sequence
from typing import Protocol

from lunport.agent.guest_parts import GuestParts
from lunport.agent.guest_view import view_guests
from lunport.core.errors import LunportError
from lunport.core.host_connection import HostConnection
from lunport.core.host_report import (
    MAX_ENTRIES,
    HostReport,
    ReportedConnection,
    ReportedGuest,
    ReportedVolume,
    format_host_report,
)
from lunport.host.clock import Deadline

_LOG = logging.getLogger(__name__)
_LOOK_EVERY_S = 20.0
_REFRESH_S = 60.0
_LOOK_S = 15.0
_REQUEST_S = 5.0
_WORDS = 1000


class HostReportApi(Protocol):
    """What is used of the volume service's client."""

    def report(self, host: str, document: Mapping[str, object], deadline: Deadline) -> None:
        """Tell it. Raises: EnrolmentNotFound, VolumeApiRefused, VolumeApiUnavailable."""


class HostReporter:
    """Reports one host. ``guests``: None where there is no hypervisor.

    ``endpoints``: the services that hear of it; ``service`` makes the client of one.
    """

    def __init__(
        self,
        host: str,
        guests: GuestParts | None,
        connections: Callable[[], Sequence[HostConnection]],
        endpoints: Callable[[], Sequence[str]],
        service: Callable[[str], HostReportApi],
        *,
        now: Callable[[], float] = time.monotonic,
    ) -> None:
        self._host = host
        self._guests = guests
        self._connections = connections
        self._endpoints = endpoints
        self._service = service
        self._now = now
        self._told: dict[str, tuple[float, HostReport]] = {}
        self._refusals: dict[str, str] = {}
        self._problems: dict[str, str] = {}
        self._stop = threading.Event()
        self._thread = threading.Thread(target=self._run, name="host-reports", daemon=True)

    def start(self) -> None:
        """Begin, in a thread of its own."""
        self._thread.start()

    def stop(self, within_s: float) -> None:
        """End; return once a look under way has ended, or after that time."""
        self._stop.set()
        self._thread.join(within_s)

    def look(self, deadline: Deadline) -> HostReport:
        """Say what there is now."""
        connections: Sequence[HostConnection] = ()
        guests: tuple[ReportedGuest, ...] = ()
        error: str | None = None
        try:
            connections = self._connections()
            guests = self._look_at_guests(deadline)
        except LunportError as failure:
            error = str(failure)[:_WORDS]
        return HostReport(guests, tuple(map(_reported, connections[:MAX_ENTRIES])), error)

    def round(self) -> None:
        """Look, and tell whoever is due to hear."""
        endpoints = dict.fromkeys(self._endpoints())
        if not endpoints:
            return
        report = self.look(Deadline.after(_LOOK_S))
        self._tell_problems(report)
        for endpoint in endpoints:
            at, before = self._told.get(endpoint, (0.0, None))
            if report != before or self._now() >= at + _REFRESH_S:
                self._send(endpoint, report)

    # -- parts -------------------------------------------------------------------------------

    def _look_at_guests(self, deadline: Deadline) -> tuple[ReportedGuest, ...]:
        if self._guests is None:
            return ()
        return tuple(
            ReportedGuest(
                one.id,
                one.name,
                one.state,
                tuple(
                    ReportedVolume(
                        each.entry.volume_id,
                        each.entry.initiator.value,
                        each.entry.target,
                        None if each.disk is None else each.disk.portal,
                        each.problem,
                    )
                    for each in one.volumes
                ),
            )
            for one in view_guests(self._guests, deadline, asks_all_portals=True)[:MAX_ENTRIES]
        )

    def _send(self, endpoint: str, report: HostReport) -> None:
        document = format_host_report(report)
        try:
            self._service(endpoint).report(self._host, document, Deadline.after(_REQUEST_S))
        except LunportError as error:
            self._told.pop(endpoint, None)
            if self._refusals.get(endpoint) != type(error).__name__:
                _LOG.info("host_not_reported endpoint=%s error=%s", endpoint, error)
            self._refusals[endpoint] = type(error).__name__
            return
        self._refusals.pop(endpoint, None)
        self._told[endpoint] = (self._now(), report)

    def _tell_problems(self, report: HostReport) -> None:
        problems = {
            f"{guest.name} {volume.volume_id}": volume.problem
            for guest in report.guests
            for volume in guest.volumes
            if volume.problem is not None
        }
        for name, problem in problems.items():
            if self._problems.get(name) != problem:
                guest, _, volume = name.rpartition(" ")
                _LOG.warning("guest_volume guest=%s volume=%s %s", guest, volume, problem)
        self._problems = problems

    def _run(self) -> None:
        while not self._stop.is_set():
            try:
                self.round()
            except LunportError as error:
                _LOG.warning("host_not_reported error=%s", error)
            self._stop.wait(_LOOK_EVERY_S)


def _reported(one: HostConnection) -> ReportedConnection:
    portal = None if one.used is None else str(one.used.portal)
    return ReportedConnection(one.volume_id, one.phase.value, portal, one.expected_wwid)
