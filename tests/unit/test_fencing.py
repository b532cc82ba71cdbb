"""Cutting hosts off at the target: what they lose, what others keep, and the way back."""

from __future__ import annotations

from pathlib import Path

import pytest

from lunport.core.change import Change
from lunport.core.errors import (
    ExportFailed,
    HostRevoked,
    InvalidInput,
    LunMissing,
    NotAllowed,
    TargetDaemonDown,
    TargetUnknown,
    VolumeNotFound,
)
from lunport.store import tables
from lunport.volume import actions, attachments, export_list, fencing
from lunport.volume.fencing import HostSelector
from lunport.volume.service import ExportPolicy
from tests.fakes.fake_service import FakeBench
from tests.fakes.policy_play import (
    A,
    B,
    Killed,
    bench_of,
    calls_since,
    image_at,
    log_in,
    restart,
    seen_by,
    with_policy,
)
from tests.fakes.volume_play import (
    ADMIN,
    COMPUTE,
    HOST_A,
    HOST_B,
    INSTANCE,
    ME,
    OTHER_INSTANCE,
    UNKNOWN,
    assert_exports_match,
    connect,
    make_attached,
    make_attachment,
    make_volume,
    rows_of,
    state_of,
)

KINDS = ("own", "host", "host_lio", "shared")
every_kind = pytest.mark.parametrize("kind", KINDS)
HOST = HostSelector(host="a")


def bench_for(folder: Path, kind: str) -> FakeBench:
    """Put a service together, of any policy."""
    if kind == "own":
        return with_policy(bench_of(folder, "host"), ExportPolicy())
    return bench_of(folder, kind)


def exports_of(bench: FakeBench) -> dict[str, object]:
    """Return all targets as they are."""
    return {str(one.iqn): bench.helper.described(one.iqn) for one in bench.helper.exports()}


def states(bench: FakeBench) -> dict[str | None, str]:
    """Return what the list says of each host."""
    found = export_list.list_exports(bench.service, ADMIN)
    return {one.host: one.state for one in found.exports}


@every_kind
def test_a_host_loses_all_and_gets_it_back(tmp_path: Path, kind: str) -> None:
    """Its sessions are dropped, it sees nothing; others go on; then all is as it was."""
    bench = bench_for(tmp_path, kind)
    shared = make_volume(bench, multiattach=True)
    make_attached(bench, shared, HOST_A, INSTANCE)
    made = make_attached(bench, shared, HOST_B, OTHER_INSTANCE)
    mine = connect(bench, make_volume(bench), HOST_A)
    found = attachments.get_attachment(bench.service, ME, made.id)
    theirs = dict(found.connection_info or {})
    log_in(bench, mine, A)
    log_in(bench, theirs, B)
    before = exports_of(bench)

    done = fencing.revoke(bench.service, ADMIN, HOST, "it does not answer")
    assert (done.change, len(done.volume_ids)) == (Change.CHANGED, 2)
    assert seen_by(bench, A) == set()
    with pytest.raises(TargetUnknown):
        image_at(bench, mine, A)
    with pytest.raises(TargetUnknown):
        log_in(bench, mine, A)
    assert image_at(bench, theirs, B) == f"volume-{shared.id}"
    assert states(bench) == {"a": "revoked", "b": "exported"}

    done = fencing.lift(bench.service, ADMIN, HOST)
    assert (done.change, len(done.volume_ids)) == (Change.CHANGED, 2)
    assert exports_of(bench) == before
    assert states(bench) == {"a": "exported", "b": "exported"}
    log_in(bench, mine, A)
    assert image_at(bench, theirs, B) == f"volume-{shared.id}"
    assert_exports_match(bench)


@every_kind
def test_one_volume_alone(tmp_path: Path, kind: str) -> None:
    """Cut off from one volume a host keeps its others, sessions and all."""
    bench = bench_for(tmp_path, kind)
    lost, kept = make_volume(bench), make_volume(bench)
    gone, stays = connect(bench, lost), connect(bench, kept)
    log_in(bench, gone, A)
    if kind == "own":
        log_in(bench, stays, A)
    before = exports_of(bench)
    selector = HostSelector(host="a", volume_id=lost.id)
    fencing.revoke(bench.service, ADMIN, selector)
    with pytest.raises((LunMissing, TargetUnknown)):
        image_at(bench, gone, A)
    assert image_at(bench, stays, A) == f"volume-{kept.id}"
    with pytest.raises(HostRevoked, match=lost.id):
        connect(bench, lost)
    assert connect(bench, kept) == stays
    fencing.lift(bench.service, ADMIN, selector)
    assert exports_of(bench) == before


@every_kind
def test_twice_is_once(tmp_path: Path, kind: str) -> None:
    """Cutting off and letting in are idempotent, and say so."""
    bench = bench_for(tmp_path, kind)
    connect(bench, make_volume(bench))
    fencing.revoke(bench.service, ADMIN, HOST, "first")
    before = state_of(bench)
    assert fencing.revoke(bench.service, ADMIN, HOST, "second").change is Change.UNCHANGED
    assert state_of(bench) == before
    fencing.lift(bench.service, ADMIN, HOST)
    before, mark = state_of(bench), len(bench.helper.calls)
    assert fencing.lift(bench.service, ADMIN, HOST).change is Change.UNCHANGED
    assert (state_of(bench), calls_since(bench, mark)) == (before, [])


@every_kind
def test_who_is_cut_off_cannot_connect(tmp_path: Path, kind: str) -> None:
    """It is told since when and why, nothing changes, and by whatever name it comes."""
    bench = bench_for(tmp_path, kind)
    volume, fresh = make_volume(bench), make_volume(bench)
    connect(bench, volume)
    reserved = make_attachment(bench, make_volume(bench))
    fencing.revoke(bench.service, ADMIN, HOST, "it burns")
    before = state_of(bench)
    for connector in (HOST_A, {**HOST_A, "host": "other"}, {**HOST_B, "host": "a"}):
        with pytest.raises(HostRevoked, match=r"cut off from all volumes since 2026.*\(it burns\)"):
            connect(bench, fresh, connector)
        with pytest.raises(HostRevoked):
            make_attachment(bench, fresh, connector)
        with pytest.raises(HostRevoked):
            attachments.update_attachment(bench.service, ME, reserved.id, connector)
    with pytest.raises(HostRevoked):
        connect(bench, volume, HOST_A)
    assert state_of(bench) == before
    connect(bench, fresh, HOST_B)
    fencing.lift(bench.service, ADMIN, HOST)
    connect(bench, volume, HOST_A)
    assert_exports_match(bench)


def test_a_host_that_was_never_seen(tmp_path: Path) -> None:
    """A name alone keeps a host away that has connected to nothing yet."""
    bench = bench_for(tmp_path, "host")
    fencing.revoke(bench.service, ADMIN, HOST)
    with pytest.raises(HostRevoked):
        connect(bench, make_volume(bench))
    connect(bench, make_volume(bench), HOST_B)


def test_by_initiator(tmp_path: Path) -> None:
    """An initiator can be cut off by its name, and let in by its host's or its own."""
    bench = bench_for(tmp_path, "host")
    told = connect(bench, make_volume(bench))
    log_in(bench, told, A)
    selector = HostSelector(initiator=A)
    fencing.revoke(bench.service, ADMIN, selector)
    with pytest.raises(TargetUnknown):
        image_at(bench, told, A)
    assert fencing.lift(bench.service, ADMIN, HOST).change is Change.UNCHANGED
    assert fencing.lift(bench.service, ADMIN, selector).change is Change.CHANGED
    log_in(bench, told, A)


@every_kind
def test_nothing_brings_it_back(tmp_path: Path, kind: str) -> None:
    """Neither a restart nor the daemon's death lets a host in that is cut off."""
    bench = bench_for(tmp_path, kind)
    told = connect(bench, make_volume(bench), HOST_A)
    connect(bench, make_volume(bench), HOST_B)
    fencing.revoke(bench.service, ADMIN, HOST)
    wanted = exports_of(bench)
    bench.helper.crash()
    restart(bench)
    assert exports_of(bench) == wanted
    with pytest.raises(TargetUnknown):
        log_in(bench, told, A)
    fencing.lift(bench.service, ADMIN, HOST)
    log_in(bench, told, A)


@every_kind
def test_disconnecting_while_cut_off(tmp_path: Path, kind: str) -> None:
    """What is disconnected meanwhile does not come back when the host is let in."""
    bench = bench_for(tmp_path, kind)
    gone, stays = make_volume(bench), make_volume(bench)
    connect(bench, gone)
    connect(bench, stays)
    fencing.revoke(bench.service, ADMIN, HOST)
    actions.terminate_connection(bench.service, COMPUTE, gone.id, dict(HOST_A))
    fencing.lift(bench.service, ADMIN, HOST)
    assert {volume for volume, _ in seen_by(bench, A)} == {stays.id}
    assert_exports_match(bench)


FAILURES: list[Exception] = [
    ExportFailed("target", "sessions", "1 did not end in time"),
    TargetDaemonDown("tgtd", "nobody listens"),
]


@every_kind
@pytest.mark.parametrize("error", FAILURES, ids=lambda error: type(error).__name__)
def test_a_target_that_does_not_let_go(tmp_path: Path, kind: str, error: Exception) -> None:
    """A failure is told; the revocation stands, other targets followed, and again it works."""
    bench = bench_for(tmp_path, kind)
    connect(bench, make_volume(bench))
    connect(bench, make_volume(bench))
    for verb in ("disallow", "unexport", "unmap_unit"):
        bench.helper.fail_next[verb] = error
    with pytest.raises(type(error)):
        fencing.revoke(bench.service, ADMIN, HOST)
    with pytest.raises(HostRevoked):
        connect(bench, make_volume(bench))
    bench.helper.fail_next.clear()
    assert fencing.revoke(bench.service, ADMIN, HOST).change is Change.UNCHANGED
    assert seen_by(bench, A) == set()


@every_kind
def test_a_kill_while_cutting_off(tmp_path: Path, kind: str) -> None:
    """Killed after the row was written the host is cut off by the restart."""
    bench = bench_for(tmp_path, kind)
    told = connect(bench, make_volume(bench))
    log_in(bench, told, A)
    bench.helper.fail_next["unexport"] = Killed()  # type: ignore[assignment]
    with pytest.raises(Killed):
        fencing.revoke(bench.service, ADMIN, HOST)
    restart(bench)
    with pytest.raises(TargetUnknown):
        image_at(bench, told, A)


def test_it_is_kept_who_did_it(tmp_path: Path, caplog: pytest.LogCaptureFixture) -> None:
    """Rows and log say who cut off whom, when, why, and who let it in."""
    bench = bench_for(tmp_path, "host")
    connect(bench, make_volume(bench))
    with caplog.at_level("INFO"):
        fencing.revoke(bench.service, ADMIN, HOST, "planned")
        fencing.lift(bench.service, ADMIN, HOST)
        fencing.revoke(bench.service, ADMIN, HOST, "again")
    first, second = rows_of(bench, tables.revocations)
    assert (first["host"], first["initiator"], first["volume_id"]) == ("a", A, None)
    assert (first["created_by"], first["reason"]) == ("admin", "planned")
    assert first["created_at"] < first["lifted_at"]
    assert first["lifted_by"] == "admin"
    assert (second["reason"], second["lifted_at"]) == ("again", None)
    said = [record.getMessage().split()[0] for record in caplog.records]
    assert said == ["host_revoked", "host_restored", "host_revoked"]
    assert "by=admin" in caplog.text


def test_only_administrators(tmp_path: Path) -> None:
    """Nobody else may, a volume that is none is refused, and so is nobody in particular."""
    bench = bench_for(tmp_path, "host")
    before = state_of(bench)
    for caller in (ME, COMPUTE):
        with pytest.raises(NotAllowed):
            fencing.revoke(bench.service, caller, HOST)
        with pytest.raises(NotAllowed):
            fencing.lift(bench.service, caller, HOST)
        with pytest.raises(NotAllowed):
            export_list.list_exports(bench.service, caller)
    with pytest.raises(VolumeNotFound):
        fencing.revoke(bench.service, ADMIN, HostSelector(host="a", volume_id=UNKNOWN))
    with pytest.raises(InvalidInput):
        HostSelector()
    with pytest.raises(InvalidInput, match="reason"):
        fencing.revoke(bench.service, ADMIN, HOST, "x" * 2000)
    assert state_of(bench) == before
