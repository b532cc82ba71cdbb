"""Checking exports: what differs is named, mended one by one, and the rest is left alone."""

from __future__ import annotations

from pathlib import Path

import pytest

from lunport.core.errors import ExportFailed, NotAllowed
from lunport.store import tables
from lunport.targets.helper import Export
from lunport.volume import actions, fencing
from lunport.volume.checking import BackendCheck, Difference, check_exports
from lunport.volume.fencing import HostSelector
from tests.fakes.fake_service import FakeBench
from tests.fakes.policy_play import A, bench_of, calls_since, image_at, log_in
from tests.fakes.volume_play import (
    ADMIN,
    COMPUTE,
    HOST_A,
    HOST_B,
    ME,
    assert_exports_match,
    connect,
    make_volume,
    rows_of,
    state_of,
)
from tests.unit.test_fencing import bench_for, every_kind


def check(bench: FakeBench, *, repair: bool = False) -> BackendCheck:
    """Check the one backend there is."""
    (found,) = check_exports(bench.service, ADMIN, repair=repair)
    return found


def exports_of(bench: FakeBench) -> list[Export | None]:
    """Return all targets as they are."""
    return [bench.helper.described(one.iqn) for one in bench.helper.exports()]


@every_kind
def test_all_is_well(tmp_path: Path, kind: str) -> None:
    """A check of what is so as it shall be finds nothing, and changes nothing."""
    bench = bench_for(tmp_path, kind)
    for connector in (HOST_A, HOST_A, HOST_B):
        connect(bench, make_volume(bench), connector)
    before, mark = state_of(bench), len(bench.helper.calls)
    count = len(bench.helper.exports())
    for repair in (False, True):
        found = check(bench, repair=repair)
        assert (found.is_whole, found.differences, found.targets) == (True, (), count)
    assert calls_since(bench, mark) == []
    assert state_of(bench) == before


@every_kind
def test_each_difference_is_named_and_mended(tmp_path: Path, kind: str) -> None:
    """A lost target, a lost unit, a foreign initiator: told first, then mended, once."""
    bench = bench_for(tmp_path, kind)
    told = connect(bench, make_volume(bench), HOST_A)
    connect(bench, make_volume(bench), HOST_A)
    other = connect(bench, make_volume(bench), HOST_B)
    wanted = exports_of(bench)
    first = next(one for one in bench.helper.exports() if one.iqn == told["target_iqn"])
    last = next(one for one in bench.helper.exports() if one.iqn == other["target_iqn"])
    bench.helper.unmap_unit(first.iqn, first.tid, told["target_lun"])
    if last.iqn != first.iqn:
        bench.helper.unexport(last.iqn, last.tid)
    found = check(bench)
    assert not found.is_whole
    assert {one.where for one in found.differences} == {first.iqn, last.iqn}
    assert not any(one.mended for one in found.differences)
    assert exports_of(bench) != wanted
    mended = check(bench, repair=True)
    assert mended.is_whole
    assert all(one.mended for one in mended.differences)
    assert exports_of(bench) == wanted
    assert check(bench).differences == ()


@every_kind
def test_sessions_of_what_is_right_go_on(tmp_path: Path, kind: str) -> None:
    """While one target is mended nobody else's session is touched."""
    bench = bench_for(tmp_path, kind)
    volume = make_volume(bench)
    stays = connect(bench, volume, HOST_A)
    log_in(bench, stays, A)
    lost = connect(bench, make_volume(bench), HOST_B)
    seen = next(one for one in bench.helper.exports() if one.iqn == lost["target_iqn"])
    bench.helper.unmap_unit(seen.iqn, seen.tid, lost["target_lun"])
    assert check(bench, repair=True).is_whole
    assert image_at(bench, stays, A) == f"volume-{volume.id}"
    assert_exports_match(bench)


@every_kind
def test_strays_are_told_and_removed(tmp_path: Path, kind: str) -> None:
    """A target that nothing implies is told; mending removes it, or says why not."""
    bench = bench_for(tmp_path, kind)
    volume = make_volume(bench)
    connect(bench, volume)
    (stray,) = exports_of(bench)
    assert stray is not None
    actions.terminate_connection(bench.service, COMPUTE, volume.id, dict(HOST_A))
    bench.helper.export(stray)
    wanted = Difference(stray.iqn, "no connection implies this target")
    assert check(bench).differences == (wanted,)
    bench.helper.fail_next["unexport"] = ExportFailed("stray", "target", "prevented")
    (difference,) = check(bench, repair=True).differences
    assert ("prevented" in difference.what, difference.mended) == (True, False)
    assert check(bench, repair=True).is_whole
    assert bench.helper.exports() == ()


@every_kind
def test_a_missing_image(tmp_path: Path, kind: str) -> None:
    """An image that is gone is told and cannot be mended; whoever uses it keeps his session."""
    bench = bench_for(tmp_path, kind)
    broken, whole = make_volume(bench), make_volume(bench)
    told = connect(bench, broken)
    connect(bench, whole)
    log_in(bench, told, A)
    bench.driver.delete(f"volume-{broken.id}")
    for repair in (False, True):
        (difference,) = check(bench, repair=repair).differences
        assert broken.id in difference.what
        assert not difference.mended
    assert image_at(bench, told, A) == f"volume-{broken.id}"


@every_kind
def test_a_host_that_should_be_cut_off(tmp_path: Path, kind: str) -> None:
    """Where a revocation could not be carried out, a check says so and does it."""
    bench = bench_for(tmp_path, kind)
    connect(bench, make_volume(bench), HOST_A)
    connect(bench, make_volume(bench), HOST_B)
    for verb in ("disallow", "unexport", "unmap_unit"):
        bench.helper.fail_next[verb] = ExportFailed("target", "sessions", "busy")
    with pytest.raises(ExportFailed):
        fencing.revoke(bench.service, ADMIN, HostSelector(host="a"))
    bench.helper.fail_next.clear()
    assert not check(bench).is_whole
    assert check(bench, repair=True).is_whole
    assert A not in {name for one in bench.helper.exports() for name in one.initiators}
    assert check(bench).differences == ()


def test_a_portal_without_its_address(tmp_path: Path) -> None:
    """It is told until its address is there; mending binds it then."""
    bench = bench_of(tmp_path, "host")
    portal = bench.helper.portals[1]
    bench.helper.absent.add(portal)
    bench.helper.start()
    for repair in (False, True):
        (difference,) = check(bench, repair=repair).differences
        assert (difference.where, difference.mended) == (str(portal), False)
    bench.helper.absent.clear()
    assert check(bench, repair=True).is_whole
    assert check(bench).differences == ()


def test_one_that_cannot_be_mended(tmp_path: Path) -> None:
    """A failure at one target is told, and the others are mended."""
    bench = bench_of(tmp_path, "host")
    for connector in (HOST_A, HOST_B):
        connect(bench, make_volume(bench), connector)
    for seen in bench.helper.exports():
        bench.helper.unexport(seen.iqn, seen.tid)
    bench.helper.fail_next["export"] = ExportFailed("target", "portal", "prevented")
    found = check(bench, repair=True)
    assert [one.mended for one in found.differences] == [False, True]
    assert "prevented" in found.differences[0].what
    assert len(bench.helper.exports()) == 1


def test_a_daemon_that_is_down(tmp_path: Path) -> None:
    """It is one difference of its backend, not an error."""
    bench = bench_of(tmp_path, "host")
    connect(bench, make_volume(bench))
    bench.helper.crash()
    found = check(bench, repair=True)
    assert [one.where for one in found.differences] == [found.backend]
    assert not found.is_whole
    assert len(rows_of(bench, tables.connections)) == 1


def test_only_administrators_check(tmp_path: Path) -> None:
    """Nobody else may."""
    bench = bench_of(tmp_path, "host")
    with pytest.raises(NotAllowed):
        check_exports(bench.service, ME)
