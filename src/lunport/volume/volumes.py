"""Use cases on volumes: create, read, change, extend, delete.

Each accepts or refuses in one transaction: the compare-and-swap of the status, what it
implies, and the operation row that a worker (``volume/operations.py``) then carries out.
"""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any, NamedTuple

from lunport.core.agent_identity import AgentIdentity
from lunport.core.errors import InvalidInput, InvalidState, NotItsHost, VolumeTypeNotFound
from lunport.core.identity import derive_identity
from lunport.core.size import parse_size_gib
from lunport.core.snapshot import DELETABLE, SnapshotStatus
from lunport.core.volume import (
    TRANSITIONS,
    Action,
    AttachStatus,
    Transition,
    Volume,
    VolumeStatus,
)
from lunport.store import attachments as attachment_rows
from lunport.store import connections, lookup, operations
from lunport.store import snapshots as snapshot_rows
from lunport.store import volumes as rows
from lunport.store.engine import StoreConnection
from lunport.store.schema import DEFAULT_TYPE
from lunport.volume.requests import (
    UNSET,
    Caller,
    NewVolume,
    Page,
    Query,
    Unset,
    VolumeType,
    VolumeView,
)
from lunport.volume.service import Service

_RESET_REFUSED = frozenset(
    {VolumeStatus.DELETING, VolumeStatus.ERROR_DELETING, VolumeStatus.DETACHING}
)
_UNATTACHED = tuple(status for status in AttachStatus if status is not AttachStatus.ATTACHED)
_MIGRATION_IDLE = (None, "success", "error", "deleting")
_MIGRATION_STATUSES = ("migrating", "error", "success", "completing", "none", "starting")


def create_volume(service: Service, caller: Caller, new: NewVolume) -> VolumeView:
    """Accept a new volume; it is ``creating`` until a worker has made its bytes.

    Raises: InvalidInput, VolumeNotFound, SnapshotNotFound, VolumeTypeNotFound, InvalidState.
    """
    if new.snapshot_id and new.source_volid:
        raise InvalidInput("source", new.snapshot_id, "give a snapshot or a volume, not both")
    if new.availability_zone not in (None, "", service.zone):
        raise InvalidInput(
            "availability zone", new.availability_zone, f"the only zone is {service.zone}"
        )
    volume_id = service.new_id()
    now = service.now()
    with service.store.write() as connection:
        source = _find_source(service, connection, caller, new)
        backend = service.backend(source.backend)
        size_gib = new.size_gib if new.size_gib is not None else source.size_gib
        if size_gib is None:
            raise InvalidInput("size", None, "a volume without a source needs a size")
        size_gib = parse_size_gib(size_gib)
        if source.size_gib is not None and size_gib < source.size_gib:
            raise InvalidInput(
                "size", size_gib, f"the source has {source.size_gib} GiB; it must be at least that"
            )
        volume = Volume(
            id=volume_id,
            project_id=caller.project_id,
            user_id=caller.user_id,
            name=new.name,
            description=new.description,
            size_gib=size_gib,
            status=VolumeStatus.CREATING,
            previous_status=None,
            attach_status=AttachStatus.DETACHED,
            migration_status=None,
            bootable=source.bootable,
            multiattach=new.multiattach,
            readonly=None,
            volume_type_id=find_type(connection, new.volume_type or source.volume_type).id,
            availability_zone=service.zone,
            source_volid=new.source_volid,
            snapshot_id=new.snapshot_id,
            backend=backend.name,
            host=backend.host,
            metadata=dict(new.metadata),
            wwid=derive_identity(volume_id).wwid,
            target_number=rows.next_target_number(connection, backend.name),
            provider_location=None,
            chap_username=None,
            chap_password=None,
            created_at=now,
            updated_at=None,
        )
        rows.add(connection, volume)
        operation = operations.add(
            connection, "create", volume_id, source.arguments, request_id=caller.request_id, now=now
        )
    service.queue.submit(operation)
    return VolumeView(volume, (), backend.shares_targets)


def get_volume(service: Service, caller: Caller, volume_id: str) -> VolumeView:
    """Return a volume with its attachments; to an agent, one that its host has, with its own.

    Raises: VolumeNotFound, NotItsHost.
    """
    if caller.agent is not None:
        return _own_view(service, caller.agent, volume_id)
    with service.store.read() as connection:
        volume = lookup.get_volume(connection, volume_id, caller.sees_project)
        if not _may_be_attached(volume):
            return VolumeView(volume, (), _shares(service, volume))
    # It may have attachments: read both again, from one snapshot of the database.
    with service.store.read(snapshot=True) as connection:
        volume = lookup.get_volume(connection, volume_id, caller.sees_project)
        return _view(service, connection, volume)


def _own_view(service: Service, agent: AgentIdentity, volume_id: str) -> VolumeView:
    with service.store.read(snapshot=True) as connection:
        volume = lookup.get_volume(connection, volume_id, None)
        view = _view(service, connection, volume)
    own = [one for one in view.attachments if agent.owns(one)]
    if not own:
        raise NotItsHost(agent.host, f"volume {volume_id}")
    return view._replace(attachments=own)


def list_volumes(
    service: Service, caller: Caller, query: Query, *, with_attachments: bool = True
) -> Page[VolumeView]:
    """Return one page of volumes. Raises: InvalidInput."""
    with service.store.read(snapshot=True) as connection:
        page = rows.page(connection, query)
        busy = [volume.id for volume in page.rows if with_attachments and _may_be_attached(volume)]
        attached = attachment_rows.of_volumes(connection, busy) if busy else {}
        sharing = connections.sharing(connection, busy) if busy else frozenset()
    return Page(
        [
            VolumeView(one, attached.get(one.id, ()), _shares(service, one, sharing))
            for one in page.rows
        ],
        page.more,
    )


def count_volumes(service: Service, caller: Caller, query: Query) -> int:
    """Count the volumes that match. Raises: InvalidInput."""
    with service.store.read() as connection:
        return rows.totals(connection, query)[0]


def total_size_gib(service: Service, caller: Caller, query: Query) -> int:
    """Add up the GiB of the volumes that match. Raises: InvalidInput."""
    with service.store.read() as connection:
        return rows.totals(connection, query)[1]


def update_volume(
    service: Service,
    caller: Caller,
    volume_id: str,
    *,
    name: str | None | Unset = UNSET,
    description: str | None | Unset = UNSET,
    metadata: Mapping[str, str] | Unset = UNSET,
) -> VolumeView:
    """Change name, description, or replace the metadata. Raises: VolumeNotFound."""
    with service.store.write() as connection:
        lookup.get_volume(connection, volume_id, caller.sees_project)
        values: dict[str, Any] = {"updated_at": service.now()}
        if name is not UNSET:
            values["name"] = name
        if description is not UNSET:
            values["description"] = description
        if not isinstance(metadata, Unset):
            values["metadata"] = dict(metadata)
        rows.change(connection, volume_id, values)
        changed = lookup.get_volume(connection, volume_id, None)
        return _view(service, connection, changed)


def delete_volume(
    service: Service,
    caller: Caller,
    volume_id: str,
    *,
    force: bool = False,
    cascade: bool = False,
) -> None:
    """Accept the end of a volume; with ``cascade`` of its snapshots too.

    ``force`` (admin) ignores the status, never an attachment.
    Raises: VolumeNotFound, InvalidState.
    """
    now = service.now()
    with service.store.write() as connection:
        volume = lookup.get_volume(connection, volume_id, caller.sees_project)
        if volume.status == VolumeStatus.DELETING and force:
            return
        transition = TRANSITIONS[Action.DELETE]
        if volume.migration_status not in _MIGRATION_IDLE:
            raise InvalidState("volume", volume_id, "migrating", "not migrating")
        swapped = rows.change(
            connection,
            volume_id,
            {"status": transition.to, "updated_at": now},
            statuses=None if force else transition.allowed,
            attach_statuses=_UNATTACHED,
        )
        if not swapped:
            raise _refusal(volume, transition, "and not attached")
        snapshots = snapshot_rows.of_volume(connection, volume_id)
        if snapshots and not cascade:
            raise InvalidState("volume", volume_id, "with snapshots", "without snapshots")
        stuck = next((one for one in snapshots if one.status not in DELETABLE), None)
        if stuck is not None and not force:
            raise InvalidState("snapshot", stuck.id, stuck.status, " or ".join(DELETABLE))
        for snapshot in snapshots:
            snapshot_rows.change(
                connection, snapshot.id, {"status": SnapshotStatus.DELETING, "updated_at": now}
            )
        operation = operations.add(
            connection,
            "delete",
            volume_id,
            {"snapshot_ids": [one.id for one in snapshots]},
            request_id=caller.request_id,
            now=now,
        )
    service.queue.submit(operation)


def extend_volume(
    service: Service, caller: Caller, volume_id: str, new_size_gib: int, *, allow_in_use: bool
) -> None:
    """Accept the growth of a volume.

    A volume that a host is connected to is refused where the target helper cannot show the
    new size without an interruption of its I/O.
    Raises: VolumeNotFound, InvalidInput, InvalidState, BackendNotFound.
    """
    now = service.now()
    new_size_gib = parse_size_gib(new_size_gib, what="new size")
    with service.store.write() as connection:
        volume = lookup.get_volume(connection, volume_id, caller.sees_project)
        if new_size_gib <= volume.size_gib:
            raise InvalidInput(
                "new size",
                new_size_gib,
                "New size for extend must be greater than current size. "
                f"(current: {volume.size_gib}, extended: {new_size_gib})",
            )
        transition = TRANSITIONS[Action.EXTEND]
        allowed = (*transition.allowed, VolumeStatus.IN_USE) if allow_in_use else transition.allowed
        if connections.of_volume(connection, volume_id):
            helper = service.backend(volume.backend).helper
            if not helper.limits.grows_live:
                state = "connected to a host, and its target cannot grow without an interruption"
                raise InvalidState("volume", volume_id, state, "not connected")
        swapped = rows.change(
            connection,
            volume_id,
            {"status": transition.to, "previous_status": volume.status, "updated_at": now},
            statuses=allowed,
        )
        if not swapped:
            raise _refusal(volume, transition, "to extend")
        operation = operations.add(
            connection,
            "extend",
            volume_id,
            {"size_gib": new_size_gib},
            request_id=caller.request_id,
            now=now,
        )
    service.queue.submit(operation)


def reset_status(
    service: Service,
    caller: Caller,
    volume_id: str,
    *,
    status: str | None = None,
    attach_status: str | None = None,
    migration_status: str | None = None,
) -> None:
    """Set statuses by hand (admin); ``detached`` forgets the attachments without a connection.

    Raises: VolumeNotFound, InvalidInput.
    """
    values: dict[str, Any] = {"updated_at": service.now()}
    if status is not None:
        values["status"] = _parse_status(status)
    if attach_status is not None:
        values["attach_status"] = _parse_attach_status(attach_status)
    if migration_status is not None:
        values["migration_status"] = _parse_migration_status(migration_status)
    with service.store.write() as connection:
        lookup.get_volume(connection, volume_id, caller.sees_project)
        present = attachment_rows.of_volume(connection, volume_id)
        if values.get("status") == VolumeStatus.IN_USE and not present:
            raise InvalidInput("status", status, "the volume does not have any attachments")
        rows.change(connection, volume_id, values)
        if values.get("attach_status") == AttachStatus.DETACHED:
            connected = {one.attachment_id for one in connections.of_volume(connection, volume_id)}
            for attachment in present:
                if attachment.id not in connected:
                    attachment_rows.remove(connection, attachment.id)


def set_bootable(service: Service, caller: Caller, volume_id: str, bootable: bool) -> None:
    """Say whether guests may boot from the volume. Raises: VolumeNotFound."""
    _set(service, caller, volume_id, {"bootable": bootable})


def set_readonly(service: Service, caller: Caller, volume_id: str, readonly: bool) -> None:
    """Say whether the volume is only to be read. Raises: VolumeNotFound, InvalidState."""
    _set(service, caller, volume_id, {"readonly": readonly}, (VolumeStatus.AVAILABLE,))


def find_type(connection: StoreConnection, name_or_id: str | None) -> VolumeType:
    """Return a volume type, the default one for None. Raises: VolumeTypeNotFound."""
    wanted = name_or_id or DEFAULT_TYPE
    for one in operations.types(connection):
        if wanted in (one.id, one.name):
            return one
    raise VolumeTypeNotFound(wanted)


class _Source(NamedTuple):
    """What a new volume is made of: the create operation's arguments, and what it inherits."""

    arguments: Mapping[str, str]
    size_gib: int | None
    backend: str
    volume_type: str | None
    bootable: bool


def _view(service: Service, connection: StoreConnection, volume: Volume) -> VolumeView:
    attached = attachment_rows.of_volume(connection, volume.id)
    sharing = connections.sharing(connection, [volume.id])
    return VolumeView(volume, attached, _shares(service, volume, sharing))


def _shares(service: Service, volume: Volume, sharing: frozenset[str] = frozenset()) -> bool:
    """Tell whether hosts meet other volumes behind a volume's target, now or when connected."""
    backend = service.backends.get(volume.backend)
    return volume.id in sharing or (backend is not None and backend.shares_targets)


def _may_be_attached(volume: Volume) -> bool:
    """Tell whether it is worth looking for attachments: of most volumes it is not."""
    return (
        volume.status not in (VolumeStatus.AVAILABLE, VolumeStatus.CREATING)
        or volume.attach_status != AttachStatus.DETACHED
    )


def _set(
    service: Service,
    caller: Caller,
    volume_id: str,
    values: Mapping[str, Any],
    statuses: tuple[VolumeStatus, ...] | None = None,
) -> None:
    with service.store.write() as connection:
        volume = lookup.get_volume(connection, volume_id, caller.sees_project)
        changed = rows.change(
            connection, volume_id, {**values, "updated_at": service.now()}, statuses=statuses
        )
        if not changed and statuses:
            raise InvalidState("volume", volume_id, volume.status, " or ".join(statuses))


def _find_source(
    service: Service, connection: StoreConnection, caller: Caller, new: NewVolume
) -> _Source:
    """Return what the new volume is made of; raise if that cannot be."""
    if new.snapshot_id:
        snapshot = lookup.get_snapshot(connection, new.snapshot_id, caller.sees_project)
        if snapshot.status != SnapshotStatus.AVAILABLE:
            raise InvalidState("snapshot", snapshot.id, snapshot.status, SnapshotStatus.AVAILABLE)
        origin = rows.find(connection, snapshot.volume_id)
        return _Source(
            {"snapshot_id": snapshot.id},
            snapshot.size_gib,
            snapshot.backend,
            snapshot.volume_type_id,
            bootable=origin is not None and origin.bootable,
        )
    if new.source_volid:
        source = lookup.get_volume(connection, new.source_volid, caller.sees_project)
        if source.status not in TRANSITIONS[Action.CLONE].allowed:
            raise _refusal(source, TRANSITIONS[Action.CLONE], "")
        refuse_torn_copy(service, connection, source)
        return _Source(
            {"source_volid": source.id},
            source.size_gib,
            source.backend,
            source.volume_type_id,
            bootable=source.bootable,
        )
    return _Source({}, None, service.default_backend, None, bootable=False)


def refuse_torn_copy(service: Service, connection: StoreConnection, volume: Volume) -> None:
    """Refuse to copy a volume that a host may be writing to, unless copies are atomic.

    Raises: InvalidState.
    """
    if service.backend(volume.backend).driver.copies_atomically:
        return
    if connections.of_volume(connection, volume.id):
        raise InvalidState(
            "volume",
            volume.id,
            "connected to a host, and this backend cannot copy it at one point in time",
            "not connected",
        )


def _refusal(volume: Volume, transition: Transition, rest: str) -> InvalidState:
    needs = " or ".join(transition.allowed)
    state = volume.status
    if volume.attach_status == AttachStatus.ATTACHED and state in transition.allowed:
        state = f"{state}, attached"
    return InvalidState("volume", volume.id, state, f"{needs} {rest}".strip())


def _parse_status(text: str) -> VolumeStatus:
    try:
        status = VolumeStatus(text.lower())
    except ValueError:
        raise InvalidInput("status", text, f"expected one of {', '.join(VolumeStatus)}") from None
    if status in _RESET_REFUSED:
        raise InvalidInput("status", text, f"Cannot reset-state to {status}")
    return status


def _parse_attach_status(text: str) -> AttachStatus:
    try:
        return AttachStatus(text.lower())
    except ValueError:
        raise InvalidInput(
            "attach_status", text, f"expected one of {', '.join(AttachStatus)}"
        ) from None


def _parse_migration_status(text: str) -> str | None:
    wanted = text.lower()
    if wanted not in _MIGRATION_STATUSES:
        raise InvalidInput(
            "migration_status", text, f"expected one of {', '.join(_MIGRATION_STATUSES)}"
        )
    return None if wanted == "none" else wanted
