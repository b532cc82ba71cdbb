"""A connection to libvirt that never keeps a caller past its deadline.

It is made when it is needed, and made anew when it is lost. libvirt's calls block in C for as
long as the daemon pleases, so each is made in a thread that the caller leaves at its deadline;
keepalive then breaks the connection of a daemon that hangs, which ends the call and its thread.
The making of a connection has no keepalive yet: at most one thread is in it, and everybody
waits for that one.
"""

from __future__ import annotations

import contextvars
import logging
import threading
from collections.abc import Callable
from dataclasses import dataclass
from typing import Generic, TypeVar

import libvirt

from lunport.core.errors import HypervisorUnavailable, LunportError
from lunport.host.clock import Deadline
from lunport.hypervisor.error_mapping import is_lost, translate, words_of
from lunport.hypervisor.events import EventLoop

_LOG = logging.getLogger(__name__)
T = TypeVar("T")

SYSTEM_URI = "qemu:///system"


@dataclass(frozen=True, slots=True)
class Keepalive:
    """After how many unanswered signs of life, so many seconds apart, a daemon counts as dead."""

    interval_s: int = 3
    count: int = 4


class _Call(Generic[T]):
    """One call in a thread of its own, and what came of it."""

    def __init__(self, function: Callable[[], T], name: str) -> None:
        self._function = function
        self._values: list[T] = []
        self._error: BaseException | None = None
        self._thread = threading.Thread(
            target=contextvars.copy_context().run, args=(self._run,), name=name, daemon=True
        )
        self._thread.start()

    def _run(self) -> None:
        try:
            self._values.append(self._function())
        except (libvirt.libvirtError, LunportError) as error:
            self._error = error
        finally:
            del self._function  # what it holds of a connection goes in this thread

    def ends(self, deadline: Deadline) -> bool:
        """Wait for its end; tell whether it came."""
        self._thread.join(deadline.remaining_s())
        return not self._thread.is_alive()

    def result(self) -> T:
        """Return what the ended call returned, or raise what it raised."""
        if self._error is not None:
            raise self._error
        return self._values[0]


class LibvirtConnection:
    """The connection to one URI. Safe to share between threads."""

    def __init__(self, uri: str = SYSTEM_URI, *, keepalive: Keepalive | None = None) -> None:
        self.uri = uri
        self._keepalive = keepalive or Keepalive()
        self._lock = threading.Lock()
        self._opening: _Call[libvirt.virConnect] | None = None

    def call(
        self,
        request: str,
        function: Callable[[libvirt.virConnect], T],
        deadline: Deadline,
        *,
        guest: str = "",
    ) -> T:
        """Make a call and wait for it until the deadline. ``guest``: whom it is about.

        ``function`` may raise libvirtError; at the deadline it goes on unseen.
        Raises: HypervisorUnavailable, GuestNotFound, HypervisorError.
        """
        try:
            return self.raw(request, function, deadline)
        except libvirt.libvirtError as error:
            raise translate(error, request, uri=self.uri, guest=guest) from error

    def raw(
        self, request: str, function: Callable[[libvirt.virConnect], T], deadline: Deadline
    ) -> T:
        """As :meth:`call`, but for those who tell libvirt's errors apart: they get them."""
        opening = self._open()
        if not opening.ends(deadline):
            raise self._silent(request, deadline)
        try:
            connection = opening.result()
        except libvirt.libvirtError as error:
            self._drop(opening)
            words = f"libvirt at {self.uri} cannot be reached: {words_of(error)}."
            raise HypervisorUnavailable(words) from error
        call = _Call(lambda: function(connection), f"libvirt: {request}")
        if not call.ends(deadline):
            self._drop(opening)
            raise self._silent(request, deadline)
        try:
            return call.result()
        except libvirt.libvirtError as error:
            if is_lost(error):
                self._drop(opening)
            raise

    def close(self, deadline: Deadline) -> None:
        """Put the connection down, as far as that is possible by the deadline."""
        with self._lock:
            opening, self._opening = self._opening, None
        if opening is None or not opening.ends(deadline):
            return
        try:
            connection = opening.result()
        except libvirt.libvirtError:
            return
        _Call(connection.close, "libvirt: close").ends(deadline)

    def _open(self) -> _Call[libvirt.virConnect]:
        """Return the making of the connection: the one under way or done, if that still lives."""
        EventLoop.ensure()
        with self._lock:
            if self._opening is None or _is_dead(self._opening):
                self._opening = _Call(self._connect, "libvirt: open")
            return self._opening

    def _connect(self) -> libvirt.virConnect:
        connection = libvirt.open(self.uri)
        try:
            connection.setKeepAlive(self._keepalive.interval_s, self._keepalive.count)
        except libvirt.libvirtError as error:
            # A driver within this process (test:///) has no wire that could fall silent.
            if error.get_error_code() not in {
                libvirt.VIR_ERR_NO_SUPPORT,
                libvirt.VIR_ERR_INVALID_ARG,
            }:
                raise
        _LOG.debug("libvirt_connected uri=%s", self.uri)
        return connection

    def _drop(self, opening: _Call[libvirt.virConnect]) -> None:
        with self._lock:
            if self._opening is opening:
                self._opening = None

    def _silent(self, request: str, deadline: Deadline) -> HypervisorUnavailable:
        words = f"did not answer {request} within {deadline.budget_s:.1f} s"
        return HypervisorUnavailable(f"libvirt at {self.uri} {words}.")


def _is_dead(opening: _Call[libvirt.virConnect]) -> bool:
    """Tell whether a connection that was made is known to be gone; asks nobody."""
    if not opening.ends(Deadline.after(0)):
        return False
    try:
        return not opening.result().isAlive()
    except libvirt.libvirtError:
        return True
