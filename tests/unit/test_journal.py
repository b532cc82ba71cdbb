"""The journal on a disk: durable, private, whole files that do not block one another."""

from __future__ import annotations

import fcntl
import os
import stat
import threading
from dataclasses import replace
from pathlib import Path

import pytest

from lunport.core.chap import Chap, ChapCredentials
from lunport.core.errors import HostLacks, InvalidInput, JournalDamaged
from lunport.core.host_connection import HostConnection, OwnedSession, Phase
from lunport.core.iqn import Iqn
from lunport.core.portal import Portal
from lunport.core.secret import Secret
from lunport.core.target_path import TargetPath
from lunport.host.boot_id import read_boot_id
from lunport.host.durable_file import make_folder, remove_durably, write_durably
from lunport.initiator.journal import Journal

IQN = Iqn("iqn.2026-11.org.example:v")


def connection(key: str = "naa.5000000000000001") -> HostConnection:
    """Make a connection."""
    path = TargetPath(Portal("10.0.1.2"), IQN, 1)
    return HostConnection(
        key=key,
        phase=Phase.CONNECTING,
        paths=(path,),
        used=path,
        iface="default",
        addressing_mode=None,
        wwid=None,
        seen_wwid=None,
        volume_id=None,
        holders=(),
        unit=None,
        disk_name=None,
        size_bytes=None,
        boot_id="b",
        since=0.0,
    )


def session(host: str = "10.0.1.2") -> OwnedSession:
    """Make a session of ours."""
    place = f"{IQN}/{host},3260,1/default"
    return OwnedSession(Portal(host), IQN, "default", 1, place, None, "b", Secret("sesame"))


@pytest.fixture
def journal(tmp_path: Path) -> Journal:
    """A journal in a folder that does not exist yet."""
    return Journal(tmp_path / "lib" / "host")


def files_in(journal: Journal) -> list[Path]:
    """List every file below the journal's folder."""
    return sorted(path for path in journal.folder.rglob("*") if not path.is_dir())


# -- entries -------------------------------------------------------------------------------


def test_an_empty_journal_needs_no_folder(journal: Journal) -> None:
    """Reading and removing where nothing was ever written gives nothing and makes nothing."""
    assert journal.connections() == ()
    assert journal.sessions() == ()
    assert journal.damaged() == ()
    assert journal.get("a") is None
    assert journal.get_session(Portal("10.0.1.2"), IQN) is None
    journal.remove("a")
    journal.remove_session(Portal("10.0.1.2"), IQN)
    assert not journal.folder.exists()


def test_connections_are_kept_by_key(journal: Journal) -> None:
    """Each key has one connection, the one written last; removing is idempotent."""
    one, two = connection("one"), connection("two")
    for entry in (two, one, replace(one, phase=Phase.CONNECTED)):
        journal.write(entry)
    assert journal.connections() == (replace(one, phase=Phase.CONNECTED), two)
    assert journal.get("two") == two
    journal.remove("one")
    journal.remove("one")
    assert journal.connections() == (two,)


def test_sessions_are_kept_by_portal_and_target(journal: Journal) -> None:
    """Each portal and target has one session, whatever the spelling of the name."""
    one, two = session("10.0.1.2"), session("10.0.2.2")
    journal.write_session(one)
    journal.write_session(two)
    journal.write_session(replace(one, sid=5))
    assert journal.get_session(one.portal, Iqn(IQN.upper())) == replace(one, sid=5)
    assert set(journal.sessions()) == {replace(one, sid=5), two}
    journal.remove_session(one.portal, Iqn(IQN.upper()))
    journal.remove_session(one.portal, IQN)
    assert journal.sessions() == (two,)


def test_another_journal_on_the_folder_sees_the_same(journal: Journal) -> None:
    """Nothing is kept in memory: what one process writes, another reads."""
    journal.write(connection())
    assert Journal(journal.folder).connections() == (connection(),)


def test_a_key_that_is_no_key_is_refused(journal: Journal) -> None:
    """A key cannot lead out of the folder."""
    with pytest.raises(InvalidInput):
        journal.get("../x")


# -- on the disk -----------------------------------------------------------------------------


def test_files_and_folders_are_private(journal: Journal) -> None:
    """Files are 0600 and the journal's folders 0700, whatever the umask."""
    before = os.umask(0)
    try:
        journal.write(connection())
        journal.write_session(session())
    finally:
        os.umask(before)
    assert {stat.S_IMODE(file.stat().st_mode) for file in files_in(journal)} == {0o600}
    folders = [file.parent for file in files_in(journal)]
    assert {stat.S_IMODE(folder.stat().st_mode) for folder in folders} == {0o700}


def test_each_write_reaches_the_disk_before_it_counts(
    journal: Journal, monkeypatch: pytest.MonkeyPatch
) -> None:
    """The file is brought to the disk before it gets its name, and its folder after that."""
    journal.write(connection())
    steps = []
    fsync, rename = os.fsync, os.rename

    def noted_fsync(descriptor: int) -> None:
        steps.append("folder" if stat.S_ISDIR(os.fstat(descriptor).st_mode) else "file")
        fsync(descriptor)

    def noted_rename(source: Path, target: Path) -> None:
        steps.append("rename")
        rename(source, target)

    monkeypatch.setattr(os, "fsync", noted_fsync)
    monkeypatch.setattr(os, "rename", noted_rename)
    journal.write(connection())
    assert steps == ["file", "rename", "folder"]
    steps.clear()
    journal.remove(connection().key)
    assert steps == ["folder"]


def test_new_folders_reach_the_disk(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """A folder that was made is brought to the disk in the folder above it."""
    synced = []
    fsync = os.fsync

    def noted(descriptor: int) -> None:
        synced.append(os.fstat(descriptor).st_ino)
        fsync(descriptor)

    monkeypatch.setattr(os, "fsync", noted)
    make_folder(tmp_path / "a" / "b")
    assert synced == [tmp_path.stat().st_ino, (tmp_path / "a").stat().st_ino]
    make_folder(tmp_path / "a" / "b")
    assert len(synced) == 2


def test_a_write_that_fails_leaves_what_was_there(
    journal: Journal, monkeypatch: pytest.MonkeyPatch
) -> None:
    """A full disk is an error that says so; the old entry stays, and no half file."""
    journal.write(connection())
    before = files_in(journal)

    def full(_descriptor: int) -> None:
        raise OSError(28, "No space left on device")

    monkeypatch.setattr(os, "fsync", full)
    with pytest.raises(HostLacks, match="No space left"):
        journal.write(replace(connection(), phase=Phase.CONNECTED))
    monkeypatch.undo()
    assert journal.connections() == (connection(),)
    assert files_in(journal) == before


def test_what_a_killed_writer_left_is_swept(journal: Journal) -> None:
    """A half file is never read, and is gone after the next listing."""
    journal.write(connection())
    folder = files_in(journal)[0].parent
    half = folder / ".naa.5000000000000001.json.0123456789ab.partial"
    half.write_text('{"version": 2, "ke')
    assert journal.get(connection().key) == connection()
    assert journal.connections() == (connection(),)
    assert journal.damaged() == ()
    assert not half.exists()


def test_what_was_left_of_credentials_is_swept(journal: Journal) -> None:
    """Half a secret of a killed writer goes, and a whole one of a connection stays."""
    chap = Chap(ChapCredentials("user", Secret("Secret4Tests1234")))
    journal.write_chap("naa.5000000000000001", chap)
    (whole,) = (journal.folder / "credentials").iterdir()
    half = whole.with_name(f".{whole.name}.0123456789ab.partial")
    half.write_text("half a sec")
    journal.sweep()
    assert not half.exists()
    assert journal.chap("naa.5000000000000001") == chap


def test_a_file_that_is_being_written_is_not_swept(journal: Journal) -> None:
    """A listing leaves alone what another process writes just now."""
    journal.write(connection())
    half = files_in(journal)[0].with_name(".x.json.0123456789ab.partial")
    with half.open("w") as writer:
        fcntl.flock(writer, fcntl.LOCK_EX)
        assert journal.connections() == (connection(),)
        assert half.exists()
    journal.connections()
    assert not half.exists()


def test_nothing_is_left_after_the_last_removal(journal: Journal) -> None:
    """When all is removed, no file is left, not even a hidden one."""
    journal.write(connection())
    journal.write_session(session())
    journal.remove(connection().key)
    journal.remove_session(session().portal, IQN)
    assert files_in(journal) == []


def test_writers_and_readers_at_once_see_whole_entries(journal: Journal) -> None:
    """While several threads write, list and remove, every read gives a whole entry."""
    start = threading.Barrier(4)
    failures: list[BaseException] = []

    def work(number: int) -> None:
        start.wait()
        try:
            for count in range(25):
                journal.write(replace(connection("shared"), since=float(count)))
                journal.write(connection(f"own-{number}"))
                assert journal.damaged() == ()
                assert f"own-{number}" in {entry.key for entry in journal.connections()}
                journal.remove(f"own-{number}")
        except (AssertionError, HostLacks) as error:
            failures.append(error)

    threads = [threading.Thread(target=work, args=(number,)) for number in range(4)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    assert failures == []
    assert [file.name for file in files_in(journal)] == ["shared.json"]


# -- damage ------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    "damage",
    [
        b"",
        b"\0" * 300,
        b'{"version": 2',
        b'{"version": 2, "key": "bad"}',
        b"\xff\xfe",
        b"[]",
    ],
)
def test_one_damaged_file_blocks_no_other(journal: Journal, damage: bytes) -> None:
    """A file that can't be read is listed, kept, and an error only for who asks for it."""
    journal.write(connection("bad"))
    journal.write(connection("good"))
    (bad,) = (file for file in files_in(journal) if file.name == "bad.json")
    bad.write_bytes(damage)
    assert journal.connections() == (connection("good"),)
    assert journal.damaged() == (bad,)
    assert journal.get("good") == connection("good")
    with pytest.raises(JournalDamaged, match=r"bad\.json"):
        journal.get("bad")
    with pytest.raises(JournalDamaged):
        journal.write(connection("bad"))
    assert bad.read_bytes() == damage
    journal.remove("bad")
    assert journal.damaged() == ()


def test_a_damaged_session_blocks_no_other(journal: Journal) -> None:
    """The same holds for sessions, and the error does not show the record in it."""
    journal.write_session(session("10.0.1.2"))
    journal.write_session(session("10.0.2.2"))
    bad = next(file for file in files_in(journal) if "10.0.1.2" in file.read_text())
    bad.write_text(bad.read_text().replace('"version": 2', '"version": 9'))
    assert journal.sessions() == (session("10.0.2.2"),)
    (error,) = journal.damages()
    assert error.file == str(bad)
    assert "newer release" in str(error)
    assert "sesame" not in str(error)


def test_a_file_under_anothers_name_is_damaged(journal: Journal) -> None:
    """A copy of an entry is not taken for another entry."""
    journal.write(connection("one"))
    file = files_in(journal)[0]
    file.with_name("two.json").write_bytes(file.read_bytes())
    assert journal.connections() == (connection("one"),)
    with pytest.raises(JournalDamaged, match="it holds one"):
        journal.get("two")


def test_a_folder_in_the_place_of_a_file_is_damage(journal: Journal) -> None:
    """What can't be read as a file is listed too."""
    journal.write(connection("one"))
    folder = files_in(journal)[0].with_name("two.json")
    folder.mkdir()
    assert journal.damaged() == (folder,)
    assert journal.connections() == (connection("one"),)


def test_a_journal_that_is_no_folder_is_an_error_that_says_so(tmp_path: Path) -> None:
    """Where the journal can't be, every use says which file and why."""
    file = tmp_path / "host"
    file.write_text("")
    with pytest.raises(HostLacks, match=r"connections.* cannot be"):
        Journal(file).write(connection())
    with pytest.raises(HostLacks, match="cannot be read"):
        Journal(file).connections()


# -- beside it ---------------------------------------------------------------------------------


def test_removing_a_file_tells_whether_it_was_there(tmp_path: Path) -> None:
    """The second removal finds nothing and is no error."""
    write_durably(tmp_path / "x", "text")
    assert remove_durably(tmp_path / "x")
    assert not remove_durably(tmp_path / "x")


def test_a_boot_has_an_id(tmp_path: Path) -> None:
    """The kernel's id of this boot does not change; where it can't be read, that is said."""
    assert read_boot_id() == read_boot_id()
    assert len(read_boot_id()) == 36
    with pytest.raises(HostLacks, match="no id"):
        read_boot_id(tmp_path / "missing")
    (tmp_path / "empty").write_text("\n")
    with pytest.raises(HostLacks, match="is empty"):
        read_boot_id(tmp_path / "empty")
