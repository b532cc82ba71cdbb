"""Bring one SCSI unit into the kernel, read what it is, and take it out again.

Touches below /sys (drivers/scsi/scsi_sysfs.c, scsi_scan.c, sd.c):

    class/scsi_host/host3/scan                      "0 0 1": channel, target, LUN
    bus/scsi/devices/3:0:0:1/{state,wwid,rescan,delete}
    bus/scsi/devices/3:0:0:1/block/sda/{dev,size,stat}
    bus/scsi/devices/3:0:0:1/scsi_disk/3:0:0:1/cache_type

Sends no command to the unit itself: the kernel reads the identity when it scans, and shows
it. Everything that waits for the unit has a deadline. Decides nothing: which unit is the right
one, and whether it may go, is the caller's knowledge.
"""

from __future__ import annotations

import errno
import re
from dataclasses import dataclass

from lunport.core.change import Change
from lunport.core.errors import DeviceMissing, DeviceStuck, InvalidInput, SessionMissing
from lunport.core.kernel_session import KernelSession
from lunport.core.scsi_address import ScsiAddress
from lunport.core.wwid import Wwid, parse_wwid
from lunport.host.blocking import call_until, call_within
from lunport.host.clock import Deadline
from lunport.host.iscsi_sysfs import session_targets
from lunport.host.systree import SysTree
from lunport.host.uevents import Uevent, UeventSource

_SECTOR_BYTES = 512  # "size" counts these, whatever the unit's own block size (Documentation/ABI)
_LOOK_S = 0.5  # how long an event that nobody told us was lost may stay unnoticed
RUNNING = "running"  # the state of a unit that takes commands
_GONE = frozenset({errno.ENOENT, errno.ENODEV, errno.ENXIO, errno.ENOTDIR})
_DISK_PATH = re.compile(r"/(?P<address>[0-9:]+)/block/[^/]+")


@dataclass(frozen=True, slots=True)
class ScsiDisk:
    """One disk of the kernel at the moment it was read.

    ``number``: "8:0", major and minor. ``wwid``: the identity as the kernel last read it from
    the unit. ``state``: running, blocked, transport-offline, offline ...
    """

    address: ScsiAddress
    name: str
    number: str
    wwid: Wwid | None
    state: str
    size_bytes: int

    @property
    def path(self) -> str:
        """The device node."""
        return f"/dev/{self.name}"


# -- finding and reading ---------------------------------------------------------------------


def find_unit(sys: SysTree, session: KernelSession, lun: int) -> ScsiAddress | None:
    """Find the unit of a session with that number as the kernel counts (``kernel_lun``)."""
    for target in session_targets(sys, session):
        scsi_host, channel, number = map(int, target.removeprefix("target").split(":"))
        address = ScsiAddress(scsi_host, channel, number, lun)
        if sys.exists(f"{session.node}/{target}/{address}"):
            return address
    return None


def read_disk(sys: SysTree, address: ScsiAddress) -> ScsiDisk | None:
    """Read a disk; None while the unit has no disk, or none any more."""
    unit = _unit(address)
    names = sys.list(f"{unit}/block")
    if not names:
        return None
    number = sys.read(f"{unit}/block/{names[0]}/dev")
    size = sys.read(f"{unit}/block/{names[0]}/size")
    state = sys.read(f"{unit}/state")
    if not number or not size or not size.isdigit() or not state:
        return None
    return ScsiDisk(
        address=address,
        name=names[0],
        number=number,
        wwid=read_wwid(sys, address),
        state=state,
        size_bytes=int(size) * _SECTOR_BYTES,
    )


def read_wwid(sys: SysTree, address: ScsiAddress) -> Wwid | None:
    """Read the identity that the kernel remembers of a unit; None when it has none."""
    text = sys.read(f"{_unit(address)}/wwid")
    if not text:
        return None
    try:
        return parse_wwid(text)
    except InvalidInput:
        return None


def is_ready(sys: SysTree, disk: ScsiDisk) -> bool:
    """Tell whether the disk can be opened already: somebody has read from it.

    Quirk(kernel): ``block/sdX`` is in sysfs before the disk can be opened (ENXIO), because
    device_add_disk() adds the device, then the inode, then reads the partition table, and then
    sends the uevent (block/genhd.c, 6.1). A read that has completed (first number of ``stat``)
    proves that it can be opened; the reading of the partition table is always there.
    """
    numbers = (sys.read(f"{_unit(disk.address)}/block/{disk.name}/stat") or "").split()
    return bool(numbers) and numbers[0] != "0"


# -- bringing in -------------------------------------------------------------------------------


def scan_lun(sys: SysTree, session: KernelSession, lun: int, deadline: Deadline) -> None:
    """Let the kernel look for one unit on one SCSI host; ``find_unit`` says if it was there.

    Repeating it changes nothing, not even what is known of a unit found before.
    Raises: SessionMissing (the SCSI host is gone), DeviceStuck.
    """
    place = _place(sys, session)
    where = f"{session.portal} {session.iqn} lun {lun}"
    path = f"class/scsi_host/host{session.scsi_host}/scan"
    try:
        call_within(lambda: sys.write(path, f"{place} {lun}"), deadline, "a scan", device=where)
    except OSError as error:
        detail = f"{path}: {error.strerror or error}"
        raise SessionMissing(where, detail) from error


def rescan(sys: SysTree, address: ScsiAddress, deadline: Deadline) -> None:
    """Let the kernel read a unit's identity and capacity again, and make sure that it did.

    A unit that its target no longer shows keeps its identity and has no bytes afterwards.
    Raises: DeviceMissing (gone, or nothing was read), DeviceStuck.
    """
    # Quirk(kernel): the identity in sysfs is the one of the first scan. When the storage maps
    # another disk to the LUN, ``wwid`` stays while reads already come from the other disk, and
    # a repeated scan of the LUN changes nothing; ``rescan`` refreshes wwid and size, delete and
    # scan do so as well (drivers/scsi/scsi.c, scsi_attach_vpd; seen with 6.1 and LIO).
    # Quirk(kernel): ``rescan`` of a unit whose session is in recovery says within 20 ms that all
    # went well and has read nothing (seen with Debian's 6.1.0-56; another kernel may block there
    # until the session is back or given up). A page that can't be read leaves the old one in
    # place. So the state is looked at and the answered commands are counted.
    unit = _unit(address)
    answered = sys.read(f"{unit}/iodone_cnt")
    try:
        call_within(
            lambda: sys.write(f"{unit}/rescan", "1"), deadline, "a rescan", device=str(address)
        )
    except OSError as error:
        raise DeviceMissing(str(address), f"rescan: {error.strerror or error}") from error
    state = sys.read(f"{unit}/state")
    if state != RUNNING or (answered is not None and sys.read(f"{unit}/iodone_cnt") == answered):
        raise DeviceMissing(str(address), f"it is {state or 'gone'} and did not answer a rescan")


def wait_for_disk(
    sys: SysTree, uevents: UeventSource, address: ScsiAddress, deadline: Deadline
) -> ScsiDisk:
    """Wait until the disk of a unit is there and can be opened.

    ``uevents`` was opened before the scan. Raises: DeviceMissing.
    """
    disk = read_disk(sys, address)
    if disk is not None and is_ready(sys, disk):
        return disk
    added = False
    has_time = True
    while has_time:
        has_time = not deadline.has_passed()
        event = uevents.wait(lambda one: _is_disk(one, address, "add"), deadline.at_most(_LOOK_S))
        added = added or event is not None
        disk = read_disk(sys, address)
        if disk is not None and (added or is_ready(sys, disk)):
            return disk
    found = "the unit has no disk" if disk is None else f"{disk.path} can't be opened"
    raise DeviceMissing(str(address), f"{found} after {deadline.budget_s:.1f} s")


# -- taking out --------------------------------------------------------------------------------


def delete_unit(sys: SysTree, address: ScsiAddress, deadline: Deadline) -> Change:
    """Take a unit out of the kernel; UNCHANGED when it is not there.

    Whoever has it open gets errors from then on. Raises: DeviceStuck.
    """
    # Quirk(kernel): removing a disk sends SYNCHRONIZE CACHE when it has a write cache (sd.c,
    # sd_shutdown). Through a dead portal that ends only when the session is given up: after
    # the detection (up to 10 s) and recovery_tmo (120 s), with the SCSI host locked. Once the
    # session is FAILED and the unit "blocked" it is removed at once and what waited fails
    # (scsi_sysfs.c, __scsi_remove_device); ``disable_cache_sync`` avoids the command. 6.1.
    # Quirk(kernel): removing the last but one unit of a SCSI host waits for the commands that
    # the remaining one has on their way: its tags are no longer shared, and its queue is frozen
    # for that (blk-mq.c, blk_mq_del_queue_tag_set; seen in 6.1). Through a dead portal that is
    # until the session is given up. The unit itself is out of sysfs before, so its absence counts.
    unit = _unit(address)
    try:
        call_until(
            lambda: sys.write(f"{unit}/delete", "1"),
            lambda: not sys.exists(unit),
            deadline,
            "its removal",
            device=str(address),
        )
    except OSError as error:
        return _absent(error, "its removal", address)
    return Change.CHANGED


def set_offline(sys: SysTree, address: ScsiAddress, deadline: Deadline) -> Change:
    """Let everything that is sent to a unit fail from now on. Raises: DeviceStuck.

    Quirk(kernel): this does not help a removal. ``delete`` makes the unit "cancel", which takes
    commands again, so that the SYNCHRONIZE CACHE is sent and hangs on a dead portal (longer
    than 60 s seen); a "blocked" unit can't be made offline at all (EINVAL, 6.1).
    """
    # Quirk(kernel): a state written without a line feed is refused with EINVAL, unlike any other
    # attribute (drivers/scsi/scsi_sysfs.c, store_state_field; 6.1).
    path = f"{_unit(address)}/state"
    return _write_if_there(sys, path, "offline\n", deadline, "going offline", address)


def disable_cache_sync(sys: SysTree, address: ScsiAddress, deadline: Deadline) -> Change:
    """Let the kernel not flush the storage's write cache when the unit is removed.

    The unit itself is not told. A removal is then immediate through a dead portal too, unless
    commands are on their way: they end when the session is seen to be dead (FAILED), and the
    removal with them. Raises: DeviceStuck.
    """
    path = f"{_unit(address)}/scsi_disk/{address}/cache_type"
    text = "temporary write through"
    return _write_if_there(sys, path, text, deadline, "a change of its cache", address)


def wait_for_removal(
    sys: SysTree, uevents: UeventSource, address: ScsiAddress, deadline: Deadline
) -> None:
    """Wait until a unit is out of the kernel. Raises: DeviceStuck."""
    has_time = True
    while sys.exists(_unit(address)):
        if not has_time:
            raise DeviceStuck(str(address), "its removal", deadline.budget_s)
        has_time = not deadline.has_passed()
        uevents.wait(lambda one: _is_unit(one, address, "remove"), deadline.at_most(_LOOK_S))


def _place(sys: SysTree, session: KernelSession) -> str:
    """Give channel and target as a scan wants them; the folder exists after the first one."""
    targets = session_targets(sys, session)
    if targets:
        return targets[0].partition(":")[2].replace(":", " ")
    number = sys.read(f"class/iscsi_session/session{session.sid}/target_id") or ""
    # An offload card has all its sessions on one SCSI host: name ours if the kernel says which.
    return f"0 {number}" if number.isdigit() else "- -"


def _write_if_there(
    sys: SysTree, path: str, text: str, deadline: Deadline, what: str, address: ScsiAddress
) -> Change:
    try:
        call_within(lambda: sys.write(path, text), deadline, what, device=str(address))
    except OSError as error:
        return _absent(error, what, address)
    return Change.CHANGED


def _absent(error: OSError, what: str, address: ScsiAddress) -> Change:
    if error.errno not in _GONE:
        raise DeviceStuck(str(address), f"{what} ({error.strerror})", 0.0) from error
    return Change.UNCHANGED


def _unit(address: ScsiAddress) -> str:
    return f"bus/scsi/devices/{address}"


def _is_disk(event: Uevent, address: ScsiAddress, action: str) -> bool:
    # .../0:0:0:1/block/sda, and not its partition .../0:0:0:1/block/sda/sda1
    match = _DISK_PATH.search(event.devpath)
    return (
        event.action == action
        and match is not None
        and match.end() == len(event.devpath)
        and match["address"] == str(address)
    )


def _is_unit(event: Uevent, address: ScsiAddress, action: str) -> bool:
    return (
        event.action == action
        and event.subsystem == "scsi"
        and event.devpath.endswith(f"/{address}")
    )
