"""Zero, discard, copy and measure block devices, in chunks and at a bounded rate.

Follows ioctl(2)'s BLKGETSIZE64, BLKZEROOUT and BLKDISCARD of <linux/fs.h>. Data goes past the
page cache (O_DIRECT), so the memory of one chunk is all that a copy takes. ``stop`` is asked
before every chunk. Which device that is, is the caller's to know.
"""

from __future__ import annotations

import contextlib
import fcntl
import mmap
import os
import struct
import threading
import time
from collections.abc import Callable, Iterator
from pathlib import Path

CHUNK_BYTES = 4 << 20
_CLEAR_BYTES = 32 << 20
_COMPARED_BYTES = 64 << 10
_ZEROS = bytes(CHUNK_BYTES)
_BLKGETSIZE64 = 0x80081272
_BLKZEROOUT = 0x127F
_BLKDISCARD = 0x1277
_LONGEST_PAUSE_S = 0.5


class WorkStopped(Exception):
    """The work was asked to stop; the driver turns it into an error of the tree."""


class Pace:
    """A bound on bytes a second, and the question whether to stop."""

    def __init__(self, bytes_per_s: int, stop: Callable[[], bool]) -> None:
        """Bound by ``bytes_per_s``; 0 is no bound."""
        self._bytes_per_s = bytes_per_s
        self._stop = stop
        self._pause = threading.Event()
        self._began = time.monotonic()
        self._done = 0

    def check(self) -> None:
        """Wait until more may be done. Raises: WorkStopped."""
        due = self._began + (self._done / self._bytes_per_s if self._bytes_per_s else 0)
        while not self._stop():
            left_s = due - time.monotonic()
            if left_s <= 0:
                return
            self._pause.wait(min(left_s, _LONGEST_PAUSE_S))
        raise WorkStopped

    def count(self, done_bytes: int) -> None:
        """Say how much was done."""
        self._done += done_bytes


def size_of(path: Path) -> int:
    """Return a device's size in bytes. Raises: OSError."""
    with _opened(path, os.O_RDONLY) as descriptor:
        return _size(descriptor)


def zero(path: Path, length: int, pace: Pace) -> None:
    """Fill the first ``length`` bytes with zeros, durably. Raises: WorkStopped, OSError."""
    _clear(path, length, _BLKZEROOUT, pace)


def discard(path: Path, length: int, pace: Pace) -> None:
    """Give blocks back to what a device lies on. Raises: WorkStopped, OSError."""
    _clear(path, length, _BLKDISCARD, pace)


def copy(source: Path, target: Path, length: int, pace: Pace, *, onto_zeros: bool) -> None:
    """Copy the first ``length`` bytes, durably. Raises: WorkStopped, OSError.

    ``onto_zeros``: the target reads as zeros, so zeros need not be written.
    """
    for offset, block, descriptor in _blocks(source, target, length, pace):
        if not onto_zeros or block.tobytes() != _ZEROS[: len(block)]:
            _write(descriptor, block, offset)


def copy_differences(source: Path, target: Path, length: int, pace: Pace) -> int:
    """Write what differs in the first ``length`` bytes; return how many bytes were written.

    Raises: WorkStopped, OSError.
    """
    written = 0
    with mmap.mmap(-1, CHUNK_BYTES) as buffer:
        for offset, block, descriptor in _blocks(source, target, length, pace):
            with memoryview(buffer) as whole, whole[: len(block)] as present:
                _read(descriptor, present, offset)
                for start in range(0, len(block), _COMPARED_BYTES):
                    wanted = block[start : start + _COMPARED_BYTES]
                    if wanted.tobytes() != present[start : start + _COMPARED_BYTES].tobytes():
                        _write(descriptor, wanted, offset + start)
                        written += len(wanted)
    return written


def _blocks(
    source: Path, target: Path, length: int, pace: Pace
) -> Iterator[tuple[int, memoryview, int]]:
    """Read the source block by block; give each with its offset and the target's descriptor."""
    with (
        _opened(source, os.O_RDONLY | os.O_DIRECT) as from_device,
        _opened(target, os.O_RDWR | os.O_DIRECT) as to_device,
        mmap.mmap(-1, CHUNK_BYTES) as buffer,
    ):
        for offset in range(0, length, CHUNK_BYTES):
            pace.check()
            with memoryview(buffer) as whole, whole[: min(CHUNK_BYTES, length - offset)] as block:
                _read(from_device, block, offset)
                yield offset, block, to_device
                pace.count(len(block))
        os.fsync(to_device)


def _clear(path: Path, length: int, request: int, pace: Pace) -> None:
    with _opened(path, os.O_RDWR) as descriptor:
        size = min(length, _size(descriptor))
        for offset in range(0, size, _CLEAR_BYTES):
            pace.check()
            count = min(_CLEAR_BYTES, size - offset)
            fcntl.ioctl(descriptor, request, struct.pack("QQ", offset, count))
            pace.count(count)
        os.fsync(descriptor)


@contextlib.contextmanager
def _opened(path: Path, flags: int) -> Iterator[int]:
    descriptor = os.open(path, flags | os.O_CLOEXEC)
    try:
        yield descriptor
    finally:
        os.close(descriptor)


def _size(descriptor: int) -> int:
    answer = fcntl.ioctl(descriptor, _BLKGETSIZE64, bytes(8))
    return int(struct.unpack("Q", answer)[0])


def _read(descriptor: int, block: memoryview, offset: int) -> None:
    done = 0
    while done < len(block):
        count = os.preadv(descriptor, [block[done:]], offset + done)
        if count == 0:
            raise OSError(5, "the device is shorter than it was")
        done += count


def _write(descriptor: int, block: memoryview, offset: int) -> None:
    done = 0
    while done < len(block):
        done += os.pwritev(descriptor, [block[done:]], offset + done)
