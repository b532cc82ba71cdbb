"""Ask multipathd to do something, through its socket.

A request and its reply are a native ``size_t`` length, a text, and a NUL that is counted
(multipath-tools: libmpathcmd/mpath_cmd.c); the words are those of multipathd(8), "COMMANDS".
One connection for each command, no program. Says what multipathd answered, and nothing about
what came of it: look at sysfs for that. Never starts or stops the daemon.
"""

from __future__ import annotations

import os
import socket
import struct
from dataclasses import dataclass

from lunport.core.errors import CommandTimedOut, InvalidInput, MultipathDown
from lunport.core.wwid import Wwid, format_multipath_wwid
from lunport.host.clock import Deadline

_LENGTH = struct.Struct("@N")
_CREDENTIALS = struct.Struct("@iII")
_TIME = struct.Struct("@ll")
_LONGEST_COMMAND_BYTES = 512  # _MAX_CMD_LEN, uxsock.h
_LONGEST_REPLY_BYTES = 32 << 20  # MAX_REPLY_LEN, mpath_cmd.h
_PATIENCE_S = 5.0
_OK = "ok"
_NOT_NOW = "timeout"
_MEND = "start it (systemctl start multipathd, of Debian's multipath-tools)"


@dataclass(frozen=True, slots=True)
class Multipathd:
    """The multipathd of this host; holds no connection, safe to share between threads.

    ``socket_name``: in Linux's abstract namespace of sockets, which each network namespace has
    for itself.
    """

    socket_name: str = "/org/kernel/linux/storage/multipathd"

    def is_running(self, deadline: Deadline | None = None) -> bool:
        """Tell whether it answers; five seconds are waited unless a deadline says otherwise."""
        try:
            self.ask("show daemon", deadline or Deadline.after(_PATIENCE_S))
        except (MultipathDown, CommandTimedOut):
            return False
        return True

    def ask(self, command: str, deadline: Deadline) -> str:
        """Give a command and return the answer, blanks around it removed.

        Raises: MultipathDown (nobody answers), CommandTimedOut (then it may still be carried
        out), InvalidInput (no command can be that long).
        """
        request = command.encode() + b"\0"
        if len(request) > _LONGEST_COMMAND_BYTES:
            raise InvalidInput("multipathd command", command, "it is too long for multipathd")
        has_time = True
        while has_time:
            has_time = not deadline.has_passed()
            answer = self._exchange(command, request, deadline)
            # Quirk(multipath-tools): "timeout" means that the daemon was busy with something
            # else for uxsock_timeout (4 s) and has not begun: the command can be repeated
            # (multipathd/uxlsnr.c, CLT_LOCKED_WORK; 0.9.4).
            if answer != _NOT_NOW:
                return answer
        raise self._too_late(command, deadline)

    def add_path(self, disk_name: str, deadline: Deadline) -> bool:
        """Let it look at a disk, and take it into the map of its identity if there is one.

        Idempotent. Not ok: udev has not written what it knows of the disk
        (``udev_database.wait_until_known``), or the configuration excludes it.
        Raises: as ``ask``.
        """
        return self._is_ok(f"add path {disk_name}", deadline)

    def remove_path(self, disk_name: str, deadline: Deadline) -> bool:
        """Let it take a disk out of its map and forget it; not ok when it knows none.

        A map whose last path goes goes as well, unless it is in use. Raises: as ``ask``.
        """
        return self._is_ok(f"remove path {disk_name}", deadline)

    def add_map(self, wwid: Wwid, deadline: Deadline) -> bool:
        """Let it make the map of an identity of the paths that it knows.

        Idempotent. Whether there is a map is told by sysfs, not by the answer.
        Raises: as ``ask``.
        """
        # Quirk(multipath-tools): where maps have friendly names, "add map WWID" makes the map and
        # says "fail": having made it, the daemon looks for one whose name is the WWID
        # (multipathd/cli_handlers.c, cli_add_map; 0.9.4).
        return self._is_ok(f"add map {format_multipath_wwid(wwid)}", deadline)

    def know_map(self, name: str, deadline: Deadline) -> bool:
        """Let it take care of a map that is there, which it may have forgotten.

        Idempotent. Raises: as ``ask``.
        """
        return self._is_ok(f"add map {name}", deadline)

    def remove_map(self, name: str, deadline: Deadline) -> bool:
        """Let it flush a map and take it away; not ok while somebody has it open.

        Raises: as ``ask``.
        """
        return self._is_ok(f"remove map {name}", deadline)

    def resize_map(self, name: str, deadline: Deadline) -> bool:
        """Let it give a map the size of its first path. Idempotent. Raises: as ``ask``."""
        return self._is_ok(f"resize map {name}", deadline)

    def reinstate(self, disk_name: str, deadline: Deadline) -> bool:
        """Let it use a path again that had failed. Idempotent. Raises: as ``ask``."""
        return self._is_ok(f"reinstate path {disk_name}", deadline)

    def disable_queueing(self, name: str, deadline: Deadline) -> bool:
        """Let I/O fail once no path of a map is left, until ``restore_queueing``.

        Idempotent. Raises: as ``ask``.
        """
        return self._is_ok(f"disablequeueing map {name}", deadline)

    def restore_queueing(self, name: str, deadline: Deadline) -> bool:
        """Let a map queue as its configuration says. Idempotent. Raises: as ``ask``."""
        # Quirk(multipath-tools): "restorequeueing" soon after "disablequeueing" says "ok" and
        # changes nothing in the kernel, since the daemon goes by the features that it last read
        # (libmultipath/structs_vec.c, set_no_path_retry; 0.9.4). Send the map the message
        # "queue_if_no_path" as well.
        return self._is_ok(f"restorequeueing map {name}", deadline)

    def queueing(self, name: str, deadline: Deadline) -> str:
        """Return how long it lets a map queue (``core/queue_bound.py``). Raises: as ``ask``."""
        return self.ask(f"show map {name} raw format %Q", deadline)

    def configuration(self, deadline: Deadline) -> str:
        """Return what it is configured to do with the disks that are here. Raises: as ``ask``."""
        return self.ask("show config local", deadline)

    def _is_ok(self, command: str, deadline: Deadline) -> bool:
        return self.ask(command, deadline) == _OK

    def _exchange(self, command: str, request: bytes, deadline: Deadline) -> str:
        with socket.socket(socket.AF_UNIX, socket.SOCK_STREAM) as connection:
            try:
                self._connect(connection, deadline)
                _set_timeout(connection, deadline)
                connection.sendall(_LENGTH.pack(len(request)) + request)
                length = _LENGTH.unpack(_receive(connection, _LENGTH.size, deadline))[0]
                if not 0 < length < _LONGEST_REPLY_BYTES:
                    raise MultipathDown(f"multipathd answers with {length} bytes", _MEND)
                reply = _receive(connection, length, deadline)
            except (TimeoutError, BlockingIOError) as error:
                raise self._too_late(command, deadline) from error
            except OSError as error:
                detail = f"multipathd does not answer ({error.strerror or error})"
                raise MultipathDown(detail, _MEND) from error
        return reply.rstrip(b"\0").decode(errors="replace").strip()

    def _connect(self, connection: socket.socket, deadline: Deadline) -> None:
        # Ten may wait to be let in (multipathd's listen(2)); a socket that does not block is
        # sent away when they are more, one that has a time limit waits its turn.
        left = max(deadline.remaining_s(), 0.001)
        limit = _TIME.pack(int(left), int(left % 1 * 1e6))
        connection.setsockopt(socket.SOL_SOCKET, socket.SO_SNDTIMEO, limit)
        connection.connect(f"\0{self.socket_name}")
        # Anybody may take a name in the abstract namespace that nobody has.
        peer = connection.getsockopt(socket.SOL_SOCKET, socket.SO_PEERCRED, _CREDENTIALS.size)
        pid, user, _ = _CREDENTIALS.unpack(peer)
        if user not in {0, os.geteuid()}:
            detail = f"process {pid} of user {user} has taken multipathd's socket"
            raise MultipathDown(detail, "end it and start multipathd")

    def _too_late(self, command: str, deadline: Deadline) -> CommandTimedOut:
        return CommandTimedOut(("multipathd", *command.split()), deadline.budget_s)


def _receive(connection: socket.socket, length: int, deadline: Deadline) -> bytes:
    received = bytearray()
    while len(received) < length:
        _set_timeout(connection, deadline)
        chunk = connection.recv(length - len(received))
        if not chunk:
            raise ConnectionResetError("it hung up")
        received += chunk
    return bytes(received)


def _set_timeout(connection: socket.socket, deadline: Deadline) -> None:
    connection.settimeout(max(deadline.remaining_s(), 0.001))
