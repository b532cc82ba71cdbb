"""The lab proves itself: its SAN can be logged in to, and each fault does what its name says."""

from __future__ import annotations

import contextlib
import socket
from collections.abc import Iterator
from pathlib import Path

import pytest

from lab import faults
from lab.lio import Target
from lab.san import San
from lab.services import wait_until
from lunport.core.chap import Chap, ChapCredentials
from lunport.core.iqn import Iqn
from lunport.core.portal import Portal
from lunport.core.secret import Secret
from lunport.host.clock import Deadline
from lunport.host.runner import Completed, run
from tests.lab.conftest import LabHost
from tests.lab.leftovers import sweep, take_snapshot, wait_until_equal

WWID = "naa.6001405" + "0123456789abcdef012345678"
CHAP = Chap(
    ChapCredentials("lab-user", Secret("lab-secret-12345")),
    ChapCredentials("lab-target", Secret("lab-mutual-6789")),
)
CONNECT_TIMEOUT, ANSWER_TIMEOUT, AUTH_FAILED = 8, 11, 24  # iscsi_err.h
SOON_S = 20.0


def iscsiadm(*words: str, accepted: tuple[int, ...] = (0,)) -> Completed:
    """Run ``iscsiadm``."""
    return run(["iscsiadm", *words], Deadline.after(60), accepted=accepted)


class Record:
    """A node record of the test's own, whose login tries once for two seconds."""

    def __init__(self, target: Target, portal: Portal) -> None:
        self._words = ("-m", "node", "-T", target.iqn, "-p", str(portal))
        iscsiadm(*self._words, "-o", "new")
        settings = {
            "node.session.initial_login_retry_max": "1",
            "node.conn[0].timeo.login_timeout": "2",
            "node.session.timeo.replacement_timeout": "1",
        }
        if target.chap is not None:
            settings |= {
                "node.session.auth.authmethod": "CHAP",
                "node.session.auth.username": target.chap.initiator.username,
                "node.session.auth.password": target.chap.initiator.password.reveal(),
            }
        if target.chap is not None and target.chap.mutual is not None:
            settings |= {
                "node.session.auth.username_in": target.chap.mutual.username,
                "node.session.auth.password_in": target.chap.mutual.password.reveal(),
            }
        self.update(settings)

    def update(self, settings: dict[str, str]) -> None:
        """Change settings."""
        pairs = [word for pair in settings.items() for word in ("-n", pair[0], "-v", pair[1])]
        iscsiadm(*self._words, "-o", "update", *pairs)

    def login(self) -> int:
        """Log in; give the exit status."""
        return iscsiadm(*self._words, "--login", accepted=tuple(range(256))).status

    def logout(self) -> None:
        """Log out."""
        iscsiadm(*self._words, "--logout")

    def delete(self) -> None:
        """Delete it."""
        iscsiadm(*self._words, "-o", "delete")


@contextlib.contextmanager
def record(target: Target, portal: Portal) -> Iterator[Record]:
    """Have a node record."""
    made = Record(target, portal)
    try:
        yield made
    finally:
        made.delete()


@contextlib.contextmanager
def logged_in(target: Target, portal: Portal) -> Iterator[None]:
    """Have a session."""
    with record(target, portal) as made:
        assert made.login() == 0
        try:
            yield
        finally:
            made.logout()


def seen_wwids(lun: int) -> list[str]:
    """List the identities that sysfs shows for a LUN, on whatever host."""
    found = Path("/sys/class/scsi_device").glob(f"*:{lun}/device/wwid")
    return [path.read_text().strip() for path in found]


def wait_for_disk(lun: int) -> list[str]:
    """Wait for a LUN's disk; give the identities seen."""
    wait_until(lambda: seen_wwids(lun), f"LUN {lun}", SOON_S)
    return seen_wwids(lun)


def scan(lun: int) -> None:
    """Look for one LUN on all SCSI hosts of iSCSI."""
    for host in Path("/sys/class/iscsi_host").glob("host*"):
        (Path("/sys/class/scsi_host") / host.name / "scan").write_text(f"0 0 {lun}")


def connects(portal: Portal) -> bool:
    """Tell whether a connection is taken within a second."""
    try:
        with socket.create_connection((portal.host, portal.port), timeout=1):
            return True
    except OSError:
        return False


# -- the SAN -------------------------------------------------------------------------------


@pytest.mark.parametrize("family", ["portals", "portals6"])
def test_a_disk_of_the_san_is_seen_with_the_identity_it_was_given(san: San, family: str) -> None:
    """A login by IPv4 or IPv6 brings the disk, and sysfs shows the very WWID asked for."""
    portals = getattr(san, family)
    target = san.target(portals=portals)
    disk = san.add_lun(target, 1, wwid=WWID)
    with logged_in(target, portals[-1]):
        assert wait_for_disk(1) == [WWID] == [disk.wwid]


def test_luns_may_have_any_number(san: San) -> None:
    """LUNs of 256 and above are seen under their number, each as itself."""
    target = san.target()
    disks = {lun: san.add_lun(target, lun) for lun in (0, 257, 16383)}
    with logged_in(target, san.portals[0]):
        assert {lun: wait_for_disk(lun) for lun in disks} == {
            lun: [disk.wwid] for lun, disk in disks.items()
        }


@pytest.mark.parametrize("by_name", [True, False])
def test_chap_is_demanded_and_given_both_ways(san: San, lab_host: LabHost, by_name: bool) -> None:
    """With CHAP, for all or for one initiator, only the right secrets log in."""
    target = san.target(chap=CHAP, allowed=[lab_host.initiator] if by_name else [])
    san.add_lun(target, 1)
    with record(target, san.portals[0]) as node:
        assert node.login() == 0
        wait_for_disk(1)
        node.logout()
        node.update({"node.session.auth.password": "not-the-secret-1"})
        assert node.login() == AUTH_FAILED


def test_an_initiator_that_is_not_on_the_list_is_refused(san: San) -> None:
    """A target for another initiator lets nobody else in."""
    target = san.target(allowed=[Iqn("iqn.2026-11.io.lunport.lab:another")])
    with record(target, san.portals[0]) as node:
        assert node.login() == AUTH_FAILED  # forbidden and unauthorised are one to iscsiadm


def test_discovery_names_every_portal_and_may_demand_chap(san: San) -> None:
    """SendTargets answers with all portals; once CHAP is demanded of it, with none."""
    target = san.target()
    words = (
        "-m",
        "discovery",
        "-t",
        "sendtargets",
        "-p",
        str(san.portals[0]),
        "-o",
        "nonpersistent",
    )
    found = iscsiadm(*words).stdout.splitlines()
    assert [f"{portal},1 {target.iqn}" in found for portal in san.portals] == [True] * 4
    san.discovery_chap(CHAP)
    assert iscsiadm(*words, accepted=(0, 5, 24)).status != 0


def test_a_disk_grows(san: San) -> None:
    """A growable disk has its new size at once, and the initiator sees it after a rescan."""
    target = san.target()
    disk = san.add_lun(target, 1, size_mib=32, growable=True)
    with logged_in(target, san.portals[0]):
        wait_for_disk(1)
        found = Path("/sys/class/scsi_device")
        wait_until(lambda: list(found.glob("*:1/device/block/*")), "its block device", SOON_S)
        (block,) = found.glob("*:1/device/block/*")
        assert (block / "size").read_text() == f"{32 << 11}\n"
        disk.grow(48 << 20)
        (block / "device/rescan").write_text("1")
        assert (block / "size").read_text() == f"{48 << 11}\n"


def test_tgtd_listens_beside_lio(san: San) -> None:
    """The other target daemon answers on ports of its own."""
    san.tgtd()
    assert [connects(Portal(portal.host, 3261)) for portal in san.portals] == [True] * 4


# -- faults --------------------------------------------------------------------------------


@pytest.mark.parametrize("family", ["portals", "portals6"])
@pytest.mark.parametrize("by", ["reset", "icmp"])
def test_a_portal_that_refuses_says_so_at_once(san: San, family: str, by: str) -> None:
    """The connection is refused while the fault lasts, for one portal alone."""
    one, other = getattr(san, family)[:2]
    broken = faults.portal_refuses(san, one, by="icmp" if by == "icmp" else "reset")
    with broken, pytest.raises(ConnectionRefusedError):
        socket.create_connection((one.host, one.port), timeout=SOON_S)
    with faults.portal_refuses(san, one):
        assert connects(other)
    assert connects(one)


@pytest.mark.parametrize("family", ["portals", "portals6"])
def test_a_portal_that_drops_says_nothing(san: San, family: str) -> None:
    """The connection is neither taken nor refused while the fault lasts, for one portal alone."""
    one, other = getattr(san, family)[:2]
    with faults.portal_drops(san, one):
        with pytest.raises(TimeoutError):
            socket.create_connection((one.host, one.port), timeout=1.5)
        assert connects(other)
    assert connects(one)


def test_a_login_runs_into_each_fault_of_a_portal(san: San) -> None:
    """A login fails by each fault of a portal, and logs in once it is healed."""
    target = san.target()
    with record(target, san.portals[0]) as node:
        statuses = {}
        for name, broken in faults.PORTAL_FAULTS.items():
            with broken(san, san.portals[0]):
                statuses[name] = node.login()
        assert statuses == {
            "portal refuses": CONNECT_TIMEOUT,  # it tries again until its time is over
            "portal drops": CONNECT_TIMEOUT,
            "login hangs": ANSWER_TIMEOUT,
        }
        assert node.login() == 0
        node.logout()


@pytest.mark.parametrize("family", ["portals", "portals6"])
def test_a_login_that_hangs_is_connected_and_hears_nothing(san: San, family: str) -> None:
    """The connection is taken and what is sent is acknowledged; no answer comes."""
    portal = getattr(san, family)[0]
    with (
        faults.login_hangs(san, portal),
        socket.create_connection((portal.host, portal.port), timeout=SOON_S) as connection,
    ):
        connection.sendall(bytes(48))
        connection.settimeout(0.5)
        with pytest.raises(TimeoutError):
            connection.recv(1)


def test_a_hanging_login_leaves_live_sessions_alone(san: San) -> None:
    """A session from before the fault goes on reading."""
    target = san.target()
    san.add_lun(target, 1)
    with logged_in(target, san.portals[0]):
        wait_for_disk(1)
        found = Path("/sys/class/scsi_device")
        wait_until(lambda: list(found.glob("*:1/device/block/*")), "its block device", SOON_S)
        disk = Path("/dev") / next(found.glob("*:1/device/block/*")).name
        run(["udevadm", "settle"], Deadline.after(SOON_S))
        with faults.login_hangs(san, san.portals[0]), disk.open("rb", buffering=0) as opened:
            opened.seek(32 << 20)  # nobody has read that before
            assert len(opened.read(4096)) == 4096


def test_a_removed_target_is_rejected_by_its_portals(san: San) -> None:
    """The portals answer and reject the login; healed, the target is there with its disk."""
    target = san.target()
    disk = san.add_lun(target, 1)
    with record(target, san.portals[0]) as node:
        with faults.target_removed(san, target):
            assert connects(san.portals[0])
            assert node.login() == CONNECT_TIMEOUT  # rejected, and tried again
        assert node.login() == 0
        assert wait_for_disk(1) == [disk.wwid]
        node.logout()


def test_a_late_device_comes_after_the_login(san: San) -> None:
    """The login succeeds, the LUN is not there, and later it is."""
    target = san.target()
    disk = san.add_lun(target, 1)
    with faults.device_late(target, 1, 1.0) as there, logged_in(target, san.portals[0]):
        scan(1)
        assert seen_wwids(1) == []
        assert there.wait(SOON_S)
        scan(1)
        assert seen_wwids(1) == [disk.wwid]


def test_a_wrong_identity_is_another_disk_under_the_same_lun(san: San) -> None:
    """The LUN shows the other disk while the fault lasts, to whoever logs in."""
    target = san.target()
    disk = san.add_lun(target, 1)
    other = san.disk()
    with faults.wrong_identity(target, 1, other), logged_in(target, san.portals[0]):
        assert wait_for_disk(1) == [other.wwid]
    with logged_in(target, san.portals[0]):
        assert wait_for_disk(1) == [disk.wwid]


# -- leftovers -----------------------------------------------------------------------------


def test_what_is_left_is_named_and_swept(san: San) -> None:
    """A session, a record and a disk that a test forgot are named, and cleared away."""
    target = san.target()
    san.add_lun(target, 1)
    before = take_snapshot()
    assert Record(target, san.portals[0]).login() == 0
    wait_for_disk(1)
    said = "; ".join(wait_until_equal(before, grace_s=0))
    assert f" {target.iqn}" in said
    assert f"node record left: /etc/iscsi/nodes/{target.iqn}/" in said
    assert "SCSI unit left: " in said
    sweep(before)
    assert wait_until_equal(before) == []
