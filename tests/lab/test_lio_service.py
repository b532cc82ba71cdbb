"""The whole service over LVM and LIO, by each export policy, with two hosts.

One is this kernel's initiator by ``lunport host``, the other QEMU's. The storage node is one for
all policies: its service is started anew with the next one, as an operator would; what is stored
stays.
"""

from __future__ import annotations

import mmap
import os
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path

import pytest

from lab.lvm import lvm, volume_group
from lunport.cli.exit_codes import ExitCode
from lunport.cli.main import main
from lunport.core.volume import image_name
from lunport.host.clock import Deadline
from lunport.host.lio import DEVICE_PREFIX
from lunport.host.runner import run
from lunport.targets.naming import DEFAULT_PREFIX
from tests.daemons.qemu_io import QemuRefusedError
from tests.daemons.service_process import ServiceProcess
from tests.daemons.test_target_per_host import connect, disconnect, log_in
from tests.lab.conftest import LabHost
from tests.lab.connecting import disks, node_records, sessions
from tests.lab.lio_bench import CORE, ISCSI
from tests.lab.test_lio_helper import give_up_soon, write_directly
from tests.lab.verified_io import VerifiedWriter, wrong_in_file

GROUP = "node"
GIB = 1 << 30
B = {"initiator": "iqn.2026-11.io.lunport.lab:second", "host": "second"}
FAR = 900 << 20  # where the second host writes
START_S = 120.0
WAIT_S = 150.0


@dataclass(frozen=True, slots=True)
class Node:
    """A storage node, and this machine as a host of it."""

    service: ServiceProcess
    capsys: pytest.CaptureFixture[str]

    def start(self, policy: str) -> None:
        """Start the service with that policy; what served before has ended."""
        self.service.configure(
            f'driver = "lvm"\nhelper = "lio"\nvolume_group = "{GROUP}"\nexport = "{policy}"\n'
            "over_subscription_ratio = 1000.0"
        )
        self.service.start()

    def run(self, *words: str) -> str:
        """Run ``lunport`` in this process; return what it prints."""
        with pytest.raises(SystemExit) as ended:
            main([*words, "--endpoint", self.service.endpoint])
        printed = self.capsys.readouterr()
        assert not ended.value.code, printed.err
        return printed.out

    def connect(self, volume: str) -> Path:
        """Make a volume a disk of this machine."""
        return Path(self.run("host", "connect", volume).splitlines()[0])

    def disconnect(self, volume: str, *words: str) -> None:
        """Give it back."""
        self.run("host", "disconnect", volume, *words)

    def extend(self, volume: str, size_gib: int) -> None:
        """Grow a volume that is in use, and its disk."""
        path = f"/p/volumes/{volume}/action"
        status, answer = self.service.ask("POST", path, {"os-extend": {"new_size": size_gib}})
        assert status == 202, answer
        assert self.service.until(volume, "in-use", "error_extending") == "in-use"
        assert self.service.ask("GET", f"/p/volumes/{volume}")[1]["volume"]["size"] == size_gib
        assert self.run("host", "extend", volume) == f"{size_gib * GIB} bytes\n"

    def exported(self) -> object:
        """Return what is exported to whom."""
        return self.service.ask("GET", "/p/exports")[1]["exports"]


@pytest.fixture
def node(lab_host: LabHost, tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> Iterator[Node]:
    """A storage node whose service does not run yet."""
    del lab_host
    with volume_group(GROUP, 128, by_udev=False):
        service = ServiceProcess(tmp_path, start_s=START_S, wait_s=WAIT_S)
        try:
            yield Node(service, capsys)
        finally:
            service.end()


def stored(volume: str) -> Path:
    """Return where the node keeps a volume."""
    return Path("/dev") / GROUP / image_name(volume)


def read_directly(path: Path, offset: int) -> bytes:
    """Read one block past the page cache."""
    descriptor = os.open(path, os.O_RDONLY | os.O_DIRECT)
    try:
        with mmap.mmap(-1, mmap.PAGESIZE) as page:
            os.preadv(descriptor, [page], offset)
            return page[:]
    finally:
        os.close(descriptor)


def count_disks() -> int:
    """Have the kernel look for all that its sessions show it, and count its units."""
    for host in Path("/sys/class/iscsi_host").glob("host*"):
        (Path("/sys/class/scsi_host") / host.name / "scan").write_text("- - -")
    return len(list(Path("/sys/class/scsi_device").glob("*:*:*:*")))


def ours_in_lio() -> list[str]:
    """List targets and devices of ours in the kernel."""
    found = [*ISCSI.glob(f"{DEFAULT_PREFIX}*"), *CORE.glob(f"iblock_*/{DEVICE_PREFIX}*")]
    return [path.name for path in found]


def come_and_go(node: Node, mine: str, other: str, folder: Path, size_gib: int) -> None:
    """Have both hosts come and go while this one writes: nothing disturbs it."""
    disk = node.connect(mine)
    assert count_disks() == 1
    with VerifiedWriter.on(disk) as writer:
        writer.await_rounds(2)
        before = sessions()
        second = node.connect(other)
        assert second.resolve() != disk.resolve()
        assert count_disks() == 2
        node.disconnect(other)
        assert count_disks() == 1
        told = connect(node.service, mine, B)
        with log_in(folder, told, B) as session:
            assert "wrote" in session.run(f"write -P 0x42 {FAR} 4k")
            with pytest.raises(QemuRefusedError):
                log_in(folder, told, B, lun=told["target_lun"] + 1)
            connect(node.service, other, B)
            assert count_disks() == 1
            node.extend(mine, size_gib)
            assert count_disks() == 1
            disconnect(node.service, other, B)
            assert "wrote" in session.run(f"write -P 0x43 {FAR} 4k")
            session.log_out()
        disconnect(node.service, mine, B)
        writer.await_rounds(2)
        assert sessions() == before
        report = writer.end()
    assert report.failures == ()
    # what udev read of it meanwhile is in the page cache still, which LIO's writes pass by
    run(["blockdev", "--flushbufs", str(stored(mine))], Deadline.after(60))
    assert wrong_in_file(report, stored(mine)) == ()
    assert read_directly(disk, FAR) == b"\x43" * mmap.PAGESIZE
    node.disconnect(mine)


def cut_off(node: Node, mine: str, initiator: str, folder: Path) -> None:
    """Cut this host off: its writes are refused, the other's on the same volume are not."""
    told = connect(node.service, mine, B)
    with log_in(folder, told, B) as session:
        assert "wrote" in session.run(f"write -P 0x44 {FAR} 4k")
        disk = node.connect(mine)
        give_up_soon()
        write_directly(disk)
        assert read_directly(stored(mine), 0) == b"w" * mmap.PAGESIZE
        assert "wrote" in session.run("write -P 0x45 0 4k")
        node.run("export", "revoke", "--initiator", initiator, "--reason", "silent")
        with pytest.raises(OSError, match=r"Input/output error|No such device|severed"):
            write_directly(disk)
        assert read_directly(stored(mine), 0) == b"\x45" * mmap.PAGESIZE
        assert "wrote" in session.run(f"write -P 0x46 {FAR} 4k")
        node.disconnect(mine, "--force")
        node.run("export", "restore", "--initiator", initiator)
        disk = node.connect(mine)
        write_directly(disk)
        assert read_directly(stored(mine), 0) == b"w" * mmap.PAGESIZE
        node.disconnect(mine)
        assert "wrote" in session.run(f"write -P 0x47 {FAR} 4k")
        session.log_out()
    disconnect(node.service, mine, B)


OTHERS = ("target_per_volume", "shared_target")


@pytest.mark.timeout(900)
@pytest.mark.parametrize(
    "policies",
    [
        pytest.param(("target_per_host",), id="target_per_host"),
        pytest.param(OTHERS, id="others", marks=pytest.mark.again),
    ],
)
def test_two_hosts_by_each_policy(
    node: Node, lab_host: LabHost, tmp_path: Path, policies: tuple[str, ...]
) -> None:
    """Each has exactly its own disks, which grow; neither's leaving nor being cut off disturbs.

    Counted in sysfs after a scan of everything that the targets show. Nothing is left.
    """
    node.start(policies[0])
    mine, other = node.service.create(), node.service.create()
    for number, policy in enumerate(policies):
        if number:
            node.service.stop()
            node.start(policy)
        come_and_go(node, mine, other, tmp_path, size_gib=2 + number)
        cut_off(node, mine, lab_host.initiator, tmp_path)
        assert (node.exported(), ours_in_lio()) == ([], []), policy
        assert (sessions(), disks(), node_records()) == ([], [], []), policy
    for volume in (mine, other):
        assert node.service.ask("DELETE", f"/p/volumes/{volume}")[0] == 202
        assert node.service.until(volume, "gone", "error_deleting") == "gone"
    names = lvm("lvs", "--noheadings", "-o", "lv_name", GROUP).split()
    assert [name for name in names if "volume-" in name] == []


def test_a_kernel_without_lio(lab_host: LabHost, tmp_path: Path) -> None:
    """Where the modules cannot be had the service does not start, and says what loads them."""
    del lab_host
    service = ServiceProcess(tmp_path, backend='helper = "lio"', start_s=START_S, wait_s=WAIT_S)
    # a namespace of its own in which configfs is not mounted, and no module is found
    without = 'umount /sys/kernel/config && mount -t tmpfs none /lib/modules && exec "$@"'
    status, said = service.refusal(["unshare", "--mount", "sh", "-c", without, "sh"])
    assert status == ExitCode.UNREACHABLE, said
    wanted = "`modprobe -a target_core_mod iscsi_target_mod target_core_iblock loop` loads it"
    assert wanted in said
    assert "Traceback" not in said
