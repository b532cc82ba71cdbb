"""Tests of errors as documents between processes of one host."""

from __future__ import annotations

import inspect
import json

import pytest
from hypothesis import given

from lunport.cli.exit_codes import exit_code_of
from lunport.core import errors
from lunport.core.error_document import format_error, parse_error
from lunport.core.errors import (
    AllPathsFailed,
    DeviceBusy,
    LunportError,
    PortalUnreachable,
    UndoFailed,
    WrongDevice,
)
from tests import strategies

ALL = [
    value
    for value in vars(errors).values()
    if isinstance(value, type) and issubclass(value, LunportError)
]
SAMPLES: dict[str, object] = {
    "argv": ("iscsiadm", "--login"),
    "attempts": (PortalUnreachable("10.0.1.2:3260", "refused"), WrongDevice("a", "b", "c")),
    "cause": DeviceBusy("/dev/sda", ["mounted on /mnt"]),
    "failures": (PortalUnreachable("10.0.1.2:3260", "refused"),),
    "seconds": (0.5, None),
    "openers": ("qemu (pid 4711)",),
    "needed_bytes": 2**30,
    "free_bytes": 2**20,
}


def _make(kind: type[LunportError]) -> LunportError:
    if kind.__init__ is Exception.__init__:
        return kind("it failed")
    names = [name for name in inspect.signature(kind).parameters if name not in ("args", "kwargs")]
    numbers = {
        name: 3 for name in names if name.endswith(("_s", "status", "limit", "used", "code"))
    }
    samples = {**numbers, "requested": 2, **SAMPLES}
    return kind(*(samples.get(name, f"the-{name}") for name in names))


def _there_and_back(error: BaseException) -> LunportError:
    return parse_error(json.loads(json.dumps(format_error(error))))


@pytest.mark.parametrize("kind", ALL)
def test_every_error_arrives_as_what_it_was(kind: type[LunportError]) -> None:
    """Class, sentence, exit status and what a planner may do are the same on the other side."""
    error = _make(kind)
    twin = _there_and_back(error)
    assert type(twin) is kind
    assert (str(twin), twin.remedy) == (str(error), error.remedy)
    assert exit_code_of(twin) == exit_code_of(error)


def test_errors_within_errors_arrive() -> None:
    """The attempts of a failed connect, and the cause of a failed undo, are errors again."""
    failed = AllPathsFailed([WrongDevice("10.0.1.2:3260", "naa.6001", "naa.6002")])
    twin = _there_and_back(UndoFailed(failed, [DeviceBusy("/dev/sda", ["mounted on /mnt"])]))
    assert isinstance(twin, UndoFailed)
    assert isinstance(twin.cause, AllPathsFailed)
    assert isinstance(twin.cause.attempts[0], WrongDevice)
    assert isinstance(twin.failures[0], DeviceBusy)
    assert twin.failures[0].openers == ("mounted on /mnt",)


def test_others_errors_and_newer_ones_keep_their_sentence() -> None:
    """What is no class of ours, or not yet, becomes one that says the same."""
    assert str(_there_and_back(OSError("no space left"))) == "no space left"
    newer = {"kind": "SolarFlare", "message": "a bit is wrong", "fields": ["bit"]}
    assert str(parse_error(newer)) == "a bit is wrong"
    fewer = {"kind": "DeviceBusy", "message": "/dev/sda is in use", "fields": ["/dev/sda"]}
    assert str(parse_error(fewer)) == "/dev/sda is in use"
    no_error = {"kind": "Sequence", "message": "odd", "fields": []}
    assert type(parse_error(no_error)) is LunportError


@given(strategies.json_values())
def test_junk_is_an_error_as_well(value: object) -> None:
    """Whatever comes is an error with a sentence, and never another exception."""
    for document in (value, {"kind": "WrongDevice", "message": value, "fields": value}):
        assert isinstance(str(parse_error(document)), str)


@given(strategies.json_values())
def test_fields_of_any_kind(value: object) -> None:
    """Fields that no error of ours has make no other exception, for any class."""
    for kind in ("CommandError", "AllPathsFailed", "UndoFailed", "OutOfSpace", "InvalidInput"):
        document = {"kind": kind, "message": "m", "fields": [value, value, value, value]}
        assert isinstance(str(parse_error(document)), str)
