"""Clients racing for one volume: exactly one wins, the others get the right error.

Nothing waits for ever (each round has a deadline), and in the end rows and exports agree.
"""

from __future__ import annotations

import threading
from collections import Counter
from collections.abc import Callable, Sequence
from pathlib import Path

import pytest

from lunport.core.errors import (
    AttachedElsewhere,
    AttachmentNotFound,
    InvalidState,
    LunportError,
    VolumeNotFound,
)
from lunport.core.volume import Volume
from lunport.host.clock import Deadline
from lunport.store import tables
from lunport.volume import actions, attachments, snapshots, volumes
from lunport.volume.operations import Worker
from lunport.volume.requests import NewAttachment, NewSnapshot, NewVolume, Query
from tests.fakes.fake_service import FakeBench, make_bench
from tests.fakes.volume_play import (
    COMPUTE,
    HOST_A,
    INSTANCE,
    ME,
    assert_exports_match,
    connections_of,
    exists,
    make_attachment,
    make_volume,
    messages_of,
    operations_of,
    rows_of,
    statuses_of,
    volume_of,
)

CLIENTS = 8
ROUNDS = 6
ROUND_S = 30.0

Act = Callable[[int], object]


@pytest.fixture
def bench(tmp_path: Path) -> FakeBench:
    """A service of the test's own."""
    return make_bench(tmp_path)


rounds = pytest.mark.parametrize("attempt", range(ROUNDS))


def race(*acts: Act, clients: int = CLIENTS) -> list[LunportError | None]:
    """Let clients act at once, each its act in turn; return each one's error."""
    barrier = threading.Barrier(clients)
    outcomes: list[LunportError | None] = [None] * clients
    crashes: list[BaseException] = []

    def run(number: int) -> None:
        try:
            barrier.wait(ROUND_S)
            acts[number % len(acts)](number)
        except LunportError as error:
            outcomes[number] = error
        except BaseException as crash:
            crashes.append(crash)
            raise

    threads = [threading.Thread(target=run, args=(number,)) for number in range(clients)]
    for thread in threads:
        thread.start()
    deadline = Deadline.after(ROUND_S)
    for thread in threads:
        thread.join(deadline.remaining_s())
    assert not any(thread.is_alive() for thread in threads), "the race does not end"
    assert crashes == []
    return outcomes


def winners(outcomes: Sequence[LunportError | None]) -> int:
    """Count who got what he wanted."""
    return sum(outcome is None for outcome in outcomes)


def host(number: int) -> dict[str, object]:
    """Return a host's connector."""
    return {"initiator": f"iqn.1993-08.org.debian:01:{number}", "host": f"host-{number}"}


SINGLE: dict[str, Callable[[FakeBench, Volume], Act]] = {
    "reserve": lambda bench, volume: lambda number: actions.reserve(bench.service, ME, volume.id),
    "create_attachment": lambda bench, volume: (
        lambda number: attachments.create_attachment(bench.service, ME, NewAttachment(volume.id))
    ),
    "create_attachment connected": lambda bench, volume: (
        lambda number: attachments.create_attachment(
            bench.service, ME, NewAttachment(volume.id, None, host(number))
        )
    ),
    "extend": lambda bench, volume: (
        lambda number: volumes.extend_volume(
            bench.service, ME, volume.id, number + 2, allow_in_use=False
        )
    ),
    "delete": lambda bench, volume: (
        lambda number: volumes.delete_volume(bench.service, ME, volume.id)
    ),
    "attach": lambda bench, volume: (
        lambda number: actions.attach(
            bench.service,
            ME,
            volume.id,
            instance_uuid=None,
            host_name=f"host-{number}",
            mountpoint="/dev/vdb",
            mode="rw",
        )
    ),
}


@pytest.mark.parametrize("kind", list(SINGLE))
def test_one_wins(bench: FakeBench, kind: str) -> None:
    """Of clients that want the same of one volume one gets it; the others are told its status."""
    bench.queue.holds = False
    for _ in range(ROUNDS):
        volume = make_volume(bench)
        bench.queue.holds = True  # accepted work stays, so that nobody can win after the winner
        outcomes = race(SINGLE[kind](bench, volume))
        assert winners(outcomes) == 1
        for outcome in outcomes:
            assert outcome is None or isinstance(outcome, InvalidState), outcome
            assert outcome is None or outcome.state != "available"
        bench.queue.holds = False
    assert_exports_match(bench)
    assert len(rows_of(bench, tables.attachments)) == (ROUNDS if "attach" in kind else 0)
    assert len(bench.queue.held) == (ROUNDS if kind in ("extend", "delete") else 0)


def test_one_kind_wins(bench: FakeBench) -> None:
    """Of clients that want different things of one volume one gets his."""
    # Not an attach: it follows whoever reserved the volume for it.
    kinds = [make for kind, make in SINGLE.items() if kind != "attach"]
    for _ in range(ROUNDS):
        volume = make_volume(bench)
        bench.queue.holds = True
        outcomes = race(*(make(bench, volume) for make in kinds))
        assert winners(outcomes) == 1
        bench.queue.holds = False
    assert_exports_match(bench)


@rounds
def test_update_by_several_hosts(bench: FakeBench, attempt: int) -> None:
    """One reserved attachment is connected by one host; the others are told it is taken."""
    made = make_attachment(bench, make_volume(bench))
    outcomes = race(
        lambda number: attachments.update_attachment(bench.service, ME, made.id, host(number))
    )
    assert winners(outcomes) == 1
    assert Counter(type(one) for one in outcomes)[AttachedElsewhere] == CLIENTS - 1
    assert_exports_match(bench)


@rounds
def test_deletion_of_one_attachment(bench: FakeBench, attempt: int) -> None:
    """One attachment is deleted once; the others find it gone."""
    volume = make_volume(bench)
    made = make_attachment(bench, volume, HOST_A)
    outcomes = race(lambda number: attachments.delete_attachment(bench.service, COMPUTE, made.id))
    assert winners(outcomes) == 1
    assert all(one is None or isinstance(one, AttachmentNotFound) for one in outcomes)
    assert statuses_of(bench, volume) == ("available", "detached")
    assert bench.helper.exports() == ()


def test_one_host_many_times(bench: FakeBench) -> None:
    """One host that connects many times at once has one connection."""
    volume = make_volume(bench)
    outcomes = race(
        lambda number: actions.initialize_connection(bench.service, ME, volume.id, HOST_A)
    )
    assert winners(outcomes) == CLIENTS
    assert connections_of(bench, volume) == [(HOST_A["initiator"], False, False)]
    assert_exports_match(bench)


def test_hosts_come_and_go(bench: FakeBench) -> None:
    """Hosts that connect and disconnect at once leave exactly those who stayed."""
    volume = make_volume(bench)

    def come_and_go(number: int) -> None:
        for _ in range(4):
            actions.initialize_connection(bench.service, ME, volume.id, host(number))
            actions.terminate_connection(bench.service, ME, volume.id, host(number))
        if number % 2:
            actions.initialize_connection(bench.service, ME, volume.id, host(number))

    assert winners(race(come_and_go)) == CLIENTS
    stayed = {host(number)["initiator"] for number in range(1, CLIENTS, 2)}
    assert {row[0] for row in connections_of(bench, volume)} == stayed
    assert_exports_match(bench)


@rounds
def test_deletion_beside_connections(bench: FakeBench, attempt: int) -> None:
    """A volume deleted while hosts connect is gone in the end, and its export too."""
    volume = make_volume(bench)
    outcomes = race(
        lambda number: volumes.delete_volume(bench.service, ME, volume.id),
        lambda number: actions.initialize_connection(bench.service, ME, volume.id, host(number)),
    )
    assert winners(outcomes[::2]) >= 1
    for outcome in outcomes:
        assert outcome is None or isinstance(outcome, (InvalidState, VolumeNotFound))
    assert not exists(bench, volume)
    assert bench.helper.exports() == ()
    assert rows_of(bench, tables.connections) == []


@rounds
def test_growth_beside_connections(bench: FakeBench, attempt: int) -> None:
    """No host is ever connected to a volume that grows: it is refused, or the growth is."""
    volume = make_volume(bench)
    outcomes = race(
        lambda number: volumes.extend_volume(bench.service, ME, volume.id, 2, allow_in_use=False),
        lambda number: actions.initialize_connection(bench.service, ME, volume.id, host(number)),
        clients=2,
    )
    assert winners(outcomes) >= 1
    size_gib = volume_of(bench, volume.id).size_gib
    assert bench.driver.locate(f"volume-{volume.id}").size_bytes == size_gib << 30
    assert size_gib == (2 if outcomes[0] is None else 1)
    assert statuses_of(bench, volume)[0] == "available"
    assert_exports_match(bench)


def test_migrating_hosts(bench: FakeBench) -> None:
    """Attachments of one instance made and taken at once leave what remained."""
    volume = make_volume(bench)
    first = make_attachment(bench, volume, HOST_A)
    attachments.complete_attachment(bench.service, ME, first.id)

    def try_another(number: int) -> None:
        made = attachments.create_attachment(
            bench.service, ME, NewAttachment(volume.id, INSTANCE, host(number))
        ).attachment
        attachments.complete_attachment(bench.service, ME, made.id)
        attachments.delete_attachment(bench.service, COMPUTE, made.id)

    assert winners(race(try_another)) == CLIENTS
    assert statuses_of(bench, volume) == ("in-use", "attached")
    assert [row[0] for row in connections_of(bench, volume)] == [HOST_A["initiator"]]
    assert_exports_match(bench)


def test_everything_at_once(tmp_path: Path) -> None:
    """A crowd on real workers: no deadlock, no lost work, rows, images and exports agree."""
    bench = make_bench(tmp_path)
    worker = Worker(3)
    bench.queue.worker = worker
    worker.start(bench.service)
    try:
        outcomes = race(lambda number: _live(bench, number))
    finally:
        assert worker.stop(ROUND_S)
    assert winners(outcomes) == CLIENTS
    assert messages_of(bench) == []
    assert operations_of(bench) == []
    left = volumes.list_volumes(bench.service, ME, Query("project")).rows
    assert {view.volume.status for view in left} == {"available"}
    assert bench.driver.images() == {f"volume-{view.volume.id}" for view in left}
    assert bench.helper.exports() == ()
    assert len(left) == CLIENTS


def _live(bench: FakeBench, number: int) -> None:
    """Live a client's life: of four volumes and a snapshot one volume is left."""
    service = bench.service
    source = volumes.create_volume(service, ME, NewVolume(1)).volume
    await_rest(bench, source)
    snapshot = snapshots.create_snapshot(service, ME, NewSnapshot(source.id))
    clone = volumes.create_volume(service, ME, NewVolume(None, source_volid=source.id)).volume
    await_rest(bench, clone)
    await_snapshot(bench, snapshot.id)
    again = volumes.create_volume(service, ME, NewVolume(2, snapshot_id=snapshot.id)).volume
    # Accepted after the copy, so it is done after the copy.
    snapshots.delete_snapshot(service, ME, snapshot.id)
    last = volumes.create_volume(service, ME, NewVolume(None, source_volid=clone.id)).volume
    volumes.delete_volume(service, ME, clone.id)
    for volume in (again, last):
        await_rest(bench, volume)
    made = attachments.create_attachment(
        service, ME, NewAttachment(again.id, None, host(number))
    ).attachment
    attachments.complete_attachment(service, ME, made.id)
    attachments.delete_attachment(service, ME, made.id)
    volumes.extend_volume(service, ME, again.id, 3, allow_in_use=False)
    await_rest(bench, again)
    volumes.delete_volume(service, ME, again.id)
    await_gone(bench, clone, again)
    volumes.delete_volume(service, ME, source.id, cascade=True)
    await_gone(bench, source)


_pause = threading.Event()


def _await(is_so: Callable[[], bool]) -> None:
    deadline = Deadline.after(ROUND_S)
    while not is_so():
        assert not deadline.has_passed(), "the work does not end"
        _pause.wait(0.002)


def await_rest(bench: FakeBench, volume: Volume) -> None:
    """Wait until a volume is available."""
    _await(lambda: statuses_of(bench, volume)[0] == "available")


def await_snapshot(bench: FakeBench, snapshot_id: str) -> None:
    """Wait until a snapshot is available."""
    _await(lambda: snapshots.get_snapshot(bench.service, ME, snapshot_id).status == "available")


def await_gone(bench: FakeBench, *gone: Volume) -> None:
    """Wait until volumes have gone."""
    _await(lambda: not any(exists(bench, volume) for volume in gone))
