"""``lunport host`` on the real kernel: with a SAN's connection info, and with a real service."""

from __future__ import annotations

import json
from collections.abc import Callable, Iterator
from pathlib import Path

import pytest

from lab.san import San
from lunport.bootstrap.host_volumes import known_connection
from lunport.cli.main import main
from lunport.core.change import Change
from lunport.core.connection_info import ConnectionInfo, format_connection_info
from lunport.core.target_path import TargetPath
from lunport.host.clock import Deadline
from lunport.host.runner import run
from lunport.initiator.connector import Initiator
from tests.daemons.service_process import ServiceProcess
from tests.lab.conftest import LabHost
from tests.lab.connecting import CHAP, disks, info_of, node_records, sessions

START_S = 120.0

Host = Callable[..., tuple[int, str, str]]


@pytest.fixture
def host(capsys: pytest.CaptureFixture[str]) -> Host:
    """Run ``lunport host``; give its exit status, what it printed, and its error."""

    def run(*words: str) -> tuple[int, str, str]:
        with pytest.raises(SystemExit) as ended:
            main(["host", *words])
        printed = capsys.readouterr()
        assert CHAP.initiator.password.reveal() not in printed.out + printed.err
        return int(ended.value.code or 0), printed.out, printed.err

    return run


@pytest.fixture(scope="module")
def service(
    lab_host: LabHost, tmp_path_factory: pytest.TempPathFactory
) -> Iterator[ServiceProcess]:
    """A service of its own; its start takes its time where the machine is emulated."""
    del lab_host
    with ServiceProcess(tmp_path_factory.mktemp("service"), start_s=START_S) as running:
        yield running


def written(info: ConnectionInfo, folder: Path) -> str:
    """Write a connection info as the service would; return the file's name."""
    file = folder / "info.json"
    file.write_text(json.dumps({"connection_info": format_connection_info(info, multipath=False)}))
    file.chmod(0o600)
    return str(file)


def test_a_connection_info_there_and_back(san: San, host: Host, tmp_path: Path) -> None:
    """Plan, connect, list, extend, disconnect: each says what is so, and nothing is left."""
    target = san.target(chap=CHAP)
    disk = san.add_lun(target, 1)
    file = written(info_of(target, 1, disk, chap=CHAP), tmp_path)

    status, said, _ = host("connect", "--connection-info", file, "--plan")
    assert (status, sessions(), disks()) == (0, [], [])
    assert "iscsiadm" in said

    status, said, error = host("connect", "--connection-info", file, "-o", "json")
    assert status == 0, error
    volume = json.loads(said)
    assert Path(volume["path"]).is_block_device()
    assert (volume["wwid"], volume["size_bytes"]) == (disk.wwid, 64 << 20)

    (one,) = json.loads(host("list", "-o", "json")[1])["connections"]
    assert (one["path"], one["phase"]) == (volume["path"], "connected")
    assert host("extend", "--connection-info", file)[:2] == (0, f"{64 << 20} bytes\n")
    assert host("disconnect", "--connection-info", file)[:2] == (0, "Disconnected.\n")
    assert (sessions(), disks(), node_records()) == ([], [], [])
    assert host("list")[1] == "Nothing is connected.\n"


def test_a_disk_in_use_and_a_missing_unit(san: San, host: Host, tmp_path: Path) -> None:
    """An open disk is left alone (4); a unit that is not there is not found (3)."""
    target = san.target()
    disk = san.add_lun(target, 1)
    file = written(info_of(target, 1, disk), tmp_path)
    path = host("connect", "--connection-info", file)[1].splitlines()[0]
    with Path(path).open("rb"):
        status, _, error = host("disconnect", "--connection-info", file)
    assert status == 4
    assert error.count("\n") == 1
    assert host("disconnect", "--connection-info", file)[0] == 0
    absent = written(info_of(target, 7), tmp_path)
    status, said, error = host("connect", "--connection-info", absent)
    assert (status, said, error.count("\n")) == (3, "", 1)


def test_a_volume_of_the_service(service: ServiceProcess, host: Host) -> None:
    """A volume of a running service becomes a disk, keeps what is written, and is given back."""
    volume = service.create()
    where = ("--endpoint", service.endpoint)
    status, said, error = host("connect", volume, *where)
    assert status == 0, error
    path = Path(said.splitlines()[0])
    assert service.status_of(volume) == "in-use"
    path.write_bytes(b"written by a host")
    assert host("connect", volume, *where)[1].splitlines()[0] == str(path)
    (one,) = json.loads(host("list", "-o", "json")[1])["connections"]
    assert (one["volume_id"], one["attachment_id"]) == (volume, one["holders"][0])

    assert host("disconnect", volume)[:2] == (0, "Disconnected.\n")
    assert (sessions(), disks(), node_records()) == ([], [], [])
    assert service.until(volume, "available") == "available"
    again = host("connect", volume, *where)[1].splitlines()[0]
    with Path(again).open("rb") as disk:
        assert disk.read(17) == b"written by a host"
    assert host("disconnect", volume)[0] == 0


def test_a_disconnect_that_was_killed_is_finished(service: ServiceProcess, host: Host) -> None:
    """After a kill between disk and attachment, recover gives the attachment back."""
    volume = service.create()
    assert host("connect", volume, "--endpoint", service.endpoint)[0] == 0
    (entry,) = Initiator().connections()
    assert Initiator().disconnect(known_connection(entry, None)) is Change.CHANGED
    (bare,) = json.loads(host("list", "-o", "json")[1])["attachments_without_disk"]
    assert bare["volume_id"] == volume
    status, said, error = host("recover")
    assert status == 0, said + error
    assert bare["attachment_id"] in said
    assert service.until(volume, "available") == "available"
    assert bare["attachment_id"] not in host("recover")[1]


@pytest.mark.again
def test_high_luns(san: San, host: Host, tmp_path: Path) -> None:
    """LUNs of 257 and of 16383 are found by the probe and by the kernel alike."""
    target = san.target()
    for lun in (257, 16383):
        disk = san.add_lun(target, lun)
        info = ConnectionInfo((TargetPath(target.portals[0], target.iqn, lun),), wwid=disk.wwid)
        file = written(info, tmp_path)
        status, said, error = host("connect", "--connection-info", file, "-o", "json")
        assert status == 0, error
        assert json.loads(said)["wwid"] == disk.wwid
        assert host("disconnect", "--connection-info", file)[0] == 0


def test_a_leftover_is_shown_and_removed_when_asked(san: San, host: Host) -> None:
    """A login that nobody's journal knows is listed, left by recover, and removed on demand."""
    target = san.target()
    san.add_lun(target, 1)
    words = ["iscsiadm", "-m", "node", "-T", target.iqn, "-p", str(target.portals[0])]
    run([*words, "-o", "new"], Deadline.after(30))
    run([*words, "--login"], Deadline.after(30))
    (leftover, *_) = json.loads(host("list", "-o", "json")[1])["leftovers"]
    assert str(target.iqn) in leftover
    status, said, _ = host("recover")
    assert (status, len(sessions())) == (0, 1)
    assert f"seen    {leftover}" in said
    assert f"would   {leftover}" in host("recover", "--dry-run", "--remove-leftovers")[1]
    status, said, error = host("recover", "--remove-leftovers")
    assert status == 0, said + error
    assert (sessions(), disks(), node_records()) == ([], [], [])
