"""Tests of where paths come from: real sockets, the system's resolver, portals that fail."""

from __future__ import annotations

import socket
from collections.abc import Iterator
from contextlib import ExitStack
from dataclasses import dataclass, replace
from pathlib import Path

import pytest

from lunport.core.chap import Chap, ChapCredentials
from lunport.core.connection_info import ConnectionInfo
from lunport.core.errors import (
    AllPathsFailed,
    AuthenticationFailed,
    InvalidConnectionInfo,
    IscsiError,
    LoginTimedOut,
    PortalUnreachable,
)
from lunport.core.iqn import Iqn
from lunport.core.login_progress import ChoicePolicy
from lunport.core.portal import Portal
from lunport.core.secret import Secret
from lunport.core.target_path import TargetPath
from lunport.core.wwid import Wwid
from lunport.host.clock import Deadline
from lunport.host.dead_portals import DeadPortals
from lunport.initiator.path_source import (
    FoundPaths,
    asks_for_discovery,
    discover_paths,
    find_paths,
    resolve_paths,
)
from tests.daemons.conftest import CHAP, INITIATOR, free_portals
from tests.fakes.fake_target import WWID, FakeTarget, Manners
from tests.fakes.leak_check import no_leaks  # noqa: F401 - a fixture

pytestmark = pytest.mark.usefixtures("no_leaks")

TARGET = Iqn("iqn.2026-11.io.lunport.test:fake")
OTHER = Iqn("iqn.2026-11.io.lunport.test:other")
NOWHERE = Portal("no-such-name.invalid", 3260)
FIRST, SECOND = Portal("192.0.2.1"), Portal("192.0.2.2")
REFUSING = Portal("127.0.0.1", 1)
PATIENT = ChoicePolicy(grace_s=1.0, budget_s=15.0)
HASTY = ChoicePolicy(grace_s=0.1, budget_s=0.6)


@pytest.fixture
def memory(tmp_path: Path) -> DeadPortals:
    """A memory of this test's own."""
    return DeadPortals(tmp_path / "dead-portals")


@pytest.fixture
def black_hole() -> Iterator[Portal]:
    """A portal whose queue is full, so that the kernel drops what else comes."""
    with ExitStack() as stack:
        listener = stack.enter_context(socket.create_server(("127.0.0.1", 0), backlog=0))
        portal = Portal("127.0.0.1", listener.getsockname()[1])
        for _ in range(4):
            filler = stack.enter_context(socket.socket())
            filler.setblocking(False)
            filler.connect_ex((portal.host, portal.port))
        yield portal


def path(portal: Portal, lun: int = 1, iqn: Iqn = TARGET) -> TargetPath:
    """Name a path of the target."""
    return TargetPath(portal, iqn, lun)


def shown(*targets: tuple[Iqn, Portal], chap: Chap | None = None) -> Manners:
    """Have a portal show these targets at these portals."""
    listed: list[tuple[str, str]] = []
    for iqn, portal in targets:
        listed += [("TargetName", str(iqn)), ("TargetAddress", f"{portal},1")]
    return Manners(targets=tuple(listed), chap=chap)


def discover(
    memory: DeadPortals,
    *portals: Portal,
    credentials: ChapCredentials | None = None,
    wwid: Wwid | None = None,
    same_target: bool = False,
    policy: ChoicePolicy = PATIENT,
) -> FoundPaths:
    """Ask the portals of one connection info for more."""
    info = ConnectionInfo(
        tuple(map(path, portals)),
        target_discovered=True,
        discovery_chap=credentials,
        wwid=wwid,
    )
    return discover_paths(
        info, INITIATOR, Deadline.after(30), memory, same_target=same_target, policy=policy
    )


# -- names ---------------------------------------------------------------------------------


def test_addresses_need_no_resolver() -> None:
    """Literal paths come back as they are."""
    paths = (path(FIRST), path(Portal("fd00::2")))
    assert resolve_paths(paths, Deadline.after(0.0)) == FoundPaths(paths)


def test_a_name_becomes_a_path_for_each_address() -> None:
    """A named portal becomes its addresses, in its place, each once."""
    loopback = path(Portal("127.0.0.1"))
    paths = (path(FIRST), path(Portal("localhost")), loopback)
    found = resolve_paths(paths, Deadline.after(30))
    assert found.paths[0] == path(FIRST)
    assert set(found.paths[1:]) <= {path(Portal("::1")), loopback}
    assert found.paths.count(loopback) == 1
    assert found.unused == ()


def test_a_name_without_address_is_one_path_less() -> None:
    """A name that does not resolve is told as that path's failure, as long as others remain."""
    found = resolve_paths((path(NOWHERE), path(FIRST)), Deadline.after(30))
    assert found.paths == (path(FIRST),)
    assert [one.path for one in found.unused] == [path(NOWHERE)]
    assert "no-such-name.invalid" in found.unused[0].reason


def test_no_name_has_an_address() -> None:
    """Without any address there is one error with each name's reason."""
    with pytest.raises(AllPathsFailed, match="no-such-name") as caught:
        resolve_paths((path(NOWHERE),), Deadline.after(30))
    assert [type(error) for error in caught.value.attempts] == [PortalUnreachable]


def test_a_name_may_not_lead_to_another_lun() -> None:
    """Two paths that turn out to be one with two LUNs contradict one another."""
    paths = (path(Portal("127.0.0.1"), lun=2), path(Portal("localhost")))
    with pytest.raises(InvalidConnectionInfo, match="also has LUN 2"):
        resolve_paths(paths, Deadline.after(30))


# -- discovery -----------------------------------------------------------------------------


def test_when_discovery_is_asked_for() -> None:
    """Discovery is asked for by target_discovered, unless all paths are listed already."""
    info = ConnectionInfo((path(FIRST),))
    assert not asks_for_discovery(info)
    assert asks_for_discovery(replace(info, target_discovered=True))
    assert not asks_for_discovery(replace(info, target_discovered=True, is_complete=True))


def test_the_named_path_stays_first(memory: DeadPortals) -> None:
    """Discovery adds the target's other portals behind the named ones."""
    with FakeTarget() as target:
        target.manners = shown((TARGET, SECOND), (TARGET, target.portal), (TARGET, FIRST))
        found = discover(memory, target.portal)
    assert found.asked == target.portal
    assert found.paths == (path(target.portal), path(SECOND), path(FIRST))


def test_discovery_falls_to_the_alternatives(memory: DeadPortals, black_hole: Portal) -> None:
    """Portals that are silent, refuse, or serve no discovery are passed over, in order."""
    (refusing,) = free_portals("127.0.0.1")
    with FakeTarget(Manners(login_status=0x0209)) as unwilling, FakeTarget() as target:
        target.manners = shown((TARGET, target.portal), (TARGET, SECOND))
        portals = (black_hole, refusing, unwilling.portal, target.portal)
        policy = replace(PATIENT, grace_s=0.2)
        found = discover(memory, *portals, policy=policy)
        assert unwilling.wait_until_left()
    assert found.asked == target.portal
    assert found.paths == (*map(path, portals), path(SECOND))
    assert memory.current() == {black_hole, refusing}


def test_a_dead_portal_is_asked_last(memory: DeadPortals) -> None:
    """A portal that was seen dead lately is not asked while another one answers."""
    with FakeTarget(shown()) as first, FakeTarget(shown()) as second:
        memory.remember(first.portal)
        assert discover(memory, first.portal, second.portal).asked == second.portal
        assert first.connections == 0


def test_no_portal_answers_a_discovery(memory: DeadPortals, black_hole: Portal) -> None:
    """When no portal answers there is one error with each portal's reason, in order."""
    (refusing,) = free_portals("127.0.0.1")
    with FakeTarget(Manners(login_status=0x0209)) as unwilling:
        portals = (black_hole, unwilling.portal, refusing)
        with pytest.raises(AllPathsFailed) as caught:
            discover(memory, *portals, policy=HASTY)
    errors = caught.value.attempts
    assert [type(error) for error in errors] == [LoginTimedOut, IscsiError, PortalUnreachable]
    assert all(str(p) in str(e) for p, e in zip(portals, errors, strict=True))


def test_discovery_has_credentials_of_its_own(memory: DeadPortals) -> None:
    """Discovery proves itself with its own credentials; wrong ones are final."""
    wrong = ChapCredentials("userfortests", Secret("NotTheSecret1234"))
    with FakeTarget(shown((TARGET, SECOND), chap=CHAP)) as target, FakeTarget() as alternative:
        found = discover(memory, target.portal, credentials=CHAP.initiator)
        assert found.paths == (path(target.portal), path(SECOND))
        with pytest.raises(AuthenticationFailed):
            discover(memory, target.portal, alternative.portal, credentials=wrong)
        assert alternative.connections == 0


@pytest.mark.parametrize(
    ("wwid", "same_target", "are_taken"),
    [(None, False, False), (WWID, False, True), (WWID, True, False)],
)
def test_other_targets_only_with_an_identity(
    memory: DeadPortals, wwid: Wwid | None, same_target: bool, are_taken: bool
) -> None:
    """A target of another name is a path only if the unit's identity can be held against it.

    And not where the one name was all that anybody spoke of.
    """
    with FakeTarget() as target:
        target.manners = shown((TARGET, target.portal), (OTHER, SECOND))
        found = discover(memory, target.portal, wwid=wwid, same_target=same_target)
    others = (path(SECOND, iqn=OTHER),) if are_taken else ()
    assert found.paths == (path(target.portal), *others)


def test_one_name_on_every_portal_is_the_whole_target(memory: DeadPortals) -> None:
    """Where the main target is on every portal the others are other volumes."""
    with FakeTarget() as target:
        here = target.portal
        target.manners = shown((TARGET, here), (TARGET, SECOND), (OTHER, here), (OTHER, SECOND))
        found = discover(memory, here, wwid=WWID)
    assert found.paths == (path(here), path(SECOND))


def test_a_discovered_name_is_resolved(memory: DeadPortals) -> None:
    """A target that shows its portal by a name is reached by its addresses."""
    with FakeTarget(shown((TARGET, Portal("localhost", 3261)), (TARGET, NOWHERE))) as target:
        found = discover(memory, target.portal)
    assert found.paths[0] == path(target.portal)
    assert path(Portal("127.0.0.1", 3261)) in found.paths
    assert [one.path for one in found.unused] == [path(NOWHERE)]


# -- both ----------------------------------------------------------------------------------


@dataclass(frozen=True, slots=True)
class AskingHost:
    """A host that has a name."""

    memory: DeadPortals

    def initiator_name(self) -> Iqn:
        """Return the name."""
        return INITIATOR


def find(memory: DeadPortals, info: ConnectionInfo, *, discover: bool = True) -> FoundPaths:
    """Find the paths of a connection info, as a host does."""
    host = AskingHost(memory)
    return find_paths(info, host, Deadline.after(30), discover=discover, policy=PATIENT)


def test_names_are_resolved_before_the_discovery(memory: DeadPortals) -> None:
    """A named main portal is asked at its address, and what it shows is added."""
    with FakeTarget() as target:
        named = path(Portal("localhost", target.portal.port))
        target.manners = shown((TARGET, target.portal), (TARGET, SECOND))
        info = ConnectionInfo((named, path(NOWHERE)), target_discovered=True)
        found = find(memory, info)
        assert found.asked == target.portal
        assert path(target.portal) in found.paths
        assert found.paths[-1] == path(SECOND)
        assert [one.path for one in found.unused] == [path(NOWHERE)]
        before = target.connections
        assert path(SECOND) not in find(memory, info, discover=False).paths
        assert target.connections == before


def test_named_paths_outlive_a_discovery_that_fails(memory: DeadPortals) -> None:
    """A living portal that serves no discovery leaves the named paths, and the reason."""
    with FakeTarget(Manners(login_status=0x0209)) as unwilling:
        info = ConnectionInfo((path(unwilling.portal),), target_discovered=True)
        found = find(memory, info)
    assert found.paths == info.paths
    assert "0x0209" in str(found.discovery_failure)


def test_dead_portals_end_it(memory: DeadPortals) -> None:
    """Where no portal answers a discovery nothing else is tried."""
    info = ConnectionInfo(tuple(map(path, free_portals("127.0.0.1"))), target_discovered=True)
    with pytest.raises(AllPathsFailed):
        find(memory, info)


def test_portals_that_are_known_serve_where_the_named_one_is_dead(memory: DeadPortals) -> None:
    """A silent main portal keeps its place; one known from before is asked, and is a path too."""
    with FakeTarget(shown((TARGET, SECOND))) as target:
        info = ConnectionInfo((path(REFUSING),), target_discovered=True)
        found = find_paths(
            info, AskingHost(memory), Deadline.after(30), known=[target.portal], policy=PATIENT
        )
    assert found.paths == (path(REFUSING), path(target.portal), path(SECOND))
    assert found.asked == target.portal
