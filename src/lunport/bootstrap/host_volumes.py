"""A volume of the service as a disk of this host, and back: attachment and disk together.

    connect     attachment -> note -> connection -> disk -> complete
    disconnect  disk -> attachment -> note

The note comes before the disk and goes after the attachment, so that whatever is cut off can
be finished by ``disconnect``, or by ``connect`` again. The service is not needed to take the
disk away; the attachment then waits for the next try.
"""

from __future__ import annotations

from contextlib import AbstractContextManager, suppress
from dataclasses import dataclass, replace
from typing import TYPE_CHECKING, Protocol

from lunport.agent.agent import NO_WISH
from lunport.agent.path_wish import PathWish
from lunport.bootstrap.host_verbs import HostVerbs
from lunport.core.change import Change
from lunport.core.connection_info import ConnectionInfo
from lunport.core.connector import Connector
from lunport.core.errors import (
    AttachmentNotFound,
    Conflict,
    DeviceMissing,
    LunportError,
    UndoFailed,
    VolumeApiUnavailable,
)
from lunport.core.host_connection import HostConnection
from lunport.core.host_connection import known_connection as known_connection
from lunport.host.attachment_notes import AttachmentNote, AttachmentNotes
from lunport.host.clock import Deadline
from lunport.host.guest_journal import GuestJournal
from lunport.initiator.connected_volume import ConnectedVolume
from lunport.initiator.lock_names import attachment_lock

if TYPE_CHECKING:
    from lunport.client.block_storage import Attachment

_ATTACHED = "attached"
_UNDO_S = 30.0


class VolumeApi(Protocol):
    """What is used of the client of Block Storage."""

    endpoint: str

    def create_attachment(self, volume_id: str, deadline: Deadline) -> Attachment:
        """Reserve the volume."""

    def get_attachment(self, attachment_id: str, deadline: Deadline) -> Attachment:
        """Show an attachment."""

    def connect_attachment(
        self, attachment_id: str, connector: Connector, deadline: Deadline
    ) -> Attachment:
        """Have the volume offered to this host."""

    def complete_attachment(self, attachment_id: str, deadline: Deadline) -> None:
        """Say that this host uses the volume."""

    def delete_attachment(self, attachment_id: str, deadline: Deadline) -> None:
        """Take the volume from this host."""


class Locks(Protocol):
    """What is used of the host's locks."""

    def hold(self, name: str, deadline: Deadline) -> AbstractContextManager[None]:
        """Hold a lock among all processes of the host."""


@dataclass(frozen=True, slots=True)
class HostVolumes:
    """The volumes of one service on this host."""

    host: HostVerbs
    api: VolumeApi
    notes: AttachmentNotes
    locks: Locks
    guests: GuestJournal

    def connect(
        self,
        volume_id: str,
        connector: Connector,
        deadline: Deadline,
        *,
        multipath: bool | None = None,
        wish: PathWish = NO_WISH,
    ) -> ConnectedVolume:
        """Attach a volume and make it a disk. Idempotent; finishes an attempt that was cut off.

        ``multipath``: over several paths; None as the connector says.

        On failure the attachment of an attempt that did not come to its end is deleted again.
        Raises: what the service and the initiator raise, UndoFailed (the note is kept).
        """
        with self.locks.hold(attachment_lock(volume_id), deadline):
            attachment = self._attachment(volume_id, deadline)
            note = AttachmentNote(volume_id, attachment.id, self.api.endpoint)
            # What was there before this attempt is not taken away with it.
            is_ours = self._entry(volume_id) is None
            try:
                self.notes.write(note)
                if attachment.connection is None:
                    attachment = self.api.connect_attachment(attachment.id, connector, deadline)
                info = attachment.connection
                if info is None:
                    words = f"attachment {attachment.id} is connected, and names no connection"
                    raise VolumeApiUnavailable(f"{self.api.endpoint}: {words}")
                if connector.enforce_multipath:
                    info = replace(info, enforce_multipath=True)
                volume = self.host.connect(
                    info,
                    multipath=connector.multipath if multipath is None else multipath,
                    wish=wish,
                    deadline=deadline,
                )
                is_ours = True
                if attachment.status != _ATTACHED:
                    self.api.complete_attachment(attachment.id, deadline)
            except UndoFailed:
                raise  # something is left on the host, which needs its connection for now
            except (LunportError, OSError, KeyboardInterrupt) as error:
                if attachment.status != _ATTACHED:
                    self._undo(error, note, attachment, is_ours=is_ours)
                raise
            return volume

    def disconnect(self, volume_id: str, *, force: bool, deadline: Deadline) -> Change:
        """Take the disk away and delete the attachment. Idempotent.

        Without ``force`` a disk that another attachment holds as well is left to it.
        Raises: what the initiator raises (then the attachment is untouched); Conflict (the
        disk belongs to attachments that were not made here, or to a guest's);
        VolumeApiUnavailable and the like (then the disk is gone, and the next try deletes the
        attachment).
        """
        with self.locks.hold(attachment_lock(volume_id), deadline):
            self._require_no_guest(volume_id)
            entry = self._entry(volume_id)
            notes = self.notes.of(volume_id)
            change = Change.UNCHANGED
            if entry is not None:
                others = ", ".join(entry.holders)
                if others and not notes and not force:
                    raise Conflict(
                        f"Volume {volume_id} is on this host for attachment {others}, which was "
                        "not made by this command: disconnect it with its connection info."
                    )
                ours: list[str | None] = [note.attachment_id for note in notes]
                for attachment_id in [None] if force or not ours else ours:
                    info = known_connection(entry, attachment_id)
                    change |= self.host.disconnect(info, force=force, deadline=deadline)
            for note in notes:
                self._delete(note, deadline)
                change = Change.CHANGED
            return change

    def extend(self, volume_id: str, deadline: Deadline) -> int:
        """Make the disk as large as the volume is; return the bytes.

        Raises: DeviceMissing (it is not connected), and what the initiator raises.
        """
        for note in self.notes.of(volume_id):
            info = self.api.get_attachment(note.attachment_id, deadline).connection
            if info is not None:
                return self.host.extend(info, deadline=deadline)
        entry = self._entry(volume_id)
        if entry is None:
            raise DeviceMissing(f"Volume {volume_id}", "it is not connected on this host")
        return self.host.extend(known_connection(entry, None), deadline=deadline)

    def known(self, volume_id: str, deadline: Deadline) -> ConnectionInfo | None:
        """Return how a volume is reached, if an attachment or the journal says so already."""
        for note in self.notes.of(volume_id):
            try:
                return self.api.get_attachment(note.attachment_id, deadline).connection
            except AttachmentNotFound:
                continue
        entry = self._entry(volume_id)
        return None if entry is None else known_connection(entry, None)

    def settle(self, note: AttachmentNote, deadline: Deadline) -> bool:
        """Delete an attachment that no disk of this host belongs to; tell whether it was one.

        What a killed connect or disconnect left at the service. Raises: what the service raises.
        """
        with self.locks.hold(attachment_lock(note.volume_id), deadline):
            if note not in self.notes.of(note.volume_id) or self._entry(note.volume_id) is not None:
                return False
            self._delete(note, deadline)
            return True

    def _require_no_guest(self, volume_id: str) -> None:
        for one in self.guests.all():
            if one.volume_id == volume_id:
                raise Conflict(
                    f"Volume {volume_id} is attached to guest {one.guest_name}: "
                    f"lunport guest detach {one.guest_name} {volume_id}"
                )

    # -- parts -------------------------------------------------------------------------------

    def _attachment(self, volume_id: str, deadline: Deadline) -> Attachment:
        """Return the attachment that this host has of the volume, or make one."""
        for note in self.notes.of(volume_id):
            try:
                return self.api.get_attachment(note.attachment_id, deadline)
            except AttachmentNotFound:
                self.notes.remove(note)
        return self.api.create_attachment(volume_id, deadline)

    def _entry(self, volume_id: str) -> HostConnection | None:
        found = (one for one in self.host.connections() if one.volume_id == volume_id)
        return next(found, None)

    def _delete(self, note: AttachmentNote, deadline: Deadline) -> None:
        with suppress(AttachmentNotFound):
            self.api.delete_attachment(note.attachment_id, deadline)
        self.notes.remove(note)

    def _undo(
        self,
        cause: LunportError | OSError | KeyboardInterrupt,
        note: AttachmentNote,
        attachment: Attachment,
        *,
        is_ours: bool,
    ) -> None:
        """Take back what an attempt made, the disk before its attachment.

        ``is_ours``: whatever disk there is was made by it.
        """
        deadline = Deadline.after(_UNDO_S)
        try:
            if is_ours and attachment.connection is not None:
                self.host.disconnect(attachment.connection, deadline=deadline)
            self._delete(note, deadline)
        except LunportError as error:
            if isinstance(cause, LunportError):
                raise UndoFailed(cause, [error]) from cause
