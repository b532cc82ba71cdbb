"""Hear when files are closed or arrive (inotify(7)), which Python's library has no call for.

Sees what is done through the one inode that is watched: a device node that somebody made for
himself elsewhere (a container, libvirt's private /dev) is another inode.
"""

from __future__ import annotations

import contextlib
import ctypes
import os
import select
from pathlib import Path
from typing import Self

from lunport.host.clock import Deadline

_CLOSED = 0x00000008 | 0x00000010  # IN_CLOSE_WRITE | IN_CLOSE_NOWRITE
_ARRIVED = 0x00000008 | 0x00000080 | 0x00000100  # IN_CLOSE_WRITE | IN_MOVED_TO | IN_CREATE
_BUFFER_BYTES = 64 << 10


class _Watch:
    """What happens to one file or folder from the moment of entering the context."""

    def __init__(self, path: Path, mask: int) -> None:
        self._path = path
        self._mask = mask
        self._descriptor = -1

    def __enter__(self) -> Self:
        """Start watching. Raises: OSError (no such file, no watch left)."""
        libc = ctypes.CDLL(None, use_errno=True)
        self._descriptor = libc.inotify_init1(os.O_CLOEXEC | os.O_NONBLOCK)
        if self._descriptor < 0:
            raise _last_error(self._path)
        if libc.inotify_add_watch(self._descriptor, os.fsencode(self._path), self._mask) < 0:
            error = _last_error(self._path)
            self.__exit__()
            raise error
        return self

    def __exit__(self, *_: object) -> None:
        os.close(self._descriptor)
        self._descriptor = -1

    def wait(self, deadline: Deadline) -> bool:
        """Wait until it happens; tell whether it did since the last wait."""
        poller = select.poll()
        poller.register(self._descriptor, select.POLLIN)
        if not poller.poll(deadline.remaining_s() * 1000):
            return False
        with contextlib.suppress(BlockingIOError):
            os.read(self._descriptor, _BUFFER_BYTES)
        return True


class CloseWatch(_Watch):
    """All closings of one file from the moment of entering the context."""

    def __init__(self, path: Path) -> None:
        super().__init__(path, _CLOSED)


class ArrivalWatch(_Watch):
    """All files that come into one folder from the moment of entering the context."""

    def __init__(self, folder: Path) -> None:
        super().__init__(folder, _ARRIVED)


def _last_error(path: Path) -> OSError:
    number = ctypes.get_errno()
    return OSError(number, os.strerror(number), str(path))
