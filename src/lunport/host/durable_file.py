"""Small files that are whole or not there, whenever the power goes.

    connections/naa.6001405....json
    connections/.naa.6001405....json.3f9c21d07be4.partial      while it is written

A file is written under a hidden name, held by flock(2) meanwhile, brought to the disk
(fsync(2)), renamed, and its folder brought to the disk. A hidden file whose lock is free is
what a killed process left. Mode 0600, folders 0700.
"""

from __future__ import annotations

import contextlib
import fcntl
import os
import secrets
from collections.abc import Iterator
from pathlib import Path

_SUFFIX = ".partial"
_ATTEMPTS = 8


def write_durably(path: Path, text: str) -> None:
    """Make or replace a file; on failure what was there before still is.

    Missing folders are made. Raises: OSError.
    """
    make_folder(path.parent)
    content = text.encode()
    for attempt in range(_ATTEMPTS):
        try:
            _write(path, content)
        except (FileNotFoundError, BlockingIOError):
            # Whoever sweeps took it for an abandoned one, between its making and its lock.
            if attempt == _ATTEMPTS - 1:
                raise
        else:
            break
    _sync_folder(path.parent)


def remove_durably(path: Path) -> bool:
    """Remove a file; tell whether it was there. Idempotent. Raises: OSError."""
    try:
        path.unlink()
    except FileNotFoundError:
        return False
    _sync_folder(path.parent)
    return True


def make_folder(folder: Path) -> None:
    """Make a private folder and, with the usual mode, what is missing above. Raises: OSError."""
    if folder.is_dir():
        return
    missing = [parent for parent in folder.parents if not parent.exists()]
    for parent in reversed(missing):
        parent.mkdir(exist_ok=True)
        _sync_folder(parent.parent)
    folder.mkdir(mode=0o700, exist_ok=True)
    _sync_folder(folder.parent)


def list_files(folder: Path, suffix: str) -> tuple[Path, ...]:
    """List a folder's files by name, sweeping what killed writers left in it.

    A folder that does not exist is empty. Raises: OSError.
    """
    try:
        names = sorted(file.name for file in folder.iterdir())
    except FileNotFoundError:
        return ()
    for name in names:
        if name.startswith(".") and name.endswith(_SUFFIX):
            _sweep(folder / name)
    return tuple(
        folder / name for name in names if name.endswith(suffix) and not name.startswith(".")
    )


def _write(path: Path, content: bytes) -> None:
    partial = path.with_name(f".{path.name}.{secrets.token_hex(6)}{_SUFFIX}")
    with _opened(partial, os.O_WRONLY | os.O_CREAT | os.O_EXCL) as descriptor:
        try:
            fcntl.flock(descriptor, fcntl.LOCK_EX | fcntl.LOCK_NB)
            _write_all(descriptor, content)
            os.fsync(descriptor)
            partial.rename(path)
        except BaseException:
            partial.unlink(missing_ok=True)
            raise


def _write_all(descriptor: int, content: bytes) -> None:
    rest = memoryview(content)
    while rest:
        rest = rest[os.write(descriptor, rest) :]


def _sweep(partial: Path) -> None:
    """Remove a file that nobody is writing. Its name is random, so it is never used again."""
    with contextlib.suppress(OSError), _opened(partial, os.O_RDONLY | os.O_NOFOLLOW) as descriptor:
        fcntl.flock(descriptor, fcntl.LOCK_EX | fcntl.LOCK_NB)
        partial.unlink()


def _sync_folder(folder: Path) -> None:
    with _opened(folder, os.O_RDONLY | os.O_DIRECTORY) as descriptor:
        os.fsync(descriptor)


@contextlib.contextmanager
def _opened(path: Path, flags: int) -> Iterator[int]:
    descriptor = os.open(path, flags | os.O_CLOEXEC, 0o600)
    try:
        yield descriptor
    finally:
        os.close(descriptor)
