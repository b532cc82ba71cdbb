"""Tests of the iSCSI PDU codec and of the text in PDUs."""

from __future__ import annotations

import pytest
from hypothesis import given
from hypothesis import strategies as st

from lunport.core.iqn import Iqn
from lunport.core.iscsi_pdu import (
    HEADER_LENGTH,
    MAX_DATA_LENGTH,
    NO_TAG,
    AsyncMessage,
    DataIn,
    InitiatorPdu,
    LoginRequest,
    LoginResponse,
    LogoutRequest,
    LogoutResponse,
    NopIn,
    NopOut,
    PduError,
    Reject,
    ScsiCommand,
    ScsiResponse,
    TargetPdu,
    TextRequest,
    TextResponse,
    decode_initiator_pdu,
    decode_lun,
    decode_target_pdu,
    parse_lengths,
)
from lunport.core.iscsi_text import (
    DiscoveredTarget,
    decode_keys,
    encode_keys,
    parse_discovered,
    parse_target_address,
)
from lunport.core.portal import Portal

WORDS = st.integers(0, 0xFFFFFFFF)
HALVES = st.integers(0, 0xFFFF)
BYTES = st.integers(0, 0xFF)
DATA = st.binary(max_size=200)
ISIDS = st.binary(min_size=6, max_size=6)
STAGES = st.sampled_from([(0, 1, True), (1, 3, True), (0, 0, False), (1, 0, False)])
KEYS = st.text(st.characters(codec="ascii", categories=["L", "N"]), min_size=1, max_size=63)
VALUES = st.text(st.characters(codec="utf-8", exclude_characters="\0"), max_size=40)

login_requests = STAGES.flatmap(
    lambda stage: st.builds(
        LoginRequest,
        isid=ISIDS,
        tag=WORDS,
        cmd_sn=WORDS,
        exp_stat_sn=WORDS,
        stage=st.just(stage[0]),
        next_stage=st.just(stage[1]),
        transit=st.just(stage[2]),
        keys=DATA,
        continues=st.booleans(),
        tsih=HALVES,
        cid=HALVES,
    )
)
login_responses = STAGES.flatmap(
    lambda stage: st.builds(
        LoginResponse,
        isid=ISIDS,
        tsih=HALVES,
        tag=WORDS,
        stat_sn=WORDS,
        exp_cmd_sn=WORDS,
        max_cmd_sn=WORDS,
        status=HALVES,
        stage=st.just(stage[0]),
        next_stage=st.just(stage[1]),
        transit=st.just(stage[2]),
        keys=DATA,
        continues=st.booleans(),
    )
)
from_initiator = st.one_of(
    login_requests,
    st.builds(TextRequest, WORDS, WORDS, WORDS, WORDS, DATA),
    st.builds(
        ScsiCommand,
        st.binary(min_size=8, max_size=8),
        *(WORDS, WORDS, WORDS),
        st.binary(min_size=16, max_size=16),
        WORDS,
    ),
    st.builds(LogoutRequest, WORDS, WORDS, WORDS),
    st.builds(NopOut, WORDS, WORDS, WORDS, st.binary(min_size=8, max_size=8)),
)
from_target = st.one_of(
    login_responses,
    st.builds(TextResponse, WORDS, WORDS, WORDS, st.booleans(), DATA, st.booleans()),
    st.builds(ScsiResponse, WORDS, WORDS, BYTES, BYTES, WORDS, st.just(True), DATA),
    st.builds(ScsiResponse, WORDS, WORDS, BYTES, BYTES, sense=DATA),
    st.builds(DataIn, WORDS, WORDS, WORDS, DATA, BYTES | st.none(), st.booleans()),
    st.builds(LogoutResponse, WORDS, WORDS, BYTES),
    st.builds(NopIn, WORDS, WORDS, WORDS, st.binary(min_size=8, max_size=8)),
    st.builds(Reject, BYTES, WORDS, DATA),
    st.builds(AsyncMessage, BYTES, WORDS),
)


@given(from_initiator)
def test_what_an_initiator_says_is_read_back(pdu: InitiatorPdu) -> None:
    """Every PDU of an initiator is decoded into what was encoded."""
    assert decode_initiator_pdu(pdu.encode()) == pdu


@given(from_target)
def test_what_a_target_says_is_read_back(pdu: TargetPdu) -> None:
    """Every PDU of a target is decoded into what was encoded."""
    assert decode_target_pdu(pdu.encode()) == pdu


@given(st.one_of(from_initiator, from_target))
def test_length_on_the_wire_is_what_the_header_announces(pdu: InitiatorPdu | TargetPdu) -> None:
    """A PDU has a header, what the header announces, and is a multiple of four bytes."""
    wire = pdu.encode()
    assert len(wire) == HEADER_LENGTH + parse_lengths(wire[:HEADER_LENGTH]).rest
    assert len(wire) % 4 == 0


@given(st.binary(max_size=300), st.sampled_from([decode_target_pdu, decode_initiator_pdu]))
def test_any_bytes_are_read_or_refused(noise: bytes, decode: object) -> None:
    """Arbitrary bytes give a PDU or PduError, and nothing else."""
    assert callable(decode)
    try:
        pdu = decode(noise)
    except PduError:
        return
    assert len(pdu.encode()) >= HEADER_LENGTH


@given(from_target, st.data())
def test_a_damaged_pdu_is_read_or_refused(pdu: TargetPdu, data: st.DataObject) -> None:
    """One flipped byte anywhere gives a PDU or PduError, and nothing else."""
    wire = bytearray(pdu.encode())
    at = data.draw(st.integers(0, len(wire) - 1))
    wire[at] ^= data.draw(st.integers(1, 255))
    try:
        again = decode_target_pdu(bytes(wire))
    except PduError:
        return
    assert len(again.encode()) >= HEADER_LENGTH


def test_a_huge_data_segment_is_refused_by_its_header() -> None:
    """A header that announces more than 64 KiB is refused before anything is read."""
    header = bytearray(NopIn(NO_TAG, NO_TAG, 0).encode())
    header[5:8] = MAX_DATA_LENGTH.to_bytes(3)
    assert parse_lengths(bytes(header)).data == MAX_DATA_LENGTH
    header[5:8] = (MAX_DATA_LENGTH + 1).to_bytes(3)
    with pytest.raises(PduError, match="65537 bytes, more than 65536"):
        parse_lengths(bytes(header))


def test_additional_headers_are_skipped() -> None:
    """A PDU with an additional header segment gives its data, not the segment."""
    wire = Reject(9, 4, b"data").encode()
    longer = wire[:4] + b"\x02" + wire[5:48] + b"12345678" + wire[48:]
    assert decode_target_pdu(longer) == Reject(9, 4, b"data")


@pytest.mark.parametrize(
    "lun, field",
    [(0, "0000"), (255, "00ff"), (257, "0101"), (257, "4101"), (16383, "3fff"), (16383, "7fff")],
)
def test_luns_are_read_however_they_are_addressed(lun: int, field: str) -> None:
    """A LUN field gives its number, in peripheral and in flat addressing (SAM-5 section 4.7)."""
    assert decode_lun(bytes.fromhex(field + "000000000000")) == lun


def test_a_login_request_looks_as_the_rfc_draws_it() -> None:
    """A login request has each field where RFC 7143 section 11.12 draws it."""
    request = LoginRequest(
        isid=bytes.fromhex("80a1a2a3a4a5"),
        tag=0x01020304,
        cmd_sn=5,
        exp_stat_sn=6,
        stage=0,
        next_stage=1,
        transit=True,
        keys=b"a=b\0",
        cid=7,
    )
    assert request.encode().hex(" ", 4) == (
        "43810000 00000004 80a1a2a3 a4a50000 01020304 00070000 00000005 00000006 "
        "00000000 00000000 00000000 00000000 613d6200"
    )


# -- text ------------------------------------------------------------------------------------


@given(st.lists(st.tuples(KEYS, VALUES), max_size=8))
def test_keys_are_read_back(pairs: list[tuple[str, str]]) -> None:
    """Keys and values come back in order, repeated ones too."""
    assert decode_keys(encode_keys(pairs)) == tuple(pairs)


@given(st.binary(max_size=120))
def test_any_text_is_read_or_refused(noise: bytes) -> None:
    """Arbitrary text gives keys that can be sent again, or PduError."""
    try:
        keys = decode_keys(noise)
    except PduError:
        return
    assert decode_keys(encode_keys(keys)) == keys


@given(st.text(max_size=40))
def test_any_target_address_is_read_or_refused(text: str) -> None:
    """An arbitrary TargetAddress gives an address or PduError."""
    try:
        address = parse_target_address(text)
    except PduError:
        return
    assert 1 <= address.portal.port <= 65535


@pytest.mark.parametrize(
    "text, portal, tpgt",
    [
        ("10.0.0.1:3260,1", "10.0.0.1:3260", 1),
        ("10.0.0.1", "10.0.0.1:3260", None),
        ("[fd00::2]:3261,65535", "[fd00::2]:3261", 65535),
        ("san.example:3260,2", "san.example:3260", 2),
    ],
)
def test_target_addresses(text: str, portal: str, tpgt: int | None) -> None:
    """A TargetAddress has a port and a portal group tag, or their defaults."""
    address = parse_target_address(text)
    assert (str(address.portal), address.tpgt) == (portal, tpgt)


def test_a_list_of_targets() -> None:
    """Each target is listed at each address, or where it was asked for when it has none."""
    keys = (
        ("TargetName", "iqn.2026-11.org.example:a"),
        ("TargetAddress", "10.0.0.1:3260,1"),
        ("TargetAddress", "[fe80::1%eth0]:3260,1"),
        ("TargetAddress", "10.0.0.2:3260,2"),
        ("TargetName", "iqn.2026-11.org.example:b"),
        ("TargetName", "not a name"),
        ("TargetAddress", "10.0.0.3:3260,1"),
    )
    asked = Portal("10.9.9.9")
    assert parse_discovered(keys, asked) == (
        DiscoveredTarget(Portal("10.0.0.1"), 1, Iqn("iqn.2026-11.org.example:a")),
        DiscoveredTarget(Portal("10.0.0.2"), 2, Iqn("iqn.2026-11.org.example:a")),
        DiscoveredTarget(asked, None, Iqn("iqn.2026-11.org.example:b")),
    )


def test_an_address_of_no_target_is_refused() -> None:
    """An address before any name is refused, since nobody knows whose it is."""
    with pytest.raises(PduError, match="before any TargetName"):
        parse_discovered((("TargetAddress", "10.0.0.1"),), Portal("10.0.0.1"))
