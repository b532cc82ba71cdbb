"""Kill -9 at every step of connect, disconnect and recover, and what recover makes of it.

The steps are those that the initiator names (``InitiatorHost.on_step``); kills between them,
at every call that changes something, are in ``tests/lab_stress``.
"""

from __future__ import annotations

import contextlib
import itertools
import json
import shutil
from collections.abc import Iterator
from dataclasses import replace
from pathlib import Path

import pytest

from lab.lio import Target
from lab.san import San
from lab.services import wait_until
from lunport.core.connection_info import ConnectionInfo
from lunport.core.recovery_actions import (
    LeaveInUse,
    LeftoverSession,
    RecoveryAction,
)
from lunport.host.clock import Deadline
from lunport.host.host_root import state_directory
from lunport.host.node_records import find_records_folder
from lunport.host.runner import run
from lunport.initiator.connector import Initiator
from tests.lab.connecting import CHAP, disks, first_bytes, info_of, mark, node_records, sessions
from tests.lab.kill_play import Kill, Player, Remap
from tests.lab.traces import NOTHING, Traces, files_with, take_traces

OTHERS_RECORD = """# BEGIN RECORD 2.1.8
node.name = {iqn}
node.startup = manual
node.session.auth.password = somebody-elses
# END RECORD
"""


@pytest.fixture(scope="module")
def player() -> Iterator[Player]:
    """The process that plays acts and is killed in their place."""
    with Player.started() as made:
        yield made


def recover() -> tuple[RecoveryAction, ...]:
    """Recover as a new process would: foreseen first, which changes nothing; then for good."""
    settle()
    before = replace(take_traces(), locks=())
    foreseen = Initiator().foresee_recover()
    assert replace(take_traces(), locks=()) == before
    steps = Initiator().recover()
    assert [step.error for step in steps if step.error] == []
    assert [step.action for step in steps] == list(foreseen)
    assert_recovered()
    return foreseen


def settle() -> None:
    """Wait until each unit that was scanned has its disk, which the kernel makes a moment later."""
    units = Path("/sys/bus/scsi/devices").glob("[0-9]*:*")
    disks_to_come = [unit for unit in units if read(unit / "type") == "0"]
    wait_until(lambda: all([*unit.glob("block/*")] for unit in disks_to_come), "disks")


def read(file: Path) -> str:
    """Read a file of sysfs; nothing if it goes away."""
    with contextlib.suppress(OSError):
        return file.read_text().strip()
    return ""


def assert_recovered() -> None:
    """Nothing is left to do, and a second recover does nothing."""
    before = take_traces()
    assert [step for step in Initiator().recover() if step.action.changes] == []
    assert take_traces() == before
    assert before.locks == ()


def kill_connects(player: Player, info: ConnectionInfo, content: bytes, before: Traces) -> set[str]:
    """Kill a connect at each of its steps; after recover all is as before, or well connected.

    Each connect is also the proof that one works after the recover of the last.
    """
    killed_at = set()
    for number in itertools.count():
        played = player.play("connect", info, Kill(at_step=number))
        if not played.is_killed:
            break
        killed_at.add(played.last)
        recover()
        if played.last == "connect-noted":
            [path] = {f"/dev/{name}" for name in disks()} - {
                f"/dev/{name}" for name in before.disks
            }
            assert first_bytes(path) == content
            Initiator().disconnect(info)
        assert take_traces() == before, played
    assert first_bytes(played.path) == content
    Initiator().disconnect(info)
    assert take_traces() == before
    return killed_at


def kill_disconnects(player: Player, info: ConnectionInfo, before: Traces) -> set[str]:
    """Kill a disconnect at each of its steps; after recover the volume is gone, and it alone."""
    killed_at = set()
    for number in itertools.count():
        Initiator().connect(info)
        played = player.play("disconnect", info, Kill(at_step=number))
        if played.is_killed:
            killed_at.add(played.last)
            recover()
        assert take_traces() == before, played
        if not played.is_killed:
            return killed_at
    raise AssertionError("unreachable")


SESSION_STEPS = {"session-intended", "record-written", "logged-in", "session-noted"}
CONNECT_STEPS = {"connect-intended", "scanned", "verified", "connect-noted"}
LOGOUT_STEPS = ("logged-out", "record-removed", "session-forgotten")
DISCONNECT_STEPS = {
    "disconnect-intended", "closed", "flushed", "disk-removed", "disconnect-noted",
}  # fmt: skip


def test_killed_anywhere_nothing_is_left(san: San, player: Player) -> None:
    """After a kill at any step and a recover nothing is left, above all no secret."""
    target = san.target(chap=CHAP)
    disk = san.add_lun(target, 1)
    content = mark(disk, "one")
    info = info_of(target, 1, disk, chap=CHAP)
    assert kill_connects(player, info, content, NOTHING) == CONNECT_STEPS | SESSION_STEPS
    assert kill_disconnects(player, info, NOTHING) == DISCONNECT_STEPS | {*LOGOUT_STEPS}
    assert files_with(CHAP.initiator.password.reveal()) == []


@pytest.mark.again
def test_killed_anywhere_another_volume_of_the_session_survives(san: San, player: Player) -> None:
    """A kill at any step leaves a second volume of the same session as it was, and readable."""
    target = san.target()
    stays, goes = san.add_lun(target, 1), san.add_lun(target, 2)
    content = mark(stays, "stays")
    stays_info, info = info_of(target, 1, stays), info_of(target, 2, goes)
    volume = Initiator().connect(stays_info)
    before = take_traces()

    assert kill_connects(player, info, mark(goes, "goes"), before) == CONNECT_STEPS
    assert first_bytes(volume.path) == content
    assert kill_disconnects(player, info, before) == DISCONNECT_STEPS
    assert first_bytes(volume.path) == content
    assert Initiator().connect(stays_info).path == volume.path
    Initiator().disconnect(stays_info)
    assert take_traces().are_none


@pytest.mark.again
def test_killed_anywhere_somebody_elses_record_is_put_back(san: San, player: Player) -> None:
    """A node record that was there before ours is there after recover, byte for byte."""
    target = san.target()
    disk = san.add_lun(target, 1)
    info = info_of(target, 1, disk)
    others_record(target)
    before = take_traces()
    assert OTHERS_RECORD.format(iqn=target.iqn) in before.records.values()

    for step in ("session-intended", "record-written", "logged-in", "session-noted"):
        assert player.play("connect", info, Kill(step)).is_killed
        recover()
        assert take_traces() == before, step
    for step in ("disk-removed", "logged-out", "record-removed", "session-forgotten"):
        Initiator().connect(info)
        assert player.play("disconnect", info, Kill(step)).is_killed
        recover()
        assert take_traces() == before, step

    forget_records(target)


@pytest.mark.again
def test_killed_during_failover_nothing_is_left(san: San, player: Player) -> None:
    """Killed while a path that failed after its login is undone, and on the next: nothing left."""
    first, second = (san.target(f"t{i}", portals=san.portals[i : i + 1]) for i in (0, 1))
    disk, wrong = san.disk(), san.disk()
    first.map_lun(1, disk)
    second.map_lun(1, disk)
    info = ConnectionInfo(paths=(*san.paths(first, 1), *san.paths(second, 1)), wwid=disk.wwid)
    # The probe sees the right disk, and the kernel the wrong one.
    remap = Remap("session-noted", first, 1, wrong)
    played = player.play("connect", info, remap=remap)
    assert played.steps.count("session-noted") == 2, played
    assert played.steps.count("record-written") == 2, played
    Initiator().disconnect(info)
    assert take_traces().are_none
    # From the wrong disk to the login of the second path; what follows is as without failover.
    second_login = len(played.steps) - played.steps[::-1].index("logged-in")
    for number in range(played.steps.index("scanned"), second_login):
        first.remap_lun(1, disk)
        again = player.play("connect", info, Kill(at_step=number), remap=remap)
        assert again.steps == played.steps[: number + 1]
        recover()
        assert take_traces().are_none, again
    first.remap_lun(1, disk)


@pytest.mark.parametrize(
    "after_s",
    [0.06, *(pytest.param(after, marks=pytest.mark.again) for after in (0.02, 0.12, 0.3)), 0.2],
)
def test_killed_while_iscsiadm_logs_in_nothing_is_left(
    san: San, player: Player, after_s: float
) -> None:
    """A login that outlives its killed process is waited for, and undone."""
    target = san.target(chap=CHAP)
    disk = san.add_lun(target, 1)
    info = info_of(target, 1, disk, chap=CHAP)
    played = player.play("connect", info, Kill("record-written", after_s=after_s))
    recover_late()
    if played.last == "connect-noted":
        Initiator().disconnect(info)
    assert take_traces().are_none, played


@pytest.mark.parametrize(
    "after_s", [0.08, *(pytest.param(after, marks=pytest.mark.again) for after in (0.02, 0.15))]
)
def test_killed_while_iscsiadm_logs_out_nothing_is_left(
    san: San, player: Player, after_s: float
) -> None:
    """A logout that outlives its killed process does not disturb the recover."""
    target = san.target()
    disk = san.add_lun(target, 1)
    info = info_of(target, 1, disk)
    Initiator().connect(info)
    player.play("disconnect", info, Kill("disk-removed", after_s=after_s))
    recover_late()
    assert take_traces().are_none


def recover_late() -> None:
    """Recover while a killed process's iscsiadm may go on: what is foreseen may not hold."""
    assert [step.error for step in Initiator().recover() if step.error] == []
    assert_recovered()


def test_recover_killed_anywhere_is_taken_up_by_the_next(san: San, player: Player) -> None:
    """A recover that is killed at any of its steps leaves to the next what is left to do."""
    target = san.target(chap=CHAP)
    kept, cut = san.add_lun(target, 1), san.add_lun(target, 2)
    lone = san.target("t2")
    alone = san.add_lun(lone, 1)
    cut_off = info_of(target, 2, cut, chap=CHAP)
    gone, stays = info_of(lone, 1, alone), info_of(target, 1, kept, chap=CHAP)
    # What it does for the second session is what it did for the first.
    killed_at = []
    for number in range(2 + len(LOGOUT_STEPS)):
        player.play("connect", cut_off, Kill("verified"))
        Initiator().connect(gone)
        player.play("disconnect", gone, Kill("closed"))
        assert len(sessions()) == 2
        played = player.play("recover", None, Kill(at_step=number))
        recover()
        assert take_traces().are_none, played
        killed_at.append(played.last)
    assert killed_at == ["recovered", "recovered", *LOGOUT_STEPS]
    assert Initiator().connect(stays).wwid == kept.wwid
    Initiator().disconnect(stays)


# -- another boot ------------------------------------------------------------------------------


def pretend_earlier_boot() -> None:
    """Let the journal be of a boot before this one."""
    for file in state_directory().rglob("*.json"):
        entry = json.loads(file.read_text())
        file.write_text(json.dumps({**entry, "boot_id": "00000000-0000-0000-0000-000000000000"}))


def reboot() -> None:
    """Let all sessions go as a restart of this host does: journal and records stay."""
    kept = [
        (path, path.read_text())
        for folder in (state_directory(), find_records_folder())
        for path in folder.rglob("*")
        if path.is_file()
    ]
    for name in sessions():
        run(["iscsiadm", "-m", "session", "-r", name.removeprefix("session"), "-u"], soon())
    assert disks() == []
    for path, text in kept:
        path.parent.mkdir(parents=True, exist_ok=True)
        path.write_text(text)
    pretend_earlier_boot()


def test_after_a_reboot_what_was_connected_is_reported_and_no_secret_stays(
    san: San, player: Player
) -> None:
    """A connection of an earlier boot is told as lost, what was cut off is forgotten."""
    target = san.target(chap=CHAP)
    was, cut = san.add_lun(target, 1), san.add_lun(target, 2)
    info, cut_off = (info_of(target, lun, disk, chap=CHAP) for lun, disk in ((1, was), (2, cut)))
    Initiator().connect(info)
    player.play("connect", cut_off, Kill("scanned"))
    reboot()
    assert files_with(CHAP.initiator.password.reveal()) != []

    actions = recover()

    assert sorted(type(action).__name__ for action in actions) == [
        "DeleteRecord", "ForgetConnection", "ReportLost",
    ]  # fmt: skip
    assert take_traces().are_none
    assert files_with(CHAP.initiator.password.reveal()) == []
    assert Initiator().connect(info).wwid == was.wwid
    Initiator().disconnect(info)
    assert take_traces().are_none


def test_after_a_reboot_connect_needs_no_recover(san: San) -> None:
    """A connect after a reboot clears what its own volume left in the boot before."""
    target = san.target(chap=CHAP)
    disk = san.add_lun(target, 1)
    info = info_of(target, 1, disk, chap=CHAP)
    Initiator().connect(info)
    reboot()
    assert Initiator().connect(info).wwid == disk.wwid
    assert recover()[0].changes is False
    Initiator().disconnect(info)
    assert take_traces().are_none


@pytest.mark.parametrize("clears", ["recover", "connect"])
def test_after_a_reboot_a_session_of_others_is_not_taken_for_ours(
    san: San, player: Player, clears: str
) -> None:
    """A journal of an earlier boot gives no right to a session that somebody made in this one."""
    target = san.target()
    disk = san.add_lun(target, 1)
    info = info_of(target, 1, disk, portals=san.portals[:1])
    others_record(target)
    Initiator().connect(info)
    reboot()
    with others_session(target):
        theirs = sessions()
        if clears == "connect":
            Initiator().connect(info)
            Initiator().disconnect(info)
        recover_late()
        assert (sessions(), disks()) == (theirs, [])
    recover_late()
    forget_records(target)
    assert take_traces().are_none


# -- what no journal knows ---------------------------------------------------------------------


def soon() -> Deadline:
    """Return the time that a program of the test's own gets."""
    return Deadline.after(30)


def others_record(target: Target) -> None:
    """Write somebody else's node record for a target's first portal, where ours would go."""
    portal = target.portals[0]
    folder = find_records_folder() / target.iqn / f"{portal.host},{portal.port},{target.tpgt}"
    folder.mkdir(parents=True)
    (folder / "default").write_text(OTHERS_RECORD.format(iqn=target.iqn))


def forget_records(target: Target) -> None:
    """Remove what somebody else had written about a target."""
    shutil.rmtree(find_records_folder() / target.iqn, ignore_errors=True)


def iscsiadm(*words: str) -> None:
    """Do something that Lunport has no part in."""
    run(["iscsiadm", *words], soon())


class others_session:  # noqa: N801  (reads as the verb it is)
    """A session that somebody else made by hand to a target's first portal."""

    def __init__(self, target: Target, *, scan: str = "manual") -> None:
        self.where = ("-m", "node", "-T", target.iqn, "-p", str(target.portals[0]))
        self.scan = scan

    def __enter__(self) -> None:
        iscsiadm(*self.where, "-o", "new")
        iscsiadm(*self.where, "-o", "update", "-n", "node.session.scan", "-v", self.scan)
        iscsiadm(*self.where, "--login")

    def __exit__(self, *_: object) -> None:
        run(["iscsiadm", *self.where, "--logout"], soon(), accepted=(0, 21))
        run(["iscsiadm", *self.where, "-o", "delete"], soon(), accepted=(0, 21))


def test_a_session_of_others_is_shown_and_goes_only_when_asked_and_closed(san: San) -> None:
    """A leftover is left alone by recover, refused while open, and removed on demand."""
    target = san.target(portals=san.portals[:1])
    san.add_lun(target, 1)
    with others_session(target, scan="auto"):
        run(["udevadm", "settle"], soon())
        assert len(disks()) == 1
        before = take_traces()

        shown = recover()

        assert take_traces() == before
        leftover = next(action for action in shown if isinstance(action, LeftoverSession))
        assert [unit.disk_name for unit in leftover.units] == disks()
        with Path("/dev", disks()[0]).open("rb"):
            steps = Initiator().recover(remove_leftovers=True)
            assert [step for step in steps if step.is_done] == []
            assert "in use by" in str([str(step.action) for step in steps])
        assert take_traces() == before

        removed = Initiator().recover(remove_leftovers=True)

        assert [step.error for step in removed if step.error] == []
        assert take_traces().are_none


def test_a_disk_cut_off_and_open_stays_until_it_is_closed(san: San, player: Player) -> None:
    """A disk that somebody opened after a cut-off connect is left, and said to be in use."""
    target = san.target()
    disk = san.add_lun(target, 1)
    info = info_of(target, 1, disk)
    player.play("connect", info, Kill("verified"))
    with Path("/dev", disks()[0]).open("rb"):
        before = take_traces()
        told = Initiator().recover()
        assert [type(step.action) for step in told] == [LeaveInUse]
        assert replace(take_traces(), locks=before.locks) == before
    recover()
    assert take_traces().are_none


@pytest.mark.parametrize("folder", ["connections", "sessions"])
def test_a_damaged_journal_file_blocks_nobody_and_is_shown(
    san: San, player: Player, folder: str
) -> None:
    """What can't be read is named, stays, and keeps nothing else from being recovered."""
    damaged = state_directory() / folder / ("naa.6001405.json" if folder[0] == "c" else "s.json")
    damaged.parent.mkdir(parents=True, exist_ok=True)
    damaged.write_text("{")
    target = san.target()
    disk = san.add_lun(target, 1)
    info = info_of(target, 1, disk)
    player.play("connect", info, Kill("scanned"))

    Initiator().recover()

    assert Initiator().host.journal.damaged() == (damaged,)
    assert (sessions(), disks(), node_records()) == ([], [], [])
    Initiator().connect(info)
    Initiator().disconnect(info)
    damaged.unlink()
    assert take_traces().are_none
