"""Bring everything written to a disk onto the storage (fsync(2) of the block device).

fsync writes the dirty pages and then sends SYNCHRONIZE CACHE if the unit has a write cache
(block/fops.c, blkdev_fsync). ``blockdev --flushbufs`` (BLKFLSBUF) does the first alone.
Opens the disk for reading: only for one whose identity was verified.

While nobody has a disk open there are no dirty pages: the last close has written them back
(block/bdev.c, blkdev_flush_mapping). Then a flush is about the storage's cache alone.

Quirk(kernel): a flush through a dead portal can't be ended by KILL, whether a thread makes it
or a child does (``blockdev --flushbufs`` stays in state D), and a process with such a thread
can't end. It ends when the session is seen to be dead and the unit is then deleted (EIO at
once), or when the session is logged out or given up. So a thread, which costs no program.
"""

from __future__ import annotations

import contextlib
import fcntl
import os
from collections.abc import Iterator

from lunport.core.errors import FlushFailed
from lunport.host.blocking import call_within
from lunport.host.clock import Deadline
from lunport.host.scsi_disk import ScsiDisk

_BLKFLSBUF = 0x1261  # _IO(0x12, 97), <linux/fs.h>


def flush_disk(disk: ScsiDisk, deadline: Deadline) -> None:
    """Write everything back. Raises: FlushFailed, DeviceStuck."""
    try:
        call_within(lambda: _flush(disk.path), deadline, "the flush", device=disk.path)
    except OSError as error:
        raise FlushFailed(disk.path, error.strerror or str(error)) from error


def write_back(disk: ScsiDisk, deadline: Deadline) -> None:
    """Write dirty pages back and send nothing else: without any, it asks nobody anything.

    For a disk whose portal is silent. Raises: FlushFailed (there are some), DeviceStuck.
    """
    try:
        call_within(lambda: _write_back(disk.path), deadline, "the flush", device=disk.path)
    except OSError as error:
        raise FlushFailed(disk.path, error.strerror or str(error)) from error


def _flush(path: str) -> None:
    with _opened(path) as descriptor:
        os.fsync(descriptor)


def _write_back(path: str) -> None:
    with _opened(path) as descriptor:
        fcntl.ioctl(descriptor, _BLKFLSBUF)


@contextlib.contextmanager
def _opened(path: str) -> Iterator[int]:
    descriptor = os.open(path, os.O_RDONLY | os.O_CLOEXEC | os.O_NONBLOCK)
    try:
        yield descriptor
    finally:
        os.close(descriptor)
