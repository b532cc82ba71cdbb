"""Tests of the table from verdicts to errors."""

from __future__ import annotations

import pytest

from lunport.core.errors import AuthenticationFailed, IscsiError, Remedy, WrongDevice
from lunport.core.portal import Portal
from lunport.core.probe_outcome import (
    ERRORS,
    LOGIN_STATUSES,
    ProbeOutcome,
    Verdict,
    login_verdict,
    outcome_error,
)
from lunport.core.wwid import Wwid

PORTAL = Portal("10.0.0.1")


@pytest.mark.parametrize("verdict", Verdict)
def test_each_verdict_has_its_error(verdict: Verdict) -> None:
    """Every verdict is in the table, and gives an error unless the path is healthy."""
    assert verdict in ERRORS
    outcome = ProbeOutcome(verdict, PORTAL, 0.5, detail="some words")
    error = outcome_error(outcome, "the path")
    assert (error is None) == outcome.is_healthy == (verdict is Verdict.REACHABLE)
    if isinstance(error, IscsiError):
        assert str(error) == "the path: some words, after 0.50 s"


@pytest.mark.parametrize("verdict", Verdict)
def test_only_credentials_are_final(verdict: Verdict) -> None:
    """Only what another portal of the target would refuse as well ends the search."""
    error = outcome_error(ProbeOutcome(verdict, PORTAL, 0.5), "the path")
    is_final = error is not None and error.remedy is Remedy.NEVER
    assert is_final == (verdict in {Verdict.CHAP_REJECTED, Verdict.TARGET_NOT_TRUSTED})
    assert is_final == isinstance(error, AuthenticationFailed)


def test_a_wrong_identity_names_both() -> None:
    """A wrong unit's error says what was promised and what was found."""
    wanted, found = Wwid("naa.6" + "0" * 31), Wwid("naa.6" + "1" * 31)
    outcome = ProbeOutcome(Verdict.WRONG_IDENTITY, PORTAL, 0.1, wwid=found, expected_wwid=wanted)
    error = outcome_error(outcome, "the path")
    assert isinstance(error, WrongDevice)
    assert (error.expected, error.found) == (wanted, found)


def test_silence_is_of_the_portal() -> None:
    """Only what no target can have said counts as a dead portal."""
    assert {verdict for verdict in Verdict if verdict.is_silence} == {
        Verdict.REFUSED,
        Verdict.UNREACHABLE,
        Verdict.TIMED_OUT,
        Verdict.CLOSED,
    }


def test_every_login_status_of_the_rfc_is_known() -> None:
    """All statuses of RFC 7143 section 11.13.5 that are no success and no redirect are known."""
    initiator = {0x0200 + detail for detail in range(0x0C)}
    target = {0x0300, 0x0301, 0x0302}
    assert set(LOGIN_STATUSES) == initiator | target
    assert all(
        login_verdict(status)[0] is not Verdict.REACHABLE for status in range(0x0200, 0xFFFF)
    )
