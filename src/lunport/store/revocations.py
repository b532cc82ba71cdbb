"""The rows of revocations: which hosts were cut off, by whom, why, and until when.

None is ever deleted: together they are the record of what was done.
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import NamedTuple

import sqlalchemy as sa

from lunport.store.tables import revocations

_EVERY = sa.select(revocations).order_by(revocations.c.created_at, revocations.c.id)
_ACTIVE = _EVERY.where(revocations.c.lifted_at.is_(None))
_LIFT = revocations.update().where(
    revocations.c.id == sa.bindparam("revocation_id"), revocations.c.lifted_at.is_(None)
)


class Revocation(NamedTuple):
    """A host that was cut off from a volume, or (None) from all.

    It concerns who has that initiator, and who declares that host name.
    """

    id: str
    host: str | None
    initiator: str | None
    volume_id: str | None
    reason: str
    created_at: str
    created_by: str
    lifted_at: str | None = None
    lifted_by: str | None = None

    def concerns(self, host: str | None, initiator: str, volume_id: str) -> bool:
        """Tell whether it keeps a host from a volume."""
        if self.volume_id not in (None, volume_id):
            return False
        return self.initiator == initiator or (self.host is not None and self.host == host)


def active(connection: sa.Connection) -> Sequence[Revocation]:
    """Return those that are in force, oldest first."""
    return [Revocation._make(row) for row in connection.execute(_ACTIVE)]


def every(connection: sa.Connection) -> Sequence[Revocation]:
    """Return all that there ever were, oldest first."""
    return [Revocation._make(row) for row in connection.execute(_EVERY)]


def add(connection: sa.Connection, revocation: Revocation) -> None:
    """Insert a revocation."""
    connection.execute(revocations.insert(), revocation._asdict())


def lift(connection: sa.Connection, revocation_id: str, *, now: str, by: str) -> bool:
    """Say that a revocation is lifted. Tells whether it was in force."""
    parameters = {"revocation_id": revocation_id, "lifted_at": now, "lifted_by": by}
    return connection.execute(_LIFT, parameters).rowcount == 1
