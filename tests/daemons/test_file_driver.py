"""The file driver where the kernel says no, and where it is killed or stopped."""

from __future__ import annotations

import os
import stat
import subprocess
import sys
import tempfile
import threading
from collections.abc import Iterator
from pathlib import Path

import pytest

from lunport.core.change import Change
from lunport.core.errors import InvalidConfig, OutOfSpace, Unavailable
from lunport.drivers.file import FileDriver
from lunport.host.clock import Deadline
from lunport.host.runner import run
from lunport.host.sparse_file import CHUNK_BYTES

MIB = 1 << 20
ONE = "volume-0f0e0d0c-0b0a-4908-8706-050403020100"
TWO = "volume-0f0e0d0c-0b0a-4908-8706-050403020101"
SNAPSHOT = "snapshot-0f0e0d0c-0b0a-4908-8706-050403020102"


@pytest.fixture
def tiny(tmp_path: Path) -> Iterator[Path]:
    """A file system of 8 MiB."""
    folder = tmp_path / "tiny"
    folder.mkdir()
    run(["mount", "-t", "tmpfs", "-o", "size=8m", "tmpfs", folder], Deadline.after(10))
    yield folder
    run(["umount", folder], Deadline.after(10))


@pytest.fixture
def memory() -> Iterator[Path]:
    """A folder in memory, whose file system has no reflinks: every clone is a copy."""
    with tempfile.TemporaryDirectory(prefix="lunport-test-", dir="/dev/shm") as folder:
        yield Path(folder)


@pytest.fixture(
    params=[
        pytest.param("xfs", marks=pytest.mark.needs("mkfs.xfs", "kernel:xfs", "kernel:loop")),
        pytest.param("btrfs", marks=pytest.mark.needs("mkfs.btrfs", "kernel:btrfs", "kernel:loop")),
    ]
)
def sharing(request: pytest.FixtureRequest, tmp_path: Path) -> Iterator[Path]:
    """A file system with reflinks, in a file."""
    disk, folder = tmp_path / "disk", tmp_path / "sharing"
    folder.mkdir()
    with disk.open("wb") as file:
        file.truncate(400 * MIB)
    run([f"mkfs.{request.param}", "-q", disk], Deadline.after(60))
    run(["mount", "-o", "loop", disk, folder], Deadline.after(20))
    yield folder
    run(["umount", folder], Deadline.after(20))


def fill(driver: FileDriver, image: str, size_bytes: int, offset: int = 0) -> None:
    """Write bytes that are not zero."""
    with driver.locate(image).path.open("r+b") as file:
        file.seek(offset)
        file.write(b"\xa5" * size_bytes)
        file.flush()
        os.fsync(file.fileno())


def names(folder: Path) -> list[str]:
    """List everything in a folder, hidden files as well."""
    return sorted(path.name for path in folder.iterdir())


@pytest.mark.needs("root", "mount")
def test_a_clone_that_does_not_fit_is_out_of_space(tiny: Path) -> None:
    """A clone of more bytes than are free is refused with the numbers, and nothing is left."""
    driver = FileDriver(tiny / "images", reserve_bytes=MIB)
    driver.check()
    driver.create(ONE, 16 * MIB)
    fill(driver, ONE, 5 * MIB)
    with pytest.raises(OutOfSpace) as caught:
        driver.clone(TWO, ONE, 16 * MIB)
    assert caught.value.free_bytes < caught.value.needed_bytes
    assert names(tiny / "images") == [ONE]


@pytest.mark.needs("root", "mount")
def test_a_disk_that_fills_during_the_copy_is_out_of_space(tiny: Path) -> None:
    """When others take the space meanwhile, the copy ends, and its partial file is gone."""
    greedy = tiny / "greedy"
    asked: list[int] = []

    def stop() -> bool:
        asked.append(1)
        if len(asked) == 1:
            free = os.statvfs(tiny)
            greedy.write_bytes(b"\xa5" * (free.f_bavail * free.f_frsize - MIB))
        return False

    driver = FileDriver(tiny / "images", reserve_bytes=0, stop=stop)
    driver.check()
    driver.create(ONE, 4 * MIB)
    fill(driver, ONE, 3 * MIB)
    with pytest.raises(OutOfSpace):
        driver.clone(TWO, ONE, 4 * MIB)
    assert names(tiny / "images") == [ONE]
    greedy.unlink()
    assert driver.clone(TWO, ONE, 4 * MIB) is Change.CHANGED


@pytest.mark.needs("root", "mount")
def test_nothing_is_begun_on_a_full_disk(tiny: Path) -> None:
    """Below the reserve not even a sparse image is made."""
    driver = FileDriver(tiny / "images", reserve_bytes=2 * MIB)
    driver.check()
    driver.create(ONE, 8 * MIB)
    fill(driver, ONE, 7 * MIB)
    with pytest.raises(OutOfSpace, match="free some"):
        driver.create(TWO, MIB)
    assert driver.images() == {ONE}


@pytest.mark.needs("root", "mount")
def test_a_service_starts_on_a_full_disk(tiny: Path) -> None:
    """A disk without a free byte is no wrong configuration: what is there can be deleted."""
    driver = FileDriver(tiny / "images", reserve_bytes=0)
    driver.check()
    driver.create(ONE, 16 * MIB)
    with pytest.raises(OSError, match="space"):
        fill(driver, ONE, 16 * MIB)
    later = FileDriver(tiny / "images")
    later.check()
    assert not later.copies_atomically
    with pytest.raises(OutOfSpace):
        later.create(TWO, MIB)
    assert later.delete(ONE) is Change.CHANGED
    assert names(tiny / "images") == []


def test_a_file_that_is_too_long_is_out_of_space(tmp_path: Path) -> None:
    """What the file system cannot address is out of space as well, and leaves nothing."""
    driver = FileDriver(tmp_path / "images", over_subscription_ratio=1e12)
    driver.check()
    with pytest.raises(OutOfSpace):
        driver.create(ONE, (1 << 62) + 512)
    assert names(tmp_path / "images") == []


def test_holes_stay_holes(tmp_path: Path) -> None:
    """A clone of a gibibyte with one written mebibyte takes about one mebibyte."""
    driver = FileDriver(tmp_path / "images")
    driver.check()
    driver.create(ONE, 1 << 30)
    fill(driver, ONE, MIB, offset=700 * MIB)
    driver.clone(TWO, ONE, 1 << 30)
    path = driver.locate(TWO).path
    assert path.stat().st_blocks * 512 <= 2 * MIB
    with path.open("rb") as file:
        file.seek(700 * MIB - 1)
        assert file.read(3) == b"\0\xa5\xa5"


@pytest.mark.needs("root", "mount", "mkfs.xfs", "mkfs.btrfs")
def test_a_clone_shares_its_blocks_where_it_can(sharing: Path) -> None:
    """On a file system with reflinks a clone takes no space, and no time to copy."""
    driver = FileDriver(sharing / "images", reserve_bytes=0, stop=lambda: pytest.fail("a copy"))
    driver.check()
    assert driver.copies_atomically
    driver.create(ONE, 150 * MIB)
    fill(driver, ONE, 100 * MIB)
    before = driver.capacity().free_bytes
    for number in range(5):
        driver.clone(f"volume-{number}", ONE, 200 * MIB)
    driver.snapshot(SNAPSHOT, ONE)
    assert before - driver.capacity().free_bytes < 10 * MIB
    fill(driver, ONE, MIB // 2)
    with driver.locate("volume-3").path.open("rb") as file:
        assert file.read(MIB) == b"\xa5" * MIB
        file.seek(150 * MIB)
        assert file.read(512) == bytes(512)


def test_files_are_for_their_owner_alone(tmp_path: Path) -> None:
    """The folder is 0700, volumes are 0600 and snapshots can only be read."""
    driver = FileDriver(tmp_path / "images")
    driver.check()
    driver.create(ONE, MIB)
    driver.snapshot(SNAPSHOT, ONE)
    driver.clone(TWO, SNAPSHOT, MIB)
    modes = [stat.S_IMODE(driver.locate(name).path.stat().st_mode) for name in (ONE, SNAPSHOT, TWO)]
    assert modes == [0o600, 0o400, 0o600]
    assert stat.S_IMODE((tmp_path / "images").stat().st_mode) == 0o700


def test_a_copy_stops_between_chunks(memory: Path) -> None:
    """When the service ends, a long copy ends soon and leaves nothing."""
    asked: list[int] = []

    def stop() -> bool:
        asked.append(1)
        return len(asked) == 2

    driver = FileDriver(memory / "images", stop=stop)
    driver.check()
    driver.create(ONE, 3 * CHUNK_BYTES)
    fill(driver, ONE, 3 * CHUNK_BYTES)
    with pytest.raises(Unavailable):
        driver.clone(TWO, ONE, 3 * CHUNK_BYTES)
    assert len(asked) == 2
    assert names(memory / "images") == [ONE]


_CLONER = """
import sys
from pathlib import Path
from lunport.drivers.file import FileDriver

def stop():
    print("in the copy", flush=True)
    sys.stdin.read()
    return False

FileDriver(Path(sys.argv[1]), stop=stop).clone(sys.argv[3], sys.argv[2], int(sys.argv[4]))
"""


def test_a_kill_during_a_clone_leaves_only_what_is_swept(memory: Path) -> None:
    """A killed clone leaves no image, and one partial file that the next service sweeps."""
    folder = memory / "images"
    driver = FileDriver(folder)
    driver.check()
    driver.create(ONE, 4 * MIB)
    fill(driver, ONE, 4 * MIB)
    argv = [sys.executable, "-c", _CLONER, str(folder), ONE, TWO, str(4 * MIB)]
    environment = {**os.environ, "PYTHONPATH": os.pathsep.join(sys.path)}
    with subprocess.Popen(
        argv, stdin=subprocess.PIPE, stdout=subprocess.PIPE, env=environment
    ) as child:
        assert child.stdout is not None
        assert child.stdout.readline() == b"in the copy\n"
        child.kill()
    assert driver.images() == {ONE}
    assert driver.sweep([ONE, TWO]) == (f".partial-{TWO}",)
    assert names(folder) == [ONE]
    assert driver.clone(TWO, ONE, 4 * MIB) is Change.CHANGED


def test_a_sweep_leaves_work_in_progress_alone(memory: Path) -> None:
    """A partial file that is being written now is not swept away under its writer."""
    in_copy, go_on = threading.Event(), threading.Event()

    def stop() -> bool:
        in_copy.set()
        return not go_on.wait(20)

    driver = FileDriver(memory / "images", stop=stop)
    driver.check()
    driver.create(ONE, MIB)
    fill(driver, ONE, MIB)
    cloner = threading.Thread(target=driver.clone, args=(TWO, ONE, MIB))
    cloner.start()
    try:
        assert in_copy.wait(20)
        assert driver.sweep([ONE]) == ()
    finally:
        go_on.set()
        cloner.join()
    assert driver.images() == {ONE, TWO}


def test_a_folder_that_cannot_be_used_is_said_at_the_start(tmp_path: Path) -> None:
    """A backend whose folder is a file is refused with the reason."""
    (tmp_path / "images").write_text("not a folder")
    with pytest.raises(InvalidConfig, match="directory"):
        FileDriver(tmp_path / "images").check()
