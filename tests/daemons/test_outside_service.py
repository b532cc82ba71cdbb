"""The example of a driver and a helper from outside, installed, in a real service."""

from __future__ import annotations

import json
import os
import subprocess
import sys
from pathlib import Path

import pytest

from lunport.core.chap import ChapCredentials
from lunport.core.iqn import Iqn
from lunport.core.portal import parse_portal
from lunport.core.secret import Secret
from tests.daemons.qemu_io import QemuSession
from tests.daemons.service_process import INITIATOR, ServiceProcess

pytestmark = pytest.mark.needs("tgtd", "qemu-io")

EXAMPLE = Path(__file__).resolve().parents[2] / "docs" / "examples" / "outside_backend"
_PIP = [sys.executable, "-m", "pip", "--disable-pip-version-check", "install", "--quiet"]


@pytest.fixture(scope="module")
def installed(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Install the example as its page says, into a folder of its own."""
    folder = tmp_path_factory.mktemp("installed")
    alone = ["--no-index", "--no-deps", "--no-build-isolation", "--target", str(folder)]
    subprocess.run([*_PIP, *alone, str(EXAMPLE)], check=True, timeout=120)
    return folder


def first_bytes(file: Path) -> bytes:
    """Read what an image begins with."""
    with file.open("rb") as opened:
        return opened.read(4)


def test_a_volume_lives_on_what_came_from_outside(installed: Path, tmp_path: Path) -> None:
    """Created, offered to a host that writes, grown, taken back and deleted; changes are told."""
    told = tmp_path / "told"
    backend = (
        'driver = "shelf"\ndriver_options = { promise = 1.5 }\n'
        f'helper = "told"\nhelper_options = {{ by = "tgt", tell = "{told}" }}\n'
    )
    service = ServiceProcess(tmp_path / "service", backend=backend)
    places = os.pathsep.join([str(installed), *(place for place in sys.path if place)])
    try:
        service.start(environment={"PYTHONPATH": places})
        volume = service.create(name="from outside")
        assert service.status_of(volume) == "available"
        status, answer = service.connect(volume)
        assert status == 200, answer
        data = answer["connection_info"]["data"]
        with QemuSession(
            tmp_path,
            parse_portal(data["target_portal"]),
            Iqn(data["target_iqn"]),
            Iqn(INITIATOR),
            ChapCredentials(data["auth_username"], Secret(data["auth_password"])),
            data["target_lun"],
        ) as session:
            assert "wrote" in session.run("write -P 0x61 0 4096")
        assert first_bytes(service.images / f"volume-{volume}") == b"aaaa"
        connector = {"connector": {"initiator": INITIATOR}}
        path = f"/p/volumes/{volume}"
        assert (
            service.ask("POST", f"{path}/action", {"os-terminate_connection": connector})[0] == 202
        )
        assert service.ask("DELETE", path)[0] == 202
        assert service.until(volume, "gone", "error_deleting") == "gone"
        assert list(service.images.iterdir()) == []
        assert data["auth_password"] not in told.read_text()
    finally:
        service.end()
    lines = [json.loads(line) for line in told.read_text().splitlines()]
    exported = [line for line in lines if line["verb"] in ("export", "allow")]
    assert any(line["initiators"] == [INITIATOR] for line in exported)
    assert any(line["verb"] == "unexport" for line in lines)
