"""Sessions, units and disks as sysfs shows them, and what finding them costs."""

from __future__ import annotations

from collections import deque
from pathlib import Path

import pytest

from lunport.core.change import Change
from lunport.core.errors import DeviceMissing, DeviceStuck, SessionMissing
from lunport.core.iqn import Iqn
from lunport.core.portal import Portal
from lunport.core.scsi_address import ScsiAddress
from lunport.host.clock import Deadline
from lunport.host.iscsi_sysfs import find_session, list_sessions, read_session, session_units
from lunport.host.scsi_disk import (
    delete_unit,
    disable_cache_sync,
    find_unit,
    read_disk,
    rescan,
    scan_lun,
    set_offline,
    wait_for_disk,
    wait_for_removal,
)
from lunport.host.uevents import Predicate, Uevent
from tests.fakes.fake_sysfs import FakeSysfs

IQN = Iqn("iqn.2026-11.org.example:t1")
PORTAL = Portal("10.0.1.2", 3260)
FIRST = ScsiAddress(1, 0, 0, 1)
BLOCK = "/devices/platform/host1/session1/target1:0:0/1:0:0:1/block/sda"


@pytest.fixture
def sysfs(tmp_path: Path) -> FakeSysfs:
    """A tree with nothing in it."""
    return FakeSysfs(tmp_path)


class FakeEvents:
    """Events from a list; ``between`` happens before the next look at an empty list."""

    def __init__(self, *events: Uevent, lost: bool = False) -> None:
        self._events = deque(events)
        self.lost = lost

    def wait(self, predicate: Predicate, deadline: Deadline) -> Uevent | None:
        """Give the first that fits, or nothing at once."""
        del deadline
        return next((event for event in self._events if predicate(event)), None)


def soon() -> Deadline:
    """A deadline that no test comes near to."""
    return Deadline.after(20)


# -- sessions --------------------------------------------------------------------------------


def test_a_session_is_read_whole(sysfs: FakeSysfs) -> None:
    """Number, SCSI host, target, portal, iface, transport, state and group come from sysfs."""
    node = sysfs.session(7)
    session = read_session(sysfs.tree, 7)
    assert session is not None
    assert (session.sid, session.scsi_host, session.iqn, session.portal) == (7, 7, IQN, PORTAL)
    assert (session.iface, session.transport, session.tpgt) == ("default", "tcp", 1)
    assert session.is_logged_in
    assert session.node == node


@pytest.mark.parametrize(
    ("proc_name", "transport"),
    [("iscsi_tcp", "tcp"), ("iscsi_iser", "iser"), ("ib_iser", "iser"), ("cxgb4i", "cxgb4i")],
)
def test_a_transport_has_open_iscsis_name(sysfs: FakeSysfs, proc_name: str, transport: str) -> None:
    """The SCSI host's driver tells the transport, whatever it is."""
    sysfs.session(1, proc_name=proc_name)
    session = read_session(sysfs.tree, 1)
    assert session is not None
    assert session.transport == transport


@pytest.mark.parametrize(
    "address", ["fd00:0000:0000:0000:0000:0000:0000:0002", "FD00::2", "[fd00::2]"]
)
def test_ipv6_portals_are_compared_as_addresses(sysfs: FakeSysfs, address: str) -> None:
    """Every spelling of an IPv6 address is the same portal."""
    sysfs.session(1, address=address)
    assert find_session(sysfs.tree, Portal("fd00::2"), IQN) is not None


def test_names_have_no_case_and_groups_do_not_matter(sysfs: FakeSysfs) -> None:
    """A target's name in another case is the same target, and no portal group makes another."""
    sysfs.session(1, iqn=IQN.upper(), session={"tpgt": "99"})
    found = find_session(sysfs.tree, PORTAL, IQN)
    assert found is not None
    assert found.tpgt == 99


def test_another_portal_target_or_port_is_another_session(sysfs: FakeSysfs) -> None:
    """Only both, target and portal, make it the session that is meant."""
    sysfs.session(1)
    assert find_session(sysfs.tree, Portal("10.0.2.2"), IQN) is None
    assert find_session(sysfs.tree, Portal("10.0.1.2", 3261), IQN) is None
    assert find_session(sysfs.tree, PORTAL, Iqn(f"{IQN}0")) is None


def test_a_redirected_session_is_known_by_what_was_asked_for(sysfs: FakeSysfs) -> None:
    """The portal of the record counts, not the one to which the target sent the login."""
    sysfs.session(1, connection={"address": "10.0.9.9"})
    assert find_session(sysfs.tree, PORTAL, IQN) is not None


def test_a_record_with_a_name_is_known_by_the_address_reached(sysfs: FakeSysfs) -> None:
    """Where the record has a host name, the address it led to is compared."""
    sysfs.session(1, connection={"persistent_address": "san-a.example"})
    assert find_session(sysfs.tree, PORTAL, IQN) is not None


@pytest.mark.parametrize("text", ["", "(null)", "<NULL>"])
@pytest.mark.parametrize("attribute", ["targetname", "state"])
def test_a_session_that_is_torn_down_is_none(sysfs: FakeSysfs, attribute: str, text: str) -> None:
    """Attributes that read empty or "(null)" mean that there is no session (any more)."""
    sysfs.session(1, session={attribute: text})
    assert list_sessions(sysfs.tree) == ()


def test_a_session_without_connection_is_none(sysfs: FakeSysfs) -> None:
    """A session whose connection is not there yet, or no more, leads nowhere."""
    sysfs.session(1)
    sysfs.remove("class/iscsi_connection/connection1:0")
    assert list_sessions(sysfs.tree) == ()


def test_a_session_that_vanishes_is_none(sysfs: FakeSysfs) -> None:
    """A link that leads nowhere any more is no session, and hides no other."""
    node = sysfs.session(1)
    sysfs.session(2)
    sysfs.remove(f"{node}/iscsi_session")
    assert [session.sid for session in list_sessions(sysfs.tree)] == [2]


def test_a_live_session_goes_before_one_in_recovery(sysfs: FakeSysfs) -> None:
    """Of several sessions to one place the one that is logged in is found, else the oldest."""
    sysfs.session(3, session={"state": "FAILED"})
    sysfs.session(10)
    found = find_session(sysfs.tree, PORTAL, IQN)
    assert found is not None
    assert found.sid == 10
    sysfs.write("class/iscsi_session/session10/state", "FREE")
    found = find_session(sysfs.tree, PORTAL, IQN)
    assert found is not None
    assert (found.sid, found.state) == (3, "FAILED")


def test_a_hint_costs_the_same_however_many_there_are(sysfs: FakeSysfs) -> None:
    """With the right hint one session is read, nothing is listed, and 50 others change nothing."""
    sysfs.session(1)
    tree = sysfs.tree
    find_session(tree, PORTAL, IQN, hint=1)
    alone = tree.reads
    for sid in range(2, 52):
        sysfs.session(sid, iqn=f"{IQN}-{sid}")
    tree.reads = 0
    assert find_session(tree, PORTAL, IQN, hint=1) is not None
    assert (tree.reads, tree.lists) == (alone, 0)


def test_a_wrong_hint_misleads_nobody(sysfs: FakeSysfs) -> None:
    """A number that now belongs to another session, or to none, is only a slower way."""
    sysfs.session(1, iqn=f"{IQN}-other")
    sysfs.session(2)
    for hint in (1, 77):
        found = find_session(sysfs.tree, PORTAL, IQN, hint=hint)
        assert found is not None
        assert found.sid == 2


# -- units and disks -------------------------------------------------------------------------


def test_the_units_of_a_session_are_its_own(sysfs: FakeSysfs) -> None:
    """Units are listed by session in two looks, whatever their LUN, and no other's are there."""
    for sid in (1, 2):
        sysfs.session(sid)
    for lun in (1, 257, 16383):
        sysfs.unit(1, lun)
    sysfs.unit(2, 5)
    session = read_session(sysfs.tree, 1)
    assert session is not None
    sysfs.tree.lists = 0
    units = session_units(sysfs.tree, session)
    assert sorted(units) == [ScsiAddress(1, 0, 0, lun) for lun in (1, 257, 16383)]
    assert sysfs.tree.lists == 2
    assert find_unit(sysfs.tree, session, 257) == ScsiAddress(1, 0, 0, 257)
    assert find_unit(sysfs.tree, session, 5) is None


def test_a_disk_is_read_whole(sysfs: FakeSysfs) -> None:
    """Name, number, identity, state and size come from sysfs."""
    sysfs.disk(1, 1)
    disk = read_disk(sysfs.tree, FIRST)
    assert disk is not None
    assert (disk.path, disk.number, disk.state) == ("/dev/sda", "8:0", "running")
    assert disk.size_bytes == 16 << 20
    assert disk.wwid == "naa.6001405000100010000000000000000a"


@pytest.mark.parametrize("wwid", [None, "", "rubbish"])
def test_a_disk_without_identity_has_none(sysfs: FakeSysfs, wwid: str | None) -> None:
    """No page 0x83, or one that makes no sense, is no identity; the disk is still a disk."""
    sysfs.disk(1, 1, wwid=wwid)
    disk = read_disk(sysfs.tree, FIRST)
    assert disk is not None
    assert disk.wwid is None


def test_a_unit_without_disk_is_no_disk(sysfs: FakeSysfs) -> None:
    """What the disk driver has not taken yet, and what is absent, is None."""
    sysfs.unit(1, 1)
    assert read_disk(sysfs.tree, FIRST) is None
    assert read_disk(sysfs.tree, ScsiAddress(9, 0, 0, 1)) is None


# -- bringing in and taking out ----------------------------------------------------------------


def test_one_lun_of_one_host_is_scanned(sysfs: FakeSysfs) -> None:
    """The scan names the unit; before the session's first one the target is not known."""
    sysfs.session(1)
    session = read_session(sysfs.tree, 1)
    assert session is not None
    scan_lun(sysfs.tree, session, 257, soon())
    assert sysfs.text("class/scsi_host/host1/scan") == "- - 257"
    sysfs.write("class/iscsi_session/session1/target_id", "4")
    scan_lun(sysfs.tree, session, 257, soon())
    assert sysfs.text("class/scsi_host/host1/scan") == "0 4 257"
    sysfs.unit(1, 257)
    scan_lun(sysfs.tree, session, 12345, soon())
    assert sysfs.text("class/scsi_host/host1/scan") == "0 0 12345"
    assert sysfs.tree.writes == 3


def test_a_scan_without_host_says_that_the_session_is_gone(sysfs: FakeSysfs) -> None:
    """A session that ended before the scan raises SessionMissing."""
    sysfs.session(1)
    session = read_session(sysfs.tree, 1)
    assert session is not None
    sysfs.remove("class/scsi_host/host1")
    with pytest.raises(SessionMissing):
        scan_lun(sysfs.tree, session, 1, soon())


def test_a_disk_that_was_read_from_is_ready(sysfs: FakeSysfs) -> None:
    """A disk that was there before needs no event; nothing is waited for."""
    sysfs.disk(1, 1)
    assert wait_for_disk(sysfs.tree, FakeEvents(), FIRST, soon()).name == "sda"


def test_a_new_disk_is_ready_at_its_event(sysfs: FakeSysfs) -> None:
    """The event of the disk itself makes it ready."""
    sysfs.disk(1, 1, reads=0)
    events = FakeEvents(Uevent("add", BLOCK, {"SUBSYSTEM": "block"}))
    assert wait_for_disk(sysfs.tree, events, FIRST, soon()).name == "sda"


@pytest.mark.parametrize(
    ("action", "devpath"),
    [
        ("add", f"{BLOCK}/sda1"),
        ("remove", BLOCK),
        ("change", BLOCK),
        ("add", BLOCK.replace("/1:0:0:1/", "/11:0:0:1/")),
        ("add", BLOCK.replace("/1:0:0:1/", "/1:0:0:11/")),
        ("add", BLOCK.removesuffix("/block/sda")),
    ],
)
def test_no_other_event_makes_a_disk_ready(sysfs: FakeSysfs, action: str, devpath: str) -> None:
    """Partitions, other units and other actions are not the disk's event."""
    sysfs.disk(1, 1, reads=0)
    events = FakeEvents(Uevent(action, devpath, {"SUBSYSTEM": "block"}))
    with pytest.raises(DeviceMissing, match="/dev/sda can't be opened"):
        wait_for_disk(sysfs.tree, events, FIRST, Deadline.after(0))


def test_lost_events_are_made_up_for_by_looking(sysfs: FakeSysfs) -> None:
    """When the kernel dropped the event, sysfs is looked at, and the disk is found."""

    class Losing(FakeEvents):
        def wait(self, predicate: Predicate, deadline: Deadline) -> Uevent | None:
            sysfs.disk(1, 1)
            return super().wait(predicate, deadline)

    assert wait_for_disk(sysfs.tree, Losing(lost=True), FIRST, soon()).name == "sda"


def test_a_disk_that_never_comes_is_missing(sysfs: FakeSysfs) -> None:
    """At the deadline DeviceMissing says that there is no disk."""
    sysfs.unit(1, 1)
    with pytest.raises(DeviceMissing, match="has no disk"):
        wait_for_disk(sysfs.tree, FakeEvents(), FIRST, Deadline.after(0))


def test_a_rescan_that_read_nothing_is_no_rescan(sysfs: FakeSysfs) -> None:
    """A blocked unit, and one that answered no command, keep their old identity: an error."""
    unit = sysfs.disk(1, 1)
    with pytest.raises(DeviceMissing, match="did not answer"):
        rescan(sysfs.tree, FIRST, soon())
    assert sysfs.text(f"{unit}/rescan") == "1"
    sysfs.write(f"{unit}/state", "blocked")
    sysfs.remove(f"{unit}/iodone_cnt")
    with pytest.raises(DeviceMissing, match="blocked"):
        rescan(sysfs.tree, FIRST, soon())
    sysfs.write(f"{unit}/state", "running")
    rescan(sysfs.tree, FIRST, soon())


def test_taking_out_writes_what_the_kernel_wants(sysfs: FakeSysfs) -> None:
    """The removal, the offline state and the cache's type are written in the kernel's words."""
    unit = sysfs.disk(1, 1)
    sysfs.write(f"{unit}/state", "")
    assert delete_unit(sysfs.tree, FIRST, soon()) is Change.CHANGED
    assert set_offline(sysfs.tree, FIRST, soon()) is Change.CHANGED
    assert disable_cache_sync(sysfs.tree, FIRST, soon()) is Change.CHANGED
    assert sysfs.text(f"{unit}/delete") == "1"
    assert sysfs.text(f"{unit}/state") == "offline\n"
    assert sysfs.text(f"{unit}/scsi_disk/1:0:0:1/cache_type") == "temporary write through"


def test_what_is_gone_need_not_be_taken_out(sysfs: FakeSysfs) -> None:
    """Each verb is idempotent: a unit that is not there is left at that."""
    assert delete_unit(sysfs.tree, FIRST, soon()) is Change.UNCHANGED
    assert set_offline(sysfs.tree, FIRST, soon()) is Change.UNCHANGED
    assert disable_cache_sync(sysfs.tree, FIRST, soon()) is Change.UNCHANGED
    wait_for_removal(sysfs.tree, FakeEvents(), FIRST, soon())


def test_a_unit_that_stays_is_stuck(sysfs: FakeSysfs) -> None:
    """A unit that is still there at the deadline raises DeviceStuck."""
    sysfs.unit(1, 1)
    with pytest.raises(DeviceStuck):
        wait_for_removal(sysfs.tree, FakeEvents(), FIRST, Deadline.after(0))
