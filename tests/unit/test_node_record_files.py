"""The files of node records: in one step, for root's eyes, and nothing left of them."""

from __future__ import annotations

import os
import stat
import threading
from pathlib import Path

import pytest

from lunport.core.change import Change
from lunport.core.errors import HostLacks, TransportMissing
from lunport.core.iqn import Iqn
from lunport.core.secret import Secret
from lunport.host.node_records import (
    NodeRecords,
    find_records_folder,
    read_configuration,
    remove_stale_lock,
)

IQN = Iqn("iqn.2026-11.io.lunport.test:a")
PLACE = f"{IQN}/10.0.1.2,3260,1/default"
OLD_FORM = f"{IQN}/10.0.1.2,3260"
LONG_AGO = 60


@pytest.fixture
def records(tmp_path: Path) -> NodeRecords:
    """Make an empty database."""
    return NodeRecords(tmp_path / "iscsi" / "nodes")


def everything(records: NodeRecords) -> list[str]:
    """List every file and folder there, drafts included."""
    root = records.folder.parent
    return sorted(str(path.relative_to(root)) for path in root.rglob("*"))


def mode(path: Path) -> int:
    """Return a file's permissions."""
    return stat.S_IMODE(path.stat().st_mode)


@pytest.mark.parametrize("place", [PLACE, OLD_FORM])
def test_a_record_is_written_read_and_gone(records: NodeRecords, place: str) -> None:
    """Of a record that was taken away nothing is left but the database's folder."""
    records.write(place, Secret("node.name = x\n"))
    assert records.read(place) == Secret("node.name = x\n")
    assert records.delete(place) is Change.CHANGED
    assert records.delete(place) is Change.UNCHANGED
    assert records.read(place) is None
    assert everything(records) == ["nodes"]


def test_only_root_can_look(records: NodeRecords) -> None:
    """Files are 0600 and folders 0700, whatever the umask lets through."""
    before = os.umask(0)
    try:
        records.write(PLACE, Secret("x = y\n"))
    finally:
        os.umask(before)
    file = records.folder / PLACE
    assert mode(file) == 0o600
    assert {mode(file.parent), mode(file.parent.parent), mode(records.folder)} == {0o700}


def test_a_record_is_replaced_in_one_step(records: NodeRecords) -> None:
    """A reader sees the old record or the new one; a draft is never among the records."""
    old, new = Secret("a = 1\n" * 500), Secret("a = 2\n" * 500)
    records.write(PLACE, old)
    seen: list[Secret | None] = []
    done = threading.Event()

    def look() -> None:
        while not done.is_set():
            seen.append(records.read(PLACE))

    reader = threading.Thread(target=look)
    reader.start()
    for text in (new, old) * 50:
        records.write(PLACE, text)
    done.set()
    reader.join()
    assert set(seen) <= {old, new}
    assert records.places(IQN) == (PLACE,)


def test_a_killed_writes_draft_goes_with_the_record(records: NodeRecords) -> None:
    """What a write that was killed left beside the records is deleted with the record."""
    records.write(PLACE, Secret("a = 1\n"))
    draft = records.draft_of(PLACE)
    draft.write_text("half a rec")
    records.write(PLACE, Secret("a = 2\n"))
    assert not draft.exists()
    draft.write_text("half a rec")
    records.delete(PLACE)
    assert everything(records) == ["nodes"]


def test_a_write_that_fails_leaves_no_draft(records: NodeRecords) -> None:
    """A file where a folder must be is the host's trouble; no half of a secret stays."""
    (records.folder / IQN).mkdir(parents=True)
    (records.folder / IQN / "10.0.1.2,3260,1").write_text("an operator's")
    with pytest.raises(HostLacks):
        records.write(PLACE, Secret("a = 2\n"))
    assert everything(records) == ["nodes", f"nodes/{IQN}", f"nodes/{IQN}/10.0.1.2,3260,1"]


def test_writes_and_deletes_side_by_side_leave_what_they_say(records: NodeRecords) -> None:
    """Threads that write and delete records of one target share its folder without failing."""
    places = [f"{IQN}/10.0.{number}.2,3260,1/default" for number in range(4)]
    failures: list[BaseException] = []

    def churn(place: str) -> None:
        try:
            for _ in range(100):
                records.write(place, Secret("a = 1\n"))
                assert records.read(place) is not None
                records.delete(place)
        except (HostLacks, AssertionError) as error:
            failures.append(error)

    threads = [threading.Thread(target=churn, args=(place,)) for place in places]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    assert failures == []
    assert everything(records) == ["nodes"]


def test_other_records_and_strangers_stay(records: NodeRecords) -> None:
    """Deleting one record keeps the target's others and what anybody else put there."""
    other = f"{IQN}/10.0.2.2,3260,1/default"
    records.write(PLACE, Secret("a = 1\n"))
    records.write(other, Secret("a = 1\n"))
    (records.folder / IQN / "notes").write_text("an operator's")
    records.delete(PLACE)
    assert records.places(IQN) == (other,)
    records.delete(other)
    assert everything(records) == ["nodes", f"nodes/{IQN}", f"nodes/{IQN}/notes"]


def test_rivals_are_what_iscsiadm_would_take_as_well(records: NodeRecords) -> None:
    """Another group or the old form is a rival; another portal or iface is none."""
    rivals = [OLD_FORM, f"{IQN}/10.0.1.2,3260,2/default"]
    others = [f"{IQN}/10.0.1.2,3261,1/default", f"{IQN}/10.0.1.2,3260,1/if1"]
    for place in [PLACE, *rivals, *others]:
        records.write(place, Secret("a = 1\n"))
    assert sorted(records.rivals(PLACE)) == sorted(rivals)
    assert PLACE in records.rivals(OLD_FORM)
    assert f"{IQN}/10.0.1.2,3260,1/if1" in records.rivals(OLD_FORM)


def test_an_empty_database_has_nothing(records: NodeRecords) -> None:
    """Asking does not make it."""
    assert records.places(IQN) == records.rivals(PLACE) == ()
    assert records.read(PLACE) is None
    assert records.delete(PLACE) is Change.UNCHANGED
    assert not records.folder.exists()


def test_an_error_names_the_file_and_keeps_the_old_record(records: NodeRecords) -> None:
    """A folder in the record's way is told as the host's trouble, not as a traceback."""
    (records.folder / PLACE).mkdir(parents=True)
    with pytest.raises(HostLacks, match="could not write"):
        records.write(PLACE, Secret("a = 1\n"))
    assert not list(records.folder.parent.glob(".lunport*"))


def test_ifaces_are_read_from_the_same_database(records: NodeRecords) -> None:
    """A named iface has settings; a built-in one needs none; an unknown one is said to be."""
    folder = records.folder.parent / "ifaces"
    folder.mkdir(parents=True)
    (folder / "if1").write_text("iface.net_ifacename = san1\n")
    assert records.iface_settings("if1") == {"iface.net_ifacename": "san1"}
    assert records.iface_settings("default") == records.iface_settings("iser") == {}
    with pytest.raises(TransportMissing, match="if2"):
        records.iface_settings("if2")


def test_the_configuration_is_read_if_there_is_one(tmp_path: Path) -> None:
    """No iscsid.conf is no settings."""
    file = tmp_path / "iscsid.conf"
    assert read_configuration(file) == {}
    file.write_bytes(b"# x\nnode.startup = automatic\nnode.session.auth.username = \xf6\n")
    assert read_configuration(file)["node.startup"] == "automatic"


@pytest.mark.parametrize(
    "content, expected",
    [
        (b"\x7fELF\0/etc/iscsi/nodes\0/etc/iscsi/nodesx\0", "/etc/iscsi/nodes"),
        (b"x\0/var/lib/iscsi/ifaces\0/var/lib/iscsi/nodes\0", "/var/lib/iscsi/nodes"),
        (b"nothing", "/etc/iscsi/nodes"),
    ],
)
def test_the_database_is_where_iscsiadm_has_it(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, content: bytes, expected: str
) -> None:
    """The program itself says where; both folders may exist on a host."""
    program = tmp_path / "iscsiadm"
    program.write_bytes(content)
    program.chmod(0o755)
    monkeypatch.setenv("PATH", str(tmp_path))
    assert find_records_folder() == Path(expected)


def make_lock(folder: Path, *, comm: str, started_s: float) -> Path:
    """Make a lock and a /proc in which one process runs, started so long after the lock."""
    lock = folder / "lock.write"
    lock.touch()
    proc = folder / "proc"
    (proc / "41").mkdir(parents=True)
    taken = lock.stat().st_ctime
    boot = int(taken) - 1000
    ticks = int((taken + started_s - boot) * os.sysconf("SC_CLK_TCK"))
    (proc / "stat").write_text(f"cpu 1\nbtime {boot}\n")
    (proc / "41" / "comm").write_text(f"{comm}\n")
    (proc / "41" / "stat").write_text(f"41 ({comm}) S {'0 ' * 18}{ticks} 0\n")
    return lock


@pytest.mark.parametrize(
    "age_s, comm, started_s, change",
    [
        (LONG_AGO, "bash", -9, Change.CHANGED),
        (LONG_AGO, "iscsiadm", 9, Change.CHANGED),
        (LONG_AGO, "iscsiadm", -9, Change.UNCHANGED),
        (0, "bash", -9, Change.UNCHANGED),
    ],
)
def test_only_a_lock_that_nobody_can_hold_is_removed(
    tmp_path: Path, age_s: float, comm: str, started_s: float, change: Change
) -> None:
    """It goes if it is old and no iscsiadm is as old; one that waits for it is younger."""
    lock = make_lock(tmp_path, comm=comm, started_s=started_s)
    now = lock.stat().st_ctime + age_s
    assert remove_stale_lock(lock, tmp_path / "proc", now=now) is change
    assert lock.exists() == (change is Change.UNCHANGED)


def test_no_lock_is_no_work(tmp_path: Path) -> None:
    """Where there is no lock nothing is done."""
    assert remove_stale_lock(tmp_path / "lock.write") is Change.UNCHANGED
