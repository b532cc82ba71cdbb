"""Find a storage driver by the name that the configuration uses.

The drivers that come with Lunport are listed here; others announce a factory under the entry
point group ``lunport.drivers``. A factory takes :class:`DriverSettings`.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping
from dataclasses import dataclass, field
from importlib.metadata import entry_points
from pathlib import Path

from lunport.core.errors import InvalidConfig
from lunport.drivers.driver import StorageDriver
from lunport.drivers.file import DEFAULT_RATIO, DEFAULT_RESERVE_BYTES, FileDriver
from lunport.drivers.static_options import make_static_driver

GROUP = "lunport.drivers"
_MIB = 1 << 20


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
    """Make a backend's driver. Raises: InvalidConfig (unknown name or option)."""
    factory = _BUILT_IN.get(name)
    if factory is None:
        factory = _load(name, settings.backend)
    return factory(settings)


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
    if isinstance(ratio, bool) or not isinstance(ratio, int | float):
        raise InvalidConfig(f"{where}.over_subscription_ratio", ratio, "expected a number")
    if isinstance(reserve_mib, bool) or not isinstance(reserve_mib, int):
        raise InvalidConfig(f"{where}.reserve_mib", reserve_mib, "expected a whole number")
    return FileDriver(
        Path(directory),
        over_subscription_ratio=float(ratio),
        reserve_bytes=reserve_mib * _MIB,
        stop=settings.stop,
    )


def _make_static(settings: DriverSettings) -> StorageDriver:
    return make_static_driver(
        settings.backend, settings.folder, settings.options, stop=settings.stop
    )


_BUILT_IN: Mapping[str, DriverFactory] = {"file": _make_file, "static": _make_static}
