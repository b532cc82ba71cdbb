"""The files of open-iscsi's iface records on this host: list, read, make and take away.

    IFACES/cxgb4i.00:07:43:2a:11:80       0600, beside the folder of node records

Only a record that begins with a heading of ours is ever changed or taken away; open-iscsi drops
the heading when somebody updates it, and it is theirs from then on. ``iscsiadm -m iface`` makes
the records of the adapters whose driver is loaded: :func:`generate` has it do so.
"""

from __future__ import annotations

import contextlib
import os
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path

from lunport.core.change import Change
from lunport.core.errors import AlreadyExists, HostLacks, InvalidInput
from lunport.core.iface import (
    BUILT_IN,
    MADE_ON_THE_FLY,
    Iface,
    format_iface_record,
    heading_of,
    parse_iface_listing,
    parse_iface_record,
)
from lunport.core.node_record import check_iface_name
from lunport.host.clock import Deadline
from lunport.host.node_records import find_records_folder
from lunport.host.runner import run


@dataclass(frozen=True, slots=True)
class IfaceRecord:
    """One record: what it says, or why it can't be used, and whose it is.

    ``heading``: which of ours it begins with; None for a record of others.
    """

    name: str
    iface: Iface | None
    heading: str | None = None
    damage: str | None = None

    @property
    def is_ours(self) -> bool:
        """Tell whether it is as we wrote it."""
        return self.heading is not None


class IfaceRecords:
    """One folder of iface records."""

    def __init__(self, folder: Path | None = None) -> None:
        self.folder = find_records_folder().parent / "ifaces" if folder is None else folder

    def all(self) -> tuple[IfaceRecord, ...]:
        """Return all records, by name, the built-in ones first. Raises: HostLacks."""
        try:
            names = sorted(one.name for one in self.folder.iterdir() if one.is_file())
        except (FileNotFoundError, NotADirectoryError):
            names = []
        except OSError as error:
            raise _lacks("read", self.folder, error) from error
        found = (self.get(name) for name in names if not name.startswith("."))
        return (
            *map(_built_in, BUILT_IN),
            *(one for one in found if one and one.name not in BUILT_IN),
        )

    def get(self, name: str) -> IfaceRecord | None:
        """Return a record; None without one. Raises: HostLacks, InvalidInput."""
        check_iface_name(name)
        try:
            text = (self.folder / name).read_bytes().decode(errors="surrogateescape")
        except (FileNotFoundError, NotADirectoryError):
            return _built_in(name) if name in BUILT_IN else None
        except OSError as error:
            raise _lacks("read", self.folder / name, error) from error
        try:
            return IfaceRecord(name, parse_iface_record(name, text), heading_of(text))
        except InvalidInput as error:
            return IfaceRecord(name, None, heading_of(text), str(error))

    def make(self, iface: Iface, *, heading: str = MADE_ON_THE_FLY) -> Change:
        """Make a record; one that is there and says the same is left as it is.

        Raises: AlreadyExists (another one of that name), HostLacks, InvalidInput.
        """
        text = format_iface_record(iface, heading=heading)
        known = self.get(iface.name)
        if known is not None:
            return _same_or_refuse(known, iface)
        draft = self.folder / f".lunport-{os.getpid()}-{iface.name}"
        try:
            self.folder.mkdir(mode=0o700, parents=True, exist_ok=True)
            descriptor = os.open(draft, os.O_WRONLY | os.O_CREAT | os.O_TRUNC | os.O_CLOEXEC, 0o600)
            with os.fdopen(descriptor, "w") as stream:
                stream.write(text)
            try:
                # link(2), unlike rename(2), takes nobody's place.
                (self.folder / iface.name).hardlink_to(draft)
            except FileExistsError:
                known = self.get(iface.name)
                return Change.UNCHANGED if known is None else _same_or_refuse(known, iface)
            finally:
                draft.unlink(missing_ok=True)
        except OSError as error:
            raise _lacks("write", self.folder / iface.name, error) from error
        return Change.CHANGED

    def remove(self, name: str, *, if_made: str | None = None) -> Change:
        """Take a record of ours away; nobody else's, and none that is not there.

        ``if_made``: only one with this heading. Whether it is in use is the caller's question.
        """
        known = self.get(name)
        if known is None or known.heading is None or if_made not in (None, known.heading):
            return Change.UNCHANGED
        try:
            (self.folder / name).unlink()
        except FileNotFoundError:
            return Change.UNCHANGED
        except OSError as error:
            raise _lacks("delete", self.folder / name, error) from error
        return Change.CHANGED


def generate(deadline: Deadline, *, run_program: Callable[..., object] = run) -> tuple[Iface, ...]:
    """Have iscsiadm make the records of all adapters whose driver is loaded, and list them all.

    Raises: CommandMissing, CommandError, CommandTimedOut.
    """
    done = run_program(["iscsiadm", "--mode", "iface"], deadline, package="open-iscsi")
    with contextlib.suppress(InvalidInput):
        return parse_iface_listing(str(getattr(done, "stdout", "")))
    return ()


def _built_in(name: str) -> IfaceRecord:
    return IfaceRecord(name, BUILT_IN[name])


def _same_or_refuse(known: IfaceRecord, iface: Iface) -> Change:
    if known.iface == iface:
        return Change.UNCHANGED
    raise AlreadyExists("iface", iface.name)


def _lacks(verb: str, file: Path, error: OSError) -> HostLacks:
    return HostLacks(
        f"open-iscsi's iface records: could not {verb} {file}",
        error.strerror or type(error).__name__,
        "run as root, on a file system that can be written",
    )
