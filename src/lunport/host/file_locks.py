"""Named locks between all processes and threads of a host: flock(2) on files in one folder.

    /run/lunport/locks/use-3f9c21d0...      there while somebody holds or just held it

Each hold opens the file anew, and flock belongs to what was opened, so threads of one
process exclude one another as processes do. A lock ends with its holder, however that ends.
A hold is not reentrant: who holds a name and asks for it again waits for itself.

The file is removed by the last holder, who has it alone at that moment; whoever got the lock
of a file that is no longer the one at its name has nothing, and opens the new one.

A flock that blocks has no deadline, and a thread left in one would take the lock long after
its caller gave up. So it is tried without blocking: at once when another thread of this
process lets go, and otherwise with pauses that grow to 50 ms.
"""

from __future__ import annotations

import contextlib
import fcntl
import os
import re
import threading
from collections.abc import Iterable, Iterator
from hashlib import blake2s
from pathlib import Path

from lunport.core.errors import HostLacks, Unavailable
from lunport.host.clock import Deadline

_FIRST_PAUSE_S = 0.001
_LONGEST_PAUSE_S = 0.05
_FILE_NAME = re.compile(r"[A-Za-z0-9_:@-][A-Za-z0-9_.:@+-]{0,199}")


class FileLocks:
    """The locks in one folder, which is made on first use; safe to share between threads."""

    def __init__(self, folder: Path) -> None:
        self.folder = folder
        self._released = threading.Condition()
        self._releases = 0

    @contextlib.contextmanager
    def hold(self, name: str, deadline: Deadline, *, shared: bool = False) -> Iterator[None]:
        """Hold a lock, with others who share it or alone.

        It is tried at least once. Raises: Unavailable when it is not free in time, which
        names the processes that have it; HostLacks.
        """
        descriptor = self._wait(self._file(name), name, deadline, shared=shared)
        try:
            yield
        finally:
            self._release(self._file(name), descriptor)

    @contextlib.contextmanager
    def hold_all(self, names: Iterable[str], deadline: Deadline) -> Iterator[None]:
        """Hold several locks alone, taken in the order of their names. Raises: as :meth:`hold`."""
        with contextlib.ExitStack() as stack:
            for name in sorted(set(names)):
                stack.enter_context(self.hold(name, deadline))
            yield

    @contextlib.contextmanager
    def try_hold(self, name: str, patience: Deadline | None = None) -> Iterator[bool]:
        """Hold a lock alone if it is free, now or by the end of a patience; yield whether it was.

        Raises: HostLacks.
        """
        file = self._file(name)
        descriptor = self._try(file, shared=False)
        if descriptor is None and patience is not None:
            with contextlib.suppress(Unavailable):
                descriptor = self._wait(file, name, patience, shared=False)
        try:
            yield descriptor is not None
        finally:
            if descriptor is not None:
                self._release(self._file(name), descriptor)

    def sweep(self) -> tuple[str, ...]:
        """Remove the files of locks that nobody holds: killed holders leave theirs. List them."""
        swept = []
        for name in sorted(file.name for file in self.folder.glob("*")):
            descriptor = self._try(self.folder / name, shared=False)
            if descriptor is not None:
                self._release(self.folder / name, descriptor)
                swept.append(name)
        return tuple(swept)

    def _file(self, name: str) -> Path:
        if not _FILE_NAME.fullmatch(name):
            name = f"+{blake2s(name.encode(errors='surrogatepass')).hexdigest()}"
        return self.folder / name

    def _wait(self, file: Path, name: str, deadline: Deadline, *, shared: bool) -> int:
        pause_s = _FIRST_PAUSE_S
        releases = self._releases
        while (descriptor := self._try(file, shared=shared)) is None:
            if deadline.has_passed():
                raise Unavailable(
                    f"{name} was busy with another operation for {deadline.budget_s:.1f} s"
                    f"{_holders(file)}."
                )
            with self._released:
                self._released.wait_for(
                    lambda seen=releases: self._releases != seen,  # type: ignore[misc]
                    min(pause_s, deadline.remaining_s()),
                )
                releases = self._releases
            pause_s = min(2 * pause_s, _LONGEST_PAUSE_S)
        return descriptor

    def _try(self, file: Path, *, shared: bool) -> int | None:
        """Take the lock and return its descriptor; None while another has it."""
        try:
            descriptor = self._open(file)
        except OSError as error:
            raise HostLacks(
                f"The lock {file} cannot be made", error.strerror or str(error), "run it as root"
            ) from error
        try:
            if _flock(descriptor, fcntl.LOCK_SH if shared else fcntl.LOCK_EX) and _is_at(
                descriptor, file
            ):
                return descriptor
        except BaseException:
            os.close(descriptor)
            raise
        os.close(descriptor)
        return None

    def _open(self, file: Path) -> int:
        flags = os.O_RDWR | os.O_CREAT | os.O_CLOEXEC | os.O_NOFOLLOW
        try:
            return os.open(file, flags, 0o600)
        except FileNotFoundError:
            self.folder.mkdir(parents=True, exist_ok=True)
            return os.open(file, flags, 0o600)

    def _release(self, file: Path, descriptor: int) -> None:
        try:
            # Sharers can't both be the last by chance: to have it alone is asked anew, and
            # flock lets go of the share meanwhile, so the file at the name is looked at again.
            if _flock(descriptor, fcntl.LOCK_EX) and _is_at(descriptor, file):
                file.unlink(missing_ok=True)
            # A child that was forked meanwhile has the same open file: closing is not enough.
            fcntl.flock(descriptor, fcntl.LOCK_UN)
        finally:
            os.close(descriptor)
            with self._released:
                self._releases += 1
                self._released.notify_all()


def _flock(descriptor: int, kind: int) -> bool:
    try:
        fcntl.flock(descriptor, kind | fcntl.LOCK_NB)
    except BlockingIOError:
        return False
    return True


def _is_at(descriptor: int, file: Path) -> bool:
    """Tell whether the open file is the one at its name."""
    try:
        return os.path.samestat(os.fstat(descriptor), file.lstat())
    except FileNotFoundError:
        return False


def _holders(file: Path) -> str:
    """Say which processes hold the lock, as far as /proc/locks (proc_locks(5)) tells.

    ``1: FLOCK  ADVISORY  WRITE 4711 00:19:1234 0 EOF``; a line of a waiter has a ``->``.
    """
    try:
        inode = file.lstat().st_ino
        lines = Path("/proc/locks").read_text(encoding="ascii").splitlines()
    except (OSError, UnicodeDecodeError):
        return ""
    pids = {
        int(words[4])
        for words in map(str.split, lines)
        if len(words) == 8
        and words[1] == "FLOCK"
        and words[4].isdigit()
        and words[5].rpartition(":")[2] == str(inode)
    }
    # 0 is a process that this one can't see (another PID namespace).
    shown = ", ".join(map(str, sorted(pids - {0})))
    return f"; held by process {shown}" if shown else ""
