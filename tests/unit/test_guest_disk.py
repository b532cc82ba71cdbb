"""Tests of the XML of a disk of ours, and of what it is called in a guest."""

from __future__ import annotations

import pytest
from hypothesis import given
from hypothesis import strategies as st

from lunport.core.disk_source import DiskSource
from lunport.core.errors import InvalidConnectionInfo, InvalidInput
from lunport.core.guest_disk import (
    DiskBus,
    DiskSettings,
    check_target,
    format_block_disk,
    format_network_disk,
    next_target,
    parse_iotune,
)
from lunport.core.iqn import Iqn
from lunport.core.portal import Portal
from lunport.core.target_path import TargetPath
from tests.unit.domain_corpus import SERIAL

PATH = TargetPath(Portal("fd00::1", 3260), Iqn("iqn.2026-11.lab:b"), 7)


def test_a_block_disk() -> None:
    """A disk of the host's kernel, with all that the storage side may say of it."""
    settings = DiskSettings(
        SERIAL,
        "vdb",
        is_readonly=True,
        is_shareable=True,
        physical_block_size=4096,
        logical_block_size=512,
        iotune={"total_iops_sec": 500},
    )
    assert format_block_disk(settings, "/dev/disk/by-id/scsi-36001405") == (
        "<disk type='block' device='disk'>\n"
        "  <driver name='qemu' type='raw' cache='none' io='native' discard='unmap'/>\n"
        "  <source dev='/dev/disk/by-id/scsi-36001405'/>\n"
        "  <target dev='vdb' bus='virtio'/>\n"
        "  <iotune>\n"
        "    <total_iops_sec>500</total_iops_sec>\n"
        "  </iotune>\n"
        "  <readonly/>\n"
        "  <shareable/>\n"
        "  <blockio logical_block_size='512' physical_block_size='4096'/>\n"
        f"  <serial>{SERIAL}</serial>\n"
        f"  <alias name='ua-{SERIAL}'/>\n"
        "</disk>"
    )


def test_a_network_disk() -> None:
    """A disk of QEMU's initiator names the secret, and never holds it."""
    source = DiskSource(PATH, Iqn("iqn.2026-11.lab:init"), "user")
    settings = DiskSettings(SERIAL, "sda", bus=DiskBus.SCSI, discard=False)
    assert format_network_disk(settings, source, secret_id="5ec0") == (
        "<disk type='network' device='disk'>\n"
        "  <driver name='qemu' type='raw' cache='none'/>\n"
        "  <source protocol='iscsi' name='iqn.2026-11.lab:b/7'>\n"
        "    <host name='fd00::1' port='3260'/>\n"
        "    <auth type='chap' username='user'>\n"
        "      <secret type='iscsi' uuid='5ec0'/>\n"
        "    </auth>\n"
        "    <initiator>\n"
        "      <iqn name='iqn.2026-11.lab:init'/>\n"
        "    </initiator>\n"
        "  </source>\n"
        "  <target dev='sda' bus='scsi'/>\n"
        f"  <serial>{SERIAL}</serial>\n"
        f"  <alias name='ua-{SERIAL}'/>\n"
        "</disk>"
    )


def test_limits_are_numbers_that_agree() -> None:
    """Limits come as numbers or texts; other keys are for others; contradictions are refused."""
    specs = {"total_bytes_sec": "1048576", "read_iops_sec": 100, "minIOPS": "7", "consumer": "both"}
    assert parse_iotune(specs) == {"total_bytes_sec": 1048576, "read_iops_sec": 100}
    assert parse_iotune(None) == {}
    for bad in (
        {"total_iops_sec": "many"},
        {"total_iops_sec": -1},
        {"total_iops_sec": True},
        {"total_bytes_sec": 1, "read_bytes_sec": 1},
    ):
        with pytest.raises(InvalidConnectionInfo, match="qos_specs"):
            parse_iotune(bad)


def test_the_next_name_is_free() -> None:
    """Names follow one another as the kernel counts, and gaps are used."""
    assert next_target(["vda", "sda"], DiskBus.VIRTIO) == "vdb"
    assert next_target(["vda", "vdc"], DiskBus.VIRTIO) == "vdb"
    assert next_target([], DiskBus.SCSI) == "sda"
    many = {f"vd{chr(ord('a') + number)}" for number in range(26)}
    assert next_target(many, DiskBus.VIRTIO) == "vdaa"
    assert next_target({*many, "vdaa"}, DiskBus.VIRTIO) == "vdab"


@given(st.integers(0, 800))
def test_names_never_repeat(count: int) -> None:
    """However many disks there are, the next name is one that none has."""
    taken: list[str] = []
    for _ in range(count % 60):
        taken.append(next_target(taken, DiskBus.VIRTIO))
    assert len(set(taken)) == len(taken)
    assert all(check_target(name, DiskBus.VIRTIO) == name for name in taken)


@pytest.mark.parametrize("name", ["", "vd", "sda", "vdA", "vd1", "vdb ", "hda"])
def test_other_names_are_refused(name: str) -> None:
    """A name that the bus does not have is refused."""
    with pytest.raises(InvalidInput, match="expected vd and letters"):
        check_target(name, DiskBus.VIRTIO)
