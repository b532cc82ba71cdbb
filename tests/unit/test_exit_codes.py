"""Tests of the table of exit codes."""

from __future__ import annotations

from collections.abc import Iterator

import pytest

from lunport.cli.exit_codes import CODES, ExitCode, exit_code_of
from lunport.core import errors
from lunport.core.errors import (
    AllPathsFailed,
    AuthenticationFailed,
    LoginTimedOut,
    LunportError,
    PortalUnreachable,
    UndoFailed,
    VolumeNotFound,
    WrongDevice,
)
from lunport.core.portal import Portal
from lunport.core.probe_outcome import ProbeOutcome, Verdict, outcome_error

TIMED_OUT = LoginTimedOut("a", "silent")
REFUSED = PortalUnreachable("b", "refused")

# What each verdict of a probe makes the command's status.
VERDICTS = {
    Verdict.REACHABLE: ExitCode.OK,
    Verdict.REFUSED: ExitCode.UNREACHABLE,
    Verdict.UNREACHABLE: ExitCode.UNREACHABLE,
    Verdict.CLOSED: ExitCode.UNREACHABLE,
    Verdict.TIMED_OUT: ExitCode.TIMEOUT,
    Verdict.CANCELLED: ExitCode.TIMEOUT,
    Verdict.TARGET_UNKNOWN: ExitCode.NOT_FOUND,
    Verdict.LUN_ABSENT: ExitCode.NOT_FOUND,
    Verdict.FORBIDDEN: ExitCode.AUTH,
    Verdict.CHAP_REJECTED: ExitCode.AUTH,
    Verdict.TARGET_NOT_TRUSTED: ExitCode.AUTH,
    Verdict.WRONG_IDENTITY: ExitCode.WRONG_DEVICE,
    Verdict.NOT_READY: ExitCode.FAILED,
    Verdict.PROTOCOL_ERROR: ExitCode.FAILED,
}


def every_class(root: type[LunportError]) -> Iterator[type[LunportError]]:
    """Walk the error tree."""
    yield root
    for child in root.__subclasses__():
        yield from every_class(child)


def test_every_class_in_the_table_is_of_the_tree() -> None:
    """The table names classes of the error tree only, and its root, so nothing is without code."""
    assert LunportError in CODES
    assert set(CODES) <= {*every_class(LunportError)}


@pytest.mark.parametrize("kind", sorted(every_class(LunportError), key=repr))
def test_no_error_is_a_success(kind: type[LunportError]) -> None:
    """Whatever fails, the status is not 0, nor the one of something that worked."""
    error = kind.__new__(kind)
    if isinstance(error, AllPathsFailed):
        error.attempts = ()
    if isinstance(error, UndoFailed):
        error.cause = REFUSED
    if isinstance(error, errors.VolumeApiRefused):
        error.code = 400
    assert exit_code_of(error) not in {ExitCode.OK, ExitCode.DEGRADED}


@pytest.mark.parametrize("verdict", Verdict)
def test_every_verdict_has_its_code(verdict: Verdict) -> None:
    """Each verdict of a probe gives the code in the table above."""
    error = outcome_error(ProbeOutcome(verdict, Portal("10.0.0.1"), 0.1), "path")
    assert VERDICTS[verdict] == (exit_code_of(error) if error is not None else 0)


@pytest.mark.parametrize(
    "error, code",
    [
        (errors.InvalidPortal("portal", "x", "bad"), 2),
        (VolumeNotFound("v"), 3),
        (errors.InvalidState("volume", "v", "in-use", "available"), 4),
        (errors.NotAuthenticated(), 6),
        (errors.VolumeApiRefused("POST /attachments", 400, "must be available"), 4),
        (errors.VolumeApiRefused("POST /attachments", 403, "not yours"), 6),
        (errors.CommandTimedOut(["sleep"], 1.0), 7),
        (errors.StoreUnavailable("down"), 5),
        (WrongDevice("sda", "a", "b"), 9),
        (AllPathsFailed([TIMED_OUT, TIMED_OUT]), 7),
        (AllPathsFailed([TIMED_OUT, REFUSED]), 5),
        (AllPathsFailed([AuthenticationFailed("a", "b")]), 6),
        (AllPathsFailed([]), 5),
        (UndoFailed(VolumeNotFound("v"), []), 3),
        (KeyError("not ours"), 1),
    ],
)
def test_codes(error: Exception, code: int) -> None:
    """Errors give the code of their nearest class; several attempts their common one."""
    assert exit_code_of(error) == code
