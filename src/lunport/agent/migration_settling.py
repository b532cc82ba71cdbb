"""Find out where a guest lives after the call that moves it, and have the service record it.

Asks both sides, each time anew, and does what :mod:`lunport.core.guest_whereabouts` says, until
the record has a winner. An error of the call is no answer. The destination gets a second to
answer: as long as the source lives, one that cannot say that it is without the guest is fenced.
"""

from __future__ import annotations

import logging
from typing import TYPE_CHECKING

from lunport.agent.migration_parts import DestinationPeer, MigrationParts, MoveName
from lunport.core.errors import (
    GuestNotFound,
    LunportError,
    MigrationUndecided,
    VolumeApiRefused,
    VolumeApiUnavailable,
)
from lunport.core.guest_move import GuestMove
from lunport.core.guest_whereabouts import Sight, Step, next_step, sight_of
from lunport.core.migration_plan import Word
from lunport.host.clock import Deadline

if TYPE_CHECKING:
    from lunport.client.guest_migrations import Migration

_LOG = logging.getLogger(__name__)
_OWN_S = 5.0
_PEER_S = 1.0
_TELL_S = 10.0
_FENCE_S = 30.0
_PAUSE_S = 0.3
_SERVICE_FAILED = 500


def settle(
    parts: MigrationParts,
    move: GuestMove,
    peer: DestinationPeer,
    *,
    succeeded: bool,
    was_aborted: bool,
    deadline: Deadline,
    waited_s: float = 0.0,
) -> Migration:
    """Return the record once it says where the guest lives. Idempotent.

    ``waited_s``: since the call ended, as far as that is known.
    Raises: MigrationUndecided (by the deadline it could not be known), VolumeApiUnavailable,
    VolumeApiRefused.
    """
    assert move.migration_id is not None
    name = MoveName(move.migration_id, move.guest_id, move.endpoint)
    began = parts.monotonic() - waited_s
    reason = "nobody was asked"
    error: LunportError | None = None
    is_last = False
    while not is_last:
        is_last = deadline.has_passed()  # one look in any case
        try:
            source, destination, step = _look(
                parts,
                peer,
                name,
                succeeded=succeeded,
                was_aborted=was_aborted,
                waited_s=parts.monotonic() - began,
            )
            shown = "was not asked" if destination is None else f"shows it {destination}"
            reason = f"{move.source} shows it {source}, {move.destination} {shown}"
            record = _act(parts, peer, name, step, destination)
            if record is not None and record.winner is not None:
                _LOG.info("move_settled id=%s winner=%s why=%r", record.id, record.winner, reason)
                return record
            error = None
        except VolumeApiUnavailable as unavailable:
            error = unavailable
        except VolumeApiRefused as refusal:
            if refusal.code < _SERVICE_FAILED:
                raise
            error = refusal  # such as a target that the loser may not be cut off from yet
        if not is_last:
            parts.pause(_PAUSE_S)
    raise error or MigrationUndecided(move.migration_id, reason)


def _look(
    parts: MigrationParts,
    peer: DestinationPeer,
    name: MoveName,
    *,
    succeeded: bool,
    was_aborted: bool,
    waited_s: float,
) -> tuple[Sight, Sight | None, Step]:
    source = own_sight(parts, name.guest_id, Deadline.after(_OWN_S))
    destination: Sight | None = None
    step = Step.ASK_DESTINATION
    while step is Step.ASK_DESTINATION:
        step = next_step(
            succeeded=succeeded,
            was_aborted=was_aborted,
            source=source,
            destination=destination,
            waited_s=waited_s,
        )
        if step is Step.ASK_DESTINATION:
            destination = _peer_sight(peer, name)
    return source, destination, step


def own_sight(parts: MigrationParts, guest_id: str, deadline: Deadline) -> Sight:
    """Say what this host's hypervisor shows of the guest."""
    try:
        guest = parts.guests.find_guest(guest_id, deadline)
        if guest is None or not guest.is_active:
            return sight_of(guest)
        is_moving = parts.hypervisor.move_progress(guest_id, deadline) is not None
    except GuestNotFound:
        return Sight.ABSENT
    except LunportError:
        return Sight.SILENT
    return sight_of(guest, is_moving=is_moving)


def _peer_sight(peer: DestinationPeer, name: MoveName) -> Sight:
    try:
        return peer.look(name, Deadline.after(_PEER_S))
    except LunportError as error:
        _LOG.warning("destination_says_nothing id=%s error=%s", name.migration_id, error)
        return Sight.SILENT


def _act(
    parts: MigrationParts,
    peer: DestinationPeer,
    name: MoveName,
    step: Step,
    destination: Sight | None,
) -> Migration | None:
    """Tell the service what is known, and return the record; None where it is to be waited for."""
    service = parts.service(name.endpoint)
    hearsay = Word.RUNS if destination is Sight.LIVES else None
    match step:
        case Step.LET_DESTINATION_TELL:
            try:
                peer.tell(name, Deadline.after(_TELL_S))
            except VolumeApiUnavailable:
                raise
            except LunportError as error:
                _LOG.warning("destination_does_not_tell id=%s error=%s", name.migration_id, error)
            return service.get(name.migration_id, Deadline.after(_TELL_S))
        case Step.SOURCE_IS_GONE:
            within = Deadline.after(_TELL_S)
            return service.settle(
                name.migration_id, within, source=Word.ABSENT, destination=hearsay
            )
        case Step.KEEP_SOURCE:
            _LOG.warning("destination_is_fenced id=%s", name.migration_id)
            within = Deadline.after(_FENCE_S)
            return service.settle(name.migration_id, within, source=Word.RUNS, destination=hearsay)
        case Step.KEEP_DESTINATION:
            _LOG.warning("source_is_fenced id=%s", name.migration_id)
            within = Deadline.after(_FENCE_S)
            return service.settle(name.migration_id, within, destination=Word.RUNS)
        case _:
            return None
