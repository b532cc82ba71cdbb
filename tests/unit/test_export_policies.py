"""A target for each host, and one for all: what hosts are told, what they see, what is refused."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path

import pytest

from lunport.core.errors import (
    ExportFailed,
    ExportLimit,
    ImageMissing,
    InvalidState,
    LunMissing,
    TargetDaemonDown,
    TargetUnknown,
    UndoFailed,
)
from lunport.core.volume import Volume
from lunport.store import tables
from lunport.targets.naming import target_name
from lunport.volume import actions, attachments, volumes
from lunport.volume.reconcile import restore_exports
from lunport.volume.service import ExportPolicy
from tests.fakes.fake_service import FakeBench, make_bench
from tests.fakes.policy_play import (
    PER_HOST,
    SHARED,
    A,
    B,
    Killed,
    backend_of,
    bench_of,
    calls_since,
    image_at,
    limited,
    log_in,
    restart,
    seen_by,
    with_policy,
)
from tests.fakes.volume_play import (
    COMPUTE,
    HOST_A,
    HOST_B,
    INSTANCE,
    ME,
    OTHER_INSTANCE,
    assert_exports_match,
    connect,
    connections_of,
    make_attached,
    make_attachment,
    make_volume,
    rows_of,
    state_of,
    statuses_of,
    volume_of,
)

KINDS = ("host", "host_lio", "shared")
every_kind = pytest.mark.parametrize("kind", KINDS)


@pytest.fixture
def host(tmp_path: Path) -> FakeBench:
    """A service with a target for each host, on a helper like tgt."""
    return bench_of(tmp_path, "host")


@pytest.fixture
def shared(tmp_path: Path) -> FakeBench:
    """A service with one target for all hosts."""
    return bench_of(tmp_path, "shared")


def disconnect(
    bench: FakeBench, volume: Volume, connector: dict[str, object] | None = None
) -> None:
    """Close the bare connections of a host, or of all."""
    actions.terminate_connection(bench.service, COMPUTE, volume.id, connector)


# -- who sees what -------------------------------------------------------------------------------


@every_kind
def test_a_host_sees_exactly_its_volumes(tmp_path: Path, kind: str) -> None:
    """Each host finds what is attached to it where it was told, and nothing else."""
    bench = bench_of(tmp_path, kind)
    first, second, other = (make_volume(bench) for _ in range(3))
    told = {one.id: connect(bench, one, HOST_A) for one in (first, second)}
    told[other.id] = connect(bench, other, HOST_B)
    assert seen_by(bench, A) == {(one.id, told[one.id]["target_lun"]) for one in (first, second)}
    assert seen_by(bench, B) == {(other.id, told[other.id]["target_lun"])}
    assert told[first.id]["target_iqn"] == told[second.id]["target_iqn"]
    assert told[first.id]["target_lun"] != told[second.id]["target_lun"]
    log_in(bench, told[first.id], A)
    log_in(bench, told[other.id], B)
    for volume, initiator in ((first, A), (second, A), (other, B)):
        assert image_at(bench, told[volume.id], initiator) == f"volume-{volume.id}"
    assert_exports_match(bench)


def test_targets_are_the_hosts_own(host: FakeBench) -> None:
    """Two hosts have two targets with other names, numbers and credentials; LUNs from 1 on."""
    volume, other = make_volume(host), make_volume(host)
    a, b = connect(host, volume, HOST_A), connect(host, other, HOST_B)
    assert a["target_iqn"] != b["target_iqn"]
    assert (a["auth_username"], a["auth_password"]) != (b["auth_username"], b["auth_password"])
    assert a["target_lun"] == b["target_lun"] == 1
    numbers = [one.tid for one in host.helper.exports()]
    assert len({*numbers, volume.target_number, other.target_number}) == 4
    assert make_volume(host).target_number not in numbers


def test_credentials_are_of_target_and_initiator(shared: FakeBench) -> None:
    """On one target two hosts have different credentials, and neither gets in with the other's."""
    volume, other = make_volume(shared), make_volume(shared)
    a, b = connect(shared, volume, HOST_A), connect(shared, other, HOST_B)
    assert a["target_iqn"] == b["target_iqn"]
    assert a["auth_password"] != b["auth_password"]
    log_in(shared, a, A)
    log_in(shared, b, B)
    assert connect(shared, make_volume(shared), HOST_A)["auth_password"] == a["auth_password"]


@every_kind
def test_an_attachment_tells_the_same(tmp_path: Path, kind: str) -> None:
    """Attachments answer with the host's target, LUN and credentials, each time alike."""
    bench = bench_of(tmp_path, kind)
    connect(bench, make_volume(bench), HOST_A)
    made = make_attached(bench, make_volume(bench), HOST_A)
    info = dict(attachments.get_attachment(bench.service, ME, made.id).connection_info or {})
    bare = connect(bench, make_volume(bench), HOST_A)
    for key in ("target_iqn", "target_portal", "auth_username", "auth_password"):
        assert info[key] == bare[key]
    assert (made.volume_id, info["target_lun"]) in seen_by(bench, A)
    again = attachments.update_attachment(bench.service, ME, made.id, HOST_A)
    assert again.connection_info == info


@every_kind
def test_provider_location_is_of_own_targets(tmp_path: Path, kind: str) -> None:
    """A volume that has no target of its own has no provider location, nor credentials."""
    bench = bench_of(tmp_path, kind)
    volume = make_volume(bench)
    connect(bench, volume)
    found = volume_of(bench, volume.id)
    assert (found.provider_location, found.chap_username) == (None, None)


def test_backend_without_chap(tmp_path: Path) -> None:
    """Without CHAP a host's target asks for no secret and none is told."""
    bench = bench_of(tmp_path, "host", chap=False)
    data = connect(bench, make_volume(bench))
    assert "auth_username" not in data
    log_in(bench, data, A)


# -- coming and going ----------------------------------------------------------------------------


def test_the_verbs(host: FakeBench) -> None:
    """The first volume makes the target, further ones are put on it and taken off, one by one."""
    first, second = make_volume(host), make_volume(host)
    steps: list[tuple[Callable[[], object], list[str]]] = [
        (lambda: connect(host, first), ["export"]),
        (lambda: connect(host, second), ["map_unit"]),
        (lambda: connect(host, second), ["map_unit"]),
        (lambda: disconnect(host, first, dict(HOST_A)), ["unmap_unit"]),
        (lambda: disconnect(host, first, dict(HOST_A)), []),
        (lambda: disconnect(host, second), ["unexport"]),
    ]
    for act, verbs in steps:
        mark = len(host.helper.calls)
        act()
        assert calls_since(host, mark) == verbs
    assert host.helper.exports() == ()


@every_kind
def test_a_detach_disturbs_nobody(tmp_path: Path, kind: str) -> None:
    """The end of one connection leaves sessions and units of all others, of its host too."""
    bench = bench_of(tmp_path, kind)
    going, staying, other = (make_volume(bench) for _ in range(3))
    gone = connect(bench, going, HOST_A)
    stays = connect(bench, staying, HOST_A)
    others = connect(bench, other, HOST_B)
    log_in(bench, gone, A)
    log_in(bench, others, B)
    disconnect(bench, going)
    assert image_at(bench, stays, A) == f"volume-{staying.id}"
    assert image_at(bench, others, B) == f"volume-{other.id}"
    with pytest.raises(LunMissing):
        image_at(bench, gone, A)
    disconnect(bench, staying)
    with pytest.raises(TargetUnknown):
        image_at(bench, stays, A)
    with pytest.raises(TargetUnknown):
        log_in(bench, stays, A)
    assert image_at(bench, others, B) == f"volume-{other.id}"
    assert_exports_match(bench)
    disconnect(bench, other)
    assert bench.helper.exports() == ()


@every_kind
def test_a_target_that_comes_again_is_the_same(tmp_path: Path, kind: str) -> None:
    """Name, number and credentials are as before; its LUN is one that no stale disk can have."""
    bench = bench_of(tmp_path, kind)
    volume = make_volume(bench)
    before = connect(bench, volume)
    number = bench.helper.exports()[0].tid
    disconnect(bench, volume)
    assert bench.helper.exports() == ()
    after = connect(bench, volume)
    assert bench.helper.exports()[0].tid == number
    for key in ("target_iqn", "auth_username", "auth_password"):
        assert after[key] == before[key]
    assert after["target_lun"] == before["target_lun"] + 1


def test_luns_come_back_late(host: FakeBench) -> None:
    """Numbers that were never used are first, then the one that has been free the longest."""
    limited(host, max_lun=4)
    a, b, c = (make_volume(host) for _ in range(3))
    assert [connect(host, one)["target_lun"] for one in (a, b)] == [1, 2]
    disconnect(host, b)
    disconnect(host, a)
    assert [connect(host, one)["target_lun"] for one in (a, b)] == [3, 4]
    assert connect(host, c)["target_lun"] == 2
    disconnect(host, b)
    assert connect(host, b)["target_lun"] == 1
    assert_exports_match(host)


@every_kind
def test_live_migration(tmp_path: Path, kind: str) -> None:
    """A volume is on two hosts for a while, and on the destination alone in the end."""
    bench = bench_of(tmp_path, kind)
    volume = make_volume(bench)
    beside = make_volume(bench)
    stays = connect(bench, beside, HOST_A)
    source = make_attached(bench, volume, HOST_A)
    destination = make_attachment(bench, volume, HOST_B)
    found = attachments.get_attachment(bench.service, ME, destination.id)
    told = dict(found.connection_info or {})
    log_in(bench, told, B)
    log_in(bench, stays, A)
    assert {one for one, _ in seen_by(bench, A)} == {volume.id, beside.id}
    assert {one for one, _ in seen_by(bench, B)} == {volume.id}
    attachments.delete_attachment(bench.service, COMPUTE, source.id)
    assert {one for one, _ in seen_by(bench, A)} == {beside.id}
    assert image_at(bench, told, B) == f"volume-{volume.id}"
    assert image_at(bench, stays, A) == f"volume-{beside.id}"
    assert_exports_match(bench)


@every_kind
def test_two_attachments_of_one_host(tmp_path: Path, kind: str) -> None:
    """Two instances on one host share a LUN; it goes with the second of them."""
    bench = bench_of(tmp_path, kind)
    volume = make_volume(bench, multiattach=True)
    first = make_attached(bench, volume, HOST_A, INSTANCE)
    second = make_attached(bench, volume, HOST_A, OTHER_INSTANCE)
    assert len(seen_by(bench, A)) == 1
    mark = len(bench.helper.calls)
    attachments.delete_attachment(bench.service, COMPUTE, first.id)
    assert calls_since(bench, mark) == []
    assert len(seen_by(bench, A)) == 1
    attachments.delete_attachment(bench.service, COMPUTE, second.id)
    assert bench.helper.exports() == ()


def test_the_target_of_all_lets_a_host_go(shared: FakeBench) -> None:
    """A host without a volume can't log in to the shared target, which others use."""
    volume = make_volume(shared, multiattach=True)
    first = make_attached(shared, volume, HOST_A, INSTANCE)
    second = make_attached(shared, volume, HOST_B, OTHER_INSTANCE)
    own = connect(shared, make_volume(shared), HOST_B)
    assert {lun for _, lun in seen_by(shared, A)} < {lun for _, lun in seen_by(shared, B)}
    attachments.delete_attachment(shared.service, COMPUTE, second.id)
    log_in(shared, own, B)
    assert {lun for _, lun in seen_by(shared, B)} == {own["target_lun"]}
    attachments.delete_attachment(shared.service, COMPUTE, first.id)
    assert seen_by(shared, A) == set()
    assert_exports_match(shared)


@every_kind
def test_deletion_closes_what_is_open(tmp_path: Path, kind: str) -> None:
    """A volume that is deleted with a bare connection leaves the target, and no row."""
    bench = bench_of(tmp_path, kind)
    volume, beside = make_volume(bench), make_volume(bench)
    connect(bench, volume)
    stays = connect(bench, beside)
    log_in(bench, stays, A)
    volumes.delete_volume(bench.service, ME, volume.id)
    assert image_at(bench, stays, A) == f"volume-{beside.id}"
    assert {one for one, _ in seen_by(bench, A)} == {beside.id}
    assert_exports_match(bench)


# -- limits --------------------------------------------------------------------------------------


@every_kind
@pytest.mark.parametrize("by", ["configuration", "helper"])
def test_out_of_luns(tmp_path: Path, kind: str, by: str) -> None:
    """A unit too many is refused with the numbers before anything is done."""
    bench = bench_of(tmp_path, kind, max_luns=2 if by == "configuration" else None)
    if by == "helper":
        limited(bench, max_units=2)
    for _ in range(2):
        connect(bench, make_volume(bench))
    volume = make_volume(bench)
    before, mark = state_of(bench), len(bench.helper.calls)
    with pytest.raises(ExportLimit, match=r"2 logical units in use and may have 2"):
        connect(bench, volume)
    with pytest.raises(ExportLimit):
        make_attachment(bench, volume, HOST_A)
    assert calls_since(bench, mark) == []
    assert state_of(bench) == before


def test_out_of_numbers(host: FakeBench) -> None:
    """So is a unit for which no number is left."""
    limited(host, max_lun=1)
    connect(host, make_volume(host))
    with pytest.raises(ExportLimit, match="1 logical units in use and may have 1"):
        connect(host, make_volume(host))


@pytest.mark.parametrize("policy", [PER_HOST, ExportPolicy()], ids=lambda one: one.export)
def test_out_of_targets(tmp_path: Path, policy: ExportPolicy) -> None:
    """A target too many is refused with the numbers; those that are there still serve."""
    bench = limited(make_bench(tmp_path, policy=policy), max_targets=1)
    volume = make_volume(bench, multiattach=True)
    connect(bench, volume, HOST_A)
    other = make_volume(bench)
    before, mark = state_of(bench), len(bench.helper.calls)
    with pytest.raises(ExportLimit, match=r"Backend files has 1 targets in use and may have 1"):
        connect(bench, other, HOST_B)
    assert calls_since(bench, mark) == []
    assert state_of(bench) == before
    again = other if policy.export == "target_per_host" else volume
    connect(bench, again, HOST_A if again is other else HOST_B)
    assert_exports_match(bench)


# -- undo ----------------------------------------------------------------------------------------

FAILURES: list[Exception] = [
    ExportFailed("target", "logical unit", "tgtd cannot open it"),
    TargetDaemonDown("tgtd", "nobody listens"),
    RuntimeError("a helper from elsewhere with a mistake in it"),
]
STEPS = [
    ("host", "driver", "locate", 1),
    ("host", "helper", "export", 0),
    ("host", "helper", "map_unit", 1),
    ("shared", "helper", "export", 0),
    ("shared", "helper", "map_unit", 1),
    ("shared", "helper", "map_unit", 2),
    ("shared", "helper", "allow", 2),
]
# What a new connection may leave: numbers that were used, credentials that will be used again.
LEFT = {"targets", "target_units", "target_initiators"}


def visible(bench: FakeBench) -> dict[str, object]:
    """Return the state but for what is meant to stay."""
    return {key: value for key, value in state_of(bench).items() if key not in LEFT}


@pytest.mark.parametrize("kind, part, verb, beside", STEPS)
@pytest.mark.parametrize("error", FAILURES, ids=lambda error: type(error).__name__)
def test_a_connect_undone(
    tmp_path: Path, kind: str, part: str, verb: str, beside: int, error: Exception
) -> None:
    """Whichever step fails, the host sees what it saw, and its sessions are still there."""
    bench = bench_of(tmp_path, kind)
    told = [connect(bench, make_volume(bench), (HOST_A, HOST_B)[one - 1]) for one in range(beside)]
    for data, initiator in zip(told, (B, A), strict=False):
        log_in(bench, data, initiator)
    volume = make_volume(bench)
    before = visible(bench)
    getattr(bench, part).fail_next[verb] = error
    target = HOST_A if verb == "allow" or beside != 1 else HOST_B
    if verb == "allow":
        target = {**HOST_A, "initiator": "iqn.1993-08.org.debian:01:c", "host": "c"}
    with pytest.raises(type(error)):
        make_attachment(bench, volume, target)
    assert visible(bench) == before
    for data, initiator in zip(told, (B, A), strict=False):
        assert image_at(bench, data, initiator)
    held = [row for row in rows_of(bench, tables.target_units) if row["volume_id"]]
    assert len(held) == len(rows_of(bench, tables.connections))
    make_attachment(bench, volume, target)
    assert_exports_match(bench)


def test_a_failed_undo_tells_both(host: FakeBench) -> None:
    """When the undo fails too, both errors are told, and the next check takes the rest away."""
    connect(host, make_volume(host))
    volume = make_volume(host)
    before = visible(host)
    host.helper.fail_next["map_unit"] = FAILURES[0]
    host.helper.fail_next["unmap_unit"] = ExportFailed("target", "logical unit", "it does not go")
    with pytest.raises(UndoFailed, match=r"cannot open it.*does not go"):
        connect(host, volume)
    assert visible(host) == before


@every_kind
@pytest.mark.parametrize("verb", ["unmap_unit", "disallow", "unexport"])
def test_a_detach_that_fails(tmp_path: Path, kind: str, verb: str) -> None:
    """When the target does not let go, the connection is still there; again, and it goes."""
    bench = bench_of(tmp_path, kind)
    volume = make_volume(bench)
    made = make_attached(bench, volume, HOST_A)
    if verb == "unmap_unit":
        connect(bench, make_volume(bench), HOST_A)
    if verb == "disallow":
        connect(bench, make_volume(bench), HOST_B)
    before, mark = state_of(bench), len(bench.helper.calls)
    bench.helper.fail_next[verb] = FAILURES[0]
    is_met = verb != "disallow" or kind == "shared"
    if is_met:
        with pytest.raises(ExportFailed):
            attachments.delete_attachment(bench.service, COMPUTE, made.id)
        assert state_of(bench) == before
    attachments.delete_attachment(bench.service, COMPUTE, made.id)
    assert (verb in calls_since(bench, mark)) == is_met
    assert_exports_match(bench)


@every_kind
def test_an_image_that_is_missing_elsewhere(tmp_path: Path, kind: str) -> None:
    """A volume whose bytes are gone keeps no other one from being connected or disconnected."""
    bench = bench_of(tmp_path, kind)
    broken, other, third = (make_volume(bench) for _ in range(3))
    gone = connect(bench, broken)
    connect(bench, other)
    log_in(bench, gone, A)
    bench.driver.delete(f"volume-{broken.id}")
    connect(bench, third)
    disconnect(bench, other)
    assert image_at(bench, gone, A)  # its session is not cut either
    with pytest.raises(ImageMissing):
        connect(bench, broken)
    disconnect(bench, broken)
    assert {one for one, _ in seen_by(bench, A)} == {third.id}
    assert_exports_match(bench)


# -- kills ---------------------------------------------------------------------------------------


@pytest.mark.parametrize("kind, part, verb, beside", STEPS)
def test_a_kill_during_a_connect(
    tmp_path: Path, kind: str, part: str, verb: str, beside: int
) -> None:
    """A connect that was killed at any step is undone by the restart; others are untouched."""
    bench = bench_of(tmp_path, kind)
    hosts = (HOST_A, HOST_A if verb == "map_unit" else HOST_B)
    told = [connect(bench, make_volume(bench), hosts[one]) for one in range(beside)]
    volume = make_volume(bench)
    before = visible(bench)
    getattr(bench, part).fail_next[verb] = Killed()
    connector = HOST_A
    if verb == "allow":
        connector = {**HOST_A, "initiator": "iqn.1993-08.org.debian:01:c", "host": "c"}
    with pytest.raises(Killed):
        make_attachment(bench, volume, connector)
    assert connections_of(bench, volume) == [(connector["initiator"], True, True)]
    restart(bench)
    assert visible(bench) == before
    assert statuses_of(bench, volume) == ("available", "detached")
    assert_exports_match(bench)
    used = [(data["target_iqn"], data["target_lun"]) for data in told]
    after = connect(bench, volume, HOST_A)
    assert (after["target_iqn"], after["target_lun"]) not in used


@every_kind
def test_a_kill_between_target_and_rows(tmp_path: Path, kind: str) -> None:
    """A detach that was killed before its rows went is as if it had not been asked for."""
    bench = bench_of(tmp_path, kind)
    volume = make_volume(bench)
    connect(bench, volume)
    connect(bench, make_volume(bench))
    before = state_of(bench)
    seen = bench.helper.exports()[0]
    bench.helper.unmap_unit(seen.iqn, seen.tid, seen.units[0].lun)
    restart(bench)
    assert state_of(bench) == before
    assert_exports_match(bench)


@every_kind
def test_the_daemon_is_back(tmp_path: Path, kind: str) -> None:
    """After the daemon's death each target is back as it was: names, LUNs, secrets, masks."""
    bench = bench_of(tmp_path, kind)
    for connector in (HOST_A, HOST_A, HOST_B):
        connect(bench, make_volume(bench), connector)
    before = [bench.helper.described(one.iqn) for one in bench.helper.exports()]
    bench.helper.crash()
    restart(bench)
    assert [bench.helper.described(one.iqn) for one in bench.helper.exports()] == before
    assert_exports_match(bench)


@every_kind
def test_who_comes_before_the_restoration(tmp_path: Path, kind: str) -> None:
    """A connect on a daemon that has just come back brings its host's other volumes along."""
    bench = bench_of(tmp_path, kind)
    connect(bench, make_volume(bench))
    connect(bench, make_volume(bench))
    bench.helper.crash()
    bench.helper.start()
    connect(bench, make_volume(bench))
    assert len(seen_by(bench, A)) == 3
    assert_exports_match(bench)


@every_kind
def test_a_restoration_leaves_out_what_is_missing(tmp_path: Path, kind: str) -> None:
    """Of a target whose one image is gone the others are offered, and the one is named."""
    bench = bench_of(tmp_path, kind)
    broken, whole = make_volume(bench), make_volume(bench)
    for volume in (broken, whole):
        connect(bench, volume)
    bench.helper.crash()
    bench.helper.start()
    bench.driver.delete(f"volume-{broken.id}")
    (failure,) = restore_exports(bench.service, backend_of(bench))
    assert broken.id in failure
    assert {one for one, _ in seen_by(bench, A)} == {whole.id}
    bench.driver.create(f"volume-{broken.id}", 1 << 30)
    assert not restore_exports(bench.service, backend_of(bench))
    assert_exports_match(bench)


@every_kind
def test_strays_of_all_kinds_go(tmp_path: Path, kind: str) -> None:
    """Targets of ours that nothing implies are removed: a volume's own, a host's, the shared."""
    bench = bench_of(tmp_path, kind)
    volume = make_volume(bench)
    connect(bench, volume)
    seen = bench.helper.exports()[0]
    export = bench.helper.described(seen.iqn)
    assert export is not None
    disconnect(bench, volume)
    bench.helper.export(export)
    own = with_policy(bench, ExportPolicy())
    connect(own, volume)
    (one,) = [one for one in bench.helper.exports() if one.iqn == target_name(volume.id)]
    stray = bench.helper.described(one.iqn)
    assert stray is not None
    disconnect(own, volume)
    bench.helper.export(stray)
    assert len(bench.helper.exports()) == 2
    restart(bench)
    assert bench.helper.exports() == ()


# -- a policy that was changed -------------------------------------------------------------------


@every_kind
def test_a_changed_policy_serves_what_is_connected(tmp_path: Path, kind: str) -> None:
    """Connections made before go on, are restored and closed; new ones follow the new policy."""
    bench = bench_of(tmp_path, kind)
    old = with_policy(bench, ExportPolicy())
    volume, fresh = make_volume(old), make_volume(old)
    before = connect(old, volume)
    after = connect(bench, fresh)
    assert before["target_iqn"] == target_name(volume.id)
    assert after["target_iqn"] != target_name(fresh.id)
    assert connect(bench, volume) == before
    assert connect(old, fresh) == after
    bench.helper.crash()
    restart(bench)
    log_in(bench, before, A)
    log_in(bench, after, A)
    assert_exports_match(bench)
    disconnect(bench, volume)
    disconnect(old, fresh)
    assert bench.helper.exports() == ()
    assert connect(bench, volume)["target_iqn"] == after["target_iqn"]


# -- portals -------------------------------------------------------------------------------------

ONE, TWO = "127.0.0.1:3260", "127.0.0.2:3260"


def connector(number: int) -> dict[str, object]:
    """Declare one of many hosts."""
    return {"initiator": f"iqn.1993-08.org.debian:01:{number}", "host": f"host-{number}"}


@every_kind
def test_rotate_goes_round_by_host(tmp_path: Path, kind: str) -> None:
    """With rotate hosts have their main portals in turn, each the same for all its volumes."""
    bench = bench_of(tmp_path, kind, portal_order="rotate")
    numbers = [1, 1, 2, 1, 2]
    mains = [connect(bench, make_volume(bench), connector(one))["target_portal"] for one in numbers]
    assert mains[0] == mains[1] == mains[3] != mains[2]
    assert mains[2] == mains[4]


@pytest.mark.parametrize("policy", [ExportPolicy(), PER_HOST, SHARED], ids=lambda one: one.export)
def test_least_loaded(tmp_path: Path, policy: ExportPolicy) -> None:
    """With least_loaded the portal with the fewest connections leads; it stays where it is."""
    bench = bench_of(tmp_path, "shared")
    bench = with_policy(bench, ExportPolicy(export=policy.export, portal_order="least_loaded"))
    made = [make_volume(bench) for _ in range(4)]
    told = [connect(bench, one, connector(number)) for number, one in enumerate(made)]
    assert [one["target_portal"] for one in told] == [ONE, TWO, ONE, TWO]
    disconnect(bench, made[1])
    disconnect(bench, made[3])
    assert [connect(bench, made[n], connector(n)) for n in (0, 2)] == [told[0], told[2]]
    assert connect(bench, make_volume(bench), connector(9))["target_portal"] == TWO


def test_an_order_survives_another_configuration(host: FakeBench) -> None:
    """What a host was told stays, whatever order is configured now."""
    volume = make_volume(host)
    told = connect(host, volume)
    changed = with_policy(host, ExportPolicy(export="target_per_host", portal_order="rotate"))
    for _ in range(2):
        assert connect(changed, volume) == told
        assert connect(changed, make_volume(host))["target_portal"] == told["target_portal"]


@every_kind
def test_a_portal_that_is_missing_does_not_lead(tmp_path: Path, kind: str) -> None:
    """A portal without its address is named last, and leads again when it is back."""
    bench = bench_of(tmp_path, kind)
    volume = make_volume(bench)
    told = connect(bench, volume)
    assert told["target_portal"] == ONE
    bench.helper.absent.add(bench.helper.portals[0])
    bench.helper.start()
    assert connect(bench, volume)["target_portals"] == [TWO, ONE]
    assert connect(bench, make_volume(bench), HOST_B)["target_portal"] == TWO
    bench.helper.absent.clear()
    bench.helper.start()
    assert connect(bench, volume) == told


# -- growing -------------------------------------------------------------------------------------


@pytest.mark.parametrize("kind", ["host_lio", "shared"])
def test_growing_in_use(tmp_path: Path, kind: str) -> None:
    """Each target that shows a volume says its new size; sessions stay."""
    bench = bench_of(tmp_path, kind)
    volume = make_volume(bench, multiattach=True)
    told = connect(bench, volume, HOST_A)
    make_attached(bench, volume, HOST_B)
    log_in(bench, told, A)
    volumes.extend_volume(bench.service, ME, volume.id, 3, allow_in_use=True)
    assert (volume_of(bench, volume.id).size_gib, statuses_of(bench, volume)[0]) == (3, "in-use")
    for seen in bench.helper.exports():
        (unit,) = seen.units
        assert bench.helper.size_seen(seen.iqn, unit.lun) == 3 << 30
    assert image_at(bench, told, A) == f"volume-{volume.id}"


def test_growing_in_use_on_an_own_target(tmp_path: Path) -> None:
    """So does a volume's own target, where the helper can; in use is from 3.42 on only."""
    bench = with_policy(bench_of(tmp_path, "shared"), ExportPolicy())
    volume = make_volume(bench)
    make_attached(bench, volume)
    with pytest.raises(InvalidState, match="in-use"):
        volumes.extend_volume(bench.service, ME, volume.id, 2, allow_in_use=False)
    volumes.extend_volume(bench.service, ME, volume.id, 2, allow_in_use=True)
    assert bench.helper.size_seen(target_name(volume.id), 1) == 2 << 30
    bench.helper.fail_next["resize"] = FAILURES[0]
    volumes.extend_volume(bench.service, ME, volume.id, 3, allow_in_use=True)
    assert statuses_of(bench, volume)[0] == "error_extending"


def test_growing_where_it_cannot_be_shown(host: FakeBench) -> None:
    """A helper that can't grow live keeps a connected volume from growing, and says why."""
    volume = make_volume(host)
    make_attached(host, volume)
    with pytest.raises(InvalidState, match="cannot grow without an interruption"):
        volumes.extend_volume(host.service, ME, volume.id, 2, allow_in_use=True)


# -- what volumes say ----------------------------------------------------------------------------


@every_kind
def test_shared_targets_is_true(tmp_path: Path, kind: str) -> None:
    """A volume says that it shares its target, from its creation on, as long as it does."""
    bench = bench_of(tmp_path, kind)
    volume = make_volume(bench)
    assert volumes.get_volume(bench.service, ME, volume.id).shares_target
    own = with_policy(bench, ExportPolicy())
    assert not volumes.get_volume(own.service, ME, volume.id).shares_target
    make_attached(bench, volume)
    assert volumes.get_volume(own.service, ME, volume.id).shares_target
