"""Find a storage driver by the name that the configuration uses.

The drivers that come with Lunport are listed here; others announce a factory under the entry
point group ``lunport.drivers``. A factory takes :class:`DriverSettings`.
"""

from __future__ import annotations

import enum
import re
from collections.abc import Callable, Mapping
from dataclasses import dataclass, field
from importlib.metadata import entry_points
from pathlib import Path
from typing import TypeVar

from lunport.core.errors import InvalidConfig
from lunport.drivers.driver import PROTOCOL_VERSION, StorageDriver
from lunport.drivers.file import DEFAULT_RATIO, DEFAULT_RESERVE_BYTES, FileDriver
from lunport.drivers.lvm import LvmDriver
from lunport.drivers.lvm_group import (
    DEFAULT_CLEAR_MIB_PER_S,
    HostFilter,
    LvmSettings,
    LvmType,
    VolumeClear,
)
from lunport.drivers.static_options import make_static_driver

Kind = TypeVar("Kind", bound=enum.StrEnum)

GROUP = "lunport.drivers"
_MIB = 1 << 20
_LVM_NAME = re.compile(r"[A-Za-z0-9_+][A-Za-z0-9_.+-]{0,99}")
_LVM_OPTIONS = frozenset(
    (
        "volume_group",
        "lvm_type",
        "pool",
        "physical_volumes",
        "volume_clear",
        "clear_mib_per_s",
        "copy_mib_per_s",
        "over_subscription_ratio",
        "reserve_mib",
        "host_filter",
    )
)


def _never() -> bool:
    return False


@dataclass(frozen=True, slots=True)
class DriverSettings:
    """What a driver is made from.

    ``folder`` is where it may keep images unless an option says otherwise; ``options`` are
    the driver's own keys of its ``[backend.NAME]`` table; ``stop`` tells a long copy that the
    service ends.
    """

    backend: str
    folder: Path
    options: Mapping[str, object] = field(default_factory=dict)
    stop: Callable[[], bool] = _never


DriverFactory = Callable[[DriverSettings], StorageDriver]


def make_driver(name: str, settings: DriverSettings) -> StorageDriver:
    """Make a backend's driver.

    Raises: InvalidConfig (unknown name or option, or written for another protocol version).
    """
    factory = _BUILT_IN.get(name)
    if factory is None:
        factory = _load(name, settings.backend)
    driver = factory(settings)
    require_protocol(name, settings.backend, driver.protocol_version)
    return driver


def require_protocol(name: str, backend: str, version: int) -> None:
    """Refuse a driver that was written for another protocol. Raises: InvalidConfig."""
    if version != PROTOCOL_VERSION:
        reason = f"it speaks version {version} of the driver's protocol, not {PROTOCOL_VERSION}"
        raise InvalidConfig(f"backend.{backend}.driver", name, reason)


def driver_names() -> tuple[str, ...]:
    """List the names that can be configured."""
    return tuple(sorted({*_BUILT_IN, *(point.name for point in entry_points(group=GROUP))}))


def _load(name: str, backend: str) -> DriverFactory:
    for point in entry_points(group=GROUP, name=name):
        loaded: DriverFactory = point.load()
        return loaded
    known = ", ".join(driver_names())
    raise InvalidConfig(f"backend.{backend}.driver", name, f"known drivers: {known}")


def _make_file(settings: DriverSettings) -> StorageDriver:
    where = f"backend.{settings.backend}"
    options = dict(settings.options)
    directory = options.pop("directory", str(settings.folder))
    ratio = options.pop("over_subscription_ratio", DEFAULT_RATIO)
    reserve_mib = options.pop("reserve_mib", DEFAULT_RESERVE_BYTES // _MIB)
    if options:
        known = "known options: directory, over_subscription_ratio, reserve_mib"
        raise InvalidConfig(where, ", ".join(sorted(options)), known)
    if not isinstance(directory, str) or not Path(directory).is_absolute():
        raise InvalidConfig(f"{where}.directory", directory, "expected an absolute path")
    reserve_bytes = _mib(where, "reserve_mib", reserve_mib)
    return FileDriver(
        Path(directory),
        over_subscription_ratio=_ratio(where, "over_subscription_ratio", ratio),
        reserve_bytes=reserve_bytes,
        stop=settings.stop,
    )


def _make_lvm(settings: DriverSettings) -> StorageDriver:
    where = f"backend.{settings.backend}"
    options = dict(settings.options)
    unknown = sorted(options.keys() - _LVM_OPTIONS)
    if unknown:
        raise InvalidConfig(
            where, ", ".join(unknown), f"known options: {', '.join(sorted(_LVM_OPTIONS))}"
        )
    group, pool = options.get("volume_group"), options.get("pool")
    if not isinstance(group, str) or not _LVM_NAME.fullmatch(group):
        raise InvalidConfig(f"{where}.volume_group", group, "expected a volume group's name")
    if pool is not None and (not isinstance(pool, str) or not _LVM_NAME.fullmatch(pool)):
        raise InvalidConfig(f"{where}.pool", pool, "expected a thin pool's name")
    disks = options.get("physical_volumes", ())
    if not isinstance(disks, (list, tuple)) or not all(
        isinstance(disk, str) and disk.startswith("/dev/") for disk in disks
    ):
        raise InvalidConfig(f"{where}.physical_volumes", disks, "expected paths below /dev")
    reserve = options.get("reserve_mib")
    made = LvmSettings(
        volume_group=group,
        lvm_type=_choice(where, "lvm_type", options.get("lvm_type", "auto"), LvmType),
        pool=pool,
        physical_volumes=tuple(disks),
        volume_clear=_choice(
            where, "volume_clear", options.get("volume_clear", "zero"), VolumeClear
        ),
        clear_bytes_per_s=_mib(
            where, "clear_mib_per_s", options.get("clear_mib_per_s", DEFAULT_CLEAR_MIB_PER_S)
        ),
        copy_bytes_per_s=_mib(where, "copy_mib_per_s", options.get("copy_mib_per_s", 0)),
        over_subscription_ratio=_ratio(
            where,
            "over_subscription_ratio",
            options.get("over_subscription_ratio", DEFAULT_RATIO),
        ),
        reserve_bytes=None if reserve is None else _mib(where, "reserve_mib", reserve),
        host_filter=_choice(
            where, "host_filter", options.get("host_filter", "require"), HostFilter
        ),
    )
    return LvmDriver(made, stop=settings.stop)


def _choice(where: str, key: str, value: object, known: type[Kind]) -> Kind:
    try:
        return known(str(value))
    except ValueError:
        names = " or ".join(repr(str(one)) for one in known)
        raise InvalidConfig(f"{where}.{key}", value, f"expected {names}") from None


def _ratio(where: str, key: str, value: object) -> float:
    if isinstance(value, bool) or not isinstance(value, int | float) or value < 1:
        raise InvalidConfig(f"{where}.{key}", value, "expected a number, at least 1")
    return float(value)


def _mib(where: str, key: str, value: object) -> int:
    """Read a whole number of MiB as bytes."""
    if isinstance(value, bool) or not isinstance(value, int) or value < 0:
        raise InvalidConfig(f"{where}.{key}", value, "expected a whole number, at least 0")
    return value * _MIB


def _make_static(settings: DriverSettings) -> StorageDriver:
    return make_static_driver(
        settings.backend, settings.folder, settings.options, stop=settings.stop
    )


_BUILT_IN: Mapping[str, DriverFactory] = {
    "file": _make_file,
    "lvm": _make_lvm,
    "static": _make_static,
}
