"""Every action in every status of a volume: allowed as the table says, or refused untouched."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path

import pytest

from lunport.core.errors import InvalidState, LunportError
from lunport.core.volume import TRANSITIONS, Action, AttachStatus, Volume, VolumeStatus
from lunport.store import tables
from lunport.volume import actions, attachments, reverting, snapshots, volumes
from lunport.volume.requests import NewAttachment, NewSnapshot, NewVolume, Query
from tests.fakes.fake_service import FakeBench, make_bench
from tests.fakes.volume_play import (
    HOST_A,
    ME,
    make_volume,
    rows_of,
    set_volume,
    state_of,
    statuses_of,
)

Act = Callable[[FakeBench, Volume], object]


def _begin_detaching(bench: FakeBench, volume: Volume) -> None:
    set_volume(bench, volume, attach_status=AttachStatus.ATTACHED)
    actions.begin_detaching(bench.service, ME, volume.id)


ACTS: dict[Action, Act] = {
    Action.RESERVE: lambda b, v: actions.reserve(b.service, ME, v.id),
    Action.RESERVE_ATTACHMENT: lambda b, v: attachments.create_attachment(
        b.service, ME, NewAttachment(v.id)
    ),
    Action.UNRESERVE: lambda b, v: actions.unreserve(b.service, ME, v.id),
    Action.BEGIN_DETACHING: _begin_detaching,
    Action.ROLL_DETACHING: lambda b, v: actions.roll_detaching(b.service, ME, v.id),
    Action.EXTEND: lambda b, v: volumes.extend_volume(b.service, ME, v.id, 2, allow_in_use=False),
    Action.DELETE: lambda b, v: volumes.delete_volume(b.service, ME, v.id),
    Action.SNAPSHOT: lambda b, v: snapshots.create_snapshot(b.service, ME, NewSnapshot(v.id)),
    Action.SNAPSHOT_FORCED: lambda b, v: snapshots.create_snapshot(
        b.service, ME, NewSnapshot(v.id, force=True)
    ),
    Action.CLONE: lambda b, v: volumes.create_volume(
        b.service, ME, NewVolume(None, source_volid=v.id)
    ),
    Action.REVERT: lambda b, v: reverting.revert_volume(
        b.service, ME, v.id, snapshots.list_snapshots(b.service, ME, Query(None)).rows[0].id
    ),
}
# As Block Storage: these say nothing when there is nothing to take back.
SILENT = (Action.UNRESERVE, Action.ROLL_DETACHING)


@pytest.fixture(scope="module")
def bench(tmp_path_factory: pytest.TempPathFactory) -> FakeBench:
    """One service for all."""
    return make_bench(tmp_path_factory.mktemp("states"))


def test_every_action_is_tried() -> None:
    """No action is left out of the matrix below."""
    assert set(ACTS) == set(Action) == set(TRANSITIONS)


@pytest.mark.parametrize("multiattach", [False, True], ids=["single", "multiattach"])
@pytest.mark.parametrize("status", list(VolumeStatus))
@pytest.mark.parametrize("action", list(Action), ids=lambda action: action.name)
def test_action_in_status(
    bench: FakeBench, action: Action, status: VolumeStatus, multiattach: bool
) -> None:
    """An action leads where the table says, or is refused with the status and changes nothing."""
    bench.queue.holds = False
    volume = make_volume(bench, multiattach=multiattach)
    if action is Action.REVERT:
        snapshots.create_snapshot(bench.service, ME, NewSnapshot(volume.id))
    bench.queue.holds = True
    set_volume(bench, volume, status=status)
    transition = TRANSITIONS[action]
    allowed = transition.allowed + (transition.multiattach_also if multiattach else ())
    if status in allowed:
        ACTS[action](bench, volume)
        expected = transition.to or status
        if (action, status) == (Action.RESERVE_ATTACHMENT, VolumeStatus.IN_USE):
            expected = VolumeStatus.RESERVED  # nobody is attached in truth
        assert statuses_of(bench, volume)[0] == expected
    elif action in SILENT:
        before = state_of(bench)
        ACTS[action](bench, volume)
        assert state_of(bench) == before
    else:
        if action is Action.BEGIN_DETACHING:
            set_volume(bench, volume, attach_status=AttachStatus.ATTACHED)
        before = state_of(bench)
        with pytest.raises(InvalidState) as refused:
            ACTS[action](bench, volume)
        assert status in refused.value.state
        assert state_of(bench) == before


CONNECTABLE = (
    VolumeStatus.AVAILABLE,
    VolumeStatus.RESERVED,
    VolumeStatus.ATTACHING,
    VolumeStatus.IN_USE,
    VolumeStatus.DETACHING,
)


@pytest.mark.parametrize("status", list(VolumeStatus))
def test_connection_in_status(tmp_path: Path, status: VolumeStatus) -> None:
    """A host is connected only to a volume that is whole and at rest."""
    bench = make_bench(tmp_path)
    volume = make_volume(bench)
    set_volume(bench, volume, status=status)
    before = state_of(bench)
    if status in CONNECTABLE:
        actions.initialize_connection(bench.service, ME, volume.id, HOST_A)
        assert statuses_of(bench, volume)[0] == status
        assert len(bench.helper.exports()) == 1
    else:
        with pytest.raises(InvalidState, match=status):
            actions.initialize_connection(bench.service, ME, volume.id, HOST_A)
        assert state_of(bench) == before


@pytest.mark.parametrize("status", list(VolumeStatus))
def test_update_of_an_attachment_in_status(tmp_path: Path, status: VolumeStatus) -> None:
    """A reserved attachment is connected only while the volume is whole and at rest."""
    bench = make_bench(tmp_path)
    volume = make_volume(bench)
    made = attachments.create_attachment(bench.service, ME, NewAttachment(volume.id)).attachment
    set_volume(bench, volume, status=status)
    before = state_of(bench)
    if status in CONNECTABLE:
        attachments.update_attachment(bench.service, ME, made.id, HOST_A)
        assert statuses_of(bench, volume) == ("attaching", "attaching")
    else:
        with pytest.raises(InvalidState, match=status):
            attachments.update_attachment(bench.service, ME, made.id, HOST_A)
        assert state_of(bench) == before


AT_WORK = ("creating", "extending", "reverting", "deleting", "error_deleting")


@pytest.mark.parametrize("status", list(VolumeStatus))
def test_attachments_do_not_end_work(tmp_path: Path, status: VolumeStatus) -> None:
    """Completing and deleting an attachment leaves the status of a volume under work alone."""
    bench = make_bench(tmp_path)
    volume = make_volume(bench)
    made = attachments.create_attachment(
        bench.service, ME, NewAttachment(volume.id, connector=HOST_A)
    ).attachment
    set_volume(bench, volume, status=status)
    attachments.complete_attachment(bench.service, ME, made.id)
    assert statuses_of(bench, volume)[0] == (status if status in AT_WORK else "in-use")
    set_volume(bench, volume, status=status)
    attachments.delete_attachment(bench.service, ME, made.id)
    assert statuses_of(bench, volume)[0] == (status if status in AT_WORK else "available")


@pytest.mark.parametrize("status", list(VolumeStatus))
def test_detach_of_nothing_in_status(tmp_path: Path, status: VolumeStatus) -> None:
    """Detaching what nobody attached frees a promised volume and makes no other one good."""
    bench = make_bench(tmp_path)
    volume = make_volume(bench)
    set_volume(bench, volume, status=status)
    if status is VolumeStatus.MAINTENANCE:
        with pytest.raises(InvalidState):
            actions.detach(bench.service, ME, volume.id, attachment_id=None)
    else:
        actions.detach(bench.service, ME, volume.id, attachment_id=None)
    promised = ("reserved", "attaching", "in-use", "detaching")
    expected = "available" if status in promised else status
    assert statuses_of(bench, volume)[0] == expected


@pytest.mark.parametrize("status", list(VolumeStatus))
def test_attach_in_status(tmp_path: Path, status: VolumeStatus) -> None:
    """The older attach takes a volume that is free or promised, and no other."""
    bench = make_bench(tmp_path)
    volume = make_volume(bench)
    set_volume(bench, volume, status=status)
    error: LunportError | None = None
    try:
        actions.attach(
            bench.service,
            ME,
            volume.id,
            instance_uuid=None,
            host_name="a",
            mountpoint="/dev/vdb",
            mode="rw",
        )
    except InvalidState as refused:
        error = refused
    if status in (VolumeStatus.AVAILABLE, VolumeStatus.ATTACHING):
        assert error is None
        assert statuses_of(bench, volume) == ("in-use", "attached")
    else:
        assert error is not None
        assert statuses_of(bench, volume) == (status, "detached")
        assert rows_of(bench, tables.attachments) == []
