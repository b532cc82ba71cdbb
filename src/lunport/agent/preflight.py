"""Gather what a preflight judges: this host's guest, the service's volumes, the other host.

Changes nothing anywhere. What cannot be found out is a fact too, and is passed on as its error.
"""

from __future__ import annotations

from functools import partial
from typing import TYPE_CHECKING

from lunport.agent.migration_parts import MigrationParts, Question
from lunport.core.errors import LunportError
from lunport.core.guest import Guest
from lunport.core.guest_attachment import GuestAttachment
from lunport.core.host_name import same_host
from lunport.core.migration_preflight import DestinationFacts, PreflightFacts, VolumeFacts
from lunport.host.clock import Deadline
from lunport.host.tasks import run_all

if TYPE_CHECKING:
    from lunport.core.connection_info import ConnectionInfo

_PEER_S = 15.0
_AT_ONCE = 8


def gather(
    parts: MigrationParts,
    guest: Guest,
    destination: str,
    at: str | None,
    endpoint: str,
    shared: frozenset[str],
    deadline: Deadline,
) -> PreflightFacts:
    """Look at everything that a move of the guest needs."""
    entries = [one for one in parts.guests.entries() if one.guest_id == guest.id]
    looks = {one.volume_id: partial(_volume, parts, one, deadline) for one in entries}
    volumes = tuple(report.unwrap() for report in run_all(looks, limit=_AT_ONCE))
    there: DestinationFacts | None = None
    error: str | None = None
    try:
        there = _ask(parts, guest, destination, at, volumes, deadline)
    except LunportError as refusal:
        error = str(refusal)
    return PreflightFacts(
        guest=guest,
        source_host=parts.host,
        destination_host=destination,
        volumes=volumes,
        destination=there,
        destination_error=error,
        shared=shared,
        open_elsewhere=_open_elsewhere(parts, guest, destination, endpoint, deadline),
    )


def _ask(
    parts: MigrationParts,
    guest: Guest,
    destination: str,
    at: str | None,
    volumes: tuple[VolumeFacts, ...],
    deadline: Deadline,
) -> DestinationFacts:
    xml = "" if guest.live is None else parts.hypervisor.definitions(guest.id, deadline).live
    portals = tuple(dict.fromkeys(portal for one in volumes for portal in one.portals))
    question = Question(guest.id, xml, portals)
    return parts.peer(destination, at).facts(question, deadline.at_most(_PEER_S))


def _volume(parts: MigrationParts, entry: GuestAttachment, deadline: Deadline) -> VolumeFacts:
    if entry.attachment_id is None:
        return VolumeFacts(entry, None, (), "it has no attachment yet")
    try:
        api = parts.guests.api(entry.endpoint)
        info = api.get_attachment(entry.attachment_id, deadline).connection
    except LunportError as error:
        return VolumeFacts(entry, None, (), str(error))
    if info is None:
        return VolumeFacts(entry, None, (), "the service does not offer it to this host")
    portals = tuple(dict.fromkeys(str(path.portal) for path in info.paths))
    return VolumeFacts(entry, _identity(parts, entry, info), portals)


def _identity(parts: MigrationParts, entry: GuestAttachment, info: ConnectionInfo) -> str | None:
    """Return who the unit is: as the service states it, or else as the disk here said."""
    if info.wwid is not None:
        return info.wwid
    known = parts.guests.connection(entry.volume_id)
    return None if known is None else known.expected_wwid


def _open_elsewhere(
    parts: MigrationParts, guest: Guest, destination: str, endpoint: str, deadline: Deadline
) -> str | None:
    """Return another open move of the guest; None as well where the service says nothing."""
    try:
        for one in parts.service(endpoint).list(deadline):
            is_this = same_host(one.source, parts.host) and same_host(one.destination, destination)
            if one.guest == guest.id and not is_this:
                return f"migration {one.id} to {one.destination}"
    except LunportError:
        return None
    return None
