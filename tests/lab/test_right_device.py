"""The right device or none: stale disks, remapped LUNs, and LUN numbers used again under load."""

from __future__ import annotations

import random
import threading
from collections.abc import Iterator
from contextlib import contextmanager, suppress
from dataclasses import dataclass, field, replace
from pathlib import Path

import pytest

from lab.lio import Disk, Target
from lab.san import San
from lunport.core.change import Change
from lunport.core.connection_info import ConnectionInfo
from lunport.core.errors import AllPathsFailed, DeviceBusy, LunportError, WrongDevice
from lunport.initiator.connected_volume import ConnectedVolume
from lunport.initiator.connector import Initiator
from lunport.initiator.initiator_host import InitiatorHost
from tests.lab.conftest import LabHost
from tests.lab.connecting import disks, first_bytes, info_of, mark, sessions

ROUNDS = 12


def _abandon(initiator: Initiator, info: ConnectionInfo) -> None:
    """Lose the journal's entry, as a host does that was cleaned by hand: the disk stays."""
    for entry in initiator.connections():
        if set(entry.paths) & set(info.paths):
            initiator.host.journal.remove(entry.key)


def _clean(initiator: Initiator, *infos: ConnectionInfo) -> None:
    for info in infos:
        initiator.disconnect(info)


def test_a_unit_of_another_identity_is_refused_on_every_path(san: San) -> None:
    """Where every path leads to another disk than the one stated, none is handed out."""
    target = san.target()
    san.add_lun(target, 1)
    stated = san.disk()
    with pytest.raises(AllPathsFailed) as raised:
        Initiator().connect(info_of(target, 1, stated))
    assert [type(attempt) for attempt in raised.value.attempts] == [WrongDevice] * 4
    assert (sessions(), disks()) == ([], [])


def test_a_stale_disk_at_the_same_address_goes_before_the_new_one_comes(san: San) -> None:
    """A disk left by a volume that had this LUN before is removed, and the new one found."""
    target = san.target()
    old, new = san.add_lun(target, 1), san.disk()
    content = mark(new, "the new volume")
    initiator = Initiator()
    stale = initiator.connect(info_of(target, 1, old))
    _abandon(initiator, info_of(target, 1, old))
    target.remap_lun(1, new)

    volume = initiator.connect(info_of(target, 1, new))

    assert (volume.wwid, first_bytes(volume.path)) == (new.wwid, content)
    assert volume.unit == stale.unit
    initiator.disconnect(info_of(target, 1, new))
    assert (sessions(), disks()) == ([], [])


def test_a_stale_disk_that_is_open_is_left_and_the_volume_refused(san: San) -> None:
    """Whoever has the stale disk open keeps it, and nobody gets it under another name."""
    target = san.target(portals=san.portals[:1])
    old, new = san.add_lun(target, 1), san.disk()
    initiator = Initiator()
    stale = initiator.connect(info_of(target, 1, old))
    _abandon(initiator, info_of(target, 1, old))
    target.remap_lun(1, new)
    with Path(stale.path).open("rb"):
        with pytest.raises(AllPathsFailed) as raised:
            initiator.connect(info_of(target, 1, new))
        assert isinstance(raised.value.attempts[0], WrongDevice)
        assert disks() == [stale.path.removeprefix("/dev/")]
    volume = initiator.connect(info_of(target, 1, new))
    assert volume.wwid == new.wwid
    initiator.disconnect(info_of(target, 1, new))


@pytest.mark.parametrize("stated", [True, False], ids=["stated", "seen"])
def test_a_connected_volume_whose_lun_was_remapped_is_not_handed_out_again(
    san: San, stated: bool
) -> None:
    """A repeated connect looks anew: what is another disk now is refused, stated or seen."""
    target = san.target()
    old, new = san.add_lun(target, 1), san.disk()
    initiator, info = Initiator(), info_of(target, 1, old if stated else None)
    initiator.connect(info)
    target.remap_lun(1, new)
    with pytest.raises(AllPathsFailed) as raised:
        initiator.connect(info)
    assert WrongDevice in {type(attempt) for attempt in raised.value.attempts}
    assert (sessions(), disks()) == ([], [])
    with pytest.raises(AllPathsFailed):
        initiator.connect(info)
    initiator.disconnect(info)
    assert initiator.connections() == ()


def test_a_unit_remapped_between_the_probe_and_the_scan_is_refused(san: San) -> None:
    """The identity is compared after the scan as well, and a wrong disk is gone at once."""
    target = san.target(portals=san.portals[:1])
    right, wrong = san.add_lun(target, 1), san.disk()

    def interfere(step: str) -> None:
        if step == "logged-in":
            target.remap_lun(1, wrong)

    initiator = Initiator(InitiatorHost(on_step=interfere))
    with pytest.raises(AllPathsFailed) as raised:
        initiator.connect(info_of(target, 1, right))
    assert WrongDevice in {type(attempt) for attempt in raised.value.attempts}
    assert (sessions(), disks(), initiator.connections()) == ([], [], ())


def test_a_disconnect_leaves_a_disk_that_is_another_volumes(san: San) -> None:
    """A disconnect does not take away what has another identity at the volume's old place."""
    target = san.target(portals=san.portals[:1])
    old, new = san.add_lun(target, 1), san.disk()
    initiator = Initiator()
    initiator.connect(info_of(target, 1, old))
    _abandon(initiator, info_of(target, 1, old))
    target.remap_lun(1, new)
    volume = initiator.connect(info_of(target, 1, new))
    assert initiator.disconnect(info_of(target, 1, old)) is Change.UNCHANGED
    assert disks() == [volume.path.removeprefix("/dev/")]
    initiator.disconnect(info_of(target, 1, new))


def test_a_unit_that_another_volume_has_by_now_is_that_volumes(san: San) -> None:
    """Without identities stated, ids tell volumes apart: an old entry gives way, none is mixed up.

    A host was not told that its volume went; its LUN is another's, who comes to the same host.
    """
    target = san.target(portals=san.portals[:1])
    old, new = san.add_lun(target, 1), san.disk()
    content = mark(new, "the new volume")
    gone = replace(info_of(target, 1), volume_id="5e8fbb3b-5f4c-4a2f-8b6e-2f1c7d9a0001")
    come = replace(info_of(target, 1), volume_id="5e8fbb3b-5f4c-4a2f-8b6e-2f1c7d9a0002")
    initiator = Initiator()
    stale = initiator.connect(gone)
    assert stale.wwid == old.wwid
    target.remap_lun(1, new)
    with Path(stale.path).open("rb"), pytest.raises(DeviceBusy):
        initiator.connect(come)
    assert [entry.volume_id for entry in initiator.connections()] == [gone.volume_id]

    volume = initiator.connect(come)

    assert (volume.wwid, first_bytes(volume.path)) == (new.wwid, content)
    assert initiator.disconnect(gone) is Change.UNCHANGED
    assert disks() == [volume.path.removeprefix("/dev/")]
    assert initiator.disconnect(come) is Change.CHANGED
    assert (sessions(), disks(), initiator.connections()) == ([], [], ())


@dataclass(slots=True)
class Load:
    """What those who come and go beside a test have got; changed under a lock."""

    handed_out: int = 0
    wrong: int = 0
    lock: threading.Lock = field(default_factory=threading.Lock)

    def note(self, is_right: bool) -> None:
        with self.lock:
            self.handed_out += 1
            self.wrong += not is_right


@contextmanager
def _load(san: San, target: Target) -> Iterator[Load]:
    """Connect and disconnect other LUNs of the same target all the while."""
    stop = threading.Event()
    load = Load()
    disks_of = {lun: san.add_lun(target, lun) for lun in (11, 12)}
    contents = {disk.wwid: mark(disk, f"volume {disk.wwid}") for disk in disks_of.values()}
    infos = [info_of(target, lun, disk) for lun, disk in disks_of.items()]

    def work(info: ConnectionInfo) -> None:
        assert info.wwid is not None
        while not stop.is_set():
            with suppress(LunportError):
                volume = Initiator().connect(info)
                content = first_bytes(volume.path)
                load.note((volume.wwid, content) == (info.wwid, contents[info.wwid]))
                Initiator().disconnect(info)

    workers = [threading.Thread(target=work, args=(info,)) for info in infos]
    for worker in workers:
        worker.start()
    try:
        yield load
    finally:
        stop.set()
        for worker in workers:
            worker.join(60)
        _clean(Initiator(), *infos)


@pytest.mark.timeout(600)
def test_one_lun_number_used_again_and_again_never_gives_the_wrong_disk(
    lab_host: LabHost, san: San
) -> None:
    """Whatever was forgotten before, a LUN number that other volumes get is never mistaken."""
    reuse_a_lun(lab_host, san, ROUNDS)


def reuse_a_lun(lab_host: LabHost, san: San, rounds: int) -> None:
    """Have other volumes at one LUN, round after round, beside others that come and go."""
    target = san.target(portals=san.portals[:2], allowed=[lab_host.initiator])
    pool = [san.disk(size_mib=8) for _ in range(5)]
    contents = {disk.wwid: mark(disk, f"volume {disk.wwid}") for disk in pool}
    target.map_lun(1, pool[0])
    draw = random.Random(20261121)
    initiator = Initiator()
    wrong = 0
    handed_out = 0

    def look(volume: ConnectedVolume, disk: Disk) -> None:
        nonlocal wrong, handed_out
        handed_out += 1
        is_right = (volume.wwid, first_bytes(volume.path)) == (disk.wwid, contents[disk.wwid])
        wrong += not is_right

    with _load(san, target) as load:
        for round_number in range(rounds):
            disk = draw.choice(pool)
            target.remap_lun(1, disk)
            info = info_of(target, 1, disk if draw.random() < 0.7 else None)
            look(initiator.connect(info), disk)
            if draw.random() < 0.5 and round_number + 1 < rounds:
                _abandon(initiator, info)
            else:
                initiator.disconnect(info)
    target.unmap_lun(1)
    assert load.wrong == 0
    assert load.handed_out > 0
    assert (wrong, handed_out) == (0, rounds)
    steps = initiator.recover(remove_leftovers=True)
    assert [step for step in steps if step.error is not None] == []
