"""libvirt's event loop: one thread in the whole process, for keepalive and for what guests tell.

libvirt's default loop can be registered once, and before the first connection is made; without
a loop that turns, a connection has no keepalive, and a daemon that hangs is never noticed. The
thread is a daemon thread: it holds nothing that has to be put down at the end.
"""

from __future__ import annotations

import threading

import libvirt

_LOCK = threading.Lock()
_TURN_MS = 1000


class EventLoop(threading.Thread):
    """The thread that turns libvirt's loop."""

    _running: EventLoop | None = None

    def __init__(self) -> None:
        super().__init__(name="libvirt-events", daemon=True)
        self._stop = threading.Event()

    def run(self) -> None:
        """Turn the loop until the end of the process."""
        while not self._stop.is_set():
            try:
                libvirt.virEventRunDefaultImpl()
            except libvirt.libvirtError:  # an interrupted poll(2); the next turn goes on
                self._stop.wait(_TURN_MS / 1000)

    @classmethod
    def ensure(cls) -> None:
        """Start the loop unless it turns already. Idempotent, from any thread."""
        with _LOCK:
            if cls._running is not None:
                return
            # Errors are raised; libvirt would print them on stderr as well.
            libvirt.registerErrorHandler(_ignore, None)
            libvirt.virEventRegisterDefaultImpl()
            # The loop sleeps until something happens; a timer lets it see that it shall end.
            libvirt.virEventAddTimeout(_TURN_MS, _ignore, None)
            cls._running = cls()
            cls._running.start()


def _ignore(*_: object) -> None:
    """Take no notice."""
