"""What a probe of one portal found, and which error each verdict stands for.

One table joins verdicts to the error tree, so that whoever plans reads ``remedy`` and whoever
reports reads a sentence. Source of the login statuses: RFC 7143 section 11.13.5.
"""

from __future__ import annotations

import enum
from collections.abc import Callable
from dataclasses import dataclass

from lunport.core.errors import (
    AuthenticationFailed,
    IscsiError,
    LoginRejected,
    LoginTimedOut,
    LunMissing,
    LunportError,
    PortalUnreachable,
    TargetUnknown,
    WrongDevice,
)
from lunport.core.portal import Portal
from lunport.core.wwid import Wwid


class Verdict(enum.Enum):
    """The one word for what happened."""

    REACHABLE = "reachable"
    REFUSED = "refused"  # nobody listens: TCP reset at connect
    UNREACHABLE = "unreachable"  # no route, or the name has no address
    TIMED_OUT = "timed-out"  # silence, at connect or later
    CLOSED = "closed"  # the portal took the connection and dropped it
    TARGET_UNKNOWN = "target-unknown"  # or hidden from this initiator (tgt)
    FORBIDDEN = "forbidden"  # the target says that this initiator may not
    CHAP_REJECTED = "chap-rejected"  # our name or secret is wrong, or one is demanded
    TARGET_NOT_TRUSTED = "target-not-trusted"  # the target failed to prove itself
    LUN_ABSENT = "lun-absent"  # no such unit, or it is no disk
    NOT_READY = "not-ready"  # target or unit answers that it cannot serve now
    WRONG_IDENTITY = "wrong-identity"  # a healthy unit, but not the promised one
    PROTOCOL_ERROR = "protocol-error"  # what answers does not speak iSCSI as it must
    CANCELLED = "cancelled"  # the caller did not want to know any more

    @property
    def is_silence(self) -> bool:
        """Tell whether the portal itself, not the target behind it, is what failed."""
        return self in _SILENT


_SILENT = frozenset({Verdict.REFUSED, Verdict.UNREACHABLE, Verdict.TIMED_OUT, Verdict.CLOSED})


@dataclass(frozen=True, slots=True)
class ProbeOutcome:
    """What one probe found.

    ``connect_s`` is one TCP round trip, None without a connection. ``wwid`` and
    ``size_bytes`` are known when the LU was asked for; ``expected_wwid`` is what was promised.
    ``tpgt`` is the portal group that the login told, None if it told none.
    """

    verdict: Verdict
    portal: Portal
    elapsed_s: float
    connect_s: float | None = None
    wwid: Wwid | None = None
    size_bytes: int | None = None
    expected_wwid: Wwid | None = None
    redirected_to: Portal | None = None
    detail: str = ""
    tpgt: int | None = None

    @property
    def is_healthy(self) -> bool:
        """Tell whether the path can be used."""
        return self.verdict is Verdict.REACHABLE


_Maker = Callable[[str, str], LunportError]

ERRORS: dict[Verdict, _Maker | None] = {
    Verdict.REACHABLE: None,
    Verdict.REFUSED: PortalUnreachable,
    Verdict.UNREACHABLE: PortalUnreachable,
    Verdict.CLOSED: PortalUnreachable,
    Verdict.TIMED_OUT: LoginTimedOut,
    Verdict.CANCELLED: LoginTimedOut,
    Verdict.TARGET_UNKNOWN: TargetUnknown,
    Verdict.FORBIDDEN: LoginRejected,
    Verdict.CHAP_REJECTED: AuthenticationFailed,
    Verdict.TARGET_NOT_TRUSTED: AuthenticationFailed,
    Verdict.LUN_ABSENT: LunMissing,
    Verdict.NOT_READY: IscsiError,
    Verdict.PROTOCOL_ERROR: IscsiError,
    Verdict.WRONG_IDENTITY: None,  # has fields of its own; see outcome_error
}

LOGIN_STATUSES: dict[int, tuple[Verdict, str]] = {
    0x0200: (Verdict.PROTOCOL_ERROR, "the target found fault with the login"),
    0x0201: (Verdict.CHAP_REJECTED, "the target refused the credentials"),
    0x0202: (Verdict.FORBIDDEN, "this initiator is not allowed to use the target"),
    0x0203: (Verdict.TARGET_UNKNOWN, "the portal does not show this target to this initiator"),
    0x0204: (Verdict.TARGET_UNKNOWN, "the target was removed"),
    0x0205: (Verdict.PROTOCOL_ERROR, "the target speaks another version of iSCSI"),
    0x0206: (Verdict.NOT_READY, "the target has too many connections"),
    0x0207: (Verdict.PROTOCOL_ERROR, "the target misses a parameter"),
    0x0208: (Verdict.PROTOCOL_ERROR, "the target cannot take this connection into a session"),
    0x0209: (Verdict.PROTOCOL_ERROR, "the target does not do this type of session"),
    0x020A: (Verdict.PROTOCOL_ERROR, "the target has no such session"),
    0x020B: (Verdict.PROTOCOL_ERROR, "the target found a request out of place"),
    0x0300: (Verdict.NOT_READY, "the target has an error of its own"),
    0x0301: (Verdict.NOT_READY, "the target's service is not available"),
    0x0302: (Verdict.NOT_READY, "the target is out of resources"),
}


def login_verdict(status: int) -> tuple[Verdict, str]:
    """Return verdict and words for a login status that is no success and no redirect."""
    if status in LOGIN_STATUSES:
        verdict, words = LOGIN_STATUSES[status]
    elif status >> 8 == 3:
        verdict, words = Verdict.NOT_READY, "the target cannot serve"
    else:
        verdict, words = Verdict.PROTOCOL_ERROR, "the target refused the login"
    return verdict, f"{words} (login status {status:#06x})"


def outcome_error(outcome: ProbeOutcome, path: str) -> LunportError | None:
    """Return the error a verdict stands for; None for a healthy path."""
    if outcome.verdict is Verdict.WRONG_IDENTITY:
        found = outcome.wwid or "without an identity"
        return WrongDevice(path, outcome.expected_wwid or "any", found)
    maker = ERRORS[outcome.verdict]
    if maker is None:
        return None
    words = outcome.detail or outcome.verdict.value
    return maker(path, f"{words}, after {outcome.elapsed_s:.2f} s")
