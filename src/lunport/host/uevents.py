r"""Hear from the kernel what devices come and go (netlink(7), NETLINK_KOBJECT_UEVENT).

    add@/devices/platform/host0/session1/target0:0:0/0:0:0:1/block/sda\0ACTION=add\0
    DEVPATH=/devices/...\0SUBSYSTEM=block\0DEVNAME=sda\0DEVTYPE=disk\0SEQNUM=1234\0

These are the kernel's own words, before udev has acted on them. Open :class:`Uevents` before
the step whose effect is awaited. What was lost because nobody read in time is said, never
hidden: then look at sysfs instead. Decides nothing, changes nothing.
"""

from __future__ import annotations

import contextlib
import errno
import select
import socket
from collections import deque
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from types import MappingProxyType
from typing import Protocol, Self

from lunport.host.clock import Deadline

_PROTOCOL = 15  # NETLINK_KOBJECT_UEVENT, <linux/netlink.h>
_KERNEL_GROUP = 1  # group 2 is udev's
_BUFFER_BYTES = 4 << 20  # charged only while it is filled
_MESSAGE_BYTES = 16 << 10  # the kernel's are at most 4 KiB (UEVENT_BUFFER_SIZE and the header)
_MAX_KEPT = 4096
_SO_RCVBUFFORCE = 33


@dataclass(frozen=True, slots=True)
class Uevent:
    """One message. ``devpath`` begins with ``/devices``; ``fields`` holds everything else."""

    action: str
    devpath: str
    fields: Mapping[str, str]

    @property
    def subsystem(self) -> str:
        """What kind of object it is about: ``block``, ``scsi``, ``iscsi_session``."""
        return self.fields.get("SUBSYSTEM", "")


Predicate = Callable[[Uevent], bool]


class UeventSource(Protocol):
    """Where events come from."""

    @property
    def lost(self) -> bool:
        """Whether events were lost since the source was opened or drained."""

    def wait(self, predicate: Predicate, deadline: Deadline) -> Uevent | None:
        """Wait for an event; None at the deadline, or when events were lost."""


class Uevents:
    """All events from the moment of entering the context. For one thread."""

    def __init__(self) -> None:
        self._socket: socket.socket | None = None
        self._kept: deque[Uevent] = deque()
        self._lost = False

    @property
    def lost(self) -> bool:
        """Whether events were lost since the context was entered or ``take`` was called."""
        return self._lost

    def __enter__(self) -> Self:
        connection = socket.socket(
            socket.AF_NETLINK, socket.SOCK_RAW | socket.SOCK_CLOEXEC, _PROTOCOL
        )
        try:
            with contextlib.suppress(PermissionError):
                connection.setsockopt(socket.SOL_SOCKET, _SO_RCVBUFFORCE, _BUFFER_BYTES)
            connection.bind((0, _KERNEL_GROUP))
            connection.setblocking(False)
        except BaseException:
            connection.close()
            raise
        self._socket = connection
        return self

    def __exit__(self, *_: object) -> None:
        if self._socket is not None:
            self._socket.close()
            self._socket = None

    def fileno(self) -> int:
        """Return the descriptor, for ``select.poll``: readable when there is something to take."""
        return self._open_socket().fileno()

    def take(self) -> tuple[Uevent, ...]:
        """Return everything heard so far and forget it, losses included."""
        self._read_all()
        taken = tuple(self._kept)
        self._kept.clear()
        self._lost = False
        return taken

    def wait(self, predicate: Predicate, deadline: Deadline) -> Uevent | None:
        """Wait for an event, heard since the start or from now on; each is given once.

        None at the deadline, or when events were lost: look at sysfs then.
        """
        poller = select.poll()
        poller.register(self._open_socket(), select.POLLIN)
        seen = 0
        had_lost = self._lost  # said before; going on about it would never wait again
        has_time = True
        while has_time:
            self._read_all()
            for index in range(seen, len(self._kept)):
                if predicate(self._kept[index]):
                    event = self._kept[index]
                    del self._kept[index]
                    return event
            if self._lost and not had_lost:
                return None
            seen = len(self._kept)
            has_time = not deadline.has_passed()
            if has_time:
                poller.poll(deadline.remaining_s() * 1000)
        return None

    def _open_socket(self) -> socket.socket:
        assert self._socket is not None, "use it as a context"
        return self._socket

    def _read_all(self) -> None:
        connection = self._open_socket()
        has_more = True
        while has_more:
            try:
                message, sender = connection.recvfrom(_MESSAGE_BYTES)
            except BlockingIOError:
                has_more = False
                continue
            except OSError as error:
                if error.errno != errno.ENOBUFS:
                    raise
                self._lost = True
                continue
            event = parse_uevent(message) if sender[0] == 0 else None  # 0: the kernel itself
            if event is None:
                continue
            if len(self._kept) >= _MAX_KEPT:
                self._kept.popleft()
                self._lost = True
            self._kept.append(event)


def parse_uevent(message: bytes) -> Uevent | None:
    """Parse a message of the kernel; None for anything else (udev's begin with "libudev")."""
    header, *lines = message.rstrip(b"\0").decode(errors="replace").split("\0")
    action, at, devpath = header.partition("@")
    if not at or not action.isalpha() or not devpath.startswith("/"):
        return None
    fields = dict(line.split("=", 1) for line in lines if "=" in line)
    return Uevent(action, devpath, MappingProxyType(fields))
