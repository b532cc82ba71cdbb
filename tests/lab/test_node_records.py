"""Records of ours under the real iscsiadm, iscsid and kernel: logins, secrets, nothing left."""

from __future__ import annotations

import contextlib
import threading
from collections.abc import Iterator
from pathlib import Path

import pytest

from lab.san import IQN_PREFIX, San
from lab.services import wait_until
from lunport.core.change import Change
from lunport.core.chap import Chap, ChapCredentials
from lunport.core.errors import CommandError, LoginRejected
from lunport.core.iqn import Iqn
from lunport.core.kernel_session import KernelSession
from lunport.core.node_record import (
    DEFAULT_IFACE,
    RecordSettings,
    format_node_record,
    parse_settings,
    record_place,
)
from lunport.core.portal import Portal
from lunport.core.secret import Secret
from lunport.core.target_path import TargetPath
from lunport.host.clock import Deadline
from lunport.host.iscsi_sysfs import find_session
from lunport.host.iscsiadm import LoginAnswer, login, logout, logout_record
from lunport.host.node_records import LOCK, NodeRecords, read_configuration, remove_stale_lock
from lunport.host.runner import run
from lunport.host.systree import SysTree

ONE_WAY = Chap(ChapCredentials("lab user", Secret("#one=way 'secret\" \\n")))
MUTUAL = Chap(ONE_WAY.initiator, ChapCredentials("lab-target", Secret("target = secret # 2")))
WRONG = Chap(ChapCredentials("lab user", Secret("quite another secret")))
A_WHILE_S = 40.0


def everything(records: NodeRecords) -> list[str]:
    """List all there is below and beside the records."""
    return sorted(str(path) for path in records.folder.parent.rglob("*"))


def write(
    records: NodeRecords, path: TargetPath, *, chap: Chap | None = None, tpgt: int | None = 1
) -> str:
    """Write the record of a path."""
    place = record_place(path.portal, path.iqn, tpgt, DEFAULT_IFACE)
    text = format_node_record(
        path,
        tpgt=tpgt,
        iface=DEFAULT_IFACE,
        chap=chap,
        settings=RecordSettings(),
        configured=read_configuration() | records.iface_settings(DEFAULT_IFACE),
    )
    records.write(place, text)
    return place


def log_in(path: TargetPath, tpgt: int | None = 1) -> LoginAnswer:
    """Log in by the record."""
    return login(
        path,
        tpgt=tpgt,
        iface=DEFAULT_IFACE,
        is_there=lambda: find_session(SysTree(), path.portal, path.iqn) is not None,
        deadline=Deadline.after(A_WHILE_S),
    )


def log_out(session: KernelSession) -> Change:
    """Log out of a session by its number."""
    return logout(session.sid, where="the test's", deadline=Deadline.after(A_WHILE_S))


def session_of(path: TargetPath) -> KernelSession:
    """Find the session that must be there."""
    session = find_session(SysTree(), path.portal, path.iqn)
    assert session is not None
    assert session.is_logged_in
    return session


@pytest.fixture
def records() -> Iterator[NodeRecords]:
    """The host's database; after a test it has what it had before, and no session is left."""
    found = NodeRecords()
    found.folder.mkdir(exist_ok=True)
    before = everything(found)
    yield found
    assert everything(found) == before
    assert not list(Path("/sys/class/iscsi_session").glob("session*"))


@pytest.fixture
def command_lines() -> Iterator[set[bytes]]:
    """Gather the command line of every process that ran during the test."""
    seen: set[bytes] = set()
    done = threading.Event()

    def watch() -> None:
        while not done.is_set():
            for file in Path("/proc").glob("[0-9]*/cmdline"):
                with contextlib.suppress(OSError):
                    seen.add(file.read_bytes())

    watcher = threading.Thread(target=watch)
    watcher.start()
    try:
        yield seen
    finally:
        done.set()
        watcher.join()


@pytest.mark.parametrize("chap", [None, ONE_WAY, MUTUAL], ids=["open", "one-way", "mutual"])
@pytest.mark.parametrize("family", ["IPv4", "IPv6"])
def test_one_login_by_our_record(
    san: San,
    records: NodeRecords,
    command_lines: set[bytes],
    chap: Chap | None,
    family: str,
) -> None:
    """One run logs in, with signs of every kind in the secrets, which no process list shows."""
    portal = (san.portals if family == "IPv4" else san.portals6)[0]
    path = TargetPath(portal, san.target(portals=[portal], chap=chap).iqn, 1)
    place = write(records, path, chap=chap)

    assert log_in(path) is LoginAnswer.LOGGED_IN
    assert log_in(path) is LoginAnswer.ALREADY
    session = session_of(path)
    assert (session.iface, session.tpgt, session.transport) == (DEFAULT_IFACE, 1, "tcp")
    shown = Path(f"/sys/class/iscsi_session/session{session.sid}/username_in").read_text().strip()
    assert shown == (chap.mutual.username if chap and chap.mutual else "(null)")
    assert log_out(session) is Change.CHANGED
    assert log_out(session) is Change.UNCHANGED

    def was_seen() -> bool:
        # A run may be over before whoever watches has looked: on one processor for instance.
        if any(b"--login" in line for line in command_lines):
            return True
        log_in(path)
        log_out(session_of(path))
        return False

    wait_until(was_seen, "a login in the list of processes", A_WHILE_S)
    assert records.delete(place) is Change.CHANGED
    for credentials in (chap.initiator, chap.mutual) if chap else ():
        if credentials is not None:
            secret = credentials.password.reveal().encode()
            assert not [line for line in command_lines if secret in line]


@pytest.mark.parametrize("chap", [None, MUTUAL], ids=["open", "mutual"])
@pytest.mark.parametrize("tpgt", [1, None])
def test_iscsiadm_reads_our_record_without_a_word(
    san: San, records: NodeRecords, chap: Chap | None, tpgt: int | None
) -> None:
    """Its two readers, for one record and for the list, agree with what was meant; no warning."""
    path = TargetPath(san.portals[0], san.target(chap=chap).iqn, 1)
    place = write(records, path, chap=chap, tpgt=tpgt)
    text = records.read(place)
    assert text is not None
    meant = parse_settings(text.reveal())
    words = ["iscsiadm", "-m", "node", "-T", path.iqn, "-p", str(path.portal), "-o", "show", "-S"]

    shown = run(words, Deadline.after(A_WHILE_S))
    listed = run(["iscsiadm", "-m", "node"], Deadline.after(A_WHILE_S))

    assert (shown.stderr, listed.stderr) == ("", "")
    settings = parse_settings(shown.stdout)
    assert {name: settings[name] for name in meant} == meant
    group = 2**32 - 1 if tpgt is None else tpgt  # -1, as iscsiadm prints it
    assert listed.stdout == f"{path.portal},{group} {path.iqn}\n"
    records.delete(place)


def test_a_login_without_a_known_group(san: San, records: NodeRecords) -> None:
    """A record in the form without a group does as well; the session knows the group."""
    path = TargetPath(san.portals[0], san.target(tpgt=7).iqn, 1)
    place = write(records, path, tpgt=None)
    assert log_in(path, None) is LoginAnswer.LOGGED_IN
    assert session_of(path).tpgt == 7
    assert logout_record(path, iface=DEFAULT_IFACE, deadline=Deadline.after(A_WHILE_S)) is (
        Change.CHANGED
    )
    records.delete(place)


def test_a_session_whose_record_is_gone_can_be_logged_out(san: San, records: NodeRecords) -> None:
    """The number of the session is enough, and its end is no error the second time."""
    path = TargetPath(san.portals[0], san.target().iqn, 1)
    place = write(records, path)
    log_in(path)
    records.delete(place)
    assert log_out(session_of(path)) is Change.CHANGED
    again = logout_record(path, iface=DEFAULT_IFACE, deadline=Deadline.after(A_WHILE_S))
    assert again is Change.UNCHANGED


@pytest.mark.parametrize("chap", [None, WRONG, Chap(ONE_WAY.initiator, WRONG.initiator)])
def test_a_refused_login_is_refused(san: San, records: NodeRecords, chap: Chap | None) -> None:
    """No secret, a wrong one, or a target that cannot prove itself: rejected, no session."""
    path = TargetPath(san.portals[0], san.target(chap=ONE_WAY).iqn, 1)
    place = write(records, path, chap=chap)
    with pytest.raises(LoginRejected):
        log_in(path)
    records.delete(place)


def test_a_login_without_a_record_is_an_error(san: San, records: NodeRecords) -> None:
    """Iscsiadm makes up nothing: it says that there is no record."""
    path = TargetPath(san.portals[0], san.target().iqn, 1)
    with pytest.raises(CommandError, match="No records found"):
        log_in(path)
    assert records.places(path.iqn) == ()


def test_other_peoples_records_come_and_go_during_logins(san: San, records: NodeRecords) -> None:
    """Logins go well while records of other targets are written and deleted all the time."""
    path = TargetPath(san.portals[0], san.target().iqn, 1)
    place = write(records, path)
    done = threading.Event()

    def churn(number: int) -> None:
        other = TargetPath(Portal(f"10.9.9.{number}"), Iqn(f"{IQN_PREFIX}:other{number}"), 1)
        while not done.is_set():
            records.delete(write(records, other))

    threads = [threading.Thread(target=churn, args=(number,)) for number in range(1, 4)]
    for thread in threads:
        thread.start()
    try:
        for _ in range(8):
            assert log_in(path) is LoginAnswer.LOGGED_IN
            assert log_out(session_of(path)) is Change.CHANGED
    finally:
        done.set()
        for thread in threads:
            thread.join()
    records.delete(place)


def test_a_lock_that_was_left_behind_delays_nobody(san: San, records: NodeRecords) -> None:
    """What a killed iscsiadm left is removed once nobody can hold it, and not before."""
    path = TargetPath(san.portals[0], san.target().iqn, 1)
    place = write(records, path)
    run(["iscsiadm", "-m", "node"], Deadline.after(A_WHILE_S))
    LOCK.hardlink_to(LOCK.with_name("lock"))
    assert remove_stale_lock() is Change.UNCHANGED
    wait_until(lambda: remove_stale_lock() is Change.CHANGED, "the lock to be stale")
    assert not LOCK.exists()
    assert log_in(path) is LoginAnswer.LOGGED_IN
    log_out(session_of(path))
    records.delete(place)
