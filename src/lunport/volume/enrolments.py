"""Use cases on enrolments: which hosts' agents the service listens to.

A certificate says who asks; an enrolment, that it may ask, and by which initiator the host is
known. Taking one back does not take away what the host has: ``volume/fencing.py`` does that.
"""

from __future__ import annotations

import logging
from collections.abc import Sequence
from typing import NamedTuple

from lunport.core.agent_identity import AgentIdentity
from lunport.core.change import Change
from lunport.core.errors import AlreadyExists, EnrolmentNotFound, NotAllowed, NotEnrolled
from lunport.core.host_name import parse_host_name
from lunport.core.iqn import parse_iqn
from lunport.store import enrolments as rows
from lunport.store.enrolments import Enrolment
from lunport.volume.requests import Caller
from lunport.volume.service import Service

_LOG = logging.getLogger(__name__)


class Enrolled(NamedTuple):
    """What an enrolment did."""

    change: Change
    enrolment: Enrolment


def enrol(service: Service, caller: Caller, host: str, initiator: str) -> Enrolled:
    """Let the agent of a host ask for its own exports (admin). Idempotent.

    Raises: NotAllowed, InvalidInput, InvalidIqn, AlreadyExists (the host with another
    initiator, or another host with this one: two hosts behind one name can't be told apart).
    """
    _require_admin(caller, "lunport:enrol")
    new = Enrolment(
        host=parse_host_name(host, what="host"),
        initiator=parse_iqn(initiator, what="initiator"),
        enrolled_at=service.now(),
        enrolled_by=caller.user_id,
    )
    with service.store.write() as connection:
        known = rows.of_host(connection, new.host)
        if known is not None and known.initiator == new.initiator:
            return Enrolled(Change.UNCHANGED, known)
        known = known or rows.of_initiator(connection, new.initiator)
        if known is not None:
            raise AlreadyExists("Enrolment of", f"host {known.host} with {known.initiator}")
        rows.add(connection, new)
    _LOG.warning(
        "host_enrolled host=%s initiator=%s by=%s", new.host, new.initiator, caller.user_id
    )
    return Enrolled(Change.CHANGED, new)


def dismiss(service: Service, caller: Caller, host: str) -> None:
    """Listen to the agent of a host no more (admin). Raises: NotAllowed, EnrolmentNotFound."""
    _require_admin(caller, "lunport:dismiss")
    with service.store.write() as connection:
        if not rows.remove(connection, host):
            raise EnrolmentNotFound(host)
    _LOG.warning("host_dismissed host=%s by=%s", host, caller.user_id)


def list_enrolments(service: Service, caller: Caller) -> Sequence[Enrolment]:
    """List who is enrolled (admin). Raises: NotAllowed."""
    _require_admin(caller, "lunport:list_enrolments")
    with service.store.read() as connection:
        return rows.every(connection)


def identify(service: Service, hosts: Sequence[str]) -> AgentIdentity:
    """Say whose agent has a certificate that names these hosts; exactly one is enrolled.

    Raises: NotEnrolled.
    """
    with service.store.read() as connection:
        found = [one for host in hosts if (one := rows.of_host(connection, host)) is not None]
    if len(found) != 1:
        raise NotEnrolled(hosts)
    return AgentIdentity(found[0].host, found[0].initiator)


def _require_admin(caller: Caller, action: str) -> None:
    if not caller.is_admin:
        raise NotAllowed(action)
