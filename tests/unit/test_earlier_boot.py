"""Tests of what the agent brings back after a reboot, on a real journal and a played initiator."""

from __future__ import annotations

import threading
from dataclasses import replace
from pathlib import Path

import pytest

from lunport.agent.agent import Agent
from lunport.agent.boot import BootRecovery, EarlierBoot
from lunport.core.change import Change
from lunport.core.chap import Chap, ChapCredentials
from lunport.core.connection_info import ConnectionInfo
from lunport.core.errors import (
    AllPathsFailed,
    LunportError,
    PortalUnreachable,
    UndoFailed,
    WrongDevice,
)
from lunport.core.host_connection import HostConnection, Phase
from lunport.core.iqn import Iqn
from lunport.core.multipath_use import MultipathUse, StallProfile
from lunport.core.portal import Portal
from lunport.core.secret import Secret
from lunport.core.target_path import TargetPath
from lunport.core.wwid import Wwid
from lunport.host.clock import Deadline
from lunport.host.dead_portals import DeadPortals
from lunport.host.file_locks import FileLocks
from lunport.host.path_notes import PathNotes
from lunport.initiator.initiator_host import InitiatorHost
from lunport.initiator.journal import Journal
from lunport.initiator.multipath_policy import MultipathPolicy
from tests.fakes.journal_initiator import JournalInitiator, make_entry, unfinished

WAIT_S = 30.0
NOW, BEFORE = "boot-now", "boot-before"
CHAP = Chap(ChapCredentials("user", Secret("Secret4Tests1234")))
DOWN = AllPathsFailed([PortalUnreachable("10.0.1.2:3260", "refused")])
OTHER = AllPathsFailed([WrongDevice("10.0.1.2:3260", "naa.6001", "naa.6002")])


def info_of(number: int) -> ConnectionInfo:
    """Describe a volume."""
    return ConnectionInfo(
        paths=tuple(
            TargetPath(Portal(f"10.0.{at}.2"), Iqn(f"iqn.2026-11.org.example:v{number}"), 1)
            for at in (1, 2)
        ),
        volume_id=f"volume-{number}",
        wwid=Wwid(f"naa.6001405{number:025x}"),
    )


class Host:
    """One host: its journal, and what is played beside it."""

    def __init__(self, folder: Path) -> None:
        self.folder = folder
        self.runs_multipathd = True
        self.host = InitiatorHost(
            locks=FileLocks(folder / "locks"),
            journal=Journal(folder / "journal"),
            memory=DeadPortals(folder / "dead"),
            path_notes=PathNotes(folder / "notes"),
            boot_id=NOW,
        )
        self.initiator = JournalInitiator(self.host)
        self.earlier = self.restart()

    @property
    def journal(self) -> Journal:
        """The journal."""
        return self.host.journal

    def restart(self) -> EarlierBoot:
        """Return what a new agent makes of the folders."""
        return EarlierBoot(
            self.initiator, self.host, MultipathPolicy(), lambda: self.runs_multipathd
        )

    def agent(self) -> Agent:
        """Return an agent."""
        return Agent(
            self.initiator,
            lambda: self.runs_multipathd,
            earlier_boot=self.earlier,
            brings_back=True,
        )

    def was_connected(self, number: int, **changes: object) -> HostConnection:
        """Leave an entry of an earlier boot."""
        entry = replace(make_entry(info_of(number), BEFORE), **changes)  # type: ignore[arg-type]
        self.journal.write(entry)
        return entry

    def bring_back(self) -> list[str]:
        """Try once; return the outcomes."""
        lines = self.earlier.bring_back(Deadline.after(WAIT_S))
        return [line.outcome for line in lines]

    def boots(self) -> dict[str, str]:
        """Return what the journal has as connected: the boot of each volume."""
        return {
            entry.volume_id or "": entry.boot_id
            for entry in self.journal.connections()
            if entry.phase is Phase.CONNECTED
        }


@pytest.fixture
def host(tmp_path: Path) -> Host:
    """A host that was started anew."""
    return Host(tmp_path)


def test_exactly_what_was_connected_comes_back(host: Host) -> None:
    """Connected ones are connected again, with their paths; what was cut off is not."""
    host.was_connected(1)
    host.was_connected(2)
    cut_off = make_entry(info_of(3), BEFORE)
    host.journal.write(unfinished(cut_off, Phase.CONNECTING, BEFORE))
    host.journal.write(unfinished(make_entry(info_of(4), BEFORE), Phase.DISCONNECTING, BEFORE))
    host.journal.write(make_entry(info_of(5), NOW))
    assert host.bring_back() == ["done", "done"]
    assert host.boots() == {"volume-1": NOW, "volume-2": NOW, "volume-5": NOW}
    assert sorted(info.volume_id or "" for info, _, _ in host.initiator.connects) == [
        "volume-1",
        "volume-2",
    ]
    assert host.initiator.connects[0][0].paths[1].portal == Portal("10.0.2.2")
    assert host.bring_back() == []


def test_it_comes_back_as_it_was(host: Host) -> None:
    """Credentials, holders and the use of several paths are those of before."""
    use = MultipathUse(wanted=None, queue_s=7.0, stall=StallProfile.FAST)
    entry = host.was_connected(1, multipath=use, holders=("a-1", "a-2"))
    host.journal.write_chap(entry.key, CHAP)
    host.was_connected(2, multipath=replace(use, wanted=1))
    host.was_connected(3)
    assert host.bring_back() == ["done"] * 3
    by_volume = {
        info.volume_id: (info, wish, policy) for info, wish, policy in host.initiator.connects
    }
    info, is_multipath, policy = by_volume["volume-1"]
    assert (info.chap, is_multipath, info.enforce_multipath) == (CHAP, True, True)
    assert (policy.queue_s, policy.stall, policy.resilient) == (7.0, StallProfile.FAST, False)
    again = host.journal.get(entry.key)
    assert again is not None
    assert again.holders == ("a-1", "a-2")
    assert host.journal.chap(entry.key) == CHAP
    assert by_volume["volume-2"][1:] == (False, replace(policy, resilient=True))
    assert by_volume["volume-3"][1:] == (False, MultipathPolicy())


def test_no_single_disk_in_place_of_a_map(host: Host) -> None:
    """What was a map waits until multipathd runs."""
    host.was_connected(1, multipath=MultipathUse())
    host.runs_multipathd = False
    assert host.bring_back() == ["failed"]
    assert host.initiator.connects == []
    host.runs_multipathd = True
    assert host.bring_back() == ["done"]


def test_what_cannot_be_reached_stays_wanted(host: Host) -> None:
    """A failed attempt leaves entry and credentials as they were, and can be repeated."""
    entry = host.was_connected(1, holders=("a-1",))
    host.journal.write_chap(entry.key, CHAP)
    host.initiator.failures[entry.key] = DOWN
    for _ in range(2):
        assert host.bring_back() == ["failed"]
        assert host.journal.get(entry.key) == entry
        assert host.journal.chap(entry.key) == CHAP
        assert host.earlier.in_attempt() == ()
    (awaited,) = host.earlier.awaited()
    assert (awaited.entry, awaited.why) == (entry, str(DOWN))
    host.initiator.failures.clear()
    assert host.bring_back() == ["done"]
    assert host.earlier.awaited() == ()


def test_a_kill_within_an_attempt_loses_nothing(host: Host) -> None:
    """Whatever an attempt took out of the journal, the next agent wants it still."""
    entry = host.was_connected(1)
    host.journal.write_chap(entry.key, CHAP)
    copies: list[tuple[HostConnection, ...]] = []

    def killed() -> None:
        copies.append(host.restart().pending())
        raise KeyboardInterrupt

    host.initiator.midway = killed
    with pytest.raises(KeyboardInterrupt):
        host.initiator.connect(
            info_of(1), policy=MultipathPolicy(), deadline=Deadline.after(WAIT_S)
        )
    assert copies == [()], "without the copy it would be lost"

    def cut_off() -> None:
        copies.append(host.restart().pending())
        for file in (host.folder / "journal" / "returning").rglob("*"):
            if file.is_file():
                kept[file] = file.read_text()

    kept: dict[Path, str] = {}
    host.journal.write(entry)
    host.journal.write_chap(entry.key, CHAP)
    host.initiator.midway = cut_off
    host.initiator.failures[entry.key] = DOWN
    host.bring_back()
    assert copies[1] == (entry,)
    # As a kill just then leaves it: the copy, and of the entry nothing.
    host.journal.remove(entry.key)
    for file, text in kept.items():
        file.write_text(text)
    host.initiator.failures.clear()
    host.earlier = host.restart()
    assert host.bring_back() == ["done"]
    assert host.journal.chap(entry.key) == CHAP
    assert host.boots() == {"volume-1": NOW}


def test_an_attempt_that_could_not_be_undone_stays_wanted(host: Host) -> None:
    """While the journal has an unfinished connect in its place the copy stands for it."""
    entry = host.was_connected(1)

    def leaves_something() -> None:
        host.journal.write(unfinished(entry, Phase.CONNECTING, NOW))
        raise UndoFailed(DOWN, [DOWN])

    host.initiator.midway = leaves_something
    assert host.bring_back() == ["failed"]
    host.initiator.midway = lambda: None
    host.earlier = host.restart()
    assert host.earlier.pending() == (entry,)
    assert host.bring_back() == ["done"]
    assert host.earlier.in_attempt() == ()


def test_another_disk_is_told_and_left(host: Host) -> None:
    """One whose unit is another one now is not tried again by itself, but when asked."""
    entry = host.was_connected(1)
    host.initiator.failures[entry.key] = OTHER
    assert host.bring_back() == ["failed"]
    host.earlier.bring_back(Deadline.after(WAIT_S), is_asked_for=False)
    assert len(host.initiator.connects) == 1
    assert host.journal.get(entry.key) == entry
    host.initiator.failures.clear()
    assert host.bring_back() == ["done"]


def test_what_is_disconnected_does_not_come_back(host: Host) -> None:
    """A disconnect counts at any moment, within an attempt as well."""
    first, second = host.was_connected(1), host.was_connected(2)
    agent = host.agent()
    assert agent.disconnect(info_of(1), deadline=Deadline.after(WAIT_S)) is Change.CHANGED

    def disconnected() -> None:
        assert agent.disconnect(info_of(2), deadline=Deadline.after(WAIT_S)) is Change.CHANGED

    host.initiator.midway = disconnected
    host.initiator.failures[second.key] = DOWN
    assert host.bring_back() == ["failed"]
    assert (host.journal.connections(), host.earlier.pending()) == ((), ())
    assert host.restart().pending() == ()
    host.initiator.failures.clear()
    host.initiator.midway = lambda: None
    agent.connect(info_of(1), deadline=Deadline.after(WAIT_S))
    assert host.boots() == {"volume-1": NOW}
    assert first.key == host.journal.connections()[0].key


def test_the_list_knows_what_is_on_its_way(host: Host) -> None:
    """While an attempt has the entry out of the journal it is listed all the same."""
    entry = host.was_connected(1)
    seen: list[tuple[HostConnection, ...]] = []
    host.initiator.midway = lambda: seen.append(host.agent().connections())
    host.bring_back()
    assert seen == [(entry,)]


def test_its_paths_are_missing_until_it_is_back(host: Host) -> None:
    """What is to come back is shown as down, with the reason of each path; then it is not."""
    entry = host.was_connected(1, multipath=MultipathUse())
    host.was_connected(2)
    refused = PortalUnreachable(str(entry.paths[1]), "refused")
    host.initiator.failures[entry.key] = AllPathsFailed([refused])

    def shown() -> list[tuple[int, list[tuple[str, str | None]]]]:
        return [
            (one.wanted, [(path.state.value, path.why) for path in one.paths])
            for one in host.agent().paths()
        ]

    not_yet = "not connected yet since this host was started"
    assert shown() == [
        (2, [("missing", not_yet), ("missing", not_yet)]),
        (1, [("missing", not_yet), ("missing", not_yet)]),
    ]
    host.bring_back()
    ((wanted, paths),) = shown()
    assert (wanted, paths[1]) == (2, ("missing", str(refused)))
    assert str(refused) in (paths[0][1] or "")
    host.initiator.failures.clear()
    host.bring_back()
    assert shown() == []


def test_a_recovery_that_is_asked_for_gives_nothing_up(host: Host) -> None:
    """The initiator's recovery leaves what is to come back, and then it is tried."""
    entry = host.was_connected(1)
    host.was_connected(2)
    host.journal.write(unfinished(make_entry(info_of(3), BEFORE), Phase.CONNECTING, BEFORE))
    host.initiator.failures[entry.key] = DOWN
    lines = host.agent().recover(deadline=Deadline.after(WAIT_S))
    assert [line.outcome for line in lines] == ["seen", "seen", "done", "failed", "done"]
    assert lines[3].sentence == (
        f"Connect {entry.key} (volume volume-1) again, as before this host was started anew."
    )
    assert lines[3].error == str(DOWN)
    assert host.boots() == {"volume-1": BEFORE, "volume-2": NOW}


def test_without_the_agent_a_recovery_gives_them_up(host: Host) -> None:
    """In a command's process a recovery says what is lost, as the initiator does."""
    host.was_connected(1)
    agent = replace(host.agent(), brings_back=False)
    (line,) = agent.recover(deadline=Deadline.after(WAIT_S))
    assert line.sentence.startswith("Give up")
    assert host.journal.connections() == ()


@pytest.mark.parametrize("failure", [DOWN, None])
def test_the_boot_waits_for_what_is_missing(host: Host, failure: LunportError | None) -> None:
    """The host is recovered once; what fails is tried until it is there, and the rest is not."""
    entry = host.was_connected(1)
    host.was_connected(2)
    host.journal.write(unfinished(make_entry(info_of(3), BEFORE), Phase.CONNECTING, BEFORE))
    tries: list[str] = []
    is_done = threading.Event()

    def midway() -> None:
        tries.append("try")
        if len(tries) >= 4:
            host.initiator.failures.clear()
            is_done.set()

    host.initiator.midway = midway
    if failure is not None:
        host.initiator.failures[entry.key] = failure
    boot = BootRecovery(host.initiator, host.earlier, pauses=(0.001, 0.002))
    boot.start()
    if failure is not None:
        assert is_done.wait(WAIT_S)
    boot.wait(WAIT_S)
    assert boot.is_over
    assert host.boots() == {"volume-1": NOW, "volume-2": NOW}
    assert len(tries) == (4 if failure is not None else 2)


def test_the_boot_ends_when_it_is_told_to(host: Host) -> None:
    """A stop ends the waiting; what is missing stays in the journal for the next agent."""
    entry = host.was_connected(1)
    host.initiator.failures[entry.key] = DOWN
    tried = threading.Event()
    host.initiator.midway = tried.set
    boot = BootRecovery(host.initiator, host.earlier, pauses=(WAIT_S, WAIT_S))
    boot.start()
    assert tried.wait(WAIT_S)
    boot.stop(WAIT_S)
    assert not boot.is_running
    assert host.restart().pending() == (entry,)
