"""Ask and tell the kernel's device mapper about one map: ioctl(2) on /dev/mapper/control.

<linux/dm-ioctl.h>, drivers/md/dm-ioctl.c; the messages of a multipath map are in
drivers/md/dm-mpath.c (``multipath_message``). No program, no libdevmapper, and no multipathd:
works when that is dead. Maps are named as in /sys/block/dm-0/dm/name. Never makes a map, never
loads a table. What the texts mean is read by :mod:`lunport.core.multipath_table`.
"""

from __future__ import annotations

import errno
import fcntl
import os
import struct
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path
from typing import TypeVar

from lunport.core.change import Change
from lunport.core.errors import DeviceBusy, DeviceMissing, DeviceStuck, HostLacks, MapMissing
from lunport.core.multipath_table import MapStatus, parse_map_status
from lunport.host.blocking import call_within
from lunport.host.clock import Deadline

CONTROL = Path("/dev/mapper/control")

T = TypeVar("T")

# struct dm_ioctl: the version's three numbers, data_size, data_start, target_count, open_count,
# flags, event_nr, padding, dev, and the texts name, uuid and data
_HEADER = struct.Struct("=3I3Ii3IQ128s129s7s")
_TARGET = struct.Struct("=QQiI16s")  # sector_start, length, status, next, target_type
_MESSAGE = struct.Struct("=Q")  # sector
_VERSION = (4, 0, 0)
_IOWR = 3 << 30 | _HEADER.size << 16 | 0xFD << 8
_DEV_REMOVE = _IOWR | 4
_TABLE_STATUS = _IOWR | 12
_TARGET_MSG = _IOWR | 14
_STATUS_TABLE_FLAG = 1 << 4
_BUFFER_FULL_FLAG = 1 << 8
_NOFLUSH_FLAG = 1 << 11
_FIRST_BYTES = 4 << 10
_MOST_BYTES = 4 << 20
_NAME_BYTES = 127
_GONE = frozenset({errno.ENXIO, errno.ENODEV})


@dataclass(frozen=True, slots=True)
class DeviceMapper:
    """The device mapper of this kernel; safe to share between threads."""

    control: Path = CONTROL

    def table_status(self, name: str, deadline: Deadline) -> str:
        """Return the status of the one target of a map.

        Raises: MapMissing (no map, or it has no table yet), DeviceStuck, HostLacks.
        """
        return self._target(name, 0, deadline)

    def table(self, name: str, deadline: Deadline) -> str:
        """Return the table of the one target of a map, its features as they are now.

        Raises: as ``table_status``.
        """
        return self._target(name, _STATUS_TABLE_FLAG, deadline)

    def map_status(self, name: str, deadline: Deadline) -> MapStatus:
        """Return what both say of a multipath map.

        Raises: as ``table_status``; InvalidInput (it is another kind of map).
        """
        return parse_map_status(self.table_status(name, deadline), self.table(name, deadline))

    def send_message(self, name: str, message: str, deadline: Deadline) -> None:
        """Send a message to the one target of a map: ``fail_if_no_path``, ``fail_path 8:0``.

        multipathd isn't told, and may say otherwise later.
        Raises: MapMissing, DeviceMissing (what it is about is not part of the map),
        DeviceStuck, HostLacks.
        """
        data = _MESSAGE.pack(0) + message.encode() + b"\0"

        def send() -> None:
            self._ioctl(_TARGET_MSG, _request(name, 0, data))

        try:
            self._within(send, deadline, f"the message {message!r}", name)
        except MapMissing as error:
            # A path's device that isn't there is told by the same number as a map.
            self.table_status(name, deadline)
            raise DeviceMissing(name, f"{message!r}: there is no such device") from error
        except OSError as error:
            if error.errno == errno.EBUSY:  # somebody is loading another table
                raise DeviceStuck(name, f"the message {message!r}", 0.0) from error
            raise DeviceMissing(name, f"{message!r}: {error.strerror or error}") from error

    def remove(self, name: str, deadline: Deadline) -> Change:
        """Take a map away that nobody has open; UNCHANGED when there is none.

        Nothing is flushed. Raises: DeviceBusy, DeviceStuck, HostLacks.
        """

        def remove() -> None:
            self._ioctl(_DEV_REMOVE, _request(name, 0))

        try:
            self._within(remove, deadline, "its removal", name)
        except MapMissing:
            return Change.UNCHANGED
        except OSError as error:
            if error.errno == errno.EBUSY:
                raise DeviceBusy(name, ["somebody who has it open"]) from error
            raise DeviceStuck(name, f"its removal ({error.strerror})", 0.0) from error
        return Change.CHANGED

    def _target(self, name: str, flags: int, deadline: Deadline) -> str:
        def ask() -> str | None:
            size = _FIRST_BYTES
            while size <= _MOST_BYTES:
                answer = self._ioctl(
                    _TABLE_STATUS, _request(name, flags | _NOFLUSH_FLAG, bytes(size))
                )
                if not _HEADER.unpack_from(answer)[7] & _BUFFER_FULL_FLAG:
                    return _first_target(answer)
                size *= 4
            return None

        try:
            text = self._within(ask, deadline, "a look at its table", name)
        except OSError as error:
            raise DeviceStuck(name, f"a look at its table ({error.strerror})", 0.0) from error
        if text is None:
            raise MapMissing(name, "it has no table")
        return text

    def _within(self, call: Callable[[], T], deadline: Deadline, what: str, name: str) -> T:
        if not 0 < len(name.encode()) <= _NAME_BYTES:
            raise MapMissing(name, "no map can have such a name")
        try:
            return call_within(call, deadline, what, device=name)
        except OSError as error:
            if error.filename is not None:
                how = "load dm_multipath (modprobe dm_multipath) and be root"
                detail = error.strerror or str(error)
                raise HostLacks(f"Cannot open {self.control}", detail, how) from error
            if error.errno in _GONE:
                raise MapMissing(name, "there is no such map") from error
            raise

    def _ioctl(self, request: int, data: bytearray) -> bytearray:
        descriptor = os.open(self.control, os.O_RDWR | os.O_CLOEXEC)
        try:
            fcntl.ioctl(descriptor, request, data)
        finally:
            os.close(descriptor)
        return data


def _request(name: str, flags: int, data: bytes = b"") -> bytearray:
    # fields 8 and 9 are event_nr (no udev cookie: nobody waits for udev) and padding
    size = _HEADER.size + len(data)
    header = _HEADER.pack(
        *_VERSION, size, _HEADER.size, 0, 0, flags, 0, 0, 0, name.encode(), b"", b""
    )
    return bytearray(header + data)


def _first_target(answer: bytearray) -> str | None:
    fields = _HEADER.unpack_from(answer)
    start, count = fields[4], fields[5]
    if count == 0:
        return None
    text = bytes(answer[start + _TARGET.size :]).partition(b"\0")[0]
    return text.decode(errors="replace").strip()
