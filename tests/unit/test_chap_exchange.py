"""Tests of CHAP's arithmetic."""

from __future__ import annotations

import hashlib

import pytest
from hypothesis import given
from hypothesis import strategies as st

from lunport.core.chap_exchange import (
    OFFERED,
    answer_challenge,
    format_binary,
    is_right_answer,
    parse_binary,
    parse_identifier,
)
from lunport.core.iscsi_pdu import PduError
from lunport.core.secret import Secret

SECRET = Secret("Secret4Tests1234")
CHALLENGE = bytes(range(16))


@given(st.binary(min_size=1, max_size=1024))
def test_binary_values_are_read_back(value: bytes) -> None:
    """A binary value comes back from its hex form."""
    assert parse_binary(format_binary(value)) == value


@pytest.mark.parametrize("text", ["0xAAFF01", "0Xaaff01", "0bqv8B", "0Bqv8B"])
def test_both_encodings_are_read(text: str) -> None:
    """Hex and base64 are read in either case of their prefix."""
    assert parse_binary(text).hex() == "aaff01"


def test_odd_hex_and_bare_base64_are_read() -> None:
    """A hex value with an odd number of digits, and base64 without padding, are read."""
    assert parse_binary("0xfff") == b"\x0f\xff"
    assert parse_binary("0bqv8") == b"\xaa\xff"


@given(st.text(max_size=60))
def test_any_text_is_read_or_refused(text: str) -> None:
    """An arbitrary text gives bytes or PduError."""
    for prefix in ("", "0x", "0b"):
        try:
            assert parse_binary(prefix + text) is not None
        except PduError:
            continue


@pytest.mark.parametrize("text", ["", "0x", "0b", "12", "0x1g", "0x 1", "0b=", "0x" + "0" * 2050])
def test_bad_values_are_refused(text: str) -> None:
    """What is neither hex nor base64, or is too long, is refused."""
    with pytest.raises(PduError):
        parse_binary(text)


@pytest.mark.parametrize(
    "algorithm, name", [("5", "md5"), ("6", "sha1"), ("7", "sha256"), ("8", "sha3_256")]
)
def test_the_answer_is_the_digest_of_identifier_secret_and_challenge(
    algorithm: str, name: str
) -> None:
    """Each algorithm digests identifier, secret and challenge in this order (RFC 1994)."""
    wanted = hashlib.new(name, b"\x07Secret4Tests1234" + CHALLENGE).digest()
    answer = answer_challenge(algorithm, 7, SECRET, CHALLENGE)
    assert answer == wanted
    assert is_right_answer(algorithm, 7, SECRET, CHALLENGE, answer)
    assert not is_right_answer(algorithm, 8, SECRET, CHALLENGE, answer)
    assert not is_right_answer(algorithm, 7, Secret("other"), CHALLENGE, answer)


def test_md5_is_offered_first() -> None:
    """MD5 stands first, because tgt takes 7 for SHA-1 and QEMU knows nothing else."""
    assert OFFERED[0] == "5"
    assert set(OFFERED) == {"5", "6", "7", "8"}


@pytest.mark.parametrize("algorithm", ["", "4", "MD5"])
def test_an_algorithm_that_was_not_offered_is_refused(algorithm: str) -> None:
    """A target cannot make us use what we did not offer."""
    with pytest.raises(PduError, match="not offered"):
        answer_challenge(algorithm, 7, SECRET, CHALLENGE)


@pytest.mark.parametrize("text", ["", "-1", "256", "x", "0x07", "1e1"])
def test_bad_identifiers_are_refused(text: str) -> None:
    """An identifier is a number from 0 to 255."""
    assert parse_identifier("255") == 255
    with pytest.raises(PduError):
        parse_identifier(text)
