"""What can break while a real guest moves, on either side: one guest, whole logs, nothing left.

Each fault is one of the table in docs/how-to/migration.md, and what the command says of it is what
stands there. Every test finds the guest at the first host, and leaves it there.
"""

from __future__ import annotations

import contextlib
import signal
import subprocess
from collections.abc import Iterator
from pathlib import Path

import pytest

from lunport.core.errors import HypervisorUnavailable
from lunport.host.tgtd import OwnTgtd
from lunport.targets.tgt import TgtHelper
from tests.daemons.moving_site import NAME, MovingHost, MovingSite, moving_site, soon
from tests.fakes.certificates import Authority

pytestmark = pytest.mark.needs("root", "libvirtd", "tgtd", "qemu-system-x86_64", "gcc")

WAIT_S = 300.0
MOMENTS_S = (0.3, 0.6, 0.9, 1.2, 1.5, 1.8, 2.2, 2.8)


@pytest.fixture(autouse=True)
def leftovers() -> None:
    """The agents and the service that are started anew outlive a test: the site ends them."""


@pytest.fixture(scope="module")
def shared(tmp_path_factory: pytest.TempPathFactory) -> Iterator[MovingSite]:
    """One site for all tests here."""
    with moving_site(tmp_path_factory.mktemp("moving"), volumes=2) as made:
        yield made


@pytest.fixture
def site(shared: MovingSite) -> Iterator[MovingSite]:
    """The site with the guest at the first host; afterwards it is there again, and goes on."""
    assert shared.hosts[0].runs_it
    yield shared
    if shared.hosts[1].runs_it:
        status, said, error = shared.migrate(1)
        assert status == 0, said + error
    shared.until_alone_at(0)
    shared.until_written(20)
    shared.expect_whole()


def ended(process: subprocess.Popen[str]) -> tuple[int, str]:
    """Wait for a command's end; return its status and what it said."""
    said, error = process.communicate(timeout=WAIT_S)
    return process.returncode, said + error


def until_runs_at(host: MovingHost) -> None:
    """Wait for the guest to run at a host."""
    deadline = soon()
    while not host.runs_it:
        assert not deadline.has_passed()


# -- libvirt and QEMU --------------------------------------------------------------------------


def test_the_destination_s_libvirt_is_killed(site: MovingSite) -> None:
    """While the memory moves: the guest is where it was; what is left goes once it is back."""
    process = site.launch(0)
    site.hosts[1].libvirt.kill_daemon()
    status, said = ended(process)
    site.hosts[1].libvirt.start_daemon()
    assert (status, "is where it was" in said) == (1, True), said
    site.until_alone_at(0)


def test_the_destination_s_libvirt_hangs(site: MovingSite) -> None:
    """While the memory moves: given up by libvirt's keepalive; the guest is where it was."""
    process = site.launch(0)
    site.hosts[1].libvirt.hang_daemon()
    try:
        status, said = ended(process)
    finally:
        site.hosts[1].libvirt.wake_daemon()
    assert (status, "is where it was" in said) == (1, True), said
    site.until_alone_at(0)


def test_the_source_s_libvirt_is_killed(site: MovingSite) -> None:
    """While the memory moves: it is asked until it is back, and has cancelled the move."""
    process = site.launch(0)
    site.hosts[0].libvirt.kill_daemon()
    site.hosts[0].libvirt.start_daemon()
    status, said = ended(process)
    assert (status, "is where it was" in said) == (1, True), said
    site.until_alone_at(0)


def test_the_source_s_libvirt_hangs(site: MovingSite) -> None:
    """While the memory moves, and wakes later: one side has the guest, and the record says so."""
    process = site.launch(0)
    site.hosts[0].libvirt.hang_daemon()
    with contextlib.suppress(HypervisorUnavailable):
        site.hosts[0].hypervisor.guests(soon(5))
    site.hosts[0].libvirt.wake_daemon()
    status, said = ended(process)
    assert status in {0, 1}, said
    winner = 1 if status == 0 else 0
    site.until_alone_at(winner)


def test_the_destination_s_qemu_is_killed(site: MovingSite) -> None:
    """While the memory moves: the guest is where it was, and all is taken back."""
    process = site.launch(0)
    site.hosts[1].libvirt.kill_guest(NAME)
    status, said = ended(process)
    assert (status, "is where it was" in said) == (1, True), said
    site.until_alone_at(0)


def test_the_source_s_qemu_is_killed(site: MovingSite) -> None:
    """While the memory moves: it runs nowhere, its definition and volumes are at the source."""
    here = site.hosts[0]
    process = site.launch(0)
    here.libvirt.kill_guest(NAME)
    status, said = ended(process)
    assert (status, "is where it was" in said) == (1, True), said
    guest = here.guest()
    assert guest is not None
    assert not guest.is_active
    here.hypervisor.start(guest.id, soon())
    site.until_alone_at(0)


# -- our own processes -------------------------------------------------------------------------


def test_the_command_and_the_source_s_agent_are_killed(site: MovingSite) -> None:
    """While the memory moves: libvirt goes on by itself, and the agent's start ends the move."""
    a, b = site.hosts
    process = site.launch(0)
    process.kill()
    ended(process)
    a.agent.end(signal.SIGKILL)
    site.switch_over(0)
    until_runs_at(b)
    a.start_agent()
    site.until_alone_at(1)


def test_the_service_is_killed(site: MovingSite) -> None:
    """While the memory moves: nobody is fenced without it; it is settled once it is up."""
    process = site.launch(0)
    site.service.stop(signal.SIGKILL)
    site.switch_over(0)
    until_runs_at(site.hosts[1])
    site.service.start()
    status, said = ended(process)
    assert status in {0, 4, 5}, said
    site.until_alone_at(1)


@pytest.mark.parametrize("victim", ["command", "source", "destination", "service"])
def test_killed_at_any_moment(site: MovingSite, victim: str) -> None:
    """Whatever is killed, and when: in the end one host has the guest, and the other nothing."""
    for moment_s in MOMENTS_S:
        source = 0 if site.hosts[0].runs_it else 1
        kill_after(site, source, victim, moment_s)
        site.until_written(10)
        winner = until_at_rest(site)
        assert site.hosts[winner].runs_it
        site.until_written(10)


def kill_after(site: MovingSite, source: int, victim: str, moment_s: float) -> None:
    """Begin a move, kill somebody so much later, let the rest end, and start the victim anew."""
    here, there = site.hosts[source], site.hosts[1 - source]
    words = ("guest", "migrate", NAME, "--to", there.name, "--at", there.at)
    process = here.agent.launch(*words, "--timeout", "30")
    with contextlib.suppress(subprocess.TimeoutExpired):
        process.wait(moment_s)
    match victim:
        case "command":
            process.kill()
        case "source":
            process.kill()
            here.agent.end(signal.SIGKILL)
        case "destination":
            there.agent.end(signal.SIGKILL)
        case _:
            site.service.stop(signal.SIGKILL)
    if victim == "service":
        site.service.start()
    ended(process)
    for host in site.hosts:
        assert host.agent.process is not None
        if host.agent.process.poll() is not None:
            host.start_agent()


def until_at_rest(site: MovingSite) -> int:
    """Wait until no move is open, and one host has all of the guest; return which."""
    deadline = soon(WAIT_S)
    while site.moves.list(soon()) or all(host.left() for host in site.hosts):
        words = [(host.name, host.left()) for host in site.hosts]
        assert not deadline.has_passed(), f"{site.moves.list(soon())}\n{words}"
    winner = 0 if site.hosts[0].left() else 1
    site.until_alone_at(winner)
    return winner


# -- storage, certificates, disks --------------------------------------------------------------


def test_the_destination_s_target_is_removed(site: MovingSite) -> None:
    """Behind the service's back, while the memory moves; mended before the guest runs there."""
    process = site.launch(0)
    helper = TgtHelper(OwnTgtd(site.service.target, site.service.portals))
    initiator = site.hosts[1].initiator
    (found,) = (one for one in helper.exports() if initiator in map(str, one.initiators))
    helper.unexport(found.iqn, found.tid)
    words = ("export", "check", "--repair", "--endpoint", site.service.endpoint)
    status, said, error = site.hosts[0].run(*words)
    assert status == 0, said + error
    site.switch_over(0)
    status, said = ended(process)
    assert status in {0, 1}, said
    site.until_alone_at(1 if status == 0 else 0)


@pytest.mark.parametrize("side", [0, 1], ids=["source", "destination"])
def test_a_certificate_is_refused(site: MovingSite, tmp_path: Path, side: int) -> None:
    """One of another authority: refused before anything is changed."""
    strangers = Authority.make(tmp_path, "Strangers")
    host = site.hosts[side]
    host.end_agent()
    tls = host.tls
    host.use_tls(strangers.issue(host.name))
    host.start_agent()
    try:
        status, said, error = site.migrate(0)
    finally:
        host.end_agent()
        host.use_tls(tls)
        host.start_agent()
    assert status in {4, 5, 6}, said + error
    assert "certificate" in error, error
    site.until_alone_at(0)


@pytest.mark.parametrize("side", [0, 1], ids=["source", "destination"])
def test_a_full_disk(site: MovingSite, side: int) -> None:
    """Where a host's notes cannot be written: refused, or taken back; the guest is where it was."""
    with site.hosts[side].full_disk():
        status, said, error = site.migrate(0)
        assert status != 0, said
    assert "Traceback" not in error
    assert "free" in error or "No space left" in error, error
    site.until_alone_at(0)


@pytest.mark.parametrize(
    "options",
    [
        ("--auto-converge", "--downtime", "800", "--bandwidth", "64"),
        ("--parallel", "2"),
        ("--post-copy",),
    ],
    ids=["auto-converge", "parallel", "post-copy"],
)
def test_ways_to_move(site: MovingSite, options: tuple[str, ...]) -> None:
    """Each of libvirt's ways brings the guest there, whole."""
    status, said, error = site.migrate(0, *options)
    assert status == 0, said + error
    site.until_alone_at(1)
