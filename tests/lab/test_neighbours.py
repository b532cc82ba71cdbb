"""Others on the host: multipathd that takes every disk, and an iscsid that does not run."""

from __future__ import annotations

import os
import struct
from collections.abc import Iterator
from pathlib import Path

import pytest

from lab import services
from lab.san import San
from lab.services import wait_until
from lunport.core.change import Change
from lunport.core.errors import DeviceBusy, InitiatorDown
from lunport.host.clock import Deadline
from lunport.host.runner import run
from lunport.initiator.connector import Initiator
from tests.lab.connecting import disks, first_bytes, info_of, mark, node_records, sessions
from tests.lab.mishaps import QUICK


def maps() -> list[str]:
    """List the multipath maps of this host."""
    uuids = Path("/sys/block").glob("dm-*/dm/uuid")
    return sorted(uuid.parent.parent.name for uuid in uuids if "mpath-" in uuid.read_text())


@pytest.fixture
def multipathd() -> Iterator[None]:
    """Have multipathd run and take every disk."""
    with services.multipathd():
        yield


@pytest.mark.usefixtures("multipathd")
def test_a_map_that_multipathd_made_goes_with_its_disk(san: San) -> None:
    """Where it made a map of our disk, a disconnect leaves no map and nothing else."""
    target = san.target()
    disk = san.add_lun(target, 1)
    content = mark(disk, "under a map")
    info = info_of(target, 1, disk)
    initiator = Initiator()
    for _ in range(2):
        initiator.connect(info)
        wait_until(maps, "multipathd's map")
        (name,) = maps()
        wait_until(Path(f"/dev/{name}").exists, "its node")
        with Path(f"/dev/{name}").open("rb") as reader:
            with pytest.raises(DeviceBusy) as raised:
                Initiator(policy=QUICK).disconnect(info)
            assert f"({os.getpid()})" in str(raised.value)
            assert (len(maps()), len(disks()), len(sessions())) == (1, 1, 1)
            assert reader.read(512) == content
        initiator.disconnect(info)
        assert (maps(), disks(), sessions(), node_records()) == ([], [], [], [])


@pytest.mark.usefixtures("multipathd")
def test_a_partitioned_disk_goes_with_the_map_that_multipathd_made(san: San) -> None:
    """Maps of partitions alone keep nobody; somebody who has one open does."""
    target = san.target()
    disk = san.add_lun(target, 1)
    with disk.file.open("r+b") as file:
        file.write(partition_table())
    info = info_of(target, 1, disk)
    initiator = Initiator(policy=QUICK)
    initiator.connect(info)
    wait_until(maps, "multipathd's map")
    (name,) = maps()
    holders = Path("/sys/block", name, "holders")
    wait_until(Path(f"/dev/{name}").exists, "its node")
    run(["kpartx", "-a", "-p", "-part", f"/dev/{name}"], Deadline.after(60))
    wait_until(lambda: list(holders.iterdir()), "its partition's map")
    (part,) = [path.name for path in holders.iterdir()]
    wait_until(Path(f"/dev/{part}").exists, "its node")
    with Path(f"/dev/{part}").open("rb"), pytest.raises(DeviceBusy):
        initiator.disconnect(info)
    initiator.disconnect(info)
    assert (maps(), disks(), sessions(), node_records()) == ([], [], [], [])


def partition_table() -> bytes:
    """Return an MBR with one Linux partition of 4 MiB behind the first."""
    entry = struct.pack("<B3sB3sII", 0, b"\0\2\0", 0x83, b"\0\2\0", 2048, 8192)
    return bytes(446) + entry + bytes(48) + b"\x55\xaa"


def test_without_iscsid_a_connect_says_what_mends_it(san: San) -> None:
    """The error names the command, nothing is left, and once it runs all is well."""
    target = san.target()
    info = info_of(target, 1, san.add_lun(target, 1))
    initiator = Initiator()
    with services.without_iscsid():
        with pytest.raises(InitiatorDown) as raised:
            initiator.connect(info)
        assert "systemctl start iscsid" in str(raised.value)
        assert (sessions(), disks(), node_records(), initiator.connections()) == ([], [], [], ())
    volume = initiator.connect(info)
    assert first_bytes(volume.path)
    initiator.disconnect(info)


def test_a_volume_can_be_disconnected_once_iscsid_is_back(san: San) -> None:
    """Without it a disconnect says what is missing and keeps the session in the journal."""
    target = san.target()
    info = info_of(target, 1, san.add_lun(target, 1))
    initiator = Initiator()
    initiator.connect(info)
    with services.without_iscsid():
        with pytest.raises(InitiatorDown):
            initiator.disconnect(info)
        assert (len(sessions()), len(node_records()), disks()) == (1, 1, [])
        assert len(initiator.host.journal.sessions()) == 1
    assert initiator.disconnect(info) is Change.CHANGED
    assert initiator.host.journal.sessions() == ()
    assert (sessions(), disks(), node_records(), initiator.connections()) == ([], [], [], ())
