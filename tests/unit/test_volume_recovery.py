"""What a start makes of what a kill left, and how a target daemon's loss is made good."""

from __future__ import annotations

import threading
from pathlib import Path

import pytest

from lunport.core.change import Change
from lunport.core.errors import ExportFailed, TargetDaemonDown
from lunport.core.identity import derive_identity
from lunport.core.iqn import Iqn
from lunport.store import connections, tables
from lunport.store.connections import HostConnection
from lunport.targets.helper import Export
from lunport.targets.naming import target_name
from lunport.volume import attachments
from lunport.volume.reconcile import restore_exports, sweep_images, undo_pending
from lunport.volume.requests import NewAttachment
from tests.fakes.fake_service import BACKEND, FakeBench, make_bench
from tests.fakes.volume_play import (
    COMPUTE,
    HOST_A,
    HOST_B,
    INSTANCE,
    ME,
    OTHER_INSTANCE,
    UNKNOWN,
    assert_exports_match,
    connect,
    connections_of,
    export_of,
    make_attached,
    make_attachment,
    make_volume,
    rows_of,
    state_of,
    statuses_of,
)
from tests.single_exports import chap_of, single_export

A = str(HOST_A["initiator"])


@pytest.fixture
def bench(tmp_path: Path) -> FakeBench:
    """A service of the test's own."""
    return make_bench(tmp_path)


class Killed(BaseException):
    """The process ends here: nothing catches it, nothing is undone."""


def restart(bench: FakeBench) -> None:
    """Do what a start does."""
    undo_pending(bench.service)
    bench.helper.start()
    for backend in bench.service.backends.values():
        sweep_images(bench.service, backend)
        assert not restore_exports(bench.service, backend)


def test_exports_come_back(bench: FakeBench) -> None:
    """After the daemon's death every export is back: name, LUN, identity, secrets, initiators."""
    shared = make_volume(bench, multiattach=True)
    make_attached(bench, shared, HOST_A, INSTANCE)
    make_attached(bench, shared, HOST_B, OTHER_INSTANCE)
    bare = make_volume(bench)
    connect(bench, bare)
    make_volume(bench)
    before = [export_of(bench, shared), export_of(bench, bare)]
    assert None not in before
    bench.helper.crash()
    restart(bench)
    assert [export_of(bench, shared), export_of(bench, bare)] == before
    assert_exports_match(bench)


def test_restart_disturbs_nobody(bench: FakeBench) -> None:
    """A restart of the service alone drops no session."""
    volume = make_volume(bench)
    make_attached(bench, volume)
    export = export_of(bench, volume)
    assert export is not None
    chap = chap_of(export)
    assert chap is not None
    bench.helper.log_in(export.iqn, Iqn(A), chap.initiator)
    before = state_of(bench)
    restart(bench)
    assert state_of(bench) == before
    assert [one.sessions for one in bench.helper.exports()] == [1]


def test_kill_before_the_export_of_a_new_attachment(bench: FakeBench) -> None:
    """A new attachment whose connection was never settled is gone after a restart."""
    volume = make_volume(bench)
    before = state_of(bench)
    bench.helper.fail_next["export"] = Killed()  # type: ignore[assignment]
    with pytest.raises(Killed):
        make_attachment(bench, volume, HOST_A)
    assert connections_of(bench, volume) == [(A, True, True)]
    assert statuses_of(bench, volume)[0] == "reserved"
    restart(bench)
    assert state_of(bench) == before


def test_kill_before_the_export_of_a_second_attachment(bench: FakeBench) -> None:
    """A migration's half-made attachment is gone after a restart; the first one stays."""
    volume = make_volume(bench)
    make_attached(bench, volume)
    before = state_of(bench)
    bench.helper.fail_next["export"] = Killed()  # type: ignore[assignment]
    with pytest.raises(Killed):
        make_attachment(bench, volume, HOST_B)
    restart(bench)
    assert state_of(bench) == before


def test_kill_during_an_update(bench: FakeBench) -> None:
    """An attachment that was reserved before the kill is reserved after it."""
    volume = make_volume(bench)
    made = make_attachment(bench, volume)
    before = state_of(bench)
    bench.helper.fail_next["export"] = Killed()  # type: ignore[assignment]
    with pytest.raises(Killed):
        attachments.update_attachment(bench.service, ME, made.id, HOST_A)
    restart(bench)
    assert state_of(bench) == before


def test_kill_between_export_and_row(bench: FakeBench) -> None:
    """An export whose connection was never settled is taken away by the restart."""
    volume = make_volume(bench)
    other = make_volume(bench)
    make_attached(bench, other)
    before = state_of(bench)
    with bench.service.store.write() as connection:
        connections.add(
            connection, HostConnection("x", volume.id, None, A, dict(HOST_A), True, "2026")
        )
    for volume_id, number in ((volume.id, volume.target_number), (UNKNOWN, 77)):
        bench.helper.export(
            single_export(
                target_name(volume_id),
                number,
                Path("/fake"),
                derive_identity(volume_id),
                initiators=[Iqn(A)],
            )
        )
    restart(bench)
    assert state_of(bench) == before
    assert_exports_match(bench)


def test_foreign_targets_are_left_alone(bench: FakeBench) -> None:
    """A target that is not named like one of ours is not ours to remove."""
    foreign = single_export(
        Iqn("iqn.2001-04.com.example:not-ours"), 99, Path("/fake"), derive_identity(UNKNOWN)
    )
    bench.helper.export(foreign)
    restart(bench)
    assert bench.helper.described(foreign.iqn) == foreign


def test_kill_between_unexport_and_row(bench: FakeBench) -> None:
    """A detach that was killed after the target went leaves the attachment, export and all."""
    volume = make_volume(bench)
    made = make_attached(bench, volume)
    before = state_of(bench)
    bench.helper.unexport(target_name(volume.id), volume.target_number)
    restart(bench)
    assert state_of(bench) == before
    attachments.delete_attachment(bench.service, COMPUTE, made.id)
    assert bench.helper.exports() == ()


def test_settled_connections_are_not_undone(bench: FakeBench) -> None:
    """A start undoes nothing that a client may know of."""
    connect(bench, make_volume(bench))
    make_attached(bench, make_volume(bench))
    before = state_of(bench)
    assert undo_pending(bench.service) == 0
    assert state_of(bench) == before


def test_one_export_that_fails(bench: FakeBench) -> None:
    """An export that cannot be restored keeps no other one back, and is named."""
    broken = make_volume(bench)
    whole = make_volume(bench)
    for volume in (broken, whole):
        make_attached(bench, volume)
    bench.helper.crash()
    bench.helper.start()
    bench.driver.delete(f"volume-{broken.id}")
    failures = restore_exports(bench.service, bench.service.backends[BACKEND])
    assert len(failures) == 1
    assert broken.id in failures[0]
    assert export_of(bench, whole) is not None
    bench.driver.create(f"volume-{broken.id}", 1 << 30)
    assert not restore_exports(bench.service, bench.service.backends[BACKEND])
    assert_exports_match(bench)


def test_daemon_that_dies_again(bench: FakeBench) -> None:
    """A daemon that is down during the restoration is told, for another try."""
    connect(bench, make_volume(bench))
    bench.helper.crash()
    with pytest.raises(TargetDaemonDown):
        restore_exports(bench.service, bench.service.backends[BACKEND])


def test_half_made_files_are_swept(bench: FakeBench) -> None:
    """A start removes what is half-made, and no image."""
    volume = make_volume(bench)
    bench.driver.partials.add("volume-half")
    assert sweep_images(bench.service, bench.service.backends[BACKEND]) == ("volume-half",)
    assert bench.driver.images() == {f"volume-{volume.id}"}


def test_stray_that_does_not_go(bench: FakeBench) -> None:
    """A stray target that does not go keeps the wanted exports from nobody."""
    wanted = make_volume(bench)
    make_attached(bench, wanted)
    stray = make_volume(bench)
    connect(bench, stray)
    with bench.service.store.write() as connection:
        connection.execute(
            tables.connections.delete().where(tables.connections.c.volume_id == stray.id)
        )
    bench.helper.unexport(target_name(wanted.id), wanted.target_number)
    bench.helper.fail_next["unexport"] = ExportFailed("stray", "target", "prevented")
    failures = restore_exports(bench.service, bench.service.backends[BACKEND])
    assert stray.id in failures[0]
    assert export_of(bench, wanted) is not None
    assert not restore_exports(bench.service, bench.service.backends[BACKEND])
    assert_exports_match(bench)


def test_attachment_rows_of_a_connector(bench: FakeBench) -> None:
    """The connector of an attachment is kept as it came; its connection has the same."""
    made = attachments.create_attachment(
        bench.service, ME, NewAttachment(make_volume(bench).id, INSTANCE, HOST_B)
    )
    assert made.attachment.connector == HOST_B
    (row,) = rows_of(bench, tables.connections)
    assert row["connector"] == HOST_B


def test_a_daemon_that_dies_behind_a_connect_loses_no_export(
    bench: FakeBench, monkeypatch: pytest.MonkeyPatch
) -> None:
    """It dies and is back between the export and the end of the connect: the target is there."""
    volume = make_volume(bench)
    backend, export = bench.service.backend(BACKEND), bench.helper.export
    watching = []

    def export_and_die(wanted: Export) -> Change:
        change = export(wanted)
        bench.helper.crash()
        bench.helper.start()
        monkeypatch.undo()
        watching.append(threading.Thread(target=restore_exports, args=(bench.service, backend)))
        watching[0].start()
        return change

    monkeypatch.setattr(bench.helper, "export", export_and_die)
    connect(bench, volume)
    watching[0].join(30)

    assert export_of(bench, volume) is not None
    assert_exports_match(bench)
