"""A bell that one thread waits for together with sockets, and others ring (eventfd(2))."""

from __future__ import annotations

import contextlib
import os


class Bell:
    """Rung any number of times before it is heard, it rings once. Safe between threads."""

    def __init__(self) -> None:
        self._descriptor = os.eventfd(0, os.EFD_CLOEXEC | os.EFD_NONBLOCK)

    def ring(self) -> None:
        """Make it ring."""
        with contextlib.suppress(BlockingIOError):  # it has been ringing for a long time
            os.eventfd_write(self._descriptor, 1)

    def hear(self) -> None:
        """Make it silent. Idempotent."""
        with contextlib.suppress(BlockingIOError):
            os.eventfd_read(self._descriptor)

    def fileno(self) -> int:
        """Return the descriptor, for ``select.poll``: readable while it rings."""
        return self._descriptor

    def close(self) -> None:
        """Give the descriptor back; nobody may ring it any more."""
        os.close(self._descriptor)
