"""What the kernel's iSCSI layer tells its daemon, and whoever else listens.

A message of NETLINK_ISCSI is a ``struct nlmsghdr`` and a ``struct iscsi_uevent`` of
include/scsi/iscsi_if.h, in native byte order:

    u32 type, u32 iferror, u64 transport_handle, 24 bytes of what was asked, then what is told:
    CONN_ERROR   u32 sid, u32 cid, u32 error       RECV_PDU         u32 sid, u32 cid, u64 handle
    CREATE_SESSION, UNBIND_SESSION  u32 sid, u32 host_no      DESTROY_SESSION  u32 host_no, u32 sid

Reads only; what else the kernel says there (offload cards, answers to iscsid) is passed over.
The layout is that of 64-bit machines.
"""

from __future__ import annotations

import enum
import struct
from collections.abc import Iterator
from dataclasses import dataclass
from typing import Final

_HEADER: Final = struct.Struct("=IHHII")  # struct nlmsghdr: length, type, flags, seq, pid
_ALIGNMENT: Final = 4
_TYPE: Final = struct.Struct("=I")
_TOLD_AT: Final = 40
_TRIPLE: Final = struct.Struct("=III")
_EVENT_LENGTH: Final = 56
_OPCODE_MASK: Final = 0x3F  # RFC 7143 section 11.2.1.2
_LOGIN_RESPONSE: Final = 0x23
_LOGGED_IN_STATE: Final = 3  # enum iscsi_conn_state

_KEVENT_BASE: Final = 100
_RECV_PDU: Final = _KEVENT_BASE + 1
_CONN_ERROR: Final = _KEVENT_BASE + 2
_DESTROY_SESSION: Final = _KEVENT_BASE + 4
_UNBIND_SESSION: Final = _KEVENT_BASE + 5
_CREATE_SESSION: Final = _KEVENT_BASE + 6
_CONN_LOGIN_STATE: Final = _KEVENT_BASE + 9


class IscsiEventKind(enum.Enum):
    """What happened to a session."""

    CREATED = "created"
    LOGIN = "login"  # a login of it is on its way, at its start or in recovery
    ERROR = "error"  # its connection is broken; the daemon makes it anew
    UNBOUND = "unbound"  # its disks are gone
    DESTROYED = "destroyed"


@dataclass(frozen=True, slots=True)
class IscsiEvent:
    """One event. ``sid``: the N of ``sessionN``; ``error``: enum iscsi_err, of an ERROR."""

    kind: IscsiEventKind
    sid: int
    error: int | None = None


def parse_iscsi_events(message: bytes) -> tuple[IscsiEvent, ...]:
    """Read what a datagram says of sessions; nothing of whatever else it holds."""
    return tuple(event for body in _bodies(message) if (event := _parse_event(body)) is not None)


def _bodies(message: bytes) -> Iterator[bytes]:
    at = 0
    while at + _HEADER.size <= len(message):
        length = _HEADER.unpack_from(message, at)[0]
        if not _HEADER.size <= length <= len(message) - at:
            return
        yield message[at + _HEADER.size : at + length]
        at += (length + _ALIGNMENT - 1) // _ALIGNMENT * _ALIGNMENT


def _parse_event(body: bytes) -> IscsiEvent | None:
    if len(body) < _EVENT_LENGTH:
        return None
    what = _TYPE.unpack_from(body)[0]
    first, second, third = _TRIPLE.unpack_from(body, _TOLD_AT)
    if what == _CONN_ERROR:
        return IscsiEvent(IscsiEventKind.ERROR, first, third)
    if what == _CREATE_SESSION:
        return IscsiEvent(IscsiEventKind.CREATED, first)
    if what == _UNBIND_SESSION:
        return IscsiEvent(IscsiEventKind.UNBOUND, first)
    if what == _DESTROY_SESSION:
        return IscsiEvent(IscsiEventKind.DESTROYED, second)
    if what == _CONN_LOGIN_STATE and third == _LOGGED_IN_STATE:
        return IscsiEvent(IscsiEventKind.LOGIN, first)
    if what == _RECV_PDU and _is_login_response(body[_EVENT_LENGTH:]):
        return IscsiEvent(IscsiEventKind.LOGIN, first)
    return None


def _is_login_response(pdu: bytes) -> bool:
    return bool(pdu) and pdu[0] & _OPCODE_MASK == _LOGIN_RESPONSE
