"""What hosts tell the service of themselves: by whom, when, and what becomes of it."""

from __future__ import annotations

import json
from collections.abc import Iterator, Mapping
from dataclasses import dataclass, field, replace
from pathlib import Path

import msgspec
import pytest
from click.testing import CliRunner

from lunport.agent.attach import AttachWish, attach
from lunport.agent.host_reporter import HostReporter
from lunport.cli.enrol import enrol
from lunport.client.guest_migrations import ToldReport
from lunport.core.errors import EnrolmentNotFound, VolumeApiUnavailable
from lunport.core.guest_disk import InitiatorKind
from lunport.core.host_report import HostReport, format_host_report
from lunport.host.clock import Deadline
from tests.fakes.api_client import ApiClient
from tests.fakes.guest_play import ENDPOINT, GUEST, VOLUME, GuestPlay
from tests.fakes.policy_play import bench_of

HOST, OTHER = "node-a", "node-b"
REPORT: Mapping[str, object] = {
    "guests": [
        {
            "id": GUEST,
            "name": "web",
            "state": "running",
            "volumes": [
                {
                    "volume_id": VOLUME,
                    "initiator": "qemu",
                    "target": "vdb",
                    "portal": "10.0.1.2:3260",
                    "problem": "portal 10.0.1.2:3260 does not answer",
                }
            ],
        }
    ],
    "connections": [
        {"volume_id": VOLUME, "phase": "connected", "portal": "10.0.1.2:3260", "wwid": None}
    ],
    "error": None,
}


@dataclass(slots=True)
class Service:
    """The service as the reporter sees it."""

    told: list[Mapping[str, object]] = field(default_factory=list)
    failure: Exception | None = None

    def report(self, host: str, document: Mapping[str, object], deadline: Deadline) -> None:
        """Take a report, or fail."""
        assert host == HOST
        if self.failure is not None:
            raise self.failure
        self.told.append(document)


@pytest.fixture
def clients(tmp_path: Path) -> Iterator[dict[str, ApiClient]]:
    """An administrator, and the agents of two enrolled hosts."""
    bench = bench_of(tmp_path, "host")
    admin = ApiClient(bench)
    for host in (HOST, OTHER):
        keys = {"host": host, "initiator": f"iqn.2026-01.example:{host}"}
        assert admin.post("/enrolments", {"enrolment": keys}).status == 200
    agents = {host: ApiClient(bench, peers=(host,), project="") for host in (HOST, OTHER)}
    yield {"admin": admin, **agents}
    bench.service.store.close()


def test_a_host_s_own_agent_tells(clients: dict[str, ApiClient]) -> None:
    """The last word of a host is shown to administrators, with its time."""
    path = f"/enrolments/{HOST}/report"
    assert clients["admin"].get(path).json == {"report": None}
    assert clients[HOST].put(path, {"report": {}}).status == 204
    assert clients[HOST].put(path, {"report": REPORT}).status == 204
    told = clients["admin"].get(path).json["report"]
    assert told.pop("at").startswith("20")
    assert told == REPORT
    assert msgspec.convert({"at": "x", **told}, type=ToldReport).guests[0].name == "web"


def test_nobody_tells_of_another_host(clients: dict[str, ApiClient]) -> None:
    """Nor reads what a host has told, if it is an agent; a host that is not enrolled is none."""
    path = f"/enrolments/{HOST}/report"
    assert clients[OTHER].put(path, {"report": REPORT}).status == 403
    assert clients[HOST].get(path).status == 403
    assert clients["admin"].get("/enrolments/node-x/report").status == 404
    assert clients["admin"].put("/enrolments/node-x/report", {"report": {}}).status == 404
    assert clients[HOST].put(path, {"report": {"guests": 1}}).status == 400


@dataclass(slots=True)
class ReportPlay:
    """A host with one guest and one volume, a service, a clock."""

    guests: GuestPlay
    service: Service
    time_s: float = 0.0

    def reporter(self, *, answers: bool = True) -> HostReporter:
        """Make the reporter."""
        parts = replace(self.guests.parts(), answers=lambda _disk, _deadline: answers)
        return HostReporter(
            HOST,
            parts,
            self.guests.parts().host.connections,
            lambda: [one.endpoint for one in parts.entries()],
            lambda _endpoint: self.service,
            now=lambda: self.time_s,
        )


@pytest.fixture
def play(tmp_path: Path) -> ReportPlay:
    """A running guest."""
    guests = GuestPlay(tmp_path)
    guests.hypervisor.define(GUEST, "web")
    return ReportPlay(guests, Service())


def give_volume(play: ReportPlay) -> None:
    """Attach the volume."""
    wish = AttachWish(InitiatorKind.QEMU)
    attach(play.guests.parts(), "web", VOLUME, ENDPOINT, wish, Deadline.after(10))


def test_a_report_is_told_when_something_changed(play: ReportPlay) -> None:
    """A host without a volume tells nobody; then each change once, and again after a minute."""
    reporter = play.reporter()
    reporter.round()
    assert play.service.told == []
    give_volume(play)
    reporter.round()
    reporter.round()
    (told,) = play.service.told
    guest = json.loads(json.dumps(told))["guests"][0]
    assert (guest["name"], guest["state"]) == ("web", "running")
    assert guest["volumes"][0]["volume_id"] == VOLUME
    assert guest["volumes"][0]["problem"] is None
    play.time_s = 61
    reporter.round()
    assert len(play.service.told) == 2
    play.guests.hypervisor.stop(GUEST)
    reporter.round()
    assert len(play.service.told) == 3


def test_a_portal_that_is_dead_is_told(play: ReportPlay, caplog: pytest.LogCaptureFixture) -> None:
    """QEMU stays with its portal; that it is dead stands in the report and, once, in the log."""
    give_volume(play)
    reporter = play.reporter(answers=False)
    for _ in range(2):
        reporter.round()
    (told,) = play.service.told
    assert "QEMU knows no other" in str(told)
    assert sum("QEMU knows no other" in one.message for one in caplog.records) == 1


def test_a_portal_that_was_not_asked_is_not_dead(play: ReportPlay) -> None:
    """Once the time is over nothing is said of a portal."""
    give_volume(play)
    (guest,) = play.reporter(answers=False).look(Deadline.after(0)).guests
    assert [one.problem for one in guest.volumes] == [None]


@pytest.mark.parametrize("failure", [VolumeApiUnavailable("it is away"), EnrolmentNotFound(HOST)])
def test_a_service_that_does_not_hear_hears_the_next_one(
    play: ReportPlay, failure: Exception
) -> None:
    """Nothing is raised, and nothing taken for told."""
    give_volume(play)
    reporter = play.reporter()
    play.service.failure = failure
    reporter.round()
    assert play.service.told == []
    play.service.failure = None
    reporter.round()
    assert len(play.service.told) == 1


def test_guests_that_are_not_known_are_no_guests(play: ReportPlay) -> None:
    """While the hypervisor is away the report says so."""
    give_volume(play)
    play.guests.hypervisor.failures["guests"] = VolumeApiUnavailable("libvirt is away")
    report = play.reporter().look(Deadline.after(5))
    assert (report.guests, report.error) == ((), "libvirt is away")
    assert format_host_report(HostReport()) == {"guests": (), "connections": (), "error": None}


@dataclass(frozen=True, slots=True)
class Parts:
    """The command's parts: a service that has heard of one host."""

    client: ApiClient

    def api(self, endpoint: str, token: object) -> object:
        """Return a client of the service, as far as it is used."""
        return self

    def ask(self, shape: type[object], method: str, path: str, *_: object) -> object:
        """Make a request."""
        assert method == "GET"
        return msgspec.convert(self.client.get(path).json, type=shape)


def test_the_command_shows_it(clients: dict[str, ApiClient]) -> None:
    """Guests, their volumes with what is the matter, and connections; or that nothing was told."""
    runner, parts = CliRunner(), Parts(clients["admin"])
    said = runner.invoke(enrol, ["show", HOST], obj=parts)
    assert "has told nothing" in said.output
    clients[HOST].put(f"/enrolments/{HOST}/report", {"report": REPORT})
    said = runner.invoke(enrol, ["show", HOST], obj=parts)
    assert "web  running" in said.output
    assert "does not answer" in said.output
    assert "connected, 10.0.1.2:3260" in said.output
    document = json.loads(runner.invoke(enrol, ["show", HOST, "-o", "json"], obj=parts).output)
    assert document["guests"][0]["name"] == "web"
