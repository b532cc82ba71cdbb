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

import os

from lunport.core.errors import FlushFailed
from lunport.host.blocking import call_within
from lunport.host.clock import Deadline
from lunport.host.scsi_disk import ScsiDisk


def flush_disk(disk: ScsiDisk, deadline: Deadline) -> None:
    """Write everything back. Raises: FlushFailed, DeviceStuck."""
    try:
        call_within(lambda: _flush(disk.path), deadline, "the flush", device=disk.path)
    except OSError as error:
        raise FlushFailed(disk.path, error.strerror or str(error)) from error


def _flush(path: str) -> None:
    descriptor = os.open(path, os.O_RDONLY | os.O_CLOEXEC | os.O_NONBLOCK)
    try:
        os.fsync(descriptor)
    finally:
        os.close(descriptor)
