"""Ask one portal, in user space, whether a path through it would work, and say exactly what is.

TCP, login (with CHAP), and on request the logical unit's presence, readiness, identity and
size; then logout. A session of its own with a random ISID, so that it never takes the place
of a live one. One redirect is followed. Host names are resolved first. Never decides which
path to use: see :mod:`lunport.initiator.portal_choice`.
"""

from __future__ import annotations

import time
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass

from lunport.core.chap import Chap
from lunport.core.connection_info import AddressingMode
from lunport.core.errors import IscsiError, LoginTimedOut, LunportError
from lunport.core.iqn import Iqn
from lunport.core.iscsi_pdu import PduError
from lunport.core.iscsi_text import DiscoveredTarget, parse_discovered
from lunport.core.portal import Portal
from lunport.core.probe_outcome import ProbeOutcome, Verdict, outcome_error
from lunport.core.scsi_address import lun_bytes
from lunport.core.scsi_commands import (
    ASC_LUN_NOT_SUPPORTED,
    CAPACITY_10_LENGTH,
    CAPACITY_16_LENGTH,
    INQUIRY_LENGTH,
    PAGE_IDENTIFICATION,
    PAGE_LENGTH,
    SENSE_ILLEGAL_REQUEST,
    SENSE_UNIT_ATTENTION,
    STATUS_BUSY,
    STATUS_CHECK_CONDITION,
    STATUS_RESERVATION_CONFLICT,
    STATUS_TASK_SET_FULL,
    Designator,
    inquiry_cdb,
    inquiry_page_cdb,
    parse_capacity_10,
    parse_capacity_16,
    parse_identification_page,
    parse_inquiry,
    parse_sense,
    pick_wwid,
    read_capacity_10_cdb,
    read_capacity_16_cdb,
    test_unit_ready_cdb,
)
from lunport.core.target_path import TargetPath
from lunport.core.wwid import Wwid, same_wwid
from lunport.host.clock import Deadline
from lunport.host.iscsi_session import ScsiAnswer, Session, SessionError, open_session
from lunport.host.resolve import resolve_portal
from lunport.host.tasks import Stop

_MAX_REDIRECTS = 1
_RESOLVE_S = 3.0  # a resolver does not see a Stop
_MAX_UNIT_ATTENTIONS = 8
_BUSY = {
    STATUS_BUSY: "the unit is busy",
    STATUS_TASK_SET_FULL: "the unit's queue is full",
    STATUS_RESERVATION_CONFLICT: "another host has reserved the unit",
}


@dataclass(slots=True)
class _Finding:
    """What is known so far; filled in as the probe gets on."""

    connect_s: float | None = None
    wwid: Wwid | None = None
    size_bytes: int | None = None
    redirected_to: Portal | None = None
    tpgt: int | None = None


def probe_path(
    path: TargetPath,
    initiator: Iqn,
    chap: Chap | None,
    *,
    expected_wwid: Wwid | None,
    check_lun: bool,
    deadline: Deadline,
    stop: Stop | None = None,
    addressing_mode: AddressingMode | None = None,
) -> ProbeOutcome:
    """Log in to a path, look at its unit if asked to, log out, and say how it went.

    Never raises for what a portal or target does: that is the verdict. An expected identity
    is only compared with ``check_lun``. The unit is addressed as the kernel would address it.
    """
    began = time.monotonic()
    finding = _Finding()
    verdict, detail = Verdict.REACHABLE, ""
    try:
        with _logged_in(
            path.portal,
            initiator,
            path.iqn,
            chap,
            deadline=deadline,
            stop=stop,
            finding=finding,
        ) as session:
            if check_lun:
                unit = _Unit(session, path.lun, lun_bytes(path.lun, addressing_mode))
                _check_lun(unit, expected_wwid, finding)
    except SessionError as error:
        verdict, detail = error.verdict, error.detail
    except PduError as error:
        verdict, detail = Verdict.PROTOCOL_ERROR, str(error)
    return ProbeOutcome(
        verdict=verdict,
        portal=path.portal,
        elapsed_s=time.monotonic() - began,
        connect_s=finding.connect_s,
        wwid=finding.wwid,
        size_bytes=finding.size_bytes,
        expected_wwid=expected_wwid,
        redirected_to=finding.redirected_to,
        detail=detail,
        tpgt=finding.tpgt,
    )


def discover_targets(
    portal: Portal,
    initiator: Iqn,
    chap: Chap | None,
    *,
    deadline: Deadline,
    stop: Stop | None = None,
) -> tuple[DiscoveredTarget, ...]:
    """List the targets that a portal shows this initiator (SendTargets).

    ``chap`` holds the discovery credentials, which are others than a target's.
    Raises: the error that the verdict stands for, such as PortalUnreachable, LoginTimedOut,
    AuthenticationFailed, IscsiError.
    """
    began = time.monotonic()
    finding = _Finding()
    try:
        with _logged_in(
            portal, initiator, None, chap, deadline=deadline, stop=stop, finding=finding
        ) as session:
            return parse_discovered(session.send_targets(), session.portal)
    except SessionError as error:
        outcome = ProbeOutcome(
            error.verdict,
            portal,
            time.monotonic() - began,
            finding.connect_s,
            detail=error.detail,
        )
    except PduError as error:
        raise IscsiError(str(portal), str(error)) from error
    raise outcome_error(outcome, str(portal)) or IscsiError(str(portal), outcome.detail)


@contextmanager
def _logged_in(
    portal: Portal,
    initiator: Iqn,
    target: Iqn | None,
    chap: Chap | None,
    *,
    deadline: Deadline,
    stop: Stop | None,
    finding: _Finding,
) -> Iterator[Session]:
    where = portal
    for _ in range(_MAX_REDIRECTS + 1):
        with open_session(_literal(where, deadline), deadline, stop) as session:
            if finding.connect_s is None:
                finding.connect_s = session.connect_s
            moved = session.login(initiator, target, chap)
            if moved is None:
                finding.tpgt = session.tpgt
                yield session
                return
        where = finding.redirected_to = moved.portal
    raise SessionError(Verdict.PROTOCOL_ERROR, f"redirected again, to {where}")


def _literal(portal: Portal, deadline: Deadline) -> Portal:
    """Return the name's first address; a second address is a second path for its owner to list."""
    try:
        return resolve_portal(portal, deadline.at_most(_RESOLVE_S))[0]
    except LoginTimedOut as error:
        raise SessionError(Verdict.TIMED_OUT, error.detail) from error
    except LunportError as error:
        detail = getattr(error, "detail", str(error))
        raise SessionError(Verdict.UNREACHABLE, detail) from error


@dataclass(frozen=True, slots=True)
class _Unit:
    """A logical unit in a session: its number, and the eight bytes that address it."""

    session: Session
    lun: int
    field: bytes


def _check_lun(unit: _Unit, expected: Wwid | None, finding: _Finding) -> None:
    """Look at the unit in the order in which answers mean something: there, whose, usable."""
    inquiry = parse_inquiry(_read(unit, inquiry_cdb(), INQUIRY_LENGTH, "INQUIRY"))
    if not inquiry.is_there:
        raise SessionError(Verdict.LUN_ABSENT, f"the target has no lun {unit.lun}")
    if not inquiry.is_disk:
        words = f"lun {unit.lun} is no disk (device type {inquiry.device_type:#04x})"
        raise SessionError(Verdict.LUN_ABSENT, words)
    designators = _designators(unit)
    finding.wwid = pick_wwid(designators)
    if expected is not None and not any(
        same_wwid(expected, designator.wwid) for designator in designators
    ):
        found = finding.wwid or "a unit without identity"
        raise SessionError(Verdict.WRONG_IDENTITY, f"lun {unit.lun} is {found}, not {expected}")
    _read(unit, test_unit_ready_cdb(), 0, "TEST UNIT READY")
    finding.size_bytes = _size_bytes(unit)


def _designators(unit: _Unit) -> tuple[Designator, ...]:
    answer = _settled(unit, inquiry_page_cdb(PAGE_IDENTIFICATION), PAGE_LENGTH)
    if not answer.is_good:
        return ()
    return parse_identification_page(answer.data)


def _size_bytes(unit: _Unit) -> int:
    answer = _settled(unit, read_capacity_16_cdb(), CAPACITY_16_LENGTH)
    if answer.is_good:
        return parse_capacity_16(answer.data)
    if parse_sense(answer.sense).key != SENSE_ILLEGAL_REQUEST:
        _require_good(answer, unit.lun, "READ CAPACITY")
    data = _read(unit, read_capacity_10_cdb(), CAPACITY_10_LENGTH, "READ CAPACITY")
    size_bytes = parse_capacity_10(data)
    if size_bytes is None:
        raise PduError("a unit above 2 TiB that does not know READ CAPACITY(16)")
    return size_bytes


def _read(unit: _Unit, cdb: bytes, expected: int, what: str) -> bytes:
    answer = _settled(unit, cdb, expected)
    _require_good(answer, unit.lun, what)
    return answer.data


def _settled(unit: _Unit, cdb: bytes, expected: int) -> ScsiAnswer:
    """Run a command past the unit attentions that greet each new session."""
    answer = unit.session.execute(unit.field, cdb, expected)
    for _ in range(_MAX_UNIT_ATTENTIONS):
        if answer.status != STATUS_CHECK_CONDITION:
            break
        if parse_sense(answer.sense).key != SENSE_UNIT_ATTENTION:
            break
        answer = unit.session.execute(unit.field, cdb, expected)
    return answer


def _require_good(answer: ScsiAnswer, lun: int, what: str) -> None:
    if answer.is_good:
        return
    if answer.status != STATUS_CHECK_CONDITION:
        words = _BUSY.get(answer.status, f"{what} ended with SCSI status {answer.status:#04x}")
        raise SessionError(Verdict.NOT_READY, words)
    sense = parse_sense(answer.sense)
    if sense.key == SENSE_ILLEGAL_REQUEST and sense.asc == ASC_LUN_NOT_SUPPORTED:
        raise SessionError(Verdict.LUN_ABSENT, f"the target has no lun {lun} ({sense})")
    raise SessionError(Verdict.NOT_READY, f"{what} failed with {sense}")
