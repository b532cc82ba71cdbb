"""What is exported to whom: every connection with its place, and who is cut off."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Literal

from lunport.core.errors import BackendError, BackendNotFound, NotAllowed
from lunport.core.portal import Portal
from lunport.store import connections, revocations
from lunport.store import volumes as volume_rows
from lunport.store.revocations import Revocation
from lunport.volume import desired
from lunport.volume.describing import find_way
from lunport.volume.requests import Caller
from lunport.volume.service import Service

ExportState = Literal["exported", "pending", "revoked"]


@dataclass(frozen=True, slots=True)
class ExportedVolume:
    """One volume to one host; where it is (or, revoked, where it will be again)."""

    volume_id: str
    attachment_id: str | None
    host: str | None
    initiator: str
    backend: str
    iqn: str
    lun: int
    portals: tuple[Portal, ...]
    state: ExportState
    since: str


@dataclass(frozen=True, slots=True)
class ExportList:
    """All exports, and the revocations that are in force."""

    exports: tuple[ExportedVolume, ...]
    revocations: tuple[Revocation, ...]


def list_exports(service: Service, caller: Caller) -> ExportList:
    """List what is exported to whom, and what is revoked (admin). Raises: NotAllowed."""
    if not caller.is_admin:
        raise NotAllowed("lunport:list_exports")
    found: list[ExportedVolume] = []
    with service.store.read(snapshot=True) as connection:
        in_force = tuple(revocations.active(connection))
        for row in connections.every(connection):
            volume = volume_rows.find(connection, row.volume_id)
            if volume is None:
                continue
            try:
                way = find_way(service, connection, volume, row)
            except (BackendNotFound, BackendError):
                continue  # Of a backend that is configured no more.
            state: ExportState = "pending" if row.pending else "exported"
            if desired.is_revoked(in_force, row):
                state = "revoked"
            found.append(
                ExportedVolume(
                    volume_id=volume.id,
                    attachment_id=row.attachment_id,
                    host=row.host,
                    initiator=row.initiator,
                    backend=volume.backend,
                    iqn=way.paths[0].iqn,
                    lun=way.paths[0].lun,
                    portals=tuple(path.portal for path in way.paths),
                    state=state,
                    since=row.created_at,
                )
            )
    return ExportList(tuple(found), in_force)
