"""SCSI addresses, and LUNs as the kernel counts them."""

from __future__ import annotations

import pytest
from hypothesis import given
from hypothesis import strategies as st

from lunport.core.connection_info import AddressingMode
from lunport.core.errors import InvalidInput, InvalidLun
from lunport.core.scsi_address import ScsiAddress, kernel_lun, lun_bytes, parse_scsi_address

NUMBERS = st.integers(0, 2**31)
LUNS = st.integers(0, 16383)
MODES = st.sampled_from([None, *AddressingMode])


@given(NUMBERS, NUMBERS, NUMBERS, st.integers(0, 2**64 - 1))
def test_an_address_survives_text(scsi_host: int, channel: int, target: int, lun: int) -> None:
    """Parsing is the inverse of writing, 64-bit LUNs included."""
    address = ScsiAddress(scsi_host, channel, target, lun)
    assert parse_scsi_address(str(address)) == address


@pytest.mark.parametrize("text", ["", "1:2:3", "1:2:3:4:5", "a:0:0:1", "1:0:0:-1", " 1:0:0:1", 7])
def test_what_is_no_address_is_refused(text: object) -> None:
    """Anything but four plain numbers raises InvalidInput."""
    with pytest.raises(InvalidInput):
        parse_scsi_address(text)


@pytest.mark.parametrize(
    ("lun", "mode", "number"),
    [
        (1, None, 1),
        (257, None, 257),
        (16383, AddressingMode.TRANSPARENT, 16383),
        (256, AddressingMode.SAM, 256),
        (255, AddressingMode.SAM2, 255),
        (256, AddressingMode.SAM2, 16640),
        (1, AddressingMode.SAM3_FLAT, 16385),
        (256, AddressingMode.SAM3_FLAT, 16640),
    ],
)
def test_a_lun_is_numbered_as_its_storage_addresses_it(
    lun: int, mode: AddressingMode | None, number: int
) -> None:
    """The numbers are those that os-brick's addressing modes give."""
    assert kernel_lun(lun, mode) == number


@given(LUNS, MODES)
def test_eight_bytes_hold_the_number_in_the_first_two(
    lun: int, mode: AddressingMode | None
) -> None:
    """On the wire a LUN is the kernel's number in the first level, and nothing in the others."""
    encoded = lun_bytes(lun, mode)
    assert len(encoded) == 8
    assert int.from_bytes(encoded[:2]) == kernel_lun(lun, mode)
    assert encoded[2:] == bytes(6)


@given(st.lists(LUNS, unique=True, min_size=2, max_size=2), MODES)
def test_two_luns_are_never_one_number(luns: list[int], mode: AddressingMode | None) -> None:
    """Within one mode no two LUNs share a number, so none is mistaken for the other."""
    assert kernel_lun(luns[0], mode) != kernel_lun(luns[1], mode)


@pytest.mark.parametrize("lun", [-1, 16384])
def test_a_lun_beyond_the_flat_space_is_refused(lun: int) -> None:
    """Only 0 to 16383 can be addressed; anything else raises InvalidLun."""
    with pytest.raises(InvalidLun):
        kernel_lun(lun, None)
