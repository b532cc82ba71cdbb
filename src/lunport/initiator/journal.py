"""The journal: what this host has connected, and what it is about to do, on disk beforehand.

    /var/lib/lunport/host/connections/naa.6001405....json     one volume each
    /var/lib/lunport/host/sessions/session-5e0d....json       one login of ours each
    /var/lib/lunport/host/credentials/naa.6001405....json     for logins to come, root's alone

Each write is on the disk before it returns, and whole or not there; so after ``kill -9`` or a
power failure ``recover`` finds the intent of every step that may have begun. A file that
can't be read blocks nobody but those who ask for just it. Decides nothing; what to do about
an entry is ``core/recovery_plan.py``'s. Nothing excludes two writers of one entry: the unit's
and the session's locks do.
"""

from __future__ import annotations

from collections.abc import Callable
from contextlib import suppress
from pathlib import Path
from typing import TypeVar

from lunport.core.chap import Chap, format_chap, parse_chap
from lunport.core.errors import HostLacks, InvalidInput, JournalDamaged
from lunport.core.host_connection import (
    HostConnection,
    OwnedSession,
    format_host_connection,
    format_owned_session,
    is_key,
    parse_host_connection,
    parse_owned_session,
    session_key,
)
from lunport.core.iqn import Iqn
from lunport.core.portal import Portal
from lunport.host.durable_file import list_files, remove_durably, write_durably
from lunport.host.host_root import state_directory

T = TypeVar("T")

_SUFFIX = ".json"


class Journal:
    """The journal in one folder; safe to share between threads and processes.

    Every method raises HostLacks where the disk or its permissions forbid it.
    """

    def __init__(self, folder: Path | None = None) -> None:
        self.folder = state_directory() if folder is None else folder
        self._connections = self.folder / "connections"
        self._sessions = self.folder / "sessions"
        self._credentials = self.folder / "credentials"

    def connections(self) -> tuple[HostConnection, ...]:
        """Return all connections that can be read, by key; sweep what killed writers left."""
        return self._read_all(self._connections, _read_connection)

    def get(self, key: str) -> HostConnection | None:
        """Return a volume's connection, if there is one. Raises: JournalDamaged."""
        return _read_connection(self._connection_file(key))

    def write(self, connection: HostConnection) -> None:
        """Put a connection on the disk, in place of what its key had; or leave that."""
        file = self._connection_file(connection.key)
        _require_known(file, _read_connection)
        _write(file, format_host_connection(connection))

    def remove(self, key: str) -> None:
        """Forget a connection, whatever its file holds, and its credentials. Idempotent."""
        _remove(self._credentials_file(key))
        _remove(self._connection_file(key))

    def sweep(self) -> None:
        """Take away what killed writers left beside the credentials. Raises: HostLacks."""
        _list(self._credentials)

    def write_chap(self, key: str, chap: Chap | None) -> None:
        """Keep the credentials with which further paths of a connection are logged in to."""
        file = self._credentials_file(key)
        if chap is None:
            _remove(file)
        else:
            _write(file, format_chap(chap))

    def chap(self, key: str) -> Chap | None:
        """Return a connection's credentials, if it has any. Raises: JournalDamaged."""
        return _read(self._credentials_file(key), parse_chap, None)

    def sessions(self) -> tuple[OwnedSession, ...]:
        """Return all sessions of ours that can be read; sweep what killed writers left."""
        return self._read_all(self._sessions, _read_session)

    def get_session(self, portal: Portal, iqn: Iqn) -> OwnedSession | None:
        """Return our session to a target, if there is one. Raises: JournalDamaged."""
        return _read_session(self._session_file(portal, iqn))

    def write_session(self, session: OwnedSession) -> None:
        """Put a session of ours on the disk, in place of what there was; or leave that."""
        file = self._session_file(session.portal, session.iqn)
        _require_known(file, _read_session)
        _write(file, format_owned_session(session))

    def remove_session(self, portal: Portal, iqn: Iqn) -> None:
        """Forget a session of ours, whatever its file holds. Idempotent."""
        _remove(self._session_file(portal, iqn))

    def damaged(self) -> tuple[Path, ...]:
        """List the files that can't be read, or that a newer release wrote."""
        return tuple(map(Path, (error.file for error in self.damages())))

    def damages(self) -> tuple[JournalDamaged, ...]:
        """List what is wrong with each file that :meth:`damaged` names."""
        found = []
        for folder, read in (
            (self._connections, _read_connection),
            (self._sessions, _read_session),
        ):
            for file in _list(folder):
                try:
                    read(file)
                except JournalDamaged as error:
                    found.append(error)
        return tuple(found)

    def _read_all(self, folder: Path, read: Callable[[Path], T | None]) -> tuple[T, ...]:
        entries = []
        for file in _list(folder):
            with suppress(JournalDamaged):
                entry = read(file)
                # None: another process removed it meanwhile.
                if entry is not None:
                    entries.append(entry)
        return tuple(entries)

    def _connection_file(self, key: str) -> Path:
        if not is_key(key):
            raise InvalidInput("key", key, "expected the key of a connection")
        return self._connections / f"{key}{_SUFFIX}"

    def _credentials_file(self, key: str) -> Path:
        return self._credentials / self._connection_file(key).name

    def _session_file(self, portal: Portal, iqn: Iqn) -> Path:
        return self._sessions / f"{session_key(portal, iqn)}{_SUFFIX}"


def _read_connection(file: Path) -> HostConnection | None:
    return _read(file, parse_host_connection, lambda connection: connection.key)


def _read_session(file: Path) -> OwnedSession | None:
    return _read(
        file, parse_owned_session, lambda session: session_key(session.portal, session.iqn)
    )


def _read(file: Path, parse: Callable[[str], T], key: Callable[[T], str] | None) -> T | None:
    try:
        entry = parse(file.read_text(encoding="utf-8"))
    except FileNotFoundError:
        return None
    except (PermissionError, NotADirectoryError) as error:
        raise _lacks(file, "read", error) from error
    except OSError as error:
        raise JournalDamaged(str(file), error.strerror or str(error)) from error
    except UnicodeDecodeError as error:
        raise JournalDamaged(str(file), "it is not text") from error
    except InvalidInput as error:
        raise JournalDamaged(str(file), str(error).removesuffix(".")) from error
    if key is not None and f"{key(entry)}{_SUFFIX}" != file.name:
        raise JournalDamaged(str(file), f"it holds {key(entry)}")
    return entry


def _require_known(file: Path, read: Callable[[Path], object]) -> None:
    """Keep a file that can't be read from being overwritten. Raises: JournalDamaged."""
    read(file)


def _list(folder: Path) -> tuple[Path, ...]:
    try:
        return list_files(folder, _SUFFIX)
    except OSError as error:
        raise _lacks(folder, "read", error) from error


def _write(file: Path, text: str) -> None:
    try:
        write_durably(file, text)
    except OSError as error:
        raise _lacks(file, "written", error) from error


def _remove(file: Path) -> None:
    try:
        remove_durably(file)
    except OSError as error:
        raise _lacks(file, "removed", error) from error


def _lacks(file: Path, verb: str, error: OSError) -> HostLacks:
    return HostLacks(
        f"The journal's {file} cannot be {verb}",
        error.strerror or str(error),
        "make room, or run it as root",
    )
