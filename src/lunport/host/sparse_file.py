"""Sparse files: make, share, copy and publish them. No policy about names or space.

Reflinks by the ``FICLONE`` ioctl (ioctl_ficlone(2)); data is found by ``SEEK_DATA`` and
``SEEK_HOLE`` (lseek(2)) and moved by copy_file_range(2), so holes stay holes and memory is
bounded. A file appears under its name whole or not at all: it is written under another name
and linked, which never replaces anything.
"""

from __future__ import annotations

import contextlib
import errno
import fcntl
import os
from collections.abc import Callable, Iterator
from pathlib import Path

CHUNK_BYTES = 16 << 20
_BUFFER_BYTES = 1 << 20
_FICLONE = 0x40049409
_NO_REFLINK = frozenset(
    {errno.EOPNOTSUPP, errno.ENOTTY, errno.EXDEV, errno.EINVAL, errno.ENOSYS, errno.EPERM}
)
_NO_RANGE_COPY = frozenset(
    {errno.ENOSYS, errno.EXDEV, errno.EINVAL, errno.EOPNOTSUPP, errno.EPERM, errno.EBADF}
)


class CopyStopped(Exception):
    """The copy was asked to stop; ``drivers/file.py`` turns it into an error of the tree."""


@contextlib.contextmanager
def new_file(path: Path) -> Iterator[int]:
    """Give a descriptor of a new file of mode 0600, which goes away again on any error."""
    descriptor = os.open(path, os.O_RDWR | os.O_CREAT | os.O_EXCL | os.O_CLOEXEC, 0o600)
    try:
        yield descriptor
    except BaseException:
        path.unlink(missing_ok=True)
        raise
    finally:
        os.close(descriptor)


@contextlib.contextmanager
def open_to_read(path: Path) -> Iterator[int]:
    """Give a descriptor of an existing regular file; a symbolic link is not followed."""
    descriptor = os.open(path, os.O_RDONLY | os.O_NOFOLLOW | os.O_CLOEXEC)
    try:
        yield descriptor
    finally:
        os.close(descriptor)


def reflink(source: int, target: int) -> bool:
    """Let the target share the source's blocks; False when the file system cannot."""
    try:
        fcntl.ioctl(target, _FICLONE, source)
    except OSError as error:
        if error.errno in _NO_REFLINK:
            return False
        raise
    return True


def copy_data(source: int, target: int, stop: Callable[[], bool]) -> int:
    """Copy what is not a hole, and return how many bytes that were.

    ``stop`` is asked before every chunk. Raises: CopyStopped, OSError.
    """
    size = os.fstat(source).st_size
    copied = 0
    for start, end in _data_ranges(source, size):
        offset = start
        while offset < end:
            if stop():
                raise CopyStopped
            count = _copy_chunk(source, target, offset, min(CHUNK_BYTES, end - offset))
            if count == 0:
                break  # The source has become shorter; what is behind it are zeros.
            offset += count
            copied += count
    return copied


def publish(partial: Path, final: Path) -> None:
    """Give a finished file its name, durably. Raises: FileExistsError (nothing is replaced)."""
    os.link(partial, final, follow_symlinks=False)
    partial.unlink()
    sync_folder(final.parent)


def sync_folder(folder: Path) -> None:
    """Make a folder's names durable."""
    descriptor = os.open(folder, os.O_RDONLY | os.O_DIRECTORY | os.O_CLOEXEC)
    try:
        os.fsync(descriptor)
    finally:
        os.close(descriptor)


def _data_ranges(descriptor: int, size: int) -> Iterator[tuple[int, int]]:
    offset = 0
    while offset < size:
        try:
            start = os.lseek(descriptor, offset, os.SEEK_DATA)
        except OSError as error:
            if error.errno == errno.ENXIO:
                return
            raise
        offset = os.lseek(descriptor, start, os.SEEK_HOLE)
        yield start, min(offset, size)


def _copy_chunk(source: int, target: int, offset: int, count: int) -> int:
    try:
        return os.copy_file_range(source, target, count, offset, offset)
    except OSError as error:
        if error.errno not in _NO_RANGE_COPY:
            raise
    block = os.pread(source, min(count, _BUFFER_BYTES), offset)
    written = 0
    while written < len(block):
        written += os.pwrite(target, block[written:], offset + written)
    return written
