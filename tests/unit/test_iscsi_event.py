"""Events of the kernel's iSCSI layer: what is read of real messages, and of junk."""

from __future__ import annotations

import struct

import pytest
from hypothesis import given
from hypothesis import strategies as st

from lunport.core.iscsi_event import IscsiEvent, IscsiEventKind, parse_iscsi_events

LOGIN_RESPONSE = bytes([0x23, 0x87]) + bytes(46)
LOGOUT_RESPONSE = bytes([0x26, 0x80]) + bytes(46)


def message(what: int, *told: int, pdu: bytes = b"") -> bytes:
    """Say something as Linux 6.1 does: 72 bytes, and a PDU where one was received."""
    body = struct.pack("=IIQ24x", what, 0, 0xFFFF_8888_0000_1000)
    body += struct.pack("=4I", *told, *(4 - len(told)) * (0,)) + pdu
    return struct.pack("=IHHII", 16 + len(body), 0, 0, 0, 0) + body


@pytest.mark.parametrize(
    ("said", "event"),
    [
        (message(102, 1, 0, 1022), IscsiEvent(IscsiEventKind.ERROR, 1, 1022)),
        (message(106, 7, 3), IscsiEvent(IscsiEventKind.CREATED, 7)),
        (message(105, 7, 3), IscsiEvent(IscsiEventKind.UNBOUND, 7)),
        (message(104, 3, 7), IscsiEvent(IscsiEventKind.DESTROYED, 7)),
        (message(101, 7, 0, pdu=LOGIN_RESPONSE), IscsiEvent(IscsiEventKind.LOGIN, 7)),
        (message(109, 7, 0, 3), IscsiEvent(IscsiEventKind.LOGIN, 7)),
    ],
)
def test_what_happens_to_a_session_is_read(said: bytes, event: IscsiEvent) -> None:
    """Each message about a session names it, whatever order its numbers are in."""
    assert parse_iscsi_events(said) == (event,)


@pytest.mark.parametrize(
    "said",
    [
        message(101, 7, 0, pdu=LOGOUT_RESPONSE),
        message(101, 7, 0),
        message(109, 7, 0, 2),
        message(110, 3),
        message(11, 7),
        message(102, 1, 0, 1022)[:60],
        b"",
    ],
)
def test_what_is_about_no_session_is_passed_over(said: bytes) -> None:
    """Other PDUs, other messages and cut ones are no events."""
    assert parse_iscsi_events(said) == ()


def test_several_messages_in_one_datagram_are_all_read() -> None:
    """Messages that follow one another, each aligned to four bytes, are read in order."""
    odd = message(101, 4, 0, pdu=LOGIN_RESPONSE + b"x")
    both = odd + bytes(-len(odd) % 4) + message(104, 1, 5)
    assert [event.sid for event in parse_iscsi_events(both)] == [4, 5]


@given(st.binary(max_size=300))
def test_junk_is_no_error(junk: bytes) -> None:
    """Whatever comes, it is read without an error."""
    assert all(isinstance(event, IscsiEvent) for event in parse_iscsi_events(junk))
