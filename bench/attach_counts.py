"""Count the processes and programs that an operation starts, on the whole machine and its own.

The kernel's process events (connector, ``linux/cn_proc.h``) name every fork with its parent and
every exec. Nobody listens while something is measured: events wait in the socket's buffer and
are read afterwards, so that counting costs the measured ones nothing but the kernel's messages.
Threads are not counted.
"""

from __future__ import annotations

import errno
import os
import socket
import statistics
import struct
import subprocess
import time
from collections.abc import Iterable
from dataclasses import dataclass
from pathlib import Path

_NETLINK_CONNECTOR = 11
_CN_IDX_PROC = _CN_VAL_PROC = 1
_LISTEN = 1
_SO_RCVBUFFORCE = 33
_BUFFER_BYTES = 64 << 20
_FORK, _EXEC = 1, 2
_HEADER = struct.Struct("=IHHII")  # nlmsghdr
_MESSAGE = struct.Struct("=IIIIHH")  # cn_msg
_EVENT = struct.Struct("=IIQ")  # proc_event without its last part
_CALIBRATIONS = 5


@dataclass(frozen=True, slots=True)
class Started:
    """What was started: by the measured process and its descendants, and by all.

    ``own``: programs; ``machine``: processes, with udev's workers. None: events were lost.
    """

    own: int | None
    machine: int | None


class ProcessCounter:
    """Counts from one call of :meth:`take` to the next."""

    def __init__(self) -> None:
        kind = socket.SOCK_DGRAM | socket.SOCK_CLOEXEC | socket.SOCK_NONBLOCK
        self._socket = socket.socket(socket.AF_NETLINK, kind, _NETLINK_CONNECTOR)
        self._socket.setsockopt(socket.SOL_SOCKET, _SO_RCVBUFFORCE, _BUFFER_BYTES)
        self._socket.bind((os.getpid(), _CN_IDX_PROC))
        operation = struct.pack("=I", _LISTEN)
        message = _MESSAGE.pack(_CN_IDX_PROC, _CN_VAL_PROC, 0, 0, len(operation), 0) + operation
        header = _HEADER.pack(_HEADER.size + len(message), 3, 0, 0, os.getpid())
        self._socket.send(header + message)
        self._families: dict[int, int] = {}  # pid: the pid of the root that it descends from
        self._events: list[tuple[int, int | None]] = []
        self._is_whole = True

    def close(self) -> None:
        """Stop listening."""
        self._socket.close()

    def watch(self, root: int) -> None:
        """Count this process's descendants as its own, from now on."""
        self._read()
        self._families[root] = root

    def take(self, roots: Iterable[int] = ()) -> Started:
        """Return what was started since the last call; ``own`` is what descends from ``roots``."""
        wanted = set(roots)
        own = machine = 0
        self._read()
        for what, root in self._events:
            if what == _FORK:
                machine += 1
            elif root in wanted:
                own += 1
        is_whole = self._is_whole
        self._events, self._is_whole = [], True
        return Started(own, machine) if is_whole else Started(None, None)

    def living(self, root: int) -> list[int]:
        """List the processes that descend from a root and have not ended; takes no count."""
        self._read()
        family = [process for process, of in self._families.items() if of == root != process]
        return [process for process in family if _lives(process)]

    def _read(self) -> None:
        while True:
            try:
                data = self._socket.recv(4096)
            except BlockingIOError:
                return
            except OSError as error:
                if error.errno != errno.ENOBUFS:
                    raise
                self._is_whole = False
                continue
            event = self._parse(data)
            if event is not None:
                self._events.append(event)

    def _parse(self, data: bytes) -> tuple[int, int | None] | None:
        start = _HEADER.size + _MESSAGE.size
        what = _EVENT.unpack_from(data, start)[0]
        rest = start + _EVENT.size
        if what == _FORK:
            _, parent, child, process = struct.unpack_from("=iiii", data, rest)
            if child != process:
                return None  # a thread
            root = self._families.get(parent)
            if root is None:
                self._families.pop(process, None)  # a number that is used again
            else:
                self._families[process] = root
            return _FORK, root
        if what == _EXEC:
            process = struct.unpack_from("=ii", data, rest)[1]
            return _EXEC, self._families.get(process)
        return None


def calibrate() -> float:
    """Return what starting one small program costs just now (median, ms): is the machine busy?"""
    found = []
    for _ in range(_CALIBRATIONS):
        began = time.monotonic()
        subprocess.run(["iscsiadm", "--version"], capture_output=True, check=True)
        found.append((time.monotonic() - began) * 1000)
    return statistics.median(found)


def settle() -> None:
    """Let udev finish, so that nobody pays for what another one's operation set going."""
    subprocess.run(["udevadm", "settle", "--timeout=30"], capture_output=True, check=False)


def leftovers() -> list[str]:
    """Name sessions, disks of iSCSI, maps and node records that are there."""
    sessions = sorted(path.name for path in Path("/sys/class/iscsi_session").glob("session*"))
    disks = sorted(path.name for path in Path("/sys/block").glob("sd*"))
    maps = sorted(path.name for path in Path("/sys/block").glob("dm-*"))
    nodes = Path("/etc/iscsi/nodes")
    records = sorted(str(path.relative_to(nodes)) for path in nodes.rglob("*") if path.is_file())
    return [*sessions, *disks, *maps, *records]


def _lives(process: int) -> bool:
    try:
        stat = Path(f"/proc/{process}/stat").read_text()
    except OSError:
        return False
    return stat.rpartition(")")[2].split()[0] not in "ZX"
