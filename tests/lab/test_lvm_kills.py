"""A kill at every step of every verb of the LVM driver leaves nothing half-made.

After each kill and the sweep of a start, every image there is whole and nothing hidden is left;
the same verb then ends as if nothing had been.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator

import pytest

from lab.lvm import lvm, remove_volumes, volume_group
from lunport.drivers.lvm import LvmDriver
from tests.lab.lvm_play import MIB, ONE, SNAPSHOT, TWO, killed_at, lvm_driver, read, write

pytestmark = pytest.mark.timeout(900)  # a kill is some ten programs of LVM's

SIZE = 2 * MIB
MAX_STEPS = 30

Verb = Callable[[LvmDriver], object]


@pytest.fixture(scope="module", params=["thin", pytest.param("thick", marks=pytest.mark.again)])
def driver(request: pytest.FixtureRequest, lab_host: object) -> Iterator[LvmDriver]:
    """A driver of each kind."""
    with volume_group(f"kill-{request.param}", 64, by_udev=False):
        made = lvm_driver(f"kill-{request.param}", request.param)
        made.create(ONE, MIB)
        made.delete(ONE)
        yield made


def _empty(driver: LvmDriver) -> None:
    remove_volumes(driver.settings.volume_group, keep=driver.settings.pool_name)


def _hidden(driver: LvmDriver) -> list[str]:
    names = lvm("lvs", "--noheadings", "-o", "lv_name", driver.settings.volume_group).split()
    return [name for name in names if "." in name]


def _kill_everywhere(
    driver: LvmDriver,
    prepare: Verb,
    verb: Verb,
    after_kill: Verb,
    after_all: Verb,
) -> None:
    """Kill a verb at its first step, its second and so on, until it ends before."""
    steps = []
    for step in range(MAX_STEPS):
        prepare(driver)
        said = killed_at(lambda: verb(driver), step)
        if said is not None:
            steps.append(said)
            driver.sweep(())
            assert _hidden(driver) == [], said
            after_kill(driver)
            verb(driver)
        after_all(driver)
        assert _hidden(driver) == [], said
        _empty(driver)
        if said is None:
            assert steps, "nothing was killed"
            return
    raise AssertionError(f"more than {MAX_STEPS} steps: {steps}")


def _make_source(driver: LvmDriver) -> None:
    driver.create(ONE, SIZE)
    write(driver, ONE, MIB, b"then")


def _make_with_snapshot(driver: LvmDriver) -> None:
    _make_source(driver)
    driver.snapshot(SNAPSHOT, ONE)
    write(driver, ONE, MIB, b"now!")


@pytest.mark.again
def test_create(driver: LvmDriver) -> None:
    """An image is there, long enough and empty, or it is not."""

    def is_whole(one: LvmDriver) -> None:
        assert one.images() <= {ONE}
        if one.images():
            assert one.locate(ONE).size_bytes == SIZE

    def is_made(one: LvmDriver) -> None:
        assert one.images() == {ONE}
        assert read(one, ONE, 0, SIZE) == bytes(SIZE)

    _kill_everywhere(driver, lambda _: None, lambda one: one.create(ONE, SIZE), is_whole, is_made)


@pytest.mark.again
def test_clone(driver: LvmDriver) -> None:
    """A clone has every byte or does not exist; its source is as it was."""

    def is_whole(one: LvmDriver) -> None:
        assert ONE in one.images()
        if TWO in one.images():
            is_made(one)

    def is_made(one: LvmDriver) -> None:
        assert one.images() == {ONE, TWO}
        assert one.locate(TWO).size_bytes == 2 * SIZE
        assert read(one, TWO, MIB, 4) == read(one, ONE, MIB, 4) == b"then"
        assert read(one, TWO, SIZE, SIZE) == bytes(SIZE)

    _kill_everywhere(
        driver, _make_source, lambda one: one.clone(TWO, ONE, 2 * SIZE), is_whole, is_made
    )


@pytest.mark.again
def test_snapshot(driver: LvmDriver) -> None:
    """A snapshot shows the moment at which it was taken, or does not exist."""

    def is_whole(one: LvmDriver) -> None:
        if SNAPSHOT in one.images():
            is_made(one)

    def is_made(one: LvmDriver) -> None:
        assert one.images() == {ONE, SNAPSHOT}
        assert read(one, SNAPSHOT, MIB, 4) == b"then"

    _kill_everywhere(
        driver, _make_source, lambda one: one.snapshot(SNAPSHOT, ONE), is_whole, is_made
    )


@pytest.mark.again
def test_extend(driver: LvmDriver) -> None:
    """An image has the old size or the new one, with snapshots too."""

    def is_whole(one: LvmDriver) -> None:
        assert one.locate(ONE).size_bytes in {SIZE, 2 * SIZE}
        assert read(one, ONE, MIB, 4) == b"now!"

    def is_made(one: LvmDriver) -> None:
        assert one.locate(ONE).size_bytes == 2 * SIZE
        assert one.locate(SNAPSHOT).size_bytes == SIZE
        assert read(one, ONE, SIZE, SIZE) == bytes(SIZE)
        assert read(one, SNAPSHOT, MIB, 4) == b"then"

    _kill_everywhere(
        driver, _make_with_snapshot, lambda one: one.extend(ONE, 2 * SIZE), is_whole, is_made
    )


@pytest.mark.again
def test_revert(driver: LvmDriver) -> None:
    """The image is there after every kill, and has the snapshot's bytes in the end."""

    def is_whole(one: LvmDriver) -> None:
        assert one.images() == {ONE, SNAPSHOT}
        assert read(one, ONE, MIB, 4) in {b"then", b"now!"}
        assert read(one, SNAPSHOT, MIB, 4) == b"then"

    def is_made(one: LvmDriver) -> None:
        assert one.images() == {ONE, SNAPSHOT}
        assert read(one, ONE, MIB, 4) == read(one, SNAPSHOT, MIB, 4) == b"then"

    _kill_everywhere(
        driver, _make_with_snapshot, lambda one: one.revert(ONE, SNAPSHOT), is_whole, is_made
    )


def test_delete(driver: LvmDriver) -> None:
    """A snapshot and its volume go, each at once; nothing of their bytes is left to others."""

    def delete(one: LvmDriver) -> None:
        one.delete(SNAPSHOT)
        one.delete(ONE)

    def is_whole(one: LvmDriver) -> None:
        if SNAPSHOT in one.images():
            assert read(one, SNAPSHOT, MIB, 4) == b"then"
        if ONE in one.images():
            assert read(one, ONE, MIB, 4) == b"now!"

    def is_gone(one: LvmDriver) -> None:
        assert one.images() == frozenset()
        room = one.capacity().free_bytes // (8 * MIB) * (8 * MIB)
        one.create(TWO, room)
        with one.locate(TWO).path.open("rb") as file:
            for offset in range(0, room, MIB):
                assert file.read(MIB) == bytes(MIB), offset

    _kill_everywhere(driver, _make_with_snapshot, delete, is_whole, is_gone)
