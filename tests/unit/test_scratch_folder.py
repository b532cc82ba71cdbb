"""Temporary folders that the next run removes when their own could not."""

from __future__ import annotations

import os
import tempfile
from pathlib import Path

import pytest

from lunport.core.errors import HostLacks
from lunport.host.scratch_folder import remove_abandoned, scratch_folder

PREFIX = "lunport-test-scratch-"


@pytest.fixture(autouse=True)
def _place(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("TMPDIR", str(tmp_path))


def test_folder_goes_with_the_block(tmp_path: Path) -> None:
    """A folder is private, is where TMPDIR says, and goes with all that is in it."""
    with scratch_folder(PREFIX, 0) as folder:
        assert folder.parent == tmp_path
        assert folder.stat().st_mode & 0o777 == 0o700
        (folder / "below").mkdir()
        (folder / "below" / "file").write_text("x")
    assert list(tmp_path.iterdir()) == []


def test_abandoned_folder_is_removed(tmp_path: Path) -> None:
    """A folder that nobody holds is removed, one that is in use is not."""
    abandoned = tmp_path / f"{PREFIX}abandoned"
    abandoned.mkdir()
    (abandoned / "file").write_text("x")
    with scratch_folder(PREFIX, 0) as used:
        assert remove_abandoned(PREFIX) == (abandoned,)
        assert used.is_dir()
        assert not abandoned.exists()


def test_only_own_folders_are_removed(tmp_path: Path) -> None:
    """Another prefix, a file, and a link with the prefix to a folder elsewhere stay."""
    other = tmp_path / "other"
    other.mkdir()
    (tmp_path / f"{PREFIX}link").symlink_to(other)
    (tmp_path / f"{PREFIX}file").write_text("x")
    assert remove_abandoned(PREFIX) == ()
    assert len(list(tmp_path.iterdir())) == 3


def test_folder_of_another_user_is_left(tmp_path: Path) -> None:
    """What belongs to somebody else is not touched."""
    folder = tmp_path / f"{PREFIX}foreign"
    folder.mkdir()
    os.chown(folder, 65534, -1)
    assert remove_abandoned(PREFIX) == ()
    assert folder.is_dir()


def test_folder_taken_between_making_and_locking_is_made_anew(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Another run may remove a folder before it is locked; then one more is made."""
    made: list[Path] = []
    make = tempfile.mkdtemp

    def stolen_once(*, prefix: str, dir: Path) -> str:  # noqa: A002 - the signature's name
        made.append(Path(make(prefix=prefix, dir=dir)))
        if len(made) == 1:
            assert remove_abandoned(PREFIX) == (made[0],)
        return str(made[-1])

    monkeypatch.setattr(tempfile, "mkdtemp", stolen_once)
    with scratch_folder(PREFIX, 0) as folder:
        assert folder == made[1]
    assert list(tmp_path.iterdir()) == []


def test_no_room_is_said() -> None:
    """Where no place has the room that is needed, the error names places and size."""
    with pytest.raises(HostLacks, match="MiB are needed"), scratch_folder(PREFIX, 1 << 60):
        pass
