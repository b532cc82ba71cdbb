"""What has to be there before LIO can offer anything: its modules, configfs, and the portals.

A portal's address is tried by binding a socket of our own to it, for a moment.
"""

from __future__ import annotations

import errno
import os
import socket
from collections.abc import Sequence
from pathlib import Path

from lunport.core.change import Change
from lunport.core.errors import (
    CommandError,
    CommandMissing,
    CommandTimedOut,
    PortalUnavailable,
    TargetDaemonDown,
)
from lunport.core.portal import Portal
from lunport.host.clock import Deadline
from lunport.host.lio import MODULES, LioTree
from lunport.host.runner import run

NAME = "LIO"
_CONFIGFS = Path("/sys/kernel/config")


def load(tree: LioTree, deadline: Deadline) -> Change:
    """Load LIO's modules, mount configfs and have the fabric's folder, unless it is there.

    Raises: TargetDaemonDown.
    """
    if tree.is_there():
        return Change.UNCHANGED
    try:
        if not tree.root.is_dir():
            run(["modprobe", "-a", *MODULES], deadline, package="kmod")
        if not tree.root.is_dir():
            run(["mount", "-t", "configfs", "configfs", str(_CONFIGFS)], deadline)
    except (CommandError, CommandTimedOut, CommandMissing) as error:
        raise TargetDaemonDown(NAME, f"{how_to_load()} ({error})") from error
    try:
        tree.add_fabric()
    except OSError as error:
        raise TargetDaemonDown(NAME, f"{how_to_load()} ({error.strerror})") from error
    return Change.CHANGED


def how_to_load() -> str:
    """Say which command makes LIO usable, and who has to run it."""
    who = "" if os.geteuid() == 0 else " as root"
    return f"it is not loaded; `modprobe -a {' '.join(MODULES)}`{who} loads it"


def missing(portals: Sequence[Portal]) -> tuple[Portal, ...]:
    """List the portals whose address is not on this host now."""
    return tuple(portal for portal in portals if not _has_address(portal))


def check_portals(tree: LioTree, portals: Sequence[Portal]) -> None:
    """See that there is a portal, and that nobody else has their ports.

    Raises: PortalUnavailable.
    """
    absent = missing(portals)
    if len(absent) == len(portals):
        hosts = ", ".join(portal.host for portal in absent)
        raise PortalUnavailable(str(portals[0]), f"none of {hosts} is an address of this host")
    for portal in portals:
        if portal not in absent and not _can_listen(tree, portal):
            raise PortalUnavailable(str(portal), "another process has the port")


def _can_listen(tree: LioTree, portal: Portal) -> bool:
    """Tell whether the port is free, or LIO has it: its targets share portals."""
    with _socket(portal, socket.SOCK_STREAM) as probe:
        probe.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
        try:
            probe.bind((portal.host, portal.port))
            probe.listen(1)
        except OSError as error:
            if error.errno != errno.EADDRINUSE:
                raise PortalUnavailable(str(portal), error.strerror or str(error)) from error
            return tree.listens_on(str(portal))
    return True


def _has_address(portal: Portal) -> bool:
    with _socket(portal, socket.SOCK_DGRAM) as probe:
        try:
            probe.bind((portal.host, 0))
        except OSError as error:
            return error.errno != errno.EADDRNOTAVAIL
    return True


def _socket(portal: Portal, kind: socket.SocketKind) -> socket.socket:
    family = socket.AF_INET6 if portal.is_ipv6 else socket.AF_INET
    return socket.socket(family, kind | socket.SOCK_CLOEXEC)
