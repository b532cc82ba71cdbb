"""The kernel seam on the real kernel: sessions, units, identities, openers, dead portals.

Logs in by a node record of its own, with a ping each second, so that a dead portal is noticed
soon; nothing of the initiator library is used above ``host``.
"""

from __future__ import annotations

import contextlib
import os
import subprocess
import threading
from collections.abc import Callable, Iterator
from dataclasses import dataclass

import pytest

from lab.lio import Target
from lab.san import San
from lab.services import wait_until
from lunport.core.change import Change
from lunport.core.errors import DeviceMissing, DeviceStuck
from lunport.core.kernel_session import KernelSession
from lunport.core.node_record import RecordSettings, format_node_record, record_place
from lunport.core.portal import Portal
from lunport.core.scsi_address import ScsiAddress
from lunport.core.target_path import TargetPath
from lunport.host import iscsiadm, nftables
from lunport.host.block_flush import flush_disk
from lunport.host.block_openers import find_openers, wait_until_closed
from lunport.host.clock import Deadline
from lunport.host.iscsi_sysfs import find_session, list_sessions, session_units
from lunport.host.node_records import NodeRecords
from lunport.host.scsi_disk import (
    ScsiDisk,
    delete_unit,
    disable_cache_sync,
    find_unit,
    is_ready,
    read_disk,
    read_wwid,
    rescan,
    scan_lun,
    wait_for_disk,
    wait_for_removal,
)
from lunport.host.systree import SysTree
from lunport.host.uevents import Uevents

IFACE = "default"
EAGER = {
    "node.conn[0].timeo.noop_out_interval": "1",
    "node.conn[0].timeo.noop_out_timeout": "1",
}
SETTLE_S = 20.0


def soon() -> Deadline:
    """Enough for any step on a busy machine."""
    return Deadline.after(30)


@dataclass(frozen=True, slots=True)
class Seat:
    """A session to a target, and short words for what is done with it."""

    tree: SysTree
    target: Target
    session: KernelSession

    def bring_in(self, lun: int) -> ScsiDisk:
        """Scan one LUN and wait for its disk, and for udev to be done with it."""
        with Uevents() as uevents:
            scan_lun(self.tree, self.session, lun, soon())
            address = find_unit(self.tree, self.session, lun)
            assert address is not None
            disk = wait_for_disk(self.tree, uevents, address, soon())
        assert wait_until_closed(self.tree, disk, soon()) == ()
        return disk

    def take_out(self, address: ScsiAddress) -> None:
        """Delete a unit and wait until it is gone."""
        with Uevents() as uevents:
            delete_unit(self.tree, address, soon())
            wait_for_removal(self.tree, uevents, address, soon())

    def state(self) -> str:
        """Say what the session is now."""
        path = f"class/iscsi_session/session{self.session.sid}/state"
        return self.tree.read(path) or "gone"


@contextlib.contextmanager
def logged_in(target: Target, portal: Portal) -> Iterator[Seat]:
    """A session through one portal; logged out at the end, its record gone."""
    tree, records = SysTree(), NodeRecords()
    path = TargetPath(portal, target.iqn, 1)
    place = record_place(portal, target.iqn, target.tpgt, IFACE)
    settings = RecordSettings(logout_timeout_s=2)
    text = format_node_record(
        path, tpgt=target.tpgt, iface=IFACE, chap=None, settings=settings, configured=EAGER
    )
    records.write(place, text)
    try:
        iscsiadm.login(path, tpgt=target.tpgt, iface=IFACE, is_there=lambda: False, deadline=soon())
        session = find_session(tree, portal, target.iqn)
        assert session is not None
        try:
            yield Seat(tree, target, session)
        finally:
            iscsiadm.logout(session.sid, where=str(path), deadline=soon())
    finally:
        records.delete(place)


@pytest.fixture
def seat(san: San) -> Iterator[Seat]:
    """A session through the first portal to a target without units."""
    target = san.target()
    with logged_in(target, san.portals[0]) as made:
        yield made


@contextlib.contextmanager
def black_hole(portal: Portal) -> Iterator[None]:
    """Let every packet from and to a portal vanish."""
    rules = (
        f"chain i {{ type filter hook input priority 0; ip saddr {portal.host} drop; }}\n"
        f"chain o {{ type filter hook output priority 0; ip daddr {portal.host} drop; }}"
    )
    nftables.replace_table("inet", "seam", rules, soon())
    try:
        yield
    finally:
        nftables.drop_table("inet", "seam", soon())


def with_write_cache(seat: Seat, disk: ScsiDisk) -> None:
    """Let the kernel believe that the storage has a write cache, so that a removal flushes it."""
    path = f"bus/scsi/devices/{disk.address}/scsi_disk/{disk.address}/cache_type"
    seat.tree.write(path, "temporary write back")


# -- sessions and units ------------------------------------------------------------------------


def test_a_session_is_found_over_ipv4_and_ipv6(san: San) -> None:
    """The kernel's own spelling of either address is the portal that was asked for."""
    target = san.target(portals=(san.portals[0], san.portals6[0]))
    for portal in (san.portals[0], san.portals6[0]):
        with logged_in(target, portal) as seat:
            assert seat.session.portal == portal
            assert (seat.session.transport, seat.session.is_logged_in) == ("tcp", True)
            assert seat.session in list_sessions(seat.tree)
            found = find_session(seat.tree, portal, target.iqn, hint=seat.session.sid)
            assert found == seat.session


def test_large_luns_keep_their_number(san: San, seat: Seat) -> None:
    """LIO's LUNs 1, 257 and 16383 are units of that number, and a LUN that is absent is none."""
    luns = (1, 257, 16383)
    wwids = {lun: san.add_lun(seat.target, lun).wwid for lun in luns}
    found = {lun: seat.bring_in(lun) for lun in luns}
    assert {lun: disk.wwid for lun, disk in found.items()} == wwids
    assert sorted(unit.lun for unit in session_units(seat.tree, seat.session)) == [*luns]
    assert all(is_ready(seat.tree, disk) for disk in found.values())
    scan_lun(seat.tree, seat.session, 99, soon())
    assert find_unit(seat.tree, seat.session, 99) is None


def test_a_disk_can_be_opened_as_soon_as_it_is_ready(san: San, seat: Seat) -> None:
    """Whenever sysfs says that a new disk is ready, an open does not fail; six times."""
    san.add_lun(seat.target, 1)
    for _ in range(6):
        scan = threading.Thread(target=scan_lun, args=(seat.tree, seat.session, 1, soon()))
        scan.start()
        found: list[ScsiDisk] = []

        def look(found: list[ScsiDisk] = found) -> bool:
            address = find_unit(seat.tree, seat.session, 1)
            disk = None if address is None else read_disk(seat.tree, address)
            if disk is not None and is_ready(seat.tree, disk):
                os.close(os.open(disk.path, os.O_RDONLY))
                found.append(disk)
            return bool(found)

        wait_until(look, "a ready disk")
        scan.join()
        seat.take_out(found[0].address)


def test_the_work_for_one_unit_does_not_grow_with_the_others(san: San, seat: Seat) -> None:
    """Reads, writes and lists of sysfs for the ninth unit are those for the second."""
    san.add_lun(seat.target, 0)
    seat.bring_in(0)
    costs = []
    for lun in range(1, 9):
        san.add_lun(seat.target, lun, size_mib=8)
        tree = SysTree()
        with Uevents() as uevents:
            scan_lun(tree, seat.session, lun, soon())
            address = find_unit(tree, seat.session, lun)
            assert address is not None
            counted = (tree.reads, tree.writes, tree.lists)
            wait_for_disk(seat.tree, uevents, address, soon())
        costs.append(counted)
    assert set(costs) == {costs[0]}


# -- identity --------------------------------------------------------------------------------


def test_a_remapped_unit_keeps_its_old_identity_until_a_rescan(san: San, seat: Seat) -> None:
    """The kernel shows the old WWID over another disk's bytes; rescan, or a removal, mends it."""
    one, two = san.add_lun(seat.target, 1), san.disk(size_mib=32)
    disk = seat.bring_in(1)
    assert disk.wwid == one.wwid

    seat.target.remap_lun(1, two)
    scan_lun(seat.tree, seat.session, 1, soon())
    assert read_wwid(seat.tree, disk.address) == one.wwid, "a scan alone is no remedy"

    rescan(seat.tree, disk.address, soon())
    renewed = read_disk(seat.tree, disk.address)
    assert renewed is not None
    assert (renewed.wwid, renewed.size_bytes) == (two.wwid, 32 << 20)

    seat.target.remap_lun(1, one)
    wait_until_closed(seat.tree, disk, soon())
    seat.take_out(disk.address)
    assert seat.bring_in(1).wwid == one.wwid


def test_a_unit_that_is_no_longer_shown_has_no_bytes_after_a_rescan(san: San, seat: Seat) -> None:
    """Its identity stays as it was, so the size is what tells."""
    shown = san.add_lun(seat.target, 1)
    disk = seat.bring_in(1)
    seat.target.unmap_lun(1)
    rescan(seat.tree, disk.address, soon())
    left = read_disk(seat.tree, disk.address)
    assert left is not None
    assert (left.wwid, left.size_bytes) == (shown.wwid, 0)


# -- openers ---------------------------------------------------------------------------------


def test_everybody_who_uses_a_disk_is_named(san: San, seat: Seat) -> None:
    """A program, a device-mapper target, a loop device and swap are found; nobody is nobody."""
    san.add_lun(seat.target, 1)
    disk = seat.bring_in(1)

    def used_by(begin: str, end: str) -> str:
        subprocess.run(["sh", "-c", begin], check=True)
        try:
            seen: set[str] = set()

            def look() -> bool:
                seen.clear()
                seen.update(opener.who for opener in find_openers(seat.tree, disk, soon()))
                return not any("udev-worker" in who for who in seen)

            wait_until(look, "udev to be done")
            return ", ".join(seen)
        finally:
            subprocess.run(["sh", "-c", end], check=True)
            assert wait_until_closed(seat.tree, disk, soon()) == ()

    table = f"0 8 linear {disk.path} 0"
    assert used_by(f"dmsetup create seam --table '{table}'", "dmsetup remove seam") == "dm-0"
    assert used_by(f"losetup /dev/loop7 {disk.path}", "losetup -d /dev/loop7") == "loop7"
    swap = f"mkswap {disk.path} >&2; swapon {disk.path}"
    assert used_by(swap, f"swapoff {disk.path}") == "swap"
    with open(disk.path, "rb") as file:  # noqa: PTH123
        reader = subprocess.Popen(["sleep", "600"], stdin=file)
    assert [opener.who for opener in find_openers(seat.tree, disk, soon())] == [
        f"sleep ({reader.pid})"
    ]
    threading.Timer(0.3, reader.kill).start()
    assert wait_until_closed(seat.tree, disk, soon()) == ()
    reader.wait()


def test_who_stays_is_named_at_the_deadline(san: San, seat: Seat) -> None:
    """The wait for closers ends at its deadline and says who still has the disk open."""
    san.add_lun(seat.target, 1)
    disk = seat.bring_in(1)
    with open(disk.path, "rb"):  # noqa: PTH123
        openers = wait_until_closed(seat.tree, disk, Deadline.after(0.5))
    assert [f"({os.getpid()})" in opener.who for opener in openers] == [True]


# -- dead portals ------------------------------------------------------------------------------


def test_a_unit_goes_at_once_through_a_portal_that_has_just_died(san: San, seat: Seat) -> None:
    """With the cache's flush disabled a removal asks the target nothing: it is still LOGGED_IN."""
    san.add_lun(seat.target, 1)
    disk = seat.bring_in(1)
    with_write_cache(seat, disk)
    with black_hole(san.portals[0]):
        assert disable_cache_sync(seat.tree, disk.address, soon()) is Change.CHANGED
        assert delete_unit(seat.tree, disk.address, soon()) is Change.CHANGED
        assert seat.state() in {"LOGGED_IN", "FAILED"}
        assert find_unit(seat.tree, seat.session, 1) is None
    wait_until(lambda: seat.state() == "LOGGED_IN", "the session's recovery", SETTLE_S)


def test_a_stuck_flush_ends_when_the_unit_is_deleted(san: San, seat: Seat) -> None:
    """Once the session is seen to be dead, a removal is immediate and leaves no thread behind."""
    san.add_lun(seat.target, 1)
    disk = seat.bring_in(1)
    with_write_cache(seat, disk)
    before = threading.active_count()
    with black_hole(san.portals[0]):
        with pytest.raises(DeviceStuck):
            flush_disk(disk, Deadline.after(0.5))
        wait_until(lambda: seat.state() == "FAILED", "the session's failure", SETTLE_S)
        with pytest.raises(DeviceMissing):
            rescan(seat.tree, disk.address, soon())
        disable_cache_sync(seat.tree, disk.address, soon())
        assert delete_unit(seat.tree, disk.address, soon()) is Change.CHANGED
        wait_until(lambda: threading.active_count() == before, "the flush to end", SETTLE_S)


def test_a_logout_ends_what_a_dead_portal_holds_up(san: San, seat: Seat) -> None:
    """A scan that hangs ends, and the session is gone, although the portal says nothing."""
    san.add_lun(seat.target, 1)
    before = threading.active_count()
    with black_hole(san.portals[0]):
        with pytest.raises(DeviceStuck):
            scan_lun(seat.tree, seat.session, 1, Deadline.after(0.5))
        iscsiadm.logout(seat.session.sid, where="seam", deadline=soon())
        wait_until(lambda: threading.active_count() == before, "the scan to end", SETTLE_S)
    assert find_session(seat.tree, seat.session.portal, seat.session.iqn) is None


def test_normal_work_leaves_no_thread_and_no_descriptor(san: San, seat: Seat) -> None:
    """Four times in and out, flushed and watched: threads and descriptors are as before."""
    san.add_lun(seat.target, 1)

    def cycle() -> None:
        disk = seat.bring_in(1)
        flush_disk(disk, soon())
        seat.take_out(disk.address)

    cycle()
    count: Callable[[], tuple[int, int]] = lambda: (  # noqa: E731
        threading.active_count(),
        len(os.listdir("/proc/self/fd")),  # noqa: PTH208
    )
    before = count()
    for _ in range(4):
        cycle()
    assert count() == before
