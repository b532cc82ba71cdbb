"""Finish the moves of guests that were cut off, on whichever side this host was.

A round looks at each note; one whose guest is being moved right now has its lock taken, and is
left alone. The source settles and ends, the destination does what the record says once it says
something; a destination never speaks of itself unasked, since the call may be about to come.
"""

from __future__ import annotations

from dataclasses import dataclass

from lunport.agent import migrate_source
from lunport.agent.migrate_destination import MigrationDestination
from lunport.agent.migration_parts import MigrationParts
from lunport.agent.recovery_line import RecoveryLine
from lunport.core.errors import LunportError, MigrationNotFound, Unavailable
from lunport.core.guest_move import GuestMove
from lunport.core.migration_plan import Side
from lunport.host.clock import Deadline
from lunport.initiator.lock_names import guest_lock

_LOCK_S = 0.2
# A call whose caller was killed is carried on by the hypervisor; it shows as such by then.
_SETTLED_S = 5.0


@dataclass(frozen=True, slots=True)
class MigrationKeeper:
    """The moves of one host."""

    parts: MigrationParts

    def round(self, deadline: Deadline) -> tuple[RecoveryLine, ...]:
        """Do all that is due; tell what was done, and what could not be. Idempotent."""
        guests = self.parts.guests
        due = [one for one in guests.journal.moves() if one.uri == guests.uri]
        lines = (self._finish(one, deadline) for one in due)
        return tuple(line for line in lines if line is not None)

    def _finish(self, noted: GuestMove, deadline: Deadline) -> RecoveryLine | None:
        guests = self.parts.guests
        ends = f"from {noted.source} to {noted.destination}"
        sentence = f"Finish the move of guest {noted.guest_name} {ends}, which was cut off"
        try:
            lock = guest_lock(noted.guest_id)
            with guests.locks.hold(lock, deadline.at_most(_LOCK_S)):
                move = guests.journal.move(noted.guest_id, noted.side)
                if move is None or move.migration_id != noted.migration_id:
                    return None
                if move.side is Side.DESTINATION:
                    done = self._finish_destination(move, deadline)
                elif guests.now() - move.since < _SETTLED_S:
                    return None
                else:
                    done = migrate_source.recover(self.parts, move, deadline)
        except Unavailable as error:
            return RecoveryLine("failed", f"{sentence}.", str(error))
        except LunportError as error:
            return RecoveryLine("failed", f"{sentence}.", str(error))
        return None if done is None else RecoveryLine("done", f"{sentence}: {done}.")

    def _finish_destination(self, move: GuestMove, deadline: Deadline) -> str | None:
        """Do what the record says; None where it says nothing yet."""
        assert move.migration_id is not None
        here = MigrationDestination(self.parts)
        try:
            record = self.parts.service(move.endpoint).get(move.migration_id, deadline)
        except MigrationNotFound:
            return None  # its guest may be here; whoever lost the record has to see to it
        if record.winner is Side.DESTINATION:
            here.take_over(move, record, deadline)
            return "the guest is here"
        if record.winner is Side.SOURCE:
            here.take_back(move, record, deadline)
            return f"the guest is at {move.source}"
        return None
