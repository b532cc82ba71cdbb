"""Put the configured backends together: driver, target helper, and how they offer volumes."""

from __future__ import annotations

import contextlib
import errno
import functools
import re
import socket
from collections.abc import Callable, Collection, Mapping, Sequence
from pathlib import Path

from lunport.config import DRIVER_KEYS, BackendConfig
from lunport.core.errors import InvalidConfig, PortalUnavailable
from lunport.core.portal import DEFAULT_PORT, Portal, parse_portal
from lunport.drivers.registry import DriverSettings, make_driver
from lunport.store import operations
from lunport.store.engine import Store
from lunport.targets.helper import HelperLimits
from lunport.targets.naming import (
    DEFAULT_PREFIX,
    host_target_name,
    is_of_several,
    parse_prefix,
    shared_target_name,
    target_name,
    volume_id_of,
)
from lunport.targets.registry import ELSEWHERE, HelperSettings, make_helper
from lunport.volume.service import Backend, ExportPolicy

_PORTS_TRIED = 200
_HAS_PORT = re.compile(r"(?:\]|^[^:]*):\d+$")


def make_backend(
    name: str,
    config: BackendConfig,
    *,
    data_dir: Path,
    store: Store,
    host: str,
    stop: Callable[[], bool],
    taken: Collection[Portal] = (),
) -> Backend:
    """Put one backend together; nothing is started yet.

    ``taken``: portals of other backends. Raises: InvalidConfig, PortalUnavailable.
    """
    prefix = parse_prefix(
        config.target_prefix or DEFAULT_PREFIX, what=f"backend.{name}.target_prefix"
    )
    driver_options: dict[str, object] = dict(config.driver_options)
    helper_options: dict[str, object] = dict(config.helper_options)
    is_elsewhere = config.driver == "static"
    helper_name = ELSEWHERE if is_elsewhere else config.helper
    own_keys = DRIVER_KEYS.get(config.driver)
    if own_keys is not None:
        of_space = () if is_elsewhere else ("over_subscription_ratio", "reserve_mib")
        driver_options |= {
            key: value
            for key in (*own_keys, *of_space)
            if (value := getattr(config, key)) is not None
        }
    if helper_name == "tgt":
        helper_options |= {"tgtd": config.tgtd, "io_threads": config.io_threads}
    if helper_name == "lio":
        helper_options |= {"direct_io": config.direct_io, "iser": config.iser}
    folder = data_dir / "backends" / name
    images = config.directory or str(folder / "images")
    if helper_name == "tgt" and ("," in images or "\n" in images):
        what = f"backend.{name}.directory" if config.directory else "data directory"
        raise InvalidConfig(what, images, "tgtd cannot take a path with a comma or a newline")
    portals = () if is_elsewhere else choose_portals(name, config, store, taken)
    helper = make_helper(
        helper_name,
        HelperSettings(name, folder / "target", portals, prefix, helper_options),
    )
    check_policy(name, config, helper.limits)
    pool = f"{host}@{name}#{name}"
    return Backend(
        name=name,
        host=pool,
        driver=make_driver(
            config.driver,
            DriverSettings(name, folder / "images", driver_options, stop),
        ),
        helper=helper,
        policy=ExportPolicy(
            export=config.export,
            max_luns=config.max_luns,
            max_targets=config.max_targets,
            portal_order=config.portal_order,
            multipath=config.multipath,
            alternatives=config.alternatives,
            resilient=config.resilient,
            chap=config.chap,
        ),
        target_name=functools.partial(target_name, prefix=prefix),
        volume_of=functools.partial(volume_id_of, prefix=prefix),
        host_target=functools.partial(host_target_name, pool, prefix=prefix),
        shared_target=shared_target_name(pool, prefix),
        is_of_several=functools.partial(is_of_several, prefix=prefix),
        over_subscription_ratio=1.0 if is_elsewhere else config.over_subscription_ratio,
        is_elsewhere=is_elsewhere,
    )


def check_policy(name: str, config: BackendConfig, limits: HelperLimits) -> None:
    """Refuse a policy that the helper cannot carry out. Raises: InvalidConfig."""
    what = f"backend.{name}"
    if config.export == "shared_target":
        if not limits.masks_units:
            raise InvalidConfig(
                f"{what}.export",
                config.export,
                f"with helper {config.helper!r} each host would see the volumes of all: "
                "use target_per_host, or a helper that masks units",
            )
        if config.chap and not limits.own_credentials:
            raise InvalidConfig(
                f"{what}.export",
                config.export,
                f"with helper {config.helper!r} all hosts would have the same credentials: "
                "use target_per_host, or set chap = false",
            )
    for key, limit in (("max_luns", limits.max_units), ("max_targets", limits.max_targets)):
        wanted = getattr(config, key)
        if wanted is not None and wanted > limit:
            reason = f"helper {config.helper!r} has at most {limit}"
            raise InvalidConfig(f"{what}.{key}", wanted, reason)


def known_portals(configs: Mapping[str, BackendConfig], store: Store) -> frozenset[Portal]:
    """Gather the portals whose ports are named, or were chosen at an earlier start."""
    found = set()
    for name, config in configs.items():
        kept = _kept_port(name, store)
        for text in () if config.driver == "static" else config.portals:
            portal = parse_portal(text, what=f"backend.{name}.portals")
            if _names_port(text):
                found.add(portal)
            elif kept is not None:
                found.add(Portal(portal.host, int(kept)))
    return frozenset(found)


def choose_portals(
    name: str, config: BackendConfig, store: Store, taken: Collection[Portal] = ()
) -> tuple[Portal, ...]:
    """Parse the portals, and choose a port for those that name none.

    The chosen port is the one that was kept (:func:`keep_port`), else the first from 3260 on
    that is free on all of them whose address is here, and is not among the ``taken``, which
    are not bound yet. Raises: InvalidConfig, PortalUnavailable.
    """
    what = f"backend.{name}.portals"
    portals = [parse_portal(text, what=what) for text in config.portals]
    for portal in portals:
        if not portal.is_literal:
            raise InvalidConfig(what, str(portal), "a portal to bind is an address, not a name")
    floating = [
        portal
        for portal, text in zip(portals, config.portals, strict=True)
        if not _names_port(text)
    ]
    if floating:
        port = _port_for(name, floating, store, taken)
        portals = [
            Portal(portal.host, port) if portal in floating else portal for portal in portals
        ]
    if len(set(portals)) != len(portals):
        raise InvalidConfig(what, ", ".join(map(str, portals)), "a portal is named twice")
    return tuple(portals)


def keep_port(name: str, config: BackendConfig, portals: Sequence[Portal], store: Store) -> None:
    """Keep the port that was chosen, now that it is bound: connected hosts will know it."""
    if not portals:
        return  # of a backend that binds none
    chosen = [
        portal.port
        for portal, text in zip(portals, config.portals, strict=True)
        if not _names_port(text)
    ]
    if chosen and _kept_port(name, store) is None:
        with store.write() as connection:
            operations.write_choice(connection, _choice(name), str(chosen[0]))


def _names_port(text: str) -> bool:
    return _HAS_PORT.search(text.strip()) is not None


def _choice(name: str) -> str:
    return f"backend.{name}.port"


def _kept_port(name: str, store: Store) -> str | None:
    with store.read() as connection:
        return operations.read_choice(connection, _choice(name))


def _port_for(name: str, portals: Sequence[Portal], store: Store, taken: Collection[Portal]) -> int:
    kept = _kept_port(name, store)
    if kept is not None:
        return int(kept)
    for port in range(DEFAULT_PORT, DEFAULT_PORT + _PORTS_TRIED):
        if any(Portal(portal.host, port) in taken for portal in portals):
            continue
        states = [_is_free(portal.host, port) for portal in portals]
        if True in states and False not in states:
            return port
    raise PortalUnavailable(
        str(portals[0]),
        f"no port from {DEFAULT_PORT} to {DEFAULT_PORT + _PORTS_TRIED - 1} is free on all of "
        f"{', '.join(portal.host for portal in portals)}; is each an address of this host?",
    )


def _is_free(address: str, port: int) -> bool | None:
    """Tell whether a port can be had; None while the address is not on this host."""
    family = socket.AF_INET6 if ":" in address else socket.AF_INET
    with contextlib.closing(socket.socket(family, socket.SOCK_STREAM)) as probe:
        probe.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
        try:
            probe.bind((address, port))
            probe.listen(1)
        except OSError as error:
            return None if error.errno == errno.EADDRNOTAVAIL else False
    return True
