"""Attaching to guests over the kernel's real initiator and a real service; the guests are played.

What a guest's disk is made of: the lasting name of a disk whose identity was verified. Real guests
with real libvirt are in ``tests/daemons``.
"""

from __future__ import annotations

import os
from collections.abc import Iterator
from dataclasses import replace
from pathlib import Path

import pytest

from lunport.agent.agent import Agent
from lunport.agent.attach import AttachWish, attach
from lunport.agent.detach import detach, extend
from lunport.agent.guest_keeper import GuestKeeper
from lunport.agent.guest_parts import GuestParts
from lunport.bootstrap.guests import make_connector, make_guest_parts
from lunport.client.block_storage import BlockStorage
from lunport.core.change import Change
from lunport.core.errors import DeviceBusy
from lunport.core.secret import Secret
from lunport.host.clock import Deadline
from lunport.initiator.connector import Initiator
from tests.daemons.service_process import ServiceProcess
from tests.fakes.fake_hypervisor import FakeHypervisor
from tests.lab.conftest import LabHost
from tests.lab.connecting import disks, node_records, sessions

pytestmark = pytest.mark.again

START_S = 120.0
ONE = ("d0000000-0000-4000-8000-000000000001", "web")
OTHER = ("d0000000-0000-4000-8000-000000000002", "db")


class Killed(BaseException):
    """The process ends here."""


def soon() -> Deadline:
    """Give an emulated machine time enough."""
    return Deadline.after(120)


@pytest.fixture(scope="module")
def service(
    lab_host: LabHost, tmp_path_factory: pytest.TempPathFactory
) -> Iterator[ServiceProcess]:
    """A service of its own."""
    del lab_host
    with ServiceProcess(tmp_path_factory.mktemp("service"), start_s=START_S) as running:
        yield running


@pytest.fixture
def parts(service: ServiceProcess, lab_host: LabHost) -> Iterator[GuestParts]:
    """The parts of this host, real but for the hypervisor; afterwards nothing is left."""
    hypervisor = FakeHypervisor()
    hypervisor.define(*ONE)
    hypervisor.define(*OTHER)
    token = Secret((service.data_dir / "service-token").read_text().strip())
    api = BlockStorage(service.endpoint, service_token=token)
    made = make_guest_parts(
        "test:///played",
        Agent(Initiator(), lambda: False),
        lambda _endpoint: api,
        lambda _multipath: make_connector(lab_host.initiator, multipath=False),
        hypervisor=hypervisor,
    )
    yield made
    assert [*made.journal.all(), *made.notes.all()] == []
    assert (sessions(), disks(), node_records()) == ([], [], [])
    api.close()


def attached(parts: GuestParts, service: ServiceProcess, volume: str, guest: str = "web") -> str:
    """Attach a volume; return the disk's source."""
    done = attach(parts, guest, volume, service.endpoint, AttachWish(), soon())
    assert done.disk.source is not None
    return done.disk.source


def test_a_guest_s_disk_is_the_volume(parts: GuestParts, service: ServiceProcess) -> None:
    """The name in the guest's definition lasts, and leads to the bytes of the volume."""
    volume = service.create()
    source = attached(parts, service, volume)
    assert source.startswith("/dev/disk/by-id/")
    with Path(source).open("r+b", buffering=0) as disk:
        disk.write(b"written by a guest".ljust(512))
        os.fsync(disk.fileno())
    assert extend(parts, "web", volume, soon()) == 1 << 30
    assert detach(parts, "web", volume, soon()) is Change.CHANGED
    assert service.status_of(volume) == "available"
    again = attached(parts, service, volume)
    with Path(again).open("rb") as disk:
        assert disk.read(18) == b"written by a guest"
    detach(parts, "web", volume, soon())


def test_a_disk_that_is_held_stays(parts: GuestParts, service: ServiceProcess) -> None:
    """While a process has the disk open it is not taken from the host; the next detach goes on."""
    volume = service.create()
    source = attached(parts, service, volume)
    with Path(source).open("rb"), pytest.raises(DeviceBusy):
        detach(parts, "web", volume, soon())
    assert len(disks()) == 1
    assert service.status_of(volume) == "in-use"
    assert detach(parts, "web", volume, soon()) is Change.CHANGED


def test_guests_share_one_disk(parts: GuestParts, service: ServiceProcess) -> None:
    """Two guests with one volume have one disk of the host, until the last one is done."""
    body = {"name": "shared", "size": 1, "multiattach": True}
    status, said = service.ask("POST", "/volumes", {"volume": body})
    assert status == 202, said
    volume = said["volume"]["id"]
    service.until(volume, "available")
    source = attached(parts, service, volume)
    assert attached(parts, service, volume, "db") == source
    assert len(disks()) == 1
    detach(parts, "web", volume, soon())
    assert Path(source).is_block_device()
    detach(parts, "db", volume, soon())


@pytest.mark.parametrize("step", ["reserved", "offered", "connected", "plugged", "completed"])
def test_a_killed_attach_leaves_nothing(
    parts: GuestParts, service: ServiceProcess, step: str
) -> None:
    """After a kill behind any step a recovery takes disk, session, record and attachment away."""
    volume = service.create()

    def kill(done: str) -> None:
        if done == step:
            raise Killed

    with pytest.raises(Killed):
        attached(replace(parts, on_step=kill), service, volume)
    lines = GuestKeeper(parts).finish(soon())
    assert [line.outcome for line in lines] == ["done"], lines
    assert service.status_of(volume) == "available"
