"""Locks in files, held by several threads, which exclude one another as processes do."""

from __future__ import annotations

import fcntl
import os
import threading
from collections.abc import Callable
from pathlib import Path

import pytest

from lunport.core.errors import HostLacks, Unavailable
from lunport.host.clock import Deadline
from lunport.host.file_locks import FileLocks

LONG_S = 60.0


def over() -> Deadline:
    """Give a deadline that has passed."""
    return Deadline.after(0.0)


def later() -> Deadline:
    """Give a deadline that a test never reaches."""
    return Deadline.after(LONG_S)


@pytest.fixture
def locks(tmp_path: Path) -> FileLocks:
    """Locks in a folder that does not exist yet."""
    return FileLocks(tmp_path / "run" / "locks")


def started(work: Callable[[], None]) -> threading.Thread:
    """Start a thread."""
    thread = threading.Thread(target=work)
    thread.start()
    return thread


def test_a_lock_is_held_by_one(locks: FileLocks) -> None:
    """While a lock is held alone, nobody else gets it; afterwards anybody does."""
    with locks.hold("a", later()):
        with pytest.raises(Unavailable), locks.hold("a", over()):
            pass
        with pytest.raises(Unavailable), locks.hold("a", over(), shared=True):
            pass
        with locks.try_hold("a") as held:
            assert not held
    with locks.try_hold("a") as held:
        assert held


def test_sharers_exclude_only_who_wants_it_alone(locks: FileLocks) -> None:
    """Several share a lock; whoever wants it alone waits for the last of them."""
    with locks.hold("a", later(), shared=True):
        with locks.hold("a", over(), shared=True), locks.try_hold("a") as held:
            assert not held
        with locks.try_hold("a") as held:
            assert not held
        with locks.hold("a", over(), shared=True):
            pass
    with locks.try_hold("a") as held:
        assert held


def test_other_names_are_other_locks(locks: FileLocks) -> None:
    """A lock that is held delays nobody who wants another."""
    with locks.hold("a", later()), locks.hold("b", over()):
        pass


def test_several_locks_are_held_together_or_not_at_all(locks: FileLocks) -> None:
    """If one of several locks is not free in time, the others are free again."""
    with locks.hold("b", later()):
        with pytest.raises(Unavailable), locks.hold_all(["c", "a", "b"], over()):
            pass
        with locks.hold_all(["a", "c", "a"], over()), locks.try_hold("c") as held:
            assert not held


def test_whoever_waits_gets_the_lock_when_it_is_free(locks: FileLocks) -> None:
    """A thread that waits goes on when the lock is let go."""
    waits, done = threading.Event(), threading.Event()

    def wait() -> None:
        waits.set()
        with locks.hold("a", later()):
            done.set()

    with locks.hold("a", later()):
        thread = started(wait)
        assert waits.wait(LONG_S)
        assert not done.is_set()
    thread.join()
    assert done.is_set()


def test_a_lock_taken_in_vain_says_who_has_it(locks: FileLocks) -> None:
    """The error names the lock, how long it was waited for, and the process that has it."""
    holder = locks.hold("unit-x", later())
    with holder, pytest.raises(Unavailable) as caught, locks.hold("unit-x", over()):
        pass
    assert str(caught.value) == (
        f"unit-x was busy with another operation for 0.0 s; held by process {os.getpid()}."
    )


def test_nothing_is_left_when_nobody_holds_anything(locks: FileLocks) -> None:
    """The last holder removes the file, whether it was alone, shared or only tried."""
    with locks.hold("a", later()), locks.hold("b", later(), shared=True):
        with locks.hold("b", later(), shared=True), locks.try_hold("c"):
            assert len(list(locks.folder.iterdir())) == 3
        assert len(list(locks.folder.iterdir())) == 2
    assert list(locks.folder.iterdir()) == []


def test_a_lock_ends_with_the_error_in_it(locks: FileLocks) -> None:
    """An error in the block lets the lock go as well."""
    with pytest.raises(KeyError), locks.hold("a", later()):
        raise KeyError
    assert list(locks.folder.iterdir()) == []


def test_a_file_that_was_removed_meanwhile_locks_nothing(locks: FileLocks) -> None:
    """Whoever gets the lock of a file that is no longer at its name takes the new one's."""
    with locks.hold("a", later()):
        (locks.folder / "a").unlink()
        with locks.hold("a", over()):
            there = (locks.folder / "a").stat().st_ino
            with pytest.raises(Unavailable), locks.hold("a", over()):
                pass
            assert (locks.folder / "a").stat().st_ino == there


def test_who_lets_go_of_a_removed_file_leaves_the_new_one(locks: FileLocks) -> None:
    """A holder whose file was taken away does not take away its successor's."""
    successor = locks.hold("a", later())
    with locks.hold("a", later()):
        (locks.folder / "a").unlink()
        successor.__enter__()
    assert (locks.folder / "a").exists()
    successor.__exit__(None, None, None)
    assert list(locks.folder.iterdir()) == []


def test_what_killed_holders_left_is_swept(locks: FileLocks) -> None:
    """Files of locks that nobody holds are removed, others stay."""
    assert locks.sweep() == ()
    with locks.hold("held", later(), shared=True):
        (locks.folder / "left").touch()
        assert locks.sweep() == ("left",)
        assert [file.name for file in locks.folder.iterdir()] == ["held"]


@pytest.mark.parametrize("name", ["", ".", "..", "a/b", "a\0b", "x" * 300, "naïve", "\udc80"])
def test_every_name_can_be_a_lock(locks: FileLocks, name: str) -> None:
    """A name that can't be a file's is digested; it stays in the folder."""
    with locks.hold(name, later()):
        (file,) = locks.folder.iterdir()
        assert file.is_file()
        with locks.try_hold(name) as held:
            assert not held
    assert list(locks.folder.iterdir()) == []


def test_a_folder_that_cannot_be_is_an_error_that_says_so(tmp_path: Path) -> None:
    """Where locks can't be made, the error names the file."""
    (tmp_path / "file").touch()
    lock = FileLocks(tmp_path / "file").hold("a", over())
    with pytest.raises(HostLacks, match="cannot be made"), lock:
        pass


def test_flock_by_others_counts(locks: FileLocks) -> None:
    """What any program holds with flock(1) on the file is held."""
    locks.folder.mkdir(parents=True)
    with (locks.folder / "a").open("w") as file:
        fcntl.flock(file, fcntl.LOCK_EX)
        with locks.try_hold("a") as held:
            assert not held


def test_many_threads_never_hold_it_together(locks: FileLocks) -> None:
    """Whatever the mixture of holders, one alone is alone, and no file or descriptor is left."""
    guard = threading.Lock()
    inside: list[str] = []
    wrong: list[list[str]] = []
    start = threading.Barrier(8)
    before = len(list(Path("/proc/self/fd").iterdir()))

    def enter(kind: str) -> None:
        with guard:
            inside.append(kind)
            if len(inside) > 1 and "alone" in inside:
                wrong.append(list(inside))

    def leave(kind: str) -> None:
        with guard:
            inside.remove(kind)

    def work(number: int) -> None:
        # Half of the threads have locks of their own on the same folder, as a process has.
        mine = locks if number % 2 else FileLocks(locks.folder)
        start.wait()
        for count in range(40):
            kind = ("alone", "shared", "tried")[(count + number) % 3]
            if kind == "tried":
                with mine.try_hold("a") as held:
                    if held:
                        enter("alone")
                        leave("alone")
            else:
                with mine.hold("a", later(), shared=kind == "shared"):
                    enter(kind)
                    leave(kind)

    threads = [started(lambda number=number: work(number)) for number in range(8)]  # type: ignore[misc]
    for thread in threads:
        thread.join()
    assert wrong == []
    assert list(locks.folder.iterdir()) == []
    assert len(list(Path("/proc/self/fd").iterdir())) == before
