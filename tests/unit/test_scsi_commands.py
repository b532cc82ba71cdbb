"""Tests of the SCSI commands and their answers."""

from __future__ import annotations

import pytest
from hypothesis import given
from hypothesis import strategies as st

from lunport.core.iscsi_pdu import PduError
from lunport.core.scsi_commands import (
    PAGE_IDENTIFICATION,
    PAGE_SERIAL,
    Inquiry,
    Kind,
    Sense,
    inquiry_cdb,
    inquiry_page_cdb,
    parse_capacity_10,
    parse_capacity_16,
    parse_identification_page,
    parse_inquiry,
    parse_report_luns,
    parse_sense,
    parse_serial_page,
    pick_wwid,
    read_capacity_10_cdb,
    read_capacity_16_cdb,
    report_luns_cdb,
)
from lunport.core.scsi_commands import (
    test_unit_ready_cdb as unit_ready_cdb,
)
from tests.strategies import luns

NAA = "6001405" + "0" * 24 + "1"


def designator(kind: int, value: bytes, *, code_set: int = 1, association: int = 0) -> bytes:
    """Write one designator of page 0x83."""
    return bytes((code_set, association << 4 | kind, 0, len(value))) + value


def page(*designators: bytes, number: int = PAGE_IDENTIFICATION) -> bytes:
    """Write a vital product data page."""
    body = b"".join(designators)
    return bytes((0, number)) + len(body).to_bytes(2) + body


def test_command_blocks() -> None:
    """Command blocks are as SPC and SBC draw them, in sixteen bytes."""
    assert unit_ready_cdb() == bytes(16)
    assert inquiry_cdb().hex() == "120000006000" + "00" * 10
    assert inquiry_page_cdb(0x83).hex() == "120183040000" + "00" * 10
    assert read_capacity_10_cdb().hex() == "25" + "00" * 15
    assert read_capacity_16_cdb().hex() == "9e100000000000000000000000200000"
    assert report_luns_cdb().hex() == "a00000000000000010000000" + "00" * 4


@pytest.mark.parametrize(
    "first, is_there, is_disk",
    [(0x00, True, True), (0x0C, True, False), (0x7F, False, False), (0x20, False, False)],
    ids=["disk", "controller", "no unit", "unit away"],
)
def test_inquiry(first: int, is_there: bool, is_disk: bool) -> None:
    """Qualifier and type tell a disk from a controller and from nothing."""
    inquiry = parse_inquiry(bytes((first, 0, 0)))
    assert inquiry == Inquiry(first >> 5, first & 0x1F)
    assert (inquiry.is_there, inquiry.is_disk) == (is_there, is_disk)


def test_the_sixteen_byte_naa_identity_is_preferred() -> None:
    """Of a unit's designators the 16 byte NAA one counts before EUI, 8 byte NAA and T10."""
    found = parse_identification_page(
        page(
            designator(1, b"LUNPORT  disk 1\0", code_set=2),
            designator(3, bytes.fromhex("5001405000000001")),
            designator(2, bytes.fromhex("0025385971b04f2e")),
            designator(3, bytes.fromhex(NAA)),
            designator(8, b"iqn.2026-11.org.example,t,0x1", code_set=3),
        )
    )
    assert [one.kind for one in found] == [Kind.NAA_16, Kind.EUI, Kind.NAA_8, Kind.T10, Kind.NAME]
    assert [one.wwid for one in found] == [
        f"naa.{NAA}",
        "eui.0025385971b04f2e",
        "naa.5001405000000001",
        "t10.LUNPORT_disk_1",
        "iqn.2026-11.org.example,t,0x1",
    ]
    assert pick_wwid(found) == f"naa.{NAA}"


def test_designators_of_ports_and_targets_do_not_identify_the_unit() -> None:
    """A designator of the port or the target is no identity of the unit."""
    others = [designator(3, bytes.fromhex(NAA), association=kind) for kind in (1, 2)]
    assert parse_identification_page(page(*others)) == ()
    assert pick_wwid(()) is None


@pytest.mark.parametrize(
    "bad",
    [
        designator(3, bytes(16)),
        designator(3, b"\x60" + bytes(3)),
        designator(2, bytes(5)),
        designator(1, b"bin\x01\xff", code_set=2),
        designator(1, b"text", code_set=1),
        designator(4, bytes(4)),
    ],
)
def test_designators_that_identify_nothing_are_left_out(bad: bytes) -> None:
    """A designator of the wrong length, code set or kind is left out, not guessed at."""
    assert parse_identification_page(page(bad)) == ()


def test_the_serial_page() -> None:
    """A serial comes without the blanks and NULs around it."""
    assert parse_serial_page(page(b"  serial 1 \0", number=PAGE_SERIAL)) == "serial 1"


def test_capacities() -> None:
    """A capacity is the last block plus one, times the block size; (10) may be too small."""
    assert parse_capacity_16((2**32).to_bytes(8) + (512).to_bytes(4)) == (2**32 + 1) * 512
    assert parse_capacity_10((99).to_bytes(4) + (4096).to_bytes(4)) == 100 * 4096
    assert parse_capacity_10(b"\xff\xff\xff\xff" + (512).to_bytes(4)) is None


@given(st.lists(luns(), max_size=10))
def test_report_luns(listed: list[int]) -> None:
    """The LUNs of a report come back in its order."""
    body = b"".join(lun.to_bytes(2) + bytes(6) for lun in listed)
    assert parse_report_luns(len(body).to_bytes(4) + bytes(4) + body) == tuple(listed)


@pytest.mark.parametrize(
    "data, sense",
    [
        ("70000600000000060000000029000000", Sense(6, 0x29, 0)),
        ("f0000500000000060000000025000000", Sense(5, 0x25, 0)),
        ("72022901", Sense(2, 0x29, 1)),
        ("", Sense(0, 0, 0)),
        ("7f", Sense(0, 0, 0)),
        ("700006", Sense(6, 0, 0)),
    ],
)
def test_sense(data: str, sense: Sense) -> None:
    """Fixed and descriptor sense give key, code and qualifier; anything else zeros."""
    assert parse_sense(bytes.fromhex(data)) == sense


PARSERS = (
    parse_inquiry,
    parse_serial_page,
    parse_identification_page,
    parse_capacity_16,
    parse_capacity_10,
    parse_report_luns,
    parse_sense,
)


@given(st.binary(max_size=80), st.sampled_from(PARSERS), st.sampled_from([b"", b"\0\x83\0"]))
def test_any_answer_is_read_or_refused(noise: bytes, parse: object, start: bytes) -> None:
    """Arbitrary bytes give an answer or PduError, and nothing else."""
    assert callable(parse)
    try:
        answer = parse(start + noise)
    except PduError:
        return
    assert answer is None or isinstance(answer, int | str | tuple | Inquiry | Sense)
