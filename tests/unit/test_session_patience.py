"""How long a session waits for its portal when maps and plain disks share it."""

from __future__ import annotations

from pathlib import Path

import pytest

from lunport.core.host_connection import HostConnection, OwnedSession, Phase
from lunport.core.iqn import Iqn
from lunport.core.multipath_use import MemberPath, MultipathUse
from lunport.core.node_record import RecordSettings
from lunport.core.portal import Portal
from lunport.core.scsi_address import ScsiAddress
from lunport.core.secret import Secret
from lunport.core.session_patience import configured_patience_s, needed_patience_s
from lunport.core.target_path import TargetPath
from lunport.core.wwid import Wwid
from lunport.host.iscsi_sysfs import read_session, recovery_tmo
from lunport.host.node_records import NodeRecords
from lunport.initiator.connected_volume import InitiatorPolicy
from lunport.initiator.initiator_host import InitiatorHost
from lunport.initiator.journal import Journal
from lunport.initiator.session_patience import SessionPatience
from tests.fakes.fake_sysfs import FakeSysfs

ONE, TWO = ScsiAddress(3, 0, 0, 1), ScsiAddress(3, 0, 0, 2)
PATH = TargetPath(Portal("10.0.1.2"), Iqn("iqn.2026-11.org.example:t1"), 1)
BOOT = "this boot"
SETTING = "node.session.timeo.replacement_timeout"


@pytest.mark.parametrize(
    ("disks", "plain_s", "needed_s"),
    [((ONE,), 120, 0), ((ONE, TWO), 120, 120), ((TWO,), 7, 7), ((), 120, 120), ((ONE, TWO), 0, 0)],
)
def test_the_longest_need_counts(
    disks: tuple[ScsiAddress, ...], plain_s: int, needed_s: int
) -> None:
    """A disk in a map lets its session go at once, unless another disk has nothing but it."""
    assert needed_patience_s(disks, {ONE: 0}, plain_s) == needed_s


def test_no_end_is_longer_than_any_other() -> None:
    """Where plain disks wait for ever, so does a session that carries one."""
    assert needed_patience_s((ONE, TWO), {ONE: 0}, None) is None
    assert needed_patience_s((ONE,), {ONE: 0}, None) == 0


@pytest.mark.parametrize(
    ("settings", "seconds"),
    [
        ([{}], 120),
        ([{SETTING: "30"}], 30),
        ([{}, {SETTING: "0"}], 0),
        ([{SETTING: "-1"}], None),
        ([{SETTING: "many"}], 120),
    ],
)
def test_what_is_configured(settings: list[dict[str, str]], seconds: int | None) -> None:
    """The first setting that can be read counts; without any it is open-iscsi's own."""
    assert configured_patience_s(*settings) == seconds


# -- on a host ---------------------------------------------------------------------------------


@pytest.fixture
def sysfs(tmp_path: Path) -> FakeSysfs:
    """One session with two disks, which has been set as for a map alone."""
    made = FakeSysfs(tmp_path / "sys")
    made.session(3, session={"recovery_tmo": "0\n"})
    made.disk(3, 1, "sda")
    made.disk(3, 2, "sdb", number="8:16")
    return made


@pytest.fixture
def patience(sysfs: FakeSysfs, tmp_path: Path) -> SessionPatience:
    """The patience of a host whose plain disks wait 90 s on our sessions."""
    host = InitiatorHost(
        sys=sysfs.tree,
        records=NodeRecords(tmp_path / "nodes"),
        journal=Journal(tmp_path / "journal"),
        boot_id=BOOT,
    )
    return SessionPatience(host, InitiatorPolicy(record=RecordSettings(replacement_timeout_s=90)))


def entry(unit: ScsiAddress, *, has_map: bool) -> HostConnection:
    """A volume at a unit."""
    member = MemberPath(PATH, "default", unit, "sda", 0.0)
    return HostConnection(
        key=f"volume-{unit.lun}",
        phase=Phase.CONNECTED,
        paths=(PATH,),
        used=PATH,
        iface="default",
        addressing_mode=None,
        wwid=Wwid("naa.6001405000100010000000000000000a"),
        seen_wwid=None,
        volume_id=None,
        holders=(),
        unit=unit,
        disk_name="sda",
        size_bytes=None,
        boot_id=BOOT,
        since=0.0,
        multipath=MultipathUse(members=(member,)) if has_map else None,
    )


def own(patience: SessionPatience) -> None:
    """Have the session be ours."""
    patience.host.journal.write_session(
        OwnedSession(PATH.portal, PATH.iqn, "default", 1, "a/b", 3, BOOT, None)
    )


def test_a_plain_disk_keeps_what_it_had_beside_a_map(
    sysfs: FakeSysfs, patience: SessionPatience
) -> None:
    """The session waits for the plain disk, whatever was set for the map; alone, the map rules."""
    own(patience)
    journal = patience.host.journal
    journal.write(entry(ONE, has_map=True))
    journal.write(entry(TWO, has_map=False))
    session = read_session(sysfs.tree, 3)
    assert session is not None
    assert not patience.is_right(session, journal.connections())
    patience.settle(session)
    assert recovery_tmo(sysfs.tree, 3) == 90
    assert patience.is_right(session, journal.connections())

    sysfs.remove("bus/scsi/devices/3:0:0:2")
    sysfs.remove("devices/platform/host3/session3/target3:0:0/3:0:0:2")
    journal.remove("volume-2")
    patience.settle(session)
    assert recovery_tmo(sysfs.tree, 3) == 0


def test_a_disk_that_nobody_noted_keeps_the_session_patient(
    sysfs: FakeSysfs, patience: SessionPatience
) -> None:
    """Somebody's disk beside the map on somebody's session has its record's time."""
    records = patience.host.records
    records.write(f"{PATH.iqn}/10.0.1.2,3260,1/default", Secret(f"{SETTING} = 45\n"))
    patience.host.journal.write(entry(ONE, has_map=True))
    session = read_session(sysfs.tree, 3)
    assert session is not None
    patience.settle(session)
    assert recovery_tmo(sysfs.tree, 3) == 45


def test_it_is_put_back_when_the_map_has_gone(sysfs: FakeSysfs, patience: SessionPatience) -> None:
    """Without any map's disk a session gets back what it has for plain ones."""
    own(patience)
    session = read_session(sysfs.tree, 3)
    assert session is not None
    patience.restore([session])
    assert recovery_tmo(sysfs.tree, 3) == 90


def test_a_session_of_others_without_a_map_is_left_alone(
    sysfs: FakeSysfs, patience: SessionPatience
) -> None:
    """What somebody set for a session that only serves plain disks stays."""
    patience.host.journal.write(entry(TWO, has_map=False))
    session = read_session(sysfs.tree, 3)
    assert session is not None
    written = sysfs.tree.writes
    patience.settle_shared(session)
    assert sysfs.tree.writes == written
    own(patience)
    patience.settle_shared(session)
    assert recovery_tmo(sysfs.tree, 3) == 90
