"""A static backend's driver on units that a real tgtd, administered by somebody else, offers."""

from __future__ import annotations

from dataclasses import dataclass, replace
from pathlib import Path

import pytest

from lunport.core.change import Change
from lunport.core.errors import (
    AlreadyExists,
    BackendError,
    ImageMissing,
    InvalidInput,
    Unavailable,
)
from lunport.core.identity import derive_identity
from lunport.core.size import GIB
from lunport.core.target_path import TargetPath
from lunport.core.wwid import Wwid
from lunport.drivers.static import StaticDriver, StaticSettings, Wipe
from lunport.drivers.static_units import StaticUnit
from lunport.targets.naming import target_name
from tests.daemons.conftest import CHAP, INITIATOR, RunningTgtd

pytestmark = pytest.mark.needs("tgtd", "qemu-img")

ONE = "volume-0f0e0d0c-0b0a-4908-8706-050403020101"
TWO = "volume-0f0e0d0c-0b0a-4908-8706-050403020102"
NAMES = ("a1", "a2")


@dataclass(frozen=True, slots=True)
class Nas:
    """Two units of 1 GiB on storage of somebody else's, and the files behind them."""

    tgtd: RunningTgtd
    units: tuple[StaticUnit, ...]
    files: tuple[Path, ...]

    def driver(
        self,
        *units: StaticUnit,
        wipe: Wipe = "zero",
        is_discovered: bool = False,
        stops: bool = False,
    ) -> StaticDriver:
        """Make a driver over these units, or all; its records are the same each time."""
        settings = StaticSettings(
            self.tgtd.folder / "records", units or self.units, INITIATOR, wipe, is_discovered
        )
        made = StaticDriver(settings, stop=lambda: stops)
        made.check()
        return made


@pytest.fixture
def nas(tgtd: RunningTgtd) -> Nas:
    """Targets that were there before us."""
    units, files = [], []
    for number, name in enumerate(NAMES, 1):
        export = tgtd.export(name, tid=number, size_bytes=GIB, chap=CHAP if number == 1 else None)
        tgtd.helper.export(export)
        paths = tuple(TargetPath(portal, target_name(name), 1) for portal in tgtd.portals)
        wwid = Wwid(derive_identity(name).wwid)
        units.append(StaticUnit(paths, 1, wwid, CHAP if number == 1 else None))
        files.append(export.units[0].path)
    return Nas(tgtd, tuple(units), tuple(files))


def test_a_volume_gets_a_unit_of_its_size_and_hosts_are_told_how_to_reach_it(nas: Nas) -> None:
    """All paths in the declared order, the identity that was seen, and the unit's credentials."""
    driver = nas.driver()
    assert driver.create(ONE, GIB) is Change.CHANGED
    assert driver.create(ONE, GIB) is Change.UNCHANGED
    image = driver.locate(ONE)
    assert image.offer is not None
    assert (image.size_bytes, image.offer.paths) == (GIB, nas.units[0].paths)
    assert (image.offer.wwid, image.offer.chap) == (nas.units[0].wwid, CHAP)
    assert driver.images() == {ONE}
    assert (driver.capacity().total_bytes, driver.capacity().free_bytes) == (2 * GIB, GIB)
    with pytest.raises(AlreadyExists):
        driver.create(ONE, 2 * GIB)


def test_no_unit_is_given_to_two_volumes_nor_after_a_restart(nas: Nas) -> None:
    """Who has what survives; when all are given away the error says what is free."""
    nas.driver().create(ONE, GIB)
    driver = nas.driver()
    driver.create(TWO, GIB)
    first, second = driver.locate(ONE).offer, driver.locate(TWO).offer
    assert first is not None
    assert second is not None
    assert first.wwid != second.wwid
    with pytest.raises(BackendError, match="No unit of 1 GiB is free"):
        driver.create(ONE[:-1] + "3", GIB)
    with pytest.raises(BackendError, match="No unit of 7 GiB is free"):
        driver.create(ONE[:-1] + "3", 7 * GIB)


def test_one_portal_is_told_where_hosts_shall_discover_the_others(nas: Nas) -> None:
    """What a backend answers that knows nothing of several portals."""
    driver = nas.driver(is_discovered=True)
    driver.create(ONE, GIB)
    offer = driver.locate(ONE).offer
    assert offer is not None
    assert offer.paths == nas.units[0].paths[:1]


def test_a_unit_with_another_identity_is_given_to_nobody(nas: Nas) -> None:
    """An array that was renumbered: the next unit of the size is taken, or none."""
    wrong = replace(nas.units[0], wwid=Wwid("naa.6001405000000000000000000000dead"))
    driver = nas.driver(wrong, nas.units[1])
    driver.create(ONE, GIB)
    offer = driver.locate(ONE).offer
    assert offer is not None
    assert offer.wwid == nas.units[1].wwid
    with pytest.raises(BackendError, match="0000dead"):
        driver.create(TWO, GIB)
    assert driver.images() == {ONE}


def test_an_identity_that_was_not_declared_is_the_one_that_was_seen(nas: Nas) -> None:
    """Hosts verify it all the same."""
    driver = nas.driver(replace(nas.units[0], wwid=None))
    driver.create(ONE, GIB)
    offer = driver.locate(ONE).offer
    assert offer is not None
    assert offer.wwid == nas.units[0].wwid


def test_a_unit_that_is_smaller_than_declared_is_given_to_nobody(nas: Nas) -> None:
    """A host would find another size than the volume's."""
    driver = nas.driver(replace(nas.units[0], size_gib=5))
    with pytest.raises(BackendError, match="declared with 5"):
        driver.create(ONE, 5 * GIB)


def test_a_dead_main_portal_does_not_keep_a_unit_from_being_used(nas: Nas) -> None:
    """The look goes on to the next path, as hosts will."""
    unit = nas.units[0]
    dead = replace(unit.paths[0], portal=replace(unit.paths[0].portal, port=1))
    driver = nas.driver(replace(unit, paths=(dead, *unit.paths[1:])))
    assert driver.create(ONE, GIB) is Change.CHANGED


def test_a_unit_comes_back_wiped(nas: Nas) -> None:
    """What the last volume held is not there for the next one, to the last byte."""
    driver = nas.driver(nas.units[0])
    driver.create(ONE, GIB)
    with nas.files[0].open("r+b") as file:
        file.write(b"secret of the last volume")
        file.seek(GIB - 4096)
        file.write(b"and its end")
    assert driver.delete(ONE) is Change.CHANGED
    assert driver.delete(ONE) is Change.UNCHANGED
    assert driver.images() == frozenset()
    with nas.files[0].open("rb") as file:
        assert not any(file.read(4096))
        file.seek(GIB - 4096)
        assert not any(file.read(4096))
    assert driver.create(TWO, GIB) is Change.CHANGED


def test_by_another_policy_a_unit_comes_back_as_it_is(nas: Nas) -> None:
    """Where the storage wipes by itself, or the next owner is the same."""
    driver = nas.driver(nas.units[0], wipe="none")
    driver.create(ONE, GIB)
    with nas.files[0].open("r+b") as file:
        file.write(b"kept")
    assert driver.delete(ONE) is Change.CHANGED
    assert nas.files[0].read_bytes()[:4] == b"kept"


def test_a_unit_whose_wipe_failed_is_given_to_nobody_until_it_succeeds(nas: Nas) -> None:
    """The target is away, or the service stops: the unit stays out, and the delete is repeated."""
    driver = nas.driver(nas.units[0])
    driver.create(ONE, GIB)
    with pytest.raises(Unavailable):
        nas.driver(nas.units[0], stops=True).delete(ONE)
    nas.tgtd.helper.unexport(target_name(NAMES[0]), 1)
    with pytest.raises(BackendError, match="given to nobody"):
        driver.delete(ONE)
    with pytest.raises(ImageMissing):
        driver.locate(ONE)
    with pytest.raises(BackendError, match="No unit of 1 GiB is free"):
        driver.create(TWO, GIB)
    nas.tgtd.helper.export(nas.tgtd.export(NAMES[0], tid=1, size_bytes=GIB))
    assert driver.delete(ONE) is Change.CHANGED
    assert driver.create(TWO, GIB) is Change.CHANGED


def test_what_it_cannot_do_is_refused_and_changes_nothing(nas: Nas) -> None:
    """No copies, no growth, no odd sizes; and a unit in use must stay declared."""
    driver = nas.driver()
    driver.create(ONE, GIB)
    for refused in (
        lambda: driver.clone(TWO, ONE, GIB),
        lambda: driver.snapshot("snapshot-1", ONE),
        lambda: driver.extend(ONE, 2 * GIB),
        lambda: driver.revert(ONE, "snapshot-1"),
        lambda: nas.driver(nas.units[1]),
    ):
        with pytest.raises(BackendError):
            refused()
    with pytest.raises(InvalidInput):
        driver.create(TWO, GIB + 512)
    assert driver.extend(ONE, GIB) is Change.UNCHANGED
    assert driver.images() == {ONE}
