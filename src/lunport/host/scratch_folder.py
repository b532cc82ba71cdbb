"""A temporary folder that the next run removes if this one was killed.

    /tmp/lunport-demo-k3x8w_1q      mode 0700, held by flock(2) while it is in use

The lock is on the folder itself and goes with the last process that inherited it, so it
cannot be stale. Looked after are only folders with the prefix that belong to this user, where
temporary files go: ``$TMPDIR``, ``/tmp``, ``/var/tmp``.
"""

from __future__ import annotations

import contextlib
import fcntl
import os
import shutil
import tempfile
from collections.abc import Iterator
from pathlib import Path

from lunport.core.errors import HostLacks

_ATTEMPTS = 8


@contextlib.contextmanager
def scratch_folder(prefix: str, needed_bytes: int) -> Iterator[Path]:
    """Make a folder where there is room, hold it, and remove it and all in it at the end.

    Raises: HostLacks.
    """
    for parent in _places():
        held = _make(parent, prefix, needed_bytes)
        if held is not None:
            break
    else:
        raise HostLacks(
            "No folder for temporary files can be written",
            f"{', '.join(map(str, _places()))}; {needed_bytes >> 20} MiB are needed",
            "make room, or name another one in TMPDIR",
        )
    folder, descriptor = held
    try:
        yield folder
    finally:
        shutil.rmtree(folder, ignore_errors=True)
        os.close(descriptor)


def remove_abandoned(prefix: str) -> tuple[Path, ...]:
    """Remove the folders of runs that ended without doing so; return them."""
    removed = []
    for parent in _places():
        for folder in sorted(parent.glob(f"{prefix}*")):
            descriptor = _hold(folder)
            if descriptor is not None:
                shutil.rmtree(folder, ignore_errors=True)
                os.close(descriptor)
                removed.append(folder)
    return tuple(removed)


def _places() -> tuple[Path, ...]:
    named = os.environ.get("TMPDIR")
    places = [Path(named).absolute()] if named else []
    places += [Path("/tmp"), Path("/var/tmp")]  # noqa: S108 - mkdtemp makes the names
    return tuple(dict.fromkeys(place for place in places if place.is_dir()))


def _make(parent: Path, prefix: str, needed_bytes: int) -> tuple[Path, int] | None:
    for _ in range(_ATTEMPTS):
        try:
            if shutil.disk_usage(parent).free < needed_bytes:
                return None
            folder = Path(tempfile.mkdtemp(prefix=prefix, dir=parent))
        except OSError:
            return None
        descriptor = _hold(folder)
        # Between its making and our lock somebody may have taken it for an abandoned one.
        if descriptor is not None:
            return folder, descriptor
    return None


def _hold(folder: Path) -> int | None:
    """Lock a folder of ours; None when it is another's, in use, or gone by now."""
    try:
        descriptor = os.open(folder, os.O_RDONLY | os.O_DIRECTORY | os.O_NOFOLLOW | os.O_CLOEXEC)
    except OSError:
        return None
    with contextlib.suppress(OSError):
        fcntl.flock(descriptor, fcntl.LOCK_EX | fcntl.LOCK_NB)
        opened, there = os.fstat(descriptor), folder.lstat()
        if os.path.samestat(opened, there) and opened.st_uid == os.geteuid():
            return descriptor
    os.close(descriptor)
    return None
