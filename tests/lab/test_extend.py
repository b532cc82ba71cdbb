"""Extend on the real kernel: the disk is as large as its unit, or the reason is told."""

from __future__ import annotations

import os
from pathlib import Path

import pytest

from lab.lio import MIB
from lab.san import San
from lunport.core.errors import DeviceMissing, WrongDevice
from lunport.initiator.connector import Initiator
from tests.lab.connecting import info_of


def test_a_disk_grows_while_somebody_reads_it(san: San) -> None:
    """The new size is returned and seen, also by who has it open; repeated, it stays."""
    target = san.target()
    disk = san.add_lun(target, 1, size_mib=32, growable=True)
    initiator, info = Initiator(), info_of(target, 1, disk)
    volume = initiator.connect(info)
    assert volume.size_bytes == 32 * MIB
    with Path(volume.path).open("rb", buffering=0) as reader:
        assert initiator.extend(info) == 32 * MIB
        disk.grow(48 * MIB)
        assert (initiator.extend(info), initiator.extend(info)) == (48 * MIB, 48 * MIB)
        assert os.lseek(reader.fileno(), 0, os.SEEK_END) == 48 * MIB
        reader.seek(47 * MIB)
        assert reader.read(512) == bytes(512)
    assert [entry.size_bytes for entry in initiator.connections()] == [48 * MIB]
    assert initiator.connect(info).size_bytes == 48 * MIB
    initiator.disconnect(info)


def test_a_volume_that_is_not_connected_is_not_extended(san: San) -> None:
    """There is no disk to extend, before as after."""
    target = san.target()
    initiator, info = Initiator(), info_of(target, 1, san.add_lun(target, 1))
    for _ in range(2):
        with pytest.raises(DeviceMissing):
            initiator.extend(info)
        initiator.connect(info)
        initiator.disconnect(info)


def test_another_disk_in_its_place_is_not_extended(san: San) -> None:
    """A LUN that was remapped is refused: its size is another disk's."""
    target = san.target()
    disk = san.add_lun(target, 1, size_mib=32)
    initiator, info = Initiator(), info_of(target, 1, disk)
    initiator.connect(info)
    target.remap_lun(1, san.disk(size_mib=48))
    with pytest.raises(WrongDevice):
        initiator.extend(info)
    target.remap_lun(1, disk)
    assert initiator.extend(info) == 32 * MIB
    initiator.disconnect(info)


def test_a_unit_that_is_gone_is_not_extended(san: San) -> None:
    """A LUN that its target no longer shows is missing, and the volume can be disconnected."""
    target = san.target()
    initiator, info = Initiator(), info_of(target, 1, san.add_lun(target, 1))
    initiator.connect(info)
    target.unmap_lun(1)
    with pytest.raises(DeviceMissing):
        initiator.extend(info)
    initiator.disconnect(info)
