"""Use cases on the metadata of volumes and snapshots."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from typing import Any

from lunport.core.errors import MetadataKeyNotFound
from lunport.store import lookup, snapshots, volumes
from lunport.store.engine import StoreConnection
from lunport.volume.requests import Caller
from lunport.volume.service import Service

Entries = Mapping[str, str]
_Find = Callable[[StoreConnection, str, str | None], Any]
_Change = Callable[[StoreConnection, str, Mapping[str, Any]], bool]


def read_volume_metadata(service: Service, caller: Caller, volume_id: str) -> Entries:
    """Return a volume's metadata. Raises: VolumeNotFound."""
    return _read(service, caller, volume_id, lookup.get_volume)


def write_volume_metadata(
    service: Service, caller: Caller, volume_id: str, entries: Entries, *, replace: bool
) -> Entries:
    """Merge into, or replace, a volume's metadata; return it. Raises: VolumeNotFound."""
    return _write(service, caller, volume_id, entries, replace, lookup.get_volume, volumes.change)


def delete_volume_metadata_key(service: Service, caller: Caller, volume_id: str, key: str) -> None:
    """Remove one entry. Raises: VolumeNotFound, MetadataKeyNotFound."""
    _delete_key(service, caller, volume_id, key, lookup.get_volume, volumes.change)


def read_snapshot_metadata(service: Service, caller: Caller, snapshot_id: str) -> Entries:
    """Return a snapshot's metadata. Raises: SnapshotNotFound."""
    return _read(service, caller, snapshot_id, lookup.get_snapshot)


def write_snapshot_metadata(
    service: Service, caller: Caller, snapshot_id: str, entries: Entries, *, replace: bool
) -> Entries:
    """Merge into, or replace, a snapshot's metadata; return it. Raises: SnapshotNotFound."""
    return _write(
        service, caller, snapshot_id, entries, replace, lookup.get_snapshot, snapshots.change
    )


def delete_snapshot_metadata_key(
    service: Service, caller: Caller, snapshot_id: str, key: str
) -> None:
    """Remove one entry. Raises: SnapshotNotFound, MetadataKeyNotFound."""
    _delete_key(service, caller, snapshot_id, key, lookup.get_snapshot, snapshots.change)


def _read(service: Service, caller: Caller, identifier: str, find: _Find) -> Entries:
    with service.store.read() as connection:
        found: Entries = find(connection, identifier, caller.sees_project).metadata
        return found


def _write(
    service: Service,
    caller: Caller,
    identifier: str,
    entries: Entries,
    replace: bool,
    find: _Find,
    change: _Change,
) -> Entries:
    with service.store.write() as connection:
        present = find(connection, identifier, caller.sees_project).metadata
        wanted = dict(entries) if replace else {**present, **entries}
        change(connection, identifier, {"metadata": wanted, "updated_at": service.now()})
        return wanted


def _delete_key(
    service: Service, caller: Caller, identifier: str, key: str, find: _Find, change: _Change
) -> None:
    with service.store.write() as connection:
        present = dict(find(connection, identifier, caller.sees_project).metadata)
        if key not in present:
            raise MetadataKeyNotFound(key)
        del present[key]
        change(connection, identifier, {"metadata": present, "updated_at": service.now()})
