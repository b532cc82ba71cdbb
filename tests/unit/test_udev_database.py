"""What udev knows of a disk."""

from __future__ import annotations

import threading
from pathlib import Path

from lunport.core.wwid import Wwid
from lunport.host.clock import Deadline
from lunport.host.inotify import ArrivalWatch
from lunport.host.udev_database import wait_until_known

WWID = Wwid("naa.60014050000000100000000000000000")
SERIAL = "I:123\nE:ID_SERIAL=360014050000000100000000000000000\n"
STALE = "I:123\nE:ID_SERIAL=360014050000000200000000000000000\n"


def arrive(folder: Path, text: str) -> None:
    """Put the file of 8:0 there as udev does."""
    partial = folder / ".#b8:0"
    partial.write_text(text)
    partial.rename(folder / "b8:0")


def test_a_disk_that_udev_knows_is_known_at_once(tmp_path: Path) -> None:
    """The file is there, and of this disk: no time is needed."""
    arrive(tmp_path, SERIAL)
    assert wait_until_known("8:0", Deadline.after(0), folder=tmp_path)
    assert wait_until_known("8:0", Deadline.after(0), wwid=WWID, folder=tmp_path)


def test_an_arrival_is_heard(tmp_path: Path) -> None:
    """The file that comes while it is waited for ends the wait."""
    thread = threading.Thread(target=arrive, args=(tmp_path, SERIAL))
    thread.start()
    assert wait_until_known("8:0", Deadline.after(30), wwid=WWID, folder=tmp_path)
    thread.join()


def test_what_is_left_of_an_earlier_disk_does_not_count(tmp_path: Path) -> None:
    """A number is used again: until udev wrote this disk's identity it doesn't know it."""
    arrive(tmp_path, STALE)
    assert not wait_until_known("8:0", Deadline.after(0), wwid=WWID, folder=tmp_path)
    thread = threading.Thread(target=arrive, args=(tmp_path, SERIAL))
    thread.start()
    assert wait_until_known("8:0", Deadline.after(30), wwid=WWID, folder=tmp_path)
    thread.join()


def test_other_devices_are_no_answer(tmp_path: Path) -> None:
    """Whatever else udev writes, the deadline ends the wait with a no."""
    (tmp_path / "b8:16").write_text(SERIAL)
    assert not wait_until_known("8:0", Deadline.after(0.05), folder=tmp_path)


def test_without_udev_nothing_is_waited_for(tmp_path: Path) -> None:
    """Where its folder is not, the answer is no at once."""
    assert not wait_until_known("8:0", Deadline.after(600), folder=tmp_path / "none")


def test_an_arrival_is_told_once(tmp_path: Path) -> None:
    """A watch tells of what came since the last wait, and is silent then."""
    with ArrivalWatch(tmp_path) as watch:
        assert not watch.wait(Deadline.after(0))
        arrive(tmp_path, SERIAL)
        assert watch.wait(Deadline.after(30))
        assert not watch.wait(Deadline.after(0))
