"""The kernel's uevents: what they say, and what a stranger's message says."""

from __future__ import annotations

import pytest
from hypothesis import given
from hypothesis import strategies as st

from lunport.host.uevents import parse_uevent

DISK = (
    b"add@/devices/platform/host0/session1/target0:0:0/0:0:0:1/block/sda\0ACTION=add\0"
    b"DEVPATH=/devices/platform/host0/session1/target0:0:0/0:0:0:1/block/sda\0"
    b"SUBSYSTEM=block\0MAJOR=8\0MINOR=0\0DEVNAME=sda\0DEVTYPE=disk\0DISKSEQ=3\0SEQNUM=1402\0"
)


def test_a_disk_that_appears_is_understood() -> None:
    """Action, path, subsystem and every field come out as the kernel wrote them."""
    event = parse_uevent(DISK)
    assert event is not None
    assert event.action == "add"
    assert event.devpath == "/devices/platform/host0/session1/target0:0:0/0:0:0:1/block/sda"
    assert event.subsystem == "block"
    assert event.fields["DEVTYPE"] == "disk"
    assert event.fields["SEQNUM"] == "1402"


@pytest.mark.parametrize(
    "message",
    [
        b"",
        b"\0",
        b"libudev\0\xfe\xed\xca\xfe\0\0\0",
        b"add@",
        b"add@relative",
        b"add/devices/x",
        b"@/devices/x",
        b"a-b@/devices/x",
    ],
)
def test_what_the_kernel_does_not_write_is_no_event(message: bytes) -> None:
    """Messages of udev, and broken ones, give nothing."""
    assert parse_uevent(message) is None


@given(st.binary(max_size=300))
def test_no_message_makes_the_parser_fail(message: bytes) -> None:
    """Any bytes are an event or none; nothing is raised."""
    event = parse_uevent(message)
    assert event is None or event.devpath.startswith("/")


def test_fields_without_a_value_are_left_out() -> None:
    """A line that is no KEY=VALUE is ignored, and a value keeps its further equal signs."""
    event = parse_uevent(b"change@/devices/x\0SDEV_UA\0A=b=c\0")
    assert event is not None
    assert dict(event.fields) == {"A": "b=c"}
