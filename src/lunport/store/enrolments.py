"""The rows of enrolments: which hosts' agents may ask, and by which initiator each is known."""

from __future__ import annotations

from collections.abc import Sequence
from typing import NamedTuple

import sqlalchemy as sa

from lunport.core.host_name import fold_host
from lunport.core.iqn import fold_iqn
from lunport.store.tables import enrolments

_EVERY = sa.select(
    enrolments.c.host, enrolments.c.initiator, enrolments.c.enrolled_at, enrolments.c.enrolled_by
).order_by(enrolments.c.host)
_BY_HOST = _EVERY.where(enrolments.c.host == sa.bindparam("host"))
_BY_INITIATOR = _EVERY.where(enrolments.c.initiator_key == sa.bindparam("key"))
_REMOVE = enrolments.delete().where(enrolments.c.host == sa.bindparam("host"))


class Enrolment(NamedTuple):
    """A host whose agent may ask for its own exports."""

    host: str
    initiator: str
    enrolled_at: str
    enrolled_by: str


def every(connection: sa.Connection) -> Sequence[Enrolment]:
    """Return all enrolments, by host."""
    return [Enrolment._make(row) for row in connection.execute(_EVERY)]


def of_host(connection: sa.Connection, host: str) -> Enrolment | None:
    """Return a host's enrolment, if it has one."""
    row = connection.execute(_BY_HOST, {"host": fold_host(host)}).first()
    return None if row is None else Enrolment._make(row)


def of_initiator(connection: sa.Connection, initiator: str) -> Enrolment | None:
    """Return who is enrolled with an initiator, however that is spelled."""
    row = connection.execute(_BY_INITIATOR, {"key": fold_iqn(initiator)}).first()
    return None if row is None else Enrolment._make(row)


def add(connection: sa.Connection, one: Enrolment) -> None:
    """Insert an enrolment."""
    values = {"host": fold_host(one.host), "initiator_key": fold_iqn(one.initiator)}
    connection.execute(enrolments.insert(), {**one._asdict(), **values})


def remove(connection: sa.Connection, host: str) -> bool:
    """Delete a host's enrolment. Tells whether it was there."""
    return connection.execute(_REMOVE, {"host": fold_host(host)}).rowcount == 1
