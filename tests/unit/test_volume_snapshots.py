"""Snapshots, and the metadata of volumes and snapshots."""

from __future__ import annotations

from pathlib import Path

import pytest

from lunport.core.errors import (
    BackendError,
    InvalidInput,
    InvalidState,
    MetadataKeyNotFound,
    SnapshotNotFound,
    VolumeNotFound,
)
from lunport.core.snapshot import Snapshot, SnapshotStatus
from lunport.core.volume import Volume
from lunport.store import snapshots as snapshot_rows
from lunport.store import tables
from lunport.volume import metadata, snapshots, volumes
from lunport.volume.operations import carry_out
from lunport.volume.requests import Filter, NewSnapshot, NewVolume, Query
from tests.fakes.fake_service import FakeBench, make_bench
from tests.fakes.volume_play import (
    ADMIN,
    ME,
    STRANGER,
    UNKNOWN,
    connect,
    make_attached,
    make_volume,
    messages_of,
    operations_of,
    rows_of,
    state_of,
    statuses_of,
)


@pytest.fixture
def bench(tmp_path: Path) -> FakeBench:
    """A service of the test's own."""
    return make_bench(tmp_path)


@pytest.fixture
def volume(bench: FakeBench) -> Volume:
    """An available volume."""
    return make_volume(bench)


def take(bench: FakeBench, volume: Volume, **fields: str) -> Snapshot:
    """Take a snapshot."""
    made = snapshots.create_snapshot(bench.service, ME, NewSnapshot(volume.id, **fields))  # type: ignore[arg-type]
    return snapshots.get_snapshot(bench.service, ME, made.id)


def test_snapshot(bench: FakeBench, volume: Volume) -> None:
    """A snapshot is creating, then available with the volume's bytes of that moment."""
    bench.driver.write(f"volume-{volume.id}", 0, b"then")
    bench.queue.holds = True
    new = NewSnapshot(volume.id, name="n", description="d", metadata={"k": "v"})
    made = snapshots.create_snapshot(bench.service, ME, new)
    assert (made.status, made.progress, made.size_gib) == ("creating", "0%", 1)
    carry_out(bench.service, bench.queue.held.pop())
    bench.driver.write(f"volume-{volume.id}", 0, b"now!")
    found = snapshots.get_snapshot(bench.service, ME, made.id)
    assert found == made._replace(status="available", progress="100%", updated_at=found.updated_at)
    bench.queue.holds = False
    clone = make_volume(bench, size_gib=None, snapshot_id=made.id)
    assert bench.driver.read(f"volume-{clone.id}", 0, 4) == b"then"
    assert (clone.snapshot_id, clone.size_gib) == (made.id, 1)
    assert statuses_of(bench, volume) == ("available", "detached")


def test_snapshot_of_a_volume_in_use(bench: FakeBench, volume: Volume) -> None:
    """A volume in use gives a snapshot only by force."""
    make_attached(bench, volume)
    with pytest.raises(InvalidState, match="in-use"):
        snapshots.create_snapshot(bench.service, ME, NewSnapshot(volume.id))
    made = snapshots.create_snapshot(bench.service, ME, NewSnapshot(volume.id, force=True))
    assert snapshots.get_snapshot(bench.service, ME, made.id).status == "available"


@pytest.mark.parametrize("when", ["before", "after"])
def test_snapshot_is_not_torn(tmp_path: Path, when: str) -> None:
    """Without atomic copies a connected volume gives no snapshot, even if connected later."""
    bench = make_bench(tmp_path, copies_atomically=False)
    volume = make_volume(bench)
    if when == "before":
        connect(bench, volume)
        with pytest.raises(InvalidState, match="point in time"):
            take(bench, volume)
        assert rows_of(bench, tables.snapshots) == []
    else:
        bench.queue.holds = True
        made = take(bench, volume)
        connect(bench, volume)
        carry_out(bench.service, bench.queue.held.pop())
        assert snapshots.get_snapshot(bench.service, ME, made.id).status == "error"
        assert "connected to a host" in messages_of(bench)[0]


def test_snapshot_fails(bench: FakeBench, volume: Volume) -> None:
    """When the driver fails the snapshot is in error, its users are told, it can be deleted."""
    bench.driver.fail_next["snapshot"] = BackendError("input/output error")
    made = take(bench, volume)
    assert made.status == "error"
    assert messages_of(bench) == ["snapshot: input/output error"]
    with pytest.raises(InvalidState):
        volumes.create_volume(bench.service, ME, NewVolume(1, snapshot_id=made.id))
    snapshots.delete_snapshot(bench.service, ME, made.id)
    with pytest.raises(SnapshotNotFound):
        snapshots.get_snapshot(bench.service, ME, made.id)


def test_deletion(bench: FakeBench, volume: Volume) -> None:
    """A deleted snapshot leaves nothing; the volume stays, and clones made of it too."""
    made = take(bench, volume)
    clone = make_volume(bench, size_gib=None, snapshot_id=made.id)
    snapshots.delete_snapshot(bench.service, ME, made.id)
    assert rows_of(bench, tables.snapshots) == operations_of(bench) == []
    assert bench.driver.images() == {f"volume-{volume.id}", f"volume-{clone.id}"}


def test_deletion_fails(bench: FakeBench, volume: Volume) -> None:
    """When the bytes do not go the snapshot is in error_deleting, and can be deleted again."""
    made = take(bench, volume)
    bench.driver.fail_next["delete"] = BackendError("read-only file system")
    snapshots.delete_snapshot(bench.service, ME, made.id)
    assert snapshots.get_snapshot(bench.service, ME, made.id).status == "error_deleting"
    assert messages_of(bench) == ["delete_snapshot: read-only file system"]
    snapshots.delete_snapshot(bench.service, ME, made.id)
    assert rows_of(bench, tables.snapshots) == []


@pytest.mark.parametrize("status", list(SnapshotStatus))
def test_deletion_in_status(bench: FakeBench, volume: Volume, status: SnapshotStatus) -> None:
    """A snapshot under work is not deleted, except by force."""
    made = take(bench, volume)
    with bench.service.store.write() as connection:
        snapshot_rows.change(connection, made.id, {"status": status})
    before = state_of(bench)
    if status in (SnapshotStatus.CREATING, SnapshotStatus.DELETING):
        with pytest.raises(InvalidState, match=status):
            snapshots.delete_snapshot(bench.service, ME, made.id)
        assert state_of(bench) == before
    snapshots.delete_snapshot(bench.service, ADMIN, made.id, force=True)
    assert rows_of(bench, tables.snapshots) == []


def test_changes(bench: FakeBench, volume: Volume) -> None:
    """Only what is given changes; metadata is merged; a stranger changes nothing."""
    made = take(bench, volume, name="old", description="kept")
    snapshots.update_snapshot(bench.service, ME, made.id, name=None, metadata={"a": "1"})
    snapshots.update_snapshot(bench.service, ME, made.id, metadata={"b": "2"})
    found = snapshots.get_snapshot(bench.service, ME, made.id)
    assert (found.name, found.description) == (None, "kept")
    assert found.metadata == {"a": "1", "b": "2"}
    snapshots.reset_status(bench.service, ADMIN, made.id, "ERROR")
    assert snapshots.get_snapshot(bench.service, ME, made.id).status == "error"
    with pytest.raises(InvalidInput):
        snapshots.reset_status(bench.service, ADMIN, made.id, "nonsense")
    before = state_of(bench)
    for identifier, caller in ((made.id, STRANGER), (UNKNOWN, ME), ("\x00", ME)):
        with pytest.raises(SnapshotNotFound):
            snapshots.update_snapshot(bench.service, caller, identifier, name="x")
        with pytest.raises(SnapshotNotFound):
            snapshots.delete_snapshot(bench.service, caller, identifier)
        with pytest.raises(SnapshotNotFound):
            snapshots.reset_status(bench.service, caller, identifier, "error")
    assert state_of(bench) == before


def test_lists(bench: FakeBench, volume: Volume) -> None:
    """Snapshots are listed and counted by project and filter."""
    made = [take(bench, volume, name=name) for name in ("a", "b", "b")]
    query = Query("project", filters=(Filter("name", "=", "b"),), limit=1)
    page = snapshots.list_snapshots(bench.service, ME, query)
    assert ([one.id for one in page.rows], page.more) == ([made[2].id], True)
    assert snapshots.count_snapshots(bench.service, ME, query) == 2
    assert snapshots.count_snapshots(bench.service, STRANGER, Query("elsewhere")) == 0


# -- metadata ------------------------------------------------------------------------------------

HOSTILE = {'"': "'", "\\": "{}", "ключ": "значение", "😀": "", "": "empty", "$.a": "b"}


def test_metadata_of_a_volume(bench: FakeBench, volume: Volume) -> None:
    """Entries are merged, replaced, deleted one by one; any text is kept as it is."""
    service = bench.service
    merge = metadata.write_volume_metadata
    assert merge(service, ME, volume.id, HOSTILE, replace=False) == HOSTILE
    assert merge(service, ME, volume.id, {"a": "1"}, replace=False) == {**HOSTILE, "a": "1"}
    assert metadata.read_volume_metadata(service, ME, volume.id) == {**HOSTILE, "a": "1"}
    for key in HOSTILE:
        metadata.delete_volume_metadata_key(service, ME, volume.id, key)
        with pytest.raises(MetadataKeyNotFound):
            metadata.delete_volume_metadata_key(service, ME, volume.id, key)
    assert metadata.read_volume_metadata(service, ME, volume.id) == {"a": "1"}
    assert merge(service, ME, volume.id, {}, replace=True) == {}
    with pytest.raises(VolumeNotFound):
        merge(service, STRANGER, volume.id, {"x": "y"}, replace=True)
    with pytest.raises(VolumeNotFound):
        metadata.read_volume_metadata(service, STRANGER, volume.id)


def test_metadata_of_a_snapshot(bench: FakeBench, volume: Volume) -> None:
    """The same for snapshots."""
    made = take(bench, volume)
    service = bench.service
    merge = metadata.write_snapshot_metadata
    assert merge(service, ME, made.id, HOSTILE, replace=True) == HOSTILE
    assert merge(service, ME, made.id, {"": "x"}, replace=False) == {**HOSTILE, "": "x"}
    metadata.delete_snapshot_metadata_key(service, ME, made.id, "")
    with pytest.raises(MetadataKeyNotFound):
        metadata.delete_snapshot_metadata_key(service, ME, made.id, "")
    assert set(metadata.read_snapshot_metadata(service, ME, made.id)) == set(HOSTILE) - {""}
    with pytest.raises(SnapshotNotFound):
        metadata.delete_snapshot_metadata_key(service, STRANGER, made.id, '"')
