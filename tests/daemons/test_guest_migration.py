"""Real guests on their way between two hosts with different targets: nothing lost, nothing left."""

from __future__ import annotations

import signal
import subprocess
from collections.abc import Iterator
from pathlib import Path

import pytest

from lunport.core.migration_plan import Side
from tests.daemons.moving_site import MovingSite, moving_site, soon

WAIT_S = 180.0

pytestmark = pytest.mark.needs("root", "libvirtd", "tgtd", "qemu-system-x86_64", "gcc")


@pytest.fixture(scope="module")
def site(tmp_path_factory: pytest.TempPathFactory) -> Iterator[MovingSite]:
    """One site for all tests here; each leaves the guest on the first host, with nothing open."""
    with moving_site(tmp_path_factory.mktemp("moving"), volumes=2) as made:
        yield made


@pytest.fixture
def own_site(tmp_path: Path) -> Iterator[MovingSite]:
    """A site whose agents may be killed."""
    with moving_site(tmp_path) as made:
        yield made


def test_a_guest_moves_to_and_fro(site: MovingSite) -> None:
    """It writes all the while; after each move its log is whole, and the other host has nothing."""
    status, said, error = site.migrate(0, "--check")
    assert (status, "FAIL" in said) == (0, False), said + error
    for source in (0, 1):
        site.until_written(30)
        status, said, error = site.migrate(source)
        assert status == 0, error + site.hosts[1 - source].log
        assert f"runs at {site.hosts[1 - source].name}" in said
        assert "left:" not in said, said
        site.until_alone_at(1 - source)
        site.until_written(30)


def ended(process: subprocess.Popen[str]) -> tuple[int, str]:
    """Wait for a command's end; return its status and what it said."""
    said, error = process.communicate(timeout=WAIT_S)
    return process.returncode, said + error


def test_a_destination_that_hangs_and_obeys_late(site: MovingSite) -> None:
    """Its libvirt hangs where the guest is about to run there, and runs it once it wakes.

    By then the source has gone on with it, and the destination was cut off: two guests, one
    writer, a whole log. The agent of the destination ends the other one.
    """
    a, b = site.hosts
    process = site.launch(0)
    b.libvirt.hang_daemon()
    try:
        site.switch_over(0)
        status, said = ended(process)
        assert status == 1, said
        assert "is where it was" in said
        b.agent.send(signal.SIGSTOP)
    finally:
        b.libvirt.wake_daemon()
    try:
        deadline = soon()
        while not b.runs_it:
            assert not deadline.has_passed(), "the destination never ran it"
        assert a.runs_it
        site.until_written(50)
    finally:
        b.agent.send(signal.SIGCONT)
    site.until_alone_at(0)
    (record,) = [one for one in site.moves.list(soon(), with_done=True) if one.fenced]
    assert record.winner is Side.SOURCE
    site.until_written(30)


def test_a_move_that_is_stopped(site: MovingSite) -> None:
    """Ctrl-C rolls it back: the guest is where it was, and nothing is left."""
    process = site.launch(0)
    process.send_signal(signal.SIGINT)
    status, said = ended(process)
    assert status == 1, said
    assert "is where it was" in said
    assert "left" not in said
    site.until_alone_at(0)
    site.until_written(30)


def test_the_driver_and_the_destination_s_agent_are_killed(own_site: MovingSite) -> None:
    """The hypervisors go on by themselves, and the agents finish what it came to."""
    site = own_site
    b = site.hosts[1]
    process = site.launch(0)
    process.kill()
    ended(process)
    b.agent.end(signal.SIGKILL)
    site.switch_over(0)
    deadline = soon()
    while not b.runs_it:
        assert not deadline.has_passed()
    b.start_agent()
    site.until_alone_at(1)
    site.until_written(30)
    status, said, error = site.migrate(1)
    assert status == 0, said + error
    site.until_alone_at(0)


def test_a_destination_that_may_not_have_the_volume(site: MovingSite) -> None:
    """What fails before the memory moves is undone; the operator is told what it was."""
    words = ("--host", "node-b", "--endpoint", site.service.endpoint)
    status, _, error = site.hosts[0].run("export", "revoke", *words)
    assert status == 0, error
    status, _, error = site.migrate(0)
    assert (status, "cut off" in error) == (6, True), error
    status, _, error = site.hosts[0].run("export", "restore", *words)
    assert status == 0, error
    site.until_alone_at(0)
    site.until_written(30)
