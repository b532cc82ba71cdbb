"""What the agent tells the volume service of paths, when, and how little it costs."""

from __future__ import annotations

import threading
from collections.abc import Mapping
from dataclasses import dataclass, field, replace

from lunport.agent.reporting import PathReporter, ReportPolicy
from lunport.core.errors import (
    AttachmentNotFound,
    HostLacks,
    LunportError,
    NotAuthenticated,
    VolumeApiRefused,
    VolumeApiUnavailable,
)
from lunport.core.host_connection import HostConnection, Phase
from lunport.core.path_report import format_path_report
from lunport.core.path_status import PathState, VolumePaths
from lunport.host.attachment_notes import AttachmentNote
from lunport.host.clock import Deadline
from tests.unit.test_path_view import LIVE, LOST, MAPPED

SAN = "http://san:8776"
OTHER = "http://other:8776"
DOWN = VolumeApiUnavailable("down")
LOST_BOTH = replace(MAPPED, paths=(replace(LIVE, state=PathState.FAILED, why="reset"), LOST))
WHOLE = replace(MAPPED, paths=(LIVE,), wanted=1)
POLICY = ReportPolicy()


@dataclass
class Host:
    """A host, its services and its clock, all played."""

    entries: list[HostConnection] = field(default_factory=list)
    notes: list[AttachmentNote] = field(default_factory=list)
    failures: dict[str, LunportError] = field(default_factory=dict)
    heard: list[tuple[str, str, object]] = field(default_factory=list)
    clients: list[str] = field(default_factory=list)
    now: float = 1000.0
    took_s: float = 0.0
    damage: LunportError | None = None

    def reporter(self, endpoint: str | None = None) -> PathReporter:
        """Make a reporter that is not started."""
        return PathReporter(
            self.connections,
            lambda: self.notes,
            self.service,
            endpoint=endpoint,
            now=lambda: self.now,
        )

    def connections(self) -> list[HostConnection]:
        """List the entries, or fail."""
        if self.damage is not None:
            raise self.damage
        return self.entries

    def service(self, endpoint: str) -> PlayedService:
        """Make a client."""
        self.clients.append(endpoint)
        return PlayedService(self, endpoint)

    def told(self) -> list[tuple[str, object]]:
        """Return which attachment heard which state since the last time."""
        told = [(attachment_id, state) for _, attachment_id, state in self.heard]
        self.heard.clear()
        return told


@dataclass
class PlayedService:
    """One service."""

    host: Host
    endpoint: str

    def report_paths(
        self, attachment_id: str, document: Mapping[str, object], deadline: Deadline
    ) -> None:
        """Hear a report, or fail as told; that takes time."""
        assert deadline.budget_s <= POLICY.request_s
        self.host.now += self.host.took_s
        failure = self.host.failures.get(attachment_id) or self.host.failures.get(self.endpoint)
        if failure is not None:
            self.host.heard.append((self.endpoint, attachment_id, type(failure).__name__))
            raise failure
        assert document == {**document, "version": 1}
        self.host.heard.append((self.endpoint, attachment_id, document["state"]))


def an_entry(volume: VolumePaths, *holders: str) -> HostConnection:
    """Return the journal's entry of a volume."""
    paths = tuple(one.path for one in volume.paths)
    return HostConnection(
        key=volume.key,
        phase=Phase.CONNECTED,
        paths=paths,
        used=paths[0],
        iface="default",
        addressing_mode=None,
        wwid=volume.wwid,
        seen_wwid=volume.wwid,
        volume_id=volume.volume_id,
        holders=holders,
        unit=None,
        disk_name=None,
        size_bytes=None,
        boot_id="boot",
        since=1.0,
    )


def a_host() -> Host:
    """Return a host with one volume, attached once by a service that it knows."""
    volume_id = MAPPED.volume_id
    assert volume_id is not None
    return Host([an_entry(MAPPED, "a1")], [AttachmentNote(volume_id, "a1", SAN)])


def test_a_change_is_told_at_once_and_once() -> None:
    """The first look and each change are told; the same again is not."""
    host = a_host()
    reporter = host.reporter()
    reporter.offer([MAPPED])
    pause_s = reporter.send_due()
    assert host.told() == [("a1", "degraded")]
    assert pause_s == POLICY.refresh_s
    reporter.offer([MAPPED])
    reporter.send_due()
    assert host.told() == []
    host.now += POLICY.pause_s
    reporter.offer([WHOLE])
    reporter.send_due()
    assert host.told() == [("a1", "ok")]
    assert host.clients == [SAN]


def test_a_flapping_path_is_told_now_and_then() -> None:
    """Many changes within the pause are one report: the last one."""
    host = a_host()
    reporter = host.reporter()
    for second in range(30):
        reporter.offer([WHOLE if second % 2 else LOST_BOTH])
        reporter.send_due()
        host.now += 1
    told = host.told()
    assert len(told) == 30 / POLICY.pause_s
    reporter.offer([WHOLE])
    reporter.offer([LOST_BOTH])
    host.now += POLICY.pause_s
    reporter.send_due()
    assert host.told() == [("a1", "down")]


def test_an_unchanged_volume_is_told_now_and_then() -> None:
    """A reader can tell a reporter that is alive from one that is gone."""
    host = a_host()
    reporter = host.reporter()
    reporter.offer([MAPPED])
    reporter.send_due()
    host.told()
    host.now += POLICY.refresh_s - 1
    assert reporter.send_due() == 1.0
    assert host.told() == []
    host.now += 1
    reporter.send_due()
    assert host.told() == [("a1", "degraded")]


def test_who_is_told() -> None:
    """Each attachment of a volume is told at its own service; a bare connection at none."""
    host = a_host()
    host.notes.append(AttachmentNote(str(MAPPED.volume_id), "a2", OTHER))
    host.notes.append(AttachmentNote("another volume", "a3", SAN))
    bare = replace(MAPPED, key="paths-1", volume_id=None)
    host.entries.append(an_entry(bare, "holder"))
    reporter = host.reporter()
    reporter.offer([MAPPED, bare])
    reporter.send_due()
    assert sorted(host.heard) == [(OTHER, "a2", "degraded"), (SAN, "a1", "degraded")]
    host.heard.clear()
    reporter = host.reporter(endpoint="http://default")
    reporter.offer([bare])
    reporter.send_due()
    assert host.heard == [("http://default", "holder", "degraded")]


def test_nothing_is_asked_where_nothing_is_connected() -> None:
    """Without volumes neither the journal nor the notes are read."""
    host = a_host()
    host.damage = HostLacks("Cannot read", "it is damaged", "mend it")
    reporter = host.reporter()
    assert reporter.send_due() == POLICY.refresh_s
    reporter.offer([MAPPED])
    assert reporter.send_due() == POLICY.retry_last_s
    host.damage = None
    reporter.send_due()
    assert host.told() == [("a1", "degraded")]


def test_a_service_that_is_down_is_asked_less_and_less() -> None:
    """One request, not one for each volume, after 1, 2, 4 ... 60 s; then all are told."""
    host = a_host()
    second = replace(MAPPED, key="naa.7", volume_id="v2")
    host.entries.append(an_entry(second, "b1"))
    host.notes.append(AttachmentNote("v2", "b1", SAN))
    host.failures[SAN] = DOWN
    reporter = host.reporter()
    reporter.offer([MAPPED, second])
    pauses = []
    for _ in range(9):
        pauses.append(reporter.send_due())
        host.now += pauses[-1]
    assert pauses == [1, 2, 4, 8, 16, 32, 60, 60, 60]
    assert len(host.told()) == 9
    host.failures.clear()
    reporter.send_due()
    assert sorted(host.told()) == [("a1", "degraded"), ("b1", "degraded")]
    host.failures[SAN] = DOWN
    host.now += POLICY.pause_s
    reporter.offer([WHOLE, second])
    assert reporter.send_due() == 1


def test_one_service_that_is_down_keeps_nothing_from_others() -> None:
    """The attachments of other services are told in the same round."""
    host = a_host()
    host.notes.append(AttachmentNote(str(MAPPED.volume_id), "a2", OTHER))
    host.failures[SAN] = DOWN
    reporter = host.reporter()
    reporter.offer([MAPPED])
    reporter.send_due()
    assert ("a2", "degraded") in host.told()


def test_a_service_that_refuses_is_left_alone() -> None:
    """A service without this action, or that does not know us, is asked hardly ever."""
    for refusal in (VolumeApiRefused("POST", 400, "no such action"), NotAuthenticated()):
        host = a_host()
        host.failures[SAN] = refusal
        reporter = host.reporter()
        reporter.offer([MAPPED])
        assert reporter.send_due() == POLICY.refresh_s
        host.told()
        host.now += POLICY.refused_s - 1
        reporter.offer([WHOLE])
        assert reporter.send_due() == 1.0
        assert host.told() == []


def test_an_attachment_that_is_gone_is_not_told() -> None:
    """An attachment that its service forgot is left alone, others of the service are not."""
    host = a_host()
    host.notes.append(AttachmentNote(str(MAPPED.volume_id), "a2", SAN))
    host.failures["a1"] = AttachmentNotFound("a1")
    reporter = host.reporter()
    reporter.offer([MAPPED])
    reporter.send_due()
    assert sorted(host.told()) == [("a1", "AttachmentNotFound"), ("a2", "degraded")]
    host.now += POLICY.pause_s
    reporter.offer([WHOLE])
    reporter.send_due()
    assert host.told() == [("a2", "ok")]


def test_an_attachment_that_came_back_is_told() -> None:
    """What was told is forgotten with the attachment: a new connect is told anew."""
    host = a_host()
    reporter = host.reporter()
    for _ in range(2):
        reporter.offer([MAPPED])
        reporter.send_due()
        assert host.told() == [("a1", "degraded")]
        reporter.offer([])
        reporter.send_due()


def test_many_volumes_are_told_in_turn() -> None:
    """A storm of changes reaches every volume, the one that has waited longest first."""
    host = Host()
    volumes = []
    for number in range(50):
        volume = replace(MAPPED, key=f"naa.{number}", volume_id=f"v{number}")
        volumes.append(volume)
        host.entries.append(an_entry(volume, f"a{number}"))
        host.notes.append(AttachmentNote(f"v{number}", f"a{number}", SAN))
    host.took_s = 0.5
    reporter = host.reporter()
    counts: dict[str, int] = {}
    for turn in range(10):
        offered = [replace(one, wanted=1 + turn % 2) for one in volumes]
        reporter.offer(offered)
        began = host.now
        reporter.send_due()
        assert host.now - began <= POLICY.round_s
        for attachment_id, _ in host.told():
            counts[attachment_id] = counts.get(attachment_id, 0) + 1
    assert len(counts) == 50
    assert sum(counts.values()) > 200
    assert max(counts.values()) - min(counts.values()) <= 1


def test_the_thread_sends_and_ends() -> None:
    """Started, it sends what is offered; stopped, it ends, also when it was never started."""
    sent = threading.Event()
    documents: list[Mapping[str, object]] = []

    class Service:
        def report_paths(
            self, attachment_id: str, document: Mapping[str, object], deadline: Deadline
        ) -> None:
            assert attachment_id == "a1"
            assert not deadline.has_passed()
            documents.append(document)
            sent.set()

    host = a_host()
    reporter = PathReporter(host.connections, lambda: host.notes, lambda _: Service())
    reporter.start()
    try:
        reporter.offer([MAPPED])
        assert sent.wait(30)
    finally:
        reporter.stop(30)
    assert documents == [format_path_report(MAPPED)]
    assert "path-reports" not in {thread.name for thread in threading.enumerate()}
    host.reporter().stop(0)
