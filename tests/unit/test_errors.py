"""Tests of the error tree."""

from __future__ import annotations

import copy
import inspect
import pickle
import re

import pytest

from lunport.core import errors
from lunport.core.errors import (
    AllPathsFailed,
    CommandError,
    InvalidLun,
    LoginTimedOut,
    LunportError,
    PortalUnreachable,
    Remedy,
    UndoFailed,
    shorten,
)
from lunport.core.secret import Secret

ALL = [
    value
    for value in vars(errors).values()
    if isinstance(value, type) and issubclass(value, LunportError)
]
# One sample for each name that a constructor takes.
SAMPLES: dict[str, object] = {
    "argv": ("tgtadm", "--lld", "iscsi"),
    "attempts": (LoginTimedOut("10.0.1.2:3260", "no answer within 2.0 s"),),
    "cause": ValueError("the first step"),
    "failures": (OSError("the undo"),),
    "value": "a-value",
    "elapsed_s": 1.25,
    "seconds": (0.5,),
    "timeout_s": 2.5,
    "status": 22,
    "limit": 10,
    "used": 9,
    "requested": 2,
    "needed_bytes": 2**30,
    "free_bytes": 2**20,
    "openers": ("qemu-system-x86 (pid 4711)",),
    "waited_s": 5.0,
}


def _make(kind: type[LunportError]) -> tuple[LunportError, dict[str, object]]:
    if kind.__init__ is Exception.__init__:
        return kind(), {}
    names = [name for name in inspect.signature(kind).parameters if name not in ("args", "kwargs")]
    fields = {name: SAMPLES.get(name, f"the-{name}") for name in names}
    return kind(*fields.values()), fields


@pytest.mark.parametrize("kind", ALL)
def test_fields_in_sentence_out(kind: type[LunportError]) -> None:
    """Every error keeps its fields and writes a sentence from them."""
    error, fields = _make(kind)
    for name, value in fields.items():
        assert getattr(error, name) == value
        if isinstance(value, str) and name != "volume_id":
            assert value in str(error)
    assert "\n" not in str(error)
    assert isinstance(error.remedy, Remedy)


@pytest.mark.parametrize("kind", ALL)
def test_errors_can_be_copied_and_sent(kind: type[LunportError]) -> None:
    """Every error survives copying and pickling with its sentence, as worker threads need."""
    error, _ = _make(kind)
    for twin in (copy.copy(error), pickle.loads(pickle.dumps(error))):
        assert type(twin) is kind
        assert str(twin) == str(error)


def test_the_drawn_tree_is_the_tree() -> None:
    """Each class is drawn in the module's docstring, and each drawn class exists."""
    assert errors.__doc__ is not None
    drawn = set(re.findall(r"\b[A-Z][a-z]+(?:[A-Z][a-z]+)*\b", _tree(errors.__doc__)))
    assert drawn == {kind.__name__ for kind in ALL}


def _tree(doc: str) -> str:
    lines = doc[doc.index("LunportError") :].splitlines()
    return "\n".join(line for line in lines if line.startswith("      ") or "Error" in line)


def test_a_secret_in_an_argv_is_masked() -> None:
    """A command's error shows its words, and stars for its secrets."""
    error = CommandError(["tool", "--password", Secret("hush-hush")], 1, "", 0.1)
    assert str(error) == "tool --password *** ended with status 1 after 0.1 s: it said nothing"
    assert "hush-hush" not in repr(error)


def test_nothing_to_try() -> None:
    """A plan without a path says so."""
    assert str(AllPathsFailed([])) == "There was no path to try."


def test_each_path_says_what_it_took() -> None:
    """Where an error does not say after how long it came, the whole does."""
    refused = PortalUnreachable("10.0.1.2:3260", "refused, after 0.10 s")
    late = LoginTimedOut("10.0.2.2:3260", "no answer")
    assert str(AllPathsFailed([refused, late], [None, 3.25])) == (
        "All 2 paths failed: 10.0.1.2:3260: refused, after 0.10 s; "
        "10.0.2.2:3260: no answer (after 3.25 s)"
    )


def test_the_cause_comes_first() -> None:
    """A failed undo tells first what it wanted to undo."""
    error = UndoFailed(ValueError("first"), [OSError("second"), OSError("third")])
    assert str(error) == "first (and the undo failed: second; third)"


@pytest.mark.parametrize(
    "value",
    [10**5000, "x" * 10**6, ["x"] * 1000, {"k": "x\n" * 500}],
    ids=["number", "text", "list", "object"],
)
def test_large_values_are_shown_short(value: object) -> None:
    """A value of any size is shown on one line of bounded length."""
    assert len(shorten(value)) <= 80
    assert "\n" not in shorten(value)
    assert str(InvalidLun("LUN", value, "too large"))


def test_nesting_without_end_is_shown() -> None:
    """A value that is nested deeper than Python can show does not break the error."""
    value: object = "x"
    for _ in range(100_000):
        value = [value]
    assert shorten(value) == "a list that is too large to show"
