"""Journal and locks when a process is killed: no half file is read, no lock stays."""

from __future__ import annotations

import os
import signal
import subprocess
import sys
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

import pytest

from lunport.core.errors import Unavailable
from lunport.host.clock import Deadline
from lunport.host.file_locks import FileLocks
from lunport.initiator.journal import Journal
from tests.unit.test_journal import IQN, connection, files_in, session

KILLS = 8

WRITER = """
import sys
from dataclasses import replace
from itertools import count
from pathlib import Path
from lunport.initiator.journal import Journal
from tests.unit.test_journal import IQN, connection, session

journal = Journal(Path(sys.argv[1]))
print("ready", flush=True)
for number in count():
    journal.write(replace(connection("kept"), since=float(number)))
    journal.write(connection("passing"))
    journal.write_session(session())
    journal.remove("passing")
    journal.remove_session(session().portal, IQN)
    print(number, flush=True)
"""

HOLDER = """
import sys
from pathlib import Path
from lunport.host.clock import Deadline
from lunport.host.file_locks import FileLocks

locks = FileLocks(Path(sys.argv[1]))
with locks.hold("a", Deadline.after(60.0)):
    print("ready", flush=True)
    sys.stdin.read()
"""


@contextmanager
def child(program: str, folder: Path) -> Iterator[subprocess.Popen[str]]:
    """Run a program until it says that it is ready, and kill it at the end."""
    process = subprocess.Popen(
        [sys.executable, "-c", program, str(folder)],
        stdin=subprocess.PIPE,
        stdout=subprocess.PIPE,
        text=True,
        env={**os.environ, "PYTHONPATH": os.pathsep.join(sys.path)},
    )
    with process:
        try:
            assert process.stdout is not None
            assert process.stdout.readline() == "ready\n"
            yield process
        finally:
            process.send_signal(signal.SIGKILL)
            process.wait()


def test_a_killed_writer_leaves_whole_files(tmp_path: Path) -> None:
    """Wherever a writer is killed, what it said it wrote is there, and only whole entries are."""
    journal = Journal(tmp_path / "host")
    journal.write(connection("kept"))
    for number in range(KILLS):
        with child(WRITER, journal.folder) as process:
            assert process.stdout is not None
            said = [int(process.stdout.readline()) for _ in range(number)]
        entry = journal.get("kept")
        assert entry is not None
        assert entry.since >= max(said, default=0)
        assert journal.damaged() == ()
        names = {entry.key for entry in journal.connections()}
        assert names <= {"kept", "passing"}
        assert {owned.replaced_record for owned in journal.sessions()} <= {
            session().replaced_record
        }
        assert [file for file in files_in(journal) if file.name.startswith(".")] == []
    for key in ("kept", "passing"):
        journal.remove(key)
    journal.remove_session(session().portal, IQN)
    assert files_in(journal) == []


def test_a_lock_ends_with_the_process_that_holds_it(tmp_path: Path) -> None:
    """Another process's lock is respected and named; when it is killed, the lock is free."""
    locks = FileLocks(tmp_path / "locks")
    with child(HOLDER, locks.folder) as process:
        lock = locks.hold("a", Deadline.after(0.05))
        with pytest.raises(Unavailable, match=f"held by process {process.pid}"), lock:
            pass
        with locks.try_hold("a") as held:
            assert not held
    with locks.try_hold("a") as held:
        assert held
    assert list(locks.folder.iterdir()) == []


def test_a_lock_is_handed_from_process_to_process(tmp_path: Path) -> None:
    """Who waits for another process's lock gets it when that one ends in order."""
    locks = FileLocks(tmp_path / "locks")
    with child(HOLDER, locks.folder) as process:
        assert process.stdin is not None
        process.stdin.close()
        with locks.hold("a", Deadline.after(60.0)):
            assert list(locks.folder.iterdir()) == [locks.folder / "a"]
    assert list(locks.folder.iterdir()) == []
