"""LIO's helper on a real kernel: what initiators see, and how they are let in and cut off."""

from __future__ import annotations

import mmap
import os
import socket
from collections.abc import Iterator
from dataclasses import replace
from pathlib import Path

import pytest

from lab.san import San
from lunport.core.change import Change
from lunport.core.chap import Chap, ChapCredentials
from lunport.core.errors import (
    AllPathsFailed,
    AuthenticationFailed,
    ExportFailed,
    InvalidInput,
    InvalidIqn,
    LunportError,
    PortalUnavailable,
)
from lunport.core.identity import LuIdentity, derive_identity
from lunport.core.iqn import Iqn
from lunport.core.portal import Portal
from lunport.core.secret import Secret
from lunport.host.clock import Deadline
from lunport.host.runner import run
from lunport.initiator.connector import Initiator
from lunport.targets.helper import Admission, Export, SeenUnit, Unit
from lunport.targets.lio import LioHelper
from tests.daemons.qemu_io import QemuRefusedError
from tests.lab.conftest import LabHost
from tests.lab.connecting import sessions
from tests.lab.lio_bench import (
    CHAP,
    CHAP_B,
    MIB,
    MUTUAL,
    A,
    B,
    LioBench,
    device_of,
    group_of,
    helper_on,
    wait_for,
)
from tests.lab.verified_io import VerifiedWriter, wrong_in_file


@pytest.fixture
def bench(san: San, tmp_path: Path) -> Iterator[LioBench]:
    """A helper on two of the SAN's portals of IPv4 and one of IPv6."""
    with LioBench.on(san, tmp_path, san.portals[:2] + san.portals6[:1]) as made:
        yield made


def for_host(bench: LioBench, host: LabHost, *luns: int, chap: Chap | None = CHAP) -> Export:
    """Describe a target for this kernel's initiator, and for A."""
    units = [bench.unit(lun) for lun in luns or (1,)]
    return bench.export(*units, admissions=(Admission(host.initiator, chap), Admission(A, CHAP)))


def write_directly(path: str | Path) -> None:
    """Write one block to a disk, past the page cache. Raises: OSError."""
    descriptor = os.open(path, os.O_WRONLY | os.O_DIRECT)
    try:
        with mmap.mmap(-1, mmap.PAGESIZE) as page:
            page.write(b"w" * mmap.PAGESIZE)
            os.pwritev(descriptor, [page], 0)
    finally:
        os.close(descriptor)


def give_up_soon() -> None:
    """Have the kernel fail I/O after a second without a session."""
    for path in Path("/sys/class/iscsi_session").glob("session*/recovery_tmo"):
        path.write_text("1")


def end(initiator: Initiator, bench: LioBench, export: Export, lun: int = 1) -> None:
    """Let go of a disk that does not answer any more."""
    info = bench.info(export, lun)
    try:
        initiator.disconnect(info)
    except LunportError:
        initiator.disconnect(info, force=True)


def missing(bench: LioBench) -> list[Portal]:
    """List the missing portals as they are now."""
    return list(bench.helper.missing_portals)


def test_a_disk_is_what_its_volume_is(bench: LioBench, lab_host: LabHost) -> None:
    """Identity, names, cache and discard are the unit's own, through every portal."""
    export = for_host(bench, lab_host)
    assert bench.helper.export(export) is Change.CHANGED
    assert bench.helper.compare(export) == ()
    assert bench.helper.export(export) is Change.UNCHANGED
    initiator = Initiator()
    for portal in bench.helper.portals:
        info = bench.info(export)
        info = replace(info, paths=tuple(one for one in info.paths if one.portal == portal))
        volume = initiator.connect(info)
        block = Path("/sys/block") / Path(volume.path).resolve().name
        assert (block / "device/wwid").read_text().strip() == export.units[0].identity.wwid
        assert (block / "device/vendor").read_text().strip() == "LUNPORT"
        assert (block / "device/model").read_text().strip() == "VOLUME"
        assert (block / "queue/write_cache").read_text().strip() == "write back"
        assert int((block / "queue/discard_max_bytes").read_text()) > 0
        assert int((block / "queue/logical_block_size").read_text()) == 512
        assert [one.sessions for one in bench.helper.exports()] == [1]
        initiator.disconnect(info)
    assert (
        (device_of(export) / "wwn/vpd_unit_serial")
        .read_text()
        .endswith(export.units[0].identity.wwid.removeprefix("naa.6001405") + "\n")
    )


def test_what_a_file_discards_is_freed(bench: LioBench) -> None:
    """A discard of the initiator punches a hole into the image, and is read as zeroes."""
    export = bench.export()
    bench.helper.export(export)
    session = bench.log_in(export)
    session.run("write -P 7 0 8M")
    session.run("flush")
    image = export.units[0].path
    assert image.stat().st_blocks * 512 >= 8 * MIB
    session.run("discard 0 8M")
    session.run("flush")
    assert image.stat().st_blocks * 512 < 8 * MIB
    assert "Pattern" not in session.run("read -P 0 0 8M")


def test_a_loop_device_goes_with_its_unit(bench: LioBench) -> None:
    """The image file is attached while it is offered, and free when the export is gone."""
    export = bench.export()
    bench.helper.export(export)
    image = export.units[0].path

    def attached() -> list[str]:
        files = Path("/sys/block").glob("loop*/loop/backing_file")
        return [file.read_text().strip() for file in files]

    assert attached() == [str(image)]
    assert bench.helper.exports()[0].units == (SeenUnit(1, image),)
    assert bench.helper.unexport(export.iqn, export.tid) is Change.CHANGED
    assert bench.helper.unexport(export.iqn, export.tid) is Change.UNCHANGED
    assert attached() == []


def test_a_block_device_is_offered_as_it_is(bench: LioBench, lab_host: LabHost) -> None:
    """A memory disk has neither a cache nor discard, and that is what initiators are told."""
    run(["modprobe", "brd", "rd_nr=1", "rd_size=16384"], Deadline.after(30))
    unit = Unit(1, Path("/dev/ram0"), derive_identity("memory"))
    export = bench.export(unit, admissions=(Admission(lab_host.initiator, CHAP),))
    bench.helper.export(export)
    assert bench.helper.compare(export) == ()
    assert bench.helper.exports()[0].units == (SeenUnit(1, unit.path),)
    initiator = Initiator()
    volume = initiator.connect(bench.info(export))
    block = Path("/sys/block") / Path(volume.path).resolve().name
    assert (block / "device/wwid").read_text().strip() == unit.identity.wwid
    assert (block / "queue/write_cache").read_text().strip() == "write through"
    assert int((block / "queue/discard_max_bytes").read_text()) == 0
    write_directly(volume.path)
    assert unit.path.read_bytes()[:4096] == b"w" * 4096
    initiator.disconnect(bench.info(export))
    bench.helper.unexport(export.iqn, export.tid)
    run(["rmmod", "brd"], Deadline.after(30))


def test_a_mapped_device_grows_while_it_is_written_to(bench: LioBench, lab_host: LabHost) -> None:
    """A logical volume, played by a linear map, is as large as its map; no session is dropped."""
    store, deadline = bench.image("store", 64), Deadline.after(60)
    loop = run(["losetup", "--find", "--show", str(store)], deadline).stdout.strip()

    def table(size_mib: int) -> str:
        return f"0 {size_mib * MIB // 512} linear {loop} 0"

    run(["dmsetup", "create", "lio-lab", "--table", table(16)], deadline)
    try:
        path = Path("/dev/mapper/lio-lab")
        wait_for(path.exists, "the map's name")
        unit = Unit(1, path, derive_identity("mapped"))
        export = bench.export(unit, admissions=(Admission(lab_host.initiator, CHAP),))
        bench.helper.export(export)
        initiator = Initiator()
        with VerifiedWriter.on(initiator.connect(bench.info(export)).path) as writer:
            writer.await_rounds(2)
            with pytest.raises(ExportFailed, match="its image has"):
                bench.helper.resize(export.iqn, 1, 1, 24 * MIB)
            run(["dmsetup", "reload", "lio-lab", "--table", table(24)], deadline)
            run(["dmsetup", "resume", "lio-lab"], deadline)
            bench.helper.resize(export.iqn, 1, 1, 24 * MIB)
            assert initiator.extend(bench.info(export)) == 24 * MIB
            writer.await_rounds(2)
            assert writer.end().failures == ()
        assert bench.helper.compare(export) == ()
        initiator.disconnect(bench.info(export))
        bench.helper.unexport(export.iqn, export.tid)
    finally:
        run(["dmsetup", "remove", "--retry", "lio-lab"], deadline)
        run(["losetup", "--detach", loop], deadline)


def test_an_image_is_found_again_by_its_loop_device(bench: LioBench) -> None:
    """A service that was restarted takes a running export over as it is."""
    export = bench.export()
    bench.helper.export(export)
    session = bench.log_in(export)
    fresh = helper_on(bench.san, bench.helper.portals)
    assert fresh.start() is Change.UNCHANGED
    assert fresh.compare(export) == ()
    assert fresh.export(export) is Change.UNCHANGED
    assert fresh.exports() == bench.helper.exports()
    session.run("write 0 4k")


def test_mutual_credentials_are_demanded_both_ways(bench: LioBench, lab_host: LabHost) -> None:
    """The target proves itself to an initiator that asks; a wrong proof is no connection."""
    export = for_host(bench, lab_host, chap=MUTUAL)
    bench.helper.export(export)
    initiator = Initiator()
    info = bench.info(export, chap=MUTUAL)
    initiator.connect(info)
    initiator.disconnect(info)
    wrong = Chap(MUTUAL.initiator, ChapCredentials("target", Secret("AnotherSecret123")))
    with pytest.raises(AuthenticationFailed, match="did not prove who it is"):
        initiator.connect(bench.info(export, chap=wrong))
    assert bench.helper.export(for_same(export, CHAP)) is Change.CHANGED
    initiator.connect(bench.info(export, chap=CHAP))
    initiator.disconnect(info)


def for_same(export: Export, chap: Chap | None) -> Export:
    """Describe the target with other credentials for its first initiator."""
    first, *others = export.admissions
    return replace(export, admissions=(replace(first, chap=chap), *others))


def test_two_initiators_see_their_own_units(bench: LioBench, lab_host: LabHost) -> None:
    """Each has its credentials and its units: the other's are neither accepted nor there."""
    one, two, three = bench.unit(1), bench.unit(2), bench.unit(300)
    export = bench.export(
        one, two, three,
        admissions=(
            Admission(lab_host.initiator, CHAP, frozenset({1, 300})),
            Admission(B, CHAP_B, frozenset({2})),
        ),
    )  # fmt: skip
    bench.helper.export(export)
    assert bench.helper.compare(export) == ()
    initiator = Initiator()
    initiator.connect(bench.info(export, 1))
    with VerifiedWriter.on(initiator.connect(bench.info(export, 300)).path) as writer:
        writer.await_rounds(2)
        report = writer.end()
    assert report.failures == ()
    assert wrong_in_file(report, three.path) == ()
    with pytest.raises(AllPathsFailed):
        initiator.connect(bench.info(export, 2))
    hosts = Path("/sys/class/scsi_device")
    assert sorted(path.name.split(":")[-1] for path in hosts.glob("*:*:*:*")) == ["1", "300"]
    bench.log_in(export, B, CHAP_B, lun=2).run("write 0 4k")
    with pytest.raises(QemuRefusedError):
        bench.log_in(export, B, CHAP_B, lun=1)
    assert bench.is_refused(export, B, CHAP)
    assert bench.is_refused(export, B, None)
    assert bench.is_refused(export, A, CHAP)
    for lun in (1, 300):
        initiator.disconnect(bench.info(export, lun))


@pytest.mark.again
def test_an_initiator_without_credentials_beside_one_with(bench: LioBench) -> None:
    """Who needs none logs in without, and the other still only with its own."""
    export = bench.export(admissions=(Admission(A, CHAP), Admission(B, None)))
    bench.helper.export(export)
    bench.log_in(export, B, None).run("write 0 4k")
    assert bench.is_refused(export, A, None)
    assert bench.helper.export(
        replace(export, admissions=(Admission(A, None), Admission(B, CHAP_B)))
    ) is Change.CHANGED  # fmt: skip
    bench.log_in(export, A, None).run("write 0 4k")
    assert bench.is_refused(export, B, None)


def test_new_credentials_reach_an_initiator_that_is_in(bench: LioBench, lab_host: LabHost) -> None:
    """Changed credentials hold from the next login on; the session stays, and its I/O."""
    export = for_host(bench, lab_host)
    bench.helper.export(export)
    initiator = Initiator()
    with VerifiedWriter.on(initiator.connect(bench.info(export)).path) as writer:
        writer.await_rounds(2)
        before = sessions()
        changed = for_same(export, CHAP_B)
        assert bench.helper.compare(changed) == (
            f"initiator {lab_host.initiator} has other credentials",
        )
        admission = changed.admissions[0]
        assert bench.helper.allow(export.iqn, export.tid, admission) is Change.CHANGED
        assert bench.helper.allow(export.iqn, export.tid, admission) is Change.UNCHANGED
        assert bench.helper.compare(changed) == ()
        writer.await_rounds(2)
        assert sessions() == before
        assert writer.end().failures == ()
    initiator.disconnect(bench.info(export))
    with pytest.raises(AuthenticationFailed):
        initiator.connect(bench.info(export))
    initiator.connect(bench.info(export, chap=CHAP_B))
    initiator.disconnect(bench.info(export, chap=CHAP_B))


def test_a_refused_initiator_cannot_write_any_more(bench: LioBench, lab_host: LabHost) -> None:
    """Its sessions are gone when the verb returns, its writes fail, and the others go on."""
    export = for_host(bench, lab_host)
    bench.helper.export(export)
    other = bench.log_in(export, A)
    initiator = Initiator()
    path = initiator.connect(bench.info(export)).path
    give_up_soon()
    write_directly(path)
    with VerifiedWriter.on(path) as writer:
        writer.await_rounds(2)
        assert bench.helper.disallow(export.iqn, export.tid, lab_host.initiator) is Change.CHANGED
        assert bench.helper.exports()[0].sessions == 1
        content = export.units[0].path.read_bytes()
        writer.await_error(60)
        assert export.units[0].path.read_bytes() == content
    with pytest.raises(OSError, match=r"Input/output error|No such device"):
        write_directly(path)
    assert export.units[0].path.read_bytes() == content
    assert bench.helper.disallow(export.iqn, export.tid, lab_host.initiator) is Change.UNCHANGED
    other.run("write 0 4k")
    with pytest.raises(AllPathsFailed):
        Initiator().connect(bench.info(export))
    end(initiator, bench, export)


def test_a_unit_is_added_and_taken_from_live_sessions(bench: LioBench, lab_host: LabHost) -> None:
    """Another unit comes and goes while I/O runs on the first, which is not disturbed."""
    export = for_host(bench, lab_host)
    bench.helper.export(export)
    initiator = Initiator()
    second = bench.unit(300)
    both = replace(export, units=(*export.units, second))
    names = frozenset({lab_host.initiator})
    with VerifiedWriter.on(initiator.connect(bench.info(export)).path) as writer:
        writer.await_rounds(2)
        before = sessions()
        for _ in range(3):
            assert bench.helper.map_unit(export.iqn, 1, second, names) is Change.CHANGED
            assert bench.helper.map_unit(export.iqn, 1, second, names) is Change.UNCHANGED
            path = initiator.connect(bench.info(both, 300)).path
            write_directly(path)
            with VerifiedWriter.on(path) as doomed:
                doomed.await_rounds(2)
                assert bench.helper.unmap_unit(export.iqn, 1, 300) is Change.CHANGED
                assert bench.helper.unmap_unit(export.iqn, 1, 300) is Change.UNCHANGED
                content = second.path.read_bytes()
                doomed.await_error(30)
                assert second.path.read_bytes() == content
            end(initiator, bench, both, 300)
            writer.await_rounds(2)
        assert sessions() == before
        report = writer.end()
    assert report.failures == ()
    assert wrong_in_file(report, export.units[0].path) == ()
    assert bench.helper.compare(export) == ()
    initiator.disconnect(bench.info(export))


@pytest.mark.again
def test_a_unit_is_hidden_from_one_initiator_alone(bench: LioBench) -> None:
    """Unmapped for one, the unit stays for the other; unknown initiators see nothing."""
    export = bench.export(admissions=(Admission(A, CHAP), Admission(B, CHAP_B)))
    bench.helper.export(export)
    one, other = bench.log_in(export, A), bench.log_in(export, B, CHAP_B)
    assert bench.helper.unmap_unit(export.iqn, 1, 1, frozenset({A})) is Change.CHANGED
    assert bench.helper.unmap_unit(export.iqn, 1, 1, frozenset({A})) is Change.UNCHANGED
    assert "failed" in one.run("write 0 4k")
    assert "wrote" in other.run("write 0 4k")
    assert bench.helper.map_unit(export.iqn, 1, export.units[0], frozenset({A})) is Change.CHANGED
    assert "wrote" in one.run("write 0 4k")
    with pytest.raises(ExportFailed, match="is not admitted"):
        bench.helper.map_unit(
            export.iqn, 1, export.units[0], frozenset({Iqn("iqn.2026-11.io.lunport.test:c")})
        )
    image = replace(export.units[0], path=bench.image("another"))
    with pytest.raises(ExportFailed, match="it is not"):
        bench.helper.map_unit(export.iqn, 1, image, frozenset({A}))
    assert bench.helper.compare(export) == ()


@pytest.mark.again
def test_one_volume_behind_two_targets(bench: LioBench) -> None:
    """As in a migration: both hosts reach the same bytes; the device goes with the last."""
    unit = bench.unit(1)
    one = bench.export(unit)
    two = bench.export(unit, admissions=(Admission(B, CHAP_B),), tid=2)
    bench.helper.export(one)
    bench.helper.export(two)
    bench.log_in(one).run("write -P 5 0 4k")
    other = bench.log_in(two, B, CHAP_B)
    assert "Pattern" not in other.run("read -P 5 0 4k")
    assert device_of(one) == device_of(two)
    device = device_of(one)
    bench.helper.unexport(one.iqn, one.tid)
    assert "wrote" in other.run("write 0 4k")
    assert bench.helper.compare(two) == ()
    bench.helper.unexport(two.iqn, two.tid)
    assert not device.exists()


def test_a_unit_grows_while_it_is_written_to(bench: LioBench, lab_host: LabHost) -> None:
    """The new size is there after the host's rescan; the session stays, and its I/O."""
    export = for_host(bench, lab_host)
    bench.helper.export(export)
    initiator = Initiator()
    volume = initiator.connect(bench.info(export))
    assert volume.size_bytes == 16 * MIB
    with VerifiedWriter.on(volume.path) as writer:
        writer.await_rounds(2)
        before = sessions()
        with pytest.raises(ExportFailed, match="its image has"):
            bench.helper.resize(export.iqn, 1, 1, 24 * MIB)
        os.truncate(export.units[0].path, 24 * MIB)
        assert bench.helper.resize(export.iqn, 1, 1, 24 * MIB) is Change.CHANGED
        assert bench.helper.resize(export.iqn, 1, 1, 24 * MIB) is Change.UNCHANGED
        assert initiator.extend(bench.info(export)) == 24 * MIB
        writer.await_rounds(2)
        assert sessions() == before
        assert writer.end().failures == ()
    initiator.disconnect(bench.info(export))
    with pytest.raises(ExportFailed, match="there is no such unit"):
        bench.helper.resize(export.iqn, 1, 2, 24 * MIB)


@pytest.mark.again
def test_a_wrong_image_waits_until_nobody_is_in(bench: LioBench) -> None:
    """Another image or identity is refused under a session, and taken without one."""
    export = bench.export()
    bench.helper.export(export)
    session = bench.log_in(export)
    image = replace(export.units[0], path=bench.image("another"))
    identity = replace(export.units[0], identity=bench.unit(1).identity)
    for unit in (image, identity):
        changed = replace(export, units=(unit,))
        assert len(bench.helper.compare(changed)) >= 1
        with pytest.raises(ExportFailed, match="an initiator is logged in"):
            bench.helper.export(changed)
    assert "wrote" in session.run("write 0 4k")
    session.log_out()
    wait_for(lambda: not bench.helper.exports()[0].sessions, "the session's end")
    for unit in (image, identity):
        changed = replace(export, units=(unit,))
        assert bench.helper.export(changed) is Change.CHANGED
        assert bench.helper.compare(changed) == ()
        assert bench.helper.exports()[0].units == (SeenUnit(1, unit.path),)


def test_a_portal_without_its_address_is_told_and_comes_by_itself(san: San, tmp_path: Path) -> None:
    """The others serve; the absent one is in the list, and serves once its address is there."""
    absent = Portal("10.0.1.77")
    with LioBench.on(san, tmp_path, (san.portals[0], absent)) as bench:
        assert missing(bench) == [absent]
        export = bench.export()
        bench.helper.export(export)
        bench.log_in(export)
        san.network.run("ip", "address", "add", "10.0.1.77/24", "dev", "tgt1")
        try:
            assert missing(bench) == []
            assert bench.helper.start() is Change.UNCHANGED
            session = bench.log_in(export, portal=absent)
            assert "wrote" in session.run("write 0 4k")
            assert bench.helper.compare(export) == ()
        finally:
            san.network.run("ip", "address", "delete", "10.0.1.77/24", "dev", "tgt1")
    with pytest.raises(PortalUnavailable, match="is an address of this host"):
        helper_on(san, (absent,)).start()


def test_a_port_that_somebody_else_has_is_an_error(san: San) -> None:
    """A start says which portal it is; LIO's own listening socket is no obstacle."""
    taken = Portal(san.portals[0].host, 3299)
    with (
        san.network.call(lambda: socket.create_server((taken.host, taken.port))),
        pytest.raises(PortalUnavailable, match=r"10\.0\.1\.2:3299 cannot be bound"),
    ):
        helper_on(san, (san.portals[1], taken)).start()
    assert helper_on(san, (san.portals[1], taken)).start() is Change.UNCHANGED


def test_what_lio_would_misread_is_refused_before_anything_is_done(bench: LioBench) -> None:
    """Names, numbers, identities and secrets that mean something else leave nothing."""
    unit = bench.unit(1)
    null = Chap(ChapCredentials("user", Secret("NULLsecret12345")))
    same = Chap(CHAP.initiator, ChapCredentials("other", CHAP.initiator.password))
    for wrong, error in (
        (bench.export(replace(unit, lun=16384)), InvalidInput),
        (bench.export(replace(unit, lun=0)), InvalidInput),
        (bench.export(replace(unit, identity=LuIdentity("naa.6" + "1" * 31, "x"))), InvalidInput),
        (bench.export(admissions=(Admission(Iqn("ALL"), None),)), InvalidIqn),
        (bench.export(admissions=(Admission(A, null),)), InvalidInput),
        (bench.export(admissions=(Admission(A, same),)), InvalidInput),
        (replace(bench.export(), iqn=Iqn("iqn.2026-11.elsewhere:x")), InvalidIqn),
    ):
        with pytest.raises(error) as raised:
            bench.helper.export(wrong)
        assert "ecret1" not in str(raised.value)
    assert bench.helper.exports() == ()
    gone = bench.export()
    gone.units[0].path.unlink()
    with pytest.raises(ExportFailed, match="it is gone"):
        bench.helper.export(gone)
    assert bench.helper.exports() == ()
    assert not group_of(gone).parent.exists()


def test_an_initiator_in_capitals_gets_in(bench: LioBench, lab_host: LabHost) -> None:
    """LIO folds what an initiator calls itself, so its entry is folded as well."""
    shouting = Iqn("iqn.2026-11.io.lunport.test:Host-A")
    export = bench.export(admissions=(Admission(shouting, CHAP),))
    bench.helper.export(export)
    bench.log_in(export, shouting)
    assert bench.helper.compare(export) == ()
    assert bench.helper.disallow(export.iqn, 1, shouting) is Change.CHANGED
    assert bench.helper.exports()[0].sessions == 0


def test_secrets_are_read_by_root_alone(bench: LioBench) -> None:
    """The kernel shows what is in an ACL to nobody else, whatever the file's mode says."""
    export = bench.export()
    bench.helper.export(export)
    file = group_of(export) / "acls" / A / "auth/password"
    assert file.read_text() == "FirstSecret12345\n"
    child = os.fork()
    if child == 0:
        os.setuid(65534)
        try:
            file.read_text()
        except PermissionError:
            os._exit(0)
        os._exit(1)
    assert os.waitstatus_to_exitcode(os.waitpid(child, 0)[1]) == 0


def test_the_limits_are_what_the_kernel_takes() -> None:
    """The largest LUN is the largest on the wire; masks, secrets and growth are LIO's own."""
    limits = LioHelper.limits
    assert (limits.min_lun, limits.max_lun) == (1, 16383)
    assert limits.masks_units
    assert limits.own_credentials
    assert limits.grows_live
