"""Which attachments this host asked a volume service for, so that it can give them back.

One file for each in ``/var/lib/lunport/host/attachments``, its name the volume and the
attachment, its text the service's address. Written before anything is connected and removed
after the service forgot the attachment; what is on the host itself is in the journal. Never
asks the service.
"""

from __future__ import annotations

import contextlib
from collections.abc import Iterator
from dataclasses import dataclass, field
from pathlib import Path
from urllib.parse import quote, unquote

from lunport.core.errors import HostLacks
from lunport.host.durable_file import list_files, remove_durably, write_durably
from lunport.host.host_root import state_directory

_BETWEEN = "+"
_SUFFIX = ".attachment"


@dataclass(frozen=True, slots=True, order=True)
class AttachmentNote:
    """One attachment, and the address of the service that made it."""

    volume_id: str
    attachment_id: str
    endpoint: str


def _default_folder() -> Path:
    return state_directory() / "attachments"


@dataclass(frozen=True, slots=True)
class AttachmentNotes:
    """The notes in one folder, shared by all processes of the host."""

    folder: Path = field(default_factory=_default_folder)

    def all(self) -> tuple[AttachmentNote, ...]:
        """Return all notes, by volume. Raises: HostLacks."""
        with _telling("read", self.folder):
            files = list_files(self.folder, _SUFFIX)
            return tuple(note for file in files if (note := _read(file)) is not None)

    def of(self, volume_id: str) -> tuple[AttachmentNote, ...]:
        """Return the notes of a volume. Raises: HostLacks."""
        return tuple(note for note in self.all() if note.volume_id == volume_id)

    def write(self, note: AttachmentNote) -> None:
        """Keep a note, on the disk when this returns. Idempotent. Raises: HostLacks."""
        file = self._file(note)
        with _telling("write", file):
            write_durably(file, note.endpoint)

    def remove(self, note: AttachmentNote) -> None:
        """Forget a note. Idempotent. Raises: HostLacks."""
        file = self._file(note)
        with _telling("remove", file):
            remove_durably(file)

    def _file(self, note: AttachmentNote) -> Path:
        ids = (quote(one, safe="") for one in (note.volume_id, note.attachment_id))
        return self.folder / (_BETWEEN.join(ids) + _SUFFIX)


def _read(file: Path) -> AttachmentNote | None:
    volume_id, between, attachment_id = file.name.removesuffix(_SUFFIX).partition(_BETWEEN)
    if not (between and volume_id and attachment_id):
        return None
    try:
        endpoint = file.read_text(encoding="utf-8", errors="replace")
    except FileNotFoundError:  # another process is done with it
        return None
    return AttachmentNote(unquote(volume_id), unquote(attachment_id), endpoint)


@contextlib.contextmanager
def _telling(verb: str, what: Path) -> Iterator[None]:
    try:
        yield
    except OSError as error:
        detail = error.strerror or str(error)
        how = "lunport host needs root, and room on the disk"
        raise HostLacks(f"Cannot {verb} {what}", detail, how) from error
