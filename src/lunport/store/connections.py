"""The rows of connections: the reasons why hosts may use volumes, which hold exports open."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import NamedTuple

import sqlalchemy as sa

from lunport.core.portal import Portal, parse_portal
from lunport.store.tables import connections, targets, volumes

_IN_ORDER = (connections.c.created_at, connections.c.id)
_EVERY = sa.select(connections).order_by(*_IN_ORDER)
_OF_VOLUME = _EVERY.where(connections.c.volume_id == sa.bindparam("volume_id"))
_OF_ATTACHMENT = _EVERY.where(connections.c.attachment_id == sa.bindparam("attachment_id"))
_ON_TARGET = _EVERY.where(connections.c.target_id == sa.bindparam("target_id"))
# The connector is much to decode where there are many, and rarely needed.
_VIEWERS = sa.select(connections.c.id, connections.c.volume_id, connections.c.initiator).where(
    connections.c.target_id == sa.bindparam("target_id")
)
_PORTALS_BESIDE = (
    sa.select(connections.c.portals)
    .where(
        connections.c.target_id == sa.bindparam("target_id"),
        connections.c.initiator == sa.bindparam("initiator"),
        connections.c.portals.is_not(None),
    )
    .order_by(*_IN_ORDER)
    .limit(1)
)
_IS_ON_TARGET = sa.select(sa.exists().where(connections.c.target_id == sa.bindparam("target_id")))
_SETTLE = connections.update().where(connections.c.id == sa.bindparam("connection_id"))
_REMOVE = connections.delete().where(
    connections.c.id.in_(sa.bindparam("connection_ids", expanding=True))
)
_COUNT = sa.select(sa.func.count()).select_from(connections)
_OWN_TARGETS = (
    sa.select(sa.func.count(sa.distinct(connections.c.volume_id)))
    .join(volumes, volumes.c.id == connections.c.volume_id)
    .where(volumes.c.backend == sa.bindparam("backend"), connections.c.target_id.is_(None))
)
_OTHER_TARGETS = (
    sa.select(sa.func.count(sa.distinct(connections.c.target_id)))
    .join(targets, targets.c.id == connections.c.target_id)
    .where(targets.c.backend == sa.bindparam("backend"))
)
_LOADS = (
    sa.select(connections.c.portals, sa.func.count())
    .join(volumes, volumes.c.id == connections.c.volume_id)
    .where(volumes.c.backend == sa.bindparam("backend"), connections.c.portals.is_not(None))
    .group_by(connections.c.portals)
)
_SHARING = (
    sa.select(connections.c.volume_id)
    .where(
        connections.c.target_id.is_not(None),
        connections.c.volume_id.in_(sa.bindparam("volume_ids", expanding=True)),
    )
    .distinct()
)
_IDS_A_QUERY = 500


class HostConnection(NamedTuple):
    """An initiator that may use a volume, and why.

    ``attachment_id`` is None for a bare os-initialize_connection; ``pending`` until the
    target helper has acted. ``target_id`` names the target that several volumes share; None
    is the volume's own. ``portals``: the order that the host was told, if it was kept.
    """

    id: str
    volume_id: str
    attachment_id: str | None
    initiator: str
    connector: Mapping[str, object]
    pending: bool
    created_at: str
    target_id: str | None = None
    portals: str | None = None

    @property
    def host(self) -> str | None:
        """The host's name, as its connector declared it."""
        name = self.connector.get("host")
        return name if isinstance(name, str) and name else None


class Viewer(NamedTuple):
    """Who may use which volume. ``host`` is its name where that was read as well."""

    id: str
    volume_id: str
    initiator: str
    host: str | None = None


def of_volume(connection: sa.Connection, volume_id: str) -> Sequence[HostConnection]:
    """Return who may use a volume, oldest first."""
    rows = connection.execute(_OF_VOLUME, {"volume_id": volume_id})
    return [HostConnection._make(row) for row in rows]


def of_attachment(connection: sa.Connection, attachment_id: str) -> HostConnection | None:
    """Return the connection of an attachment, if it has one."""
    row = connection.execute(_OF_ATTACHMENT, {"attachment_id": attachment_id}).first()
    return None if row is None else HostConnection._make(row)


def on_target(connection: sa.Connection, target_id: str) -> Sequence[HostConnection]:
    """Return the connections that go through a target of several volumes."""
    rows = connection.execute(_ON_TARGET, {"target_id": target_id})
    return [HostConnection._make(row) for row in rows]


def viewers(connection: sa.Connection, target_id: str) -> Sequence[Viewer]:
    """Return the same as far as it matters to whom nobody's name matters."""
    rows = connection.execute(_VIEWERS, {"target_id": target_id})
    return [Viewer(*row) for row in rows]


def is_on_target(connection: sa.Connection, target_id: str) -> bool:
    """Tell whether any connection goes through a target of several volumes."""
    return bool(connection.scalar(_IS_ON_TARGET, {"target_id": target_id}))


def portals_beside(connection: sa.Connection, target_id: str, initiator: str) -> str | None:
    """Return the order of portals that an initiator was told on a target, if it was."""
    parameters = {"target_id": target_id, "initiator": initiator}
    portals: str | None = connection.scalar(_PORTALS_BESIDE, parameters)
    return portals


def every(connection: sa.Connection) -> Sequence[HostConnection]:
    """Return all connections of all volumes."""
    return [HostConnection._make(row) for row in connection.execute(_EVERY)]


def add(connection: sa.Connection, row: HostConnection) -> None:
    """Insert a connection."""
    connection.execute(connections.insert(), row._asdict())


def settle(connection: sa.Connection, connection_id: str, connector: Mapping[str, object]) -> bool:
    """Say that the target helper has acted on a connection. Tells whether it is still there."""
    parameters = {"connection_id": connection_id, "pending": False, "connector": connector}
    return connection.execute(_SETTLE, parameters).rowcount == 1


def remove(connection: sa.Connection, connection_ids: Sequence[str]) -> int:
    """Delete connections. Tells how many were there."""
    if not connection_ids:
        return 0
    return connection.execute(_REMOVE, {"connection_ids": connection_ids}).rowcount


def is_below(connection: sa.Connection, limit: int) -> bool:
    """Tell whether there are fewer connections than that: then there are fewer targets too."""
    return (connection.scalar(_COUNT) or 0) < limit


def count_targets(connection: sa.Connection, backend: str) -> int:
    """Count the targets that a backend's connections need."""
    found = (connection.scalar(one, {"backend": backend}) for one in (_OWN_TARGETS, _OTHER_TARGETS))
    return sum(count or 0 for count in found)


def loads(connection: sa.Connection, backend: str) -> Mapping[Portal, int]:
    """Count a backend's connections by their main portal."""
    found: dict[Portal, int] = {}
    for text, count in connection.execute(_LOADS, {"backend": backend}):
        main = split_portals(text)[0]
        found[main] = found.get(main, 0) + count
    return found


def sharing(connection: sa.Connection, volume_ids: Sequence[str]) -> frozenset[str]:
    """Tell which of these volumes go through a target of several."""
    found: set[str] = set()
    for start in range(0, len(volume_ids), _IDS_A_QUERY):
        some = volume_ids[start : start + _IDS_A_QUERY]
        found.update(connection.scalars(_SHARING, {"volume_ids": some}))
    return frozenset(found)


def join_portals(portals: Sequence[Portal]) -> str:
    """Write an order of portals as a connection keeps it."""
    return ";".join(map(str, portals))


def split_portals(text: str) -> tuple[Portal, ...]:
    """Read what :func:`join_portals` wrote."""
    return tuple(parse_portal(portal) for portal in text.split(";") if portal)
