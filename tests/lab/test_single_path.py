"""One path on the real kernel: connect, disconnect, and failover for every cause."""

from __future__ import annotations

import pytest

from lab.san import San
from lunport.core.change import Change
from lunport.core.errors import (
    AllPathsFailed,
    DeviceBusy,
    LunMissing,
    PortalUnreachable,
    TargetUnknown,
)
from lunport.initiator.connector import Initiator
from tests.lab.connecting import disks, first_bytes, info_of, mark, node_records, reasons, sessions


def test_a_volume_becomes_a_disk_and_nothing_is_left_of_it(san: San) -> None:
    """Connect gives a disk with the volume's bytes and identity; disconnect leaves nothing."""
    target = san.target()
    disk = san.add_lun(target, 1)
    content = mark(disk, "volume one")
    initiator, info = Initiator(), info_of(target, 1, disk)

    volume = initiator.connect(info)

    assert first_bytes(volume.path) == content
    assert (volume.wwid, volume.size_bytes) == (disk.wwid, 64 << 20)
    assert (volume.used, volume.change) == (info.main_path, Change.CHANGED)
    assert len(sessions()) == len(disks()) == len(node_records()) == 1
    assert initiator.disconnect(info) is Change.CHANGED
    assert (sessions(), disks(), node_records(), initiator.connections()) == ([], [], [], ())


def test_both_verbs_may_be_repeated(san: San) -> None:
    """A second connect returns the same disk, a second disconnect does nothing."""
    target = san.target()
    disk = san.add_lun(target, 1)
    initiator, info = Initiator(), info_of(target, 1, disk)
    first = initiator.connect(info)

    again = Initiator().connect(info)

    assert (again.path, again.unit, again.change) == (first.path, first.unit, Change.UNCHANGED)
    assert initiator.disconnect(info) is Change.CHANGED
    assert initiator.disconnect(info) is Change.UNCHANGED


def test_a_volume_without_a_stated_identity_is_taken_and_its_identity_kept(san: San) -> None:
    """Where the storage side states none, the identity seen is in the journal."""
    target = san.target()
    disk = san.add_lun(target, 1)
    initiator, info = Initiator(), info_of(target, 1)
    volume = initiator.connect(info)
    assert volume.wwid == disk.wwid
    assert [entry.seen_wwid for entry in initiator.connections()] == [disk.wwid]
    initiator.disconnect(info)


def test_two_volumes_of_one_target_share_its_session(san: San) -> None:
    """The second volume needs no login, and the session goes with the last volume."""
    target = san.target()
    infos = [info_of(target, lun, san.add_lun(target, lun)) for lun in (1, 2)]
    initiator = Initiator()
    volumes = [initiator.connect(info) for info in infos]
    assert len({volume.path for volume in volumes}) == 2
    assert len(sessions()) == 1
    initiator.disconnect(infos[0])
    assert (len(sessions()), disks()) == (1, [volumes[1].path.removeprefix("/dev/")])
    initiator.disconnect(infos[1])
    assert sessions() == []


def test_an_open_disk_is_not_taken_away(san: San) -> None:
    """A disconnect names who has the disk open, and leaves all as it was."""
    target = san.target()
    initiator, info = Initiator(), info_of(target, 1, san.add_lun(target, 1))
    volume = initiator.connect(info)
    before = initiator.connections()
    with open(volume.path, "rb"), pytest.raises(DeviceBusy) as raised:  # noqa: PTH123
        initiator.disconnect(info)
    assert "pytest" in str(raised.value) or "python" in str(raised.value)
    assert (initiator.connections(), len(sessions())) == (before, 1)
    assert first_bytes(volume.path)
    initiator.disconnect(info)


def test_a_lun_that_is_absent_is_one_error_and_leaves_nothing(san: San) -> None:
    """All paths of an absent LUN are named with the reason."""
    target = san.target()
    san.add_lun(target, 1)
    with pytest.raises(AllPathsFailed) as raised:
        Initiator().connect(info_of(target, 7))
    assert [type(attempt) for attempt in raised.value.attempts] == [LunMissing] * 4
    assert (sessions(), node_records(), Initiator().connections()) == ([], [], ())


def test_an_unknown_target_leads_on_to_the_alternative(san: San) -> None:
    """A portal that does not know the target is passed over, with its reason in the result."""
    known = san.target("known", portals=san.portals[1:2])
    disk = san.add_lun(known, 1)
    info = info_of(known, 1, disk, portals=(san.portals[0], san.portals[1]))
    volume = Initiator().connect(info)
    assert volume.used.portal == san.portals[1]
    # LIO says "service unavailable" (0x0301) of a target that lives on other portals only.
    assert "0x0301" in reasons(volume)[str(san.portals[0])]
    Initiator().disconnect(info)


def test_every_portal_refusing_is_one_error_with_every_path(san: San) -> None:
    """Where nothing listens, each path's error is there, in order."""
    target = san.target()
    disk = san.add_lun(target, 1)
    dead = [type(portal)(portal.host, 3999) for portal in san.portals]
    with pytest.raises(AllPathsFailed) as raised:
        Initiator().connect(info_of(target, 1, disk, portals=dead))
    assert [type(attempt) for attempt in raised.value.attempts] == [PortalUnreachable] * 4
    assert [str(portal) in str(error) for portal, error in
            zip(dead, raised.value.attempts, strict=True)] == [True] * 4  # fmt: skip
    assert TargetUnknown not in {type(attempt) for attempt in raised.value.attempts}
