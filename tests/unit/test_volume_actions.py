"""The older attach verbs, and the guard of OSSA-2023-003 on every verb that takes away."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path

import pytest

from lunport.core.errors import (
    ExportFailed,
    GuardedAttachment,
    InvalidInput,
    InvalidState,
    LunportError,
)
from lunport.core.volume import Volume
from lunport.store import tables
from lunport.volume import actions, attachments, volumes
from lunport.volume.requests import Caller
from tests.fakes.fake_service import FakeBench, make_bench
from tests.fakes.volume_play import (
    ADMIN,
    COMPUTE,
    HOST_A,
    HOST_B,
    INSTANCE,
    ME,
    OTHER_INSTANCE,
    UNKNOWN,
    admitted_to,
    assert_exports_match,
    connect,
    connections_of,
    make_attached,
    make_attachment,
    make_volume,
    rows_of,
    state_of,
    statuses_of,
)

A = str(HOST_A["initiator"])
B = str(HOST_B["initiator"])


@pytest.fixture
def bench(tmp_path: Path) -> FakeBench:
    """A service of the test's own."""
    return make_bench(tmp_path)


@pytest.fixture
def volume(bench: FakeBench) -> Volume:
    """An available volume."""
    return make_volume(bench)


def attach(
    bench: FakeBench,
    volume: Volume,
    instance: str | None = INSTANCE,
    host: str | None = None,
    mode: str = "rw",
) -> None:
    """Attach as the older API does."""
    actions.attach(
        bench.service,
        ME,
        volume.id,
        instance_uuid=instance,
        host_name=host,
        mountpoint="/dev/vdb",
        mode=mode,
    )


# -- the older cycle -------------------------------------------------------------------------------


def test_the_older_cycle(bench: FakeBench, volume: Volume) -> None:
    """Reserve, connect, attach, begin to detach, disconnect, detach: as it was at the end."""
    service = bench.service
    before = state_of(bench)
    actions.reserve(service, ME, volume.id)
    assert statuses_of(bench, volume) == ("attaching", "detached")
    assert connect(bench, volume)["target_lun"] == 1
    assert statuses_of(bench, volume) == ("attaching", "detached")
    attach(bench, volume)
    assert statuses_of(bench, volume) == ("in-use", "attached")
    actions.begin_detaching(service, ME, volume.id)
    assert statuses_of(bench, volume) == ("detaching", "attached")
    actions.terminate_connection(service, ME, volume.id, HOST_A)
    assert statuses_of(bench, volume) == ("detaching", "attached")
    assert bench.helper.exports() == ()
    actions.detach(service, ME, volume.id, attachment_id=None)
    assert state_of(bench) == before


def test_reservation_taken_back(bench: FakeBench, volume: Volume) -> None:
    """An attach that stops half-way is undone by terminate and unreserve, also if repeated."""
    before = state_of(bench)
    actions.reserve(bench.service, ME, volume.id)
    actions.initialize_connection(bench.service, ME, volume.id, HOST_A)
    for _ in range(2):
        actions.terminate_connection(bench.service, ME, volume.id, HOST_A)
        actions.unreserve(bench.service, ME, volume.id)
        assert state_of(bench) == before


def test_detach_taken_back(bench: FakeBench, volume: Volume) -> None:
    """A begun detach can be taken back; without one nothing happens."""
    attach(bench, volume)
    before = state_of(bench)
    actions.roll_detaching(bench.service, ME, volume.id)
    actions.begin_detaching(bench.service, ME, volume.id)
    actions.roll_detaching(bench.service, ME, volume.id)
    assert state_of(bench) == before


def test_begin_detaching_needs_an_attached_volume(bench: FakeBench, volume: Volume) -> None:
    """Nothing but an attached volume begins to detach."""
    for prepare in (
        lambda: None,
        lambda: make_attachment(bench, volume),
        lambda: make_attachment(bench, volume, HOST_A),
    ):
        prepare()
        with pytest.raises(InvalidState):
            actions.begin_detaching(bench.service, ME, volume.id)


def test_multiattach_reservation(bench: FakeBench) -> None:
    """A multiattach volume in use can be reserved, and is in use again when that is undone."""
    volume = make_volume(bench, multiattach=True)
    attach(bench, volume)
    actions.reserve(bench.service, ME, volume.id)
    assert statuses_of(bench, volume) == ("attaching", "attached")
    with pytest.raises(InvalidState):
        actions.reserve(bench.service, ME, volume.id)
    actions.unreserve(bench.service, ME, volume.id)
    assert statuses_of(bench, volume) == ("in-use", "attached")


# -- attach and detach -----------------------------------------------------------------------------


@pytest.mark.parametrize("owner", ["instance", "host"])
def test_attach_twice(bench: FakeBench, volume: Volume, owner: str) -> None:
    """Attaching to the same instance or host again changes nothing; to another is refused."""
    mine = {"instance": INSTANCE} if owner == "instance" else {"instance": None, "host": "a"}
    other = {"instance": OTHER_INSTANCE} if owner == "instance" else {"instance": None, "host": "b"}
    attach(bench, volume, **mine)
    before = state_of(bench)
    attach(bench, volume, **mine)
    with pytest.raises(InvalidState):
        attach(bench, volume, **other)
    assert state_of(bench) == before


@pytest.mark.parametrize(
    "instance, mode", [("not-a-uuid", "rw"), ("\x00", "rw"), (INSTANCE, "wx"), (INSTANCE, "")]
)
def test_attach_refused(bench: FakeBench, volume: Volume, instance: str, mode: str) -> None:
    """An instance that is no UUID and a mode that is none are refused."""
    before = state_of(bench)
    with pytest.raises(InvalidInput):
        attach(bench, volume, instance, mode=mode)
    assert state_of(bench) == before


def test_readonly_volume_is_attached_readonly(bench: FakeBench, volume: Volume) -> None:
    """A read-only volume is not attached for writing."""
    volumes.set_readonly(bench.service, ME, volume.id, True)
    with pytest.raises(InvalidInput, match="read-only"):
        attach(bench, volume)
    attach(bench, volume, mode="ro")
    assert statuses_of(bench, volume) == ("in-use", "attached")


def test_detach_without_an_attachment(bench: FakeBench, volume: Volume) -> None:
    """Detaching an available volume is fine and changes nothing."""
    before = state_of(bench)
    actions.detach(bench.service, ME, volume.id, attachment_id=None)
    actions.detach(bench.service, ME, volume.id, attachment_id=UNKNOWN)
    assert state_of(bench) == before


def test_detach_one_of_two(bench: FakeBench) -> None:
    """Of two attachments the one to detach must be named; the other stays."""
    volume = make_volume(bench, multiattach=True)
    attach(bench, volume, INSTANCE)
    attach(bench, volume, OTHER_INSTANCE)
    first, second = (row["id"] for row in rows_of(bench, tables.attachments))
    before = state_of(bench)
    with pytest.raises(InvalidState, match="attachment_id"):
        actions.detach(bench.service, ME, volume.id, attachment_id=None)
    actions.detach(bench.service, ME, volume.id, attachment_id=UNKNOWN)
    assert state_of(bench) == before
    actions.detach(bench.service, ME, volume.id, attachment_id=first)
    assert [row["id"] for row in rows_of(bench, tables.attachments)] == [second]
    assert statuses_of(bench, volume) == ("in-use", "attached")
    actions.detach(bench.service, ME, volume.id, attachment_id=second)
    assert statuses_of(bench, volume) == ("available", "detached")


def test_last_detach_closes_the_connection(bench: FakeBench, volume: Volume) -> None:
    """The last detach takes the export away, even if nobody terminated the connection."""
    actions.initialize_connection(bench.service, ME, volume.id, HOST_A)
    attach(bench, volume)
    actions.detach(bench.service, ME, volume.id, attachment_id=None)
    assert bench.helper.exports() == ()
    assert connections_of(bench, volume) == []


def test_detach_that_fails(bench: FakeBench, volume: Volume) -> None:
    """When the target does not let go everything is still there; the next try succeeds."""
    actions.initialize_connection(bench.service, ME, volume.id, HOST_A)
    attach(bench, volume)
    before = state_of(bench)
    acts: list[Callable[[], object]] = [
        lambda: actions.detach(bench.service, ME, volume.id, attachment_id=None),
        lambda: actions.terminate_connection(bench.service, ME, volume.id, HOST_A),
    ]
    for act in acts:
        bench.helper.fail_next["unexport"] = ExportFailed("t", "target", "prevented")
        with pytest.raises(ExportFailed):
            act()
        assert state_of(bench) == before
    actions.detach(bench.service, ME, volume.id, attachment_id=None)
    assert statuses_of(bench, volume) == ("available", "detached")


# -- bare connections ------------------------------------------------------------------------------


def test_same_initiator_twice(bench: FakeBench, volume: Volume) -> None:
    """Connecting a host again gives the same answer and leaves one connection."""
    first = actions.initialize_connection(bench.service, ME, volume.id, HOST_A)
    before = state_of(bench)
    assert actions.initialize_connection(bench.service, ME, volume.id, HOST_A) == first
    assert state_of(bench) == before


def test_connecting_again_repairs(bench: FakeBench, volume: Volume) -> None:
    """Connecting a host again brings back an export that was lost."""
    actions.initialize_connection(bench.service, ME, volume.id, HOST_A)
    before = state_of(bench)
    bench.helper.crash()
    bench.helper.start()
    actions.initialize_connection(bench.service, ME, volume.id, HOST_A)
    assert state_of(bench) == before


def test_initiator_as_it_was_written(bench: FakeBench, volume: Volume) -> None:
    """Blanks around an initiator's name do not keep its connection from being closed."""
    wide = {**HOST_A, "initiator": f"  {A} "}
    actions.initialize_connection(bench.service, ME, volume.id, wide)
    assert admitted_to(bench, volume) == {A}
    actions.terminate_connection(bench.service, ME, volume.id, wide)
    assert bench.helper.exports() == ()
    assert connections_of(bench, volume) == []


def test_two_hosts(bench: FakeBench, volume: Volume) -> None:
    """Each host's connection is its own; without a connector all of them are closed."""
    actions.initialize_connection(bench.service, ME, volume.id, HOST_A)
    actions.initialize_connection(bench.service, ME, volume.id, HOST_B)
    assert admitted_to(bench, volume) == {A, B}
    actions.terminate_connection(bench.service, ME, volume.id, HOST_A)
    assert admitted_to(bench, volume) == {B}
    actions.initialize_connection(bench.service, ME, volume.id, HOST_A)
    actions.terminate_connection(bench.service, ME, volume.id, None)
    assert bench.helper.exports() == ()
    assert connections_of(bench, volume) == []


def test_connector_without_an_initiator_closes_nothing(bench: FakeBench, volume: Volume) -> None:
    """A connector that names no initiator is refused; it does not mean every host."""
    actions.initialize_connection(bench.service, ME, volume.id, HOST_A)
    before = state_of(bench)
    with pytest.raises(InvalidInput, match="initiator"):
        actions.terminate_connection(bench.service, ME, volume.id, {"host": "a"})
    assert state_of(bench) == before


def test_termination_leaves_attachments(bench: FakeBench, volume: Volume) -> None:
    """Closing bare connections leaves an attachment's connection open."""
    make_attached(bench, volume, HOST_A, None)
    actions.initialize_connection(bench.service, ME, volume.id, HOST_B)
    actions.terminate_connection(bench.service, ME, volume.id, None)
    assert admitted_to(bench, volume) == {A}
    assert statuses_of(bench, volume) == ("in-use", "attached")


# -- the guard -------------------------------------------------------------------------------------

Take = Callable[[FakeBench, Caller, Volume, str], object]
TAKES: dict[str, Take] = {
    "attachment delete": lambda bench, caller, volume, attachment: attachments.delete_attachment(
        bench.service, caller, attachment
    ),
    "os-detach": lambda bench, caller, volume, attachment: actions.detach(
        bench.service, caller, volume.id, attachment_id=attachment
    ),
    "os-detach unnamed": lambda bench, caller, volume, attachment: actions.detach(
        bench.service, caller, volume.id, attachment_id=None
    ),
    "os-terminate_connection": lambda bench, caller, volume, attachment: (
        actions.terminate_connection(bench.service, caller, volume.id, HOST_A)
    ),
    "os-terminate_connection of all": lambda bench, caller, volume, attachment: (
        actions.terminate_connection(bench.service, caller, volume.id, None)
    ),
    "os-force_detach": lambda bench, caller, volume, attachment: actions.force_detach(
        bench.service, caller, volume.id, attachment_id=attachment, connector=HOST_A
    ),
    "os-force_detach unnamed": lambda bench, caller, volume, attachment: actions.force_detach(
        bench.service, caller, volume.id, attachment_id=None, connector=None
    ),
}
take = pytest.mark.parametrize("verb", list(TAKES))


@take
@pytest.mark.parametrize("caller", [ME, ADMIN], ids=["owner", "admin"])
@pytest.mark.parametrize("is_completed", [False, True], ids=["attaching", "attached"])
def test_guard(
    bench: FakeBench, volume: Volume, verb: str, caller: Caller, is_completed: bool
) -> None:
    """A connected instance's volume is taken away by no user, not even an admin."""
    made = make_attachment(bench, volume, HOST_A)
    if is_completed:
        attachments.complete_attachment(bench.service, ME, made.id)
    before = state_of(bench)
    with pytest.raises(GuardedAttachment, match=INSTANCE):
        TAKES[verb](bench, caller, volume, made.id)
    assert state_of(bench) == before


@take
def test_guard_lets_the_service_through(bench: FakeBench, volume: Volume, verb: str) -> None:
    """The service that owns the instance takes its volume away."""
    made = make_attached(bench, volume)
    TAKES[verb](bench, COMPUTE, volume, made.id)
    assert_exports_match(bench)
    if "terminate" not in verb:
        assert statuses_of(bench, volume) == ("available", "detached")
        assert bench.helper.exports() == ()


@take
@pytest.mark.parametrize("unguarded", ["no instance", "no connector"])
def test_guard_is_not_in_the_way(
    bench: FakeBench, volume: Volume, verb: str, unguarded: str
) -> None:
    """Without an instance, or without a connection, a user may take it away."""
    if unguarded == "no instance":
        made = make_attached(bench, volume, instance=None)
    else:
        made = make_attachment(bench, volume)
    TAKES[verb](bench, ME, volume, made.id)
    if "terminate" not in verb:
        assert statuses_of(bench, volume) == ("available", "detached")
        assert bench.helper.exports() == ()


@take
def test_guard_looks_at_all(bench: FakeBench, verb: str) -> None:
    """An attachment that is not there, or none named, does not hide a guarded one."""
    volume = make_volume(bench, multiattach=True)
    make_attached(bench, volume, HOST_A, INSTANCE)
    make_attached(bench, volume, HOST_B, OTHER_INSTANCE)
    before = state_of(bench)
    with pytest.raises(LunportError) as refused:
        TAKES[verb](bench, ME, volume, UNKNOWN)
    if verb != "attachment delete":  # there it is simply not found
        assert isinstance(refused.value, GuardedAttachment)
    assert state_of(bench) == before


def test_guard_of_a_migration(bench: FakeBench, volume: Volume) -> None:
    """Of two attachments of a migrating instance no user takes either away."""
    first = make_attached(bench, volume, HOST_A)
    second = make_attached(bench, volume, HOST_B)
    before = state_of(bench)
    for made in (first, second):
        with pytest.raises(GuardedAttachment):
            attachments.delete_attachment(bench.service, ME, made.id)
        with pytest.raises(GuardedAttachment):
            actions.detach(bench.service, ME, volume.id, attachment_id=made.id)
    assert state_of(bench) == before
