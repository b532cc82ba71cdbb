"""tgtd as our own daemon: its start, its portals, its end, and who is never signalled."""

from __future__ import annotations

import json
import os
import signal
import socket
import subprocess
import sys
import threading
from collections.abc import Iterator
from dataclasses import replace
from pathlib import Path

import pytest

from lunport.core.change import Change
from lunport.core.errors import (
    InvalidConfig,
    LunportError,
    PortalUnavailable,
    TargetDaemonDown,
)
from lunport.core.portal import Portal
from lunport.host.clock import Deadline
from lunport.host.process import open_child, open_process, reopen_process
from lunport.host.tgtd import OwnTgtd, SystemTgtd
from lunport.targets.tgt import TgtHelper
from tests.daemons.conftest import CHAP, INITIATOR, RunningTgtd, StartTgtd, free_portals
from tests.daemons.qemu_io import QemuSession
from tests.single_exports import unit_of, with_image

pytestmark = pytest.mark.needs("tgtd", "qemu-io")


def soon() -> Deadline:
    """Give a daemon time enough on a busy machine."""
    return Deadline.after(20)


def listening(pid: int) -> set[Portal]:
    """Ask the kernel where a process listens."""
    inodes = set()
    for link in Path(f"/proc/{pid}/fd").iterdir():
        name = str(link.readlink())
        if name.startswith("socket:["):
            inodes.add(name[8:-1])
    found = set()
    for table, family in (("tcp", socket.AF_INET), ("tcp6", socket.AF_INET6)):
        for line in Path(f"/proc/{pid}/net/{table}").read_text().splitlines()[1:]:
            fields = line.split()
            if fields[3] == "0A" and fields[9] in inodes:
                address, _, port = fields[1].partition(":")
                words = bytes.fromhex(address)
                packed = b"".join(words[at : at + 4][::-1] for at in range(0, len(words), 4))
                found.add(Portal(socket.inet_ntop(family, packed), int(port, 16)))
    return found


def leftover_pids(folder: Path) -> list[str]:
    """Find processes that hold the daemon's log open."""
    found = []
    for entry in Path("/proc").glob("[0-9]*/fd"):
        try:
            held = [str(link.readlink()) for link in entry.iterdir()]
        except OSError:
            continue
        if any(path.startswith(f"{folder}/") for path in held):
            found.append(entry.parent.name)
    return [pid for pid in found if int(pid) != os.getpid()]


# -- portals -------------------------------------------------------------------------------


def test_it_listens_on_exactly_its_portals(start_tgtd: StartTgtd) -> None:
    """The kernel shows the configured portals, IPv6 as well, and no other."""
    portals = free_portals("127.0.0.1", "127.0.0.2", "127.0.0.3", "::1")
    running = start_tgtd(portals=portals)
    assert listening(running.daemon.pid() or 0) == set(portals)
    assert running.helper.portals == portals


@pytest.mark.parametrize("taken", [0, 1])
def test_a_portal_in_use_is_an_error_and_nothing_stays(start_tgtd: StartTgtd, taken: int) -> None:
    """The first or another portal that somebody has is named, with why; no daemon is left."""
    portals = free_portals("127.0.0.1", "127.0.0.2")
    running = start_tgtd(portals=portals, is_started=False)
    with socket.create_server((portals[taken].host, portals[taken].port)):
        with pytest.raises(PortalUnavailable, match="another program listens there") as caught:
            running.helper.start()
        assert caught.value.portal == str(portals[taken])
        assert leftover_pids(running.folder) == []
    assert running.helper.start() is Change.CHANGED


@pytest.mark.parametrize("first", [True, False])
def test_an_address_of_another_host_is_missing(start_tgtd: StartTgtd, first: bool) -> None:
    """A portal whose address this host does not have is left out; the other one comes up."""
    here, absent = free_portals("127.0.0.1")[0], Portal("192.0.2.77", 3260)
    running = start_tgtd(portals=(absent, here) if first else (here, absent), is_started=False)
    assert running.helper.start() is Change.CHANGED
    assert listening(running.daemon.pid() or 0) == {here}
    assert running.helper.missing_portals == (absent,)
    assert running.helper.start() is Change.UNCHANGED
    assert running.helper.missing_portals == (absent,)


def test_without_any_address_nothing_comes_up(start_tgtd: StartTgtd) -> None:
    """Where no portal's address is here, the first is named, and no daemon is left."""
    portals = (Portal("192.0.2.77", 3260), Portal("192.0.2.78", 3260))
    running = start_tgtd(portals=portals, is_started=False)
    with pytest.raises(PortalUnavailable, match="not on this host") as caught:
        running.helper.start()
    assert caught.value.portal == "192.0.2.77:3260"
    assert leftover_pids(running.folder) == []
    assert running.helper.missing_portals == portals


def test_tgtd_falling_back_to_every_address_is_found_out(tmp_path: Path) -> None:
    """A daemon that was made to listen elsewhere is refused: it is not exactly as configured.

    This is what tgtd does by itself when its portal cannot be bound.
    """
    daemon = OwnTgtd(tmp_path / "state", free_portals("127.0.0.1"))
    try:
        daemon.start(soon())
        system = SystemTgtd(free_portals("127.0.0.2"), path=daemon.socket.path)
        with pytest.raises(PortalUnavailable, match="listens on 127"):
            system.start(soon())
        both = SystemTgtd(daemon.portals, path=daemon.socket.path)
        assert both.start(soon()) is Change.UNCHANGED
    finally:
        daemon.stop(soon())


@pytest.mark.parametrize(
    "portals",
    [
        (),
        (Portal("storage.example"),),
        (Portal("0.0.0.0"),),
        (Portal("::"),),
        (Portal("127.0.0.1"), Portal("127.0.0.1")),
        tuple(Portal("127.0.0.1", port) for port in range(1, 40)),
    ],
)
def test_portals_that_mean_nothing_are_refused(tmp_path: Path, portals: tuple[Portal, ...]) -> None:
    """No portal, a name, a wildcard, the same twice and too many are configuration errors."""
    with pytest.raises(InvalidConfig):
        OwnTgtd(tmp_path, portals)


# -- taking over ---------------------------------------------------------------------------


def test_a_running_daemon_is_taken_over_with_its_sessions(tgtd: RunningTgtd) -> None:
    """A later service finds the daemon, changes nothing, and a session writes on."""
    export = tgtd.export()
    tgtd.helper.export(export)
    pid = tgtd.daemon.pid()
    with QemuSession(
        tgtd.folder, tgtd.portals[0], export.iqn, INITIATOR, CHAP.initiator
    ) as session:
        later = TgtHelper(OwnTgtd(tgtd.daemon.folder, tgtd.portals))
        assert later.start() is Change.UNCHANGED
        assert later.export(export) is Change.UNCHANGED
        assert [one.sessions for one in later.exports()] == [1]
        assert "wrote 65536/65536" in session.run("write -P 0x5a 0 64k")
    assert tgtd.daemon.pid() == pid
    assert unit_of(export).path.read_bytes()[:65536] == b"\x5a" * 65536


def test_changed_portals_are_bound_and_unbound_on_the_running_daemon(tgtd: RunningTgtd) -> None:
    """A new portal is added and an old one given up, while a session on a third goes on."""
    export = tgtd.export()
    tgtd.helper.export(export)
    kept, added = tgtd.portals[0], free_portals("127.0.0.4")[0]
    with QemuSession(tgtd.folder, kept, export.iqn, INITIATOR, CHAP.initiator) as session:
        later = OwnTgtd(tgtd.daemon.folder, (added, kept))
        assert later.start(soon()) is Change.CHANGED
        assert listening(later.pid() or 0) == {kept, added}
        assert "wrote" in session.run("write 0 4k")
    with QemuSession(tgtd.folder, added, export.iqn, INITIATOR, CHAP.initiator) as session:
        assert "read" in session.run("read 0 4k")


def test_it_outlives_the_service_that_started_it(tmp_path: Path) -> None:
    """A daemon whose service is killed runs on, answers, and is taken over by the next."""
    portals = free_portals("127.0.0.1")
    code = (
        "import os, signal, sys; from pathlib import Path\n"
        "from lunport.core.portal import Portal; from lunport.host.clock import Deadline\n"
        "from lunport.host.tgtd import OwnTgtd\n"
        f"OwnTgtd(Path({str(tmp_path)!r}), [Portal('127.0.0.1', {portals[0].port})])"
        ".start(Deadline.after(20))\n"
        "os.kill(os.getpid(), signal.SIGKILL)\n"
    )
    environment = {**os.environ, "PYTHONPATH": os.pathsep.join(sys.path)}
    ended = subprocess.run([sys.executable, "-c", code], env=environment, check=False, timeout=60)
    assert ended.returncode == -signal.SIGKILL
    daemon = OwnTgtd(tmp_path, portals)
    try:
        assert daemon.is_alive(soon())
        assert daemon.start(soon()) is Change.UNCHANGED
    finally:
        assert daemon.stop(soon()) is Change.CHANGED
    assert leftover_pids(tmp_path) == []


def test_a_lost_record_loses_no_daemon(tgtd: RunningTgtd) -> None:
    """Without its record the daemon is found by its socket, and the record is made again."""
    pid = tgtd.daemon.pid()
    record = tgtd.daemon.folder / "tgtd.json"
    record.unlink()
    assert OwnTgtd(tgtd.daemon.folder, tgtd.portals).start(soon()) is Change.UNCHANGED
    assert json.loads(record.read_text())["pid"] == pid


def test_a_lost_socket_brings_a_new_daemon(tgtd: RunningTgtd) -> None:
    """A daemon that cannot be reached any more is found by its record, ended and replaced."""
    pid = tgtd.daemon.pid() or 0
    watched = open_process(pid, "tgtd")
    assert watched is not None
    with watched:
        tgtd.daemon.socket.path.unlink()
        assert tgtd.helper.start() is Change.CHANGED
        assert watched.has_ended()
    assert tgtd.daemon.pid() != pid
    assert listening(tgtd.daemon.pid() or 0) == set(tgtd.portals)


def test_a_hung_daemon_is_down_and_is_replaced(tgtd: RunningTgtd) -> None:
    """Whoever asks a daemon that hangs is told in time, and a start puts another in its place."""
    pid = tgtd.daemon.pid() or 0
    os.kill(pid, signal.SIGSTOP)
    hasty = TgtHelper(tgtd.daemon, timeout_s=0.2)
    assert not hasty.is_alive()
    with pytest.raises(TargetDaemonDown, match=r"no answer within 0\.2 s"):
        hasty.exports()
    assert not hasty.wait_for_exit(Deadline.after(0.05))
    assert tgtd.daemon.start(Deadline.after(4)) is Change.CHANGED
    assert tgtd.daemon.pid() != pid
    assert tgtd.helper.is_alive()


def test_two_services_starting_at_once_make_one_daemon(start_tgtd: StartTgtd) -> None:
    """Of several starts exactly one starts a daemon, and the others take it over."""
    running = start_tgtd(is_started=False)
    changes: list[Change] = []

    def start() -> None:
        changes.append(OwnTgtd(running.daemon.folder, running.portals).start(soon()))

    threads = [threading.Thread(target=start) for _ in range(4)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    assert sorted(change.value for change in changes) == ["changed"] + ["unchanged"] * 3


# -- whom it never signals -----------------------------------------------------------------


@pytest.fixture
def stranger() -> Iterator[subprocess.Popen[bytes]]:
    """A process that is nobody's business."""
    with subprocess.Popen(["sleep", "300"]) as child:
        yield child
        child.kill()


def test_a_reused_pid_is_never_signalled(
    start_tgtd: StartTgtd, stranger: subprocess.Popen[bytes]
) -> None:
    """A record that names a process which is no tgtd of ours ends nothing."""
    running = start_tgtd(is_started=False)
    running.daemon.folder.mkdir()
    record = {"pid": stranger.pid, "start_ticks": 1, "boot_id": "another"}
    (running.daemon.folder / "tgtd.json").write_text(json.dumps(record))
    assert running.daemon.stop(soon()) is Change.UNCHANGED
    assert running.daemon.start(soon()) is Change.CHANGED
    assert stranger.poll() is None


def test_a_tgtd_of_somebody_else_is_never_signalled(start_tgtd: StartTgtd) -> None:
    """A record with the pid of another tgtd, but not its start, is not believed."""
    theirs, ours = start_tgtd("theirs"), start_tgtd("ours", is_started=False)
    ours.daemon.folder.mkdir()
    process = open_process(theirs.daemon.pid() or 0, "tgtd")
    assert process is not None
    with process:
        aged = replace(process.name, start_ticks=process.name.start_ticks - 1)
        assert reopen_process(aged, "tgtd") is None
        record = {"pid": aged.pid, "start_ticks": aged.start_ticks, "boot_id": aged.boot_id}
        (ours.daemon.folder / "tgtd.json").write_text(json.dumps(record))
        assert ours.daemon.stop(soon()) is Change.UNCHANGED
        assert not process.has_ended()


# -- its end, its log, its path ------------------------------------------------------------


def test_its_end_is_noticed_at_once(tgtd: RunningTgtd) -> None:
    """A waiting supervisor is woken by the daemon's death."""
    process = open_process(tgtd.daemon.pid() or 0, "tgtd")
    assert process is not None
    with process:
        killer = threading.Timer(0.1, process.kill)
        killer.start()
        assert tgtd.daemon.wait_for_exit(soon())
        killer.join()
    assert tgtd.daemon.wait_for_exit(Deadline.after(0))


def test_it_ends_by_request_and_leaves_no_socket(tgtd: RunningTgtd) -> None:
    """A stopped daemon is gone with its socket and record; stopping again changes nothing."""
    assert tgtd.daemon.stop(soon()) is Change.CHANGED
    assert tgtd.daemon.stop(soon()) is Change.UNCHANGED
    left = {path.name for path in tgtd.daemon.folder.iterdir()}
    assert left == {"lock", "tgtd.log", "socket.1.lock"}


def test_its_log_stays_bounded(tgtd: RunningTgtd) -> None:
    """A log that has grown is emptied, and what the daemon says later is in it."""
    log = tgtd.daemon.folder / "tgtd.log"
    with log.open("ab") as file:
        file.write(b"x" * (3 << 20))
    assert tgtd.helper.is_alive()
    assert log.stat().st_size == 0
    tgtd.helper.export(tgtd.export())
    text = log.read_text()
    assert "path=" in text
    assert CHAP.initiator.password.reveal() not in text
    assert log.stat().st_mode & 0o077 == 0


def test_a_path_of_any_length_works(start_tgtd: StartTgtd) -> None:
    """A data folder longer than a socket's name can be is no hindrance, taking over as well."""
    name = "/".join("long-folder-name-" + str(number) * 40 for number in range(4))
    running = start_tgtd(is_started=False)
    daemon = OwnTgtd(running.folder / name, running.portals)
    assert len(str(daemon.socket.path)) > 200
    try:
        assert daemon.start(soon()) is Change.CHANGED
        assert TgtHelper(daemon).export(running.export()) is Change.CHANGED
        assert OwnTgtd(daemon.folder, daemon.portals).start(soon()) is Change.UNCHANGED
    finally:
        assert daemon.stop(soon()) is Change.CHANGED


def test_a_path_with_a_comma_is_refused_clearly(tgtd: RunningTgtd) -> None:
    """No comma can be given to tgtd: the export says so and leaves nothing."""
    export = with_image(tgtd.export(), tgtd.image("one,two"))
    with pytest.raises(LunportError, match="comma"):
        tgtd.helper.export(export)
    assert tgtd.helper.exports() == ()


def test_an_image_that_is_gone_is_named(tgtd: RunningTgtd) -> None:
    """An export of a missing file says which, and leaves no target."""
    export = with_image(tgtd.export(), tgtd.folder / "volume-gone")
    with pytest.raises(LunportError, match=r"volume-gone: it is gone"):
        tgtd.helper.export(export)
    assert tgtd.helper.exports() == ()


# -- the system's tgtd ---------------------------------------------------------------------


def test_a_system_tgtd_is_used_and_never_ended(tgtd: RunningTgtd) -> None:
    """Of the system's daemon only our targets are seen and taken away, and it runs on."""
    theirs = replace(tgtd.export(tid=40), iqn=type(tgtd.export().iqn)("iqn.2001-04.example:theirs"))
    tgtd.helper.export(theirs)
    system = SystemTgtd(tgtd.portals, path=tgtd.daemon.socket.path)
    helper = TgtHelper(system, target_prefix="iqn.2026-11.io.lunport:volume-")
    ours = tgtd.export(tid=2, chap=None)
    assert helper.start() is Change.UNCHANGED
    assert helper.export(ours) is Change.CHANGED
    assert [one.iqn for one in helper.exports()] == [ours.iqn]
    with pytest.raises(LunportError, match="theirs"):
        helper.export(replace(ours, tid=40))
    assert helper.stop() is Change.CHANGED
    assert [one.iqn for one in tgtd.helper.exports()] == [theirs.iqn]
    assert not system.wait_for_exit(Deadline.after(0))


def test_a_missing_system_tgtd_is_said_at_the_start(tmp_path: Path) -> None:
    """Where the system runs none, the start says that nobody listens."""
    system = SystemTgtd(free_portals("127.0.0.1"), path=tmp_path / "socket.0")
    with pytest.raises(TargetDaemonDown, match="nobody listens"):
        system.start(soon())
    assert not system.is_alive(soon())
    assert system.wait_for_exit(Deadline.after(0))


def test_a_child_is_known_without_its_name() -> None:
    """A program that was just started may not have its own name yet; it is ours all the same."""
    child = subprocess.Popen(["sleep", "60"])
    try:
        handle = open_child(child.pid)
        assert handle is not None
        with handle:
            assert handle.name.pid == child.pid
            handle.kill()
            assert handle.wait(Deadline.after(10))
        assert open_child(child.pid) is None
    finally:
        child.wait(10)


def test_who_only_looks_leaves_no_connection_behind(tgtd: RunningTgtd) -> None:
    """While initiators write, asking who listens costs the daemon no descriptor."""
    export = tgtd.export()
    tgtd.helper.export(export)
    pid = tgtd.daemon.pid()
    assert pid is not None
    descriptors = Path(f"/proc/{pid}/fd")
    with QemuSession(
        tgtd.folder, tgtd.portals[0], export.iqn, INITIATOR, CHAP.initiator
    ) as session:
        assert "wrote" in session.run("write -P 0x61 0 64k")
        before = len(list(descriptors.iterdir()))
        for number in range(30):
            assert "wrote" in session.run(f"write -P {number} 0 64k")
            assert tgtd.daemon.socket.peer_pid(Deadline.after(5)) == pid
        assert "wrote" in session.run("write -P 0x62 0 64k")
        assert tgtd.daemon.is_alive(Deadline.after(5))
        assert len(list(descriptors.iterdir())) <= before
