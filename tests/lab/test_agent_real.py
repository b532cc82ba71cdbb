"""The agent on the real kernel: commands through its socket, kills, and an earlier boot."""

from __future__ import annotations

import contextlib
import json
import signal
from collections.abc import Iterator
from dataclasses import replace
from pathlib import Path

import pytest

from lab import faults, services
from lab.lio import Disk, Target
from lab.san import San
from lab.services import wait_until
from lunport.core.connection_info import ConnectionInfo, format_whole_connection_info
from lunport.host.clock import Deadline
from lunport.host.node_records import find_records_folder
from lunport.host.runner import run
from lunport.initiator.journal import Journal
from tests.daemons.agent_process import AgentProcess
from tests.lab.conftest import LabHost
from tests.lab.connecting import CHAP, disks, info_of, node_records, sessions
from tests.lab.multipath_play import maps, maps_of, usable

BACK_S = 90.0
EARLIER = "00000000-0000-0000-0000-000000000000"


class Volume:
    """A volume of the SAN, and the commands about it."""

    def __init__(self, agent: AgentProcess, target: Target, disk: Disk, lun: int) -> None:
        self.agent = agent
        self.disk = disk
        # A list of all paths, as a service answers who may use them at once.
        self.info: ConnectionInfo = replace(
            info_of(target, lun, disk, chap=CHAP), volume_id=f"volume-{lun}", is_complete=True
        )
        self.text = json.dumps(format_whole_connection_info(self.info))

    def connect(self, *words: str) -> str:
        """Connect it; return its device."""
        status, said, error = self._run("connect", *words)
        assert status == 0, error + self.agent.log.read_text()
        return said.splitlines()[0]

    def disconnect(self) -> str:
        """Disconnect it; return what is said."""
        status, said, error = self._run("disconnect")
        assert status == 0, error + self.agent.log.read_text()
        return said

    def _run(self, verb: str, *words: str) -> tuple[int, str, str]:
        return self.agent.run("host", verb, "--connection-info", "-", *words, text=self.text)


@pytest.fixture
def agent(tmp_path: Path) -> Iterator[AgentProcess]:
    """An agent that listens, and has folders of its own."""
    one = AgentProcess(tmp_path)
    with services.multipathd():
        one.start()
        yield one
        if one.process is not None and one.process.poll() is None:
            assert one.end() == 0
    assert CHAP.initiator.password.reveal() not in one.log.read_text()


@pytest.fixture
def target(san: San, lab_host: LabHost) -> Target:
    """A target behind four portals that wants CHAP."""
    return san.target(chap=CHAP, allowed=[lab_host.initiator])


def _await_all(agent: AgentProcess) -> None:
    def states() -> set[str]:
        return {one["state"] for one in agent.ask("GET", "/v1/paths")[1]["volumes"]}

    wait_until(lambda: states() == {"ok"}, "all paths live", BACK_S)


def _restart(agent: AgentProcess) -> None:
    """Kill the agent, and let the host be as after a start: no sessions, no maps, files stay."""
    agent.end(signal.SIGKILL)
    folder = find_records_folder()
    kept = {path: path.read_text() for path in folder.rglob("*") if path.is_file()}
    soon = Deadline.after(60)
    for name in maps():
        run(["multipath", "-f", f"/dev/{name}"], soon, accepted=range(256))
    run(["multipathd", "disablequeueing", "maps"], soon, accepted=range(256))
    for name in sessions():
        run(["iscsiadm", "-m", "session", "-r", name.removeprefix("session"), "-u"], soon)
    wait_until(lambda: disks() == [] and maps() == [], "no disk")
    for path, text in kept.items():
        path.parent.mkdir(parents=True, exist_ok=True)
        path.write_text(text)
    for file in (agent.folder / "state").rglob("*.json"):
        entry = json.loads(file.read_text())
        if "boot_id" in entry:
            file.write_text(json.dumps({**entry, "boot_id": EARLIER}))


def test_a_map_through_the_agent(agent: AgentProcess, san: San, target: Target) -> None:
    """Connect, all paths, a killed agent and its successor, disconnect: nothing is left."""
    volume = Volume(agent, target, san.add_lun(target, 1), 1)
    device = volume.connect("--ready", "first")
    assert device == f"/dev/{maps_of(volume.disk.wwid)[0]}"
    _await_all(agent)
    assert len(usable(device.removeprefix("/dev/"))) == len(san.portals)
    assert "connect_done volume=volume-1" in agent.log.read_text()
    agent.end(signal.SIGKILL)
    assert agent.run("host", "paths")[0] == 0
    agent.start()
    (one,) = agent.ask("GET", "/v1/paths")[1]["volumes"]
    assert (one["state"], one["live"], f"/dev/{one['device']}") == ("ok", 4, device)
    assert volume.connect() == device
    assert volume.disconnect() == "Disconnected.\n"
    assert volume.disconnect() == "It was not connected.\n"
    assert (sessions(), node_records(), maps()) == ([], [], [])


@pytest.mark.again
def test_what_an_earlier_boot_had_comes_back(agent: AgentProcess, san: San, target: Target) -> None:
    """Maps and single paths are there again with their credentials, once their portals are.

    A unit that is another one now is told, and nobody logs in for it.
    """
    whole, alone, other = (
        Volume(agent, target, san.add_lun(target, lun), lun) for lun in (1, 2, 3)
    )
    whole.connect()
    alone.connect("--no-multipath")
    other.connect()
    _await_all(agent)
    _restart(agent)
    with contextlib.ExitStack() as stack:
        stack.enter_context(faults.wrong_identity(target, 3, san.disk()))
        for portal in san.portals[1:]:
            stack.enter_context(faults.portal_refuses(san, portal))
        with faults.portal_refuses(san, san.portals[0]):
            agent.start()
            wait_until(lambda: all(one["why"] for one in _returning(agent)), "a try", BACK_S)
            assert len(_returning(agent)) == 3
            assert (sessions(), agent.run("host", "recover")[0]) == ([], 1)
        wait_until(lambda: len(_returning(agent)) == 1, "two of three back", BACK_S)
        (left,) = _returning(agent)
        assert left["volume_id"] == "volume-3"
        wait_until(lambda: "it was not used" in _returning(agent)[0]["why"], "the reason", BACK_S)
        assert maps_of(whole.disk.wwid) != []
        assert maps_of(other.disk.wwid) == []
        entries = {one.volume_id: one for one in Journal(agent.folder / "state").connections()}
        assert (entries["volume-1"].multipath is None, entries["volume-2"].multipath is None) == (
            False,
            True,
        )
    status, said, _ = agent.run("host", "recover")
    assert status == 0, said
    _await_all(agent)
    assert _returning(agent) == []
    for volume in (whole, alone, other):
        assert volume.disconnect() == "Disconnected.\n"
    assert (sessions(), node_records(), maps()) == ([], [], [])


def _returning(agent: AgentProcess) -> list[dict[str, str]]:
    found: list[dict[str, str]] = agent.ask("GET", "/v1/health")[1]["returning"]
    return found
