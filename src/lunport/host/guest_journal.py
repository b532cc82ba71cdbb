"""The journal of a host's guests: which volumes they have, and what was begun, on disk beforehand.

    /var/lib/lunport/host/guests/attachments/GUEST+VOLUME.json     one volume of one guest
    /var/lib/lunport/host/guests/credentials/GUEST+VOLUME.json     of QEMU's initiator; private
    /var/lib/lunport/host/guests/owned/GUEST.json                  whose start is the agent's
    /var/lib/lunport/host/guests/moves/GUEST+SIDE.json             a move that it takes part in

Each write is on the disk before it returns. A file that can't be read blocks nobody but those
who ask for just it. Decides nothing, and excludes nobody: the locks of volume and guest do.
"""

from __future__ import annotations

import contextlib
from collections.abc import Callable, Iterator
from dataclasses import dataclass, field
from pathlib import Path
from typing import TypeVar

from lunport.core.chap import Chap, format_chap, parse_chap
from lunport.core.errors import HostLacks, InvalidInput, JournalDamaged
from lunport.core.guest_attachment import (
    GuestAttachment,
    OwnedGuest,
    attachment_key,
    check_id,
    format_guest_attachment,
    format_owned_guest,
    parse_guest_attachment,
    parse_owned_guest,
)
from lunport.core.guest_move import GuestMove, format_guest_move, parse_guest_move
from lunport.core.migration_plan import Side
from lunport.host.durable_file import list_files, remove_durably, write_durably
from lunport.host.host_root import state_directory

T = TypeVar("T")

_SUFFIX = ".json"


def _default_folder() -> Path:
    return state_directory() / "guests"


@dataclass(frozen=True, slots=True)
class GuestJournal:
    """The journal in one folder; safe to share between threads and processes.

    Every method raises HostLacks where the disk or its permissions forbid it.
    """

    folder: Path = field(default_factory=_default_folder)

    def all(self) -> tuple[GuestAttachment, ...]:
        """Return all that can be read, by guest and volume."""
        return self._read_all("attachments", parse_guest_attachment)

    def get(self, guest_id: str, volume_id: str) -> GuestAttachment | None:
        """Return what a guest has of a volume. Raises: JournalDamaged."""
        key = attachment_key(guest_id, volume_id)
        return _read(self._file("attachments", key), parse_guest_attachment)

    def of_guest(self, guest_id: str) -> tuple[GuestAttachment, ...]:
        """Return the volumes of a guest."""
        return tuple(one for one in self.all() if one.guest_id == guest_id)

    def write(self, attachment: GuestAttachment) -> None:
        """Put an entry on the disk, in place of what its key had."""
        _write(self._file("attachments", attachment.key), format_guest_attachment(attachment))

    def remove(self, attachment: GuestAttachment) -> None:
        """Forget an entry, and its credentials first. Idempotent."""
        _remove(self._file("credentials", attachment.key))
        _remove(self._file("attachments", attachment.key))

    def sweep(self) -> None:
        """Take away what killed writers left beside the credentials. Raises: HostLacks."""
        self._list("credentials")

    def write_chap(self, attachment: GuestAttachment, chap: Chap | None) -> None:
        """Keep the credentials with which QEMU logs in, for the guest's next start."""
        file = self._file("credentials", attachment.key)
        if chap is None:
            _remove(file)
        else:
            _write(file, format_chap(chap))

    def chap(self, attachment: GuestAttachment) -> Chap | None:
        """Return an entry's credentials, if it has any. Raises: JournalDamaged."""
        return _read(self._file("credentials", attachment.key), parse_chap)

    def owned(self) -> tuple[OwnedGuest, ...]:
        """Return the guests whose start is the agent's."""
        return self._read_all("owned", parse_owned_guest)

    def get_owned(self, guest_id: str) -> OwnedGuest | None:
        """Return a guest whose start is the agent's. Raises: JournalDamaged."""
        return _read(self._file("owned", check_id(guest_id, "guest")), parse_owned_guest)

    def own(self, guest: OwnedGuest) -> None:
        """Take over a guest's start."""
        _write(self._file("owned", check_id(guest.guest_id, "guest")), format_owned_guest(guest))

    def disown(self, guest_id: str) -> None:
        """Give a guest's start back. Idempotent."""
        _remove(self._file("owned", check_id(guest_id, "guest")))

    def moves(self) -> tuple[GuestMove, ...]:
        """Return the moves that this host takes part in."""
        return self._read_all("moves", parse_guest_move)

    def move(self, guest_id: str, side: Side) -> GuestMove | None:
        """Return this host's part in a guest's move. Raises: JournalDamaged."""
        key = f"{check_id(guest_id, 'guest')}+{side}"
        return _read(self._file("moves", key), parse_guest_move)

    def write_move(self, move: GuestMove) -> None:
        """Put a note of a move on the disk, in place of what its key had."""
        _write(self._file("moves", move.key), format_guest_move(move))

    def remove_move(self, move: GuestMove) -> None:
        """Forget a move. Idempotent."""
        _remove(self._file("moves", move.key))

    def damages(self) -> tuple[JournalDamaged, ...]:
        """List what is wrong with each file that can't be read."""
        found: list[JournalDamaged] = []
        kinds: tuple[tuple[str, Callable[[str], object]], ...] = (
            ("attachments", parse_guest_attachment),
            ("owned", parse_owned_guest),
            ("moves", parse_guest_move),
        )
        for kind, parse in kinds:
            for file in self._list(kind):
                try:
                    _read(file, parse)
                except JournalDamaged as error:
                    found.append(error)
        return tuple(found)

    def _read_all(self, kind: str, parse: Callable[[str], T]) -> tuple[T, ...]:
        entries = []
        for file in self._list(kind):
            with contextlib.suppress(JournalDamaged):
                entry = _read(file, parse)
                if entry is not None:  # another process removed it meanwhile
                    entries.append(entry)
        return tuple(entries)

    def _list(self, kind: str) -> tuple[Path, ...]:
        folder = self.folder / kind
        with _telling("read", folder):
            return list_files(folder, _SUFFIX)

    def _file(self, kind: str, key: str) -> Path:
        return self.folder / kind / f"{key}{_SUFFIX}"


def _read(file: Path, parse: Callable[[str], T]) -> T | None:
    try:
        with _telling("read", file, PermissionError):
            return parse(file.read_text(encoding="utf-8"))
    except FileNotFoundError:
        return None
    except OSError as error:
        raise JournalDamaged(str(file), error.strerror or str(error)) from error
    except UnicodeDecodeError as error:
        raise JournalDamaged(str(file), "it is not text") from error
    except InvalidInput as error:
        raise JournalDamaged(str(file), str(error).removesuffix(".")) from error


def _write(file: Path, text: str) -> None:
    with _telling("written", file):
        write_durably(file, text)


def _remove(file: Path) -> None:
    with _telling("removed", file):
        remove_durably(file)


@contextlib.contextmanager
def _telling(verb: str, what: Path, kind: type[OSError] = OSError) -> Iterator[None]:
    try:
        yield
    except kind as error:
        detail = error.strerror or str(error)
        how = "make room, or run it as root"
        raise HostLacks(f"The journal's {what} cannot be {verb}", detail, how) from error
