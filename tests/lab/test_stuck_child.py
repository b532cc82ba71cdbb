"""A child in uninterruptible sleep, which KILL does not end, does not hold its caller."""

from __future__ import annotations

import contextlib
import os
from collections.abc import Iterator
from pathlib import Path

import pytest

from lab.services import load_modules, wait_until
from lunport.core.errors import CommandTimedOut
from lunport.host.clock import Deadline
from lunport.host.runner import count_abandoned, run


def call(*words: str) -> str:
    """Run a program that does what it is told."""
    return run(words, Deadline.after(30)).stdout.strip()


@pytest.fixture
def frozen(tmp_path: Path) -> Iterator[Path]:
    """A file system on which every write waits, uninterruptibly, until it is thawed."""
    assert os.environ.get("LAB_HERE"), "mounts and freezes a file system: run it by `make lab`"
    load_modules(["loop", "ext4"])
    image, folder = tmp_path / "image", tmp_path / "frozen"
    folder.mkdir()
    with image.open("wb") as file:
        file.truncate(16 << 20)
    call("mkfs.ext4", "-q", str(image))
    with contextlib.ExitStack() as undo:
        device = call("losetup", "--find", "--show", str(image))
        undo.callback(call, "losetup", "--detach", device)
        call("mount", device, str(folder))
        undo.callback(call, "umount", str(folder))
        call("fsfreeze", "--freeze", str(folder))
        try:
            yield folder
        finally:
            call("fsfreeze", "--unfreeze", str(folder))
            wait_until(lambda: count_abandoned() == 0, "the child to end")


def test_a_child_that_cannot_die_is_left_and_reaped_later(frozen: Path) -> None:
    """The caller gets its timeout; the child ends once the kernel lets it, and is reaped."""
    with pytest.raises(CommandTimedOut):
        run(["touch", str(frozen / "file")], Deadline.after(5))
    assert count_abandoned() == 1
    call("true")  # others run meanwhile
    assert count_abandoned() == 1
