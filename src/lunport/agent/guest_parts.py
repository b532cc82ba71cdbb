"""What attaching to guests works with, and what attach, detach and recovery have in common.

    attach    journal -> reserve -> offer -> connect -> plug -> complete -> journal
    take away unplug -> disconnect -> delete the attachment -> journal

Taking away is one function that looks at what there is: it ends a detach, undoes an attach that
failed, and finishes what a kill left. So each of its steps is idempotent.
"""

from __future__ import annotations

import time
from collections.abc import Callable, Iterator
from contextlib import AbstractContextManager, contextmanager, suppress
from dataclasses import dataclass, field, replace
from typing import TYPE_CHECKING, Protocol

from lunport.agent.hypervisor_seam import AgentHypervisor
from lunport.agent.path_wish import PathWish
from lunport.core.attachment import AttachMode
from lunport.core.change import Change
from lunport.core.chap import Chap
from lunport.core.connection_info import ConnectionInfo
from lunport.core.connector import Connector
from lunport.core.errors import AttachmentNotFound, Conflict, GuestNotFound
from lunport.core.guest import Guest
from lunport.core.guest_attachment import GuestAttachment, OwnedGuest
from lunport.core.guest_disk import GuestDisk, InitiatorKind
from lunport.core.host_connection import HostConnection, known_connection
from lunport.host.attachment_notes import AttachmentNote, AttachmentNotes
from lunport.host.block_names import wait_for_stable_name
from lunport.host.boot_id import read_boot_id
from lunport.host.clock import Deadline
from lunport.host.guest_journal import GuestJournal
from lunport.initiator.connected_volume import ConnectedVolume
from lunport.initiator.lock_names import attachment_lock, guest_lock
from lunport.initiator.portal_choice import PathChoice

if TYPE_CHECKING:
    from lunport.client.block_storage import Attachment, Volume

SECRET_USAGE = "lunport/"  # noqa: S105 - a prefix of names
NO_WISH = PathWish()
_RESERVED = "reserved"


class GuestVolumeApi(Protocol):
    """What is used of the client of Block Storage."""

    endpoint: str

    def get_volume(self, volume_id: str, deadline: Deadline) -> Volume:
        """Show a volume."""

    def create_attachment(
        self,
        volume_id: str,
        deadline: Deadline,
        *,
        instance: str | None = None,
        mode: AttachMode = AttachMode.READ_WRITE,
    ) -> Attachment:
        """Reserve the volume for a guest."""

    def get_attachment(self, attachment_id: str, deadline: Deadline) -> Attachment:
        """Show an attachment."""

    def list_attachments(self, deadline: Deadline) -> tuple[Attachment, ...]:
        """List attachments."""

    def connect_attachment(
        self, attachment_id: str, connector: Connector, deadline: Deadline
    ) -> Attachment:
        """Have the volume offered to this host."""

    def complete_attachment(self, attachment_id: str, deadline: Deadline) -> None:
        """Say that the guest uses the volume."""

    def delete_attachment(self, attachment_id: str, deadline: Deadline) -> None:
        """Take the volume from this host."""


class ConnectingHost(Protocol):
    """What is used of the verbs of this host, in process or through its agent."""

    def connect(
        self,
        info: ConnectionInfo,
        *,
        multipath: bool | None = None,
        wish: PathWish = NO_WISH,
        deadline: Deadline,
    ) -> ConnectedVolume:
        """Make the volume a disk."""

    def disconnect(
        self, info: ConnectionInfo, *, force: bool = False, deadline: Deadline
    ) -> Change:
        """Take the disk away."""

    def extend(self, info: ConnectionInfo, *, deadline: Deadline) -> int:
        """Make the disk as large as its unit."""

    def connections(self) -> tuple[HostConnection, ...]:
        """List what is connected."""


class GuestLocks(Protocol):
    """What is used of the host's locks."""

    def hold(self, name: str, deadline: Deadline) -> AbstractContextManager[None]:
        """Hold a lock among all processes of the host."""


def _ignore(step: str) -> None:
    """Take no notice of a step."""


@dataclass(frozen=True, slots=True)
class GuestParts:
    """The parts of one host, and the service of each volume.

    ``uri``: where the hypervisor is; what was attached by another is not touched.
    ``api``: makes a client of the service at an address. ``connector``: what this host says of
    itself, given the wish for several paths. ``choose``: finds the one portal for QEMU's
    initiator; ``answers``: tells whether the portal of such a disk is there. ``name_of``: the
    name of a device that outlives a restart. ``on_step`` hears the name of each step once it is
    done.
    """

    uri: str
    hypervisor: AgentHypervisor
    host: ConnectingHost
    api: Callable[[str], GuestVolumeApi]
    journal: GuestJournal
    notes: AttachmentNotes
    locks: GuestLocks
    connector: Callable[[bool | None], Connector]
    choose: Callable[[ConnectionInfo, Deadline], PathChoice]
    answers: Callable[[GuestDisk, Deadline], bool]
    name_of: Callable[[str, Deadline], str] = wait_for_stable_name
    now: Callable[[], float] = time.time
    boot_id: Callable[[], str] = read_boot_id
    on_step: Callable[[str], None] = field(default=_ignore)

    @contextmanager
    def alone(self, guest_id: str | None, volume_id: str, deadline: Deadline) -> Iterator[None]:
        """Let nobody else attach or detach this volume here, nor change or move that guest."""
        with self.locks.hold(attachment_lock(volume_id), deadline):
            if guest_id is None:
                yield
                return
            with self.locks.hold(guest_lock(guest_id), deadline):
                yield

    def find_guest(self, name_or_id: str, deadline: Deadline) -> Guest | None:
        """Return a guest, or None where the hypervisor has none of that name."""
        try:
            return self.hypervisor.guest(name_or_id, deadline)
        except GuestNotFound:
            return None

    def entries(self) -> tuple[GuestAttachment, ...]:
        """Return what the journal has of this hypervisor's guests."""
        return tuple(one for one in self.journal.all() if one.uri == self.uri)

    def entry(self, guest_id: str, volume_id: str) -> GuestAttachment | None:
        """Return what a guest has of a volume.

        Raises: Conflict where it has it at another hypervisor, JournalDamaged.
        """
        found = self.journal.get(guest_id, volume_id)
        if found is not None and found.uri != self.uri:
            words = f"Volume {volume_id} is attached to guest {found.guest_name} at {found.uri}"
            raise Conflict(f"{words}, not at {self.uri}: say so with --libvirt.")
        return found

    def write(self, entry: GuestAttachment, **changes: object) -> GuestAttachment:
        """Put a changed entry into the journal, and return it."""
        changed = replace(entry, since=self.now(), **changes)  # type: ignore[arg-type]
        self.journal.write(changed)
        return changed

    def connection(self, volume_id: str) -> HostConnection | None:
        """Return this host's connection of a volume by its kernel, if there is one."""
        found = (one for one in self.host.connections() if one.volume_id == volume_id)
        return next(found, None)

    def own(self, guest: Guest, deadline: Deadline) -> None:
        """Take over the guest's start from the hypervisor, if that has it. Idempotent."""
        if guest.persistent is None or not guest.autostart:
            return
        self.journal.own(OwnedGuest(self.uri, guest.id, guest.name, True, self.boot_id()))
        self.hypervisor.set_autostart(guest.id, wanted=False, deadline=deadline)

    def disown(self, guest_id: str, deadline: Deadline) -> None:
        """Give a guest's start back to the hypervisor once no volume of ours is in it."""
        owned = self.journal.get_owned(guest_id)
        if owned is None or self.journal.of_guest(guest_id):
            return
        if owned.autostart:
            with suppress(GuestNotFound):
                self.hypervisor.set_autostart(guest_id, wanted=True, deadline=deadline)
        self.journal.disown(guest_id)

    # -- taking away -------------------------------------------------------------------------

    def take_away(self, entry: GuestAttachment, deadline: Deadline) -> Change:
        """Take a volume from a guest, from this host, and from the service's books. Idempotent.

        On failure the journal keeps the entry, for the next try. Raises: UnplugRefused and
        UnplugTimedOut (the guest has the disk, and nothing else was changed), and what the
        initiator and the service raise (then the guest has it no more).
        """
        change = self._unplug(entry, deadline)
        self.on_step("unplugged")
        return change | self.release(entry, deadline)

    def release(self, entry: GuestAttachment, deadline: Deadline) -> Change:
        """Take a volume from this host and from the service's books. Idempotent.

        Precondition: no guest of this host has it, or it is another attachment by which one has
        it. On failure the journal keeps the entry. Raises: what the initiator, the hypervisor
        and the service raise.
        """
        change = self._disconnect(entry, deadline)
        self.on_step("disconnected")
        self._delete_attachments(entry, deadline)
        self.on_step("deleted")
        self.journal.remove(entry)
        self.disown(entry.guest_id, deadline)
        return change

    def _unplug(self, entry: GuestAttachment, deadline: Deadline) -> Change:
        try:
            return self.hypervisor.unplug(entry.guest_id, entry.volume_id, deadline)
        except GuestNotFound:
            return Change.UNCHANGED

    def _disconnect(self, entry: GuestAttachment, deadline: Deadline) -> Change:
        if entry.initiator is InitiatorKind.QEMU:
            secret_id = entry.secret_id
            return (
                Change.UNCHANGED
                if secret_id is None
                else self.hypervisor.forget_secret(secret_id, deadline)
            )
        known = self.connection(entry.volume_id)
        if known is None:
            return Change.UNCHANGED
        if entry.attachment_id is None or entry.attachment_id not in known.holders:
            return Change.UNCHANGED  # another guest's, or somebody else's altogether
        info = known_connection(known, entry.attachment_id)
        return self.host.disconnect(info, deadline=deadline)

    def _delete_attachments(self, entry: GuestAttachment, deadline: Deadline) -> None:
        api = self.api(entry.endpoint)
        ids = (
            [one.id for one in self.reserved(api, entry, deadline)]
            if entry.attachment_id is None
            else [entry.attachment_id]
        )
        for attachment_id in ids:
            with suppress(AttachmentNotFound):
                api.delete_attachment(attachment_id, deadline)
            self.notes.remove(AttachmentNote(entry.volume_id, attachment_id, entry.endpoint))

    def reserved(
        self, api: GuestVolumeApi, entry: GuestAttachment, deadline: Deadline
    ) -> tuple[Attachment, ...]:
        """List the attachments that were reserved for a guest and never offered to a host.

        Whoever was killed between asking for one and noting it left such a one.
        """
        known = {one.attachment_id for one in self.journal.all()}
        return tuple(
            one
            for one in api.list_attachments(deadline)
            if one.volume_id == entry.volume_id
            and one.instance == entry.guest_id
            and one.status == _RESERVED
            and one.id not in known
        )

    def keep_secret(
        self, entry: GuestAttachment, secret_id: str, chap: Chap, deadline: Deadline
    ) -> None:
        """Give the hypervisor the secret by which QEMU logs in for a guest. Idempotent."""
        usage = f"{SECRET_USAGE}{entry.attachment_id}"
        self.hypervisor.keep_secret(secret_id, usage, chap.initiator.password, deadline)

    def note(self, entry: GuestAttachment) -> None:
        """Keep the note by which paths are reported, for a volume that the kernel reaches."""
        if entry.initiator is InitiatorKind.KERNEL and entry.attachment_id is not None:
            self.notes.write(AttachmentNote(entry.volume_id, entry.attachment_id, entry.endpoint))


def require_guest(parts: GuestParts, name_or_id: str, deadline: Deadline) -> Guest:
    """Return a guest that disks can be given to. Raises: GuestNotFound, Conflict."""
    guest = parts.hypervisor.guest(name_or_id, deadline)
    if guest.live is None and guest.persistent is None:
        raise Conflict(f"Guest {guest.name} is neither running nor defined.")
    return guest


def entry_of(
    parts: GuestParts, name_or_id: str, volume_id: str, guest: Guest | None
) -> GuestAttachment | None:
    """Return the journal's entry of a volume in a guest, which may be gone meanwhile.

    Raises: Conflict where the guest is another hypervisor's.
    """
    if guest is not None:
        return parts.entry(guest.id, volume_id)
    for one in parts.journal.all():
        if one.volume_id == volume_id and name_or_id in (one.guest_id, one.guest_name):
            return parts.entry(one.guest_id, volume_id)
    return None
