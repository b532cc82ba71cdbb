"""What there is of guests and their volumes: the journal's view and the hypervisor's, joined.

Changes nothing. Of a volume that QEMU reaches itself the portal is asked, where that is wanted:
QEMU knows one, and stays with it when it dies.
"""

from __future__ import annotations

from dataclasses import dataclass

from lunport.agent.guest_parts import GuestParts
from lunport.core.guest import Guest
from lunport.core.guest_attachment import GuestAttachment, GuestPhase
from lunport.core.guest_disk import GuestDisk, InitiatorKind
from lunport.host.clock import Deadline

_PORTAL_S = 2.0
GONE = "gone"


@dataclass(frozen=True, slots=True)
class GuestVolume:
    """One volume of a guest. ``problem``: what is not as it shall be, and what helps."""

    entry: GuestAttachment
    disk: GuestDisk | None
    is_live: bool
    is_persistent: bool
    problem: str | None


@dataclass(frozen=True, slots=True)
class GuestView:
    """One guest and its volumes; ``state`` is ``gone`` where only the journal knows it."""

    id: str
    name: str
    state: str
    reason: str
    starts_with_host: bool
    volumes: tuple[GuestVolume, ...]


def view_guests(
    parts: GuestParts,
    deadline: Deadline,
    *,
    asks_portals: str | None = None,
    asks_all_portals: bool = False,
) -> tuple[GuestView, ...]:
    """Show all guests, by name. ``asks_portals``: of this guest, or of all.

    Raises: HypervisorUnavailable, HostLacks.
    """
    portals = _Portals(parts, deadline)
    entries = parts.entries()
    owned = {one.guest_id: one.autostart for one in parts.journal.owned()}
    guests = parts.hypervisor.guests(deadline)
    views = [
        GuestView(
            id=guest.id,
            name=guest.name,
            state=guest.state.value,
            reason=guest.reason,
            starts_with_host=guest.autostart or owned.get(guest.id, False),
            volumes=tuple(
                _volume(
                    portals if asks_all_portals or asks_portals in (guest.id, guest.name) else None,
                    entry,
                    guest,
                )
                for entry in entries
                if entry.guest_id == guest.id
            ),
        )
        for guest in guests
    ]
    there = {guest.id for guest in guests}
    lost = {entry.guest_id: entry.guest_name for entry in entries if entry.guest_id not in there}
    views += [
        GuestView(
            id=guest_id,
            name=name,
            state=GONE,
            reason="the hypervisor does not know it",
            starts_with_host=False,
            volumes=tuple(
                GuestVolume(entry, None, False, False, "detach it: the guest is gone")
                for entry in entries
                if entry.guest_id == guest_id
            ),
        )
        for guest_id, name in lost.items()
    ]
    return tuple(sorted(views, key=lambda view: view.name))


class _Portals:
    """The portals of disks that QEMU reaches itself; each is asked once, while there is time."""

    def __init__(self, parts: GuestParts, deadline: Deadline) -> None:
        self._parts = parts
        self._deadline = deadline
        self._answers: dict[str | None, bool] = {}

    def problem(self, disk: GuestDisk) -> str | None:
        """Say whether the one portal that QEMU knows does not answer."""
        if disk.portal not in self._answers:
            if self._deadline.has_passed():
                return None  # not asked is not dead
            within = self._deadline.at_most(_PORTAL_S)
            is_there = self._parts.answers(disk, within)
            if not is_there and self._deadline.has_passed():
                return None  # it may have had no time to answer
            self._answers[disk.portal] = is_there
        if self._answers[disk.portal]:
            return None
        return (
            f"portal {disk.portal} does not answer, and QEMU knows no other: "
            "detach the volume and attach it again"
        )


def _volume(portals: _Portals | None, entry: GuestAttachment, guest: Guest) -> GuestVolume:
    live, persistent = guest.live_disk(entry.volume_id), guest.persistent_disk(entry.volume_id)
    disk = live or persistent
    problem = _problem(entry, guest, disk)
    is_qemu_s = entry.initiator is InitiatorKind.QEMU
    if problem is None and portals is not None and is_qemu_s and disk is not None:
        problem = portals.problem(disk)
    return GuestVolume(entry, disk, live is not None, persistent is not None, problem)


def _problem(entry: GuestAttachment, guest: Guest, disk: GuestDisk | None) -> str | None:
    if entry.phase is not GuestPhase.ATTACHED:
        return f"{entry.phase.value} was cut off, or is under way: repeat it, or recover"
    if disk is None:
        return "the guest has lost the disk: attach it again, or detach it"
    if guest.is_active and guest.live_disk(entry.volume_id) is None:
        return "the running guest does not have it: detach it, and attach it again"
    return None
