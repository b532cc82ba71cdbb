"""multipathd, the device mapper and what goes with them, on real disks behind two portals."""

from __future__ import annotations

import contextlib
import itertools
from collections.abc import Iterator
from dataclasses import dataclass, field
from pathlib import Path

import pytest

from lab import faults, services
from lab.lio import MIB, Disk, Target
from lab.san import San
from lab.services import wait_until
from lunport.core.change import Change
from lunport.core.errors import DeviceBusy, DeviceMissing, MapMissing, MultipathDown
from lunport.core.kernel_session import KernelSession
from lunport.core.multipath_table import MapStatus
from lunport.core.target_path import TargetPath
from lunport.core.wwid import format_multipath_wwid
from lunport.host import multipath_wwids
from lunport.host.clock import Deadline
from lunport.host.device_mapper import DeviceMapper
from lunport.host.iscsi_sysfs import read_session, recovery_tmo, set_recovery_tmo
from lunport.host.multipath_map import (
    MultipathMap,
    find_map,
    find_map_of,
    list_maps,
    map_size,
    map_wwid,
    member_names,
    wait_for_member,
)
from lunport.host.multipathd import Multipathd
from lunport.host.runner import run
from lunport.host.scsi_disk import ScsiDisk, rescan
from lunport.host.systree import SysTree
from lunport.host.udev_database import wait_until_known
from lunport.host.uevents import Uevents
from lunport.initiator.connected_volume import InitiatorPolicy
from lunport.initiator.disks import Disks
from lunport.initiator.initiator_host import InitiatorHost
from lunport.initiator.sessions import Sessions
from tests.lab.connecting import first_bytes, mark

FIND = ("strict", "no", "yes", "smart", "greedy")
LUN = 1
SYS = SysTree()
MULTIPATHD = Multipathd()
MAPPER = DeviceMapper()


def soon() -> Deadline:
    """Return time enough for one step on a busy machine."""
    return Deadline.after(60)


@dataclass
class Host:
    """This machine as an initiator, by the parts that a connect is made of."""

    target: Target
    disk: Disk
    disks: dict[TargetPath, ScsiDisk] = field(default_factory=dict)
    sessions: dict[TargetPath, KernelSession] = field(default_factory=dict)

    def __post_init__(self) -> None:
        host, policy = InitiatorHost(), InitiatorPolicy()
        self._sessions, self._disks = Sessions(host, policy), Disks(host, policy)

    def bring(self, path: TargetPath) -> ScsiDisk:
        """Log in, and have the disk, with udev knowing it."""
        with self._sessions.in_use(path, soon()):
            session = self._sessions.ensure(path, chap=None, tpgt=1, deadline=soon())
            self.sessions[path] = session
            found = self._disks.obtain(
                session, path, mode=None, expected=self.disk.wwid, deadline=soon()
            )
        self.disks[path] = found
        assert wait_until_known(found.number, soon(), wwid=self.disk.wwid)
        return found

    def join(self, path: TargetPath) -> MultipathMap:
        """Have the disk in the map of its identity, whatever the configuration."""
        with Uevents() as uevents:
            found = self.bring(path)
            assert MULTIPATHD.add_path(found.name, soon())
            MULTIPATHD.add_map(self.disk.wwid, soon())
            return wait_for_member(SYS, uevents, self.disk.wwid, found.name, soon())

    def map(self) -> MultipathMap:
        """Return the map."""
        found = find_map_of(SYS, self.disk.wwid)
        assert found is not None
        return found

    def status(self) -> MapStatus:
        """Return what the kernel says of the map."""
        return MAPPER.map_status(self.map().name, soon())

    def drop_map(self) -> None:
        """Take the map away, with or without a multipathd."""
        found = find_map_of(SYS, self.disk.wwid)
        if found is None:
            return
        with contextlib.suppress(MapMissing):
            MAPPER.send_message(found.name, "fail_if_no_path", soon())
        wait_until(lambda: self._is_removed(found), f"the end of {found}")

    def drop_disks(self) -> None:
        """Take the disks out."""
        for path in tuple(self.disks):
            self._disks.take_out(self.disks.pop(path).address, soon())

    def leave(self) -> None:
        """Take everything away."""
        self.drop_map()
        self.drop_disks()
        for path in self.sessions:
            self._sessions.release(path.portal, path.iqn, soon())

    def _is_removed(self, found: MultipathMap) -> bool:
        if MULTIPATHD.is_running(soon()):
            MULTIPATHD.remove_map(found.name, soon())
        else:
            with contextlib.suppress(DeviceBusy):  # by udev, for a moment
                MAPPER.remove(found.name, soon())
        return find_map_of(SYS, self.disk.wwid) is None


@pytest.fixture
def host(san: San) -> Iterator[Host]:
    """A target with a disk that can grow; what is made of it is unmade, in the right order."""
    target = san.target()
    made = Host(target, san.add_lun(target, LUN, growable=True))
    try:
        yield made
    finally:
        made.leave()


@pytest.fixture
def multipathd(host: Host) -> Iterator[services.Multipathd]:
    """Have a multipathd that makes no map by itself, and ends after the map."""
    with services.multipathd("strict", "no") as daemon:
        try:
            yield daemon
        finally:
            daemon.start()
            host.drop_map()


@pytest.fixture
def paths(host: Host, san: San) -> tuple[TargetPath, TargetPath]:
    """Two ways to the disk."""
    first, second, *_ = san.paths(host.target, LUN)
    return first, second


Two = tuple[TargetPath, TargetPath]


@pytest.mark.again
def test_every_configuration_makes_the_map(host: Host, paths: Two) -> None:
    """With the same commands, whatever ``find_multipaths`` and ``user_friendly_names`` say.

    The map is found by its identity, holds the disks, and reads what the storage has.
    """
    content = mark(host.disk, "behind two portals")
    for find, friendly in itertools.product(FIND, ("no", "yes")):
        configured = f"find_multipaths {find}, user_friendly_names {friendly}"
        with services.multipathd(find, friendly):
            made = host.join(paths[0])
            assert first_bytes(made.path) == content, configured
            if friendly == "no":  # each second one takes its time: udev, and a slow machine
                assert host.join(paths[1]) == made, configured
            names = tuple(sorted(disk.name for disk in host.disks.values()))
            assert member_names(SYS, made) == names, configured
            assert made.name.startswith("mpath" if friendly == "yes" else "3600"), configured
            assert list_maps(SYS) == (made,), configured
            assert map_wwid(SYS, made) == host.disk.wwid, configured
            assert find_map(SYS, host.disks[paths[0]]) == made, configured
            assert multipath_wwids.is_registered(host.disk.wwid), configured
            host.drop_map()
            host.drop_disks()


@pytest.mark.usefixtures("multipathd")
def test_multipathd_does_as_it_is_told(host: Host, paths: Two) -> None:
    """Paths join and go, a failed one is used again, the map grows, and goes when it is free."""
    made = host.join(paths[0])
    host.join(paths[1])
    one, other = host.disks[paths[0]], host.disks[paths[1]]
    both = {one.number: True, other.number: True}
    assert host.status().paths == both
    assert MULTIPATHD.add_path(one.name, soon())  # once more

    def fails() -> bool:
        # By the kernel's message; multipathd soon looks for itself and uses the path again.
        MAPPER.send_message(made.name, f"fail_path {one.number}", soon())
        return host.status().paths == both | {one.number: False}

    wait_until(fails, "a path that is seen as failed")
    assert MULTIPATHD.reinstate(one.name, soon())
    assert host.status().paths == both

    assert MULTIPATHD.remove_path(other.name, soon())
    assert member_names(SYS, made) == (one.name,)
    assert not MULTIPATHD.remove_path(other.name, soon())
    host.join(paths[1])
    assert host.status().paths == both

    host.disk.grow(96 * MIB)
    assert map_size(SYS, made) == 64 * MIB
    for disk in host.disks.values():
        rescan(SYS, disk.address, soon())
    assert MULTIPATHD.resize_map(made.name, soon())
    assert map_size(SYS, made) == 96 * MIB
    assert MULTIPATHD.resize_map(made.name, soon())

    with Path(made.path).open("rb"):
        assert not MULTIPATHD.remove_map(made.name, soon())
        with pytest.raises(DeviceBusy, match=made.name):
            MAPPER.remove(made.name, soon())
    wait_until(lambda: MULTIPATHD.remove_map(made.name, soon()), "the end of the map")
    assert find_map_of(SYS, host.disk.wwid) is None
    assert not MULTIPATHD.remove_map(made.name, soon())


@pytest.mark.usefixtures("multipathd")
def test_a_map_is_switched_between_queueing_and_failing(host: Host, paths: Two) -> None:
    """By multipathd, and by the kernel's own messages; the kernel says which of them it is."""
    made = host.join(paths[0])
    assert host.status().queues
    assert MULTIPATHD.disable_queueing(made.name, soon())
    assert not host.status().queues
    assert MULTIPATHD.restore_queueing(made.name, soon())
    MAPPER.send_message(made.name, "queue_if_no_path", soon())
    assert host.status().queues
    MAPPER.send_message(made.name, "fail_if_no_path", soon())
    assert not host.status().queues


def test_a_map_is_managed_while_multipathd_is_dead(
    host: Host, paths: Two, multipathd: services.Multipathd
) -> None:
    """Its status, its paths, how it queues, and its end: all by the kernel alone."""
    made = host.join(paths[0])
    host.join(paths[1])
    multipathd.kill()
    assert not MULTIPATHD.is_running()
    with pytest.raises(MultipathDown):
        MULTIPATHD.add_path("sda", soon())

    number, other = (host.disks[path].number for path in paths)
    MAPPER.send_message(made.name, f"fail_path {number}", soon())
    MAPPER.send_message(made.name, "fail_if_no_path", soon())
    assert host.status().paths == {number: False, other: True}
    assert not host.status().queues
    assert first_bytes(made.path)
    MAPPER.send_message(made.name, f"reinstate_path {number}", soon())
    MAPPER.send_message(made.name, "queue_if_no_path", soon())
    assert host.status().usable == (number, other)
    assert host.status().queues

    for nonsense in ("fail_path 8:240", "reinstate_path 99:1", "no_such_message"):
        with pytest.raises(DeviceMissing) as raised:
            MAPPER.send_message(made.name, nonsense, soon())
        assert not isinstance(raised.value, MapMissing)

    with Path(made.path).open("rb"), pytest.raises(DeviceBusy):
        MAPPER.remove(made.name, soon())
    host.drop_map()
    assert MAPPER.remove(made.name, soon()) is Change.UNCHANGED
    for ask in (MAPPER.table_status, MAPPER.table):
        with pytest.raises(MapMissing):
            ask(made.name, soon())
    with pytest.raises(MapMissing):
        MAPPER.send_message(made.name, "fail_if_no_path", soon())


def test_a_map_outlives_multipathd(host: Host, paths: Two, multipathd: services.Multipathd) -> None:
    """Killed and started again, multipathd takes care of the map and takes in another path."""
    made = host.join(paths[0])
    multipathd.kill()
    disk = host.bring(paths[1])
    multipathd.start()
    assert MULTIPATHD.know_map(made.name, soon())
    with Uevents() as uevents:
        MULTIPATHD.add_path(disk.name, soon())
        assert wait_for_member(SYS, uevents, host.disk.wwid, disk.name, soon()) == made
    multipathd.restart()
    assert host.map() == made
    assert host.status().usable == tuple(host.disks[path].number for path in paths)


@pytest.mark.usefixtures("multipathd")
def test_a_recovery_tmo_holds_until_multipathd_loads_the_map(
    host: Host, san: San, paths: Two
) -> None:
    """Ours outlives the loss and the return of the portal; what multipathd sets we set again."""
    host.join(paths[0])
    sid = host.sessions[paths[0]].sid

    def state() -> str | None:
        session = read_session(SYS, sid)
        return session.state if session else None

    assert set_recovery_tmo(SYS, sid, 3)
    with faults.portal_refuses(san, paths[0].portal):
        wait_until(lambda: state() == "FAILED", "the loss of the session")
        assert not set_recovery_tmo(SYS, sid, 4)
        assert set_recovery_tmo(SYS, sid, 3)
    wait_until(lambda: state() == "LOGGED_IN", "the session's return")
    assert recovery_tmo(SYS, sid) == 3

    host.join(paths[1])
    sids = [session.sid for session in host.sessions.values()]
    assert [set_recovery_tmo(SYS, each, 2) for each in sids] == [True, True]
    assert [recovery_tmo(SYS, each) for each in sids] == [2, 2]


def test_the_list_of_identities_is_multipaths_own(host: Host, paths: Two) -> None:
    """What we write is to the byte what multipath(8) writes, and each undoes the other's."""
    name = host.bring(paths[0]).name
    with services.multipathd("strict", "no"):
        run(["multipath", "-a", f"/dev/{name}"], soon())
        theirs = multipath_wwids.WWIDS_FILE.read_bytes()
        multipath_wwids.WWIDS_FILE.unlink()
        assert multipath_wwids.register(host.disk.wwid) is Change.CHANGED
        assert multipath_wwids.WWIDS_FILE.read_bytes() == theirs
        assert f"/{format_multipath_wwid(host.disk.wwid)}/\n".encode() in theirs

        run(["multipath", "-w", f"/dev/{name}"], soon())
        assert not multipath_wwids.is_registered(host.disk.wwid)
        assert multipath_wwids.register(host.disk.wwid) is Change.CHANGED
        run(["multipath", "-a", f"/dev/{name}"], soon())
        assert multipath_wwids.WWIDS_FILE.read_bytes() == theirs
        assert multipath_wwids.unregister(host.disk.wwid) is Change.CHANGED
