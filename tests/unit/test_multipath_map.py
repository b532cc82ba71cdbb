"""The multipath maps of a host, as sysfs shows them."""

from __future__ import annotations

from pathlib import Path

import pytest

from lunport.core.errors import MapMissing
from lunport.core.wwid import Wwid
from lunport.host.clock import Deadline
from lunport.host.multipath_map import (
    MultipathMap,
    find_map_of,
    list_maps,
    map_size,
    map_wwid,
    member_names,
    partition_maps,
    wait_for_member,
)
from lunport.host.systree import SysTree
from lunport.host.uevents import Predicate, Uevent

WWID = Wwid("naa.60014050000000100000000000000000")
OTHER = Wwid("naa.60014050000000200000000000000000")
MIB = 1 << 20


class Maps:
    """A /sys/block in a folder."""

    def __init__(self, root: Path) -> None:
        self.root = root
        self.tree = SysTree(root)
        for name in ("sda", "sdb"):
            (root / "block" / name).mkdir(parents=True)

    def add(
        self,
        device: str,
        uuid: str,
        *,
        name: str = "mpatha",
        members: tuple[str, ...] = (),
        sectors: int = 2048,
        suspended: str = "0",
    ) -> MultipathMap:
        """Show a map."""
        folder = self.root / "block" / device
        (folder / "dm").mkdir(parents=True)
        (folder / "slaves").mkdir()
        (folder / "holders").mkdir()
        for member in members:
            (folder / "slaves" / member).symlink_to(self.root / "block" / member)
        (folder / "dm/uuid").write_text(f"{uuid}\n")
        (folder / "dm/name").write_text(f"{name}\n")
        (folder / "dm/suspended").write_text(f"{suspended}\n")
        (folder / "size").write_text(f"{sectors}\n")
        return MultipathMap(device, name)


class Happening:
    """Events that change the tree as they come; then silence."""

    lost = False

    def __init__(self, *steps: tuple[str, str]) -> None:
        self.steps = list(steps)

    def wait(self, predicate: Predicate, deadline: Deadline) -> Uevent | None:
        """Write the next attribute and tell of it."""
        assert not deadline.has_passed()
        event = Uevent("change", "/devices/virtual/block/dm-0", {"SUBSYSTEM": "block"})
        assert predicate(event)
        assert not predicate(Uevent("add", "/devices/x/block/sda", {"SUBSYSTEM": "block"}))
        if not self.steps:
            return None
        path, text = self.steps.pop(0)
        Path(path).write_text(text)
        return event


@pytest.fixture
def maps(tmp_path: Path) -> Maps:
    """No map yet."""
    return Maps(tmp_path)


def test_a_map_is_found_by_its_identity_whatever_its_name(maps: Maps) -> None:
    """The uuid tells, and only a multipath map's: not LVM's, not a partition's, not another's."""
    maps.add("dm-0", "LVM-abcdef", name="vg-lv")
    maps.add("dm-1", "part1-mpath-360014050000000100000000000000000", name="mpathb-part1")
    assert find_map_of(maps.tree, WWID) is None
    other = maps.add("dm-2", "mpath-360014050000000200000000000000000", name="mpatha")
    ours = maps.add("dm-3", "mpath-360014050000000100000000000000000", name="data")
    assert find_map_of(maps.tree, WWID) == ours
    assert find_map_of(maps.tree, OTHER) == other
    assert list_maps(maps.tree) == (other, ours)
    assert (map_wwid(maps.tree, ours), map_wwid(maps.tree, other)) == (WWID, OTHER)


def test_members_and_size_are_read(maps: Maps) -> None:
    """Of what a map is made, and how many bytes it shows; nothing of one that is gone."""
    ours = maps.add(
        "dm-0", "mpath-360014050000000100000000000000000", members=("sda", "sdb"), sectors=131072
    )
    assert member_names(maps.tree, ours) == ("sda", "sdb")
    assert map_size(maps.tree, ours) == 64 * MIB
    gone = MultipathMap("dm-7", "gone")
    assert (member_names(maps.tree, gone), map_size(maps.tree, gone)) == ((), 0)
    assert map_wwid(maps.tree, gone) is None


def test_maps_of_partitions_are_told_from_other_holders(maps: Maps) -> None:
    """What kpartx made on a map is listed, and a volume group on it is not."""
    ours = maps.add("dm-0", "mpath-360014050000000100000000000000000")
    part = maps.add("dm-1", "part1-mpath-360014050000000100000000000000000", name="mpatha-part1")
    maps.add("dm-2", "LVM-abcdef", name="vg-lv")
    for holder in ("dm-1", "dm-2"):
        (maps.root / "block/dm-0/holders" / holder).symlink_to(maps.root / "block" / holder)
    assert partition_maps(maps.tree, ours) == (part,)


def test_a_map_is_waited_for_until_it_takes_io(maps: Maps) -> None:
    """A disk's link alone does not do: the table must be in use, and have a size."""
    ours = maps.add(
        "dm-0",
        "mpath-360014050000000100000000000000000",
        members=("sda",),
        sectors=0,
        suspended="1",
    )
    folder = maps.root / "block/dm-0"
    steps = Happening((f"{folder}/dm/suspended", "0\n"), (f"{folder}/size", "2048\n"))
    assert wait_for_member(maps.tree, steps, WWID, "sda", Deadline.after(30)) == ours
    assert steps.steps == []


def test_a_member_that_does_not_come_is_an_error_that_names_it(maps: Maps) -> None:
    """At the deadline the error says which disk is not in which map."""
    maps.add("dm-0", "mpath-360014050000000100000000000000000", members=("sda",))
    with pytest.raises(MapMissing, match=r"360014050000000100000000000000000: no map has sdb"):
        wait_for_member(maps.tree, Happening(), WWID, "sdb", Deadline.after(0))
