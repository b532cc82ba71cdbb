"""What the agent expects of a hypervisor: one suite for the fake and for libvirt.

A test file takes the class over with a ``bench`` of its own: a guest that runs, one that is shut
off, and devices that can be given to them.
"""

from __future__ import annotations

from typing import Protocol

import pytest

from lunport.agent.hypervisor_seam import AgentHypervisor
from lunport.core.change import Change
from lunport.core.errors import GuestNotFound, HypervisorError, LunportError, PlugRejected
from lunport.core.guest import GuestState
from lunport.core.guest_disk import DiskSettings, format_block_disk
from lunport.core.secret import Secret
from lunport.host.clock import Deadline

SERIAL = "58a84f6d-3f0c-4e19-a0af-eb657b790657"
SECRET_ID = "5ec00000-0000-4000-8000-00000000000a"
SECRET = Secret("Secret4Tests1234")
MIB = 1 << 20


class HypervisorBench(Protocol):
    """A hypervisor with two guests: ``running`` and ``off`` are their ids and names."""

    running: tuple[str, str]
    off: tuple[str, str]

    @property
    def hypervisor(self) -> AgentHypervisor:
        """Return what is looked at."""

    def device(self) -> str:
        """Return a device of 16 MiB of this host; the same each time."""

    def stop(self, guest_id: str) -> None:
        """Pull a guest's plug."""

    def seen_size(self, serial: str) -> int:
        """Return the size that the running guest sees of a disk."""


def soon() -> Deadline:
    """Give a busy machine time enough."""
    return Deadline.after(60)


class HypervisorContract:
    """The suite. Each test leaves both guests without a disk of ``SERIAL``."""

    def disk(self, bench: HypervisorBench, target: str = "vdb") -> str:
        """Describe a disk."""
        return format_block_disk(DiskSettings(SERIAL, target, discard=False), bench.device())

    def test_guests_are_found_by_name_and_by_id(self, bench: HypervisorBench) -> None:
        """Both names of a guest show the same one; all are listed by name."""
        for guest_id, name in (bench.running, bench.off):
            by_id = bench.hypervisor.guest(guest_id, soon())
            assert (by_id.id, by_id.name) == (guest_id, name)
            assert bench.hypervisor.guest(name, soon()).id == guest_id
        names = [guest.name for guest in bench.hypervisor.guests(soon())]
        assert names == sorted(names)
        assert {bench.running[1], bench.off[1]} <= set(names)

    def test_a_guest_says_whether_it_runs(self, bench: HypervisorBench) -> None:
        """A guest that runs has a live definition, one that is shut off only a persistent one."""
        running = bench.hypervisor.guest(bench.running[0], soon())
        assert (running.state, running.is_active) == (GuestState.RUNNING, True)
        assert running.persistent is not None
        off = bench.hypervisor.guest(bench.off[0], soon())
        assert (off.state, off.live) == (GuestState.SHUT_OFF, None)
        assert off.persistent is not None

    @pytest.mark.parametrize("name", ["nobody", "d0000000-0000-4000-8000-0000000000ff"])
    def test_an_unknown_guest_is_said_to_be_so(self, bench: HypervisorBench, name: str) -> None:
        """Every verb about a guest tells that there is none."""
        hypervisor = bench.hypervisor
        verbs = (
            lambda: hypervisor.guest(name, soon()),
            lambda: hypervisor.plug(name, self.disk(bench), soon()),
            lambda: hypervisor.unplug(name, SERIAL, soon()),
            lambda: hypervisor.resize(name, SERIAL, MIB, soon()),
            lambda: hypervisor.set_autostart(name, True, soon()),
            lambda: hypervisor.start(name, soon()),
        )
        for verb in verbs:
            with pytest.raises(GuestNotFound):
                verb()

    def test_a_disk_comes_and_goes(self, bench: HypervisorBench) -> None:
        """A running guest has it now and at its next start, until it is taken; then neither."""
        guest_id = bench.running[0]
        bench.hypervisor.plug(guest_id, self.disk(bench), soon())
        guest = bench.hypervisor.guest(guest_id, soon())
        for disk in (guest.live_disk(SERIAL), guest.persistent_disk(SERIAL)):
            assert disk is not None
            assert (disk.target, disk.alias) == ("vdb", f"ua-{SERIAL}")
            assert (disk.kind, disk.source) == ("block", bench.device())
        assert bench.hypervisor.unplug(guest_id, SERIAL, soon()) is Change.CHANGED
        guest = bench.hypervisor.guest(guest_id, soon())
        assert guest.disk(SERIAL) is None
        assert bench.hypervisor.unplug(guest_id, SERIAL, soon()) is Change.UNCHANGED

    def test_a_guest_that_is_off_gets_it_later(self, bench: HypervisorBench) -> None:
        """A guest that is shut off has the disk in its definition."""
        guest_id = bench.off[0]
        bench.hypervisor.plug(guest_id, self.disk(bench), soon())
        guest = bench.hypervisor.guest(guest_id, soon())
        assert guest.live_disk(SERIAL) is None
        assert guest.persistent_disk(SERIAL) is not None
        assert bench.hypervisor.unplug(guest_id, SERIAL, soon()) is Change.CHANGED
        assert bench.hypervisor.guest(guest_id, soon()).disk(SERIAL) is None

    def test_a_plug_that_fails_leaves_no_disk(self, bench: HypervisorBench) -> None:
        """A second disk of the same name is rejected, and the first one is as it was."""
        guest_id = bench.running[0]
        bench.hypervisor.plug(guest_id, self.disk(bench), soon())
        other = self.disk(bench).replace(SERIAL, "another-serial")
        with pytest.raises(PlugRejected):
            bench.hypervisor.plug(guest_id, other, soon())
        guest = bench.hypervisor.guest(guest_id, soon())
        assert guest.disk("another-serial") is None
        assert guest.live_disk(SERIAL) is not None
        bench.hypervisor.unplug(guest_id, SERIAL, soon())

    def test_a_disk_without_its_secret_is_rejected(self, bench: HypervisorBench) -> None:
        """A network disk whose secret is not in the store is rejected, and is nowhere."""
        guest_id = bench.running[0]
        xml = (
            "<disk type='network' device='disk'><driver name='qemu' type='raw'/>"
            "<source protocol='iscsi' name='iqn.2026-11.lab:none/1'>"
            "<host name='127.0.0.1' port='1'/><auth username='u'>"
            f"<secret type='iscsi' uuid='{SECRET_ID}'/></auth></source>"
            f"<target dev='vdb' bus='virtio'/><serial>{SERIAL}</serial></disk>"
        )
        with pytest.raises(PlugRejected):
            bench.hypervisor.plug(guest_id, xml, soon())
        assert bench.hypervisor.guest(guest_id, soon()).disk(SERIAL) is None

    def test_a_guest_hears_of_a_new_size(self, bench: HypervisorBench) -> None:
        """A running guest sees the size it was told; a disk that it does not have is no matter."""
        guest_id = bench.running[0]
        bench.hypervisor.plug(guest_id, self.disk(bench), soon())
        bench.hypervisor.resize(guest_id, SERIAL, 16 * MIB, soon())
        assert bench.seen_size(SERIAL) == 16 * MIB
        bench.hypervisor.unplug(guest_id, SERIAL, soon())
        bench.hypervisor.resize(guest_id, SERIAL, 16 * MIB, soon())

    def test_secrets_come_and_go(self, bench: HypervisorBench) -> None:
        """A secret can be kept twice and forgotten twice; one usage has one secret."""
        hypervisor = bench.hypervisor
        for _ in range(2):
            hypervisor.keep_secret(SECRET_ID, "lunport/a-1", SECRET, soon())
        assert SECRET_ID in hypervisor.secrets(soon())
        other = SECRET_ID.replace("5ec0", "5ec1")
        with pytest.raises(HypervisorError):
            hypervisor.keep_secret(other, "lunport/a-1", SECRET, soon())
        assert hypervisor.forget_secret(SECRET_ID, soon()) is Change.CHANGED
        assert hypervisor.forget_secret(SECRET_ID, soon()) is Change.UNCHANGED
        assert SECRET_ID not in hypervisor.secrets(soon())

    def test_autostart_is_set_once(self, bench: HypervisorBench) -> None:
        """Setting it twice changes it once; a look shows it."""
        guest_id = bench.off[0]
        for wanted in (True, False):
            assert bench.hypervisor.set_autostart(guest_id, wanted, soon()) is Change.CHANGED
            assert bench.hypervisor.set_autostart(guest_id, wanted, soon()) is Change.UNCHANGED
            assert bench.hypervisor.guest(guest_id, soon()).autostart is wanted

    def test_a_guest_is_started_once(self, bench: HypervisorBench) -> None:
        """A guest that is off is started; one that runs is left alone."""
        guest_id = bench.off[0]
        assert bench.hypervisor.start(guest_id, soon()) is Change.CHANGED
        assert bench.hypervisor.guest(guest_id, soon()).is_active
        assert bench.hypervisor.start(guest_id, soon()) is Change.UNCHANGED
        bench.stop(guest_id)
        assert not bench.hypervisor.guest(guest_id, soon()).is_active

    def test_a_start_without_the_secret_fails(self, bench: HypervisorBench) -> None:
        """A guest whose disk names a secret that is not there does not start, and is as before."""
        guest_id = bench.off[0]
        xml = (
            "<disk type='network' device='disk'><driver name='qemu' type='raw'/>"
            "<source protocol='iscsi' name='iqn.2026-11.lab:none/1'>"
            "<host name='127.0.0.1' port='1'/><auth username='u'>"
            f"<secret type='iscsi' uuid='{SECRET_ID}'/></auth></source>"
            f"<target dev='vdb' bus='virtio'/><serial>{SERIAL}</serial></disk>"
        )
        bench.hypervisor.plug(guest_id, xml, soon())
        with pytest.raises(LunportError):
            bench.hypervisor.start(guest_id, soon())
        assert not bench.hypervisor.guest(guest_id, soon()).is_active
        assert bench.hypervisor.unplug(guest_id, SERIAL, soon()) is Change.CHANGED
