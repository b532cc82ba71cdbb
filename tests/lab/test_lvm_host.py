"""A storage node's LVM: guests' volumes are none of its business, and a full pool breaks nobody."""

from __future__ import annotations

import os
from collections.abc import Callable, Iterator

import pytest

from lab.lvm import filtered, loop_device, lvm, lvm_conf, remove_volumes, volume_group
from lunport.core.change import Change
from lunport.core.errors import BackendError, InvalidConfig, OutOfSpace, Unavailable
from lunport.drivers.lvm_group import HostFilter, VolumeClear
from tests.lab.lvm_play import MIB, ONE, SNAPSHOT, TWO, lvm_driver, read, write

GROUP = "node"
ROOM_MIB = 64


@pytest.fixture(scope="module")
def disk(lab_host: object) -> Iterator[str]:
    """A volume group, and the disk that it is on."""
    with volume_group(GROUP, ROOM_MIB) as device:
        yield device


@pytest.fixture
def emptied(disk: str) -> Iterator[str]:
    """The group without any volume, before and after."""
    yield disk
    remove_volumes(GROUP)


def _names() -> list[str]:
    return lvm("lvs", "--noheadings", "-o", "lv_name", GROUP).split()


def _make_guest_group(device: str) -> None:
    """Do what a guest may do: a volume group of the node's own name inside its disk."""
    seen = (
        f'devices {{ dir="/run" global_filter=["a|^{device}$|","r|.*|"] scan_lvs=1 '
        "use_devicesfile=0 }"
    )
    lvm("vgcreate", "-q", "-y", "--config", seen, GROUP, device)
    lvm("lvcreate", "-q", "-y", "-an", "-Wn", "-Zn", "--config", seen, "-n", ONE, "-l1", GROUP)


@pytest.mark.parametrize("kind", ["thin", pytest.param("thick", marks=pytest.mark.again)])
def test_a_guests_group_of_the_same_name_is_not_seen(emptied: str, kind: str) -> None:
    """A guest's group inside a volume is neither listed nor activated, and confuses no verb."""
    driver = lvm_driver(GROUP, kind)
    driver.create(TWO, 16 * MIB)
    _make_guest_group(os.path.realpath(driver.locate(TWO).path))
    assert driver.images() == {TWO}
    assert ONE not in _names()
    driver.create(ONE, MIB)
    assert driver.locate(ONE).size_bytes == MIB
    driver.extend(TWO, 20 * MIB)
    again = lvm_driver(GROUP, kind)
    assert again.images() == {ONE, TWO}
    assert again.sweep(()) == ()
    assert again.delete(TWO) is Change.CHANGED
    assert again.images() == {ONE}


def test_a_group_of_the_same_name_on_a_loop_device(emptied: str) -> None:
    """Where two groups of one name are seen, none is guessed; named disks decide."""
    with loop_device(16) as other, lvm_conf(filtered(emptied, other)):
        _make_guest_group(other)
        with pytest.raises(InvalidConfig, match="several groups"):
            lvm_driver(GROUP, "thick")
        driver = lvm_driver(GROUP, "thick", disks=(emptied,))
        assert driver.images() == frozenset()
        driver.create(TWO, MIB)
        assert driver.images() == {TWO}


@pytest.mark.parametrize("gap", ["", "devices { scan_lvs = 1 }\n"])
def test_a_host_that_would_look_into_volumes_is_refused(emptied: str, gap: str) -> None:
    """It is refused with the lines that mend it, or warned of; with the lines it is fit."""
    with lvm_conf(gap):
        with pytest.raises(InvalidConfig, match="global_filter accepts the volumes") as refused:
            lvm_driver(GROUP, "thick")
        lvm_driver(GROUP, "thick", host_filter=HostFilter.WARN)
    lines = str(refused.value)
    advised = lines[lines.index("devices {") : lines.index("}") + 1]
    assert emptied in advised
    with lvm_conf(advised):
        lvm_driver(GROUP, "thick")


@pytest.mark.parametrize("kind", ["thin", pytest.param("thick", marks=pytest.mark.again)])
def test_inactive_volumes_come_back(emptied: str, kind: str) -> None:
    """After a reboot the start activates volumes, and whoever asks for a snapshot activates it."""
    driver = lvm_driver(GROUP, kind)
    driver.create(ONE, MIB)
    write(driver, ONE, 0, b"kept")
    driver.snapshot(SNAPSHOT, ONE)
    write(driver, ONE, 0, b"more")
    lvm("vgchange", "-q", "-an", GROUP)
    assert read(driver, ONE, 0, 4) == b"more"
    lvm("vgchange", "-q", "-an", GROUP)
    again = lvm_driver(GROUP, kind)
    active = lvm("lvs", "--noheadings", "-o", "lv_name", "-S", "lv_active=active", GROUP)
    assert ONE in active
    assert read(again, ONE, 0, 4) == b"more"
    assert read(again, SNAPSHOT, 0, 4) == b"kept"


def test_a_pool_that_is_nearly_full(emptied: str) -> None:
    """What would need more is refused with the numbers; what is there still works."""
    driver = lvm_driver(GROUP, "thin", reserve_bytes=None)
    total = driver.capacity().total_bytes
    size = total // MIB * MIB
    driver.create(ONE, size)
    full_enough = total * 96 // 100 // MIB * MIB
    with driver.locate(ONE).path.open("r+b") as file:
        for _ in range(full_enough // MIB):
            file.write(b"x" * MIB)
    capacity = driver.capacity()
    assert capacity.data_percent is not None
    assert capacity.data_percent > 95
    verbs: tuple[Callable[[], Change], ...] = (
        lambda: driver.create(TWO, MIB),
        lambda: driver.clone(TWO, ONE, size),
        lambda: driver.snapshot(SNAPSHOT, ONE),
        lambda: driver.extend(ONE, 2 * size),
    )
    for verb in verbs:
        with pytest.raises(OutOfSpace, match="nearly full") as refused:
            verb()
        assert refused.value.free_bytes == capacity.free_bytes
        assert refused.value.needed_bytes == int(total * 0.05)
    assert driver.images() == {ONE}
    assert read(driver, ONE, full_enough - MIB, 4) == b"xxxx"
    driver.delete(ONE)
    assert driver.create(TWO, MIB) is Change.CHANGED


def test_the_next_volume_reads_as_zeros(emptied: str) -> None:
    """With "zero" nothing of a removed thick image shows in the next; with "none" it may."""
    driver = lvm_driver(GROUP, "thick")
    size = 8 * MIB
    driver.create(ONE, size)
    with driver.locate(ONE).path.open("r+b") as file:
        file.write(b"secret!!" * (size // 8))
    driver.snapshot(SNAPSHOT, ONE)
    with driver.locate(ONE).path.open("r+b") as file:
        file.write(b"later!!!" * (size // 8))
    driver.clone(TWO, SNAPSHOT, size)
    for image in (TWO, SNAPSHOT, ONE):
        driver.delete(image)
    room = driver.capacity().free_bytes
    driver.create(ONE, room)
    assert read(driver, ONE, 0, room) == bytes(room)
    write(driver, ONE, MIB, b"seen")
    careless = lvm_driver(GROUP, "thick", clear=VolumeClear.NONE)
    careless.delete(ONE)
    careless.create(TWO, room)
    assert read(careless, TWO, MIB, 4) == b"seen"


@pytest.mark.again
def test_clearing_stops_and_goes_on(emptied: str) -> None:
    """A service that ends leaves a volume that has no name any more, and the next one clears it."""
    stopping = [False]
    driver = lvm_driver(GROUP, "thick", stop=lambda: stopping[0])
    driver.create(ONE, 8 * MIB)
    write(driver, ONE, 0, b"secret")
    stopping[0] = True
    with pytest.raises(Unavailable):
        driver.delete(ONE)
    assert driver.images() == frozenset()
    assert _names() == [f"deleting.{ONE}"]
    stopping[0] = False
    again = lvm_driver(GROUP, "thick")
    assert again.sweep([ONE]) == ()  # its own operation comes back
    assert again.delete(ONE) is Change.CHANGED
    assert _names() == []


@pytest.mark.again
@pytest.mark.parametrize("kind", ["thin", pytest.param("thick", marks=pytest.mark.again)])
def test_a_volume_grows_while_it_is_open_and_does_not_go(emptied: str, kind: str) -> None:
    """Somebody who has a volume open sees it grow, and keeps it."""
    driver = lvm_driver(GROUP, kind)
    driver.create(ONE, MIB)
    with driver.locate(ONE).path.open("rb") as file:
        driver.extend(ONE, 2 * MIB)
        assert file.seek(0, os.SEEK_END) == 2 * MIB
        with pytest.raises(BackendError, match="open"):
            driver.delete(ONE)
        assert driver.images() == {ONE}
    assert driver.delete(ONE) is Change.CHANGED


@pytest.mark.again
def test_a_disk_that_was_added_is_found(emptied: str) -> None:
    """A group that an operator extends is used whole, without a restart and without a loss."""
    driver = lvm_driver(GROUP, "thick")
    driver.create(ONE, MIB)
    with loop_device(33) as more, lvm_conf(filtered(emptied, more)):
        lvm("vgextend", "-q", "-y", GROUP, more)
        assert driver.delete(ONE) is Change.CHANGED
        assert lvm("vgs", "--noheadings", "-o", "vg_missing_pv_count", GROUP).strip() == "0"
        driver.create(ONE, 80 * MIB)
        driver.delete(ONE)
        lvm("vgreduce", "-q", "-y", GROUP, more)
        lvm("pvremove", "-q", "-y", more)


def test_automatic_kind(emptied: str) -> None:
    """An empty group gets a pool and stays thin; one that has thick volumes stays thick."""
    lvm("lvcreate", "-q", "-y", "-n", "other", "-L", "1m", GROUP)
    assert not lvm_driver(GROUP, "auto").capacity().is_thin
    lvm("lvremove", "-q", "-y", f"{GROUP}/other")
    assert lvm_driver(GROUP, "auto").capacity().is_thin
    again = lvm_driver(GROUP, "auto")
    again.create(ONE, MIB)
    assert again.capacity().is_thin
