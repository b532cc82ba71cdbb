"""The files of open-iscsi's node database on this host: read, write and take away one record.

    NODES/IQN/ADDRESS,PORT,TPGT/IFACE      0600 in folders of 0700
    NODES/IQN/ADDRESS,PORT                 the form for an unknown portal group

``NODES`` is compiled into iscsiadm: ``/etc/iscsi/nodes`` in Debian 12, ``/var/lib/iscsi/nodes``
in Debian 13, Fedora and others; it is read from the program itself, since either folder may
exist on any host. Decides nothing about what is in a record; never logs in or out, never asks
iscsid. Nothing is left where the last record of a target was taken away, but for ``NODES``.

Quirk(open-iscsi): the database's lock (``lock.write``, made by link(2)) names no holder. A
process that is killed while it holds it leaves it behind: up to 2.1.9 every iscsiadm then
waits 30 s and goes on (``idbm_lock``), from 2.1.10 on every iscsiadm fails until a reboot.
So we do not take it: it guards changes inside one record, and ours appear and go in one step
(rename(2), unlink(2)). See :func:`remove_stale_lock` for what others left.
Quirk(open-iscsi): every login reads all records of all targets, and lists folders without the
lock; a record that goes away meanwhile makes it end with status 6 although it logged in
(``idbm_for_each_portal``, 2.1.8 to 2.1.11; os-brick retries as well). ``host/iscsiadm.py``
asks again then.
Quirk(open-iscsi): iscsiadm does not compare the portal group: two records that differ in
nothing else are both logged in to, in the folder's order. :meth:`NodeRecords.rivals` finds them.
"""

from __future__ import annotations

import contextlib
import errno
import functools
import hashlib
import os
import re
import time
from collections.abc import Iterator
from pathlib import Path

from lunport.core.change import Change
from lunport.core.errors import HostLacks, TransportMissing
from lunport.core.iqn import Iqn
from lunport.core.node_record import parse_record_place, parse_settings
from lunport.core.secret import Secret
from lunport.host.runner import find_program

CONFIGURATION = Path("/etc/iscsi/iscsid.conf")
LOCK = Path("/run/lock/iscsi/lock.write")

_BUILT_IN_IFACES = frozenset({"default", "iser"})
_COMPILED_IN = re.compile(rb"(?<![\w./-])(/[\w./-]+/nodes)\0")
_OLD_FOLDER = Path("/etc/iscsi/nodes")
_FOLDER_GOES_AWAY = 20  # how often another's delete may take a folder while we write into it
_STALE_AFTER_S = 3.0  # open-iscsi holds its lock for milliseconds


class NodeRecords:
    """One database of node records. Places are relative to ``folder``."""

    def __init__(self, folder: Path | None = None) -> None:
        self.folder = find_records_folder() if folder is None else folder

    def read(self, place: str) -> Secret | None:
        """Return a record's text, None when there is none. Raises: HostLacks."""
        with _telling("read", self.folder / place):
            try:
                data = (self.folder / place).read_bytes()
            except (FileNotFoundError, NotADirectoryError, IsADirectoryError):
                return None
        return Secret(data.decode(errors="surrogateescape"))

    def settings(self, place: str) -> dict[str, str]:
        """Read what a record says, as open-iscsi does; nothing without one. Raises: HostLacks.

        There may be secrets among it.
        """
        return _read_settings(self.folder / place) or {}

    def write(self, place: str, text: Secret, *, durable: bool = False) -> None:
        """Put a record there, in place of the one there was, in one step.

        On failure the old one is still there. ``durable``: flushed to the disk, for a record
        that is to outlive a power cut, as its session does not. Raises: HostLacks.
        """
        file = self.folder / place
        with _telling("write", file):
            self.folder.mkdir(mode=0o700, parents=True, exist_ok=True)
            draft = self.draft_of(place)
            with contextlib.suppress(FileNotFoundError):
                draft.unlink()
            descriptor = os.open(draft, os.O_WRONLY | os.O_CREAT | os.O_EXCL | os.O_CLOEXEC, 0o600)
            try:
                with os.fdopen(descriptor, "wb") as stream:
                    stream.write(text.reveal().encode(errors="surrogateescape"))
                    if durable:
                        stream.flush()
                        os.fsync(descriptor)
                self._rename_into(draft, file)
            except BaseException:
                draft.unlink(missing_ok=True)
                self._drop_folders(place)
                raise

    def delete(self, place: str) -> Change:
        """Take a record away, with what a killed write left and folders that are empty now.

        Raises: HostLacks.
        """
        with _telling("delete", self.folder / place):
            self.draft_of(place).unlink(missing_ok=True)
            try:
                (self.folder / place).unlink()
                change = Change.CHANGED
            except (FileNotFoundError, NotADirectoryError):
                change = Change.UNCHANGED
            self._drop_folders(place)
        return change

    def places(self, iqn: Iqn) -> tuple[str, ...]:
        """List the places of all records of a target, in whatever form. Raises: HostLacks."""
        found = []
        with _telling("list", self.folder / iqn):
            for name in _names(self.folder / iqn):
                place = f"{iqn}/{name}"
                inside = _names(self.folder / place)
                found += [f"{place}/{iface}" for iface in inside] or [place]
        return tuple(sorted(place for place in found if parse_record_place(place) is not None))

    def all_places(self) -> tuple[str, ...]:
        """List the places of all records of all targets. Raises: HostLacks."""
        with _telling("list", self.folder):
            names = _names(self.folder)
        return tuple(place for name in names for place in self.places(Iqn(name)))

    def rivals(self, place: str) -> tuple[str, ...]:
        """List the other records that iscsiadm would take together with this one.

        They have the same portal, and the same iface or none in their place.
        """
        key = parse_record_place(place)
        if key is None:
            return ()
        others = ((other, parse_record_place(other)) for other in self.places(key.iqn))
        return tuple(
            other
            for other, its in others
            if other != place
            and its is not None
            and its.portal == key.portal
            and (None in {its.iface, key.iface} or its.iface == key.iface)
        )

    def iface_settings(self, iface: str) -> dict[str, str]:
        """Read an iface's own record (``iface.*``); those built in may have none.

        Raises: TransportMissing, HostLacks.
        """
        file = self.folder.parent / "ifaces" / iface
        settings = _read_settings(file)
        if settings is None and iface not in _BUILT_IN_IFACES:
            raise TransportMissing(f"iface {iface}", f"open-iscsi has no {file}")
        return settings or {}

    def draft_of(self, place: str) -> Path:
        """Say where a record is written before it takes its place.

        Beside the folder of records: in it, open-iscsi would take it for one.
        """
        digest = hashlib.sha256(place.encode(errors="surrogateescape")).hexdigest()[:16]
        return self.folder.parent / f".lunport-record-{digest}"

    def _rename_into(self, draft: Path, file: Path) -> None:
        for _ in range(_FOLDER_GOES_AWAY):
            for folder in reversed(self._folders_of(file)):
                with contextlib.suppress(FileExistsError, FileNotFoundError):
                    folder.mkdir(mode=0o700)
            try:
                draft.rename(file)
            except FileNotFoundError:
                continue  # a delete beside us found the folder empty
            return
        raise FileNotFoundError(errno.ENOENT, "its folder is taken away again and again")

    def _drop_folders(self, place: str) -> None:
        for folder in self._folders_of(self.folder / place):
            try:
                folder.rmdir()
            except FileNotFoundError:
                continue
            except OSError as error:
                if error.errno in {errno.ENOTEMPTY, errno.ENOTDIR}:
                    return
                raise

    def _folders_of(self, file: Path) -> list[Path]:
        return [folder for folder in file.parents if self.folder in folder.parents]


def find_records_folder() -> Path:
    """Find where this host's iscsiadm has its node records; asked of the program itself."""
    program = find_program("iscsiadm")
    compiled_in = None
    if program is not None:
        with contextlib.suppress(OSError):
            status = program.stat()
            compiled_in = _compiled_in(program, status.st_ino, status.st_mtime_ns)
    return compiled_in or _OLD_FOLDER


def read_configuration(file: Path = CONFIGURATION) -> dict[str, str]:
    """Read the settings of iscsid.conf(5); none where there is no such file. Raises: HostLacks."""
    with _telling("read", file):
        try:
            status = file.stat()
        except FileNotFoundError:
            return {}
    return dict(_configured(file, status.st_ino, status.st_mtime_ns, status.st_size))


def remove_stale_lock(
    lock: Path = LOCK, proc: Path = Path("/proc"), *, now: float | None = None
) -> Change:
    """Remove the database's lock if whoever took it is gone.

    Stale is: for some seconds nobody took or gave it, and no iscsiadm that runs is as old as
    that. Between the look and the removal another iscsiadm could have given up waiting and
    taken it; then two of them read the database at a time, once.
    """
    try:
        taken_at = lock.stat().st_ctime  # link(2) and unlink(2) set it
    except OSError:
        return Change.UNCHANGED
    age_s = (time.time() if now is None else now) - taken_at
    if age_s <= _STALE_AFTER_S or _is_any_as_old(taken_at, proc):
        return Change.UNCHANGED
    with contextlib.suppress(OSError):
        lock.unlink()
        return Change.CHANGED
    return Change.UNCHANGED


def _is_any_as_old(moment: float, proc: Path) -> bool:
    # A folder of /proc is as old as its process or younger: when in doubt, somebody is.
    for name in _names(proc):
        if not name.isdigit():
            continue
        with contextlib.suppress(OSError):
            if (proc / name / "comm").read_text(errors="replace").strip() == "iscsiadm":
                started = _started_at(proc, name)
                if started is None or started <= moment + 1:
                    return True
    return False


def _started_at(proc: Path, pid: str) -> float | None:
    # Field 22 of stat, in ticks since boot; the name before it may hold anything.
    stat = (proc / pid / "stat").read_text(errors="replace").rpartition(")")[2].split()
    boot = re.search(r"^btime (\d+)$", (proc / "stat").read_text(), re.MULTILINE)
    if len(stat) < 20 or boot is None:
        return None
    return int(boot[1]) + int(stat[19]) / os.sysconf("SC_CLK_TCK")


@functools.lru_cache(maxsize=4)
def _compiled_in(program: Path, inode: int, mtime_ns: int) -> Path | None:
    found = {Path(os.fsdecode(match)) for match in _COMPILED_IN.findall(program.read_bytes())}
    return found.pop() if len(found) == 1 else None


@functools.lru_cache(maxsize=4)
def _configured(file: Path, inode: int, mtime_ns: int, size: int) -> dict[str, str]:
    return _read_settings(file) or {}


def _read_settings(file: Path) -> dict[str, str] | None:
    with _telling("read", file):
        try:
            return parse_settings(file.read_bytes().decode(errors="surrogateescape"))
        except FileNotFoundError:
            return None


def _names(folder: Path) -> list[str]:
    try:
        return sorted(entry.name for entry in folder.iterdir())
    except (FileNotFoundError, NotADirectoryError):
        return []


@contextlib.contextmanager
def _telling(verb: str, file: Path) -> Iterator[None]:
    try:
        yield
    except OSError as error:
        raise HostLacks(
            f"open-iscsi's database: could not {verb} {file}",
            error.strerror or type(error).__name__,
            "run as root, on a file system that can be written"
            if error.errno in {errno.EACCES, errno.EPERM, errno.EROFS}
            else "see that the file system is whole and has room",
        ) from error
