"""What a connect leaves to others: noted once, worked off by one helper, and nothing left of it."""

from __future__ import annotations

import os
import threading
from pathlib import Path

import pytest

from lunport.core.path_status import VolumePaths
from lunport.host import runner
from lunport.host.clock import Deadline
from lunport.host.file_locks import FileLocks
from lunport.initiator.path_helper import LOCK, Unfinished, finish_all, leave_to_helper

KEY = "naa.60014050000000000000000000000001"
OTHER = "naa.60014050000000000000000000000002"


def paths_of(key: str, *, wanted: int = 0) -> VolumePaths:
    """Give a volume of which nothing is live."""
    return VolumePaths(key, None, None, "dm-0", "map", None, wanted, ())


@pytest.fixture
def unfinished(tmp_path: Path) -> Unfinished:
    """No key yet."""
    return Unfinished(tmp_path / "unfinished")


@pytest.fixture
def locks(tmp_path: Path) -> FileLocks:
    """Locks of the test's own."""
    return FileLocks(tmp_path / "locks")


def test_what_is_complete_is_forgotten(unfinished: Unfinished, locks: FileLocks) -> None:
    """A connection that has all its paths, or stands no more, is not tried again."""
    unfinished.add(KEY)
    unfinished.add(OTHER)
    tried = []

    def complete(key: str, deadline: Deadline) -> VolumePaths | None:
        tried.append(key)
        return paths_of(key) if key == KEY else None

    finish_all(complete, locks, unfinished)
    assert sorted(tried) == [KEY, OTHER]
    assert unfinished.listed() == ()
    assert not list(unfinished.folder.iterdir())


def test_what_is_missing_is_tried_again(unfinished: Unfinished, locks: FileLocks) -> None:
    """A path that was not there at first is there at a later pass."""
    unfinished.add(KEY)
    answers = iter([1, 0])
    finish_all(lambda key, _: paths_of(key, wanted=next(answers)), locks, unfinished)
    assert next(answers, None) is None
    assert unfinished.listed() == ()


def test_a_key_that_comes_meanwhile_is_taken_along(
    unfinished: Unfinished, locks: FileLocks
) -> None:
    """Whoever adds a key while a helper is at work need not start another."""
    unfinished.add(KEY)
    tried = []

    def complete(key: str, deadline: Deadline) -> VolumePaths | None:
        tried.append(key)
        if key == KEY:
            leave_to_helper(OTHER, locks, unfinished)
        return None

    finish_all(complete, locks, unfinished)
    assert sorted(tried) == [KEY, OTHER]


def test_only_one_helper_works(unfinished: Unfinished, locks: FileLocks) -> None:
    """A second helper ends at once, and leaves the keys to the first."""
    unfinished.add(KEY)
    with locks.try_hold(LOCK) as is_free:
        assert is_free
        second = threading.Thread(target=finish_all, args=(paths_never, locks, unfinished))
        second.start()
        second.join(10)
    assert not second.is_alive()
    assert unfinished.listed() == (KEY,)


def paths_never(key: str, deadline: Deadline) -> VolumePaths | None:
    """Fail, since nobody may complete anything."""
    raise AssertionError(key)


def test_many_connects_start_one_helper(unfinished: Unfinished) -> None:
    """While one is being started, nobody starts another."""
    unfinished.add(KEY)
    assert [unfinished.mark_start() for _ in range(3)] == [True, False, False]
    unfinished.unmark_start()
    assert unfinished.mark_start()


def test_a_start_that_came_to_nothing_is_made_again(unfinished: Unfinished) -> None:
    """The mark of a helper that died before it began does not stand in the way for long."""
    unfinished.add(KEY)
    assert unfinished.mark_start()
    (mark,) = set(unfinished.folder.iterdir()) - {unfinished.folder / KEY}
    os.utime(mark, (0, 0))
    assert unfinished.mark_start()


def test_the_helper_is_a_program_of_its_own(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Started for a connection that stands no more, it forgets the key and ends."""
    monkeypatch.setenv("LUNPORT_HOST_ROOT", str(tmp_path))
    locks = FileLocks(tmp_path / "run" / "locks")
    leave_to_helper(KEY, locks)
    unfinished = Unfinished(tmp_path / "run" / "unfinished")
    deadline = Deadline.after(30)
    pause = threading.Event()
    while runner.count_abandoned() and not deadline.has_passed():
        pause.wait(0.05)
    assert (runner.count_abandoned(), unfinished.listed()) == (0, ())
