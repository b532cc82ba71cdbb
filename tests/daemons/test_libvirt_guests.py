"""libvirt with real guests behind our seam: the common contract, and what only real ones do."""

from __future__ import annotations

import threading
import time
from collections.abc import Iterator

import libvirt
import pytest

from lunport.core.change import Change
from lunport.core.disk_source import DiskSource
from lunport.core.domain_xml import rewrite_domain
from lunport.core.errors import HypervisorUnavailable, PlugRejected, UnplugTimedOut
from lunport.core.guest import GuestState
from lunport.core.guest_disk import DiskSettings, format_block_disk, format_network_disk
from lunport.core.iqn import Iqn
from lunport.core.portal import Portal
from lunport.core.target_path import TargetPath
from lunport.host.clock import Deadline
from lunport.hypervisor.connection import Keepalive, LibvirtConnection
from lunport.hypervisor.guests import LibvirtGuests
from tests.contract.hypervisor_suite import (
    SECRET,
    SECRET_ID,
    SERIAL,
    HypervisorBench,
    HypervisorContract,
)
from tests.daemons.guest_bench import OFF, RUNNING, GuestBench, guest_bench, soon

pytestmark = pytest.mark.needs("root", "libvirtd", "qemu-system-x86_64", "gcc", "kernel:loop")


@pytest.fixture(scope="module")
def guests() -> Iterator[GuestBench]:
    """One libvirt with two guests for all tests here; each leaves them as they were."""
    with guest_bench() as bench:
        yield bench


@pytest.fixture(autouse=True)
def all_heard(guests: GuestBench) -> None:
    """Begin each test with what the guest says from now on."""
    guests.skip()


def plug(bench: GuestBench) -> None:
    """Give the running guest the loop device, and wait until it writes to it."""
    xml = format_block_disk(DiskSettings(SERIAL, "vdb", discard=False), bench.device())
    bench.hypervisor.plug(RUNNING[0], xml, soon())
    bench.until_said("begins")


class TestLibvirt(HypervisorContract):
    """libvirt does as the fake does."""

    @pytest.fixture
    def bench(self, guests: GuestBench) -> HypervisorBench:
        """The real one."""
        return guests


def test_a_guest_that_is_slow_is_told_and_may_be_asked_again(guests: GuestBench) -> None:
    """A guest that does not answer keeps its disk; once it goes on it lets go, at the next try."""
    plug(guests)
    act(guests, lambda domain: domain.suspend())
    assert guests.guest().state is GuestState.PAUSED
    with pytest.raises(UnplugTimedOut, match="said neither yes nor no"):
        guests.hypervisor.unplug(RUNNING[0], SERIAL, Deadline.after(6))
    assert guests.guest().persistent_disk(SERIAL) is not None
    act(guests, lambda domain: domain.resume())
    guests.hypervisor.unplug(RUNNING[0], SERIAL, soon())
    assert guests.guest().disk(SERIAL) is None
    guests.until_said("GONE")


def test_the_secret_cannot_be_read(guests: GuestBench) -> None:
    """The store gives a secret to QEMU alone, and does not write it down."""
    guests.hypervisor.keep_secret(SECRET_ID, "lunport/a-1", SECRET, soon())

    def read(connection: libvirt.virConnect) -> str:
        secret = connection.secretLookupByUUIDString(SECRET_ID)
        with pytest.raises(libvirt.libvirtError, match="private"):
            secret.value()
        xml: str = secret.XMLDesc()
        return xml

    xml = guests.hypervisor.connection.call("reading", read, soon())
    assert "ephemeral='yes' private='yes'" in xml
    guests.hypervisor.forget_secret(SECRET_ID, soon())


def test_a_daemon_that_hangs_keeps_nobody(guests: GuestBench) -> None:
    """Every caller gets its error by its deadline; afterwards all goes on, with no thread left."""
    before = {thread.name for thread in threading.enumerate()}
    guests.host.hang_daemon()
    try:
        for _ in range(3):
            began = time.monotonic()
            with pytest.raises(HypervisorUnavailable, match="did not answer"):
                guests.hypervisor.guests(Deadline.after(0.5))
            assert time.monotonic() - began < 20
    finally:
        guests.host.wake_daemon()
    assert guests.guest().is_active
    deadline = soon()
    while {thread.name for thread in threading.enumerate()} - before:
        assert not deadline.has_passed(), threading.enumerate()
        guests.hypervisor.guests(soon())


def test_a_daemon_that_died_is_found_again(guests: GuestBench) -> None:
    """Without a daemon the error is at once; with a new one the guests are as they were."""
    guests.hypervisor.keep_secret(SECRET_ID, "lunport/a-1", SECRET, soon())
    guests.host.kill_daemon()
    with pytest.raises(HypervisorUnavailable):
        guests.hypervisor.guests(soon())
    guests.host.start_daemon()
    assert guests.guest().is_active
    assert SECRET_ID not in guests.hypervisor.secrets(soon())


def test_a_libvirt_that_is_not_there(guests: GuestBench) -> None:
    """An address without a daemon is said to be unreachable."""
    nowhere = LibvirtConnection("qemu+unix:///system?socket=/nowhere", keepalive=Keepalive())
    with pytest.raises(HypervisorUnavailable, match="cannot be reached"):
        LibvirtGuests(nowhere).guests(soon())


def test_a_guest_that_ends_meanwhile_has_let_go(guests: GuestBench) -> None:
    """A guest that stops while it is asked for a disk does not have it any more."""
    guests.hypervisor.start(OFF[0], soon())
    xml = format_block_disk(DiskSettings(SERIAL, "vdb", discard=False), guests.device())
    guests.hypervisor.plug(OFF[0], xml, soon())
    act(guests, lambda domain: domain.suspend(), OFF[0])
    stopping = threading.Timer(1.0, guests.stop, [OFF[0]])
    stopping.start()
    try:
        assert guests.hypervisor.unplug(OFF[0], SERIAL, soon()) is Change.CHANGED
    finally:
        stopping.join()
    assert guests.guest(OFF[0]).disk(SERIAL) is None


def test_a_device_that_is_not_there_is_rejected(guests: GuestBench) -> None:
    """QEMU's own words come with the error, and the guest has no disk."""
    xml = format_block_disk(DiskSettings(SERIAL, "vdb"), "/dev/no-such-device")
    with pytest.raises(PlugRejected, match="no-such-device"):
        guests.hypervisor.plug(RUNNING[0], xml, soon())
    assert guests.guest().disk(SERIAL) is None


def test_libvirt_takes_a_rewritten_definition(guests: GuestBench) -> None:
    """A definition whose disk goes from the kernel to QEMU's initiator and back is the same one."""
    xml = format_block_disk(DiskSettings(SERIAL, "vdb", discard=False), guests.device())
    guests.hypervisor.plug(OFF[0], xml, soon())
    before = definition(guests)
    path = TargetPath(Portal("192.0.2.2", 3260), Iqn("iqn.2026-11.io.lunport.test:b"), 7)
    source = DiskSource(path, Iqn("iqn.2026-11.io.lunport.test:init"), "u")
    network = format_network_disk(DiskSettings(SERIAL, "vdx"), source, secret_id=SECRET_ID)
    define(guests, rewrite_domain(before, {SERIAL: network}))
    disk = guests.guest(OFF[0]).persistent_disk(SERIAL)
    assert disk is not None
    assert (disk.portal, disk.secret_id, disk.target) == ("192.0.2.2:3260", SECRET_ID, "vdb")
    define(guests, rewrite_domain(definition(guests), {SERIAL: xml}))
    assert definition(guests) == before
    guests.hypervisor.unplug(OFF[0], SERIAL, soon())


def definition(bench: GuestBench) -> str:
    """Read what the guest that is off will be started by."""
    flags = libvirt.VIR_DOMAIN_XML_INACTIVE

    def read(connection: libvirt.virConnect) -> str:
        xml: str = connection.lookupByUUIDString(OFF[0]).XMLDesc(flags)
        return xml

    return bench.hypervisor.connection.call("reading", read, soon())


def define(bench: GuestBench, xml: str) -> None:
    """Define a guest anew."""
    bench.hypervisor.connection.call("defining", lambda one: one.defineXML(xml), soon())


def act(bench: GuestBench, what: object, guest_id: str = RUNNING[0]) -> None:
    """Do something to a guest behind our back."""
    assert callable(what)
    bench.hypervisor.connection.call(
        "acting", lambda one: what(one.lookupByUUIDString(guest_id)), soon()
    )
