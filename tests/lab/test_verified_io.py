"""The writer that checks every block: wrong blocks of each kind are seen, right ones are not."""

from __future__ import annotations

import os
from pathlib import Path

from lab import faults
from lab.lio import Disk
from lab.san import San
from lunport.initiator.connector import Initiator
from tests.lab.connecting import info_of
from tests.lab.mishaps import eager_pings
from tests.lab.verified_io import BLOCK, VerifiedWriter, make_block, wrong_in_file

KINDS = ("corrupt", "stale", "misplaced", "another writer's", "empty")


def plant(disk: Disk, number: int, content: bytes) -> None:
    """Put a block into the file behind the SAN, where the last acknowledged one is."""
    with disk.file.open("r+b") as file:
        assert os.pwrite(file.fileno(), content, number * BLOCK) == BLOCK


def stored(disk: Disk, number: int) -> bytes:
    """Read a block of the file behind the SAN."""
    with disk.file.open("rb") as file:
        return os.pread(file.fileno(), BLOCK, number * BLOCK)


def plant_each_kind(disk: Disk, seed: int, allowed: dict[int, tuple[int, ...]]) -> dict[str, int]:
    """Spoil five blocks, each in another way; return which."""
    numbers = [number for number, (last, *_) in sorted(allowed.items()) if last > 1][: len(KINDS)]
    chosen = dict(zip(KINDS, numbers, strict=True))
    number = chosen["corrupt"]
    content = bytearray(stored(disk, number))
    content[BLOCK // 2] ^= 1
    plant(disk, number, bytes(content))
    number = chosen["stale"]
    plant(disk, number, make_block(seed, number, allowed[number][0] - 1))
    number = chosen["misplaced"]
    plant(disk, number, make_block(seed, number + 1, allowed[number][0]))
    number = chosen["another writer's"]
    plant(disk, number, make_block(seed + 1, number, allowed[number][0]))
    plant(disk, chosen["empty"], bytes(BLOCK))
    return chosen


def assert_told(mismatches: tuple[str, ...], chosen: dict[str, int]) -> None:
    """Each spoilt block is told once, by its kind, and no other one."""
    for kind, number in chosen.items():
        assert [one for one in mismatches if f"block {number}: " in one and kind in one], kind
    assert len(mismatches) == len(chosen), mismatches


def test_what_was_planted_is_seen_by_the_next_write_and_by_the_last_read(san: San) -> None:
    """One flipped bit, a block of before, of elsewhere, of others, and none: each is told."""
    target = san.target()
    disk = san.add_lun(target, 1)
    info = info_of(target, 1, disk, portals=san.portals[:1])
    volume = Initiator().connect(info)
    for goes_on in (True, False):
        with VerifiedWriter.on(volume.path, blocks_each=8) as writer:
            writer.await_rounds(writes_each=20)
            chosen = plant_each_kind(disk, writer.seed, writer.pause())
            if goes_on:
                writer.resume()
                writer.await_rounds(writes_each=20)
            report = writer.end()
        assert_told(report.mismatches, chosen)
        assert (report.errors, report.stuck) == ((), 0)
        assert_told(wrong_in_file(report, disk.file), {} if goes_on else chosen)
    Initiator().disconnect(info)


def test_what_is_right_is_not_told_and_what_was_lost_behind_the_disk_is(san: San) -> None:
    """A writer that was not disturbed has no failures; a block lost later is seen in the file."""
    target = san.target()
    disk = san.add_lun(target, 1)
    info = info_of(target, 1, disk, portals=san.portals[:1])
    volume = Initiator().connect(info)
    with VerifiedWriter.on(volume.path, blocks_each=8) as writer:
        writer.await_rounds(writes_each=20)
        report = writer.end()
    assert (report.failures, wrong_in_file(report, disk.file)) == ((), ())
    assert report.writes >= 80
    assert len(report.allowed) == 32

    chosen = plant_each_kind(disk, report.seed, report.allowed)
    assert_told(wrong_in_file(report, disk.file), chosen)
    Initiator().disconnect(info)


def test_failed_writes_and_a_pause_of_the_disk_are_in_the_report(san: San) -> None:
    """A dead portal is a long call, then errors; either content is right after a failed write."""
    target = san.target()
    disk = san.add_lun(target, 1)
    info = info_of(target, 1, disk, portals=san.portals[:1])
    with eager_pings():
        volume = Initiator().connect(info)
    (session,) = Path("/sys/class/iscsi_session").glob("session*")
    (session / "recovery_tmo").write_text("1")
    with VerifiedWriter.on(volume.path) as writer:
        writer.await_rounds()
        with faults.portal_drops(san, san.portals[0]):
            writer.await_silence(1.0, limit_s=30)
            writer.await_error(limit_s=60)
        writer.await_rounds()
        report = writer.end()
    assert report.errors != ()
    assert report.longest_s >= 1.0
    assert (report.mismatches, report.stuck) == ((), 0)
    assert wrong_in_file(report, disk.file) == ()
    Initiator().disconnect(info)
