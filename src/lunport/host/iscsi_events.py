"""Hear from the kernel what happens to iSCSI sessions, beside the daemon that acts on it.

NETLINK_ISCSI (drivers/scsi/scsi_transport_iscsi.c): a multicast group that iscsid listens to;
any number may listen with it, and none of them takes anything from another. The protocol
exists in the first network namespace only. What was lost because nobody read in time is said:
then look at sysfs instead. Never sends anything, so no session can be changed from here. What
a message means is read by :mod:`lunport.core.iscsi_event`.
"""

from __future__ import annotations

import contextlib
import errno
import socket
from collections.abc import Sequence
from typing import Self

from lunport.core.errors import HostLacks
from lunport.core.iscsi_event import IscsiEvent, parse_iscsi_events

_PROTOCOL = 8  # NETLINK_ISCSI, <linux/netlink.h>
_DAEMON_GROUP = 1  # ISCSI_NL_GRP_ISCSID; 2 is uIP's
_BUFFER_BYTES = 1 << 20
_MESSAGE_BYTES = 64 << 10  # a PDU of a login comes whole
_SO_RCVBUFFORCE = 33
_MAX_TAKEN = 4096
_NOT_HERE = frozenset({errno.EPROTONOSUPPORT, errno.ECONNREFUSED, errno.EPERM})


class IscsiEvents:
    """All events from the moment of entering the context. For one thread."""

    def __init__(self) -> None:
        self._socket: socket.socket | None = None
        self._lost = False

    @property
    def lost(self) -> bool:
        """Whether events were lost since the context was entered or ``take`` was called last."""
        return self._lost

    def __enter__(self) -> Self:
        try:
            self._socket = _listening()
        except OSError as error:
            if error.errno not in _NOT_HERE:
                raise
            raise HostLacks(
                "Cannot hear of iSCSI sessions",
                error.strerror or str(error),
                "load scsi_transport_iscsi, and be root in the first network namespace",
            ) from error
        return self

    def __exit__(self, *_: object) -> None:
        if self._socket is not None:
            self._socket.close()
            self._socket = None

    def fileno(self) -> int:
        """Return the descriptor, for ``select.poll``: readable when there is something to take."""
        return self._open_socket().fileno()

    def take(self) -> Sequence[IscsiEvent]:
        """Return what was heard since the last call, without waiting."""
        connection = self._open_socket()
        self._lost = False
        taken: list[IscsiEvent] = []
        has_more = True
        while has_more and len(taken) < _MAX_TAKEN:
            try:
                message, sender = connection.recvfrom(_MESSAGE_BYTES)
            except BlockingIOError:
                has_more = False
            except OSError as error:
                if error.errno != errno.ENOBUFS:
                    raise
                self._lost = True
            else:
                if sender[0] == 0:  # the kernel itself
                    taken += parse_iscsi_events(message)
        return taken

    def _open_socket(self) -> socket.socket:
        assert self._socket is not None, "use it as a context"
        return self._socket


def _listening() -> socket.socket:
    connection = socket.socket(socket.AF_NETLINK, socket.SOCK_RAW | socket.SOCK_CLOEXEC, _PROTOCOL)
    try:
        with contextlib.suppress(PermissionError):
            connection.setsockopt(socket.SOL_SOCKET, _SO_RCVBUFFORCE, _BUFFER_BYTES)
        connection.bind((0, 1 << (_DAEMON_GROUP - 1)))
        connection.setblocking(False)
    except BaseException:
        connection.close()
        raise
    return connection
