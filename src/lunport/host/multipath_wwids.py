"""The list of identities that multipath takes for its own: /etc/multipath/wwids.

    # Multipath wwids, Version : 1.0
    ...
    # Valid WWIDs:
    /36001405.../

Written as libmultipath does (libmultipath/wwids.c, file.c; 0.9.4), under the same lock
(fcntl(2), F_SETLKW on the whole file), so that multipathd and multipath(8) may write at any
moment. An identity is struck out by one byte, "#" for its first "/"; what is struck out at the
end of the file is cut off, and elsewhere is used again, so the file doesn't grow with each
volume that comes and goes. Never touches another's line, never replaces the file.
"""

from __future__ import annotations

import contextlib
import errno
import fcntl
import os
import threading
from collections.abc import Iterator
from pathlib import Path

from lunport.core.change import Change
from lunport.core.errors import HostLacks, Unavailable
from lunport.core.wwid import Wwid, format_multipath_wwid
from lunport.host.clock import Deadline

WWIDS_FILE = Path("/etc/multipath/wwids")
HEADER = (
    b"# Multipath wwids, Version : 1.0\n"
    b"# NOTE: This file is automatically maintained by multipath and multipathd.\n"
    b"# You should not need to edit this file in normal circumstances.\n"
    b"#\n"
    b"# Valid WWIDs:\n"
)

_LOCKED_S = 30.0  # as long as libmultipath itself waits (FILE_TIMEOUT)
_PAUSE_S = 0.01
_LISTED = b"/"
_STRUCK_OUT = b"#"
_HELD = frozenset({errno.EAGAIN, errno.EACCES})

# Such a lock belongs to a process, and is lost when it closes any descriptor of the file.
_one_at_a_time = threading.Lock()
_pause = threading.Event()


def register(wwid: Wwid, deadline: Deadline | None = None, *, file: Path = WWIDS_FILE) -> Change:
    """Let multipath take disks of this identity, whatever ``find_multipaths`` says.

    Idempotent; makes the file. Raises: HostLacks, Unavailable (its lock is not free in time).
    """
    with _opened(file, deadline, os.O_CREAT) as descriptor:
        content = _read(descriptor)
        if not content:
            content = HEADER
            _write(descriptor, content, 0)
        if _find(content, _listed(wwid)) is not None:
            return Change.UNCHANGED
        struck_out = _find(content, _struck_out(wwid))
        if struck_out is not None:
            _write(descriptor, _LISTED, struck_out)
        else:
            break_before = b"" if content.endswith(b"\n") else b"\n"
            _write(descriptor, break_before + _listed(wwid) + b"\n", len(content))
    return Change.CHANGED


def unregister(wwid: Wwid, deadline: Deadline | None = None, *, file: Path = WWIDS_FILE) -> Change:
    """Strike an identity out; UNCHANGED when it isn't there. Raises: as ``register``."""
    if not file.exists():
        return Change.UNCHANGED
    with _opened(file, deadline) as descriptor:
        content = _read(descriptor)
        at = _find(content, _listed(wwid))
        if at is None:
            return Change.UNCHANGED
        if content[at:].rstrip(b"\n") == _listed(wwid):
            os.ftruncate(descriptor, at)
        else:
            _write(descriptor, _STRUCK_OUT, at)
    return Change.CHANGED


def is_registered(wwid: Wwid, deadline: Deadline | None = None, *, file: Path = WWIDS_FILE) -> bool:
    """Tell whether an identity is in the list. Raises: as ``register``."""
    if not file.exists():
        return False
    with _opened(file, deadline) as descriptor:
        return _find(_read(descriptor), _listed(wwid)) is not None


def _listed(wwid: Wwid) -> bytes:
    return _LISTED + f"{format_multipath_wwid(wwid)}/".encode()


def _struck_out(wwid: Wwid) -> bytes:
    return _STRUCK_OUT + _listed(wwid)[1:]


def _find(content: bytes, wanted: bytes) -> int | None:
    at = 0
    for line in content.splitlines(keepends=True):
        if line.rstrip(b"\n") == wanted:
            return at
        at += len(line)
    return None


@contextlib.contextmanager
def _opened(file: Path, deadline: Deadline | None, flags: int = 0) -> Iterator[int]:
    limit = deadline or Deadline.after(_LOCKED_S)
    if not _one_at_a_time.acquire(timeout=limit.remaining_s()):
        raise Unavailable(f"{file} is locked by this process")
    try:
        if flags & os.O_CREAT:
            file.parent.mkdir(mode=0o700, parents=True, exist_ok=True)
        descriptor = os.open(file, os.O_RDWR | os.O_CLOEXEC | flags, 0o600)
        try:
            _lock(descriptor, file, limit)
            yield descriptor
        finally:
            os.close(descriptor)
    except OSError as error:
        detail = error.strerror or str(error)
        raise HostLacks(f"Cannot change {file}", detail, "it needs root") from error
    finally:
        _one_at_a_time.release()


def _lock(descriptor: int, file: Path, deadline: Deadline) -> None:
    is_held = True
    while is_held:
        has_time = not deadline.has_passed()
        try:
            fcntl.lockf(descriptor, fcntl.LOCK_EX | fcntl.LOCK_NB)
            is_held = False
        except OSError as error:
            if error.errno not in _HELD:
                raise
            if not has_time:
                raise Unavailable(f"{file} is locked by another process") from error
            _pause.wait(_PAUSE_S)


def _read(descriptor: int) -> bytes:
    return os.pread(descriptor, os.fstat(descriptor).st_size, 0)


def _write(descriptor: int, content: bytes, at: int) -> None:
    """Write all of it, or nothing: what is half written at the file's end is cut off again."""
    size = os.fstat(descriptor).st_size
    try:
        written = os.pwrite(descriptor, content, at)
        if written != len(content):
            raise OSError(errno.ENOSPC, os.strerror(errno.ENOSPC))
    except OSError:
        if at >= size:
            os.ftruncate(descriptor, at)
        raise
