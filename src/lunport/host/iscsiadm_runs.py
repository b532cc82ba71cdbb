"""Find the runs of iscsiadm that outlived whoever started them, and wait for their end.

A process that is killed while it waits for ``iscsiadm --login`` leaves that program running;
it logs in a moment later. Whoever cleans up must not look before it has ended. Reads
``/proc/PID/{comm,cmdline}`` (proc(5)), waits by pidfd; ends nothing.
"""

from __future__ import annotations

from pathlib import Path

from lunport.core.errors import CommandTimedOut
from lunport.core.iqn import Iqn, fold_iqn
from lunport.host.clock import Deadline
from lunport.host.process import ProcessHandle, open_process

_PROGRAM = "iscsiadm"


def wait_for_runs(iqn: Iqn, deadline: Deadline) -> None:
    """Wait until no iscsiadm that names the target runs. Raises: CommandTimedOut."""
    for handle, words in _runs(iqn):
        with handle:
            if not handle.wait(deadline):
                raise CommandTimedOut(words, deadline.budget_s)


def _runs(iqn: Iqn) -> list[tuple[ProcessHandle, list[str]]]:
    found = []
    for folder in Path("/proc").iterdir():
        if not folder.name.isdigit() or not _is_iscsiadm(folder):
            continue
        words = _words(folder)
        if fold_iqn(iqn) in map(fold_iqn, words):
            handle = open_process(int(folder.name), _PROGRAM)
            if handle is not None:
                found.append((handle, words))
    return found


def _is_iscsiadm(folder: Path) -> bool:
    try:
        return (folder / "comm").read_text(errors="replace").strip() == _PROGRAM
    except OSError:
        return False


def _words(folder: Path) -> list[str]:
    try:
        return (folder / "cmdline").read_bytes().decode(errors="replace").split("\0")
    except OSError:
        return []
