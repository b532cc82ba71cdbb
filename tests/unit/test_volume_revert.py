"""A volume is taken back to its newest snapshot, or stays as it was and says why."""

from __future__ import annotations

from pathlib import Path

import pytest

from lunport.core.errors import BackendError, InvalidInput, InvalidState, OutOfSpace, VolumeNotFound
from lunport.core.snapshot import Snapshot, SnapshotStatus
from lunport.core.snapshot import image_name as snapshot_image
from lunport.core.volume import Volume, VolumeStatus, image_name
from lunport.store import snapshots as snapshot_rows
from lunport.volume import reverting, snapshots, volumes
from lunport.volume.operations import carry_out
from lunport.volume.requests import NewSnapshot
from tests.fakes.api_client import ApiClient
from tests.fakes.fake_service import FakeBench, make_bench
from tests.fakes.volume_play import (
    ADMIN,
    ME,
    STRANGER,
    UNKNOWN,
    connect,
    make_volume,
    messages_of,
    operations_of,
    state_of,
    statuses_of,
)


@pytest.fixture
def bench(tmp_path: Path) -> FakeBench:
    """A service of the test's own."""
    return make_bench(tmp_path)


@pytest.fixture
def volume(bench: FakeBench) -> Volume:
    """An available volume, which says "then"."""
    made = make_volume(bench)
    bench.driver.write(image_name(made.id), 0, b"then")
    return made


def take(bench: FakeBench, volume: Volume) -> Snapshot:
    """Take a snapshot; the volume says "now!" after it."""
    made = snapshots.create_snapshot(bench.service, ME, NewSnapshot(volume.id))
    bench.driver.write(image_name(volume.id), 0, b"now!")
    return made


def said(bench: FakeBench, volume: Volume) -> bytes:
    """Read what the volume says."""
    return bench.driver.read(image_name(volume.id), 0, 4)


def status_of(bench: FakeBench, snapshot: Snapshot) -> str:
    """Return a snapshot's status."""
    return snapshots.get_snapshot(bench.service, ME, snapshot.id).status


def set_snapshot(bench: FakeBench, snapshot: Snapshot, status: SnapshotStatus) -> None:
    """Set a snapshot's status."""
    snapshots.reset_status(bench.service, ADMIN, snapshot.id, status)


def test_revert(bench: FakeBench, volume: Volume) -> None:
    """Both say so until the worker has done it; then both are available, with those bytes."""
    snapshot = take(bench, volume)
    bench.queue.holds = True
    reverting.revert_volume(bench.service, ME, volume.id, snapshot.id)
    assert statuses_of(bench, volume)[0] == VolumeStatus.REVERTING
    assert status_of(bench, snapshot) == SnapshotStatus.RESTORING
    assert said(bench, volume) == b"now!"
    carry_out(bench.service, bench.queue.held[0])
    assert statuses_of(bench, volume)[0] == VolumeStatus.AVAILABLE
    assert status_of(bench, snapshot) == SnapshotStatus.AVAILABLE
    assert said(bench, volume) == b"then"
    assert operations_of(bench) == []


def test_revert_carried_out_twice(bench: FakeBench, volume: Volume) -> None:
    """A worker killed before its end was recorded does the same again, and nothing after it."""
    snapshot = take(bench, volume)
    bench.queue.holds = True
    reverting.revert_volume(bench.service, ME, volume.id, snapshot.id)
    bench.driver.revert(image_name(volume.id), snapshot_image(snapshot.id))
    carry_out(bench.service, bench.queue.held[0])
    assert said(bench, volume) == b"then"
    bench.driver.write(image_name(volume.id), 0, b"new!")
    carry_out(bench.service, bench.queue.held[0])
    assert said(bench, volume) == b"new!"


def test_only_the_newest_snapshot(bench: FakeBench, volume: Volume) -> None:
    """An older one, another volume's and none are refused, and nothing changes."""
    older = take(bench, volume)
    take(bench, volume)
    other = take(bench, make_volume(bench))
    before = state_of(bench)
    for snapshot_id in (older.id, other.id, UNKNOWN):
        with pytest.raises(InvalidInput, match="newest"):
            reverting.revert_volume(bench.service, ME, volume.id, snapshot_id)
    assert state_of(bench) == before


def test_only_a_snapshot_of_the_same_size(bench: FakeBench, volume: Volume) -> None:
    """A volume that has grown since keeps its size and its bytes."""
    snapshot = take(bench, volume)
    volumes.extend_volume(bench.service, ME, volume.id, 2, allow_in_use=False)
    with pytest.raises(InvalidInput, match=r"1 GiB.*2 GiB"):
        reverting.revert_volume(bench.service, ME, volume.id, snapshot.id)
    assert said(bench, volume) == b"now!"


def test_nobody_may_be_connected(bench: FakeBench, volume: Volume) -> None:
    """A host that is connected without an attachment is as good a reason to refuse."""
    snapshot = take(bench, volume)
    connect(bench, volume)
    with pytest.raises(InvalidState, match="connected"):
        reverting.revert_volume(bench.service, ME, volume.id, snapshot.id)
    assert statuses_of(bench, volume)[0] == VolumeStatus.AVAILABLE


@pytest.mark.parametrize("status", [one for one in SnapshotStatus if one != "available"])
def test_the_snapshot_must_be_whole(
    bench: FakeBench, volume: Volume, status: SnapshotStatus
) -> None:
    """A snapshot that is not available is refused, and the volume stays available."""
    snapshot = take(bench, volume)
    set_snapshot(bench, snapshot, status)
    with pytest.raises(InvalidState, match=status):
        reverting.revert_volume(bench.service, ME, volume.id, snapshot.id)
    assert statuses_of(bench, volume)[0] == VolumeStatus.AVAILABLE


def test_a_stranger_sees_no_volume(bench: FakeBench, volume: Volume) -> None:
    """Another project's volume does not exist."""
    snapshot = take(bench, volume)
    with pytest.raises(VolumeNotFound):
        reverting.revert_volume(bench.service, STRANGER, volume.id, snapshot.id)


@pytest.mark.parametrize(
    ("failure", "status"),
    [(BackendError("The disk is gone."), "error"), (OutOfSpace("pool", 2, 1), "available")],
)
def test_revert_fails(bench: FakeBench, volume: Volume, failure: BackendError, status: str) -> None:
    """The snapshot stays available, the volume is in error unless untouched; a message says why."""
    snapshot = take(bench, volume)
    bench.driver.fail_next["revert"] = failure
    reverting.revert_volume(bench.service, ME, volume.id, snapshot.id)
    assert statuses_of(bench, volume)[0] == status
    assert status_of(bench, snapshot) == SnapshotStatus.AVAILABLE
    (message,) = messages_of(bench)
    assert message.startswith("revert: ")
    assert operations_of(bench) == []


def test_a_forced_deletion_comes_after_it(bench: FakeBench, volume: Volume) -> None:
    """A volume that is deleted by force meanwhile goes, and its snapshot with it."""
    snapshot = take(bench, volume)
    bench.queue.holds = True
    reverting.revert_volume(bench.service, ME, volume.id, snapshot.id)
    volumes.delete_volume(bench.service, ADMIN, volume.id, force=True, cascade=True)
    for operation in bench.queue.held:
        carry_out(bench.service, operation)
    assert bench.driver.images() == frozenset()
    with bench.service.store.read() as connection:
        assert snapshot_rows.find(connection, snapshot.id) is None


def test_revert_over_the_api(bench: FakeBench) -> None:
    """From 3.40; a bad state is a conflict, a snapshot that cannot be meant a bad request."""
    api = ApiClient(bench)
    volume = api.make_volume()
    body = {"snapshot": {"volume_id": volume}}
    snapshot = api.post("/snapshots", body).json["snapshot"]["id"]
    bench.driver.write(image_name(volume), 0, b"more")
    value = {"snapshot_id": snapshot}
    assert api.act(volume, "revert", value, version="3.39").status == 404
    assert api.act(volume, "revert", {"snapshot_id": UNKNOWN}, version="3.40").status == 400
    assert api.act(volume, "revert", {"snapshot_id": "x"}, version="3.40").status == 400
    assert api.act(volume, "revert", {}, version="3.40").status == 400
    assert api.act(UNKNOWN, "revert", value, version="3.40").status == 404
    answer = api.act(volume, "revert", value, version="3.40")
    assert (answer.status, answer.text) == (202, "")
    assert api.status_of(volume) == "available"
    assert bench.driver.read(image_name(volume), 0, 4) == bytes(4)
    api.act(volume, "os-reserve", {})
    refused = api.act(volume, "revert", value, version="3.40")
    assert refused.fault[:2] == ("conflictingRequest", 409)
