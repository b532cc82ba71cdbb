"""A target for each host, end to end: `lunport serve`, a real tgtd, QEMU's initiator as hosts.

What a host may not see is not merely unnamed: it is asked for, and refused.
"""

from __future__ import annotations

import contextlib
import os
import signal
import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest

from lunport.core.chap import ChapCredentials
from lunport.core.iqn import Iqn
from lunport.core.portal import parse_portal
from lunport.core.secret import Secret
from tests.daemons.qemu_io import QemuRefusedError, QemuSession
from tests.daemons.service_process import ServiceProcess

pytestmark = pytest.mark.needs("tgtd", "qemu-io")

A = {"initiator": "iqn.2026-11.io.lunport.test:per-host-a", "host": "host-a"}
B = {"initiator": "iqn.2026-11.io.lunport.test:per-host-b", "host": "host-b"}


@pytest.fixture
def service(tmp_path: Path) -> Iterator[ServiceProcess]:
    """A service with a target for each host."""
    with ServiceProcess(tmp_path, backend='export = "target_per_host"') as running:
        yield running


def connect(service: ServiceProcess, volume: str, host: dict[str, str]) -> dict[str, Any]:
    """Connect a host; return where it was told to go."""
    action = {"os-initialize_connection": {"connector": host}}
    status, answer = service.ask("POST", f"/p/volumes/{volume}/action", action)
    assert status == 200, answer
    data: dict[str, Any] = answer["connection_info"]["data"]
    return data


def disconnect(service: ServiceProcess, volume: str, host: dict[str, str]) -> None:
    """Disconnect a host."""
    action = {"os-terminate_connection": {"connector": host}}
    assert service.ask("POST", f"/p/volumes/{volume}/action", action)[0] == 202


def log_in(
    folder: Path, told: dict[str, Any], host: dict[str, str], lun: int | None = None
) -> QemuSession:
    """Log in as a host with what it was told."""
    return QemuSession(
        folder,
        parse_portal(told["target_portal"]),
        Iqn(told["target_iqn"]),
        Iqn(host["initiator"]),
        ChapCredentials(told["auth_username"], Secret(told["auth_password"])),
        told["target_lun"] if lun is None else lun,
    )


def first_bytes(service: ServiceProcess, volume: str) -> bytes:
    """Read an image's first bytes, behind the target's back."""
    with (service.images / f"volume-{volume}").open("rb") as image:
        return image.read(4)


def export_command(service: ServiceProcess, *words: str) -> subprocess.CompletedProcess[str]:
    """Run `lunport export`."""
    program = "from lunport.cli.main import main; main()"
    return subprocess.run(
        [sys.executable, "-c", program, "export", *words, "--endpoint", service.endpoint],
        capture_output=True,
        text=True,
        timeout=60,
        check=False,
        env={**os.environ, "PYTHONPATH": os.pathsep.join(sys.path)},
    )


def write_fails(session: QemuSession, pattern: str) -> bool:
    """Tell whether a write is not acknowledged."""
    try:
        said = session.run(f"write -P {pattern} 0 4k", 3)
    except (TimeoutError, QemuRefusedError, BrokenPipeError):
        return True
    return "wrote 4096/4096" not in said


def test_hosts_find_their_volumes_and_no_others(service: ServiceProcess, tmp_path: Path) -> None:
    """Each host writes to its own at the LUNs it was told; no other LUN, no other target."""
    mine, too, theirs = (service.create() for _ in range(3))
    told = connect(service, mine, A)
    more = connect(service, too, A)
    other = connect(service, theirs, B)
    assert told["target_iqn"] == more["target_iqn"] != other["target_iqn"]
    assert (told["target_lun"], more["target_lun"], other["target_lun"]) == (1, 2, 1)
    for where, host, pattern in ((told, A, "0x11"), (more, A, "0x22"), (other, B, "0x33")):
        with log_in(tmp_path, where, host) as session:
            assert "wrote 4096/4096" in session.run(f"write -P {pattern} 0 4k")
            session.log_out()
    assert [first_bytes(service, one) for one in (mine, too, theirs)] == [
        b"\x11" * 4,
        b"\x22" * 4,
        b"\x33" * 4,
    ]
    with pytest.raises(QemuRefusedError):
        log_in(tmp_path, told, A, lun=3)
    with pytest.raises(QemuRefusedError):
        log_in(tmp_path, other, A)  # even with the other's secret


def test_a_detach_beside_running_io(service: ServiceProcess, tmp_path: Path) -> None:
    """While a host's other volume comes and goes its session goes on, at the same LUN."""
    stays, moving = service.create(), service.create()
    told = connect(service, stays, A)
    with log_in(tmp_path, told, A) as session:
        luns = []
        for _ in range(3):
            luns.append(connect(service, moving, A)["target_lun"])
            assert "wrote 4096/4096" in session.run("write -P 0x44 0 4k")
            disconnect(service, moving, A)
            assert "wrote 4096/4096" in session.run("write -P 0x55 0 4k")
        assert luns == [2, 3, 4]
        session.log_out()
    disconnect(service, stays, A)
    assert service.ask("GET", "/p/exports")[1]["exports"] == []


def test_the_daemon_dies(service: ServiceProcess, tmp_path: Path) -> None:
    """When tgtd is back a host finds its volumes at the same LUNs with the same secret."""
    volumes = [service.create() for _ in range(3)]
    told = [connect(service, volume, A) for volume in volumes]
    os.kill(service.tgtd(), signal.SIGKILL)
    service.until_logged("target_daemon_died")
    service.until_connected(service.create())
    assert export_command(service, "check", "--repair").returncode == 0
    for number, where in enumerate(told):
        with log_in(tmp_path, where, A) as session:
            assert "wrote 4096/4096" in session.run(f"write -P {number + 1} 0 4k")
            session.log_out()
    assert [first_bytes(service, one)[:1] for one in volumes] == [b"\x01", b"\x02", b"\x03"]
    assert [connect(service, volume, A) for volume in volumes] == told


def test_a_host_that_is_cut_off_writes_no_more(service: ServiceProcess, tmp_path: Path) -> None:
    """Its session is dropped, its write never arrives, it can't come back; then it can."""
    doubted, fine = service.create(), service.create()
    told, other = connect(service, doubted, A), connect(service, fine, B)
    with contextlib.ExitStack() as stack:
        session = stack.enter_context(log_in(tmp_path, told, A))
        beside = stack.enter_context(log_in(tmp_path, other, B))
        assert "wrote 4096/4096" in session.run("write -P 0x11 0 4k")
        done = export_command(service, "revoke", "--host", "host-a", "--reason", "silent")
        assert (done.returncode, done.stdout) == (0, f"Cut off.\n  volume    {doubted}\n")
        assert write_fails(session, "0x22")
        assert first_bytes(service, doubted) == b"\x11" * 4
        assert "wrote 4096/4096" in beside.run("write -P 0x33 0 4k")
        beside.log_out()
    with pytest.raises(QemuRefusedError):
        log_in(tmp_path, told, A)
    action = {"os-initialize_connection": {"connector": A}}
    status, answer = service.ask("POST", f"/p/volumes/{doubted}/action", action)
    assert (status, "silent" in answer["forbidden"]["message"]) == (403, True)
    assert export_command(service, "check").returncode == 0
    assert export_command(service, "restore", "--host", "host-a").returncode == 0
    with log_in(tmp_path, told, A) as session:
        assert "wrote 4096/4096" in session.run("write -P 0x66 0 4k")
        session.log_out()
    assert first_bytes(service, doubted) == b"\x66" * 4
    assert connect(service, doubted, A) == told


def test_a_policy_that_tgt_cannot_keep(tmp_path: Path) -> None:
    """A shared target is refused at the start: with tgt each host would see all volumes."""
    service = ServiceProcess(tmp_path, backend='export = "shared_target"')
    status, said = service.refusal()
    assert status == 2
    assert "each host would see the volumes of all" in said
