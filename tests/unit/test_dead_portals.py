"""Tests of the memory of dead portals, on real files."""

from __future__ import annotations

import os
import threading
import time
from pathlib import Path

import pytest
from hypothesis import HealthCheck, given, settings

from lunport.core.portal import Portal
from lunport.host.dead_portals import DeadPortals
from tests.strategies import portals

PORTAL = Portal("10.0.0.1", 3260)
OTHER = Portal("fd00::2", 3261)


@pytest.fixture
def memory(tmp_path: Path) -> DeadPortals:
    """A memory in a folder that does not exist yet."""
    return DeadPortals(tmp_path / "run" / "dead-portals")


def test_nothing_is_remembered_at_first(memory: DeadPortals) -> None:
    """A folder that does not exist remembers nothing, and looking does not make it."""
    assert memory.current() == frozenset()
    assert not memory.directory.exists()


def test_all_processes_share_the_memory(memory: DeadPortals) -> None:
    """What one remembers another one on the same folder knows, until either forgets."""
    memory.remember(PORTAL)
    memory.remember(OTHER)
    memory.remember(OTHER)
    elsewhere = DeadPortals(memory.directory)
    assert elsewhere.current() == {PORTAL, OTHER}
    elsewhere.forget(PORTAL)
    elsewhere.forget(PORTAL)
    assert memory.current() == {OTHER}


def test_a_memory_fades(memory: DeadPortals) -> None:
    """After its time a portal is not dead any more, and its file is gone."""
    memory.remember(PORTAL)
    (file,) = memory.directory.iterdir()
    past = time.time() - memory.ttl_s - 1
    os.utime(file, (past, past))
    assert memory.current() == frozenset()
    assert list(memory.directory.iterdir()) == []


def test_remembering_again_renews(memory: DeadPortals) -> None:
    """A portal seen dead again is remembered from now on."""
    memory.remember(PORTAL)
    (file,) = memory.directory.iterdir()
    past = time.time() - memory.ttl_s + 5
    os.utime(file, (past, past))
    memory.remember(PORTAL)
    assert file.stat().st_mtime > past + 1


def test_a_moment_far_in_the_future_is_no_memory(memory: DeadPortals) -> None:
    """A clock that was set back does not keep a portal dead for hours."""
    memory.remember(PORTAL)
    (file,) = memory.directory.iterdir()
    future = time.time() + 3600
    os.utime(file, (future, future))
    assert memory.current() == frozenset()


def test_strange_files_are_nobody(memory: DeadPortals) -> None:
    """What is not a portal in the folder means nothing and stays."""
    memory.remember(PORTAL)
    (memory.directory / "README.txt,").write_text("hello")
    (memory.directory / "999.1.1.1:3260").mkdir()
    assert memory.current() == {PORTAL}
    assert (memory.directory / "README.txt,").exists()


def test_a_folder_that_cannot_be_used_is_no_error(tmp_path: Path) -> None:
    """Where the folder cannot be made or read, nothing is remembered and nobody fails."""
    (tmp_path / "file").write_text("")
    memory = DeadPortals(tmp_path / "file" / "dead-portals")
    memory.remember(PORTAL)
    memory.forget(PORTAL)
    assert memory.current() == frozenset()


def test_a_link_is_not_followed(memory: DeadPortals, tmp_path: Path) -> None:
    """A link in a portal's place does not have its target's time changed."""
    victim = tmp_path / "victim"
    victim.write_text("")
    os.utime(victim, (1000, 1000))
    memory.remember(PORTAL)
    (file,) = memory.directory.iterdir()
    file.unlink()
    file.symlink_to(victim)
    memory.remember(PORTAL)
    assert victim.stat().st_mtime == 1000


@settings(suppress_health_check=[HealthCheck.function_scoped_fixture])
@given(portals())
def test_any_portal_can_be_remembered(memory: DeadPortals, portal: Portal) -> None:
    """Whatever its address, a portal comes back from its file's name."""
    memory.remember(portal)
    assert portal in memory.current()
    memory.forget(portal)
    assert portal not in memory.current()


def test_races_leave_a_usable_memory(memory: DeadPortals) -> None:
    """Threads that remember, forget and look at once raise nothing and leave files readable."""
    errors: list[BaseException] = []

    def work(portal: Portal) -> None:
        try:
            for _ in range(200):
                memory.remember(portal)
                memory.current()
                memory.forget(portal)
        except OSError as error:
            errors.append(error)

    threads = [threading.Thread(target=work, args=(p,)) for p in (PORTAL, OTHER) * 2]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    assert errors == []
    assert memory.current() == frozenset()


def test_the_folder_follows_the_host_root(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """The environment moves the memory; without it, it is where all processes look."""
    monkeypatch.setenv("LUNPORT_HOST_ROOT", str(tmp_path))
    assert DeadPortals().directory == tmp_path / "run" / "dead-portals"
    monkeypatch.delenv("LUNPORT_HOST_ROOT")
    assert DeadPortals().directory == Path("/run/lunport/dead-portals")
