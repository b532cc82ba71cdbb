"""What ``--plan`` says of a connect and a disconnect, on folders in place of a host."""

from __future__ import annotations

from dataclasses import replace
from pathlib import Path

import pytest

from lunport.core.connection_info import ConnectionInfo
from lunport.core.host_connection import HostConnection, OwnedSession, Phase, connection_key
from lunport.core.iqn import Iqn
from lunport.core.multipath_use import MemberPath, MultipathUse
from lunport.core.portal import Portal
from lunport.core.scsi_address import ScsiAddress
from lunport.core.target_path import TargetPath
from lunport.core.wwid import Wwid
from lunport.host.dead_portals import DeadPortals
from lunport.host.file_locks import FileLocks
from lunport.host.multipath_wwids import register
from lunport.host.node_records import NodeRecords
from lunport.host.path_notes import PathNotes
from lunport.host.systree import SysTree
from lunport.initiator.connector import Initiator
from lunport.initiator.forecast import Forecast
from lunport.initiator.initiator_host import InitiatorHost
from lunport.initiator.journal import Journal
from lunport.initiator.maps import Maps
from lunport.initiator.multipath_policy import MultipathPolicy
from lunport.initiator.sessions import Sessions

IQN = Iqn("iqn.2014-02.org.example:vol1")
WWID = Wwid("naa.60014050000000010000000000000000")
PATHS = tuple(TargetPath(Portal(f"10.0.{number}.2"), IQN, 1) for number in (1, 2, 3))
INFO = ConnectionInfo(paths=PATHS, wwid=WWID, is_complete=True)
BOOT = "boot-now"
ALL = MultipathUse()
FIRST = MultipathPolicy()


class Host:
    """The parts of a host, in a folder."""

    def __init__(self, folder: Path) -> None:
        self.folder = folder
        self.host = InitiatorHost(
            sys=SysTree(folder / "sys"),
            records=NodeRecords(folder / "nodes"),
            locks=FileLocks(folder / "locks"),
            journal=Journal(folder / "journal"),
            memory=DeadPortals(folder / "dead"),
            boot_id=BOOT,
            wwids_file=folder / "wwids",
            path_notes=PathNotes(folder / "notes"),
        )
        self.initiator = Initiator(self.host)
        policy = self.initiator.policy
        self.forecast = Forecast(self.host, Sessions(self.host, policy), Maps(self.host, policy))

    def connect(
        self,
        info: ConnectionInfo = INFO,
        entry: HostConnection | None = None,
        use: MultipathUse | None = ALL,
        wish: MultipathPolicy = FIRST,
    ) -> str:
        """Foresee a connect."""
        return "\n".join(self.forecast.connect(info, entry, info.paths, use, wish))

    def disconnect(self, entry: HostConnection | None) -> str:
        """Foresee a disconnect."""
        return "\n".join(self.forecast.disconnect(INFO, entry))

    def has_map(self) -> None:
        """Let the kernel show the volume's map."""
        folder = self.folder / "sys/block/dm-3/dm"
        folder.mkdir(parents=True)
        (folder / "uuid").write_text("mpath-360014050000000010000000000000000\n")
        (folder / "name").write_text("mpatha\n")

    def owns(self, *paths: TargetPath) -> None:
        """Let the sessions of these paths be Lunport's."""
        for path in paths:
            self.host.journal.write_session(
                OwnedSession(path.portal, path.iqn, "default", 1, "record", 1, BOOT, None)
            )


@pytest.fixture
def host(tmp_path: Path) -> Host:
    return Host(tmp_path)


def entry_of(use: MultipathUse | None, info: ConnectionInfo = INFO) -> HostConnection:
    """Make the entry of a connected volume."""
    return HostConnection(
        key=connection_key(info),
        phase=Phase.CONNECTED,
        paths=PATHS,
        used=PATHS[0],
        iface="default",
        addressing_mode=None,
        wwid=info.wwid,
        seen_wwid=WWID,
        volume_id=None,
        holders=(),
        unit=ScsiAddress(3, 0, 0, 1),
        disk_name="sda",
        size_bytes=1 << 30,
        boot_id=BOOT,
        since=0.0,
        multipath=use,
    )


def joined(*, is_registered: bool = False) -> MultipathUse:
    """Say that two paths are in the map."""
    members = tuple(
        MemberPath(path, "default", ScsiAddress(3 + number, 0, 0, 1), f"sd{'ab'[number]}", 0.0)
        for number, path in enumerate(PATHS[:2])
    )
    return MultipathUse(members=members, is_registered=is_registered)


def test_one_path_says_nothing_of_maps(host: Host) -> None:
    """Without multipath the others are only named for when the first one fails."""
    steps = host.connect(use=None)
    assert steps.count("If need be, probe") == 2
    assert "the map" not in steps
    assert "wwids" not in steps


def test_all_paths_are_a_map_and_the_background(host: Host) -> None:
    """All are probed at once; the identity is registered; the others come in the background."""
    steps = host.connect().splitlines()
    assert [step.split()[0] for step in steps[:3]] == ["Probe"] * 3
    assert f"Add {WWID} to {host.folder / 'wwids'}." in steps
    at = steps.index("Hand out the map. In the background:")
    assert steps[at - 2].startswith("Have multipathd make the map")
    assert [str(path) in step for path, step in zip(PATHS[1:], steps[at + 1 :], strict=True)] == [
        True,
        True,
    ]


@pytest.mark.parametrize("ready,words", [(None, "all paths that answer"), (2, "2 paths")])
def test_more_than_the_first_can_be_waited_for(host: Host, ready: int | None, words: str) -> None:
    """What the policy says is waited for is said."""
    steps = host.connect(wish=replace(FIRST, ready=ready))
    assert f"Wait for {words} to be in the map:" in steps
    assert "background" not in steps


def test_what_is_registered_or_mapped_already_is_not_said_twice(host: Host) -> None:
    """An identity in multipath's list is not added, and a map that is there is joined."""
    register(WWID, file=host.host.wwids_file)
    host.has_map()
    steps = host.connect()
    assert "Add" not in steps
    assert "into the map /dev/dm-3" in steps


def test_a_map_that_moves_keeps_the_other_paths(host: Host) -> None:
    """With one path at a time nothing is logged in to besides."""
    steps = host.connect(use=MultipathUse(wanted=1))
    assert steps.count("for when the path in use dies") == 2
    assert "background" not in steps


def test_a_discovery_is_said(host: Host) -> None:
    """Where paths are to be discovered, that comes first."""
    info = ConnectionInfo(paths=PATHS[:1], target_discovered=True)
    steps = host.connect(info)
    assert steps.startswith("Ask 10.0.1.2:3260")
    assert "Once the disk says its identity" in steps


def test_a_volume_with_a_map_is_returned_as_it_is(host: Host) -> None:
    """Connected already: the map is named; without it, the connection is made anew."""
    entry = entry_of(joined())
    assert "anew" in host.connect(entry=entry)
    host.has_map()
    assert "through the map /dev/dm-3" in host.connect(entry=entry)
    assert "make it anew with a map" in host.connect(entry=entry_of(None))
    assert "anew" not in host.connect(entry=entry_of(None), use=None)


def test_a_map_is_taken_down_with_all_that_it_has(host: Host) -> None:
    """The map, each of its disks, the identity if it was put there, each session of ours."""
    host.has_map()
    host.owns(*PATHS[:2])
    steps = host.disconnect(entry_of(joined(is_registered=True)))
    for words in (
        "nobody has /dev/dm-3 open",
        "map /dev/dm-3",
        "Remove /dev/sda",
        "Remove /dev/sdb",
    ):
        assert words in steps
    assert f"Take {WWID} out of" in steps
    assert steps.count("log out") == 2
    assert "Take" not in host.disconnect(entry_of(joined()))


def test_a_disk_without_a_map_goes_alone(host: Host) -> None:
    """One path: its disk and its session, and no word of a map."""
    host.owns(PATHS[0], PATHS[1])
    steps = host.disconnect(entry_of(None))
    assert steps.count("log out") == 1
    assert "the map" not in steps


def test_a_forecast_finds_the_volume_as_the_verbs_do(host: Host) -> None:
    """Where its identity is stated now and was not; by one of its paths, but for another unit."""
    several = replace(PATHS[1], iqn=Iqn(f"{IQN}-2"))
    unstated = ConnectionInfo(paths=(PATHS[0], several))
    host.host.journal.write(entry_of(None, unstated))
    stated = replace(unstated, wwid=WWID)
    assert "connected already" in host.initiator.foresee_connect(stated)[0]
    part = ConnectionInfo(paths=PATHS[:1])
    assert connection_key(part) != connection_key(unstated)
    assert "Nothing" not in host.initiator.foresee_disconnect(part)[0]
    other = replace(part, wwid=Wwid("naa.60014050000000020000000000000000"))
    assert "Nothing" in host.initiator.foresee_disconnect(other)[0]
