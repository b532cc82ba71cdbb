"""The list of identities that multipath takes for its own, shared with libmultipath."""

from __future__ import annotations

import subprocess
import sys
import threading
from pathlib import Path

import pytest

from lunport.core.change import Change
from lunport.core.errors import HostLacks, Unavailable
from lunport.core.wwid import Wwid
from lunport.host.clock import Deadline
from lunport.host.multipath_wwids import is_registered, register, unregister

WWID = Wwid("naa.60014050000000100000000000000000")
LINE = b"/360014050000000100000000000000000/\n"
OTHER = Wwid("t10.ATA_Disk-7")
OTHER_LINE = b"/1ATA_Disk-7/\n"
# libmultipath/wwids.h, 0.9.4
HEADER = b"""\
# Multipath wwids, Version : 1.0
# NOTE: This file is automatically maintained by multipath and multipathd.
# You should not need to edit this file in normal circumstances.
#
# Valid WWIDs:
"""
# As libmultipath: fcntl's lock on the whole file, until told to let go.
HOLDER = """
import fcntl, sys
file = open(sys.argv[1], "r+b")
fcntl.lockf(file, fcntl.LOCK_EX)
print("held", flush=True)
sys.stdin.read()
"""
# Another process that registers identities of its own.
WRITER = """
import sys
from pathlib import Path
from lunport.core.wwid import Wwid
from lunport.host.multipath_wwids import register, unregister
file = Path(sys.argv[1])
for number in range(40):
    wwid = Wwid(f"naa.6{int(sys.argv[2]):03d}{number:028d}")
    register(wwid, file=file)
    if number % 2:
        unregister(wwid, file=file)
"""


@pytest.fixture
def file(tmp_path: Path) -> Path:
    """Where the list will be; not even its folder is there."""
    return tmp_path / "multipath" / "wwids"


def test_a_new_list_is_what_libmultipath_would_make(file: Path) -> None:
    """Header and line are byte for byte those of libmultipath, and so are the modes."""
    assert register(WWID, file=file) is Change.CHANGED
    assert file.read_bytes() == HEADER + LINE
    assert file.stat().st_mode & 0o777 == 0o600
    assert file.parent.stat().st_mode & 0o777 == 0o700


def test_registering_twice_changes_nothing(file: Path) -> None:
    """An identity is in the list once."""
    register(WWID, file=file)
    before = file.read_bytes()
    assert register(WWID, file=file) is Change.UNCHANGED
    assert file.read_bytes() == before
    assert is_registered(WWID, file=file)


def test_the_lines_of_others_stay(file: Path) -> None:
    """Lines and remarks that others wrote are where they were, whatever comes and goes."""
    file.parent.mkdir()
    before = HEADER + b"/3other/\n# a remark\n#3gone/\n"
    file.write_bytes(before)
    register(WWID, file=file)
    register(OTHER, file=file)
    assert file.read_bytes() == before + LINE + OTHER_LINE
    unregister(WWID, file=file)
    assert file.read_bytes() == before + b"#" + LINE[1:] + OTHER_LINE
    unregister(OTHER, file=file)
    assert file.read_bytes() == before + b"#" + LINE[1:]


def test_coming_and_going_does_not_let_the_list_grow(file: Path) -> None:
    """What was struck out is cut off at the end of the list, and used again elsewhere."""
    register(WWID, file=file)
    unregister(WWID, file=file)
    assert file.read_bytes() == HEADER
    register(WWID, file=file)
    register(OTHER, file=file)
    whole = file.read_bytes()
    for _ in range(3):
        assert unregister(WWID, file=file) is Change.CHANGED
        assert not is_registered(WWID, file=file)
        assert len(file.read_bytes()) == len(whole)
        assert register(WWID, file=file) is Change.CHANGED
    assert file.read_bytes() == whole


def test_an_absent_identity_is_not_struck_out(file: Path) -> None:
    """Nothing is written, and no list is made."""
    assert unregister(WWID, file=file) is Change.UNCHANGED
    assert not is_registered(WWID, file=file)
    assert not file.exists()
    register(OTHER, file=file)
    before = (file.read_bytes(), file.stat().st_mtime_ns)
    assert unregister(WWID, file=file) is Change.UNCHANGED
    assert (file.read_bytes(), file.stat().st_mtime_ns) == before


def test_an_identity_is_not_found_in_a_longer_one(file: Path) -> None:
    """A line is compared as a whole."""
    file.parent.mkdir()
    file.write_bytes(HEADER + LINE[:-2] + b"0/\n" + b"x" + LINE)
    assert not is_registered(WWID, file=file)
    assert unregister(WWID, file=file) is Change.UNCHANGED


def test_a_last_line_without_its_end_is_not_lengthened(file: Path) -> None:
    """An editor that left the line feed out has not spoilt the next line."""
    file.parent.mkdir()
    file.write_bytes(HEADER + OTHER_LINE.rstrip(b"\n"))
    assert is_registered(OTHER, file=file)
    register(WWID, file=file)
    assert file.read_bytes() == HEADER + OTHER_LINE + LINE


def test_the_lock_of_libmultipath_is_waited_for(file: Path) -> None:
    """While another process has it nothing is written; at the deadline that is an error."""
    register(OTHER, file=file)
    before = file.read_bytes()
    with subprocess.Popen(
        [sys.executable, "-c", HOLDER, str(file)], stdin=subprocess.PIPE, stdout=subprocess.PIPE
    ) as holder:
        assert holder.stdout is not None
        assert holder.stdout.readline() == b"held\n"
        with pytest.raises(Unavailable, match="locked by another process"):
            register(WWID, Deadline.after(0.1), file=file)
        assert file.read_bytes() == before
        waiting = threading.Thread(target=register, args=(WWID,), kwargs={"file": file})
        waiting.start()
        holder.communicate()
        waiting.join()
    assert file.read_bytes() == before + LINE


def test_processes_and_threads_do_not_spoil_each_others_lines(file: Path) -> None:
    """Every line that was written by anybody is there, whole, and once."""
    writers = [
        subprocess.Popen([sys.executable, "-c", WRITER, str(file), str(number)])
        for number in range(3)
    ]
    threads = [
        threading.Thread(
            target=register, args=(Wwid(f"naa.5{number:015d}"),), kwargs={"file": file}
        )
        for number in range(20)
    ]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    assert [writer.wait(60) for writer in writers] == [0, 0, 0]
    lines = file.read_bytes().removeprefix(HEADER).splitlines()
    listed = {line for line in lines if line.startswith(b"/")}
    wanted = {f"/36{who:03d}{number:028d}/" for who in range(3) for number in range(0, 40, 2)}
    wanted |= {f"/35{number:015d}/" for number in range(20)}
    assert listed == {line.encode() for line in wanted}
    assert len(lines) == len(set(lines))


def test_a_place_that_cannot_be_written_is_said(tmp_path: Path) -> None:
    """Where there is no room for the list the error names the file."""
    (tmp_path / "multipath").write_text("not a folder")
    with pytest.raises(HostLacks, match="wwids"):
        register(WWID, file=tmp_path / "multipath" / "wwids")
