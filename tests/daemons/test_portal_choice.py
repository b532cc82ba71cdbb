"""Tests of failover as it runs: real sockets, real threads, a real tgtd, portals that fail."""

from __future__ import annotations

import socket
import threading
from collections.abc import Iterator
from contextlib import ExitStack
from dataclasses import replace
from pathlib import Path

import pytest

from lunport.core.chap import Chap, ChapCredentials
from lunport.core.errors import (
    AllPathsFailed,
    AuthenticationFailed,
    InvalidConnectionInfo,
    LoginRejected,
    LoginTimedOut,
    LunMissing,
    PortalUnreachable,
    WrongDevice,
)
from lunport.core.iqn import Iqn
from lunport.core.login_progress import ChoicePolicy
from lunport.core.portal import Portal
from lunport.core.probe_outcome import Verdict
from lunport.core.secret import Secret
from lunport.core.target_path import TargetPath
from lunport.core.wwid import Wwid
from lunport.host.clock import Deadline
from lunport.host.dead_portals import DeadPortals
from lunport.initiator.portal_choice import PathChoice, choose_path
from tests.daemons.conftest import CHAP, INITIATOR, RunningTgtd, free_portals
from tests.fakes.fake_target import WWID, FakeTarget, Manners
from tests.fakes.leak_check import no_leaks  # noqa: F401 - a fixture
from tests.single_exports import unit_of

pytestmark = pytest.mark.usefixtures("no_leaks")

TARGET = Iqn("iqn.2026-11.io.lunport.test:fake")
# Graces wide enough that a busy machine does not turn a healthy answer into a late one.
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


def choose(
    memory: DeadPortals,
    *portals: Portal,
    chap: Chap | None = None,
    wwid: Wwid | None = WWID,
    policy: ChoicePolicy = PATIENT,
    iqn: Iqn = TARGET,
) -> PathChoice:
    """Choose among portals of one target."""
    paths = [TargetPath(portal, iqn, 1) for portal in portals]
    return choose_path(
        paths,
        INITIATOR,
        chap=chap,
        wwid=wwid,
        memory=memory,
        deadline=Deadline.after(30),
        policy=policy,
    )


def test_the_main_path_on_tgtd(tgtd: RunningTgtd, memory: DeadPortals) -> None:
    """With all portals healthy the main one is used and the other is not even asked."""
    export = tgtd.export(chap=CHAP)
    tgtd.helper.export(export)
    wwid = Wwid(unit_of(export).identity.wwid)
    choice = choose(memory, *tgtd.portals, chap=CHAP, wwid=wwid, iqn=export.iqn)
    assert choice.path.portal == tgtd.portals[0]
    assert choice.outcome.wwid == wwid
    assert [(one.path.portal, one.outcome) for one in choice.unused] == [(tgtd.portals[1], None)]
    assert "not tried" in choice.unused[0].reason
    assert memory.current() == frozenset()


def test_a_black_hole_then_tgtd(tgtd: RunningTgtd, memory: DeadPortals, black_hole: Portal) -> None:
    """A main portal that swallows packets costs one choice its grace, and the next one none."""
    export = tgtd.export(chap=CHAP)
    tgtd.helper.export(export)
    (refusing,) = free_portals("127.0.0.1")
    portals = (black_hole, refusing, tgtd.portals[1])
    wwid = Wwid(unit_of(export).identity.wwid)
    for is_second in (False, True):
        choice = choose(memory, *portals, chap=CHAP, wwid=wwid, iqn=export.iqn)
        assert choice.path.portal == tgtd.portals[1]
        reasons = {one.path.portal: one.reason for one in choice.unused}
        assert set(reasons) == {black_hole, refusing}
        if is_second:
            assert all("not tried" in reason for reason in reasons.values())
            assert all("seen dead lately" in reason for reason in reasons.values())
        else:
            assert "no answer within" in reasons[black_hole]
            assert reasons[refusing].startswith("refused: ")
        assert memory.current() == {black_hole, refusing}
    assert [seen.sessions for seen in tgtd.helper.exports()] == [0]


@pytest.mark.parametrize(
    "manners, reason",
    [
        (Manners(login_status=0x0203), "target-unknown: "),
        (Manners(login_status=0x0202), "forbidden: "),
        (Manners(login_status=0x0302), "not-ready: "),
        (Manners(close_at="login"), "closed: "),
        (Manners(raw=bytes(48)), "protocol-error: "),
        (Manners(first_byte=0x7F), "lun-absent: "),
        (Manners(wwid=Wwid("naa.6" + "0" * 31)), "wrong-identity: "),
        (Manners(hang_at="login"), "no answer within "),
        (Manners(hang_at="command"), "no answer within "),
    ],
)
def test_whatever_fails_at_the_main_portal(
    memory: DeadPortals, manners: Manners, reason: str
) -> None:
    """Whatever is wrong with the main path the alternative is used, and the reason is told."""
    policy = replace(PATIENT, grace_s=0.3)
    with FakeTarget(manners) as main, FakeTarget() as alternative:
        choice = choose(memory, main.portal, alternative.portal, policy=policy)
        assert choice.path.portal == alternative.portal
        assert choice.unused[0].reason.startswith(reason)
        assert main.wait_until_left()
        assert alternative.logouts == 1


def test_a_slow_main_portal_still_wins(memory: DeadPortals) -> None:
    """A main path that answers within a grace of the alternative's answer is preferred."""
    with FakeTarget(Manners(delay_s=1.3)) as main, FakeTarget() as alternative:
        choice = choose(memory, main.portal, alternative.portal)
        assert choice.path.portal == main.portal
        assert "healthy, but later" in choice.unused[0].reason
        assert alternative.connections == 1
    assert memory.current() == frozenset()


def test_a_wrong_secret_is_not_tried_elsewhere(memory: DeadPortals) -> None:
    """A rejected secret is final: the alternative, which would reject it too, is not asked."""
    wrong = Chap(ChapCredentials("userfortests", Secret("NotTheSecret1234")))
    with (
        FakeTarget(Manners(chap=CHAP)) as main,
        FakeTarget(Manners(chap=CHAP)) as alternative,
        FakeTarget(Manners(hang_at="login")) as silent,
    ):
        with pytest.raises(AuthenticationFailed, match=str(main.portal.port)):
            choose(memory, main.portal, alternative.portal, chap=wrong)
        assert alternative.connections == 0
        policy = replace(PATIENT, grace_s=0.2)
        with pytest.raises(AuthenticationFailed, match=str(main.portal.port)):
            choose(
                memory, silent.portal, main.portal, alternative.portal, chap=wrong, policy=policy
            )
        assert alternative.connections == 0
        assert silent.wait_until_left()


def test_all_paths_fail(memory: DeadPortals, black_hole: Portal) -> None:
    """When no path works each one's error is told, in order, with how long it took."""
    (refusing,) = free_portals("127.0.0.1")
    with (
        FakeTarget(Manners(login_status=0x0202)) as forbidden,
        FakeTarget(Manners(first_byte=0x7F)) as empty,
        FakeTarget(Manners(wwid=Wwid("naa.6" + "0" * 31))) as wrong,
    ):
        portals = (refusing, forbidden.portal, empty.portal, wrong.portal, black_hole)
        with pytest.raises(AllPathsFailed) as caught:
            choose(memory, *portals, policy=replace(PATIENT, budget_s=3.0))
    errors = caught.value.attempts
    kinds = [PortalUnreachable, LoginRejected, LunMissing, WrongDevice, LoginTimedOut]
    assert [type(error) for error in errors] == kinds
    assert all(str(p) in str(e) for p, e in zip(portals, errors, strict=True))
    assert " s" in str(errors[-1])
    assert memory.current() == {refusing, black_hole}


def test_errors_keep_the_order_of_the_list(memory: DeadPortals) -> None:
    """A portal seen dead lately is tried last; its error is still where its path stands."""
    (refusing,) = free_portals("127.0.0.1")
    memory.remember(refusing)
    with (
        FakeTarget(Manners(login_status=0x0202)) as forbidden,
        pytest.raises(AllPathsFailed) as caught,
    ):
        choose(memory, refusing, forbidden.portal)
    assert [type(error) for error in caught.value.attempts] == [PortalUnreachable, LoginRejected]


def test_the_budget_bounds_all(memory: DeadPortals, black_hole: Portal) -> None:
    """When the budget is over the silent paths timed out and the rest were not tried."""
    with ExitStack() as stack:
        silent = [
            stack.enter_context(FakeTarget(Manners(hang_at="connect"))).portal for _ in range(9)
        ]
        with pytest.raises(AllPathsFailed) as caught:
            choose(memory, black_hole, *silent, policy=HASTY)
        texts = [str(error) for error in caught.value.attempts]
    assert all(isinstance(error, LoginTimedOut) for error in caught.value.attempts)
    assert len(texts) == 10
    assert "not tried" in texts[-1]
    assert "not tried" not in texts[0]


def test_a_caller_with_less_time(memory: DeadPortals, black_hole: Portal) -> None:
    """The caller's deadline bounds the choice when it is nearer than the budget."""
    path = TargetPath(black_hole, TARGET, 1)
    deadline = Deadline.after(0.2)
    with pytest.raises(AllPathsFailed):
        choose_path([path], INITIATOR, chap=None, wwid=None, memory=memory, deadline=deadline)
    assert deadline.has_passed()


def test_an_answer_makes_a_portal_alive_again(memory: DeadPortals) -> None:
    """A portal remembered as dead is tried last, and forgotten once it answers."""
    (refusing,) = free_portals("127.0.0.1")
    with FakeTarget() as target:
        memory.remember(target.portal)
        choice = choose(memory, target.portal, refusing)
        assert choice.path.portal == target.portal
        assert [one.path.portal for one in choice.unused] == [refusing]
        assert memory.current() == {refusing}


def test_a_memory_of_all_is_ignored(memory: DeadPortals) -> None:
    """With every portal remembered as dead the main one is tried first all the same."""
    with FakeTarget() as main, FakeTarget() as alternative:
        memory.remember(main.portal)
        memory.remember(alternative.portal)
        assert choose(memory, main.portal, alternative.portal).path.portal == main.portal
        assert alternative.connections == 0
    assert memory.current() == {alternative.portal}


def test_a_portal_that_had_no_time_is_not_dead(memory: DeadPortals) -> None:
    """A path begun just before the choice ended is not remembered as dead."""
    policy = ChoicePolicy(grace_s=0.5, budget_s=0.6)
    with (
        FakeTarget(Manners(hang_at="login")) as first,
        FakeTarget(Manners(hang_at="login")) as second,
    ):
        with pytest.raises(AllPathsFailed):
            choose(memory, first.portal, second.portal, policy=policy)
        assert second.connections == 1
        assert memory.current() == {first.portal}


def test_a_memory_that_cannot_be_kept(tmp_path: Path) -> None:
    """Where the memory cannot be written, the choice works without it."""
    (tmp_path / "file").write_text("")
    (refusing,) = free_portals("127.0.0.1")
    with FakeTarget() as target:
        choice = choose(DeadPortals(tmp_path / "file" / "x"), refusing, target.portal)
    assert choice.path.portal == target.portal


def test_no_paths(memory: DeadPortals) -> None:
    """Without any path nothing is started."""
    with pytest.raises(InvalidConnectionInfo):
        choose(memory)


def test_many_choices_at_once(memory: DeadPortals) -> None:
    """Choices in parallel threads share the memory and none is in another's way."""
    (refusing,) = free_portals("127.0.0.1")
    found: list[Verdict] = []
    with FakeTarget() as target:

        def work() -> None:
            choices = (choose(memory, refusing, target.portal) for _ in range(5))
            found.extend(choice.outcome.verdict for choice in choices)

        threads = [threading.Thread(target=work) for _ in range(4)]
        for thread in threads:
            thread.start()
        for thread in threads:
            thread.join()
    assert found == [Verdict.REACHABLE] * 20
    assert memory.current() == {refusing}
