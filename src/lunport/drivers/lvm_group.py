"""A configured volume group: which disks it has, whether it is fit, thin or thick.

The host's own LVM must look into no volume (:mod:`lunport.core.lvm_filter`); here that is
verified, with the lines for lvm.conf(5) that make it so. Cinder's names and defaults where it
has them.
"""

from __future__ import annotations

import enum
import logging
import threading
from collections.abc import Mapping
from dataclasses import dataclass

from lunport.core.errors import BackendError, ImageMissing, InvalidConfig
from lunport.core.lvm_filter import advise, find_gaps
from lunport.drivers.lvm_names import image_name
from lunport.host.block_names import names_of, stable_name
from lunport.host.clock import Deadline
from lunport.host.lvm import LogicalVolume, Lvm, VolumeGroup, find_disks, read_host_settings


class LvmType(enum.StrEnum):
    """Whether new images are thin; ``auto``: in an empty group, or one that has the pool."""

    AUTO = "auto"
    THIN = "thin"
    THICK = "thick"


class VolumeClear(enum.StrEnum):
    """What becomes of a removed thick image's blocks before others get them."""

    ZERO = "zero"
    DISCARD = "discard"
    NONE = "none"


class HostFilter(enum.StrEnum):
    """Whether a host whose own LVM would look into volumes is refused."""

    REQUIRE = "require"
    WARN = "warn"


DEFAULT_CLEAR_MIB_PER_S = 256

_LOG = logging.getLogger(__name__)
_POOL_PERCENT = 95  # the rest is for the pool's metadata to grow, and for its repair
_MIB = 1 << 20
_OPEN_S = 5.0
_LOOK_S = 0.2


@dataclass(frozen=True, slots=True)
class LvmSettings:
    """What is configured. ``reserve_bytes`` None: 5 % of a thin pool, nothing of a group."""

    volume_group: str
    lvm_type: LvmType = LvmType.AUTO
    pool: str | None = None
    physical_volumes: tuple[str, ...] = ()
    volume_clear: VolumeClear = VolumeClear.ZERO
    clear_bytes_per_s: int = DEFAULT_CLEAR_MIB_PER_S * _MIB
    copy_bytes_per_s: int = 0
    over_subscription_ratio: float = 20.0
    reserve_bytes: int | None = None
    host_filter: HostFilter = HostFilter.REQUIRE

    @property
    def pool_name(self) -> str:
        """The thin pool's name; Cinder's unless another is configured."""
        return self.pool or f"{self.volume_group}-pool"


def open_group(settings: LvmSettings) -> Lvm:
    """Find the disks of the group. Raises: InvalidConfig, BackendError."""
    wanted = settings.volume_group
    disks = [
        disk
        for disk in find_disks(settings.physical_volumes)
        if disk.group == wanted and disk.path.startswith("/")
    ]
    if not disks:
        raise InvalidConfig("volume_group", wanted, "no disk of such a group is seen")
    if len({disk.group_uuid for disk in disks}) > 1:
        named = ", ".join(f"{disk.path} ({disk.group_uuid})" for disk in disks)
        raise InvalidConfig(
            "volume_group", wanted, f"several groups have this name, on {named}; name the "
            "disks of the right one as physical_volumes",
        )  # fmt: skip
    return Lvm(wanted, [disk.path for disk in disks])


def check_host_filter(settings: LvmSettings, lvm: Lvm) -> None:
    """Judge the host's own configuration. Raises: InvalidConfig."""
    own = {disk: names_of(disk) for disk in lvm.disks}
    group = settings.volume_group
    foreign = {
        f"the volumes of {group}": (
            f"/dev/{group}/volume-0",
            f"/dev/mapper/{group.replace('-', '--')}-volume--0",
            "/dev/dm-999",
        ),
        "loop devices, and with them volumes in files": ("/dev/loop999",),
        "disks that a host logs in to": ("/dev/sdzzz", "/dev/disk/by-path/ip-lun-1"),
    }
    gaps = find_gaps(read_host_settings(), own, foreign)
    if not gaps:
        return
    seen = {disk.path for disk in find_disks() if not disk.path.startswith("/dev/loop")}
    lines = advise(stable_name(disk) for disk in sorted(seen.union(lvm.disks)))
    reason = (
        f"this host's own LVM would look into volumes: {'; '.join(gaps)}. Put into "
        f"/etc/lvm/lvm.conf (and add other disks that the host itself needs), and start "
        f"again:\n{lines}\n"
    )
    if settings.host_filter is HostFilter.REQUIRE:
        raise InvalidConfig("host_filter", "require", reason)
    _LOG.warning("host_lvm_unfiltered %s", reason.replace("\n", " "))


def choose_kind(settings: LvmSettings, lvm: Lvm, group: VolumeGroup) -> bool:
    """Tell whether new images are thin; make the pool when it is not there."""
    if settings.lvm_type is LvmType.THICK:
        return False
    pool_name = settings.pool_name
    pool = lvm.find([pool_name]).get(pool_name)
    if pool is not None and not pool.is_pool:
        raise InvalidConfig("pool", pool_name, "a volume of that name is no thin pool")
    if pool is None:
        if settings.lvm_type is LvmType.AUTO and group.volumes:
            return False
        lvm.make_pool(pool_name, _POOL_PERCENT)
    return True


def check_pool(settings: LvmSettings, lvm: Lvm) -> None:
    """Verify that the pool can be used, and activate it. Raises: InvalidConfig, BackendError."""
    name = settings.pool_name
    pool = lvm.find([name])[name]
    if not pool.zeroes:
        raise InvalidConfig(
            "pool", name, "its new blocks show what others left; "
            f"run: lvchange -Zy {lvm.group}/{name}",
        )  # fmt: skip
    if not pool.is_active:
        lvm.activate(name)


def present(lvm: Lvm, found: Mapping[str, LogicalVolume], name: str) -> LogicalVolume:
    """Return one of the volumes found. Raises: ImageMissing."""
    try:
        return found[name]
    except KeyError:
        raise ImageMissing(f"{lvm.device(name)} ({image_name(name) or name})") from None


def wait_until_closed(lvm: Lvm, one: LogicalVolume, action: str) -> LogicalVolume:
    """Give what looks at a device for a moment (udev does) the time to close it.

    Raises: BackendError (somebody has it open for longer), ImageMissing.
    """
    pause = threading.Event()
    deadline = Deadline.after(_OPEN_S)
    while one.is_open and not deadline.has_passed():
        pause.wait(_LOOK_S)
        one = present(lvm, lvm.find([one.name]), one.name)
    if one.is_open:
        image = image_name(one.name) or one.name
        raise BackendError(f"{image} is open on the storage node and cannot be {action}.")
    return one
