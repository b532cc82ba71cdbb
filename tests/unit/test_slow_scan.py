"""A scan that takes longer than its caller waits, and what the caller then finds to clean up."""

from __future__ import annotations

import threading
from pathlib import Path

import pytest

from lunport.core.errors import DeviceStuck
from lunport.core.iqn import Iqn
from lunport.core.portal import Portal
from lunport.core.target_path import TargetPath
from lunport.host.clock import Deadline
from lunport.host.iscsi_sysfs import read_session
from lunport.host.scsi_disk import find_unit
from lunport.host.systree import SysTree
from lunport.initiator.connected_volume import InitiatorPolicy
from lunport.initiator.disks import Disks
from lunport.initiator.initiator_host import InitiatorHost
from tests.fakes.fake_sysfs import FakeSysfs

PATH = TargetPath(Portal("10.0.1.2"), Iqn("iqn.2026-11.org.example:t1"), 1)


class SlowScan(SysTree):
    """A sysfs whose SCSI host scans one LUN at a time; the first scan has to be let go on."""

    def __init__(self, sysfs: FakeSysfs) -> None:
        super().__init__(sysfs.root)
        self._sysfs = sysfs
        self._scan_mutex = threading.Lock()
        self.scans = 0
        self.go_on = threading.Event()

    def write(self, path: str, text: str) -> None:
        """Scan, or write as ever."""
        if not path.endswith("/scan"):
            super().write(path, text)
            return
        self.scans += 1
        if self.scans > 1:
            self.go_on.set()
        with self._scan_mutex:
            assert self.go_on.wait(30)
            if self.scans == 2:
                self._sysfs.disk(3, 1)


def test_a_unit_that_a_late_scan_brings_in_is_there_to_be_cleaned_up(tmp_path: Path) -> None:
    """The error comes after the end of the scan, so that the undo finds what it brought."""
    sysfs = FakeSysfs(tmp_path)
    sysfs.session(3, iqn=PATH.iqn)
    tree = SlowScan(sysfs)
    session = read_session(tree, 3)
    assert session is not None
    disks = Disks(InitiatorHost(sys=tree), InitiatorPolicy(disk_s=30.0))

    with pytest.raises(DeviceStuck):
        disks._scan(session, 1, PATH, Unheard(), Deadline.after(0.05))

    assert tree.scans == 2
    assert find_unit(tree, session, 1) is not None


class Unheard:
    """No event ever comes."""

    lost = False

    def wait(self, _wanted: object, _deadline: Deadline) -> None:
        """Return at once."""
