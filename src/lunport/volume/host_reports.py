"""What hosts have told of their guests and connections: the last word of each, in memory.

A restarted service knows nothing until agents tell it again, within a minute. Nothing is decided
by a report: the database says who may reach what.
"""

from __future__ import annotations

import threading
from typing import TYPE_CHECKING, NamedTuple

from lunport.core.errors import EnrolmentNotFound, NotAllowed, NotItsHost
from lunport.core.host_name import fold_host, same_host
from lunport.core.host_report import HostReport
from lunport.store import enrolments as rows
from lunport.volume.requests import Caller

if TYPE_CHECKING:
    from lunport.volume.service import Service


class ToldReport(NamedTuple):
    """A report, and when it came."""

    at: str
    report: HostReport


class HostReports:
    """The last report of each host. Safe to share between threads."""

    def __init__(self) -> None:
        self._lock = threading.Lock()
        self._told: dict[str, ToldReport] = {}

    def put(self, host: str, told: ToldReport) -> None:
        """Keep it in place of the host's last one."""
        with self._lock:
            self._told[fold_host(host)] = told

    def get(self, host: str) -> ToldReport | None:
        """Return what a host has told last."""
        with self._lock:
            return self._told.get(fold_host(host))


def tell(service: Service, caller: Caller, host: str, report: HostReport) -> None:
    """Take the report of an enrolled host, from its own agent or an administrator.

    Raises: NotItsHost, NotAllowed, EnrolmentNotFound.
    """
    if caller.agent is not None and not same_host(caller.agent.host, host):
        raise NotItsHost(caller.agent.host, f"a report of host {host}")
    if caller.agent is None and not caller.is_admin:
        raise NotAllowed("lunport:report_host")
    _require_enrolled(service, host)
    service.reports.put(host, ToldReport(service.now(), report))


def read(service: Service, caller: Caller, host: str) -> ToldReport | None:
    """Return the last report of an enrolled host (admin); None: it has told nothing yet.

    Raises: NotAllowed, EnrolmentNotFound.
    """
    if not caller.is_admin:
        raise NotAllowed("lunport:read_host_report")
    _require_enrolled(service, host)
    return service.reports.get(host)


def _require_enrolled(service: Service, host: str) -> None:
    with service.store.read() as connection:
        if rows.of_host(connection, host) is None:
            raise EnrolmentNotFound(host)
