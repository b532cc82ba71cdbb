"""Units of one tgt target: what they cost, half-made ones, load, sizes, and what is told."""

from __future__ import annotations

import subprocess
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import replace

import pytest

from lunport.core.change import Change
from lunport.core.errors import ExportFailed, InvalidState
from lunport.core.identity import derive_identity
from lunport.host.tgt_show import parse_accounts
from lunport.host.tgtd import OwnTgtd
from lunport.targets.helper import Admission, Export, Unit
from lunport.targets.tgt import TgtHelper
from tests.daemons.conftest import CHAP, INITIATOR, MIB, OTHER_INITIATOR, RunningTgtd
from tests.daemons.cut_requests import CutError, CuttingSocket, later_helper, requests_of
from tests.daemons.qemu_io import QemuSession
from tests.daemons.test_tgt_restart import DAMAGES

pytestmark = pytest.mark.needs("tgtd", "qemu-io")


def unit(running: RunningTgtd, lun: int, size_bytes: int = 16 * MIB) -> Unit:
    """Describe a further unit."""
    volume_id = f"0f0e0d0c-0b0a-4908-8706-0504030201{lun:02x}"
    return Unit(lun, running.image(f"volume-{volume_id}", size_bytes), derive_identity(volume_id))


def of_units(running: RunningTgtd, count: int) -> Export:
    """Describe an export with that many units."""
    units = tuple(unit(running, lun) for lun in range(1, count + 1))
    return replace(running.export(), units=units)


def counting_helper(running: RunningTgtd) -> tuple[TgtHelper, CuttingSocket]:
    """Make a helper whose requests are counted."""
    daemon = OwnTgtd(running.daemon.folder, running.portals)
    counting = CuttingSocket(running, cut_at=0)
    daemon.socket = counting
    return TgtHelper(daemon), counting


@contextmanager
def live_session(running: RunningTgtd, export: Export, lun: int = 1) -> Iterator[QemuSession]:
    """Have a session that works before and after the block."""
    with QemuSession(
        running.folder, running.portals[0], export.iqn, INITIATOR, CHAP.initiator, lun
    ) as session:
        assert "wrote 4096/4096" in session.run("write -P 1 0 4k")
        yield session
        assert "wrote 4096/4096" in session.run("write -P 2 0 4k")


# -- what they cost ------------------------------------------------------------------------


@pytest.mark.parametrize("count", [1, 40])
def test_a_mapping_costs_the_same_beside_few_units_and_many(tgtd: RunningTgtd, count: int) -> None:
    """Two requests to map and one to unmap, none of them a look at all targets."""
    export = of_units(tgtd, count)
    helper, counting = counting_helper(tgtd)
    helper.export(export)
    further = unit(tgtd, 100)
    counting.count = 0
    mapping = (export.iqn, export.tid, further, export.initiators)
    assert helper.map_unit(*mapping) is Change.CHANGED
    assert counting.count == 2
    assert helper.map_unit(*mapping) is Change.UNCHANGED
    assert counting.count == 3
    assert helper.unmap_unit(export.iqn, export.tid, 100) is Change.CHANGED
    assert counting.count == 4
    assert helper.unmap_unit(export.iqn, export.tid, 100) is Change.UNCHANGED
    assert counting.count == 5
    assert counting.shows == 0


def test_what_was_mapped_is_known_to_a_repeated_export(tgtd: RunningTgtd) -> None:
    """After mappings and admissions an equal export confirms without a look at all targets."""
    export = of_units(tgtd, 2)
    helper, counting = counting_helper(tgtd)
    helper.export(replace(export, units=export.units[:1]))
    helper.map_unit(export.iqn, export.tid, export.units[1], export.initiators)
    helper.allow(export.iqn, export.tid, Admission(OTHER_INITIATOR, CHAP))
    helper.disallow(export.iqn, export.tid, OTHER_INITIATOR)
    assert helper.export(export) is Change.UNCHANGED
    assert counting.shows == 0


# -- the next service, kills, and failing steps -------------------------------------------


def test_a_later_service_maps_and_unmaps(tgtd: RunningTgtd) -> None:
    """Without any memory a unit is found, added and taken away beside a live session."""
    export = of_units(tgtd, 2)
    tgtd.helper.export(export)
    with live_session(tgtd, export):
        mapping = (export.iqn, export.tid, export.units[1], export.initiators)
        assert later_helper(tgtd).map_unit(*mapping) is Change.UNCHANGED
        assert later_helper(tgtd).unmap_unit(export.iqn, export.tid, 2) is Change.CHANGED
        assert later_helper(tgtd).unmap_unit(export.iqn, export.tid, 2) is Change.UNCHANGED
        assert later_helper(tgtd).map_unit(*mapping) is Change.CHANGED
        other = replace(export.units[1], path=tgtd.image("other"))
        with pytest.raises(ExportFailed, match=r"LUN 2 shows .*volume-"):
            later_helper(tgtd).map_unit(export.iqn, export.tid, other, export.initiators)
        assert later_helper(tgtd).compare(export) == ()


@pytest.mark.parametrize("verb", ["map_unit", "export"])
def test_a_unit_without_its_name_is_completed_under_a_session(tgtd: RunningTgtd, verb: str) -> None:
    """Killed between image and identity, a mapping is finished by the next service."""
    export = of_units(tgtd, 2)
    tgtd.helper.export(replace(export, units=export.units[:1]))
    mapping = (export.iqn, export.tid, export.units[1], export.initiators)
    with live_session(tgtd, export):
        helper, counting = counting_helper(tgtd)
        counting.cut_at = 3  # a look, the image, the identity
        with pytest.raises(CutError):
            helper.map_unit(*mapping)
        assert "LUN 2" in "".join(later_helper(tgtd).compare(export))
        later = later_helper(tgtd)
        if verb == "map_unit":
            assert later.map_unit(*mapping) is Change.CHANGED
        else:
            assert later.export(export) is Change.CHANGED
        assert later_helper(tgtd).compare(export) == ()


@pytest.mark.parametrize("is_known", [True, False])
def test_a_mapping_whose_identity_fails_is_undone(tgtd: RunningTgtd, is_known: bool) -> None:
    """When tgtd refuses the identity, the unit is gone again."""
    export = of_units(tgtd, 2)
    one = replace(export, units=export.units[:1])
    helper, counting = counting_helper(tgtd)
    (helper if is_known else tgtd.helper).export(one)
    counting.count, counting.refuses = 0, True
    counting.cut_at = 2 if is_known else 3
    with pytest.raises(ExportFailed, match="identity"):
        helper.map_unit(export.iqn, export.tid, export.units[1], export.initiators)
    assert later_helper(tgtd).compare(one) == ()
    counting.cut_at = 0
    mapping = (export.iqn, export.tid, export.units[1], export.initiators)
    assert helper.map_unit(*mapping) is Change.CHANGED


def test_a_wrong_image_beside_a_right_one_waits_for_the_session(tgtd: RunningTgtd) -> None:
    """A unit is not replaced while its target is in use, and alone when it is not."""
    export = of_units(tgtd, 2)
    tgtd.helper.export(export)
    other = replace(export, units=(export.units[0], replace(export.units[1], path=tgtd.image("b"))))
    with live_session(tgtd, export):
        with pytest.raises(ExportFailed, match="logged in"):
            later_helper(tgtd).export(other)
        assert later_helper(tgtd).compare(export) == ()
    while tgtd.helper.exports()[0].sessions:
        assert tgtd.helper.is_alive()
    assert later_helper(tgtd).export(other) is Change.CHANGED
    assert later_helper(tgtd).compare(other) == ()


def test_who_is_not_wanted_holds_up_no_replacement(tgtd: RunningTgtd) -> None:
    """A session of an initiator that goes anyway ends first; then the image can be replaced."""
    export = of_units(tgtd, 1)
    tgtd.helper.export(export)
    other = replace(
        export,
        units=(replace(export.units[0], path=tgtd.image("b")),),
        admissions=(Admission(OTHER_INITIATOR, CHAP),),
    )
    with QemuSession(tgtd.folder, tgtd.portals[0], export.iqn, INITIATOR, CHAP.initiator):
        assert later_helper(tgtd).export(other) is Change.CHANGED
        assert later_helper(tgtd).compare(other) == ()
        assert [one.sessions for one in tgtd.helper.exports()] == [0]


# -- under load ----------------------------------------------------------------------------


def test_unmapping_under_load_neither_hangs_nor_disturbs(tgtd: RunningTgtd) -> None:
    """With many writes in flight to a LUN it goes, and the session of another LUN goes on."""
    export = replace(
        tgtd.export(chap=None), units=(unit(tgtd, 1), unit(tgtd, 2, size_bytes=256 * MIB))
    )
    tgtd.helper.export(export)
    options = (
        f"driver=raw,file.driver=iscsi,file.transport=tcp,file.portal={tgtd.portals[0]},"
        f"file.target={export.iqn},file.lun=2,file.initiator-name={INITIATOR}"
    )
    argv = ["qemu-img", "bench", "-w", "-t", "none", "-c", "1000000", "-d", "64", "-s", "65536"]
    with (
        QemuSession(tgtd.folder, tgtd.portals[0], export.iqn, INITIATOR) as session,
        subprocess.Popen(
            [*argv, "--image-opts", options], stdout=subprocess.DEVNULL, stderr=subprocess.DEVNULL
        ) as load,
    ):
        try:
            while export.units[1].path.stat().st_blocks * 512 < 32 * MIB:
                assert load.poll() is None
            assert tgtd.helper.unmap_unit(export.iqn, export.tid, 2) is Change.CHANGED
            assert load.wait(20) != 0
        finally:
            load.kill()
        assert "wrote 4096/4096" in session.run("write 0 4k")
    left = replace(export, units=export.units[:1])
    assert tgtd.helper.compare(left) == ()


# -- sizes ---------------------------------------------------------------------------------


def grow(export: Export, size_bytes: int) -> None:
    """Make the first image longer."""
    with export.units[0].path.open("ab") as file:
        file.truncate(size_bytes)


def test_growing_is_refused_under_a_session_and_done_without(tgtd: RunningTgtd) -> None:
    """The refusal says why; afterwards one request does it, and the identity stays."""
    export = of_units(tgtd, 2)
    tgtd.helper.export(export)
    grow(export, 64 * MIB)
    growth = (export.iqn, export.tid, 1, 64 * MIB)
    with (
        live_session(tgtd, export),
        pytest.raises(InvalidState, match="only to those that log in afterwards"),
    ):
        tgtd.helper.resize(*growth)
    while tgtd.helper.exports()[0].sessions:
        assert tgtd.helper.is_alive()
    assert tgtd.helper.resize(*growth) is Change.CHANGED
    with live_session(tgtd, export) as session:
        assert session.run("length").split()[:2] == ["64", "MiB"]
        assert tgtd.helper.resize(*growth) is Change.UNCHANGED
    assert tgtd.helper.compare(export) == ()


@pytest.mark.parametrize("refuses", [True, False])
@pytest.mark.parametrize("cut_at", range(1, 7))
def test_growing_that_breaks_off_is_made_good(
    tgtd: RunningTgtd, cut_at: int, refuses: bool
) -> None:
    """Refused or killed at any request, the next service has the target as it shall be."""
    export = of_units(tgtd, 1)
    tgtd.helper.export(export)
    grow(export, 64 * MIB)
    helper, counting = counting_helper(tgtd)
    counting.cut_at, counting.refuses = cut_at, refuses
    with pytest.raises(ExportFailed if refuses else CutError):
        helper.resize(export.iqn, export.tid, 1, 64 * MIB)
    later = later_helper(tgtd)
    later.export(export)
    later.resize(export.iqn, export.tid, 1, 64 * MIB)
    assert later.compare(export) == ()
    with live_session(tgtd, export) as session:
        assert session.run("length").split()[:2] == ["64", "MiB"]


# -- what differs --------------------------------------------------------------------------


@pytest.mark.parametrize("damage", DAMAGES)
def test_every_damage_is_told_and_gone_after_an_export(tgtd: RunningTgtd, damage: str) -> None:
    """Each kind of half-made target is said in words, which hold no secret."""
    export = tgtd.export()
    tgtd.helper.export(export)
    DAMAGES[damage](requests_of(tgtd), export)
    said = later_helper(tgtd).compare(export)
    assert said
    assert CHAP.initiator.password.reveal() not in " ".join(said)
    assert later_helper(tgtd).export(export) is Change.CHANGED
    assert later_helper(tgtd).compare(export) == ()


def test_a_later_service_allows_with_other_credentials(tgtd: RunningTgtd) -> None:
    """Without memory it tells the same credentials from others, and swaps those of one host."""
    export = tgtd.export()
    tgtd.helper.export(export)
    same = Admission(INITIATOR, CHAP)
    assert later_helper(tgtd).allow(export.iqn, export.tid, same) is Change.UNCHANGED
    open_one = Admission(INITIATOR, None)
    assert later_helper(tgtd).allow(export.iqn, export.tid, open_one) is Change.CHANGED
    assert parse_accounts(requests_of(tgtd).show_accounts().text) == ()
    assert later_helper(tgtd).allow(export.iqn, export.tid, same) is Change.CHANGED
    assert later_helper(tgtd).compare(export) == ()
    assert later_helper(tgtd).disallow(export.iqn, export.tid, INITIATOR) is Change.CHANGED
    assert parse_accounts(requests_of(tgtd).show_accounts().text) == ()
