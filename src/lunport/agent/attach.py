"""Give a guest a volume: attachment, connection, disk.

    attach    journal -> reserve -> offer -> connect -> plug -> complete -> journal

Each step is written down before it is begun. One that fails is undone with all before it, in
the opposite order; what a kill leaves is finished by the same call again, or undone by a
recovery (:mod:`lunport.agent.guest_boot`).
"""

from __future__ import annotations

from dataclasses import dataclass

from lunport.agent.guest_parts import GuestParts, GuestVolumeApi, require_guest
from lunport.core.attachment import AttachMode
from lunport.core.change import Change
from lunport.core.connection_info import ConnectionInfo
from lunport.core.disk_source import make_disk_source
from lunport.core.errors import (
    AttachmentNotFound,
    Conflict,
    InvalidConnectionInfo,
    LunportError,
    UndoFailed,
    VolumeApiUnavailable,
)
from lunport.core.guest import Guest
from lunport.core.guest_attachment import GuestAttachment, GuestPhase
from lunport.core.guest_disk import (
    DiskBus,
    DiskSettings,
    GuestDisk,
    InitiatorKind,
    check_target,
    format_block_disk,
    format_network_disk,
    next_target,
    parse_iotune,
)
from lunport.host.clock import Deadline

_ATTACHED = "attached"
_UNDO_S = 30.0
_NAME_S = 10.0


@dataclass(frozen=True, slots=True)
class AttachWish:
    """How a volume is to be attached. ``target`` and ``multipath`` None: as it comes."""

    initiator: InitiatorKind = InitiatorKind.KERNEL
    multipath: bool | None = None
    mode: AttachMode = AttachMode.READ_WRITE
    bus: DiskBus = DiskBus.VIRTIO
    target: str | None = None


@dataclass(frozen=True, slots=True)
class Attached:
    """What an attach came to."""

    entry: GuestAttachment
    disk: GuestDisk
    change: Change


@dataclass(frozen=True, slots=True)
class PreparedDisk:
    """A volume that this host reaches, as a disk that a guest could be given.

    ``portal``: the one that QEMU's initiator knows; None where it is the kernel's.
    """

    xml: str
    portal: str | None


def attach(
    parts: GuestParts,
    name_or_id: str,
    volume_id: str,
    endpoint: str,
    wish: AttachWish,
    deadline: Deadline,
) -> Attached:
    """Give a guest a volume of a service. Idempotent; finishes an attempt that was cut off.

    On failure nothing is left of it, on the host, in the guest and at the service.
    Raises: GuestNotFound, Conflict (the guest has the volume otherwise), PlugRejected,
    InvalidConnectionInfo (QEMU's initiator can't do what is demanded), UndoFailed (the journal
    keeps what was begun), and what the service and the initiator raise.
    """
    guest = require_guest(parts, name_or_id, deadline)
    if wish.target is not None:
        check_target(wish.target, wish.bus)
    with parts.alone(guest.id, volume_id, deadline):
        guest = require_guest(parts, guest.id, deadline)
        entry = parts.entry(guest.id, volume_id)
        if entry is not None and entry.phase is GuestPhase.DETACHING:
            parts.take_away(entry, deadline)
            guest, entry = require_guest(parts, guest.id, deadline), None
        there = _as_it_is(guest, entry, volume_id, wish)
        if there is not None:
            return there
        if entry is not None and _is_forgotten(parts, entry, deadline):
            parts.take_away(entry, deadline)
            guest, entry = require_guest(parts, guest.id, deadline), None
        entry = parts.write(entry or _new_entry(parts, guest, volume_id, endpoint, wish))
        parts.on_step("noted")
        try:
            return _carry_out(parts, guest, entry, wish, deadline)
        except UndoFailed:
            raise  # something of the host's is left, which needs its connection for now
        except (LunportError, KeyboardInterrupt) as error:
            _undo(parts, entry, error)
            raise


def _as_it_is(
    guest: Guest, entry: GuestAttachment | None, volume_id: str, wish: AttachWish
) -> Attached | None:
    """Return what is attached already. Raises: Conflict where it is so otherwise."""
    disk = guest.disk(volume_id)
    if entry is None:
        if disk is not None:
            words = f"Guest {guest.name} has volume {volume_id} as {disk.target}"
            raise Conflict(f"{words}, which was not attached here: take it away first.")
        return None
    if entry.phase is not GuestPhase.ATTACHED or disk is None:
        return None
    if entry.initiator is not wish.initiator:
        words = f"Guest {guest.name} has volume {volume_id} by the initiator of"
        raise Conflict(f"{words} {entry.initiator.value}: detach it first.")
    return Attached(entry, disk, Change.UNCHANGED)


def _is_forgotten(parts: GuestParts, entry: GuestAttachment, deadline: Deadline) -> bool:
    """Tell whether the service does not know an attempt's attachment any more.

    What was made with it, a secret and a holder of the disk, is then of no use to another.
    """
    if entry.attachment_id is None:
        return False
    try:
        parts.api(entry.endpoint).get_attachment(entry.attachment_id, deadline)
    except AttachmentNotFound:
        return True
    return False


def _new_entry(
    parts: GuestParts, guest: Guest, volume_id: str, endpoint: str, wish: AttachWish
) -> GuestAttachment:
    return GuestAttachment(
        uri=parts.uri,
        guest_id=guest.id,
        guest_name=guest.name,
        volume_id=volume_id,
        endpoint=endpoint,
        phase=GuestPhase.ATTACHING,
        initiator=wish.initiator,
        multipath=wish.multipath,
        attachment_id=None,
        target=None,
        since=0.0,
    )


def _carry_out(
    parts: GuestParts,
    guest: Guest,
    entry: GuestAttachment,
    wish: AttachWish,
    deadline: Deadline,
) -> Attached:
    api = parts.api(entry.endpoint)
    attachment_id, status = reserve(parts, api, entry, wish, deadline)
    parts.on_step("reserved")
    taken = list(guest.targets())
    known = guest.disk(entry.volume_id)
    target = wish.target or (known.target if known is not None else next_target(taken, wish.bus))
    entry = parts.write(
        entry, attachment_id=attachment_id, target=target, phase=GuestPhase.ATTACHING
    )
    parts.note(entry)
    info = offered(parts, api, entry, deadline)
    parts.on_step("offered")
    # An agent of a host may look at a volume only once that has an attachment of it.
    volume = api.get_volume(entry.volume_id, deadline)
    settings = DiskSettings(
        volume_id=entry.volume_id,
        target=target,
        bus=wish.bus,
        is_readonly=info.access_mode is AttachMode.READ_ONLY,
        is_shareable=volume.multiattach,
        discard=info.discard is not False,
        physical_block_size=info.physical_block_size,
        logical_block_size=info.logical_block_size,
        iotune=parse_iotune(info.qos_specs),
    )
    prepared = prepare_disk(parts, entry, info, settings, deadline)
    parts.on_step("connected")
    if known is None:
        parts.hypervisor.plug(guest.id, prepared.xml, deadline)
    parts.own(guest, deadline)
    parts.on_step("plugged")
    if status != _ATTACHED:
        api.complete_attachment(attachment_id, deadline)
    parts.on_step("completed")
    entry = parts.write(entry, phase=GuestPhase.ATTACHED)
    disk = parts.hypervisor.guest(guest.id, deadline).disk(entry.volume_id)
    if disk is None:
        raise Conflict(f"Guest {guest.name} lost the disk as soon as it had it.")
    return Attached(entry, disk, Change.CHANGED)


def reserve(
    parts: GuestParts,
    api: GuestVolumeApi,
    entry: GuestAttachment,
    wish: AttachWish,
    deadline: Deadline,
) -> tuple[str, str]:
    """Return the attachment of this guest and its status: the one it has, or a new one."""
    if entry.attachment_id is not None:
        known = api.get_attachment(entry.attachment_id, deadline)
        return known.id, known.status
    for left in parts.reserved(api, entry, deadline):
        return left.id, left.status
    new = api.create_attachment(entry.volume_id, deadline, instance=entry.guest_id, mode=wish.mode)
    return new.id, new.status


def offered(
    parts: GuestParts, api: GuestVolumeApi, entry: GuestAttachment, deadline: Deadline
) -> ConnectionInfo:
    """Have the volume offered to this host; return how it is reached. Idempotent."""
    assert entry.attachment_id is not None
    is_kernel = entry.initiator is InitiatorKind.KERNEL
    attachment = api.get_attachment(entry.attachment_id, deadline)
    if attachment.connection is None:
        connector = parts.connector(entry.multipath if is_kernel else False)
        attachment = api.connect_attachment(entry.attachment_id, connector, deadline)
    info = attachment.connection
    if info is None:
        words = f"attachment {entry.attachment_id} is connected, and names no connection"
        raise VolumeApiUnavailable(f"{entry.endpoint}: {words}")
    return info


def prepare_disk(
    parts: GuestParts,
    entry: GuestAttachment,
    info: ConnectionInfo,
    settings: DiskSettings,
    deadline: Deadline,
) -> PreparedDisk:
    """Make this host reach the volume, and write the disk that a guest gets. Idempotent.

    The identity is verified in both ways. Undone by :meth:`GuestParts.take_away`.
    Raises: InvalidConnectionInfo, and what the initiator and the hypervisor raise.
    """
    if entry.initiator is InitiatorKind.KERNEL:
        connected = parts.host.connect(info, multipath=entry.multipath, deadline=deadline)
        name = parts.name_of(connected.path, deadline.at_most(_NAME_S))
        return PreparedDisk(format_block_disk(settings, name), None)
    initiator = parts.connector(False).initiator
    if info.enforce_multipath:
        reason = "QEMU's initiator knows one portal; use the host's initiator"
        raise InvalidConnectionInfo("enforce_multipath", True, reason)
    # What QEMU's initiator can't do is known before any portal is asked.
    make_disk_source(info.main_path, initiator, info.chap)
    choice = parts.choose(info, deadline)
    source = make_disk_source(choice.path, initiator, info.chap)
    secret_id = None if info.chap is None else entry.secret_id
    if info.chap is not None and secret_id is not None:
        parts.journal.write_chap(entry, info.chap)
        parts.keep_secret(entry, secret_id, info.chap, deadline)
    xml = format_network_disk(settings, source, secret_id=secret_id)
    return PreparedDisk(xml, str(choice.path.portal))


def _undo(
    parts: GuestParts, entry: GuestAttachment, cause: LunportError | KeyboardInterrupt
) -> None:
    """Take back what an attempt made. Raises: UndoFailed; the journal has what is left."""
    now = parts.journal.get(entry.guest_id, entry.volume_id) or entry
    if now.phase is GuestPhase.ATTACHED:
        return  # it was there before, and is left as it is
    try:
        parts.take_away(now, Deadline.after(_UNDO_S))
    except LunportError as error:
        if isinstance(cause, LunportError):
            raise UndoFailed(cause, [error]) from cause
