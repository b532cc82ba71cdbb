"""What the volume service knows of a volume's paths, which agent and kernel really have."""

from __future__ import annotations

import json
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest

from lab import faults, services
from lab.lio import Target
from lab.san import San
from lab.services import wait_until
from tests.daemons.agent_process import AgentProcess
from tests.daemons.service_process import ServiceProcess
from tests.lab.conftest import LabHost
from tests.lab.connecting import CHAP, node_records, sessions
from tests.lab.multipath_play import maps

SHOWN_S = 90.0
START_S = 120.0


@pytest.fixture
def target(san: San, lab_host: LabHost) -> Target:
    """A target behind four portals, with one unit of 1 GiB."""
    made = san.target(chap=CHAP, allowed=[lab_host.initiator])
    san.add_lun(made, 1, size_mib=1024)
    return made


@pytest.fixture
def service(target: Target, lab_host: LabHost, tmp_path: Path) -> Iterator[ServiceProcess]:
    """A service that has this unit, of somebody else's storage, to give."""
    secret = tmp_path / "array.secret"
    secret.touch(mode=0o600)
    secret.write_text(f"{CHAP.initiator.password.reveal()}\n")
    backend = (
        f'[backend.array]\ndriver = "static"\ninitiator = "{lab_host.initiator}"\n'
        "[[backend.array.luns]]\nsize_gib = 1\nlun = 1\n"
        f"portals = {json.dumps([str(portal) for portal in target.portals])}\n"
        f'iqn = "{target.iqn}"\nwwid = "{target.luns[1].wwid}"\n'
        f'chap_username = "{CHAP.initiator.username}"\nchap_password_file = "{secret}"\n'
    )
    default = 'default_backend = "array"'
    made = ServiceProcess(
        tmp_path / "service", service=default, backend=backend, start_s=START_S, wait_s=START_S
    )
    with made:
        yield made


@pytest.fixture
def agent(service: ServiceProcess, tmp_path: Path) -> Iterator[AgentProcess]:
    """An agent of this host, which has multipathd."""
    del service  # which outlives it
    folder = tmp_path / "host"
    folder.mkdir()
    one = AgentProcess(folder)
    with services.multipathd():
        one.start()
        try:
            yield one
        finally:
            one.end()


def test_a_lost_path_is_told_on_the_attachment(
    agent: AgentProcess, service: ServiceProcess, san: San, target: Target
) -> None:
    """Four live paths, then three and why not the fourth, then four again; then none of it."""
    volume = service.create(name="of the array")
    status, said, error = agent.run("host", "connect", volume, "--endpoint", service.endpoint)
    assert status == 0, error + agent.log.read_text()
    device = said.splitlines()[0]
    (attachment,) = service.ask("GET", f"/p/attachments?volume_id={volume}")[1]["attachments"]
    lost = target.portals[2]

    def paths() -> dict[str, Any]:
        shown = service.ask("GET", f"/p/attachments/{attachment['id']}")[1]["attachment"]
        found = shown.get("lunport:paths", {"paths": []})["paths"]
        return {path["portal"]: path for path in found}

    def live() -> set[str]:
        return {portal for portal, path in paths().items() if path["state"] == "live"}

    every = set(map(str, target.portals))
    wait_until(lambda: live() == every, "four live paths on the attachment", SHOWN_S)
    seen = paths()
    assert all(f"/dev/{path['device']}" != device for path in seen.values())
    assert {path["sid"] for path in seen.values()} == {
        int(name.removeprefix("session")) for name in sessions()
    }
    assert {path["iface"] for path in seen.values()} == {"default"}

    with faults.portal_refuses(san, lost):
        wait_until(lambda: live() == every - {str(lost)}, "the lost path to be told", SHOWN_S)
        gone = paths()[str(lost)]
        assert gone["why"]
        assert gone["since"] >= seen[str(lost)]["since"]
    wait_until(lambda: live() == every, "the path's return to be told", SHOWN_S)

    assert agent.run("host", "disconnect", volume, "--endpoint", service.endpoint)[0] == 0
    assert service.ask("GET", f"/p/attachments/{attachment['id']}")[0] == 404
    assert (sessions(), node_records(), maps()) == ([], [], [])
