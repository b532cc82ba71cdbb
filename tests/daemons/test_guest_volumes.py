"""Volumes of a real service in real guests: written to, grown, failed, killed; nothing is left."""

from __future__ import annotations

import json
import os
import threading
from collections.abc import Callable, Iterator
from dataclasses import dataclass, replace
from pathlib import Path

import pytest

from lunport.agent.attach import AttachWish, attach
from lunport.agent.detach import detach, extend
from lunport.agent.guest_keeper import GuestKeeper
from lunport.agent.guest_parts import GuestParts
from lunport.bootstrap.guests import make_connector, make_guest_parts
from lunport.client.block_storage import BlockStorage
from lunport.core.change import Change
from lunport.core.errors import LunportError, PlugRejected, VolumeApiUnavailable
from lunport.core.guest_disk import InitiatorKind
from lunport.core.iqn import Iqn
from lunport.core.secret import Secret
from lunport.host.clock import Deadline
from tests.daemons.agent_process import AgentProcess
from tests.daemons.guest_bench import OFF, RUNNING, GuestBench, guest_bench, soon
from tests.daemons.loop_host import LoopHost
from tests.daemons.service_process import INITIATOR, ServiceProcess
from tests.daemons.tiny_guest import read_growing_log, read_log

pytestmark = pytest.mark.needs(
    "root", "libvirtd", "tgtd", "qemu-system-x86_64", "gcc", "kernel:loop"
)

KINDS = list(InitiatorKind)
GIB = 1 << 30
_pause = threading.Event()
STEPS = ("reserved", "offered", "connected", "plugged", "completed")


class Killed(BaseException):
    """The process ends here."""


@pytest.fixture(scope="module")
def guests() -> Iterator[GuestBench]:
    """One libvirt with two guests for all tests here."""
    with guest_bench() as bench:
        yield bench


@pytest.fixture(scope="module")
def service(tmp_path_factory: pytest.TempPathFactory) -> Iterator[ServiceProcess]:
    """One service for all tests here."""
    with ServiceProcess(tmp_path_factory.mktemp("service")) as running:
        yield running


@dataclass(slots=True)
class Play:
    """A host with guests, a service, and one volume."""

    guests: GuestBench
    service: ServiceProcess
    api: BlockStorage
    loops: LoopHost
    volume: str
    image: Path

    def parts(self) -> GuestParts:
        """Make the parts, as a process that just started does."""
        made = make_guest_parts(
            self.guests.host.uri,
            self.loops,
            lambda _endpoint: self.api,
            lambda _multipath: make_connector(Iqn(INITIATOR), multipath=False, host="kvm-1"),
            hypervisor=self.guests.hypervisor,
        )
        return replace(made, name_of=lambda device, _deadline: device)  # udev names no loops

    def attach(self, kind: InitiatorKind, guest: str = RUNNING[1]) -> str:
        """Attach the volume; return its name in the guest."""
        done = attach(
            self.parts(), guest, self.volume, self.service.endpoint, AttachWish(kind), soon()
        )
        assert done.change is Change.CHANGED
        return done.disk.target

    def detach(self, guest: str = RUNNING[1]) -> Change:
        """Detach the volume."""
        return detach(self.parts(), guest, self.volume, soon())

    def left(self) -> list[object]:
        """Name what is left of it, anywhere."""
        parts = self.parts()
        found: list[object] = [*parts.journal.all(), *parts.notes.all(), *self.loops.entries]
        found += self.guests.hypervisor.secrets(soon())
        found += [one for one in self.api.list_attachments(soon()) if one.volume_id == self.volume]
        for guest in (RUNNING[0], OFF[0]):
            disk = self.guests.guest(guest).disk(self.volume)
            found += [] if disk is None else [disk]
        status = self.api.get_volume(self.volume, soon()).status
        return found if status == "available" else [*found, status]

    def until_written(self, more: int) -> int:
        """Wait until the guest has written so many blocks more; return how many there are."""
        begun = read_growing_log(self.image, soon())
        deadline = soon()
        while (now := read_growing_log(self.image, soon())) < begun + more:
            assert not deadline.has_passed(), f"{now} blocks, {begun} before"
        return now


def service_token(service: ServiceProcess) -> Secret:
    """Read the service's own token."""
    return Secret((service.data_dir / "service-token").read_text().strip())


@pytest.fixture
def play(
    guests: GuestBench,
    service: ServiceProcess,
    tmp_path: Path,
    monkeypatch: pytest.MonkeyPatch,
) -> Iterator[Play]:
    """A volume of its own for each test; afterwards nothing of it is left."""
    monkeypatch.setenv("LUNPORT_HOST_ROOT", str(tmp_path / "host"))
    api = BlockStorage(service.endpoint, service_token=service_token(service))
    volume = api.create_volume("guest", 1, soon()).id
    api.wait_for_volume(volume, "available", soon())
    (image,) = service.images.glob(f"*{volume}*")
    loops = LoopHost(lambda _volume: image)
    guests.skip()
    one = Play(guests, service, api, loops, volume, image)
    yield one
    assert one.left() == []
    api.delete_volume(volume, soon())
    api.wait_until_deleted(volume, soon())
    api.close()


@pytest.mark.parametrize("kind", KINDS)
def test_a_guest_writes_to_a_volume(play: Play, kind: InitiatorKind) -> None:
    """A running guest gets the volume, writes a log that is whole on the storage, and grows."""
    play.attach(kind)
    assert play.guests.until_sized("DISK") == GIB
    play.guests.until_said("begins 0")
    play.until_written(20)
    size = GIB
    if kind is InitiatorKind.KERNEL:  # tgt shows no new size while a session lasts
        size = 2 * GIB
        os.truncate(play.image, size)
    assert extend(play.parts(), RUNNING[1], play.volume, soon()) == size
    if kind is InitiatorKind.KERNEL:
        assert play.guests.until_sized("SIZE") == size
    play.until_written(20)
    assert play.detach() is Change.CHANGED
    play.guests.until_said("GONE")
    assert read_log(play.image) >= 40
    assert play.left() == []


@pytest.mark.parametrize("kind", KINDS)
def test_a_log_goes_on_after_another_attach(play: Play, kind: InitiatorKind) -> None:
    """What was written is there when the volume comes back, by the other initiator as well."""
    play.attach(kind)
    play.guests.until_said("begins 0")
    play.until_written(10)
    play.detach()
    written = read_log(play.image)
    other = next(one for one in KINDS if one is not kind)
    play.attach(other)
    assert int(play.guests.until_said("begins").split()[-1]) == written
    play.detach()
    assert read_log(play.image) >= written


def test_the_secret_is_nowhere_to_be_read(play: Play) -> None:
    """Neither a definition, nor a process's arguments, nor a log holds the volume's secret."""
    play.attach(InitiatorKind.QEMU)
    (entry,) = play.parts().journal.all()
    chap = play.parts().journal.chap(entry)
    assert chap is not None
    secret = chap.initiator.password.reveal()
    guest = play.guests.guest()
    texts = [one.xml for one in (*guest.live.disks, *guest.persistent.disks)]  # type: ignore[union-attr]
    texts += [
        (process / "cmdline").read_bytes().decode(errors="replace")
        for process in Path("/proc").glob("[0-9]*")
        if (process / "cmdline").exists()
    ]
    texts.append((play.guests.host.folder / "libvirtd.log").read_text(errors="replace"))
    assert all(secret not in text for text in texts)
    play.detach()


@pytest.mark.parametrize("kind", KINDS)
@pytest.mark.parametrize("step", STEPS)
def test_a_killed_attach_is_undone_on_real_parts(
    play: Play, kind: InitiatorKind, step: str
) -> None:
    """After a kill behind any step a recovery leaves nothing in guest, host, target and service."""

    def kill(done: str) -> None:
        if done == step:
            raise Killed

    with pytest.raises(Killed):
        attach(
            replace(play.parts(), on_step=kill),
            RUNNING[1],
            play.volume,
            play.service.endpoint,
            AttachWish(kind),
            soon(),
        )
    assert play.left() != []
    lines = GuestKeeper(play.parts()).finish(soon())
    assert [line.outcome for line in lines] == ["done"], lines
    assert play.left() == []


@pytest.mark.parametrize("where", ["connect", "plug", "service"])
def test_a_failure_on_real_parts_leaves_nothing(play: Play, where: str) -> None:
    """A host that can't connect, a name that is taken, a service that goes: all is undone."""
    parts = play.parts()
    expected: type[LunportError] = VolumeApiUnavailable
    wish = AttachWish(InitiatorKind.KERNEL)
    if where == "connect":
        play.loops.failures["connect"] = expected("no way")
    elif where == "plug":
        expected = PlugRejected
        parts = replace(parts, name_of=lambda _device, _deadline: "/dev/no-such-device")
    else:
        away = _AwayAtTheEnd(play.service.endpoint, service_token=service_token(play.service))
        parts = replace(parts, api=lambda _endpoint: away)
    with pytest.raises(expected):
        attach(parts, RUNNING[1], play.volume, play.service.endpoint, wish, soon())
    assert play.left() == []


class _AwayAtTheEnd(BlockStorage):
    """A service that does not answer just when an attach is to be completed."""

    def complete_attachment(self, attachment_id: str, deadline: Deadline) -> None:
        """Fail."""
        raise VolumeApiUnavailable("the service went away")


def test_a_reboot_brings_secret_and_guest_back(play: Play) -> None:
    """The agent starts what libvirt would have started, with the secret that libvirt forgot.

    The guest was shut off when it got the volume; from its start on it has it, CHAP and all.
    """
    play.guests.hypervisor.set_autostart(OFF[0], True, soon())
    play.attach(InitiatorKind.QEMU, OFF[1])
    assert play.guests.guest(OFF[0]).autostart is False
    play.guests.host.kill_daemon()
    play.guests.host.start_daemon()
    after = replace(play.parts(), boot_id=lambda: "the next boot")
    lines = GuestKeeper(after).round(soon())
    assert [line.outcome for line in lines] == ["done", "done"], lines
    assert play.guests.guest(OFF[0]).is_active
    assert play.guests.until_sized("DISK", OFF[1]) == GIB
    play.until_written(5)
    play.guests.stop(OFF[0])
    play.detach(OFF[1])
    assert play.guests.hypervisor.set_autostart(OFF[0], False, soon()) is Change.CHANGED


@pytest.mark.parametrize("kind", KINDS)
def test_two_guests_share_a_volume(play: Play, kind: InitiatorKind) -> None:
    """A volume that may be shared is shared: each guest has its own attachment, one goes alone."""
    body = {"name": "shared", "size": 1, "multiattach": True}
    status, said = play.service.ask("POST", "/volumes", {"volume": body})
    assert status == 202, said
    shared = said["volume"]["id"]
    play.api.wait_for_volume(shared, "available", soon())
    (image,) = play.service.images.glob(f"*{shared}*")
    loops = LoopHost(lambda _volume: image)
    one = replace(play, volume=shared, image=image, loops=loops)
    one.attach(kind)
    one.guests.until_said("begins 0")
    done = attach(one.parts(), OFF[1], shared, one.service.endpoint, AttachWish(kind), soon())
    assert done.disk.is_shareable
    assert len([a for a in one.api.list_attachments(soon()) if a.volume_id == shared]) == 2
    assert one.detach(OFF[1]) is Change.CHANGED
    one.until_written(5)
    assert one.detach() is Change.CHANGED
    assert one.left() == []
    play.api.delete_volume(shared, soon())
    play.api.wait_until_deleted(shared, soon())


def test_the_agent_s_process_keeps_guests(play: Play, tmp_path: Path) -> None:
    """A running agent takes away what a killed attach left, and gives libvirt its secrets again."""

    def kill(done: str) -> None:
        if done == "plugged":
            raise Killed

    wish = AttachWish(InitiatorKind.QEMU)
    endpoint = play.service.endpoint
    with pytest.raises(Killed):
        attach(replace(play.parts(), on_step=kill), OFF[1], play.volume, endpoint, wish, soon())
    agent = AgentProcess(tmp_path / "host")
    token_file = play.service.data_dir / "service-token"
    agent.start("--libvirt", play.guests.host.uri, "--service-token-file", str(token_file))
    try:
        until(lambda: play.left() == [])
        play.attach(InitiatorKind.QEMU, OFF[1])
        play.guests.host.kill_daemon()
        play.guests.host.start_daemon()
        until(lambda: play.guests.hypervisor.secrets(soon()) != ())
        assert play.detach(OFF[1]) is Change.CHANGED
    finally:
        agent.end()
    assert "guest_kept" in agent.log.read_text()


def test_the_command_as_a_process(play: Play, tmp_path: Path) -> None:
    """The command line does all of it from the outside, with its exit statuses."""
    host = AgentProcess(tmp_path / "host")
    token_file = str(play.service.data_dir / "service-token")
    libvirt = ("--libvirt", play.guests.host.uri)
    service = ("--endpoint", play.service.endpoint, "--service-token-file", token_file)

    def run(*words: str) -> tuple[int, str, str]:
        return host.run("guest", *words, *libvirt)

    attached = run("attach", OFF[1], play.volume, "--initiator", "qemu", *service)
    assert (attached[0], attached[1][:4]) == (0, "vda\n"), attached
    shown = run("show", OFF[1], "-o", "json")
    assert json.loads(shown[1])["volumes"][0]["problem"] is None, shown
    assert play.volume in run("list")[1]
    detached = run("detach", OFF[1], play.volume, "--service-token-file", token_file)
    assert detached[:2] == (0, "Detached.\n"), detached
    assert run("attach", "nobody", play.volume, *service)[0] == 3


def until(is_so: Callable[[], bool]) -> None:
    """Wait for something."""
    deadline = soon()
    while not is_so():
        assert not deadline.has_passed()
        _pause.wait(0.2)
