"""The SAN's network: a namespace joined to this machine by one pair of veth for each portal.

Portal number I (from 1) has 10.0.I.2 and fd00:I::2 in the namespace; this machine has .1 and
::1 on the other end, ``sanI``. Each address is answered for on its own link alone. ip(8),
network_namespaces(7), setns(2). Undone: the namespace and with it all links.
"""

from __future__ import annotations

import contextlib
import ctypes
import os
from collections.abc import Callable, Iterator
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from typing import TypeVar

from lunport.core.portal import Portal
from lunport.host.clock import Deadline
from lunport.host.runner import Completed, run

NAMESPACE = "lunport-san"
_CLONE_NEWNET = 0x40000000
_STEP_S = 30.0

Result = TypeVar("Result")


class SanNetwork:
    """The namespace, entered by one thread of ours, and its portals."""

    def __init__(self, name: str, count: int) -> None:
        self.name = name
        self.portals = tuple(Portal(f"10.0.{number}.2") for number in range(1, count + 1))
        self.portals6 = tuple(Portal(f"fd00:{number}::2") for number in range(1, count + 1))
        self._inside = ThreadPoolExecutor(1, f"in-{name}", initializer=_join, initargs=(name,))

    def call(self, action: Callable[[], Result]) -> Result:
        """Call something in the namespace: sockets and programs that it makes are there."""
        return self._inside.submit(action).result(_STEP_S)

    def run(self, *argv: str, stdin: str = "") -> Completed:
        """Run a program in the namespace."""
        return self.call(lambda: run(argv, Deadline.after(_STEP_S), stdin=stdin))

    def number_of(self, portal: Portal) -> int:
        """Return a portal's number, from 1."""
        for portals in (self.portals, self.portals6):
            if portal in portals:
                return portals.index(portal) + 1
        raise ValueError(f"{portal} is no portal of {self.name}")

    def leave(self) -> None:
        """End the thread."""
        self._inside.shutdown()


@contextlib.contextmanager
def san_network(count: int = 4, name: str = NAMESPACE) -> Iterator[SanNetwork]:
    """Make the namespace and its links; take them away at the end."""
    _ip("netns", "add", name)
    try:
        network = SanNetwork(name, count)
        try:
            _make_links(network, count)
            yield network
        finally:
            network.leave()
    finally:
        # a namespace lives on while a socket of LIO is in it; its links go at once
        links = "".join(f"link delete san{number}\n" for number in range(1, count + 1))
        _ip("-force", "-batch", "-", stdin=links, accepted=(0, 1))
        _ip("netns", "delete", name)


def _make_links(network: SanNetwork, count: int) -> None:
    numbers = range(1, count + 1)
    _ip("-batch", "-", stdin="".join(
        f"link add san{i} type veth peer name tgt{i} netns {network.name}\n"
        f"address add 10.0.{i}.1/24 dev san{i}\n"
        f"address add fd00:{i}::1/64 dev san{i} nodad\n"
        f"link set san{i} up\n"
        for i in numbers
    ))  # fmt: skip
    network.call(lambda: Path("/proc/sys/net/ipv4/conf/all/arp_ignore").write_text("1"))
    network.run("ip", "-batch", "-", stdin="link set lo up\n" + "".join(
        f"address add 10.0.{i}.2/24 dev tgt{i}\n"
        f"address add fd00:{i}::2/64 dev tgt{i} nodad\n"
        f"link set tgt{i} up\n"
        for i in numbers
    ))  # fmt: skip


def _ip(*words: str, stdin: str = "", accepted: tuple[int, ...] = (0,)) -> None:
    run(("ip", *words), Deadline.after(_STEP_S), stdin=stdin, accepted=accepted)


def _join(name: str) -> None:
    libc = ctypes.CDLL(None, use_errno=True)
    descriptor = os.open(f"/run/netns/{name}", os.O_RDONLY | os.O_CLOEXEC)
    try:
        if libc.setns(descriptor, _CLONE_NEWNET):
            raise OSError(ctypes.get_errno(), f"cannot enter namespace {name}")
    finally:
        os.close(descriptor)
