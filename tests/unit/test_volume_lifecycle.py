"""Create, read, change, extend, delete: success, each refusal, each failure of the backend."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path

import pytest

from lunport.core.errors import (
    BackendError,
    BackendNotFound,
    ExportFailed,
    InvalidInput,
    InvalidState,
    LunportError,
    OutOfSpace,
    SnapshotNotFound,
    StoreUnavailable,
    TargetDaemonDown,
    Unavailable,
    VolumeNotFound,
    VolumeTypeNotFound,
)
from lunport.core.identity import derive_identity
from lunport.core.size import GIB, MAX_SIZE_GIB
from lunport.store import tables
from lunport.volume import actions, attachments, snapshots, volumes
from lunport.volume.operations import carry_out
from lunport.volume.requests import NewAttachment, NewSnapshot, NewVolume
from tests.fakes.fake_helper import LIKE_LIO
from tests.fakes.fake_service import FakeBench, make_bench
from tests.fakes.volume_play import (
    ADMIN,
    HOST_A,
    ME,
    STRANGER,
    UNKNOWN,
    admitted_to,
    connections_of,
    exists,
    make_attached,
    make_volume,
    messages_of,
    operations_of,
    rows_of,
    set_volume,
    state_of,
    statuses_of,
    volume_of,
)


@pytest.fixture
def bench(tmp_path: Path) -> FakeBench:
    """A service of the test's own."""
    return make_bench(tmp_path)


def full() -> OutOfSpace:
    """Say that the disk is full."""
    return OutOfSpace("/fake", 2 << 30, 1 << 20)


# -- create ------------------------------------------------------------------------------------


def test_create(bench: FakeBench) -> None:
    """A new volume is creating, then available with its bytes, identity and no work left."""
    bench.queue.holds = True
    new = NewVolume(3, name="n", description="d", metadata={"k": "v"})
    made = volumes.create_volume(bench.service, ME, new).volume
    assert (made.status, made.project_id, made.user_id) == ("creating", "project", "me")
    assert bench.driver.images() == frozenset()
    carry_out(bench.service, bench.queue.held.pop())
    volume = volume_of(bench, made.id)
    assert volume == made._replace(status="available", updated_at=volume.updated_at)
    assert volume.wwid == derive_identity(made.id).wwid
    assert volume.host == "node@files#files"
    assert bench.driver.locate(f"volume-{made.id}").size_bytes == 3 * GIB
    assert operations_of(bench) == []


def test_target_numbers_are_unique(bench: FakeBench) -> None:
    """Volumes have target numbers of their own, also after one in the middle was deleted."""
    made = [make_volume(bench) for _ in range(3)]
    volumes.delete_volume(bench.service, ME, made[1].id)
    made.append(make_volume(bench))
    numbers = [one.target_number for one in made if exists(bench, one)]
    assert len(set(numbers)) == len(numbers) == 3


@pytest.mark.parametrize(
    "new, error",
    [
        (NewVolume(None), InvalidInput),
        (NewVolume(0), InvalidInput),
        (NewVolume(-1), InvalidInput),
        (NewVolume(MAX_SIZE_GIB + 1), InvalidInput),
        (NewVolume(10**40), InvalidInput),
        (NewVolume(1, snapshot_id=UNKNOWN), SnapshotNotFound),
        (NewVolume(1, source_volid=UNKNOWN), VolumeNotFound),
        (NewVolume(1, source_volid=UNKNOWN, snapshot_id=UNKNOWN), InvalidInput),
        (NewVolume(1, volume_type="no-such"), VolumeTypeNotFound),
        (NewVolume(1, volume_type="\x00' OR 1=1 --"), VolumeTypeNotFound),
        (NewVolume(1, availability_zone="mars"), InvalidInput),
        (NewVolume(1, source_volid="\x00"), VolumeNotFound),
        (NewVolume(1, name="\ud800"), InvalidInput),
    ],
    ids=lambda value: value.__name__ if isinstance(value, type) else "",
)
def test_create_refused(bench: FakeBench, new: NewVolume, error: type[LunportError]) -> None:
    """What cannot be made is refused at once, and leaves nothing."""
    before = state_of(bench)
    with pytest.raises(error):
        volumes.create_volume(bench.service, ME, new)
    assert state_of(bench) == before


def test_largest_size(bench: FakeBench) -> None:
    """The largest size is accepted; that it does not fit is told as a message."""
    volume = make_volume(bench, size_gib=MAX_SIZE_GIB)
    assert volume.status == "error"
    assert messages_of(bench)[0].startswith("create: Out of space: ")


@pytest.mark.parametrize(
    "error", [full(), BackendError("input/output error"), BackendNotFound("files")], ids=str
)
def test_create_fails(bench: FakeBench, error: Exception) -> None:
    """When the bytes cannot be made the volume is in error and its users are told why."""
    bench.driver.fail_next["create"] = error
    volume = make_volume(bench)
    assert volume.status == "error"
    told = error.told if isinstance(error, OutOfSpace) else error
    assert messages_of(bench) == [f"create: {told}"]
    assert operations_of(bench) == []
    volumes.delete_volume(bench.service, ME, volume.id)
    assert not exists(bench, volume)


def test_image_of_another_size_in_the_way(bench: FakeBench) -> None:
    """A file of that name and another size ends the creation in error, not in a hang."""
    bench.queue.holds = True
    volume = volumes.create_volume(bench.service, ME, NewVolume(1)).volume
    bench.driver.create(f"volume-{volume.id}", 512)
    carry_out(bench.service, bench.queue.held.pop())
    assert statuses_of(bench, volume)[0] == "error"
    assert "already exists" in messages_of(bench)[0]


@pytest.mark.parametrize("error", [Unavailable("stopping"), StoreUnavailable("busy")])
def test_postponed_work_stays_accepted(bench: FakeBench, error: Exception) -> None:
    """Work that cannot be done now keeps its record, and the next try ends it."""
    bench.queue.holds = True
    volume = volumes.create_volume(bench.service, ME, NewVolume(1)).volume
    bench.driver.fail_next["create"] = error
    with pytest.raises(Unavailable):
        carry_out(bench.service, bench.queue.held[0])
    assert statuses_of(bench, volume)[0] == "creating"
    assert len(operations_of(bench)) == 1
    carry_out(bench.service, bench.queue.held[0])
    assert statuses_of(bench, volume)[0] == "available"
    assert (operations_of(bench), messages_of(bench)) == ([], [])


# -- clone -------------------------------------------------------------------------------------


@pytest.mark.parametrize("size_gib", [None, 1, 4])
def test_clone(bench: FakeBench, size_gib: int | None) -> None:
    """A clone has the source's bytes, and zeros behind them when it is larger."""
    source = make_volume(bench)
    bench.driver.write(f"volume-{source.id}", GIB - 4, b"last")
    clone = make_volume(bench, size_gib=size_gib, source_volid=source.id)
    assert (clone.status, clone.size_gib, clone.source_volid) == (
        "available",
        size_gib or 1,
        source.id,
    )
    assert bench.driver.read(f"volume-{clone.id}", GIB - 4, 6) == b"last\0\0"


def test_clone_smaller_than_its_source(bench: FakeBench) -> None:
    """A clone cannot be smaller than its source."""
    source = make_volume(bench, size_gib=2)
    with pytest.raises(InvalidInput, match="2 GiB"):
        volumes.create_volume(bench.service, ME, NewVolume(1, source_volid=source.id))


@pytest.mark.parametrize("kind", ["source_volid", "snapshot_id"])
def test_clone_of_a_strangers(bench: FakeBench, kind: str) -> None:
    """A stranger's volume or snapshot is not there to be copied."""
    source = make_volume(bench)
    snapshot = snapshots.create_snapshot(bench.service, ME, NewSnapshot(source.id))
    new = (
        NewVolume(1, source_volid=source.id)
        if kind == "source_volid"
        else NewVolume(1, snapshot_id=snapshot.id)
    )
    with pytest.raises((VolumeNotFound, SnapshotNotFound)):
        volumes.create_volume(bench.service, STRANGER, new)


def test_connected_source_is_not_torn(tmp_path: Path) -> None:
    """Without atomic copies a connected volume is not copied: refused at once."""
    bench = make_bench(tmp_path, copies_atomically=False)
    source = make_volume(bench)
    make_attached(bench, source)
    with pytest.raises(InvalidState, match="point in time"):
        volumes.create_volume(bench.service, ME, NewVolume(None, source_volid=source.id))


def test_source_connected_after_acceptance(tmp_path: Path) -> None:
    """A source that a host began to use after the request makes the clone fail, not torn."""
    bench = make_bench(tmp_path, copies_atomically=False)
    source = make_volume(bench)
    bench.queue.holds = True
    clone = volumes.create_volume(bench.service, ME, NewVolume(None, source_volid=source.id)).volume
    actions.initialize_connection(bench.service, ME, source.id, HOST_A)
    carry_out(bench.service, bench.queue.held.pop())
    assert statuses_of(bench, clone)[0] == "error"
    assert "connected to a host" in messages_of(bench)[0]
    assert bench.driver.images() == {f"volume-{source.id}"}


def test_source_that_grew_meanwhile(bench: FakeBench) -> None:
    """A source that became larger than the clone makes the clone fail and be told."""
    source = make_volume(bench)
    bench.queue.holds = True
    clone = volumes.create_volume(bench.service, ME, NewVolume(None, source_volid=source.id)).volume
    bench.driver.extend(f"volume-{source.id}", 2 * GIB)
    carry_out(bench.service, bench.queue.held.pop())
    assert statuses_of(bench, clone)[0] == "error"
    assert operations_of(bench) == []


# -- read and change -----------------------------------------------------------------------------


def test_strangers_see_nothing(bench: FakeBench) -> None:
    """A volume of another project is not found, whatever is wanted of it; an admin finds it."""
    volume = make_volume(bench)
    wanted: list[Callable[[], object]] = [
        lambda: volumes.get_volume(bench.service, STRANGER, volume.id),
        lambda: volumes.update_volume(bench.service, STRANGER, volume.id, name="x"),
        lambda: volumes.delete_volume(bench.service, STRANGER, volume.id),
        lambda: volumes.extend_volume(bench.service, STRANGER, volume.id, 2, allow_in_use=False),
        lambda: volumes.set_bootable(bench.service, STRANGER, volume.id, True),
        lambda: volumes.set_readonly(bench.service, STRANGER, volume.id, True),
        lambda: volumes.reset_status(bench.service, STRANGER, volume.id, status="error"),
        lambda: actions.reserve(bench.service, STRANGER, volume.id),
        lambda: actions.unreserve(bench.service, STRANGER, volume.id),
        lambda: actions.detach(bench.service, STRANGER, volume.id, attachment_id=None),
        lambda: actions.initialize_connection(bench.service, STRANGER, volume.id, HOST_A),
        lambda: actions.terminate_connection(bench.service, STRANGER, volume.id, HOST_A),
        lambda: attachments.create_attachment(bench.service, STRANGER, NewAttachment(volume.id)),
        lambda: snapshots.create_snapshot(bench.service, STRANGER, NewSnapshot(volume.id)),
    ]
    before = state_of(bench)
    for want in wanted:
        with pytest.raises(VolumeNotFound):
            want()
    assert state_of(bench) == before
    assert volumes.get_volume(bench.service, ADMIN, volume.id).volume == volume


@pytest.mark.parametrize("text", ["", "\x00", "'; DROP TABLE volumes; --", "é" * 10_000, "%"])
def test_hostile_ids(bench: FakeBench, text: str) -> None:
    """An id that is none is not found, and does no harm."""
    make_volume(bench)
    before = state_of(bench)
    with pytest.raises(VolumeNotFound):
        volumes.get_volume(bench.service, ME, text)
    with pytest.raises(VolumeNotFound):
        volumes.delete_volume(bench.service, ME, text)
    assert state_of(bench) == before


def test_update(bench: FakeBench) -> None:
    """Only what is given changes; metadata is replaced as a whole."""
    volume = make_volume(bench, name="old", description="kept", metadata={"a": "1", "b": "2"})
    volumes.update_volume(bench.service, ME, volume.id, name=None, metadata={"b": "3", "c": "4"})
    changed = volume_of(bench, volume.id)
    assert (changed.name, changed.description) == (None, "kept")
    assert changed.metadata == {"b": "3", "c": "4"}
    assert changed.updated_at is not None


def test_readonly_only_while_available(bench: FakeBench) -> None:
    """A volume becomes read-only only while nobody uses it."""
    volume = make_volume(bench)
    volumes.set_readonly(bench.service, ME, volume.id, True)
    assert volume_of(bench, volume.id).readonly
    volumes.set_readonly(bench.service, ME, volume.id, False)
    make_attached(bench, volume)
    with pytest.raises(InvalidState):
        volumes.set_readonly(bench.service, ME, volume.id, True)
    assert not volume_of(bench, volume.id).readonly


# -- extend --------------------------------------------------------------------------------------


def test_extend(bench: FakeBench) -> None:
    """A volume grows, and is available again with its new size."""
    volume = make_volume(bench)
    volumes.extend_volume(bench.service, ME, volume.id, 5, allow_in_use=False)
    grown = volume_of(bench, volume.id)
    assert (grown.status, grown.size_gib, grown.previous_status) == ("available", 5, None)
    assert bench.driver.locate(f"volume-{volume.id}").size_bytes == 5 * GIB


@pytest.mark.parametrize("size_gib", [1, 2, 0, -5, MAX_SIZE_GIB + 1, 10**40])
def test_extend_to_a_size_that_is_none(bench: FakeBench, size_gib: int) -> None:
    """A volume neither shrinks nor grows beyond what can be counted."""
    volume = make_volume(bench, size_gib=2)
    before = state_of(bench)
    with pytest.raises(InvalidInput):
        volumes.extend_volume(bench.service, ME, volume.id, size_gib, allow_in_use=True)
    assert state_of(bench) == before


def test_extend_while_connected(bench: FakeBench) -> None:
    """A volume that a host is connected to does not grow, even where in-use may."""
    volume = make_volume(bench)
    make_attached(bench, volume)
    before = state_of(bench)
    with pytest.raises(InvalidState, match="connected"):
        volumes.extend_volume(bench.service, ME, volume.id, 2, allow_in_use=True)
    assert state_of(bench) == before


def test_extend_while_connected_with_snapshots(tmp_path: Path) -> None:
    """Where a driver grows such an image only while it is closed, that is said at once."""
    bench = make_bench(tmp_path, grows_open_with_snapshots=False, limits=LIKE_LIO)
    plain, kept = make_volume(bench), make_volume(bench)
    snapshots.create_snapshot(bench.service, ME, NewSnapshot(kept.id))
    for volume in (plain, kept):
        make_attached(bench, volume)
    before = state_of(bench)
    with pytest.raises(InvalidState, match="has snapshots"):
        volumes.extend_volume(bench.service, ME, kept.id, 2, allow_in_use=True)
    assert state_of(bench) == before
    volumes.extend_volume(bench.service, ME, plain.id, 2, allow_in_use=True)
    assert volume_of(bench, plain.id).size_gib == 2


def _attach_by_hand(bench: FakeBench, volume_id: str) -> None:
    actions.attach(
        bench.service,
        ME,
        volume_id,
        instance_uuid=None,
        host_name="a",
        mountpoint="/dev/vdb",
        mode="rw",
    )


def test_extend_in_use(bench: FakeBench) -> None:
    """A volume in use without a connection grows only where that is allowed, and stays in use."""
    volume = make_volume(bench)
    _attach_by_hand(bench, volume.id)
    with pytest.raises(InvalidState):
        volumes.extend_volume(bench.service, ME, volume.id, 2, allow_in_use=False)
    volumes.extend_volume(bench.service, ME, volume.id, 2, allow_in_use=True)
    assert statuses_of(bench, volume) == ("in-use", "attached")
    assert volume_of(bench, volume.id).size_gib == 2


def test_detached_while_it_grows(bench: FakeBench) -> None:
    """A volume whose attachment goes while it grows is available at the end, grown."""
    volume = make_volume(bench)
    _attach_by_hand(bench, volume.id)
    bench.queue.holds = True
    volumes.extend_volume(bench.service, ME, volume.id, 2, allow_in_use=True)
    actions.detach(bench.service, ME, volume.id, attachment_id=None)
    assert statuses_of(bench, volume)[0] == "extending"
    carry_out(bench.service, bench.queue.held.pop())
    assert statuses_of(bench, volume) == ("available", "detached")
    assert volume_of(bench, volume.id).size_gib == 2


@pytest.mark.parametrize("in_use", [False, True])
def test_extend_out_of_space(bench: FakeBench, in_use: bool) -> None:
    """When there is no space the volume is as it was, and its users are told."""
    volume = make_volume(bench)
    if in_use:
        _attach_by_hand(bench, volume.id)
    before = volume_of(bench, volume.id)
    bench.driver.fail_next["extend"] = full()
    volumes.extend_volume(bench.service, ME, volume.id, 9, allow_in_use=True)
    after = volume_of(bench, volume.id)
    assert after == before._replace(updated_at=after.updated_at)
    assert messages_of(bench) == [f"extend: {full().told}"]
    assert operations_of(bench) == []


def test_extend_fails(bench: FakeBench) -> None:
    """When the driver fails the volume is in error_extending, keeps its size, can be deleted."""
    volume = make_volume(bench)
    bench.driver.fail_next["extend"] = BackendError("input/output error")
    volumes.extend_volume(bench.service, ME, volume.id, 9, allow_in_use=False)
    after = volume_of(bench, volume.id)
    assert (after.status, after.size_gib) == ("error_extending", 1)
    assert messages_of(bench) == ["extend: input/output error"]
    volumes.delete_volume(bench.service, ME, volume.id)
    assert not exists(bench, volume)


def test_extend_to_less_than_the_image_has(bench: FakeBench) -> None:
    """An image that is larger than its record ends in error_extending, not in a hang."""
    volume = make_volume(bench)
    bench.driver.extend(f"volume-{volume.id}", 5 * GIB)
    volumes.extend_volume(bench.service, ME, volume.id, 3, allow_in_use=False)
    assert statuses_of(bench, volume)[0] == "error_extending"
    assert operations_of(bench) == []


# -- delete --------------------------------------------------------------------------------------


def test_delete(bench: FakeBench) -> None:
    """A deleted volume leaves no row, no image, no export, no work."""
    volume = make_volume(bench)
    volumes.delete_volume(bench.service, ME, volume.id)
    with pytest.raises(VolumeNotFound):
        volumes.get_volume(bench.service, ME, volume.id)
    assert bench.driver.images() == frozenset()
    assert (operations_of(bench), messages_of(bench)) == ([], [])


@pytest.mark.parametrize("force", [False, True])
def test_attached_volume_is_not_deleted(bench: FakeBench, force: bool) -> None:
    """An attached volume stays, even by force."""
    volume = make_volume(bench)
    make_attached(bench, volume)
    before = state_of(bench)
    with pytest.raises(InvalidState):
        volumes.delete_volume(bench.service, ADMIN, volume.id, force=force)
    assert state_of(bench) == before


def test_volume_with_snapshots_is_not_deleted(bench: FakeBench) -> None:
    """A volume with snapshots stays unless they may go too; then both are gone."""
    volume = make_volume(bench)
    snapshots.create_snapshot(bench.service, ME, NewSnapshot(volume.id))
    before = state_of(bench)
    with pytest.raises(InvalidState, match="without snapshots"):
        volumes.delete_volume(bench.service, ME, volume.id)
    assert state_of(bench) == before
    volumes.delete_volume(bench.service, ME, volume.id, cascade=True)
    assert rows_of(bench, tables.snapshots) == rows_of(bench, tables.volumes) == []
    assert bench.driver.images() == frozenset()


def test_cascade_waits_for_no_snapshot(bench: FakeBench) -> None:
    """A snapshot that is being taken holds its volume, unless it is deleted by force."""
    volume = make_volume(bench)
    bench.queue.holds = True
    snapshots.create_snapshot(bench.service, ME, NewSnapshot(volume.id))
    with pytest.raises(InvalidState, match="creating"):
        volumes.delete_volume(bench.service, ME, volume.id, cascade=True)
    volumes.delete_volume(bench.service, ADMIN, volume.id, cascade=True, force=True)
    for operation in bench.queue.held:
        carry_out(bench.service, operation)
    assert rows_of(bench, tables.snapshots) == rows_of(bench, tables.volumes) == []
    assert operations_of(bench) == []
    assert bench.driver.images() == frozenset()


def test_migrating_volume_is_not_deleted(bench: FakeBench) -> None:
    """A volume that is being migrated stays."""
    volume = make_volume(bench)
    volumes.reset_status(bench.service, ADMIN, volume.id, migration_status="migrating")
    with pytest.raises(InvalidState, match="migrating"):
        volumes.delete_volume(bench.service, ME, volume.id)
    volumes.reset_status(bench.service, ADMIN, volume.id, migration_status="none")
    volumes.delete_volume(bench.service, ME, volume.id)
    assert not exists(bench, volume)


def test_force_delete_overtakes_creation(bench: FakeBench) -> None:
    """A volume deleted by force before it was made is never made."""
    bench.queue.holds = True
    volume = volumes.create_volume(bench.service, ME, NewVolume(1)).volume
    volumes.delete_volume(bench.service, ADMIN, volume.id, force=True)
    volumes.delete_volume(bench.service, ADMIN, volume.id, force=True)  # once more is fine
    assert [one.kind for one in bench.queue.held] == ["create", "delete"]
    for operation in bench.queue.held:
        carry_out(bench.service, operation)
    assert not exists(bench, volume)
    assert (operations_of(bench), messages_of(bench)) == ([], [])
    assert "create" not in bench.driver.calls


def test_deleted_volume_closes_its_connection(bench: FakeBench) -> None:
    """The end of a volume that a host was shown takes export and connection away."""
    volume = make_volume(bench)
    actions.initialize_connection(bench.service, ME, volume.id, HOST_A)
    volumes.delete_volume(bench.service, ME, volume.id)
    assert rows_of(bench, tables.connections) == []
    assert bench.helper.exports() == ()


def test_delete_waits_for_a_daemon_that_is_down(bench: FakeBench) -> None:
    """For a minute a delete that found no target daemon is postponed; then it is an error."""
    volume = make_volume(bench)
    actions.initialize_connection(bench.service, ME, volume.id, HOST_A)
    bench.queue.holds = True
    volumes.delete_volume(bench.service, ME, volume.id)
    operation = bench.queue.held.pop()
    bench.helper.fail_next["unexport"] = TargetDaemonDown("tgtd", "gone")
    with pytest.raises(Unavailable, match="gone"):
        carry_out(bench.service, operation)
    assert statuses_of(bench, volume)[0] == "deleting"
    assert messages_of(bench) == []
    bench.helper.fail_next["unexport"] = TargetDaemonDown("tgtd", "gone")
    carry_out(bench.service, operation._replace(created_at="2000-01-01T00:00:00.000000"))
    assert statuses_of(bench, volume)[0] == "error_deleting"
    bench.queue.holds = False
    volumes.delete_volume(bench.service, ME, volume.id)
    assert not exists(bench, volume)


def test_delete_fails_at_the_target(bench: FakeBench) -> None:
    """When the target does not go, rows, image and export are all still there, in error."""
    error = ExportFailed("t", "target", "an initiator prevents it")
    volume = make_volume(bench)
    actions.initialize_connection(bench.service, ME, volume.id, HOST_A)
    bench.helper.fail_next["unexport"] = error
    volumes.delete_volume(bench.service, ME, volume.id)
    assert statuses_of(bench, volume)[0] == "error_deleting"
    assert connections_of(bench, volume) == [(HOST_A["initiator"], False, False)]
    assert admitted_to(bench, volume) == {HOST_A["initiator"]}
    assert bench.driver.images() == {f"volume-{volume.id}"}
    assert messages_of(bench) == [f"delete: {error}"]
    volumes.delete_volume(bench.service, ME, volume.id)
    assert not exists(bench, volume)
    assert bench.helper.exports() == ()


def test_delete_fails_at_the_driver(bench: FakeBench) -> None:
    """When the bytes do not go, volume and snapshots are in error_deleting and can be retried."""
    volume = make_volume(bench)
    snapshot = snapshots.create_snapshot(bench.service, ME, NewSnapshot(volume.id))
    bench.driver.fail_next["delete"] = BackendError("read-only file system")
    volumes.delete_volume(bench.service, ME, volume.id, cascade=True)
    assert statuses_of(bench, volume)[0] == "error_deleting"
    found = snapshots.get_snapshot(bench.service, ME, snapshot.id)
    assert found.status == "error_deleting"
    assert messages_of(bench) == ["delete: read-only file system"]
    volumes.delete_volume(bench.service, ME, volume.id, cascade=True)
    assert rows_of(bench, tables.snapshots) == rows_of(bench, tables.volumes) == []
    assert bench.driver.images() == frozenset()


# -- statuses by hand ----------------------------------------------------------------------------


@pytest.mark.parametrize("status", ["deleting", "detaching", "error_deleting", "nonsense", "\x00"])
def test_reset_to_a_status_that_is_none(bench: FakeBench, status: str) -> None:
    """A status that work alone may set, or that there is not, is refused."""
    volume = make_volume(bench)
    with pytest.raises(InvalidInput):
        volumes.reset_status(bench.service, ADMIN, volume.id, status=status)
    for field in ("attach_status", "migration_status"):
        with pytest.raises(InvalidInput):
            volumes.reset_status(bench.service, ADMIN, volume.id, **{field: "nonsense"})
    assert statuses_of(bench, volume) == ("available", "detached")


def test_reset_to_in_use_needs_an_attachment(bench: FakeBench) -> None:
    """Nothing is in use without an attachment, not even by hand."""
    volume = make_volume(bench)
    with pytest.raises(InvalidInput, match="attachments"):
        volumes.reset_status(bench.service, ADMIN, volume.id, status="in-use")


def test_reset_to_detached(bench: FakeBench) -> None:
    """Detached by hand forgets attachments without a connection and keeps those with one."""
    volume = make_volume(bench, multiattach=True)
    connected = make_attached(bench, volume)
    attachments.create_attachment(bench.service, ME, NewAttachment(volume.id))
    volumes.reset_status(
        bench.service, ADMIN, volume.id, status="available", attach_status="detached"
    )
    assert [row["id"] for row in rows_of(bench, tables.attachments)] == [connected.id]
    assert admitted_to(bench, volume) == {HOST_A["initiator"]}


def test_volume_of_a_backend_that_is_gone(bench: FakeBench) -> None:
    """A volume whose backend is configured no more is shown, and says so when used."""
    volume = make_volume(bench)
    set_volume(bench, volume, backend="gone")
    assert volume_of(bench, volume.id).backend == "gone"
    with pytest.raises(BackendNotFound):
        actions.initialize_connection(bench.service, ME, volume.id, HOST_A)
    assert connections_of(bench, volume) == []
    volumes.delete_volume(bench.service, ME, volume.id)
    assert statuses_of(bench, volume)[0] == "error_deleting"
