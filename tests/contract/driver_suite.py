"""What every storage driver keeps: the tests, for a driver that a ``bench`` brings.

A test file makes it its own by a ``bench`` fixture and a subclass whose name begins with
``Test``: ``test_driver_contract.py`` for the fake and for files, one of the lab for LVM.
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass

import pytest

from lunport.core.change import Change
from lunport.core.errors import AlreadyExists, ImageMissing, InvalidInput, OutOfSpace
from lunport.drivers.driver import StorageDriver

MIB = 1 << 20
RATIO = 2.0
ONE = "volume-0f0e0d0c-0b0a-4908-8706-050403020100"
TWO = "volume-0f0e0d0c-0b0a-4908-8706-050403020101"
SNAPSHOT = "snapshot-0f0e0d0c-0b0a-4908-8706-050403020102"


@dataclass(frozen=True, slots=True)
class Bench:
    """A driver, and how to write and read the bytes of its images.

    ``ratio``: how much it promises of what there is; sizes are multiples of ``grain_bytes``.
    """

    driver: StorageDriver
    write: Callable[[str, int, bytes], None]
    read: Callable[[str, int, int], bytes]
    ratio: float = RATIO
    grain_bytes: int = 512


def bench_of(driver: StorageDriver, ratio: float = RATIO, grain_bytes: int = 512) -> Bench:
    """Write and read where the driver says that an image is."""

    def write(image: str, offset: int, content: bytes) -> None:
        with driver.locate(image).path.open("r+b") as file:
            file.seek(offset)
            file.write(content)

    def read(image: str, offset: int, length: int) -> bytes:
        with driver.locate(image).path.open("rb") as file:
            file.seek(offset)
            return file.read(length)

    return Bench(driver, write, read, ratio, grain_bytes)


class DriverContract:
    """What a driver promises, whatever is behind it."""

    def test_a_new_image_reads_as_zeros_and_is_found(self, bench: Bench) -> None:
        """An image is there after its creation, as long as asked, and full of zeros."""
        assert bench.driver.create(ONE, 3 * MIB) is Change.CHANGED
        assert bench.driver.images() == {ONE}
        assert bench.driver.locate(ONE).size_bytes == 3 * MIB
        assert bench.read(ONE, 2 * MIB, 4096) == bytes(4096)

    def test_creating_twice_changes_nothing(self, bench: Bench) -> None:
        """A repeated creation says so and leaves the bytes alone."""
        bench.driver.create(ONE, MIB)
        bench.write(ONE, 0, b"kept")
        assert bench.driver.create(ONE, MIB) is Change.UNCHANGED
        assert bench.read(ONE, 0, 4) == b"kept"

    def test_creating_with_another_size_is_refused(self, bench: Bench) -> None:
        """An image that is there with another size is not taken for the one wanted."""
        bench.driver.create(ONE, MIB)
        with pytest.raises(AlreadyExists):
            bench.driver.create(ONE, 2 * MIB)
        assert bench.driver.locate(ONE).size_bytes == MIB

    @pytest.mark.parametrize("size_bytes", [0, -512, 513])
    def test_a_size_that_is_no_size_is_refused(self, bench: Bench, size_bytes: int) -> None:
        """Only whole positive sectors can be created."""
        with pytest.raises(InvalidInput):
            bench.driver.create(ONE, size_bytes)
        assert bench.driver.images() == frozenset()

    @pytest.mark.parametrize("name", ["volume-../etc", "../volume-1", "other-1", "volume-a/b", ""])
    def test_a_name_that_leads_elsewhere_is_refused(self, bench: Bench, name: str) -> None:
        """Image names are the two known forms; nothing is made, found or deleted by others."""
        for verb in (bench.driver.locate, bench.driver.delete):
            with pytest.raises(InvalidInput):
                verb(name)
        with pytest.raises(InvalidInput):
            bench.driver.create(name, MIB)

    def test_a_clone_has_the_bytes_and_zeros_behind_them(self, bench: Bench) -> None:
        """A larger clone shows the source's bytes, and zeros where the source ends."""
        bench.driver.create(ONE, 2 * MIB)
        bench.write(ONE, MIB + 5, b"somewhere in the middle")
        assert bench.driver.clone(TWO, ONE, 4 * MIB) is Change.CHANGED
        assert bench.driver.locate(TWO).size_bytes == 4 * MIB
        assert bench.read(TWO, MIB + 5, 23) == b"somewhere in the middle"
        assert bench.read(TWO, 3 * MIB, 512) == bytes(512)

    def test_a_clone_lives_on_its_own(self, bench: Bench) -> None:
        """Neither writing to nor deleting one of the two touches the other."""
        bench.driver.create(ONE, MIB)
        bench.write(ONE, 0, b"before")
        bench.driver.clone(TWO, ONE, MIB)
        bench.write(ONE, 0, b"after!")
        assert bench.read(TWO, 0, 6) == b"before"
        bench.driver.delete(ONE)
        assert bench.read(TWO, 0, 6) == b"before"

    def test_cloning_twice_changes_nothing(self, bench: Bench) -> None:
        """A repeated clone keeps what has been written since."""
        bench.driver.create(ONE, MIB)
        bench.driver.clone(TWO, ONE, MIB)
        bench.write(TWO, 0, b"since")
        assert bench.driver.clone(TWO, ONE, MIB) is Change.UNCHANGED
        assert bench.read(TWO, 0, 5) == b"since"

    def test_a_clone_needs_its_source(self, bench: Bench) -> None:
        """A source that is not there is named, and no image appears."""
        with pytest.raises(ImageMissing, match=ONE):
            bench.driver.clone(TWO, ONE, MIB)
        assert bench.driver.images() == frozenset()

    def test_a_clone_is_never_shorter_than_its_source(self, bench: Bench) -> None:
        """Bytes are not cut off."""
        bench.driver.create(ONE, 2 * MIB)
        with pytest.raises(InvalidInput):
            bench.driver.clone(TWO, ONE, MIB)
        assert bench.driver.images() == {ONE}

    def test_a_snapshot_stays_as_it_was(self, bench: Bench) -> None:
        """Later writes to the source do not show in a snapshot, and a volume is made from it."""
        bench.driver.create(ONE, MIB)
        bench.write(ONE, 0, b"then")
        assert bench.driver.snapshot(SNAPSHOT, ONE) is Change.CHANGED
        assert bench.driver.snapshot(SNAPSHOT, ONE) is Change.UNCHANGED
        bench.write(ONE, 0, b"now!")
        bench.driver.clone(TWO, SNAPSHOT, MIB)
        assert bench.read(TWO, 0, 4) == b"then"
        bench.write(TWO, 0, b"mine")
        assert bench.read(SNAPSHOT, 0, 4) == b"then"

    def test_extending_keeps_the_bytes_and_adds_zeros(self, bench: Bench) -> None:
        """A grown image has its old bytes in front; growing to the same size changes nothing."""
        bench.driver.create(ONE, MIB)
        bench.write(ONE, MIB - 4, b"tail")
        assert bench.driver.extend(ONE, 2 * MIB) is Change.CHANGED
        assert bench.driver.extend(ONE, 2 * MIB) is Change.UNCHANGED
        assert bench.read(ONE, MIB - 4, 8) == b"tail" + bytes(4)
        assert bench.driver.locate(ONE).size_bytes == 2 * MIB

    def test_an_image_never_shrinks(self, bench: Bench) -> None:
        """A smaller size is refused and the image stays."""
        bench.driver.create(ONE, 2 * MIB)
        with pytest.raises(InvalidInput):
            bench.driver.extend(ONE, MIB)
        assert bench.driver.locate(ONE).size_bytes == 2 * MIB

    def test_what_is_not_there_cannot_be_extended_or_snapshot(self, bench: Bench) -> None:
        """Both name the missing image."""
        with pytest.raises(ImageMissing):
            bench.driver.extend(ONE, MIB)
        with pytest.raises(ImageMissing):
            bench.driver.snapshot(SNAPSHOT, ONE)

    def test_deleting_leaves_nothing_and_may_be_repeated(self, bench: Bench) -> None:
        """After a deletion the image is gone, and deleting it again changes nothing."""
        bench.driver.create(ONE, MIB)
        assert bench.driver.delete(ONE) is Change.CHANGED
        assert bench.driver.delete(ONE) is Change.UNCHANGED
        assert bench.driver.images() == frozenset()
        with pytest.raises(ImageMissing):
            bench.driver.locate(ONE)

    def test_more_than_can_be_promised_is_refused(self, bench: Bench) -> None:
        """A size beyond what may be promised is refused with the numbers, and nothing stays."""
        capacity = bench.driver.capacity()
        assert 0 < capacity.free_bytes <= capacity.total_bytes
        wanted = capacity.total_bytes // 512 * 512 * 3
        with pytest.raises(OutOfSpace) as caught:
            bench.driver.create(ONE, wanted)
        assert caught.value.needed_bytes == wanted
        assert caught.value.free_bytes < wanted
        assert bench.driver.images() == frozenset()

    def test_what_was_deleted_can_be_promised_again(self, bench: Bench) -> None:
        """Promised space comes back with a deletion, and extending counts as well."""
        total = bench.driver.capacity().total_bytes
        more_than_half = int(total * bench.ratio) * 5 // 8 // bench.grain_bytes * bench.grain_bytes
        bench.driver.create(ONE, more_than_half)
        with pytest.raises(OutOfSpace):
            bench.driver.create(TWO, more_than_half)
        with pytest.raises(OutOfSpace):
            bench.driver.extend(ONE, 2 * more_than_half)
        assert bench.driver.locate(ONE).size_bytes == more_than_half
        bench.driver.delete(ONE)
        assert bench.driver.create(TWO, more_than_half) is Change.CHANGED

    def test_what_is_provisioned_is_counted(self, bench: Bench) -> None:
        """A driver that counts what it promised counts every image."""
        before = bench.driver.capacity().provisioned_bytes
        bench.driver.create(ONE, 2 * MIB)
        bench.driver.create(TWO, MIB)
        after = bench.driver.capacity().provisioned_bytes
        assert (before, after) == (None, None) or (after or 0) - (before or 0) == 3 * MIB

    def test_reverting_brings_the_bytes_of_the_snapshot_back(self, bench: Bench) -> None:
        """What was written since a snapshot is gone, the snapshot stays; again and again."""
        bench.driver.create(ONE, 2 * MIB)
        bench.write(ONE, MIB + 7, b"then")
        bench.driver.snapshot(SNAPSHOT, ONE)
        for _ in range(2):
            bench.write(ONE, MIB + 7, b"now!")
            bench.write(ONE, 0, b"more")
            assert bench.driver.revert(ONE, SNAPSHOT) is Change.CHANGED
            assert bench.read(ONE, MIB + 7, 4) == b"then"
            assert bench.read(ONE, 0, 4) == bytes(4)
        assert bench.read(SNAPSHOT, MIB + 7, 4) == b"then"
        bench.driver.revert(ONE, SNAPSHOT)
        assert bench.read(ONE, MIB + 7, 4) == b"then"
        assert bench.driver.images() == {ONE, SNAPSHOT}

    def test_reverting_needs_a_snapshot_of_the_same_size(self, bench: Bench) -> None:
        """Neither a grown image nor one without the snapshot is touched."""
        bench.driver.create(ONE, MIB)
        with pytest.raises(ImageMissing, match=SNAPSHOT):
            bench.driver.revert(ONE, SNAPSHOT)
        bench.driver.snapshot(SNAPSHOT, ONE)
        bench.driver.extend(ONE, 2 * MIB)
        bench.write(ONE, 0, b"kept")
        with pytest.raises(InvalidInput):
            bench.driver.revert(ONE, SNAPSHOT)
        assert bench.read(ONE, 0, 4) == b"kept"
        assert bench.driver.locate(ONE).size_bytes == 2 * MIB

    def test_a_snapshot_keeps_its_size(self, bench: Bench) -> None:
        """Its source may grow: the snapshot is as long as it was, and so is a clone of it."""
        bench.driver.create(ONE, MIB)
        bench.write(ONE, MIB - 4, b"tail")
        bench.driver.snapshot(SNAPSHOT, ONE)
        bench.driver.extend(ONE, 3 * MIB)
        assert bench.driver.locate(SNAPSHOT).size_bytes == MIB
        bench.driver.clone(TWO, SNAPSHOT, MIB)
        assert bench.driver.locate(TWO).size_bytes == MIB
        assert bench.read(TWO, MIB - 4, 4) == b"tail"

    def test_sweeping_keeps_whole_images(self, bench: Bench) -> None:
        """A sweep takes no image away, known to the caller or not."""
        bench.driver.create(ONE, MIB)
        bench.driver.snapshot(SNAPSHOT, ONE)
        assert bench.driver.sweep([ONE]) == ()
        assert bench.driver.images() == {ONE, SNAPSHOT}
