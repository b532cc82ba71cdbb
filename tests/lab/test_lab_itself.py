"""The lab proves itself: its SAN can be logged in to, and each fault does what its name says."""

from __future__ import annotations

from pathlib import Path

from lab.san import San
from lab.services import wait_until
from lunport.host.clock import Deadline
from lunport.host.runner import Completed, run


def iscsiadm(*words: str, accepted: tuple[int, ...] = (0,)) -> Completed:
    """Run ``iscsiadm -m node``."""
    return run(["iscsiadm", "-m", "node", *words], Deadline.after(60), accepted=accepted)


def test_a_disk_of_the_san_is_seen_with_the_identity_it_was_given(san: San) -> None:
    """A login brings the disk, and sysfs shows the very WWID that the SAN was asked for."""
    target = san.target("t1")
    disk = san.add_lun(target, 1, wwid="naa.6001405" + "0123456789abcdef012345678")
    words = ("-T", target.iqn, "-p", str(target.portals[0]))
    iscsiadm(*words, "-o", "new")
    iscsiadm(*words, "--login")
    found = Path("/sys/class/scsi_device")
    wait_until(lambda: list(found.glob("*:0:0:1/device/wwid")), "the disk")
    seen = [path.read_text().strip() for path in found.glob("*:0:0:1/device/wwid")]
    assert seen == [disk.wwid]
    iscsiadm(*words, "--logout")
    iscsiadm(*words, "-o", "delete")
