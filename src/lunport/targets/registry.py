"""Find a target helper by the name that the configuration uses.

The helpers that come with Lunport are listed here; others announce a factory under the entry
point group ``lunport.helpers``. A factory takes :class:`HelperSettings`.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping
from dataclasses import dataclass, field
from importlib.metadata import entry_points
from pathlib import Path

from lunport.core.errors import InvalidConfig
from lunport.core.portal import Portal, parse_portal
from lunport.host.tgtd import OwnTgtd, SystemTgtd, TgtDaemon
from lunport.targets.elsewhere import ElsewhereHelper
from lunport.targets.helper import PROTOCOL_VERSION, TargetHelper
from lunport.targets.lio import LioHelper
from lunport.targets.naming import DEFAULT_PREFIX
from lunport.targets.tgt import TgtHelper

GROUP = "lunport.helpers"
ELSEWHERE = "elsewhere"  # no target of ours: what a static backend has
DEFAULT_IO_THREADS = 2


@dataclass(frozen=True, slots=True)
class HelperSettings:
    """What a helper is made from.

    ``folder`` is where it may keep its daemon's files; ``options`` are the helper's own keys
    of its ``[backend.NAME]`` table.
    """

    backend: str
    folder: Path
    portals: tuple[Portal, ...]
    target_prefix: str = DEFAULT_PREFIX
    options: Mapping[str, object] = field(default_factory=dict)


HelperFactory = Callable[[HelperSettings], TargetHelper]


def make_helper(name: str, settings: HelperSettings) -> TargetHelper:
    """Make a backend's helper.

    Raises: InvalidConfig (unknown name or option, or written for another protocol version).
    """
    factory = _BUILT_IN.get(name)
    if factory is None:
        factory = _load(name, settings.backend)
    helper = factory(settings)
    require_protocol(name, settings.backend, helper.protocol_version)
    return helper


def require_protocol(name: str, backend: str, version: int) -> None:
    """Refuse a helper that was written for another protocol. Raises: InvalidConfig."""
    if version != PROTOCOL_VERSION:
        reason = f"it speaks version {version} of the helper's protocol, not {PROTOCOL_VERSION}"
        raise InvalidConfig(f"backend.{backend}.helper", name, reason)


def helper_names() -> tuple[str, ...]:
    """List the names that can be configured."""
    return tuple(sorted({*_BUILT_IN, *(point.name for point in entry_points(group=GROUP))}))


def _load(name: str, backend: str) -> HelperFactory:
    for point in entry_points(group=GROUP, name=name):
        loaded: HelperFactory = point.load()
        return loaded
    known = ", ".join(helper_names())
    raise InvalidConfig(f"backend.{backend}.helper", name, f"known helpers: {known}")


def _make_tgt(settings: HelperSettings) -> TargetHelper:
    where = f"backend.{settings.backend}"
    options = dict(settings.options)
    whose = options.pop("tgtd", "own")
    io_threads = options.pop("io_threads", DEFAULT_IO_THREADS)
    if options:
        known = "known options: tgtd, io_threads"
        raise InvalidConfig(where, ", ".join(sorted(options)), known)
    if whose not in ("own", "system"):
        raise InvalidConfig(f"{where}.tgtd", whose, "expected own or system")
    if isinstance(io_threads, bool) or not isinstance(io_threads, int):
        raise InvalidConfig(f"{where}.io_threads", io_threads, "expected a whole number")
    daemon: TgtDaemon
    if whose == "system":
        daemon = SystemTgtd(settings.portals)
    else:
        daemon = OwnTgtd(settings.folder, settings.portals, io_threads=io_threads)
    return TgtHelper(daemon, target_prefix=settings.target_prefix)


def _make_lio(settings: HelperSettings) -> TargetHelper:
    where = f"backend.{settings.backend}"
    options = dict(settings.options)
    direct_io = options.pop("direct_io", True)
    iser = options.pop("iser", ())
    if options:
        raise InvalidConfig(where, ", ".join(sorted(options)), "known options: direct_io, iser")
    if not isinstance(direct_io, bool):
        raise InvalidConfig(f"{where}.direct_io", direct_io, "expected true or false")
    if not isinstance(iser, list | tuple):
        raise InvalidConfig(f"{where}.iser", iser, "expected a list of portals")
    hosts = {portal.host for portal in settings.portals}
    for text in iser:
        if parse_portal(text, what=f"{where}.iser").host not in hosts:
            raise InvalidConfig(f"{where}.iser", text, "it is none of the backend's portals")
    return LioHelper(
        settings.portals,
        backend=settings.backend,
        target_prefix=settings.target_prefix,
        direct_io=direct_io,
    )


def _make_elsewhere(settings: HelperSettings) -> TargetHelper:
    del settings
    return ElsewhereHelper()


_BUILT_IN: Mapping[str, HelperFactory] = {
    "tgt": _make_tgt,
    "lio": _make_lio,
    ELSEWHERE: _make_elsewhere,
}
