"""Take a volume from a guest: disk, connection, attachment; and let a larger one reach it.

    detach    journal -> unplug -> disconnect -> delete the attachment -> journal

A guest that is gone, or has lost the disk, is no obstacle: what is left is taken away.
"""

from __future__ import annotations

from lunport.agent.guest_parts import GuestParts, entry_of, require_guest
from lunport.core.change import Change
from lunport.core.errors import Conflict, DeviceMissing, UnplugRefused, UnplugTimedOut
from lunport.core.guest_attachment import GuestAttachment, GuestPhase
from lunport.core.guest_disk import InitiatorKind
from lunport.core.host_connection import known_connection
from lunport.host.clock import Deadline

_GIB = 1 << 30


def detach(parts: GuestParts, name_or_id: str, volume_id: str, deadline: Deadline) -> Change:
    """Take a volume from a guest. Idempotent; finishes an attempt that was cut off.

    Raises: UnplugRefused, UnplugTimedOut (the guest has the disk, and all is as before);
    Conflict (the guest has the volume, and it was not attached here); and what the initiator
    and the service raise (then the guest has it no more, and the next try goes on).
    """
    guest = parts.find_guest(name_or_id, deadline)
    with parts.alone(None if guest is None else guest.id, volume_id, deadline):
        entry = entry_of(parts, name_or_id, volume_id, guest)
        if entry is None:
            if guest is not None and guest.disk(volume_id) is not None:
                words = f"Guest {guest.name} has volume {volume_id}, which was not attached here"
                raise Conflict(f"{words}: take it away by its hypervisor.")
            return Change.UNCHANGED
        before = entry
        entry = parts.write(entry, phase=GuestPhase.DETACHING)
        parts.on_step("noted")
        try:
            parts.take_away(entry, deadline)
        except (UnplugRefused, UnplugTimedOut):
            parts.journal.write(before)
            raise
        return Change.CHANGED


def extend(parts: GuestParts, name_or_id: str, volume_id: str, deadline: Deadline) -> int:
    """Let a guest see how large a volume is now; return the bytes. Idempotent.

    Raises: DeviceMissing (the guest has no such volume), and what the initiator raises.
    """
    guest = require_guest(parts, name_or_id, deadline)
    with parts.alone(guest.id, volume_id, deadline):
        entry = parts.entry(guest.id, volume_id)
        if entry is None or entry.phase is not GuestPhase.ATTACHED:
            raise DeviceMissing(f"Volume {volume_id}", f"guest {guest.name} does not have it")
        size_bytes = _grown(parts, entry, deadline)
        parts.hypervisor.resize(guest.id, volume_id, size_bytes, deadline)
        return size_bytes


def _grown(parts: GuestParts, entry: GuestAttachment, deadline: Deadline) -> int:
    """Return the size of the volume as this host sees it once it has looked again."""
    if entry.initiator is InitiatorKind.QEMU:
        return parts.api(entry.endpoint).get_volume(entry.volume_id, deadline).size * _GIB
    known = parts.connection(entry.volume_id)
    if known is None:
        raise DeviceMissing(f"Volume {entry.volume_id}", "it is not connected on this host")
    return parts.host.extend(known_connection(known, entry.attachment_id), deadline=deadline)
