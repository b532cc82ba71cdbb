"""Break one TCP connection of this host at once: sock_diag(7), SOCK_DESTROY.

For the connection of an iSCSI session whose portal is known to be silent: its owner in the
kernel hears ECONNABORTED now, and not after its own patience. <linux/sock_diag.h>,
<linux/inet_diag.h>; needs CONFIG_INET_DIAG_DESTROY and CAP_NET_ADMIN. The socket is looked up
by its four numbers and killed by its cookie, which no other socket ever has. Never kills by
anything less, and decides nothing.

Which connection is a session's: its address, port and local port in
/sys/class/iscsi_connection/connectionN:0, and the local address that /proc/net/tcp has for
these three, if it has exactly one.
"""

from __future__ import annotations

import errno
import os
import socket
import struct
import sys
from collections.abc import Iterable
from dataclasses import dataclass
from ipaddress import ip_address
from pathlib import Path
from typing import Final

from lunport.core.change import Change
from lunport.core.errors import HostLacks
from lunport.core.portal import Portal
from lunport.host.systree import SysTree

_PROC_NET: Final = Path("/proc/net")
_PROTOCOL: Final = 4  # NETLINK_SOCK_DIAG
_BY_FAMILY: Final = 20
_DESTROY: Final = 21
_ERROR: Final = 2  # NLMSG_ERROR
_REQUEST: Final = 0x1
_ACK: Final = 0x4
_ALL_STATES: Final = 0xFFFFFFFF
_ANY_COOKIE: Final = b"\xff" * 8
_HEADER: Final = struct.Struct("=IHHII")
_QUESTION: Final = struct.Struct("=BBBxI")  # family, protocol, extensions, states
_SOCKET_ID: Final = struct.Struct("=2s2s16s16sI8s")  # ports, addresses, interface, cookie
_FOUND: Final = struct.Struct("=BBBB")  # family, state, timer, retransmits
_ERROR_NUMBER: Final = struct.Struct("=i")
_TIMEOUT_S: Final = 2.0
_MESSAGE_BYTES: Final = 8 << 10
_ESTABLISHED: Final = 1
_IDENTITY: Final = ("address", "port", "local_port")
_STATE_AT: Final = 3
_GONE: Final = frozenset({errno.ENOENT, errno.ESTALE})


@dataclass(frozen=True, slots=True)
class TcpConnection:
    """A connection by its four numbers. ``local`` and ``remote`` are addresses, not names."""

    local: Portal
    remote: Portal


def kill_connection(connection: TcpConnection) -> Change:
    """Break an established connection; UNCHANGED when there is none of these numbers.

    Raises: HostLacks (the kernel can't, or this process may not).
    """
    try:
        with _opened() as diag:
            answer = _ask(diag, _BY_FAMILY, _REQUEST, connection, _ANY_COOKIE)
            found = _parse_found(answer)
            if found is None or found.state != _ESTABLISHED:
                return Change.UNCHANGED
            _ask(diag, _DESTROY, _REQUEST | _ACK, connection, found.cookie)
    except OSError as error:
        if error.errno in _GONE:
            return Change.UNCHANGED
        detail = error.strerror or str(error)
        how = "be root, on a kernel with CONFIG_INET_DIAG_DESTROY"
        raise HostLacks(f"Cannot end the connection to {connection.remote}", detail, how) from error
    return Change.CHANGED


def find_connection(tree: SysTree, sid: int, *, proc_net: Path = _PROC_NET) -> TcpConnection | None:
    """Find the established connection of a session over TCP; None where that is not certain."""
    folder = f"class/iscsi_connection/connection{sid}:0"
    host, port, local_port = (tree.read(f"{folder}/{name}") for name in _IDENTITY)
    try:
        remote = Portal(str(ip_address((host or "").strip("[]"))), int(port or ""))
        number = int(local_port or "")
    except ValueError:  # being torn down, or over something other than TCP
        return None
    table = proc_net / ("tcp6" if remote.is_ipv6 else "tcp")
    try:
        with table.open(encoding="ascii", errors="replace") as lines:
            found = set(established(lines, remote, number))
    except OSError:
        return None
    return found.pop() if len(found) == 1 else None


def established(lines: Iterable[str], remote: Portal, local_port: int) -> Iterable[TcpConnection]:
    """Give the established connections from a port to a portal, of a table of /proc/net.

    ``0: 0101000A:8398 0201000A:0CBC 01 ...``: words of an address are in native byte order,
    ports are not.
    """
    for line in lines:
        fields = line.split()
        if len(fields) < _STATE_AT + 1 or fields[_STATE_AT] != f"{_ESTABLISHED:02X}":
            continue
        ends = [_end(field) for field in fields[1:_STATE_AT]]
        if None in ends:
            continue
        near, far = ends
        if near is not None and near.port == local_port and far == remote:
            yield TcpConnection(near, remote)


def _end(text: str) -> Portal | None:
    address, _, port = text.partition(":")
    try:
        words = bytes.fromhex(address)
        number = int(port, 16)
    except ValueError:
        return None
    if len(words) not in {4, 16}:
        return None
    if sys.byteorder == "little":
        words = b"".join(words[at : at + 4][::-1] for at in range(0, len(words), 4))
    return Portal(str(ip_address(words)), number)


@dataclass(frozen=True, slots=True)
class _Found:
    state: int
    cookie: bytes


def _opened() -> socket.socket:
    diag = socket.socket(socket.AF_NETLINK, socket.SOCK_RAW | socket.SOCK_CLOEXEC, _PROTOCOL)
    diag.settimeout(_TIMEOUT_S)
    return diag


def _ask(
    diag: socket.socket, what: int, flags: int, connection: TcpConnection, cookie: bytes
) -> bytes:
    """Ask about one socket and return the answer's body. Raises: OSError, the kernel's."""
    body = _format_question(connection, cookie)
    diag.send(_HEADER.pack(_HEADER.size + len(body), what, flags, 1, 0) + body)
    message = diag.recv(_MESSAGE_BYTES)
    length, kind, *_ = _HEADER.unpack_from(message)
    answer = message[_HEADER.size : length]
    if kind == _ERROR:
        number = -_ERROR_NUMBER.unpack_from(answer)[0]
        if number:
            raise OSError(number, os.strerror(number))
    return answer


def _format_question(connection: TcpConnection, cookie: bytes) -> bytes:
    local, remote = connection.local, connection.remote
    family = socket.AF_INET6 if remote.is_ipv6 else socket.AF_INET
    return _QUESTION.pack(family, socket.IPPROTO_TCP, 0, _ALL_STATES) + _SOCKET_ID.pack(
        local.port.to_bytes(2, "big"),
        remote.port.to_bytes(2, "big"),
        ip_address(local.host).packed,
        ip_address(remote.host).packed,
        0,
        cookie,
    )


def _parse_found(answer: bytes) -> _Found | None:
    if len(answer) < _FOUND.size + _SOCKET_ID.size:
        return None
    return _Found(answer[1], _SOCKET_ID.unpack_from(answer, _FOUND.size)[5])
