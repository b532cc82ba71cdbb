"""What the agent of a host tells the volume service of its guests and connections.

A report is what one host saw at one moment: whoever reads it later reads when that was. It is
no ground to act upon, and nothing does.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import asdict, dataclass

MAX_ENTRIES = 4096


@dataclass(frozen=True, slots=True)
class ReportedVolume:
    """One volume of a guest. ``problem``: what is not as it shall be, and what helps."""

    volume_id: str
    initiator: str
    target: str | None = None
    portal: str | None = None
    problem: str | None = None


@dataclass(frozen=True, slots=True)
class ReportedGuest:
    """One guest, by the hypervisor's word; ``volumes``: ours alone."""

    id: str
    name: str
    state: str
    volumes: tuple[ReportedVolume, ...] = ()


@dataclass(frozen=True, slots=True)
class ReportedConnection:
    """One entry of the host's journal; ``volume_id`` None: made without the service's word."""

    volume_id: str | None
    phase: str
    portal: str | None
    wwid: str | None


@dataclass(frozen=True, slots=True)
class HostReport:
    """All of it. ``error``: why the guests are not known; they are empty then."""

    guests: tuple[ReportedGuest, ...] = ()
    connections: tuple[ReportedConnection, ...] = ()
    error: str | None = None


def format_host_report(report: HostReport) -> Mapping[str, object]:
    """Write a report for the wire."""
    return asdict(report)
