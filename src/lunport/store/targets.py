"""The rows of targets that several volumes share: who may log in, and which LUN is whose.

A volume's own target has no row here: its number and credentials are the volume's.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Literal, NamedTuple

import sqlalchemy as sa

from lunport.core.chap import ChapCredentials
from lunport.core.lun_allocation import LunUse
from lunport.store.tables import connections, target_initiators, target_units, targets

TargetKind = Literal["host", "shared"]

_BY_ID = sa.select(targets).where(targets.c.id == sa.bindparam("id"))
_BY_NAME = sa.select(targets).where(
    targets.c.backend == sa.bindparam("backend"), targets.c.iqn == sa.bindparam("iqn")
)
_CONNECTED = (
    sa.select(targets)
    .where(
        targets.c.backend == sa.bindparam("backend"),
        targets.c.id.in_(
            sa.select(connections.c.target_id).where(connections.c.target_id.is_not(None))
        ),
    )
    .order_by(targets.c.number)
)
_IS_CONNECTED = sa.select(
    sa.exists().where(targets.c.iqn == sa.bindparam("iqn"), connections.c.target_id == targets.c.id)
)
_INITIATORS = sa.select(target_initiators).where(
    target_initiators.c.target_id == sa.bindparam("target_id")
)
_LUNS = sa.select(target_units).where(target_units.c.target_id == sa.bindparam("target_id"))
_HELD = _LUNS.where(target_units.c.volume_id.is_not(None))
_COUNTS = sa.select(sa.func.count(target_units.c.volume_id), sa.func.max(target_units.c.lun)).where(
    target_units.c.target_id == sa.bindparam("target_id")
)
_ONE_LUN = sa.select(target_units.c.lun).where(
    target_units.c.target_id == sa.bindparam("target_id"),
    target_units.c.volume_id == sa.bindparam("volume_id"),
)
_HOLD = target_units.update().where(
    target_units.c.target_id == sa.bindparam("of_target"), target_units.c.lun == sa.bindparam("at")
)
_FREE = target_units.update().where(
    target_units.c.target_id == sa.bindparam("of_target"),
    target_units.c.volume_id == sa.bindparam("of_volume"),
)


class Target(NamedTuple):
    """A target of several volumes. ``initiator`` is the one it is for, None for the shared one.

    ``number`` is what tgt knows it by, counted together with the volumes' own.
    """

    id: str
    backend: str
    number: int
    kind: str
    initiator: str | None
    iqn: str
    created_at: str


def find(connection: sa.Connection, target_id: str) -> Target | None:
    """Return the target of that id, if any."""
    row = connection.execute(_BY_ID, {"id": target_id}).first()
    return None if row is None else Target._make(row)


def find_by_name(connection: sa.Connection, backend: str, iqn: str) -> Target | None:
    """Return a backend's target of that name, if any."""
    row = connection.execute(_BY_NAME, {"backend": backend, "iqn": iqn}).first()
    return None if row is None else Target._make(row)


def connected(connection: sa.Connection, backend: str) -> Sequence[Target]:
    """Return the targets of a backend that a connection goes through."""
    return [Target._make(row) for row in connection.execute(_CONNECTED, {"backend": backend})]


def is_connected(connection: sa.Connection, iqn: str) -> bool:
    """Tell whether a connection goes through a target of that name, of whatever backend."""
    return bool(connection.scalar(_IS_CONNECTED, {"iqn": iqn}))


def add(connection: sa.Connection, target: Target) -> None:
    """Insert a target."""
    connection.execute(targets.insert(), target._asdict())


def initiators(connection: sa.Connection, target_id: str) -> Mapping[str, ChapCredentials | None]:
    """Return who was ever let in to a target, with its credentials if it needs some."""
    return {
        row.initiator: None
        if row.chap_username is None or row.chap_password is None
        else ChapCredentials(row.chap_username, row.chap_password)
        for row in connection.execute(_INITIATORS, {"target_id": target_id})
    }


def add_initiator(
    connection: sa.Connection, target_id: str, initiator: str, chap: ChapCredentials | None
) -> None:
    """Keep who is let in to a target. Precondition: it was not before."""
    connection.execute(
        target_initiators.insert(),
        {
            "target_id": target_id,
            "initiator": initiator,
            "chap_username": chap.username if chap else None,
            "chap_password": chap.password if chap else None,
        },
    )


def luns(connection: sa.Connection, target_id: str) -> Mapping[str, int]:
    """Return the LUNs in use on a target, by volume id."""
    rows = connection.execute(_HELD, {"target_id": target_id})
    return {row.volume_id: row.lun for row in rows}


def lun_of(connection: sa.Connection, target_id: str, volume_id: str) -> int | None:
    """Return a volume's LUN on a target, if it has one."""
    lun: int | None = connection.scalar(_ONE_LUN, {"target_id": target_id, "volume_id": volume_id})
    return lun


def count_luns(connection: sa.Connection, target_id: str) -> tuple[int, int | None]:
    """Count a target's LUNs in use; return the highest that was ever used as well."""
    held, highest = connection.execute(_COUNTS, {"target_id": target_id}).one()
    return held, highest


def lun_uses(connection: sa.Connection, target_id: str) -> Sequence[LunUse]:
    """Return every number that was ever used on a target."""
    rows = connection.execute(_LUNS, {"target_id": target_id})
    return [LunUse(row.lun, None if row.volume_id else row.freed_at or "") for row in rows]


def hold_lun(connection: sa.Connection, target_id: str, lun: int, volume_id: str) -> None:
    """Give a number to a volume. Precondition: it is free."""
    values = {"volume_id": volume_id, "freed_at": None}
    parameters = {"of_target": target_id, "at": lun, **values}
    if connection.execute(_HOLD, parameters).rowcount == 0:
        row = {"target_id": target_id, "lun": lun, **values}
        connection.execute(target_units.insert(), row)


def free_lun(connection: sa.Connection, target_id: str, volume_id: str, now: str) -> bool:
    """Take a volume's number back; it is remembered since when. Tells whether it had one."""
    parameters = {
        "of_target": target_id,
        "of_volume": volume_id,
        "volume_id": None,
        "freed_at": now,
    }
    return connection.execute(_FREE, parameters).rowcount == 1
