"""Sessions that volumes share, on the real kernel: one login, one logout, and nobody waits.

Threads and processes connect and disconnect at once. A connect that hangs on a dead portal
delays nobody else: proved by the order of events, the hanging one's end being ours to give.
"""

from __future__ import annotations

import contextlib
import socket
import threading
from collections.abc import Callable, Iterator, Sequence
from concurrent.futures import Future, ThreadPoolExecutor
from functools import partial
from pathlib import Path
from typing import TypeVar

import pytest

from lab import faults
from lab.lio import Disk, Target
from lab.san import San
from lab.services import wait_until
from lunport.core.connection_info import ConnectionInfo
from lunport.core.errors import AllPathsFailed
from lunport.core.login_progress import ChoicePolicy
from lunport.core.node_record import RecordSettings, record_place
from lunport.core.portal import Portal
from lunport.host.clock import Deadline
from lunport.host.node_records import NodeRecords
from lunport.host.runner import run
from lunport.initiator.connected_volume import InitiatorPolicy
from lunport.initiator.connector import Initiator
from tests.lab.connecting import disks, first_bytes, info_of, mark, node_records, sessions
from tests.lab.kill_play import Player
from tests.lab.mishaps import count_iscsiadm, mishaps

ROUNDS = 4

Result = TypeVar("Result")


def session_file(name: str) -> str:
    """Read something of the only session there is."""
    (session,) = sessions()
    return (Path("/sys/class/iscsi_session") / session / name).read_text().strip()


def many(target: Target, san: San, count: int) -> list[tuple[ConnectionInfo, bytes]]:
    """Make LUNs from 1 on, each with a content of its own."""
    made: list[Disk] = [san.add_lun(target, lun, size_mib=8) for lun in range(1, count + 1)]
    return [
        (info_of(target, lun, disk), mark(disk, f"volume {lun}"))
        for lun, disk in enumerate(made, start=1)
    ]


def at_once(actions: Sequence[Callable[[], Result]]) -> list[Result]:
    """Begin all at the same moment, each in a thread of its own; give what each returned."""
    barrier = threading.Barrier(len(actions))

    def begin(action: Callable[[], Result]) -> Result:
        barrier.wait()
        return action()

    with ThreadPoolExecutor(len(actions)) as pool:
        return [future.result() for future in [pool.submit(begin, one) for one in actions]]


@pytest.fixture
def starts(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Callable[[], list[str]]:
    """Every start of iscsiadm."""
    return count_iscsiadm(tmp_path, monkeypatch)


def test_eight_threads_log_in_once(san: San, starts: Callable[[], list[str]]) -> None:
    """Eight volumes of one target at once: one login, one session; and one logout at the end."""
    volumes = many(san.target(), san, 8)
    initiator = Initiator()

    def connect(info: ConnectionInfo, content: bytes) -> None:
        assert first_bytes(initiator.connect(info).path) == content

    at_once([partial(connect, *one) for one in volumes])
    assert (len(sessions()), len(disks()), len(node_records())) == (1, 8, 1)
    assert ["--login" in line for line in starts()] == [True]
    at_once([partial(initiator.disconnect, info) for info, _ in volumes])
    assert (sessions(), disks(), node_records()) == ([], [], [])
    assert ["--logout" in line for line in starts()] == [False, True]


def test_four_processes_log_in_once(san: San, starts: Callable[[], list[str]]) -> None:
    """Four processes with a volume each share one login, and the last one logs out."""
    volumes = many(san.target(), san, 4)
    with contextlib.ExitStack() as stack:
        players = [stack.enter_context(Player.started()) for _ in volumes]

        def play(verb: str) -> list[str]:
            acts = [
                partial(player.play, verb, info)
                for player, (info, _) in zip(players, volumes, strict=True)
            ]
            return [played.failure for played in at_once(acts)]

        assert play("connect") == [""] * 4
        assert (len(sessions()), len(disks())) == (1, 4)
        assert play("disconnect") == [""] * 4
    assert ["--login" in line for line in starts()] == [True, False]
    assert (sessions(), disks(), node_records(), Initiator().connections()) == ([], [], [], ())


def test_nobody_logs_out_under_another(san: San) -> None:
    """Volumes of one target come and go by threads, many rounds: each one's disk reads well."""
    volumes = many(san.target(), san, 4)

    def come_and_go(info: ConnectionInfo, content: bytes) -> None:
        initiator = Initiator()
        for _ in range(ROUNDS):
            volume = initiator.connect(info)
            # Over which path is a matter of how busy the machine is.
            assert first_bytes(volume.path) == content
            initiator.disconnect(info)

    at_once([partial(come_and_go, *one) for one in volumes])
    assert (sessions(), disks(), node_records(), Initiator().connections()) == ([], [], [], ())


@pytest.mark.parametrize("has_record", [True, False], ids=["with its record", "record gone"])
def test_a_session_that_was_there_is_used_and_stays(san: San, has_record: bool) -> None:
    """What was logged in by hand is not logged out, and its record is not touched."""
    target = san.target()
    info = info_of(target, 1, san.add_lun(target, 1))
    node = ("iscsiadm", "-m", "node", "-T", target.iqn, "-p", f"{san.portals[0]},{target.tpgt}")
    soon = Deadline.after(60)
    run([*node, "-o", "new"], soon)
    scan = ("-n", "node.session.scan", "-v", "manual")
    run([*node, "-o", "update", *scan, "-n", "node.startup", "-v", "automatic"], soon)
    run([*node, "--login"], soon)
    try:
        if not has_record:
            NodeRecords().delete(record_place(san.portals[0], target.iqn, target.tpgt, "default"))
        before, sid = _records(), sessions()
        initiator = Initiator()
        for _ in range(2):
            volume = initiator.connect(info)
            assert volume.used == info.main_path
            assert (sessions(), _records()) == (sid, before)
            initiator.disconnect(info)
            assert (sessions(), disks(), _records()) == (sid, [], before)
        initiator.recover()
        assert (sessions(), session_file("state")) == (sid, "LOGGED_IN")
    finally:
        run(["iscsiadm", "-m", "session", "-r", sessions()[0].removeprefix("session"), "-u"], soon)
        run([*node, "-o", "delete"], soon, accepted=(0, 21))


def _records() -> dict[str, tuple[str, int]]:
    root = NodeRecords().folder
    files = [path for path in root.rglob("*") if path.is_file()]
    return {str(path): (path.read_text(), path.stat().st_mtime_ns) for path in files}


def test_the_record_that_was_there_before_is_put_back(san: San) -> None:
    """Without a session, the record of somebody else gives way for ours and comes back."""
    target = san.target()
    info = info_of(target, 1, san.add_lun(target, 1))
    node = ("iscsiadm", "-m", "node", "-T", target.iqn, "-p", f"{san.portals[0]},{target.tpgt}")
    run([*node, "-o", "new"], Deadline.after(60))
    try:
        before = {name: text for name, (text, _) in _records().items()}
        Initiator().connect(info)
        assert before != {name: text for name, (text, _) in _records().items()}
        Initiator().disconnect(info)
        assert before == {name: text for name, (text, _) in _records().items()}
    finally:
        run([*node, "-o", "delete"], Deadline.after(60))


# -- nobody waits for a dead portal ----------------------------------------------------------


@contextlib.contextmanager
def silent_portal(san: San) -> Iterator[tuple[Portal, Callable[[], socket.socket]]]:
    """A portal that says nothing until its connection is closed; gives it, and who came."""
    portal = Portal(san.portals[3].host, 3999)
    server = san.network.call(lambda: socket.create_server((portal.host, portal.port)))
    with server:
        server.settimeout(60)
        yield portal, lambda: server.accept()[0]


def test_a_probe_that_hangs_delays_nobody(san: San) -> None:
    """A volume of the very same target comes and goes while another's probe hangs."""
    target = san.target()
    stuck, healthy = (info_of(target, lun, san.add_lun(target, lun)) for lun in (1, 2))
    endless = InitiatorPolicy(budget_s=300, choice=ChoicePolicy(budget_s=300))
    with silent_portal(san) as (portal, accept), ThreadPoolExecutor(1) as pool:
        alone = info_of(target, 1, portals=[portal])
        hanging: Future[object] = pool.submit(Initiator(policy=endless).connect, alone)
        with accept():
            Initiator().connect(healthy)
            Initiator().disconnect(healthy)
            assert not hanging.done()
        with pytest.raises(AllPathsFailed):
            hanging.result(60)
    assert Initiator().connect(stuck).used == stuck.main_path
    Initiator().disconnect(stuck)


def test_a_session_that_is_about_to_reconnect_is_waited_for(san: San) -> None:
    """A volume comes over a session whose target was restarted just now, on the same path."""
    target = san.target(portals=san.portals[:1])
    first, second = (info_of(target, lun, san.add_lun(target, lun)) for lun in (1, 2))
    Initiator().connect(first)
    (session,) = sessions()
    with faults.target_restarted(target):
        state = Path("/sys/class/iscsi_session") / session / "state"
        wait_until(lambda: state.read_text().strip() != "LOGGED_IN", "the session's loss")
    volume = Initiator().connect(second)
    assert volume.used == second.main_path
    assert sessions() == [session]
    for info in (first, second):
        Initiator().disconnect(info)


def test_a_login_that_hangs_delays_nobody(san: San) -> None:
    """While iscsid waits for a dead portal for one, it serves logins and logouts of all others."""
    target, other = san.target(), san.target("other")
    stuck = info_of(target, 1, san.add_lun(target, 1))
    healthy = [
        # its list has the dead portal too, where somebody else's login hangs
        info_of(target, 2, san.add_lun(target, 2), portals=(*san.portals[1:], san.portals[0])),
        info_of(other, 1, san.add_lun(other, 1), portals=san.portals[1:]),
    ]
    patient = InitiatorPolicy(
        budget_s=300, login_s=200, record=RecordSettings(login_timeout_s=100, login_retries=1)
    )
    with mishaps() as at, ThreadPoolExecutor(1) as pool:
        hangs = threading.Event()

        @contextlib.contextmanager
        def dead() -> Iterator[None]:
            with faults.portal_drops(san, san.portals[0]):
                hangs.set()
                yield

        at("record-written", dead)
        login: Future[object] = pool.submit(at.initiator(patient).connect, stuck)
        assert hangs.wait(60)
        for info in healthy:
            volume = Initiator().connect(info)
            assert volume.used == info.main_path
            Initiator().disconnect(info)
        assert not login.done()
        assert at.steps[-1] == "record-written"
        at.heal()
        login.result(120)
        assert "logged-in" in at.steps
    Initiator().disconnect(stuck)
