"""Failover of one path on the real kernel: each cause leads on, and what failed leaves nothing.

A cause before the probe is found by the probe; one that begins after it, at a step of the
connect, is found by open-iscsi or the kernel. The order of the list is respected, each unused
path has its reason, and when all fail there is one error with every path.
"""

from __future__ import annotations

import contextlib
import threading
from collections.abc import Callable, Iterator
from contextlib import AbstractContextManager
from dataclasses import replace
from pathlib import Path

import pytest

from lab import faults
from lab.lio import Disk, Target
from lab.san import San
from lunport.core.connection_info import ConnectionInfo
from lunport.core.errors import (
    AllPathsFailed,
    IscsiError,
    LoginTimedOut,
    LunMissing,
    PortalUnreachable,
    WrongDevice,
)
from lunport.core.login_progress import ChoicePolicy
from lunport.core.target_path import TargetPath
from lunport.host.clock import Deadline
from lunport.initiator.connected_volume import ConnectedVolume, InitiatorPolicy
from lunport.initiator.connector import Initiator
from tests.lab.connecting import (
    disks,
    first_bytes,
    info_of,
    mark,
    node_records,
    reasons,
    sessions,
)
from tests.lab.mishaps import QUICK, Mishaps, eager_pings, mishaps

Fault = Callable[[], AbstractContextManager[object]]


class Twins:
    """One disk behind two targets, each with a portal of its own: the main path's may break."""

    def __init__(self, san: San) -> None:
        self.san = san
        self.one = san.target("one", portals=san.portals[:1])
        self.two = san.target("two", portals=san.portals[1:2])
        self.disk = san.add_lun(self.one, 1)
        self.two.map_lun(1, self.disk)
        self.content = mark(self.disk, "the twins' disk")

    def info(self, luns: tuple[int, int] = (1, 1)) -> ConnectionInfo:
        """Say how to reach the disk, the first target first."""
        return ConnectionInfo(
            paths=tuple(
                TargetPath(target.portals[0], target.iqn, lun)
                for target, lun in zip((self.one, self.two), luns, strict=True)
            ),
            wwid=self.disk.wwid,
        )

    def unmapped(self) -> AbstractContextManager[object]:
        """Take the LUN away from the first target."""
        self.one.unmap_lun(1)
        return contextlib.nullcontext()

    def is_used_alone(self, volume: ConnectedVolume) -> bool:
        """Tell whether the second path is in use, and nothing is left of the first."""
        (record,) = node_records()
        return (
            volume.used.iqn == self.two.iqn
            and first_bytes(volume.path) == self.content
            and len(sessions()) == len(disks()) == 1
            and record.startswith(f"{self.two.iqn}/")
            and [name for name, _ in targets_of_sessions()] == [self.two.iqn]
        )


def targets_of_sessions() -> list[tuple[str, str]]:
    """List the live sessions' targets and states."""
    found = Path("/sys/class/iscsi_session").glob("session*")
    return [
        ((one / "targetname").read_text().strip(), (one / "state").read_text().strip())
        for one in found
    ]


@pytest.fixture
def twins(san: San) -> Twins:
    """One disk behind two targets."""
    return Twins(san)


@pytest.fixture
def at() -> Iterator[Mishaps]:
    """Mishaps at steps of the connect."""
    with mishaps() as made:
        yield made


@pytest.fixture
def pings() -> Iterator[None]:
    """Let sessions notice soon that their portal is dead."""
    with eager_pings():
        yield


# -- causes that the probe finds -------------------------------------------------------------


@pytest.mark.parametrize(
    ("fault", "said"),
    [
        (faults.portal_refuses, "refused"),
        (faults.portal_drops, "no answer within"),
        (faults.login_hangs, "no answer within"),
    ],
    ids=["portal refuses", "portal drops", "login hangs"],
)
def test_a_portal_that_fails_is_passed_over(
    san: San, fault: Callable[..., AbstractContextManager[None]], said: str
) -> None:
    """The next portal is used, and the reason is in the result."""
    target = san.target()
    info = info_of(target, 1, san.add_lun(target, 1))
    with fault(san, san.portals[0]):
        volume = Initiator().connect(info)
        assert said in reasons(volume)[str(san.portals[0])]
        assert volume.used.portal == san.portals[1]
        assert [record.split("/")[1].split(",")[0] for record in node_records()] == [
            san.portals[1].host
        ]
        assert len(sessions()) == 1
        Initiator().disconnect(info)


def test_targets_and_luns_of_the_list_go_with_their_portals(twins: Twins) -> None:
    """A LUN that the first target lacks, then another disk under it: the second is used."""
    volume = Initiator().connect(twins.info((7, 1)))
    assert twins.is_used_alone(volume)
    assert "lun" in reasons(volume)[str(twins.one.portals[0])].lower()
    Initiator().disconnect(twins.info((7, 1)))

    with faults.wrong_identity(twins.one, 1, twins.san.disk()):
        volume = Initiator().connect(twins.info())
        assert twins.is_used_alone(volume)
        assert twins.disk.wwid in reasons(volume)[str(twins.one.portals[0])]
        Initiator().disconnect(twins.info())


def test_a_removed_target_is_passed_over(twins: Twins) -> None:
    """Its portal says that it knows no such target, and the second is used."""
    with faults.target_removed(twins.san, twins.one):
        volume = Initiator().connect(twins.info())
        assert twins.is_used_alone(volume)
        assert reasons(volume)[str(twins.one.portals[0])]
        Initiator().disconnect(twins.info())


def test_a_portal_seen_dead_is_tried_last_the_next_time(san: San) -> None:
    """The second connect does not ask it, a connect in another process neither; order is kept."""
    target = san.target()
    infos = [info_of(target, lun, san.add_lun(target, lun)) for lun in (1, 2)]
    with faults.portal_drops(san, san.portals[0]), faults.portal_refuses(san, san.portals[1]):
        first = Initiator().connect(infos[0])
        second = Initiator().connect(infos[1])
        assert (first.used.portal, second.used.portal) == (san.portals[2], san.portals[2])
        assert len(sessions()) == 1
        why = reasons(second)
        for portal in san.portals[:2]:
            assert why[str(portal)].startswith("not tried: its portal was seen dead lately")
        for info in infos:
            Initiator().disconnect(info)


def test_the_main_path_is_used_though_a_later_one_answers_first(san: San) -> None:
    """All are healthy: the first of the list is used, whatever it is."""
    target = san.target()
    disk = san.add_lun(target, 1)
    for first in (2, 0):
        portals = (san.portals[first], *(p for p in san.portals if p != san.portals[first]))
        info = info_of(target, 1, disk, portals=portals)
        volume = Initiator().connect(info)
        assert volume.used.portal == portals[0]
        assert list(reasons(volume)) == [str(portal) for portal in portals[1:]]
        Initiator().disconnect(info)


def test_all_fail_each_in_its_own_way(san: San) -> None:
    """There is one error, with every path's in the list's order, within the budget."""
    target = san.target(portals=(*san.portals[:3], san.portals6[0]))
    other = san.target("other", portals=san.portals[3:])
    disk = san.add_lun(target, 1)
    san.add_lun(other, 1)
    paths = (*info_of(target, 1, portals=san.portals[:3]).paths, *info_of(other, 1).paths)
    unknown = TargetPath(san.portals6[1], target.iqn, 1)
    info = ConnectionInfo(paths=(*paths, unknown), wwid=disk.wwid)
    budget = InitiatorPolicy(budget_s=30, choice=ChoicePolicy(budget_s=2.5))
    deadline = Deadline.after(30)
    with (
        faults.portal_refuses(san, san.portals[0]),
        faults.portal_drops(san, san.portals[1]),
        faults.login_hangs(san, san.portals[2]),
        pytest.raises(AllPathsFailed) as raised,
    ):
        Initiator(policy=budget).connect(info, deadline=deadline)
    assert not deadline.has_passed()
    # LIO says "service unavailable" of a target that lives on other portals only.
    kinds = [PortalUnreachable, LoginTimedOut, LoginTimedOut, WrongDevice, IscsiError]
    attempts = raised.value.attempts
    fits = [isinstance(one, kind) for kind, one in zip(kinds, attempts, strict=True)]
    assert fits == [True] * 5, attempts
    named = [str(path.portal) in str(one) for path, one in zip(paths, attempts, strict=False)]
    assert named == [True] * 4
    assert (sessions(), disks(), node_records(), Initiator().connections()) == ([], [], [], ())


# -- causes that begin after the probe -------------------------------------------------------


@pytest.mark.parametrize("name", [*faults.PORTAL_FAULTS, "target removed", "secret changed"])
def test_a_login_that_fails_after_its_probe_leads_on(twins: Twins, at: Mishaps, name: str) -> None:
    """The path looked healthy and its login failed: the next one is used, nothing is left."""
    causes: dict[str, Fault] = {
        cause: (lambda fault=fault: fault(twins.san, twins.one.portals[0]))  # type: ignore[misc]
        for cause, fault in faults.PORTAL_FAULTS.items()
    }
    causes["target removed"] = lambda: faults.target_removed(twins.san, twins.one)
    causes["secret changed"] = lambda: locked(twins.one)
    at("record-written", causes[name])
    volume = at.initiator().connect(twins.info())
    assert twins.is_used_alone(volume)
    assert "iscsiadm" in reasons(volume)[str(twins.one.portals[0])]
    at.initiator().disconnect(twins.info())


@contextlib.contextmanager
def locked(target: Target) -> Iterator[None]:
    """Let a target demand a secret that nobody has."""
    demand = target.place / "attrib/authentication"
    demand.write_text("1")
    try:
        yield
    finally:
        demand.write_text("0")


def test_a_unit_that_goes_after_the_probe_leads_on(twins: Twins, at: Mishaps) -> None:
    """The login succeeded and there is no such LUN: the session goes, the next path is used."""
    at("logged-in", twins.unmapped)
    volume = at.initiator().connect(twins.info())
    assert twins.is_used_alone(volume)
    assert "shows no lun 1" in reasons(volume)[str(twins.one.portals[0])]
    at.initiator().disconnect(twins.info())


def test_another_disk_after_the_probe_leads_on(twins: Twins, at: Mishaps) -> None:
    """The disk that appears is another one: it goes unopened, the next path is used."""
    other = twins.san.disk()
    at("logged-in", lambda: faults.wrong_identity(twins.one, 1, other))
    volume = at.initiator().connect(twins.info())
    assert twins.is_used_alone(volume)
    assert other.wwid in reasons(volume)[str(twins.one.portals[0])]
    at.initiator().disconnect(twins.info())


@pytest.mark.usefixtures("pings")
def test_a_portal_that_dies_before_the_scan_leads_on(twins: Twins, at: Mishaps) -> None:
    """A scan that hangs is left at its deadline and ended by the logout; the next path is used."""
    threads = threading.active_count()
    at("session-noted", lambda: faults.portal_drops(twins.san, twins.one.portals[0]))
    volume = at.initiator().connect(twins.info())
    assert twins.is_used_alone(volume)
    assert "scan" in reasons(volume)[str(twins.one.portals[0])]
    at.initiator().disconnect(twins.info())
    assert threading.active_count() == threads


def test_a_target_that_goes_before_the_scan_leads_on(twins: Twins, at: Mishaps) -> None:
    """The session lost its target: it is logged out of, and the next path is used."""
    at("session-noted", lambda: faults.target_removed(twins.san, twins.one))
    volume = at.initiator().connect(twins.info())
    assert twins.is_used_alone(volume)
    assert reasons(volume)[str(twins.one.portals[0])]
    at.initiator().disconnect(twins.info())


def test_a_late_device_is_waited_for(twins: Twins, at: Mishaps) -> None:
    """The LUN appears a while after the login, and the path is used."""
    late: list[str] = []
    at("session-noted", lambda: shown_later(twins.one, late))
    volume = at.initiator(replace(QUICK, disk_s=30)).connect(twins.info())
    assert (volume.used.iqn, late) == (twins.one.iqn, ["shown"])
    assert first_bytes(volume.path) == twins.content
    at.initiator().disconnect(twins.info())


@contextlib.contextmanager
def shown_later(target: Target, told: list[str]) -> Iterator[None]:
    """Take LUN 1 away and bring it back half a second later."""
    disk: Disk = target.luns[1]
    target.unmap_lun(1)

    def show() -> None:
        told.append("shown")
        target.map_lun(1, disk)

    timer = threading.Timer(0.5, show)
    timer.start()
    try:
        yield
    finally:
        timer.join()


def test_all_fail_after_their_probes(twins: Twins, at: Mishaps) -> None:
    """Both logins succeeded and neither unit is there: one error, and nothing is left."""

    def unmapped() -> AbstractContextManager[object]:
        twins.one.unmap_lun(1)
        twins.two.unmap_lun(1)
        return contextlib.nullcontext()

    at("logged-in", unmapped)
    with pytest.raises(AllPathsFailed) as raised:
        at.initiator().connect(twins.info())
    assert [type(one) for one in raised.value.attempts] == [LunMissing] * 2
    assert (sessions(), disks(), node_records(), Initiator().connections()) == ([], [], [], ())


@pytest.mark.again
@pytest.mark.usefixtures("pings")
def test_a_budget_ends_a_connect_that_goes_on_failing(twins: Twins, at: Mishaps) -> None:
    """Where the time is over after the first path, the second is said not to have been tried."""
    deadline = Deadline.after(4)
    hang = InitiatorPolicy(record=QUICK.record, login_s=60, disk_s=60)
    at("session-noted", lambda: faults.portal_drops(twins.san, twins.one.portals[0]))
    with pytest.raises(AllPathsFailed) as raised:
        at.initiator(hang).connect(twins.info(), deadline=deadline)
    assert "not tried" in str(raised.value.attempts[1])
    assert (sessions(), disks(), node_records(), Initiator().connections()) == ([], [], [], ())
