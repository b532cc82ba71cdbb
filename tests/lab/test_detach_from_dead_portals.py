"""Detach works when the portal in use is dead (spec A): bounded, and nothing is left.

Sessions here notice a dead portal within two seconds; the kernel would give one up only
after 120, and no disconnect may wait for that.
"""

from __future__ import annotations

import subprocess
import threading
from collections.abc import Iterator
from concurrent.futures import ThreadPoolExecutor
from dataclasses import replace
from pathlib import Path

import pytest

from lab import faults
from lab.lio import Disk
from lab.san import San
from lab.services import wait_until
from lunport.core.change import Change
from lunport.core.errors import AllPathsFailed, FlushFailed
from lunport.core.host_connection import Phase
from lunport.core.login_progress import ChoicePolicy
from lunport.host.clock import Deadline
from lunport.host.runner import run
from lunport.initiator.connected_volume import ConnectedVolume
from lunport.initiator.connector import Initiator
from lunport.initiator.initiator_host import InitiatorHost
from tests.lab.connecting import disks, first_bytes, info_of, mark, node_records, sessions
from tests.lab.mishaps import QUICK, eager_pings

BOUND_S = 40.0  # for one disconnect: well below the 120 s after which the kernel gives up


@pytest.fixture(autouse=True)
def pings() -> Iterator[None]:
    """Notice dead portals soon."""
    with eager_pings():
        yield


def state_of(session: str) -> str:
    """Say what the kernel thinks of a session."""
    return (Path("/sys/class/iscsi_session") / session / "state").read_text().strip()


def settle() -> None:
    """Let udev be done with all disks."""
    run(["udevadm", "settle", "--timeout=30"], Deadline.after(40))


def write_and_leave(volume: ConnectedVolume, content: bytes) -> subprocess.Popen[bytes]:
    """Have a program write to a disk and close it, which goes on for as long as the write."""
    copy = f"of={volume.path}"
    program = subprocess.Popen(
        ["dd", copy, "bs=64k", "conv=notrunc", "status=none"], stdin=subprocess.PIPE
    )
    assert program.stdin is not None
    program.stdin.write(content)
    program.stdin.close()
    # Nobody else has it open, so its close is the last one, which writes.
    inflight = Path("/sys/block") / Path(volume.path).name / "inflight"
    wait_until(lambda: inflight.read_text().split()[1] != "0", "the write to be on its way")
    return program


def disconnect(initiator: Initiator, *words: object, force: bool = False) -> Change:
    """Disconnect within the bound."""
    deadline = Deadline.after(BOUND_S)
    try:
        return initiator.disconnect(*words, force=force, deadline=deadline)  # type: ignore[arg-type]
    finally:
        assert not deadline.has_passed()


@pytest.mark.parametrize("is_noticed", [False, True], ids=["just now", "a while ago"])
def test_a_volume_goes_although_its_portal_is_dead(san: San, is_noticed: bool) -> None:
    """Disk, session, record and entry are gone, whether or not the kernel has noticed."""
    target = san.target()
    info = info_of(target, 1, san.add_lun(target, 1))
    initiator = Initiator(policy=QUICK)
    volume = initiator.connect(info)
    assert first_bytes(volume.path)
    (session,) = sessions()
    with faults.portal_drops(san, san.portals[0]):
        if is_noticed:
            wait_until(lambda: state_of(session) == "FAILED", "the session's failure")
        assert disconnect(initiator, info) is Change.CHANGED
        assert (sessions(), disks(), node_records()) == ([], [], [])
        assert initiator.connections() == ()
        assert initiator.disconnect(info) is Change.UNCHANGED
        again = initiator.connect(info)
        assert again.used.portal == san.portals[1]
        initiator.disconnect(info)


def test_volumes_that_share_a_dead_session_go_one_by_one(san: San) -> None:
    """The first leaves the other's disk and session alone; the last takes the session along."""
    target = san.target()
    infos = [info_of(target, lun, san.add_lun(target, lun)) for lun in (1, 2)]
    initiator = Initiator(policy=QUICK)
    volumes = [initiator.connect(info) for info in infos]
    with faults.portal_drops(san, san.portals[0]):
        assert disconnect(initiator, infos[0]) is Change.CHANGED
        assert (len(sessions()), disks()) == (1, [Path(volumes[1].path).name])
        assert disconnect(initiator, infos[1]) is Change.CHANGED
    assert (sessions(), disks(), node_records()) == ([], [], [])


def test_what_is_not_written_yet_keeps_a_volume_connected(san: San) -> None:
    """A disconnect that would lose data is refused, all stays, and healed nothing is lost."""
    target = san.target()
    disk = san.add_lun(target, 1)
    info = info_of(target, 1, disk)
    initiator = Initiator(policy=QUICK)
    volume = initiator.connect(info)
    settle()
    before = initiator.connections()
    content = b"not lost ".ljust(512, b"!") * 256
    with faults.portal_drops(san, san.portals[0]):
        writer = write_and_leave(volume, content)
        with pytest.raises(FlushFailed):
            disconnect(initiator, info)
        # Nor does a repeated connect take another path over it.
        with pytest.raises(FlushFailed):
            initiator.connect(info, deadline=Deadline.after(BOUND_S))
        assert initiator.connections() == before
        assert (len(sessions()), disks()) == (1, [Path(volume.path).name])
    assert writer.wait(60) == 0
    assert disconnect(initiator, info) is Change.CHANGED
    assert _stored(disk, len(content)) == content


def test_what_is_not_written_yet_is_lost_by_force(san: San) -> None:
    """With force the volume goes, also after a disconnect without it, and the writer ends."""
    target = san.target()
    disk = san.add_lun(target, 1)
    marked = mark(disk, "as it was")
    info = info_of(target, 1, disk)
    initiator = Initiator(policy=QUICK)
    volume = initiator.connect(info)
    settle()
    with faults.portal_drops(san, san.portals[0]):
        writer = write_and_leave(volume, b"lost" * 4096)
        with pytest.raises(FlushFailed):
            disconnect(initiator, info)
        assert disconnect(initiator, info, force=True) is Change.CHANGED
        assert (sessions(), disks(), node_records()) == ([], [], [])
        writer.wait(60)
    assert _stored(disk, len(marked)) == marked


def test_a_recovery_at_a_dead_portal_delays_nobody(san: San) -> None:
    """While what was cut off is finished there, volumes that stand are used as ever."""
    target, other = san.target(portals=san.portals[:1]), san.target("other")
    cut_off = info_of(target, 1, san.add_lun(target, 1))
    healthy = info_of(other, 1, san.add_lun(other, 1), portals=san.portals[1:])
    initiator = Initiator(policy=QUICK)
    for info in (cut_off, healthy):
        initiator.connect(info)
    (entry,) = (one for one in initiator.connections() if one.paths == cut_off.paths)
    initiator.host.journal.write(replace(entry, phase=Phase.DISCONNECTING))
    has_begun, may_end = threading.Event(), threading.Event()

    def hold(step: str) -> None:
        if step == "recovered":
            has_begun.set()
            assert may_end.wait(BOUND_S)

    recovering = Initiator(InitiatorHost(on_step=hold), policy=QUICK)
    with ThreadPoolExecutor(1) as pool:
        recovery = pool.submit(recovering.recover)
        assert has_begun.wait(BOUND_S)
        assert disconnect(initiator, healthy) is Change.CHANGED
        assert not recovery.done()
        may_end.set()
        assert [step.error for step in recovery.result(BOUND_S) if step.error] == []
    assert (sessions(), disks(), node_records()) == ([], [], [])


def test_a_disconnect_that_was_cut_off_is_finished_through_a_dead_portal(san: San) -> None:
    """Recover removes what a killed disconnect left, without the portal."""
    target = san.target()
    info = info_of(target, 1, san.add_lun(target, 1))

    def die(step: str) -> None:
        if step == "disconnect-intended":
            raise KeyboardInterrupt

    initiator = Initiator(policy=QUICK)
    initiator.connect(info)
    killed = replace(initiator, host=replace(initiator.host, on_step=die))
    with faults.portal_drops(san, san.portals[0]):
        with pytest.raises(KeyboardInterrupt):
            killed.disconnect(info)
        deadline = Deadline.after(BOUND_S)
        steps = initiator.recover()
        assert not deadline.has_passed()
        assert [step.error for step in steps] == [None] * len(steps)
        assert (sessions(), disks(), node_records()) == ([], [], [])
        assert initiator.connections() == ()


def _stored(disk: Disk, count: int) -> bytes:
    with disk.file.open("rb") as file:
        return file.read(count)


def test_a_dead_only_portal_is_an_error_and_not_a_wait(san: San) -> None:
    """A connect through a portal that died in use fails at once, and leaves the other volume."""
    target = san.target()
    infos = [
        info_of(target, lun, san.add_lun(target, lun), portals=san.portals[:1]) for lun in (1, 2)
    ]
    initiator = Initiator(policy=replace(QUICK, choice=ChoicePolicy(budget_s=2)))
    initiator.connect(infos[0])
    with faults.portal_drops(san, san.portals[0]):
        deadline = Deadline.after(BOUND_S)
        with pytest.raises(AllPathsFailed):
            initiator.connect(infos[1], deadline=deadline)
        assert not deadline.has_passed()
        assert (len(sessions()), len(disks())) == (1, 1)
        assert disconnect(initiator, infos[0]) is Change.CHANGED
