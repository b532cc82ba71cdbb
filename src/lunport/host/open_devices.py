"""Which programs have block devices open: one look through /proc for all who ask at a time.

Reads /proc/*/fd (proc(5)). On a host with many programs a look takes its time, and many
volumes that go at once would each take one: whoever asks while a look is under way waits, with
everybody else who does, for the one after it, which begins later than any of them asked.

Quirk(udev): a worker, or a program that a rule starts (blkid, scsi_id), has the disk open for a
moment after each add and change event, seconds on a busy host; multipathd has it open as long as
it is there. They look at the disk and use nothing of it, so they don't count.
"""

from __future__ import annotations

import os
import stat
import threading
import time
from collections.abc import Callable, Mapping
from pathlib import Path

from lunport.core.errors import DeviceStuck
from lunport.host.block_flush import is_flushing
from lunport.host.blocking import call_within
from lunport.host.clock import Deadline

Openers = Mapping[str, tuple[str, ...]]

_PROC = Path("/proc")
_WHAT = "the look for its openers"
_UDEV = frozenset({"(udev-worker)", "systemd-udevd", "systemd-udev", "udevd"})
_OBSERVERS = _UDEV | {"multipathd"}
_NO_FILES = ("socket:", "pipe:", "anon_inode:", "/memfd:", "/dmabuf:")


class _Turn:
    """One look to come, for all who asked before it began."""

    def __init__(self) -> None:
        self.is_over = threading.Event()
        self.found: Openers | None = None  # None: whoever took the look did not finish it
        self.error: OSError | None = None


class SharedLook:
    """Takes a look for several threads at once. ``look`` says what a look is."""

    def __init__(self, look: Callable[[], Openers]) -> None:
        self._look = look
        self._state = threading.Lock()
        self._next: _Turn | None = None
        self._under_way = threading.Lock()

    def take(self, deadline: Deadline, *, device: str) -> Openers:
        """Return what a look found that began after this call; names by device number.

        ``device`` is named in errors. Raises: DeviceStuck (somebody's file does not answer),
        OSError.
        """
        began = time.monotonic()
        has_time = True
        while has_time:
            has_time = not deadline.has_passed()
            with self._state:
                turn = self._next
                is_mine = turn is None
                if turn is None:
                    turn = self._next = _Turn()
            if is_mine:
                self._lead(turn, deadline, device)
            elif not turn.is_over.wait(deadline.remaining_s()):
                raise DeviceStuck(device, _WHAT, time.monotonic() - began)
            if turn.error is not None:
                raise turn.error
            if turn.found is not None:
                return turn.found
        raise DeviceStuck(device, _WHAT, time.monotonic() - began)

    def _lead(self, turn: _Turn, deadline: Deadline, device: str) -> None:
        """Take the look for everybody in this turn. Raises: DeviceStuck."""
        try:
            is_free = self._under_way.acquire(timeout=max(0.0, deadline.remaining_s()))
            self._close(turn)
            if is_free:
                try:
                    turn.found = call_within(self._look, deadline, _WHAT, device=device)
                finally:
                    self._under_way.release()
        except OSError as error:
            turn.error = error
        finally:
            self._close(turn)
            turn.is_over.set()

    def _close(self, turn: _Turn) -> None:
        """Let whoever asks from now on have another turn."""
        with self._state:
            if self._next is turn:
                self._next = None


def look_through_programs() -> Openers:
    """Tell which programs have which block devices open; observers of udev's don't count."""
    found: dict[str, list[str]] = {}
    # Thousands of files on a busy host: plain strings, since Path objects take longer to make.
    for name in os.listdir(_PROC):  # noqa: PTH208
        if not name.isdigit():
            continue
        devices = _devices(f"{_PROC}/{name}/fd", is_ours=name == str(os.getpid()))
        if not devices:
            continue
        command = _command(_PROC / name)
        if command not in _OBSERVERS and _command_of_parent(_PROC / name) not in _UDEV:
            for device in devices:
                found.setdefault(device, []).append(f"{command} ({name})")
    return {device: tuple(names) for device, names in found.items()}


_SHARED = SharedLook(look_through_programs)


def find_programs(devices: frozenset[str], deadline: Deadline, *, device: str) -> list[str]:
    """List the programs that have one of these open ("8:0"); a moment ago is not enough.

    Raises: DeviceStuck (somebody's file elsewhere does not answer).
    """
    found = _SHARED.take(deadline, device=device)
    return list(dict.fromkeys(name for number in sorted(devices) for name in found.get(number, ())))


def _devices(folder: str, *, is_ours: bool) -> set[str]:
    try:
        files = os.listdir(folder)  # noqa: PTH208
    except OSError:  # it has ended, or is not ours to look into
        return set()
    found = {
        _device(f"{folder}/{file}")
        for file in files
        # What was left in a flush that does not end uses nothing of the disk.
        if not (is_ours and is_flushing(int(file)))
    }
    return {number for number in found if number is not None}


def _device(file: str) -> str | None:
    try:
        if os.readlink(file).startswith(_NO_FILES):  # noqa: PTH115
            return None
        status = os.stat(file)  # noqa: PTH116
    except OSError:  # closed meanwhile, or unreachable
        return None
    if not stat.S_ISBLK(status.st_mode):
        return None
    return f"{os.major(status.st_rdev)}:{os.minor(status.st_rdev)}"


def _command(process: Path) -> str:
    try:
        return (process / "comm").read_text(errors="replace").strip()
    except OSError:
        return "a program"


def _command_of_parent(process: Path) -> str:
    # 812 (blkid) S 640 ...: the fourth field is the parent; the name may hold anything.
    try:
        stat_line = (process / "stat").read_text(errors="replace")
    except OSError:
        return ""
    return _command(_PROC / stat_line.rpartition(")")[2].split()[1])
