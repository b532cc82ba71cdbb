"""What becomes of LIO's configuration when others, or a kill, take a part of it away."""

from __future__ import annotations

import contextlib
import subprocess
import sys
from collections.abc import Callable, Iterator
from dataclasses import replace
from pathlib import Path

import pytest

from lab.san import San
from lunport.core.change import Change
from lunport.core.errors import ExportFailed
from lunport.host.clock import Deadline
from lunport.host.runner import run
from lunport.initiator.connector import Initiator
from lunport.targets.helper import Admission
from tests.lab.conftest import LabHost
from tests.lab.connecting import sessions
from tests.lab.lio_bench import (
    CHAP,
    CHAP_B,
    CORE,
    ISCSI,
    A,
    B,
    LioBench,
    device_of,
    group_of,
    helper_on,
    wait_for,
)
from tests.lab.lio_play import LioPlayer
from tests.lab.verified_io import VerifiedWriter, wrong_in_file


@pytest.fixture
def bench(san: San, tmp_path: Path) -> Iterator[LioBench]:
    """A helper on two portals."""
    with LioBench.on(san, tmp_path, san.portals[:2]) as made:
        yield made


# -- damages: each takes one thing away, or puts one too many, by hand -------------------------


def _unlinked(place: Path) -> None:
    for link in [path for path in place.iterdir() if path.is_symlink()]:
        link.unlink()


def _without(place: Path) -> None:
    _unlinked(place)
    place.rmdir()


def _acl_goes(group: Path) -> None:
    _without(group / "acls" / A / "lun_1")
    _without(group / "acls" / A / "lun_2")
    (group / "acls" / A).rmdir()


def _lun_goes(group: Path) -> None:
    for acl in (group / "acls").iterdir():
        _without(acl / "lun_2")
    _without(group / "lun/lun_2")


def _device_goes(group: Path) -> None:
    device = next(path.resolve() for path in (group / "lun/lun_2").iterdir() if path.is_symlink())
    _lun_goes(group)
    device.rmdir()


def _unit_too_many(group: Path) -> None:
    device = next(path.resolve() for path in (group / "lun/lun_2").iterdir() if path.is_symlink())
    (group / "lun/lun_9").mkdir()
    (group / "lun/lun_9/other").symlink_to(device)
    (group / "acls" / A / "lun_9").mkdir()
    (group / "acls" / A / "lun_9/other").symlink_to(group / "lun/lun_9")


def _discard_off(group: Path) -> None:
    device = next(path.resolve() for path in (group / "lun/lun_2").iterdir() if path.is_symlink())
    (device / "attrib/emulate_tpu").write_text("0")


DAMAGES: dict[str, Callable[[Path], object]] = {
    "demo mode": lambda group: (group / "attrib/generate_node_acls").write_text("1"),
    "discovery by all": lambda group: (group / "attrib/demo_mode_discovery").write_text("1"),
    "alias": lambda group: (group / "param/TargetAlias").write_text("LIO Target"),
    "portal": lambda group: (group / "np/10.0.2.2:3260").rmdir(),
    "portal too many": lambda group: (group / "np/10.0.3.2:3260").mkdir(),
    "initiator": _acl_goes,
    "initiator too many": lambda group: (group / "acls" / B).mkdir(),
    "secret": lambda group: (group / "acls" / A / "auth/password").write_text("another"),
    "no secret": lambda group: (group / "acls" / A / "auth/password").write_text("NULL"),
    "no credentials": lambda group: (group / "acls" / A / "attrib/authentication").write_text("0"),
    "mapping": lambda group: _without(group / "acls" / A / "lun_2"),
    "mapping's link": lambda group: _unlinked(group / "acls" / A / "lun_2"),
    "write protection": lambda group: (group / "acls" / A / "lun_2/write_protect").write_text("1"),
    "unit": _lun_goes,
    "unit's link": lambda group: _unlinked(group / "lun/lun_2"),
    "unit too many": _unit_too_many,
    "device": _device_goes,
    "discard": _discard_off,
}


def test_each_thing_is_mended_while_io_runs_on_the_rest(bench: LioBench, lab_host: LabHost) -> None:
    """Whatever one thing is missing or too much is told, and mended; no session notices."""
    units = (bench.unit(1), bench.unit(2))
    export = bench.export(
        *units, admissions=(Admission(lab_host.initiator, CHAP), Admission(A, CHAP_B))
    )
    bench.helper.export(export)
    initiator = Initiator()
    with VerifiedWriter.on(initiator.connect(bench.info(export)).path) as writer:
        writer.await_rounds(2)
        before = sessions()
        for name, damage in DAMAGES.items():
            damage(group_of(export))
            told = bench.helper.compare(export)
            assert told, name
            assert "another" not in " ".join(told).split("credentials")[0]
            assert bench.helper.export(export) is Change.CHANGED, name
            assert bench.helper.compare(export) == (), name
            assert bench.helper.export(export) is Change.UNCHANGED, name
            writer.await_rounds(1)
        assert sessions() == before
        assert bench.helper.exports()[0].sessions == 1
        report = writer.end()
    assert report.failures == ()
    assert wrong_in_file(report, units[0].path) == ()
    assert "wrote" in bench.log_in(export, A, CHAP_B, lun=2).run("write 0 4k")
    initiator.disconnect(bench.info(export))


def test_a_cleared_target_comes_back_while_another_is_used(
    bench: LioBench, lab_host: LabHost
) -> None:
    """A target that was disabled, emptied or removed is whole again; another's I/O goes on."""
    used = bench.export(admissions=(Admission(lab_host.initiator, CHAP),))
    lost = bench.export(bench.unit(1), bench.unit(300), tid=2)
    bench.helper.export(used)
    bench.helper.export(lost)
    initiator = Initiator()
    with VerifiedWriter.on(initiator.connect(bench.info(used)).path) as writer:
        writer.await_rounds(2)
        group = group_of(lost)
        (group / "enable").write_text("0")
        assert bench.helper.compare(lost) == ("it is not enabled",)
        assert bench.helper.export(lost) is Change.CHANGED
        assert "wrote" in bench.log_in(lost).run("write 0 4k")
        (group / "enable").write_text("0")
        for acl in (group / "acls").iterdir():
            for mapped in acl.glob("lun_*"):
                _without(mapped)
            acl.rmdir()
        for lun in (group / "lun").iterdir():
            _without(lun)
        for portal in (group / "np").iterdir():
            portal.rmdir()
        group.rmdir()
        assert bench.helper.compare(lost)[0] == "it is not there"
        group.parent.rmdir()
        assert bench.helper.compare(lost) == ("it is not there",)
        assert bench.helper.export(lost) is Change.CHANGED
        assert bench.helper.compare(lost) == ()
        writer.await_rounds(2)
        assert writer.end().failures == ()
    initiator.disconnect(bench.info(used))


def _attached(folder: Path) -> list[str]:
    files = Path("/sys/block").glob("loop*/loop/backing_file")
    found = []
    for file in files:
        with contextlib.suppress(OSError):
            found.append(file.read_text().strip())
    return sorted(path for path in found if path.startswith(str(folder)))


def _is_clean(bench: LioBench) -> bool:
    ours = [*ISCSI.glob("iqn.2026-11.io.lunport:*"), *CORE.glob("iblock_*/lunport-*")]
    return not ours and not _attached(bench.folder)


AGAIN = [
    pytest.param(verb, marks=pytest.mark.again)
    for verb in ("export", "unexport", "unmap_unit", "allow", "disallow")
]


@pytest.mark.parametrize("verb", ["map_unit", *AGAIN])
def test_a_kill_leaves_what_the_next_export_completes(bench: LioBench, verb: str) -> None:
    """Killed right after any effect: the same export is whole again, and nothing is left."""
    one, two = bench.unit(1), bench.unit(2)
    admissions = (Admission(A, CHAP, frozenset({1})), Admission(B, CHAP_B))
    export = bench.export(one, two, admissions=admissions)
    begin = {
        "map_unit": replace(export, units=(one,)),
        "allow": replace(export, admissions=admissions[1:]),
    }.get(verb, export)
    if verb == "map_unit":
        begin = replace(begin, admissions=(admissions[0], admissions[1]))
    portals = [str(portal) for portal in bench.helper.portals]
    at_effect = 1  # its end; its begin is the end of the one before
    with LioPlayer.started() as player:
        if verb != "export":
            bench.helper.export(begin)
        while player.was_killed(verb, export, portals, at_effect):
            devices = len(list(CORE.glob("iblock_*/lunport-*")))
            # udev may have it open for a moment longer
            wait_for(lambda: len(_attached(bench.folder)) <= devices, "a loop device was left")  # noqa: B023
            bench.helper.export(begin)
            assert bench.helper.compare(begin) == (), at_effect
            if verb == "export":
                bench.helper.unexport(export.iqn, export.tid)
                assert _is_clean(bench)
            at_effect += 2
    assert at_effect > 4
    bench.helper.export(export)
    assert bench.helper.compare(export) == ()
    assert "wrote" in bench.log_in(export, B, CHAP_B, lun=2).run("write 0 4k")
    bench.helper.unexport(export.iqn, export.tid)
    assert _is_clean(bench)


def test_a_step_that_fails_is_undone(bench: LioBench) -> None:
    """A target that cannot be made whole is not there afterwards, nor is any device of it."""
    good, bad = bench.unit(1), bench.unit(2)
    bad.path.unlink()
    bad.path.mkdir()
    export = bench.export(good, bad)
    with pytest.raises(ExportFailed, match="unit 2"):
        bench.helper.export(export)
    assert _is_clean(bench)
    alone = replace(export, units=(good,))
    bench.helper.export(alone)
    with pytest.raises(ExportFailed):
        bench.helper.map_unit(export.iqn, export.tid, bad, frozenset({A}))
    assert bench.helper.compare(alone) == ()


def _tree(*roots: Path) -> dict[str, str]:
    """Read all that configfs shows of others."""
    found = {}
    for root in roots:
        for path in sorted(root.rglob("*")):
            text = ""
            if path.is_file() and path.parent.name in ("attrib", "param", "auth", "wwn"):
                with contextlib.suppress(OSError):
                    text = path.read_text()
            found[str(path)] = text
    return found


def test_what_is_others_is_left_alone(bench: LioBench, san: San) -> None:
    """Neither targets and devices of others nor those of another backend are listed or touched."""
    target = san.target("others")
    disk = san.add_lun(target, 1)
    elsewhere = helper_on(san, san.portals[:1], backend="elsewhere")
    elsewhere.start()
    theirs = bench.export()
    elsewhere.export(theirs)
    try:
        before = _tree(target.place, disk.place, group_of(theirs), device_of(theirs))
        assert bench.helper.exports() == ()
        mine = bench.export(tid=2)
        bench.helper.export(mine)
        assert [one.iqn for one in bench.helper.exports()] == [mine.iqn]
        assert [one.iqn for one in elsewhere.exports()] == [theirs.iqn]
        bench.helper.start()
        bench.helper.stop()
        assert bench.helper.exports() == ()
        assert _tree(target.place, disk.place, group_of(theirs), device_of(theirs)) == before
        assert elsewhere.compare(theirs) == ()
    finally:
        elsewhere.stop()


_visited: list[str] | None = None


def _note(event: str, given: tuple[object, ...]) -> None:
    if _visited is not None and event in ("open", "os.scandir", "os.listdir"):
        _visited.append(str(given[0]))


def test_one_target_is_looked_at_alone(bench: LioBench) -> None:
    """Neither a look nor a change of one target reads another's part of configfs."""
    global _visited  # noqa: PLW0603  # an audit hook is there for good
    others = [bench.export(tid=number) for number in range(1, 4)]
    for export in others:
        bench.helper.export(export)
    mine = bench.export(tid=9)
    sys.addaudithook(_note)
    _visited = []
    bench.helper.export(mine)
    bench.helper.compare(mine)
    bench.helper.allow(mine.iqn, 9, Admission(B, CHAP_B))
    bench.helper.disallow(mine.iqn, 9, B)
    bench.helper.unexport(mine.iqn, 9)
    visited, _visited = _visited, None
    assert any(mine.iqn in path for path in visited)
    assert [path for path in visited for other in others if other.iqn in path] == []
    assert len(visited) < 400


def test_one_writer_at_a_time(bench: LioBench, san: San, tmp_path: Path) -> None:
    """While another process has the lock a verb waits, and says who has it when time is over."""
    impatient = helper_on(san, san.portals[:1], timeout_s=0.2)
    export = bench.export()
    holder = tmp_path / "holder.py"
    holder.write_text(
        "import fcntl, os, sys\n"
        "os.makedirs('/run/lunport/locks', exist_ok=True)\n"
        "lock = open('/run/lunport/locks/lio', 'a+')\n"
        "fcntl.flock(lock, fcntl.LOCK_EX)\n"
        "print('held', flush=True)\n"
        "sys.stdin.read()\n"
    )
    with subprocess.Popen(
        [sys.executable, str(holder)], stdin=subprocess.PIPE, stdout=subprocess.PIPE, text=True
    ) as child:
        assert child.stdout is not None
        assert child.stdout.readline() == "held\n"
        with pytest.raises(ExportFailed, match=f"lock: .*process {child.pid}"):
            impatient.export(export)
        assert child.stdin is not None
        child.stdin.close()
    assert bench.helper.export(export) is Change.CHANGED


@pytest.mark.needs("mkfs.ext4")
def test_a_file_is_read_past_the_page_cache_where_that_is_possible(
    bench: LioBench, tmp_path: Path
) -> None:
    """On a file system with direct I/O the loop device uses it; here, on memory, it cannot."""
    store, mount = bench.image("store", 64), tmp_path / "mounted"
    mount.mkdir()
    deadline = Deadline.after(60)
    run(["mkfs.ext4", "-q", str(store)], deadline)
    run(["mount", "-o", "loop", str(store), str(mount)], deadline)
    try:
        unit = bench.unit(1)
        moved = mount / "image"
        with moved.open("wb") as file:
            file.truncate(16 << 20)
        direct = bench.export(replace(unit, path=moved))
        through = bench.export(tid=2)
        for export, wanted in ((direct, "1"), (through, "0")):
            bench.helper.export(export)
            info = (device_of(export) / "info").read_text()
            name = info.partition("iBlock device: ")[2].split()[0]
            assert Path(f"/sys/block/{name}/loop/dio").read_text().strip() == wanted
            session = bench.log_in(export)
            assert "wrote" in session.run("write -P 3 0 64k")
            session.log_out()
        wait_for(lambda: not any(one.sessions for one in bench.helper.exports()), "the end")
        bench.helper.unexport(direct.iqn, direct.tid)
        assert moved.read_bytes()[:65536] == b"\3" * 65536
    finally:
        run(["umount", str(mount)], deadline)
