"""Tests of the string that does not show itself."""

from __future__ import annotations

import copy
import dataclasses
import json
import pickle

import pytest
from hypothesis import given
from hypothesis import strategies as st

from lunport.core.chap import ChapCredentials
from lunport.core.secret import Secret

TEXT = "correct-horse-battery"


@pytest.mark.parametrize(
    "shown",
    [
        str(Secret(TEXT)),
        repr(Secret(TEXT)),
        f"{Secret(TEXT)}",
        f"{Secret(TEXT)!r:>40}",
        f"{Secret(TEXT):>40}",
        "%s %r" % (Secret(TEXT), Secret(TEXT)),  # noqa: UP031 - the form logging uses
        repr([Secret(TEXT)]),
        repr(ChapCredentials("user", Secret(TEXT))),
        repr(dataclasses.asdict(ChapCredentials("user", Secret(TEXT)))),
    ],
)
def test_never_shown(shown: str) -> None:
    """No way of turning a secret into text shows it."""
    assert TEXT not in shown
    assert "***" in shown


def test_revealed_on_request() -> None:
    """The text comes out by the one method for it."""
    assert Secret(TEXT).reveal() == TEXT


@given(st.text(), st.text())
def test_equality(one: str, other: str) -> None:
    """Secrets are equal, and hash alike, exactly if their texts are equal."""
    assert (Secret(one) == Secret(other)) is (one == other)
    assert Secret(one) == Secret(one)
    assert hash(Secret(one)) == hash(Secret(one))


def test_lone_surrogates_compare() -> None:
    """A text that is no valid Unicode can still be compared."""
    assert Secret("\ud800") == Secret("\ud800")
    assert Secret("\ud800") != Secret("x")


def test_not_equal_to_its_text() -> None:
    """A secret is not equal to a plain string, so that no plain one slips into its place."""
    assert Secret(TEXT) != TEXT


def test_copied_but_not_serialised() -> None:
    """A secret can be copied with its owner; pickling and JSON refuse it."""
    assert copy.copy(Secret(TEXT)) == Secret(TEXT)
    assert copy.deepcopy([Secret(TEXT)]) == [Secret(TEXT)]
    with pytest.raises(TypeError):
        pickle.dumps(Secret(TEXT))
    with pytest.raises(TypeError):
        json.dumps(Secret(TEXT))


def test_no_dictionary() -> None:
    """A secret has no ``__dict__`` that a debugger or a logger would walk."""
    assert not hasattr(Secret(TEXT), "__dict__")
