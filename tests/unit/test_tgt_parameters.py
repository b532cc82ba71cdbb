"""The parameters of requests to tgtd: what can be written, and what must not be."""

from __future__ import annotations

from pathlib import Path

import pytest
from hypothesis import given
from hypothesis import strategies as st

from lunport.core.errors import InvalidInput
from lunport.core.secret import Secret
from lunport.host.tgt_socket import Answer, TgtStatus, format_parameters

PLAIN = st.text(st.characters(exclude_characters=",\0\n", codec="utf-8"))


@given(PLAIN, st.integers(), PLAIN)
def test_values_without_commas_can_be_told_apart(one: str, number: int, other: str) -> None:
    """What is written splits into what was given."""
    written = format_parameters(path=Path("/x"), scsi_id=one, number=number, last=other)
    pairs = [pair.partition("=")[::2] for pair in written.decode().split(",")]
    expected = [("path", "/x"), ("scsi_id", one), ("number", str(number)), ("last", other)]
    assert pairs == expected


@pytest.mark.parametrize("value", ["a,b", ",", "a\0b", "a\nb"])
def test_what_the_protocol_cannot_carry_is_refused(value: str) -> None:
    """Commas, NULs and newlines in a value are an error that names the key."""
    with pytest.raises(InvalidInput, match="path"):
        format_parameters(path=value)


def test_a_secret_may_hold_commas_and_comes_last() -> None:
    """A secret is read to the end of the request, so it may hold anything, but only there."""
    assert format_parameters(user="u", password=Secret("a,b=c")) == b"user=u,password=a,b=c"
    with pytest.raises(TypeError):
        format_parameters(password=Secret("a"), user="u")


def test_a_refused_secret_does_not_show_itself() -> None:
    """The error for a secret that cannot be sent holds no secret."""
    with pytest.raises(InvalidInput) as caught:
        format_parameters(user="u", password=Secret("hidden\nsecret"))
    assert "hidden" not in str(caught.value) + repr(caught.value)


@pytest.mark.parametrize("status", TgtStatus)
def test_every_status_has_a_sentence(status: TgtStatus) -> None:
    """Whatever tgtd answers can be said in words."""
    assert Answer(status, "", 1).sentence
