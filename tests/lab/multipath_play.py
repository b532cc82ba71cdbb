"""A volume behind several portals, what the kernel makes of it, and I/O that goes on meanwhile.

    with four_paths(san, lab_host) as play:
        volume = play.connect()
        with verified(play, volume) as writer:
            ... break something ...
            writer.await_rounds()

What is asked of the kernel here is read from sysfs and dmsetup(8), not by the library that is
tested. Targets name who is allowed, since LUNs change under load (the quirk in ``lab/lio.py``).
"""

from __future__ import annotations

import contextlib
import itertools
from collections.abc import Iterator, Sequence
from dataclasses import dataclass, field, replace
from pathlib import Path

from lab import services
from lab.lio import Disk, Target
from lab.san import San
from lab.services import wait_until
from lunport.core.chap import Chap
from lunport.core.connection_info import ConnectionInfo
from lunport.core.errors import LunportError
from lunport.core.host_connection import connection_key
from lunport.core.node_record import RecordSettings
from lunport.core.path_status import PathState, VolumePaths, VolumeState
from lunport.core.portal import Portal
from lunport.core.wwid import Wwid, format_multipath_wwid
from lunport.host.clock import Deadline
from lunport.host.multipathd import Multipathd
from lunport.host.runner import run
from lunport.initiator.connected_volume import ConnectedVolume, InitiatorPolicy
from lunport.initiator.connector import Initiator
from lunport.initiator.initiator_host import InitiatorHost
from lunport.initiator.multipath_policy import MultipathPolicy
from tests.lab.conftest import LabHost
from tests.lab.connecting import disks, info_of, node_records, sessions
from tests.lab.mishaps import Mishaps
from tests.lab.verified_io import LIMIT_S, VerifiedWriter, wrong_in_file

SIZE_MIB = 8
BOUND_S = 45.0  # for any one verb, whatever is broken: below the 60 s of multipathd's queueing
BACK_S = 120.0  # for a path to be used again once its portal is back; iscsid's own pace
POLICY = InitiatorPolicy(record=RecordSettings(login_timeout_s=2, logout_timeout_s=2))
WWIDS = Path("/etc/multipath/wwids")
_BLOCK = Path("/sys/block")
_SESSIONS = Path("/sys/class/iscsi_session")


@dataclass(frozen=True, slots=True)
class Play:
    """A volume, and an initiator that leaves what comes later to the test.

    ``left``: the keys of the connections whose missing paths somebody else is to make.
    """

    san: San
    target: Target
    disk: Disk
    info: ConnectionInfo
    initiator: Initiator
    left: list[str] = field(default_factory=list)

    @property
    def portals(self) -> list[Portal]:
        """The portals of the volume's paths, in order."""
        return [path.portal for path in self.info.paths]

    def connect(self, policy: MultipathPolicy | None = None) -> ConnectedVolume:
        """Connect, as far as a connect goes by itself, and see that it is the right map."""
        volume = self.initiator.connect(
            self.info, multipath=True, policy=policy, deadline=Deadline.after(BOUND_S)
        )
        assert volume.map_name is not None, volume
        assert volume.path == f"/dev/{volume.map_name}"
        assert uuid_of(volume.map_name) == uuid_for(self.disk.wwid)
        return volume

    def complete(self) -> VolumePaths:
        """Bring in what is missing, once."""
        status = self.initiator.complete(
            connection_key(self.info), deadline=Deadline.after(BOUND_S)
        )
        assert status is not None, "the connection does not stand any more"
        return status

    def connect_all(self) -> ConnectedVolume:
        """Connect, and let every path be there."""
        volume = self.connect()
        # A busy machine may be too late for one login's time: the next round brings it.
        wait_until(lambda: self.complete().state is VolumeState.OK, "all paths", BACK_S)
        assert live_in(self.complete()) == set(map(str, self.portals))
        return volume

    def heal(self, name: str) -> None:
        """Bring the paths back, as whoever lives on does, and see that all are used."""
        wait_until(lambda: self.complete().state is VolumeState.OK, "all paths", BACK_S)
        await_usable(name, self.portals)

    def recover(self) -> None:
        """Recover as a new process would, but for paths, which are left to the test."""
        for is_again in (False, True):
            steps = self.initiator.recover()
            assert [step.error for step in steps if step.error] == []
            assert not is_again or [step for step in steps if step.action.changes] == []

    def disconnect(self, *, force: bool = False) -> None:
        """Disconnect within the bound, after which there is nothing of it."""
        deadline = Deadline.after(BOUND_S)
        self.initiator.disconnect(self.info, force=force, deadline=deadline)
        assert not deadline.has_passed()
        assert maps_of(self.disk.wwid) == []

    def status(self) -> VolumePaths:
        """Say how its paths are now."""
        key = connection_key(self.info)
        (status,) = [one for one in self.initiator.paths() if one.key == key]
        return status

    def at(self, mishaps: Mishaps) -> Play:
        """Return the same with an initiator to which things happen at its steps."""
        host = replace(self.initiator.host, on_step=mishaps.initiator().host.on_step)
        return replace(self, initiator=replace(self.initiator, host=host))


@contextlib.contextmanager
def several_paths(
    san: San,
    lab_host: LabHost,
    *,
    name: str = "t1",
    lun: int = 1,
    portals: Sequence[Portal] = (),
    chap: Chap | None = None,
    growable: bool = False,
    policy: InitiatorPolicy = POLICY,
) -> Iterator[Play]:
    """Have a volume on one target of four portals; it is disconnected and forgotten at the end."""
    target = san.target(name, portals=portals, chap=chap, allowed=[lab_host.initiator])
    disk = san.add_lun(target, lun, size_mib=SIZE_MIB, growable=growable)
    with playing(san, target, disk, info_of(target, lun, disk, chap=chap), policy) as play:
        yield play


@contextlib.contextmanager
def playing(
    san: San,
    target: Target,
    disk: Disk,
    info: ConnectionInfo,
    policy: InitiatorPolicy = POLICY,
) -> Iterator[Play]:
    """Have a volume to play with; nothing of it is left once it has ended well."""
    before = (sessions(), disks(), node_records(), maps(), registered())
    left: list[str] = []
    initiator = Initiator(InitiatorHost(finish=left.append), policy)
    play = Play(san, target, disk, info, initiator, left)
    try:
        yield play
    except BaseException:
        # what a failed test left would make the next one fail
        with contextlib.suppress(LunportError):
            initiator.disconnect(info, force=True, deadline=Deadline.after(BOUND_S))
        raise
    play.disconnect()
    assert (sessions(), disks(), node_records(), maps(), registered()) == before


@contextlib.contextmanager
def verified(
    play: Play, volume: ConnectedVolume, *, fails: bool = False, limit_s: float = LIMIT_S
) -> Iterator[VerifiedWriter]:
    """Write all the while; at the end nothing has failed and all is where it must be.

    ``fails``: calls may have failed, but none has stayed away, and no block is wrong.
    """
    with VerifiedWriter.on(volume.path, limit_s=limit_s) as writer:
        writer.await_rounds()
        yield writer
        report = writer.end()
    wrong = (report.mismatches, report.stuck) if fails else (report.failures, 0)
    assert wrong == ((), 0), report
    assert wrong_in_file(report, play.disk.file) == ()


# -- what is there -----------------------------------------------------------------------------


def maps() -> list[str]:
    """List the multipath maps of this host: "dm-0"."""
    return [name for name in _maps() if uuid_of(name).startswith("mpath-")]


def maps_of(wwid: Wwid) -> list[str]:
    """List the maps of an identity."""
    return [name for name in _maps() if uuid_of(name) == uuid_for(wwid)]


def uuid_of(name: str) -> str:
    """Read a map's own identity; nothing if it goes away."""
    return read(_BLOCK / name / "dm/uuid")


def uuid_for(wwid: Wwid) -> str:
    """Return what a map of an identity is called."""
    return f"mpath-{format_multipath_wwid(wwid)}"


def members(name: str) -> set[str]:
    """List the disks in a map."""
    return {path.name for path in (_BLOCK / name / "slaves").iterdir()}


def portals_in(name: str) -> set[str]:
    """List the portals behind a map's disks, from session to session."""
    return {portal_of(disk) for disk in members(name)}


def portal_of(disk: str) -> str:
    """Say through which portal the kernel reaches a disk; nothing if it goes away."""
    device = (_BLOCK / disk / "device").resolve()
    session = next((one for one in device.parents if one.name.startswith("session")), None)
    return "" if session is None else _portal_of_session(session.name)


def session_to(portal: Portal) -> str:
    """Name the session to a portal; nothing without one."""
    return next((one for one in sessions() if _portal_of_session(one) == str(portal)), "")


def _portal_of_session(session: str) -> str:
    for connection in (_SESSIONS / session / "device").glob("connection*"):
        place = Path("/sys/class/iscsi_connection") / connection.name
        host, port = read(place / "persistent_address"), read(place / "persistent_port")
        if host and port:
            return str(Portal(host, int(port)))
    return ""


def state_of(portal: Portal) -> str:
    """Say what the kernel thinks of the session to a portal; nothing without one."""
    return read(_SESSIONS / session_to(portal) / "state")


def usable(name: str) -> set[str]:
    """List the portals over which the kernel would send a map's I/O now."""
    line = run(["dmsetup", "status", read(_BLOCK / name / "dm/name")], soon()).stdout
    # each path is told as: number, A for active or F for failed, count
    numbers = {one for one, state in itertools.pairwise(line.split()) if state == "A"}
    return {portal_of(disk) for disk in members(name) if read(_BLOCK / disk / "dev") in numbers}


def queues(name: str) -> bool:
    """Tell whether a map keeps I/O while it has no path."""
    return (
        "queue_if_no_path"
        in run(["dmsetup", "table", read(_BLOCK / name / "dm/name")], soon()).stdout
    )


def size_of(device: str) -> int:
    """Return a disk's or map's size in bytes."""
    return int(read(_BLOCK / device / "size")) * 512


def registered() -> set[str]:
    """List what is in multipath's file of known identities."""
    lines = WWIDS.read_text().splitlines() if WWIDS.exists() else []
    return {line for line in lines if line.startswith("/")}


def live_in(status: VolumePaths) -> set[str]:
    """List the portals of the paths that are live."""
    return {str(one.path.portal) for one in status.paths if one.state is PathState.LIVE}


def why_not(status: VolumePaths) -> dict[str, str]:
    """Map the portals of the paths that are not live to the reason."""
    return {
        str(one.path.portal): one.why or ""
        for one in status.paths
        if one.state is not PathState.LIVE
    }


def await_usable(name: str, portals: Sequence[Portal], limit_s: float = BACK_S) -> None:
    """Wait until the kernel would send I/O over just these."""
    wanted = set(map(str, portals))
    wait_until(lambda: usable(name) == wanted, f"{sorted(wanted)} to be usable", limit_s)


def read(file: Path) -> str:
    """Read a file of sysfs; nothing if it goes away."""
    with contextlib.suppress(OSError):
        return file.read_text().strip()
    return ""


def ask(command: str) -> str:
    """Give multipathd a command that Lunport would not."""
    return Multipathd().ask(command, soon())


def soon() -> Deadline:
    """Return the time that a program of the test's own gets."""
    return Deadline.after(120)


def _maps() -> list[str]:
    return sorted(path.name for path in _BLOCK.glob("dm-*"))


# -- what happens ------------------------------------------------------------------------------


@contextlib.contextmanager
def all_of(*happening: contextlib.AbstractContextManager[object]) -> Iterator[None]:
    """Let several things happen, and heal them all at the end."""
    with contextlib.ExitStack() as undo:
        for one in happening:
            undo.enter_context(one)
        yield


@contextlib.contextmanager
def without(daemon: services.Multipathd, *, is_killed: bool = False) -> Iterator[None]:
    """Have multipathd not run for a while, ended as an operator does it or abruptly."""
    if is_killed:
        daemon.kill()
    else:
        daemon.stop()
    try:
        yield
    finally:
        daemon.start()
