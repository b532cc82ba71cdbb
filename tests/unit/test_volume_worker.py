"""The workers: order of acceptance, no lost work, a prompt stop."""

from __future__ import annotations

import threading
from collections.abc import Callable, Iterator, Mapping
from pathlib import Path

import pytest
from hypothesis import given
from hypothesis import strategies as st

from lunport.core.errors import StoreUnavailable, Unavailable
from lunport.host.clock import Deadline
from lunport.store.operations import Operation
from lunport.volume import snapshots, volumes
from lunport.volume.operations import Worker
from lunport.volume.requests import NewSnapshot, NewVolume
from lunport.volume.worklist import WorkList, resources_of
from tests.fakes.fake_service import FakeBench, make_bench
from tests.fakes.volume_play import (
    ME,
    exists,
    make_volume,
    messages_of,
    operations_of,
    state_of,
    statuses_of,
)

PATIENCE_S = 20.0
_pause = threading.Event()


def operation(number: int, resource: str, arguments: Mapping[str, object] = {}) -> Operation:
    """Make an operation that nobody carries out."""
    return Operation(number, "create", resource, dict(arguments), "req", "2026")


def await_(is_so: Callable[[], bool]) -> None:
    """Wait until something is so."""
    deadline = Deadline.after(PATIENCE_S)
    while not is_so():
        assert not deadline.has_passed()
        _pause.wait(0.002)


# -- the list --------------------------------------------------------------------------------------


def test_resources() -> None:
    """An operation concerns its own resource and all its sources."""
    found = resources_of(
        operation(
            1, "a", {"source_volid": "b", "snapshot_id": "c", "volume_id": "d", "size_gib": 3}
        )
    )
    assert found == {"a", "b", "c", "d"}
    assert resources_of(operation(1, "a", {"snapshot_ids": ["x", "y"]})) == {"a", "x", "y"}
    assert resources_of(operation(1, "a", {"source_volid": None})) == {"a"}


names = st.sampled_from("abcd")
plans = st.lists(st.tuples(names, st.lists(names, max_size=2)), min_size=1, max_size=12)


@given(plan=plans, choices=st.data())
def test_order(plan: list[tuple[str, list[str]]], choices: st.DataObject) -> None:
    """However they end, operations on one resource run in order, one at a time, and all run."""
    work = WorkList()
    accepted = [
        operation(number, name, {"snapshot_ids": sources})
        for number, (name, sources) in enumerate(plan)
    ]
    for one in accepted:
        work.add(one)
        work.add(one)  # once more is nothing more
    running: list[Operation] = []
    started: list[Operation] = []
    while len(started) < len(accepted) or running:
        runnable = [
            one
            for one in accepted
            if one not in started
            and not any(
                resources_of(one) & resources_of(other)
                for other in accepted
                if (other.id < one.id and other not in started) or other in running
            )
        ]
        if runnable and (not running or choices.draw(st.booleans())):
            taken = work.take()
            assert taken == runnable[0]
            started.append(taken)
            running.append(taken)
        else:
            ended = choices.draw(st.sampled_from(running))
            running.remove(ended)
            work.done(ended)
    work.close()
    assert work.take() is None


def test_put_back_keeps_its_place() -> None:
    """What is put back runs before what waits for the same; the rest goes on meanwhile."""
    work = WorkList()
    first, second, other = operation(1, "a"), operation(2, "a"), operation(3, "b")
    for one in (first, second, other):
        work.add(one)
    assert work.take() == first
    work.put_back(first, pause_s=0.02)
    assert work.take() == other
    assert work.take() == first
    work.done(first)
    assert work.take() == second


def test_closing_wakes_who_waits() -> None:
    """A worker that waits for work ends when the list is closed."""
    work = WorkList()
    found: list[Operation | None] = []
    thread = threading.Thread(target=lambda: found.append(work.take()))
    thread.start()
    work.close()
    thread.join(PATIENCE_S)
    assert found == [None]


# -- the worker ------------------------------------------------------------------------------------


@pytest.fixture
def bench(tmp_path: Path) -> Iterator[FakeBench]:
    """A service whose work is done by a real worker."""
    made = make_bench(tmp_path)
    worker = Worker(3)
    made.queue.worker = worker
    worker.start(made.service)
    yield made
    assert worker.stop(PATIENCE_S)


def test_source_deleted_after_its_copy(bench: FakeBench) -> None:
    """A volume that is deleted right after a copy was accepted is copied first."""
    for _ in range(10):
        source = volumes.create_volume(bench.service, ME, NewVolume(1)).volume
        await_(lambda: statuses_of(bench, source)[0] == "available")  # noqa: B023
        clone = volumes.create_volume(
            bench.service, ME, NewVolume(None, source_volid=source.id)
        ).volume
        volumes.delete_volume(bench.service, ME, source.id)
        await_(lambda: statuses_of(bench, clone)[0] == "available")  # noqa: B023
        await_(lambda: not exists(bench, source))  # noqa: B023
    assert messages_of(bench) == []


def test_postponed_work_is_done(bench: FakeBench) -> None:
    """Work that could not be done is tried again, without a restart."""
    bench.driver.fail_next["create"] = StoreUnavailable("The database is busy.")
    volume = volumes.create_volume(bench.service, ME, NewVolume(1)).volume
    await_(lambda: statuses_of(bench, volume)[0] == "available")
    assert bench.driver.calls.count("create") == 2
    assert messages_of(bench) == []


def test_driver_with_a_mistake(bench: FakeBench) -> None:
    """A driver's own crash ends in an error status and a message that tells nothing of it."""
    bench.driver.fail_next["create"] = ZeroDivisionError("/secret/path")
    volume = volumes.create_volume(bench.service, ME, NewVolume(1)).volume
    await_(lambda: statuses_of(bench, volume)[0] == "error")
    assert messages_of(bench) == ["create: the service failed; its log says why"]
    healthy = volumes.create_volume(bench.service, ME, NewVolume(1)).volume
    await_(lambda: statuses_of(bench, healthy)[0] == "available")


def test_unfinished_work_of_an_earlier_process(tmp_path: Path) -> None:
    """Work that an earlier process accepted and did not do is done by the next, in order."""
    bench = make_bench(tmp_path)
    source = make_volume(bench)
    bench.queue.holds = True
    clone = volumes.create_volume(bench.service, ME, NewVolume(None, source_volid=source.id)).volume
    snapshot = snapshots.create_snapshot(bench.service, ME, NewSnapshot(source.id))
    snapshots.delete_snapshot(bench.service, ME, snapshot.id, force=True)
    volumes.delete_volume(bench.service, ME, source.id, cascade=True, force=True)
    assert len(operations_of(bench)) == 4
    worker = Worker(3)
    worker.start(bench.service)
    await_(lambda: operations_of(bench) == [])
    assert worker.stop(PATIENCE_S)
    assert statuses_of(bench, clone)[0] == "available"
    assert not exists(bench, source)
    assert bench.driver.images() == {f"volume-{clone.id}"}
    assert messages_of(bench) == []


def test_stop_leaves_what_waits(tmp_path: Path) -> None:
    """A stop ends after the work under way; the rest stays accepted."""
    bench = make_bench(tmp_path)
    worker = Worker(1)
    bench.queue.worker = worker
    under_way = threading.Event()
    go_on = threading.Event()
    create = bench.driver.create

    def create_slowly(image: str, size_bytes: int) -> object:
        under_way.set()
        assert go_on.wait(PATIENCE_S)
        return create(image, size_bytes)

    bench.driver.create = create_slowly  # type: ignore[method-assign, assignment]
    made = [volumes.create_volume(bench.service, ME, NewVolume(1)).volume for _ in range(3)]
    worker.start(bench.service)
    assert under_way.wait(PATIENCE_S)
    assert not worker.stop(0)
    go_on.set()
    assert worker.stop(PATIENCE_S)
    assert [statuses_of(bench, one)[0] for one in made] == ["available", "creating", "creating"]
    before = state_of(bench)
    assert worker.stop(PATIENCE_S)
    assert state_of(bench) == before


def test_stop_in_the_middle_of_a_copy(tmp_path: Path) -> None:
    """A copy that is told to stop stays accepted, and the worker ends."""
    bench = make_bench(tmp_path)
    source = make_volume(bench)
    worker = Worker(1)
    bench.queue.worker = worker
    copying = threading.Event()
    stopping = threading.Event()

    def clone(image: str, source: str, size_bytes: int) -> object:
        copying.set()
        assert stopping.wait(PATIENCE_S)
        raise Unavailable(f"The copy to {image} was stopped; nothing of it is left.")

    bench.driver.clone = clone  # type: ignore[method-assign, assignment]
    made = volumes.create_volume(bench.service, ME, NewVolume(None, source_volid=source.id)).volume
    worker.start(bench.service)
    assert copying.wait(PATIENCE_S)
    stopping.set()
    assert worker.stop(PATIENCE_S)
    assert statuses_of(bench, made)[0] == "creating"
    assert len(operations_of(bench)) == 1
