"""Bring everything written to a disk onto the storage (fsync(2) of the block device), and read.

fsync writes the dirty pages and then sends SYNCHRONIZE CACHE if the unit has a write cache
(block/fops.c, blkdev_fsync). sync_file_range(2) does the first alone, and says if it failed,
which ``blockdev --flushbufs`` (BLKFLSBUF) does not.
Opens the disk for reading: only for one whose identity was verified.

While nobody has a disk open there are no dirty pages: the last close has written them back
(block/bdev.c, blkdev_flush_mapping). Then a flush is about the storage's cache alone.

Quirk(kernel): a flush through a dead portal can't be ended by KILL, whether a thread makes it
or a child does (``blockdev --flushbufs`` stays in state D), and a process with such a thread
can't end. It ends when the session is seen to be dead and the unit is then deleted (EIO at
once), or when the session is logged out or given up. So a thread, which costs no program; the
disk that it has open until then is in nobody's use, and :func:`is_flushing` tells.

Quirk(kernel): a disk whose session was given up ("transport-offline") can't be opened (ENXIO,
drivers/scsi/sd.c, sd_open). It holds nothing back either: every write to it fails at once.
"""

from __future__ import annotations

import contextlib
import ctypes
import errno
import mmap
import os
from collections.abc import Iterator
from typing import Protocol

from lunport.core.errors import FlushFailed
from lunport.host.blocking import call_within
from lunport.host.clock import Deadline

# SYNC_FILE_RANGE_WAIT_BEFORE, _WRITE and _WAIT_AFTER, <linux/fs.h>
_WRITE_AND_WAIT = 1 | 2 | 4

_flushing: set[int] = set()  # descriptors; each is added and taken out in one step


class BlockDevice(Protocol):
    """A disk, or a map over several."""

    @property
    def path(self) -> str:
        """The device node."""


def flush_disk(disk: BlockDevice, deadline: Deadline) -> None:
    """Write everything back. Raises: FlushFailed, DeviceStuck."""
    try:
        call_within(lambda: _flush(disk.path), deadline, "the flush", device=disk.path)
    except OSError as error:
        raise FlushFailed(disk.path, error.strerror or str(error)) from error


def write_back(disk: BlockDevice, deadline: Deadline) -> None:
    """Write dirty pages back and send nothing else: without any, it asks nobody anything.

    For a disk whose portal is silent, or which the kernel has given up, so that nothing is left
    that could be written. Raises: FlushFailed (there are some), DeviceStuck.
    """
    try:
        call_within(lambda: _write_back(disk.path), deadline, "the flush", device=disk.path)
    except OSError as error:
        if error.errno == errno.ENXIO:
            return
        raise FlushFailed(disk.path, error.strerror or str(error)) from error


def read_beginning(disk: BlockDevice, deadline: Deadline) -> None:
    """Read the first bytes of a device past every cache. Raises: OSError, DeviceStuck."""
    call_within(lambda: _read(disk.path), deadline, "a read", device=disk.path)


def is_flushing(descriptor: int) -> bool:
    """Tell whether a descriptor of this process is a flush's or read's own, perhaps stuck."""
    return descriptor in _flushing


def _flush(path: str) -> None:
    with _opened(path) as descriptor:
        os.fsync(descriptor)


def _write_back(path: str) -> None:
    with _opened(path) as descriptor:
        _sync_file_range(descriptor)


def _read(path: str) -> None:
    # memory of a page's alignment, as direct I/O demands
    with _opened(path, os.O_DIRECT) as descriptor, mmap.mmap(-1, mmap.PAGESIZE) as page:
        os.preadv(descriptor, [page], 0)


@contextlib.contextmanager
def _opened(path: str, more: int = 0) -> Iterator[int]:
    descriptor = os.open(path, os.O_RDONLY | os.O_CLOEXEC | os.O_NONBLOCK | more)
    _flushing.add(descriptor)
    try:
        yield descriptor
    finally:
        _flushing.discard(descriptor)
        os.close(descriptor)


def _sync_file_range(descriptor: int) -> None:
    libc = ctypes.CDLL(None, use_errno=True)
    whole = (ctypes.c_int64(0), ctypes.c_int64(0))
    if libc.sync_file_range(descriptor, *whole, ctypes.c_uint(_WRITE_AND_WAIT)):
        number = ctypes.get_errno()
        raise OSError(number, os.strerror(number))
