"""Zero, discard, copy and measure block devices, in chunks and at a bounded rate.

Follows ioctl(2)'s BLKGETSIZE64, BLKZEROOUT and BLKDISCARD of <linux/fs.h>. Data goes past the
page cache (O_DIRECT), so the memory of one chunk is all that a copy takes. ``stop`` is asked
before every chunk. Which device that is, is the caller's to know.
"""

from __future__ import annotations

import contextlib
import errno
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
    with _chunks(source, target, length, pace) as chunks:
        for offset, count, chunk, descriptor in chunks:
            if not onto_zeros or chunk.content(0, count) != _ZEROS[:count]:
                chunk.write(descriptor, offset, 0, count)


def copy_differences(source: Path, target: Path, length: int, pace: Pace) -> int:
    """Write what differs in the first ``length`` bytes; return how many bytes were written.

    Raises: WorkStopped, OSError.
    """
    written = 0
    with (
        contextlib.closing(_Chunk()) as present,
        _chunks(source, target, length, pace) as chunks,
    ):
        for offset, count, wanted, descriptor in chunks:
            present.fill(descriptor, offset, count)
            for start in range(0, count, _COMPARED_BYTES):
                part = min(_COMPARED_BYTES, count - start)
                if wanted.content(start, part) != present.content(start, part):
                    wanted.write(descriptor, offset + start, start, part)
                    written += part
    return written


class _Chunk:
    """The memory of one chunk, aligned to a page as direct I/O demands."""

    def __init__(self) -> None:
        self._memory = mmap.mmap(-1, CHUNK_BYTES)

    def close(self) -> None:
        """Give the memory back."""
        self._memory.close()

    def content(self, start: int, count: int) -> bytes:
        """Return a part of it."""
        return self._memory[start : start + count]

    def fill(self, descriptor: int, offset: int, count: int) -> None:
        """Read ``count`` bytes of a device into its beginning. Raises: OSError."""
        done = 0
        while done < count:
            with memoryview(self._memory) as whole, whole[done:count] as rest:
                got = os.preadv(descriptor, [rest], offset + done)
            if got == 0:
                raise OSError(errno.EIO, "the device is shorter than it was")
            done += got

    def write(self, descriptor: int, offset: int, start: int, count: int) -> None:
        """Write a part of it to a device. Raises: OSError."""
        done = 0
        while done < count:
            with memoryview(self._memory) as whole, whole[start + done : start + count] as rest:
                done += os.pwritev(descriptor, [rest], offset + done)


@contextlib.contextmanager
def _chunks(
    source: Path, target: Path, length: int, pace: Pace
) -> Iterator[Iterator[tuple[int, int, _Chunk, int]]]:
    """Read the source chunk by chunk: offset, length, the chunk, the target's descriptor.

    What was written is durable at the end.
    """
    with (
        _opened(source, os.O_RDONLY | os.O_DIRECT) as from_device,
        _opened(target, os.O_RDWR | os.O_DIRECT) as to_device,
        contextlib.closing(_Chunk()) as chunk,
    ):

        def read() -> Iterator[tuple[int, int, _Chunk, int]]:
            for offset in range(0, length, CHUNK_BYTES):
                pace.check()
                count = min(CHUNK_BYTES, length - offset)
                chunk.fill(from_device, offset, count)
                yield offset, count, chunk, to_device
                pace.count(count)

        yield read()
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
