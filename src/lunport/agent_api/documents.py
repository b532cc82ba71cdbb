"""What the agent answers, as documents, and the values again on the other side.

A connected volume, the paths of all volumes, the journal's entries and a recovery's lines.
Each ``format_`` has its ``parse_``; both sides are of one release, so what can't be read is
an agent of another one. Raises there: AgentUnavailable.
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any, TypeVar

import msgspec

from lunport.agent.boot import Awaited
from lunport.agent.recovery_line import RecoveryLine
from lunport.core.change import Change
from lunport.core.errors import AgentUnavailable, InvalidInput
from lunport.core.host_connection import (
    HostConnection,
    format_host_connection,
    parse_host_connection,
)
from lunport.core.iqn import parse_iqn
from lunport.core.path_report import format_path_report, parse_path_report
from lunport.core.path_status import PathState, PathStatus, VolumePaths
from lunport.core.portal import parse_portal
from lunport.core.scsi_address import parse_scsi_address
from lunport.core.target_path import TargetPath
from lunport.core.transport import Transport
from lunport.core.wwid import Wwid
from lunport.initiator.connected_volume import ConnectedVolume
from lunport.initiator.portal_choice import UnusedPath

Document = TypeVar("Document")


class PathDocument(msgspec.Struct):
    """One complete way to a unit."""

    portal: str
    iqn: str
    lun: int
    transport: Transport = Transport.TCP

    @classmethod
    def of(cls, path: TargetPath) -> PathDocument:
        """Write a path."""
        return cls(str(path.portal), path.iqn, path.lun, path.transport)

    def path(self) -> TargetPath:
        """Read it."""
        return TargetPath(parse_portal(self.portal), parse_iqn(self.iqn), self.lun, self.transport)


class StatusDocument(msgspec.Struct):
    """One path as it is now."""

    path: PathDocument
    iface: str
    state: PathState
    sid: int | None
    device: str | None
    since: float | None
    why: str | None

    @classmethod
    def of(cls, one: PathStatus) -> StatusDocument:
        """Write a path's status."""
        path = PathDocument.of(one.path)
        return cls(path, one.iface, one.state, one.sid, one.device, one.since, one.why)

    def status(self) -> PathStatus:
        """Read it."""
        return PathStatus(
            self.path.path(),
            self.iface,
            self.state,
            sid=self.sid,
            device=self.device,
            since=self.since,
            why=self.why,
        )


class UnusedDocument(msgspec.Struct):
    """A path that is not used, and why."""

    path: PathDocument
    reason: str


class ConnectedDocument(msgspec.Struct):
    """A unit that is a disk of this host now."""

    path: str
    wwid: str | None
    size_bytes: int
    used: PathDocument
    scsi_address: str
    unused: list[UnusedDocument]
    change: Change
    choice_s: float
    elapsed_s: float
    map_name: str | None
    paths: list[StatusDocument]
    note: str | None

    @classmethod
    def of(cls, one: ConnectedVolume) -> ConnectedDocument:
        """Write a connected volume."""
        return cls(
            path=one.path,
            wwid=one.wwid,
            size_bytes=one.size_bytes,
            used=PathDocument.of(one.used),
            scsi_address=str(one.unit),
            unused=[UnusedDocument(PathDocument.of(u.path), u.reason) for u in one.unused],
            change=one.change,
            choice_s=one.choice_s,
            elapsed_s=one.elapsed_s,
            map_name=one.map_name,
            paths=[StatusDocument.of(path) for path in one.paths],
            note=one.note,
        )

    def volume(self) -> ConnectedVolume:
        """Read it; what the probes of unused paths found in detail stays with the agent."""
        return ConnectedVolume(
            path=self.path,
            wwid=None if self.wwid is None else Wwid(self.wwid),
            size_bytes=self.size_bytes,
            used=self.used.path(),
            unit=parse_scsi_address(self.scsi_address),
            unused=tuple(UnusedPath(one.path.path(), one.reason, None) for one in self.unused),
            change=self.change,
            choice_s=self.choice_s,
            elapsed_s=self.elapsed_s,
            map_name=self.map_name,
            paths=tuple(path.status() for path in self.paths),
            note=self.note,
        )


class LineDocument(msgspec.Struct):
    """One line of a recovery."""

    outcome: str
    sentence: str
    error: str | None


class HealthDocument(msgspec.Struct):
    """Whether the agent is whole, and what it waits for since the host was started."""

    status: str
    pid: int
    since: float
    returning: list[AwaitedDocument]


class AwaitedDocument(msgspec.Struct):
    """A connection that has yet to come back, and why it has not."""

    key: str
    volume_id: str | None
    why: str | None

    @classmethod
    def of(cls, one: Awaited) -> AwaitedDocument:
        """Write it."""
        return cls(one.entry.key, one.entry.volume_id, one.why)


class _Change(msgspec.Struct):
    change: Change


class _Size(msgspec.Struct):
    size_bytes: int


class _Lines(msgspec.Struct):
    actions: list[LineDocument]


class _Volumes(msgspec.Struct):
    volumes: list[dict[str, Any]]


class _Connections(msgspec.Struct):
    connections: list[dict[str, Any]]


def format_health(health: HealthDocument) -> bytes:
    """Write how the agent is."""
    return msgspec.json.encode(health)


# -- there and back --------------------------------------------------------------------------


def format_connected(volume: ConnectedVolume) -> bytes:
    """Write the answer to a connect."""
    return msgspec.json.encode(ConnectedDocument.of(volume))


def parse_connected(document: bytes) -> ConnectedVolume:
    """Read the answer to a connect."""
    return _read(ConnectedDocument, document).volume()


def format_change(change: Change) -> bytes:
    """Write the answer to a disconnect."""
    return msgspec.json.encode(_Change(change))


def parse_change(document: bytes) -> Change:
    """Read the answer to a disconnect."""
    return _read(_Change, document).change


def format_size(size_bytes: int) -> bytes:
    """Write the answer to an extend."""
    return msgspec.json.encode(_Size(size_bytes))


def parse_size(document: bytes) -> int:
    """Read the answer to an extend."""
    return _read(_Size, document).size_bytes


def format_lines(lines: Sequence[RecoveryLine]) -> bytes:
    """Write what a recovery did."""
    found = [LineDocument(line.outcome, line.sentence, line.error) for line in lines]
    return msgspec.json.encode(_Lines(found))


def parse_lines(document: bytes) -> tuple[RecoveryLine, ...]:
    """Read what a recovery did."""
    return tuple(
        RecoveryLine(line.outcome, line.sentence, line.error)
        for line in _read(_Lines, document).actions
    )


def format_paths(volumes: Sequence[VolumePaths]) -> bytes:
    """Write the paths of all volumes."""
    return msgspec.json.encode(_Volumes([format_path_report(one) for one in volumes]))


def parse_paths(document: bytes) -> tuple[VolumePaths, ...]:
    """Read the paths of all volumes."""
    try:
        return tuple(map(parse_path_report, _read(_Volumes, document).volumes))
    except InvalidInput as error:
        raise _other_release(error) from error


def format_connections(connections: Sequence[HostConnection]) -> bytes:
    """Write the journal's entries."""
    entries = [msgspec.Raw(format_host_connection(one).encode()) for one in connections]
    return msgspec.json.encode({"connections": entries})


def parse_connections(document: bytes) -> tuple[HostConnection, ...]:
    """Read the journal's entries."""
    try:
        return tuple(
            parse_host_connection(msgspec.json.encode(one).decode())
            for one in _read(_Connections, document).connections
        )
    except InvalidInput as error:
        raise _other_release(error) from error


def _read(kind: type[Document], document: bytes) -> Document:
    try:
        return msgspec.json.decode(document, type=kind)
    except (msgspec.MsgspecError, UnicodeDecodeError) as error:
        raise _other_release(error) from error


def _other_release(error: Exception) -> AgentUnavailable:
    return AgentUnavailable(
        f"The agent's answer cannot be read ({error}): is it of another release? Start it anew."
    )
