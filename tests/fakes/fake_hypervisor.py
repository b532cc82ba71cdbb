"""A hypervisor without guests' processes: definitions as text, disks in and out, secrets, faults.

Held to ``tests/contract/hypervisor_suite.py`` together with libvirt. ``failures`` are raised by
the verb of that name, once; ``manners`` say how a guest answers when a disk is asked for.
"""

from __future__ import annotations

import enum
from dataclasses import dataclass, field, replace

from lunport.core.change import Change
from lunport.core.domain_xml import DomainSummary, parse_disk, parse_domain
from lunport.core.errors import (
    GuestNotFound,
    HypervisorError,
    LunportError,
    PlugRejected,
    UnplugRefused,
    UnplugTimedOut,
)
from lunport.core.guest import Guest, GuestState
from lunport.core.guest_disk import GuestDisk
from lunport.core.secret import Secret
from lunport.host.clock import Deadline


class Manner(enum.Enum):
    """How a guest answers when it is asked for a disk."""

    WILLING = "willing"
    SLOW = "slow"
    REFUSING = "refusing"


@dataclass(slots=True)
class FakeGuest:
    """One guest: its definitions, and whether there is a process of it."""

    name: str
    live: list[GuestDisk] | None
    persistent: list[GuestDisk] | None
    autostart: bool = False
    manner: Manner = Manner.WILLING
    sizes: dict[str, int] = field(default_factory=dict)


@dataclass(slots=True)
class FakeHypervisor:
    """``calls`` has the verbs that were called; ``kept`` the secrets, by id."""

    known: dict[str, FakeGuest] = field(default_factory=dict)
    kept: dict[str, tuple[str, Secret]] = field(default_factory=dict)
    failures: dict[str, LunportError] = field(default_factory=dict)
    late_failures: dict[str, LunportError] = field(default_factory=dict)
    calls: list[str] = field(default_factory=list)

    def define(
        self, guest_id: str, name: str, *, runs: bool = True, is_persistent: bool = True
    ) -> FakeGuest:
        """Make a guest that has a disk of its own, ``vda``."""
        own = parse_disk(
            "<disk type='file'><source file='/boot.img'/><target dev='vda' bus='virtio'/></disk>"
        )
        self.known[guest_id] = FakeGuest(
            name, [own] if runs else None, [own] if is_persistent else None
        )
        return self.known[guest_id]

    # -- the seam ------------------------------------------------------------------------

    def guests(self, deadline: Deadline) -> tuple[Guest, ...]:
        """List all guests, by name."""
        self._begin("guests")
        found = (self._show(one) for one in self.known)
        return tuple(sorted(found, key=lambda guest: guest.name))

    def guest(self, name_or_id: str, deadline: Deadline) -> Guest:
        """Show one guest."""
        self._begin("guest")
        return self._show(self._id(name_or_id))

    def plug(self, guest_id: str, disk_xml: str, deadline: Deadline) -> None:
        """Add the disk to whatever definitions there are."""
        self._begin("plug")
        guest = self._guest(guest_id)
        disk = parse_disk(disk_xml)
        lacks_secret = disk.secret_id is not None and disk.secret_id not in self.kept
        if lacks_secret and guest.live is not None:
            raise PlugRejected(guest_id, disk.target, "no secret with matching uuid")
        for disks in (guest.live, guest.persistent):
            if any(one.target == disk.target for one in disks or ()):
                raise PlugRejected(guest_id, disk.target, f"target {disk.target} already exists")
        for disks in (guest.live, guest.persistent):
            if disks is not None:
                disks.append(disk)
        self._end("plug")

    def unplug(self, guest_id: str, serial: str, deadline: Deadline) -> Change:
        """Remove the disk if the guest is willing."""
        self._begin("unplug")
        guest = self._guest(guest_id)
        is_live = any(one.serial == serial for one in guest.live or ())
        target = next((one.target for one in guest.live or () if one.serial == serial), "")
        if is_live and guest.manner is Manner.REFUSING:
            raise UnplugRefused(guest.name, target, "it answers that the device is in use")
        if is_live and guest.manner is Manner.SLOW:
            raise UnplugTimedOut(guest.name, target, deadline.budget_s)
        change = Change.UNCHANGED
        for disks in (guest.live, guest.persistent):
            for disk in [one for one in disks or () if one.serial == serial]:
                assert disks is not None
                disks.remove(disk)
                change = Change.CHANGED
        self._end("unplug")
        return change

    def resize(self, guest_id: str, serial: str, size_bytes: int, deadline: Deadline) -> None:
        """Note the size that a running guest heard of."""
        self._begin("resize")
        guest = self._guest(guest_id)
        if any(one.serial == serial for one in guest.live or ()):
            guest.sizes[serial] = size_bytes

    def keep_secret(self, secret_id: str, usage: str, value: Secret, deadline: Deadline) -> None:
        """Keep it."""
        self._begin("keep_secret")
        if any(one != secret_id and used[0] == usage for one, used in self.kept.items()):
            raise HypervisorError("keeping a secret", "a secret of that usage exists already")
        self.kept[secret_id] = (usage, value)
        self._end("keep_secret")

    def forget_secret(self, secret_id: str, deadline: Deadline) -> Change:
        """Forget it."""
        self._begin("forget_secret")
        return Change.UNCHANGED if self.kept.pop(secret_id, None) is None else Change.CHANGED

    def secrets(self, deadline: Deadline) -> tuple[str, ...]:
        """List the ids."""
        self._begin("secrets")
        return tuple(sorted(self.kept))

    def set_autostart(self, guest_id: str, wanted: bool, deadline: Deadline) -> Change:
        """Note it."""
        self._begin("set_autostart")
        guest = self._guest(guest_id)
        change = Change.UNCHANGED if guest.autostart == wanted else Change.CHANGED
        guest.autostart = wanted
        return change

    def start(self, guest_id: str, deadline: Deadline) -> Change:
        """Start it, if every secret that its disks name is there."""
        self._begin("start")
        guest = self._guest(guest_id)
        if guest.live is not None:
            return Change.UNCHANGED
        for disk in guest.persistent or ():
            if disk.secret_id is not None and disk.secret_id not in self.kept:
                raise HypervisorError("starting the guest", "no secret with matching uuid")
        guest.live = list(guest.persistent or ())
        return Change.CHANGED

    # -- what a test does to it ------------------------------------------------------------

    def stop(self, guest_id: str) -> None:
        """Shut a guest down; one that is not persistent is gone."""
        guest = self._guest(guest_id)
        guest.live = None
        if guest.persistent is None:
            del self.known[guest_id]

    def restart_daemon(self) -> None:
        """Forget what was in memory only."""
        self.kept.clear()

    # -- parts -----------------------------------------------------------------------------

    def _id(self, name_or_id: str) -> str:
        for guest_id, guest in self.known.items():
            if name_or_id in (guest_id, guest.name):
                return guest_id
        raise GuestNotFound(name_or_id)

    def _guest(self, guest_id: str) -> FakeGuest:
        return self.known[self._id(guest_id)]

    def _show(self, guest_id: str) -> Guest:
        guest = self.known[guest_id]
        runs = guest.live is not None
        return Guest(
            id=guest_id,
            name=guest.name,
            state=GuestState.RUNNING if runs else GuestState.SHUT_OFF,
            reason="booted" if runs else "unknown",
            autostart=guest.autostart,
            live=_summary(guest.name, guest_id, guest.live),
            persistent=_summary(guest.name, guest_id, guest.persistent),
        )

    def _begin(self, verb: str) -> None:
        self.calls.append(verb)
        failure = self.failures.pop(verb, None)
        if failure is not None:
            raise failure

    def _end(self, verb: str) -> None:
        failure = self.late_failures.pop(verb, None)
        if failure is not None:
            raise failure


def _summary(name: str, guest_id: str, disks: list[GuestDisk] | None) -> DomainSummary | None:
    if disks is None:
        return None
    empty = parse_domain(f"<domain><name>{name}</name><uuid>{guest_id}</uuid></domain>")
    return replace(empty, disks=tuple(disks))
