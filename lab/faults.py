"""Faults by name, each a context manager: broken inside, healed at its end.

    portal_refuses    the portal answers everything with a reset, or with ICMP, at once
    portal_drops      packets to and from the portal vanish
    login_hangs       the portal takes the connection and then says nothing
    portal_resets     the portal's connections are reset now and then, and may be made again
    link_down         the portal's link has no carrier
    link_flaps        the portal's link comes and goes
    target_removed    the portals answer, and reject a login to it
    target_restarted  the target's sessions end, and logins are rejected until it is back
    device_late       the LUN appears a while after a login to its target
    wrong_identity    the LUN shows another disk

Faults of portals are rules of nftables in the SAN's namespace, one table for each, so they can
be combined; ARP and neighbour discovery go on, so that silence is silence and not "no route".
Sessions that live are hit by the first two; ``login_hangs`` is for new connections only.
"""

from __future__ import annotations

import contextlib
import itertools
import socket
import threading
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Literal, Protocol

from lab.lio import Disk, Target
from lab.network import SanNetwork
from lab.san import San
from lunport.core.portal import Portal

_SESSIONS = Path("/sys/class/iscsi_session")
_LOOK_S = 0.02
_numbers = itertools.count(1)


Count = Callable[[], int]


class HasNetwork(Protocol):
    """Something on a network: a :class:`~lab.san.San`, or the fixtures' host."""

    @property
    def network(self) -> SanNetwork:
        """The network."""


@contextlib.contextmanager
def portal_refuses(
    on: HasNetwork, portal: Portal, *, by: Literal["reset", "icmp"] = "reset"
) -> Iterator[None]:
    """Answer every packet to a portal with a reset, or with "port unreachable"."""
    answer = "tcp reset" if by == "reset" else "icmpx type port-unreachable"
    rule = f"{_to(portal)} reject with {answer}"
    with _table(on.network, f"chain i {{ type filter hook input priority 0; {rule}; }}"):
        yield


@contextlib.contextmanager
def portal_drops(on: HasNetwork, portal: Portal) -> Iterator[None]:
    """Let every packet to and from a portal vanish."""
    with _table(
        on.network,
        f"chain i {{ type filter hook input priority 0; {_to(portal)} drop; }}\n"
        f"chain o {{ type filter hook output priority 0; {_from(portal)} drop; }}",
    ):
        yield


@contextlib.contextmanager
def login_hangs(on: HasNetwork, portal: Portal) -> Iterator[None]:
    """Let a portal take connections and be silent; ends them when it is healed."""
    # Nobody accepts: the kernel completes the handshake and takes the first data by itself.
    with on.network.call(lambda: _listener(portal)) as deaf:
        family = "ip6" if portal.is_ipv6 else "ip"
        place = Portal(portal.host, deaf.getsockname()[1])
        # only first packets: a session that lives would be broken in two
        first = "tcp flags & (fin | syn | rst | ack) == syn"
        rule = f"{_to(portal)} {first} dnat {family} to {place}"
        with _table(on.network, f"chain p {{ type nat hook prerouting priority -100; {rule}; }}"):
            yield


@contextlib.contextmanager
def portal_resets(on: HasNetwork, portal: Portal, every_s: float = 1.0) -> Iterator[Count]:
    """Reset a portal's connections, once before anything else and then at intervals.

    Gives how often it was done.
    """

    def reset() -> None:
        # ss(8) asks the kernel to end each socket (INET_DIAG_DESTROY), which tells the peer.
        host = f"[{portal.host}]" if portal.is_ipv6 else portal.host
        on.network.run("ss", "--no-header", "-K", "src", f"{host}:{portal.port}")

    reset()
    with _repeatedly(reset, every_s, done=1) as count:
        yield count


@contextlib.contextmanager
def link_down(on: HasNetwork, portal: Portal) -> Iterator[None]:
    """Take the carrier of a portal's link away, for both families."""
    link = f"tgt{on.network.number_of(portal)}"
    _set_link(on.network, link, "down")
    try:
        yield
    finally:
        _set_link(on.network, link, "up")


@contextlib.contextmanager
def link_flaps(on: HasNetwork, portal: Portal, every_s: float = 1.0) -> Iterator[Count]:
    """Take the carrier away and give it back, each for half of the interval; it is left up.

    Gives how often it went.
    """
    link = f"tgt{on.network.number_of(portal)}"
    down = [False]

    def flip() -> None:
        down[0] = not down[0]
        _set_link(on.network, link, "down" if down[0] else "up")

    try:
        with _repeatedly(flip, every_s / 2) as flips:
            yield lambda: (flips() + 1) // 2
    finally:
        _set_link(on.network, link, "up")


@contextlib.contextmanager
def target_removed(san: San, target: Target) -> Iterator[None]:
    """Take a target away with its sessions; bring it back with the LUNs it had.

    Quirk(LIO): a login to a target that is gone is rejected with 0x0301 (service unavailable),
    not 0x0203 (target not found); iscsid tries again until its time is over. Kernel 6.1,
    ``iscsi_target_locate_portal`` in drivers/target/iscsi/iscsi_target_nego.c.
    """
    luns = dict(target.luns)
    san.remove_target(target)
    try:
        yield
    finally:
        san.bring_back(target)
        for lun, disk in luns.items():
            target.map_lun(lun, disk)


@contextlib.contextmanager
def target_restarted(target: Target) -> Iterator[None]:
    """End a target's sessions and reject logins to it; at the end it is as it was, with LUNs."""
    enable = target.place / "enable"
    enable.write_text("0")
    try:
        yield
    finally:
        enable.write_text("1")


@contextlib.contextmanager
def device_late(target: Target, lun: int, delay_s: float) -> Iterator[threading.Event]:
    """Show a LUN only a while after the next login to its target; gives "it is there"."""
    disk = target.luns[lun]
    target.unmap_lun(lun)
    there, over = threading.Event(), threading.Event()
    known = _logged_in(target)

    def show() -> None:
        while not over.is_set() and not _logged_in(target) - known:
            over.wait(_LOOK_S)
        over.wait(delay_s)
        target.map_lun(lun, disk)
        there.set()

    thread = threading.Thread(target=show, name="device-late")
    thread.start()
    try:
        yield there
    finally:
        over.set()
        thread.join()


@contextlib.contextmanager
def wrong_identity(target: Target, lun: int, other: Disk) -> Iterator[None]:
    """Show another disk under a LUN, to sessions that live as well."""
    right = target.luns[lun]
    target.remap_lun(lun, other)
    try:
        yield
    finally:
        target.remap_lun(lun, right)


PORTAL_FAULTS: dict[
    str, Callable[[HasNetwork, Portal], contextlib.AbstractContextManager[None]]
] = {
    "portal refuses": portal_refuses,
    "portal drops": portal_drops,
    "login hangs": login_hangs,
}


@contextlib.contextmanager
def _repeatedly(action: Callable[[], None], every_s: float, done: int = 0) -> Iterator[Count]:
    """Do something again and again, at first after one interval; gives how often it was done."""
    over = threading.Event()
    times = [done]

    def go_on() -> None:
        while not over.wait(every_s):
            action()
            times[0] += 1

    thread = threading.Thread(target=go_on, name="fault")
    thread.start()
    try:
        yield lambda: times[0]
    finally:
        over.set()
        thread.join()


def _set_link(network: SanNetwork, link: str, state: Literal["up", "down"]) -> None:
    # its IPv6 addresses would go for good
    keep = Path(f"/proc/sys/net/ipv6/conf/{link}/keep_addr_on_down")
    network.call(lambda: keep.write_text("1"))
    network.run("ip", "link", "set", link, state)


def _to(portal: Portal) -> str:
    return f"{_family(portal)} daddr {portal.host} tcp dport {portal.port}"


def _from(portal: Portal) -> str:
    return f"{_family(portal)} saddr {portal.host} tcp sport {portal.port}"


def _family(portal: Portal) -> str:
    return "ip6" if portal.is_ipv6 else "ip"


@contextlib.contextmanager
def _table(network: SanNetwork, chains: str) -> Iterator[None]:
    name = f"lab_fault_{next(_numbers)}"
    network.run("nft", "--file", "-", stdin=f"table inet {name} {{\n{chains}\n}}\n")
    try:
        yield
    finally:
        network.run("nft", "delete", "table", "inet", name)


def _listener(portal: Portal) -> socket.socket:
    family = socket.AF_INET6 if portal.is_ipv6 else socket.AF_INET
    return socket.create_server((portal.host, 0), family=family, backlog=1024)


def _logged_in(target: Target) -> frozenset[str]:
    found = set()
    for session in _SESSIONS.glob("session*"):
        with contextlib.suppress(OSError):  # it may end while we look
            name = (session / "targetname").read_text().strip()
            if name == target.iqn and (session / "state").read_text().strip() == "LOGGED_IN":
                found.add(session.name)
    return frozenset(found)
