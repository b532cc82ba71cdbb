"""The initiator's side of an iSCSI login, as a fold over the target's responses.

:func:`begin_login` gives the first request; :func:`advance_login` takes each response and says
what is next: send this, you are in, you are refused, go there instead. Security negotiation
with no authentication, one-way or mutual CHAP, then operational parameters (RFC 7143
sections 6 and 13). Challenge and ISID are arguments; nothing here reads a socket or a clock.
A target that was asked to prove itself and did not is never logged in to.
"""

from __future__ import annotations

from dataclasses import dataclass, replace

from lunport.core.chap import Chap
from lunport.core.chap_exchange import (
    OFFERED,
    answer_challenge,
    format_binary,
    is_right_answer,
    parse_binary,
    parse_identifier,
)
from lunport.core.iqn import Iqn
from lunport.core.iscsi_pdu import (
    MAX_DATA_LENGTH,
    STAGE_FULL_FEATURE,
    STAGE_OPERATIONAL,
    STAGE_SECURITY,
    LoginRequest,
    LoginResponse,
    PduError,
)
from lunport.core.iscsi_text import (
    Keys,
    TargetAddress,
    decode_keys,
    encode_keys,
    parse_target_address,
)
from lunport.core.probe_outcome import Verdict, login_verdict

FIRST_CMD_SN = 1
_TAG = 1
_MAX_ROUNDS = 24

# What we ask for. A probe moves a few hundred bytes, so all of it is at its simplest.
_DECLARED: Keys = (("MaxRecvDataSegmentLength", str(MAX_DATA_LENGTH)),)
_ALWAYS: Keys = (
    ("HeaderDigest", "None"),
    ("DataDigest", "None"),
    ("ErrorRecoveryLevel", "0"),
    ("DefaultTime2Wait", "2"),
    ("DefaultTime2Retain", "0"),
)
_NORMAL_ONLY: Keys = (
    ("InitialR2T", "Yes"),
    ("ImmediateData", "No"),
    ("MaxBurstLength", "65536"),
    ("FirstBurstLength", "65536"),
    ("MaxConnections", "1"),
    ("MaxOutstandingR2T", "1"),
    ("DataPDUInOrder", "Yes"),
    ("DataSequenceInOrder", "Yes"),
)
# Keys the target may declare and nobody answers.
_NO_ANSWER = frozenset(
    {
        "TargetAlias",
        "TargetAddress",
        "TargetName",
        "TargetPortalGroupTag",
        "MaxRecvDataSegmentLength",
        "InitiatorAlias",
        "AuthMethod",
    }
)
_OFFERED_BY_US = frozenset(key for key, _ in _ALWAYS)
_TAKEN_AS_OFFERED = frozenset(key for key, _ in _NORMAL_ONLY)
_ANSWERED_NO = frozenset({"IFMarker", "OFMarker", "RDMAExtensions"})
_FINAL_ANSWERS = frozenset({"NotUnderstood", "Irrelevant", "Reject"})


@dataclass(frozen=True, slots=True)
class LoginIntent:
    """Who logs in where, and the random values of this one attempt.

    ``target`` None is a discovery session. ``challenge`` and ``challenge_id`` are ours, for
    the target to answer.
    """

    initiator: Iqn
    target: Iqn | None
    chap: Chap | None
    isid: bytes
    challenge: bytes
    challenge_id: int


@dataclass(frozen=True, slots=True)
class LoginState:
    """Where a login stands. ``algorithm`` is known once the target chose one."""

    intent: LoginIntent
    stage: int = STAGE_SECURITY
    rounds: int = 0
    exp_stat_sn: int = 0
    pending: bytes = b""
    chap_started: bool = False
    algorithm: str = ""
    answered: bool = False
    trusted: bool = False
    tpgt: int | None = None


@dataclass(frozen=True, slots=True)
class Ask:
    """Send this request and come back with the response."""

    state: LoginState
    request: LoginRequest


@dataclass(frozen=True, slots=True)
class LoggedIn:
    """The session stands; what the next PDUs need, and the portal group if it was told."""

    exp_stat_sn: int
    cmd_sn: int
    tpgt: int | None = None


@dataclass(frozen=True, slots=True)
class Denied:
    """The login is over, and why."""

    verdict: Verdict
    detail: str


@dataclass(frozen=True, slots=True)
class Redirected:
    """The target lives elsewhere."""

    address: TargetAddress


LoginStep = Ask | LoggedIn | Denied | Redirected


def make_isid(random: bytes) -> bytes:
    """Make a random-type ISID (T=10b, RFC 7143 section 11.12.5) of 5 random bytes."""
    return bytes((0x80, *random[:5]))


def begin_login(intent: LoginIntent) -> Ask:
    """Build the first request."""
    keys = [("InitiatorName", str(intent.initiator))]
    if intent.target is None:
        keys.append(("SessionType", "Discovery"))
    else:
        keys += [("SessionType", "Normal"), ("TargetName", str(intent.target))]
    keys.append(("AuthMethod", _auth_methods(intent.chap)))
    return _ask(LoginState(intent), keys, transit=intent.chap is None)


def advance_login(state: LoginState, response: LoginResponse) -> LoginStep:
    """Take a response and say what is next. Raises: PduError."""
    if state.rounds > _MAX_ROUNDS:
        raise PduError("a login that does not end")
    if response.tag != _TAG:
        raise PduError("an answer to another request")
    state = replace(
        state,
        exp_stat_sn=response.stat_sn + 1 & 0xFFFFFFFF,
        pending=state.pending + response.keys,
    )
    if len(state.pending) > MAX_DATA_LENGTH:
        raise PduError("a login text without end")
    if response.status >> 8 == 1:
        return _redirect(decode_keys(state.pending))
    if response.status != 0:
        return _denied(state, response.status)
    if response.continues:
        return _ask(state, (), transit=False)
    keys = decode_keys(state.pending)
    state = replace(state, pending=b"", tpgt=_portal_group(keys, state.tpgt))
    if response.stage != state.stage:
        raise PduError(f"an answer of login stage {response.stage} in stage {state.stage}")
    if state.stage == STAGE_SECURITY:
        return _advance_security(state, response, keys)
    return _advance_operational(state, response, keys)


def _advance_security(state: LoginState, response: LoginResponse, keys: Keys) -> LoginStep:
    values = dict(keys)
    if response.transit:
        return _leave_security(state, response, values)
    if state.answered:
        return _ask(_check_target(state, values), (), transit=True)
    if "CHAP_C" in values:
        return _answer(state, values)
    if state.intent.chap is None:
        return _ask(state, (), transit=True)
    if state.chap_started:
        raise PduError("a CHAP exchange without a challenge")
    if values.get("AuthMethod") == "CHAP":
        state = replace(state, chap_started=True)
        return _ask(state, [("CHAP_A", ",".join(OFFERED))], transit=False)
    return _ask(state, (), transit=True)


def _leave_security(
    state: LoginState, response: LoginResponse, values: dict[str, str]
) -> LoginStep:
    state = _check_target(state, values)
    chap = state.intent.chap
    if chap is not None and chap.mutual is not None and not state.trusted:
        return Denied(Verdict.TARGET_NOT_TRUSTED, "the target did not prove who it is (CHAP)")
    if response.next_stage != STAGE_OPERATIONAL:
        raise PduError(f"a jump to login stage {response.next_stage}")
    state = replace(state, stage=STAGE_OPERATIONAL)
    offers = _DECLARED + _ALWAYS + (_NORMAL_ONLY if state.intent.target is not None else ())
    return _ask(state, offers, transit=True)


def _answer(state: LoginState, values: dict[str, str]) -> LoginStep:
    chap = state.intent.chap
    if chap is None:
        return Denied(Verdict.CHAP_REJECTED, "the target demands CHAP and none was given")
    algorithm = values.get("CHAP_A", "")
    if algorithm not in OFFERED:
        raise PduError(f"CHAP algorithm {algorithm!r}, which was not offered")
    challenge = parse_binary(values["CHAP_C"])
    if challenge == state.intent.challenge:
        return Denied(Verdict.TARGET_NOT_TRUSTED, "the target sent our own challenge back")
    identifier = parse_identifier(values.get("CHAP_I", ""))
    answer = answer_challenge(algorithm, identifier, chap.initiator.password, challenge)
    keys = [("CHAP_N", chap.initiator.username), ("CHAP_R", format_binary(answer))]
    if chap.mutual is not None:
        keys.append(("CHAP_I", str(state.intent.challenge_id)))
        keys.append(("CHAP_C", format_binary(state.intent.challenge)))
    state = replace(state, algorithm=algorithm, answered=True)
    return _ask(state, keys, transit=True)


def _check_target(state: LoginState, values: dict[str, str]) -> LoginState:
    chap = state.intent.chap
    if chap is None or chap.mutual is None or not state.answered or "CHAP_R" not in values:
        return state
    intent = state.intent
    right = is_right_answer(
        state.algorithm,
        intent.challenge_id,
        chap.mutual.password,
        intent.challenge,
        parse_binary(values["CHAP_R"]),
    )
    return replace(state, trusted=right and values.get("CHAP_N") == chap.mutual.username)


def _advance_operational(state: LoginState, response: LoginResponse, keys: Keys) -> LoginStep:
    if response.transit:
        if response.next_stage != STAGE_FULL_FEATURE:
            raise PduError(f"a jump to login stage {response.next_stage}")
        return LoggedIn(state.exp_stat_sn, FIRST_CMD_SN, state.tpgt)
    return _ask(state, [pair for pair in map(_reply, keys) if pair], transit=True)


def _reply(offer: tuple[str, str]) -> tuple[str, str] | None:
    """Answer what the target offers of its own accord; None where no answer is due."""
    key, value = offer
    if key in _NO_ANSWER or key in _OFFERED_BY_US or value in _FINAL_ANSWERS:
        return None
    if key in _TAKEN_AS_OFFERED:
        return key, value
    return key, "No" if key in _ANSWERED_NO else "NotUnderstood"


def _portal_group(keys: Keys, known: int | None) -> int | None:
    """Read the portal group's tag (RFC 7143 section 13.9); one that is no number is not told."""
    tag = dict(keys).get("TargetPortalGroupTag", "")
    if tag.isascii() and tag.isdigit() and len(tag) <= 5 and int(tag) <= 65535:
        return int(tag)
    return known


def _redirect(keys: Keys) -> LoginStep:
    addresses = [value for key, value in keys if key == "TargetAddress"]
    if not addresses:
        raise PduError("a redirect that does not say where to")
    return Redirected(parse_target_address(addresses[0]))


def _denied(state: LoginState, status: int) -> Denied:
    verdict, words = login_verdict(status)
    if verdict is Verdict.CHAP_REJECTED and state.intent.chap is None:
        words = f"the target demands CHAP and none was given (login status {status:#06x})"
    return Denied(verdict, words)


def _auth_methods(chap: Chap | None) -> str:
    if chap is None:
        return "None"
    return "CHAP" if chap.mutual is not None else "CHAP,None"


def _ask(state: LoginState, keys: Keys | list[tuple[str, str]], *, transit: bool) -> Ask:
    next_stage = STAGE_OPERATIONAL if state.stage == STAGE_SECURITY else STAGE_FULL_FEATURE
    state = replace(state, rounds=state.rounds + 1)
    request = LoginRequest(
        isid=state.intent.isid,
        tag=_TAG,
        cmd_sn=FIRST_CMD_SN,
        exp_stat_sn=state.exp_stat_sn,
        stage=state.stage,
        next_stage=next_stage,
        transit=transit,
        keys=encode_keys(keys),
    )
    return Ask(state, request)
