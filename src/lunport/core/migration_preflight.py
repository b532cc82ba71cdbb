"""Whether a guest may be moved: the facts that were gathered, and the verdict on each.

    ok    destination    node-b answers, libvirt at qemu:///system
    ok    machine        pc-q35-7.2 can run there
    ok    disk vdb       volume 58a8..., by kernel; 10.0.1.2:3260 answers the destination
    FAIL  disk vdc       it has no serial, and is not said to be shared

Pure: nothing is asked and nothing changed here. A fact that could not be found is a warning
where the later steps find it out without harm, and a failure where they could not undo it.
"""

from __future__ import annotations

import enum
from collections.abc import Collection, Iterator, Mapping
from dataclasses import dataclass, field
from typing import Final

from lunport.core.guest import Guest
from lunport.core.guest_attachment import GuestAttachment, GuestPhase
from lunport.core.guest_disk import GuestDisk
from lunport.core.host_name import same_host

LEAST_FREE_BYTES: Final = 1 << 20  # of the journal's file system, for entries and credentials


class Outcome(enum.StrEnum):
    """What is found of one thing."""

    OK = "ok"
    WARNING = "warning"
    FAILED = "FAIL"


@dataclass(frozen=True, slots=True)
class Finding:
    """One line of the table."""

    subject: str
    outcome: Outcome
    detail: str


@dataclass(frozen=True, slots=True)
class DestinationFacts:
    """What the destination says of itself, and of the guest that may come.

    ``migration_uri``: where the source's libvirt reaches its. ``obstacles``: why it cannot run
    the guest, by subject (``machine``, ``cpu``, ``libvirt``). ``knows_guest``: it has one of that
    id. ``reachable``: for each portal, whether it answers from there. ``listen``: where
    graphics listen there, by kind. ``free_bytes``: where its journal is.
    """

    host: str
    migration_uri: str
    libvirt_uri: str
    obstacles: Mapping[str, str] = field(default_factory=dict, hash=False)
    knows_guest: bool = False
    has_multipath: bool = False
    reachable: Mapping[str, bool] = field(default_factory=dict, hash=False)
    listen: Mapping[str, str] = field(default_factory=dict, hash=False)
    free_bytes: int = LEAST_FREE_BYTES


@dataclass(frozen=True, slots=True)
class VolumeFacts:
    """What the source knows of one volume. ``error``: why the service says nothing of it."""

    entry: GuestAttachment
    wwid: str | None
    portals: tuple[str, ...]
    error: str | None = None


@dataclass(frozen=True, slots=True)
class PreflightFacts:
    """All that is looked at. ``destination_error``: why the destination says nothing.

    ``open_elsewhere``: another move of this guest that is open. ``shared``: targets of disks that
    the operator says both hosts reach alike.
    """

    guest: Guest
    source_host: str
    destination_host: str
    volumes: tuple[VolumeFacts, ...]
    destination: DestinationFacts | None
    destination_error: str | None
    shared: frozenset[str] = frozenset()
    open_elsewhere: str | None = None


def judge(facts: PreflightFacts) -> tuple[Finding, ...]:
    """Say of each thing whether it lets the guest go."""
    return (*_of_guest(facts), *_of_destination(facts), *_of_disks(facts))


def failures(findings: Collection[Finding]) -> tuple[Finding, ...]:
    """Return what forbids the move."""
    return tuple(one for one in findings if one.outcome is Outcome.FAILED)


def _of_guest(facts: PreflightFacts) -> Iterator[Finding]:
    guest = facts.guest
    if not guest.is_active:
        yield _failed("guest", f"{guest.name} does not run: there is nothing to move alive")
    elif not facts.volumes:
        yield _failed("guest", f"{guest.name} has no volume of ours: move it by libvirt alone")
    else:
        yield _ok("guest", f"{guest.name} is {guest.state} ({guest.reason})")
    if guest.is_active and guest.persistent is None:
        yield _warning(
            "guest", "it is transient: a failure of both hosts would leave no definition"
        )
    if same_host(facts.source_host, facts.destination_host):
        yield _failed("hosts", f"{facts.destination_host} is where the guest is already")
    if facts.open_elsewhere is not None:
        yield _failed("migration", f"{facts.open_elsewhere} of this guest is open: end it first")


def _of_destination(facts: PreflightFacts) -> Iterator[Finding]:
    there = facts.destination
    if there is None:
        reason = facts.destination_error or "it says nothing"
        yield _failed("destination", f"{facts.destination_host}: {reason}")
        return
    if not same_host(there.host, facts.destination_host):
        yield _failed("destination", f"{facts.destination_host} calls itself {there.host}")
    elif "libvirt" in there.obstacles:
        yield _failed("destination", there.obstacles["libvirt"])
    else:
        yield _ok("destination", f"{there.host} answers, its guests are at {there.libvirt_uri}")
    if there.knows_guest:
        yield _failed("destination", f"{there.host} has a guest of the id {facts.guest.id} already")
    machine = None if facts.guest.live is None else facts.guest.live.machine
    for subject, good in (("machine", f"{machine} can run there"), ("cpu", "it can be had there")):
        obstacle = there.obstacles.get(subject)
        yield _ok(subject, good) if obstacle is None else _failed(subject, obstacle)
    if there.free_bytes < LEAST_FREE_BYTES:
        yield _failed("journal", f"{there.free_bytes} bytes are free for it at {there.host}")
    else:
        yield _ok("journal", f"{there.free_bytes >> 20} MiB are free for it at {there.host}")


def _of_disks(facts: PreflightFacts) -> Iterator[Finding]:
    volumes = {one.entry.volume_id: one for one in facts.volumes}
    live = () if facts.guest.live is None else facts.guest.live.disks
    serials = [disk.serial for disk in live if disk.serial is not None]
    for disk in live:
        if disk.serial is not None and serials.count(disk.serial) > 1:
            yield _failed(f"disk {disk.target}", f"another disk has the serial {disk.serial} too")
            continue
        yield _of_disk(facts, disk, volumes.get(disk.serial or ""))
    for volume_id, volume in volumes.items():
        if volume_id not in serials:
            target = volume.entry.target or "-"
            yield _failed(f"disk {target}", f"the running guest has lost volume {volume_id}")


def _of_disk(facts: PreflightFacts, disk: GuestDisk, volume: VolumeFacts | None) -> Finding:
    subject = f"disk {disk.target}"
    if volume is None:
        if disk.source is None:
            return _ok(subject, "a drive without a medium")
        if disk.target in facts.shared:
            return _warning(subject, f"{disk.source} is said to be the same on both hosts")
        what = "it has no serial" if disk.serial is None else f"serial {disk.serial} is not ours"
        return _failed(subject, f"{what}, and it is not said to be shared (--shared {disk.target})")
    name = f"volume {volume.entry.volume_id}, by {volume.entry.initiator}"
    if volume.entry.phase is not GuestPhase.ATTACHED:
        return _failed(subject, f"{name}: {volume.entry.phase} was cut off; recover it first")
    if volume.error is not None:
        return _failed(subject, f"{name}: {volume.error}")
    if volume.wwid is None:
        return _failed(subject, f"{name}: its identity is not known, so none can be compared")
    if facts.destination is None:
        return _warning(subject, f"{name}; the destination was not asked")
    if volume.entry.multipath and not facts.destination.has_multipath:
        return _failed(subject, f"{name}, over several paths; the destination has no multipathd")
    return _of_portals(subject, name, volume, facts.destination)


def _of_portals(subject: str, name: str, volume: VolumeFacts, there: DestinationFacts) -> Finding:
    asked = [portal for portal in volume.portals if portal in there.reachable]
    answering = [portal for portal in asked if there.reachable[portal]]
    if not asked:
        return _warning(subject, f"{name}; no portal was asked from {there.host}")
    if not answering:
        return _failed(subject, f"{name}; none of {', '.join(asked)} answers {there.host}")
    if len(answering) < len(asked):
        silent = ", ".join(sorted(set(asked) - set(answering)))
        return _warning(subject, f"{name}; {silent} does not answer {there.host}")
    return _ok(subject, f"{name}; {', '.join(answering)} answers {there.host}")


def _ok(subject: str, detail: str) -> Finding:
    return Finding(subject, Outcome.OK, detail)


def _warning(subject: str, detail: str) -> Finding:
    return Finding(subject, Outcome.WARNING, detail)


def _failed(subject: str, detail: str) -> Finding:
    return Finding(subject, Outcome.FAILED, detail)
