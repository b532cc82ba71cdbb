"""Tests of the login fold, without a socket: responses in, steps out."""

from __future__ import annotations

from dataclasses import replace

import pytest
from hypothesis import given
from hypothesis import strategies as st

from lunport.core.chap import Chap, ChapCredentials
from lunport.core.chap_exchange import (
    answer_challenge,
    format_binary,
    is_right_answer,
    parse_binary,
)
from lunport.core.iqn import Iqn
from lunport.core.iscsi_login import (
    Ask,
    Denied,
    LoggedIn,
    LoginIntent,
    LoginStep,
    Redirected,
    advance_login,
    begin_login,
    make_isid,
)
from lunport.core.iscsi_pdu import LoginResponse, PduError
from lunport.core.iscsi_text import decode_keys, encode_keys
from lunport.core.probe_outcome import Verdict
from lunport.core.secret import Secret

TARGET = Iqn("iqn.2026-11.org.example:volume-1")
ONE_WAY = Chap(ChapCredentials("user", Secret("Secret4Tests1234")))
MUTUAL = Chap(ONE_WAY.initiator, ChapCredentials("target", Secret("Target4Tests1234")))
CHALLENGE = format_binary(b"target's challenge")
INTENT = LoginIntent(
    initiator=Iqn("iqn.2026-11.org.example:host"),
    target=TARGET,
    chap=None,
    isid=make_isid(b"abcde"),
    challenge=b"our own challenge",
    challenge_id=9,
)


def respond(
    ask: Ask, *keys: tuple[str, str], transit: bool | None = None, status: int = 0
) -> LoginStep:
    """Answer a request as a target would, going on when asked to unless told otherwise."""
    request = ask.request
    response = LoginResponse(
        isid=request.isid,
        tsih=1,
        tag=request.tag,
        stat_sn=3,
        exp_cmd_sn=1,
        max_cmd_sn=2,
        status=status,
        stage=request.stage,
        next_stage=request.next_stage,
        transit=request.transit if transit is None else transit,
        keys=encode_keys(keys),
    )
    return advance_login(ask.state, response)


def asked(step: LoginStep) -> Ask:
    """Expect a further request."""
    assert isinstance(step, Ask)
    return step


def keys_of(ask: Ask) -> dict[str, str]:
    """Return what a request says."""
    return dict(decode_keys(ask.request.keys))


def challenged(chap: Chap, algorithm: str = "5") -> Ask:
    """Log in up to the point where our answer to the challenge is on its way."""
    first = begin_login(replace(INTENT, chap=chap))
    offer = asked(respond(first, ("AuthMethod", "CHAP"), transit=False))
    assert keys_of(offer) == {"CHAP_A": "5,7,6,8"}
    keys = ("CHAP_A", algorithm), ("CHAP_I", "7"), ("CHAP_C", CHALLENGE)
    return asked(respond(offer, *keys, transit=False))


def test_a_login_without_chap() -> None:
    """Without CHAP a login takes two rounds: who we are, then the parameters."""
    first = begin_login(INTENT)
    assert keys_of(first) == {
        "InitiatorName": "iqn.2026-11.org.example:host",
        "SessionType": "Normal",
        "TargetName": TARGET,
        "AuthMethod": "None",
    }
    second = asked(respond(first, ("AuthMethod", "None")))
    assert keys_of(second)["HeaderDigest"] == "None"
    assert respond(second) == LoggedIn(exp_stat_sn=4, cmd_sn=1)


@pytest.mark.parametrize("told, tpgt", [("1", 1), ("0", 0), ("65536", None), ("one", None)])
def test_the_portal_group_is_told_by_the_target(told: str, tpgt: int | None) -> None:
    """The portal group's tag of the first response is kept; a tag that is none is as untold."""
    keys = ("TargetPortalGroupTag", told), ("AuthMethod", "None")
    second = asked(respond(begin_login(INTENT), *keys))
    assert respond(second) == LoggedIn(exp_stat_sn=4, cmd_sn=1, tpgt=tpgt)


def test_a_discovery_session_names_no_target() -> None:
    """A discovery session says so, names no target and offers no I/O parameters."""
    first = begin_login(replace(INTENT, target=None))
    assert keys_of(first)["SessionType"] == "Discovery"
    assert "TargetName" not in keys_of(first)
    assert "MaxConnections" not in keys_of(asked(respond(first, ("AuthMethod", "None"))))


def test_the_isid_is_a_random_one() -> None:
    """The ISID is of the random type (T=10b), so it is nobody's configured one."""
    assert make_isid(b"\xff\xff\xff\xff\xff").hex() == "80ffffffffff"
    assert begin_login(INTENT).request.isid == b"\x80abcde"


@pytest.mark.parametrize("algorithm", ["5", "6", "7", "8"])
def test_one_way_chap_proves_the_initiator(algorithm: str) -> None:
    """With one-way CHAP the answer proves that we know the secret, and nothing is asked back."""
    answer = challenged(ONE_WAY, algorithm)
    keys = keys_of(answer)
    proof = parse_binary(keys["CHAP_R"])
    assert keys["CHAP_N"] == "user"
    assert is_right_answer(algorithm, 7, ONE_WAY.initiator.password, b"target's challenge", proof)
    assert "CHAP_C" not in keys
    assert isinstance(respond(asked(respond(answer))), LoggedIn)


def test_mutual_chap_accepts_a_target_that_proves_itself() -> None:
    """With mutual CHAP the target answers our challenge with its own name and secret."""
    answer = challenged(MUTUAL)
    assert keys_of(answer)["CHAP_C"] == format_binary(INTENT.challenge)
    assert keys_of(answer)["CHAP_I"] == "9"
    assert MUTUAL.mutual is not None
    proof = answer_challenge("5", 9, MUTUAL.mutual.password, INTENT.challenge)
    step = respond(answer, ("CHAP_N", "target"), ("CHAP_R", format_binary(proof)))
    assert isinstance(respond(asked(step)), LoggedIn)


@pytest.mark.parametrize(
    "name, secret",
    [("target", "Secret4Tests1234"), ("other", "Target4Tests1234"), ("target", "")],
    ids=["our own secret", "another name", "no secret"],
)
def test_mutual_chap_refuses_a_target_that_does_not(name: str, secret: str) -> None:
    """A wrong proof, or a right one under another name, is not trusted."""
    proof = answer_challenge("5", 9, Secret(secret), INTENT.challenge)
    step = respond(challenged(MUTUAL), ("CHAP_N", name), ("CHAP_R", format_binary(proof)))
    assert isinstance(step, Denied)
    assert step.verdict is Verdict.TARGET_NOT_TRUSTED


def test_mutual_chap_refuses_silence_and_skipping() -> None:
    """A target that gives no proof, or goes on without CHAP at all, is not trusted."""
    silent = respond(challenged(MUTUAL))
    skipping = respond(begin_login(replace(INTENT, chap=MUTUAL)), transit=True)
    for step in (silent, skipping):
        assert isinstance(step, Denied | Ask)
        assert isinstance(step, Denied)
        assert step.verdict is Verdict.TARGET_NOT_TRUSTED


def test_a_reflected_challenge_is_not_answered() -> None:
    """A target that sends our own challenge back would prove itself with our answer."""
    first = begin_login(replace(INTENT, chap=MUTUAL))
    offer = asked(respond(first, ("AuthMethod", "CHAP"), transit=False))
    ours = format_binary(INTENT.challenge)
    step = respond(offer, ("CHAP_A", "5"), ("CHAP_I", "9"), ("CHAP_C", ours), transit=False)
    assert isinstance(step, Denied)
    assert step.verdict is Verdict.TARGET_NOT_TRUSTED


def test_chap_is_not_offered_as_optional_when_the_target_must_prove_itself() -> None:
    """One-way CHAP lets the target do without; mutual CHAP does not."""
    assert keys_of(begin_login(replace(INTENT, chap=ONE_WAY)))["AuthMethod"] == "CHAP,None"
    assert keys_of(begin_login(replace(INTENT, chap=MUTUAL)))["AuthMethod"] == "CHAP"


def test_a_target_without_chap_is_logged_in_to_with_one_way_credentials() -> None:
    """A target that wants no proof gets none, and the login goes on."""
    first = begin_login(replace(INTENT, chap=ONE_WAY))
    leave = asked(respond(first, ("AuthMethod", "None"), transit=False))
    assert leave.request.transit
    assert isinstance(respond(asked(respond(leave))), LoggedIn)


@pytest.mark.parametrize(
    "status, verdict",
    [
        (0x0201, Verdict.CHAP_REJECTED),
        (0x0202, Verdict.FORBIDDEN),
        (0x0203, Verdict.TARGET_UNKNOWN),
        (0x0204, Verdict.TARGET_UNKNOWN),
        (0x0206, Verdict.NOT_READY),
        (0x0301, Verdict.NOT_READY),
        (0x03FF, Verdict.NOT_READY),
        (0x020B, Verdict.PROTOCOL_ERROR),
        (0x0900, Verdict.PROTOCOL_ERROR),
    ],
)
def test_login_statuses(status: int, verdict: Verdict) -> None:
    """Each login status gives its verdict, and the words show the number."""
    step = respond(begin_login(INTENT), status=status, transit=False)
    assert isinstance(step, Denied)
    assert step.verdict is verdict
    assert f"{status:#06x}" in step.detail


@pytest.mark.parametrize("status", [0x0101, 0x0102])
def test_redirects(status: int) -> None:
    """A redirect, for now or for good, says where the target lives."""
    step = respond(begin_login(INTENT), ("TargetAddress", "10.0.0.9:3261,1"), status=status)
    assert isinstance(step, Redirected)
    assert str(step.address.portal) == "10.0.0.9:3261"


def test_a_redirect_to_nowhere_is_refused() -> None:
    """A redirect without an address is an error of the target."""
    with pytest.raises(PduError, match="where to"):
        respond(begin_login(INTENT), status=0x0101)


def test_what_the_target_offers_is_answered() -> None:
    """A target's own offers are taken as offered, switched off, or not understood."""
    second = asked(respond(begin_login(INTENT), ("AuthMethod", "None")))
    offers = (
        ("MaxBurstLength", "16384"),
        ("IFMarker", "Yes"),
        ("X-com.example.speed", "11"),
        ("TargetAlias", "disk"),
        ("HeaderDigest", "None"),
        ("RDMAExtensions", "NotUnderstood"),
    )
    third = asked(respond(second, *offers, transit=False))
    assert keys_of(third) == {
        "MaxBurstLength": "16384",
        "IFMarker": "No",
        "X-com.example.speed": "NotUnderstood",
    }


def test_an_endless_login_ends() -> None:
    """A target that never lets the login on is given up after some rounds."""

    def log_in() -> None:
        ask = begin_login(INTENT)
        for _ in range(100):
            ask = asked(respond(ask, transit=False))

    with pytest.raises(PduError, match="does not end"):
        log_in()


def test_text_in_parts_is_put_together() -> None:
    """Keys that come in several responses are read as one text."""
    second = asked(respond(begin_login(INTENT), ("AuthMethod", "None")))
    whole = encode_keys([("IFMarker", "Yes")])
    parts = []
    for text, more in ((whole[:6], True), (whole[6:], False)):
        response = LoginResponse(
            isid=INTENT.isid,
            tsih=1,
            tag=second.request.tag,
            stat_sn=1,
            exp_cmd_sn=1,
            max_cmd_sn=2,
            status=0,
            stage=1,
            next_stage=0,
            transit=False,
            keys=text,
            continues=more,
        )
        second = asked(advance_login(second.state, response))
        parts.append(keys_of(second))
    assert parts == [{}, {"IFMarker": "No"}]


_PAIRS = st.tuples(
    st.sampled_from(["AuthMethod", "CHAP_A", "CHAP_I", "CHAP_C", "CHAP_N", "CHAP_R", "X-a"]),
    st.sampled_from(["CHAP", "None", "5", "7", "0x00ff", "0bAAAA", "", "target", "Yes"]),
)
_RESPONSES = st.tuples(
    st.lists(_PAIRS, max_size=5), st.booleans(), st.sampled_from([0, 0, 0, 0x0101, 0x0203])
)


@given(st.lists(_RESPONSES, max_size=8), st.sampled_from([None, ONE_WAY, MUTUAL]))
def test_no_target_is_trusted_without_proof(
    script: list[tuple[list[tuple[str, str]], bool, int]], chap: Chap | None
) -> None:
    """Whatever it answers, no target passes mutual CHAP without knowing the secret."""
    step: LoginStep = begin_login(replace(INTENT, chap=chap))
    for keys, transit, status in script:
        if not isinstance(step, Ask):
            break
        try:
            step = respond(step, *keys, transit=transit, status=status)
        except PduError:
            return
    if chap is MUTUAL:
        assert not isinstance(step, LoggedIn)
