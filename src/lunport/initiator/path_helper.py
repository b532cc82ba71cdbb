"""``python -m lunport.initiator.path_helper``: finishes what connects left, and ends by itself.

A connect that hands a map out before all its paths are there, on a host without an agent, puts
the connection's key into a folder (``/run/lunport/unfinished``) and starts this, unless it runs
already. It completes the connections there, several at once, again after growing pauses, until
all paths are live, the connection is gone, or a minute is over. What is missing then stays, with
its reason: on such a host nobody heals paths.
"""

from __future__ import annotations

import os
import sys
import time
from collections.abc import Callable
from contextlib import suppress
from dataclasses import dataclass, field
from functools import partial
from pathlib import Path
from typing import Final

from lunport.core.errors import HostLacks, LunportError
from lunport.core.host_connection import is_key
from lunport.core.path_status import VolumePaths
from lunport.host import runner
from lunport.host.clock import Deadline
from lunport.host.file_locks import FileLocks
from lunport.host.host_root import ENVIRONMENT_VARIABLE, run_directory
from lunport.host.tasks import TaskGroup

LOCK: Final = "path-helper"
_MODULE: Final = "lunport.initiator.path_helper"
_STARTING: Final = ".starting"
_START_S: Final = 15.0
_AT_ONCE: Final = 8
_PASS_S: Final = 30.0
_PAUSES_S: Final = (1.0, 2.0, 4.0, 8.0, 15.0, 15.0, 15.0)
_LOOK_S: Final = 0.25

Complete = Callable[[str, Deadline], VolumePaths | None]


@dataclass(frozen=True, slots=True)
class Unfinished:
    """The keys of connections that somebody is to complete."""

    folder: Path = field(default_factory=lambda: run_directory() / "unfinished")

    def add(self, key: str) -> None:
        """Note a key. Idempotent. Raises: HostLacks."""
        try:
            self.folder.mkdir(parents=True, exist_ok=True)
            (self.folder / key).touch()
        except OSError as error:
            words = error.strerror or str(error)
            raise HostLacks(f"{self.folder} cannot be written", words, "run it as root") from error

    def listed(self) -> tuple[str, ...]:
        """List the keys."""
        try:
            return tuple(sorted(file.name for file in self.folder.iterdir() if is_key(file.name)))
        except OSError:
            return ()

    def mark_start(self) -> bool:
        """Note that a helper is being started; tell whether nobody had noted it just now."""
        mark = self.folder / _STARTING
        with suppress(OSError):
            if time.time() - mark.stat().st_mtime > _START_S:
                mark.unlink()  # whoever was started then has not come this far
        try:
            mark.touch(exist_ok=False)
        except OSError:
            return False
        return True

    def unmark_start(self) -> None:
        """Note that the helper has been started. Idempotent."""
        with suppress(OSError):
            (self.folder / _STARTING).unlink()

    def remove(self, key: str) -> None:
        """Forget a key. Idempotent."""
        with suppress(OSError):
            (self.folder / key).unlink()


def leave_to_helper(key: str, locks: FileLocks, unfinished: Unfinished | None = None) -> None:
    """Have a connection completed by a helper, which is started unless one runs or is starting.

    Raises: HostLacks.
    """
    unfinished = unfinished or Unfinished()
    unfinished.add(key)
    with locks.try_hold(LOCK) as is_free:
        pass
    # The key is there before the mark is looked at, and the helper looks in the other order.
    if is_free and unfinished.mark_start():
        start_helper()


def start_helper() -> None:
    """Start a helper that outlives us. One more than needed ends at once."""
    root = Path(__file__).resolve().parents[2]
    environment = {"PYTHONPATH": str(root)}
    if os.environ.get(ENVIRONMENT_VARIABLE):
        environment[ENVIRONMENT_VARIABLE] = os.environ[ENVIRONMENT_VARIABLE]
    runner.start_detached([sys.executable, "-S", "-m", _MODULE], environment=environment)


def finish_all(complete: Complete, locks: FileLocks, unfinished: Unfinished) -> None:
    """Complete what is there until it is complete or time is over, if nobody else does."""
    has_more = True
    while has_more:
        with locks.try_hold(LOCK) as is_alone:
            unfinished.unmark_start()
            if not is_alone:
                return
            _finish(complete, unfinished)
        # What came between the last look and the release of the lock found nobody.
        has_more = bool(unfinished.listed())


def _finish(complete: Complete, unfinished: Unfinished) -> None:
    passes: dict[str, int] = {}
    due_at: dict[str, float] = {}
    running: set[str] = set()
    with TaskGroup[bool]("complete") as group:
        while running or unfinished.listed():
            for key in unfinished.listed():
                is_due = time.monotonic() >= due_at.get(key, 0.0)
                if is_due and key not in running and len(running) < _AT_ONCE:
                    running.add(key)
                    group.start(key, partial(_pass, complete, key))
            # The wait is for a pass that ends; new keys have nobody who would wake us.
            report = group.next_report(_LOOK_S)
            if report is None:
                continue
            key = report.name
            running.discard(key)
            pause_s = _PAUSES_S[passes.get(key, 0)] if passes.get(key, 0) < len(_PAUSES_S) else None
            passes[key] = passes.get(key, 0) + 1
            if pause_s is None or report.value:
                unfinished.remove(key)
                passes.pop(key)
                due_at.pop(key, None)
            else:
                due_at[key] = time.monotonic() + pause_s
            if report.error is not None and not isinstance(report.error, LunportError):
                unfinished.remove(key)
                raise report.error


def _pass(complete: Complete, key: str) -> bool:
    """Make one pass; tell whether nothing is left to do."""
    paths = complete(key, Deadline.after(_PASS_S))
    return paths is None or paths.live >= paths.wanted


def main() -> int:
    """Finish what is there."""
    from lunport.initiator.connector import Initiator  # noqa: PLC0415 - it imports us

    initiator = Initiator()
    finish_all(
        lambda key, deadline: initiator.complete(key, deadline=deadline),
        initiator.host.locks,
        Unfinished(),
    )
    return 0


if __name__ == "__main__":
    sys.exit(main())
