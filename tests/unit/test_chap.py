"""Tests of CHAP credentials."""

from __future__ import annotations

import pytest
from hypothesis import given

from lunport.core import chap
from lunport.core.chap import ChapCredentials, parse_chap_credentials
from lunport.core.errors import InvalidInput
from lunport.core.secret import Secret
from tests import strategies


@given(strategies.chap_credentials())
def test_credentials_are_kept(credentials: ChapCredentials) -> None:
    """A name and a secret that can be sent are kept as they are."""
    found = parse_chap_credentials(credentials.username, credentials.password.reveal(), what="auth")
    assert found == credentials


@given(strategies.json_values(), strategies.json_values())
def test_anything_parses_or_is_refused(username: object, password: object) -> None:
    """Whatever is given, the result can be put on one line of a record, or InvalidInput."""
    try:
        found = parse_chap_credentials(username, password, what="auth")
    except InvalidInput:
        return
    for text in (found.username, found.password.reveal()):
        assert text.isprintable()
        assert 1 <= len(text.encode()) <= chap.MAX_LENGTH


@pytest.mark.parametrize(
    "username",
    ["", "a\nb", "a\0", "x" * 256, "ö" * 128, "\ud800", None, 7, b"user", ["user"]],
)
def test_usernames_refused(username: object) -> None:
    """A name that cannot be sent is refused and shown."""
    with pytest.raises(InvalidInput) as caught:
        parse_chap_credentials(username, "secret-secret", what="auth")
    assert caught.value.what == "auth username"
    assert caught.value.value == username


@pytest.mark.parametrize(
    "password",
    ["", "hush\nhush", "hush\0", "hush" * 64, "\ud800hush", None, 7, b"hush", ["hush"]],
)
def test_passwords_refused_unseen(password: object) -> None:
    """A secret that cannot be sent is refused, and not shown."""
    with pytest.raises(InvalidInput) as caught:
        parse_chap_credentials("user", password, what="auth")
    assert caught.value.what == "auth password"
    assert "hush" not in str(caught.value) + repr(caught.value)


def test_generated_secrets_suit_initiators() -> None:
    """Generated secrets have the 12 to 16 letters and digits that all initiators take."""
    assert 12 <= chap.PASSWORD_LENGTH <= 16
    assert chap.ALPHABET.isascii()
    assert chap.ALPHABET.isalnum()
    sample = (chap.ALPHABET * 2)[: chap.PASSWORD_LENGTH]
    assert parse_chap_credentials("user", sample, what="auth").password == Secret(sample)
