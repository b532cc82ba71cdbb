"""Tests of the probe against a real tgtd, and against a target that misbehaves."""

from __future__ import annotations

import socket
import threading
from collections.abc import Iterator
from contextlib import ExitStack
from dataclasses import replace

import pytest

from lunport.core.chap import Chap, ChapCredentials
from lunport.core.connection_info import AddressingMode
from lunport.core.errors import (
    AuthenticationFailed,
    IscsiError,
    LoginTimedOut,
    PortalUnreachable,
)
from lunport.core.iqn import Iqn
from lunport.core.iscsi_login import (
    Ask,
    LoggedIn,
    LoginIntent,
    LoginStep,
    advance_login,
    begin_login,
)
from lunport.core.iscsi_pdu import (
    HEADER_LENGTH,
    NO_TAG,
    LoginResponse,
    NopIn,
    decode_target_pdu,
    parse_lengths,
)
from lunport.core.portal import Portal
from lunport.core.probe_outcome import ProbeOutcome, Verdict
from lunport.core.secret import Secret
from lunport.core.target_path import TargetPath
from lunport.core.wwid import Wwid
from lunport.host.clock import Deadline
from lunport.host.portal_probe import discover_targets, probe_path
from lunport.host.tasks import Stop
from tests.daemons.conftest import (
    CHAP,
    INITIATOR,
    OTHER_INITIATOR,
    RunningTgtd,
    StartTgtd,
    free_portals,
)
from tests.fakes.fake_target import BLOCKS, WWID, FakeTarget, Manners
from tests.fakes.leak_check import no_leaks, open_descriptors  # noqa: F401 - a fixture
from tests.single_exports import unit_of

pytestmark = pytest.mark.usefixtures("no_leaks")

TARGET = Iqn("iqn.2026-11.io.lunport.test:fake")
WRONG = Chap(ChapCredentials("userfortests", Secret("NotTheSecret1234")))
MUTUAL = Chap(CHAP.initiator, ChapCredentials("targetfortests", Secret("Target4Tests1234")))
SHORT_S = 0.3
LONG_S = 10.0


def probe(
    portal: Portal,
    iqn: Iqn = TARGET,
    lun: int = 1,
    *,
    initiator: Iqn = INITIATOR,
    chap: Chap | None = None,
    wwid: Wwid | None = None,
    check_lun: bool = True,
    seconds: float = LONG_S,
    stop: Stop | None = None,
) -> ProbeOutcome:
    """Probe with what a test does not care about filled in."""
    return probe_path(
        TargetPath(portal, iqn, lun),
        initiator,
        chap,
        expected_wwid=wwid,
        check_lun=check_lun,
        deadline=Deadline.after(seconds),
        stop=stop,
    )


def probe_fake(manners: Manners, *, seconds: float = LONG_S, **options: object) -> ProbeOutcome:
    """Probe a target with such manners, and see that nobody stays connected."""
    with FakeTarget(manners) as target:
        outcome = probe(target.portal, seconds=seconds, **options)  # type: ignore[arg-type]  # probe's keywords
        assert target.wait_until_left()
    return outcome


# -- a real tgtd -----------------------------------------------------------------------------


def test_a_healthy_path(tgtd: RunningTgtd) -> None:
    """A healthy path is reachable through each portal, with identity, size and round trip."""
    export = tgtd.export(chap=CHAP)
    tgtd.helper.export(export)
    for portal in tgtd.portals:
        outcome = probe(portal, export.iqn, chap=CHAP, wwid=Wwid(unit_of(export).identity.wwid))
        assert outcome.verdict is Verdict.REACHABLE, outcome
        assert outcome.wwid == unit_of(export).identity.wwid
        assert outcome.size_bytes == unit_of(export).path.stat().st_size
        assert outcome.connect_s is not None
        assert 0 < outcome.connect_s <= outcome.elapsed_s


def test_nothing_is_left_at_the_target(tgtd: RunningTgtd) -> None:
    """After a probe the target has no session, so it can be taken away at once."""
    export = tgtd.export(chap=None)
    tgtd.helper.export(export)
    assert probe(tgtd.portals[0], export.iqn).is_healthy
    assert [seen.sessions for seen in tgtd.helper.exports()] == [0]


def test_a_login_alone(tgtd: RunningTgtd) -> None:
    """Without a look at the unit a login is enough, even for a unit that is not there."""
    export = tgtd.export(chap=CHAP)
    tgtd.helper.export(export)
    outcome = probe(tgtd.portals[0], export.iqn, 9, chap=CHAP, check_lun=False)
    assert (outcome.verdict, outcome.wwid) == (Verdict.REACHABLE, None)


def test_credentials(tgtd: RunningTgtd) -> None:
    """A wrong secret, a wrong name and none at all are rejected; the words never hold one."""
    export = tgtd.export(chap=CHAP)
    tgtd.helper.export(export)
    other_name = Chap(ChapCredentials("somebody", CHAP.initiator.password))
    for chap in (WRONG, other_name, None):
        outcome = probe(tgtd.portals[0], export.iqn, chap=chap)
        assert outcome.verdict is Verdict.CHAP_REJECTED, outcome
        assert "Secret4Tests1234" not in repr(outcome)
    assert "demands CHAP" in outcome.detail


def test_mutual_chap(tgtd: RunningTgtd) -> None:
    """A target that proves itself is trusted; with another secret or none it is not."""
    export = tgtd.export(chap=MUTUAL)
    tgtd.helper.export(export)
    portal = tgtd.portals[0]
    assert probe(portal, export.iqn, chap=MUTUAL).verdict is Verdict.REACHABLE
    assert probe(portal, export.iqn, chap=CHAP).verdict is Verdict.REACHABLE
    assert MUTUAL.mutual is not None
    expecting_another = Chap(
        MUTUAL.initiator, ChapCredentials(MUTUAL.mutual.username, Secret("Another4Tests123"))
    )
    outcome = probe(portal, export.iqn, chap=expecting_another)
    assert outcome.verdict is Verdict.TARGET_NOT_TRUSTED


def test_who_may_not_sees_no_target(tgtd: RunningTgtd) -> None:
    """On tgt a host outside the access list is told what a host is told of a wrong name."""
    export = tgtd.export(chap=None)
    tgtd.helper.export(export)
    unknown = Iqn("iqn.2026-11.io.lunport.test:nothing")
    outcomes = [
        probe(tgtd.portals[0], export.iqn, initiator=OTHER_INITIATOR),
        probe(tgtd.portals[0], unknown),
    ]
    assert [outcome.verdict for outcome in outcomes] == [Verdict.TARGET_UNKNOWN] * 2
    assert all("0x0203" in outcome.detail for outcome in outcomes)


@pytest.mark.parametrize("lun, words", [(0, "no disk"), (7, "no lun 7"), (200, "no lun 200")])
def test_a_unit_that_is_not_there(tgtd: RunningTgtd, lun: int, words: str) -> None:
    """A LUN without a disk is absent, tgt's controller at LUN 0 included."""
    export = tgtd.export(chap=None)
    tgtd.helper.export(export)
    outcome = probe(tgtd.portals[0], export.iqn, lun)
    assert outcome.verdict is Verdict.LUN_ABSENT
    assert words in outcome.detail


def test_another_units_identity(tgtd: RunningTgtd) -> None:
    """A healthy unit that is not the promised one is a wrong identity, and names what it is."""
    export = tgtd.export(chap=None)
    tgtd.helper.export(export)
    wanted = Wwid("naa.6" + "0" * 31)
    outcome = probe(tgtd.portals[0], export.iqn, wwid=wanted)
    assert outcome.verdict is Verdict.WRONG_IDENTITY
    assert (outcome.wwid, outcome.expected_wwid) == (unit_of(export).identity.wwid, wanted)


def test_identities_are_compared_in_any_form(tgtd: RunningTgtd) -> None:
    """What is expected may be written as multipath writes it."""
    export = tgtd.export(chap=None)
    tgtd.helper.export(export)
    as_multipath = Wwid("3" + unit_of(export).identity.wwid.removeprefix("naa.").upper())
    assert probe(tgtd.portals[0], export.iqn, wwid=as_multipath).is_healthy


def test_a_live_session_survives_many_probes(tgtd: RunningTgtd) -> None:
    """Probes by the same initiator do not take the place of its live session."""
    export = tgtd.export(chap=None)
    tgtd.helper.export(export)
    portal = tgtd.portals[0]
    with socket.create_connection((portal.host, portal.port), timeout=5) as live:
        _log_in_by_hand(live, export.iqn)
        assert [seen.sessions for seen in tgtd.helper.exports()] == [1]
        for _ in range(20):
            assert probe(portal, export.iqn).is_healthy
        assert [seen.sessions for seen in tgtd.helper.exports()] == [1]
        live.settimeout(0.05)
        with pytest.raises(TimeoutError):
            live.recv(1)


def _log_in_by_hand(live: socket.socket, iqn: Iqn) -> None:
    intent = LoginIntent(INITIATOR, iqn, None, bytes.fromhex("8000000000ff"), bytes(16), 1)
    step: LoginStep = begin_login(intent)
    while isinstance(step, Ask):
        live.sendall(step.request.encode())
        header = live.recv(HEADER_LENGTH, socket.MSG_WAITALL)
        rest = live.recv(parse_lengths(header).rest, socket.MSG_WAITALL)
        response = decode_target_pdu(header + rest)
        assert isinstance(response, LoginResponse)
        step = advance_login(step.state, response)
    assert isinstance(step, LoggedIn)


def test_a_tgtd_without_targets_closes(tgtd: RunningTgtd) -> None:
    """A tgtd that has no target yet takes the connection and drops it."""
    assert probe(tgtd.portals[0]).verdict is Verdict.CLOSED


def test_discovery(tgtd: RunningTgtd) -> None:
    """A discovery session lists the targets this initiator may see, at the portal asked."""
    ours = tgtd.export(chap=None)
    theirs = tgtd.export(
        "0f0e0d0c-0b0a-4908-8706-050403020199",
        tid=2,
        chap=None,
        initiators=frozenset({OTHER_INITIATOR}),
    )
    tgtd.helper.export(ours)
    tgtd.helper.export(theirs)
    for portal in tgtd.portals:
        found = discover_targets(portal, INITIATOR, None, deadline=Deadline.after(LONG_S))
        assert [(one.portal, one.iqn, one.tpgt) for one in found] == [(portal, ours.iqn, 1)]


def test_ipv6(start_tgtd: StartTgtd) -> None:
    """An IPv6 portal is probed and discovered like any other."""
    if not _has_ipv6():
        with FakeTarget() as target:
            outcome = probe(replace(target.portal, host="::1"))
        assert outcome.verdict in {Verdict.UNREACHABLE, Verdict.REFUSED}
        return
    running = start_tgtd("v6", free_portals("::1"))
    export = running.export(chap=None)
    running.helper.export(export)
    (portal,) = running.portals
    assert probe(portal, export.iqn, wwid=Wwid(unit_of(export).identity.wwid)).is_healthy
    found = discover_targets(portal, INITIATOR, None, deadline=Deadline.after(LONG_S))
    assert [one.portal for one in found] == [portal]


def _has_ipv6() -> bool:
    try:
        with socket.socket(socket.AF_INET6) as trial:
            trial.bind(("::1", 0))
    except OSError:
        return False
    return True


def test_a_name_is_resolved(tgtd: RunningTgtd) -> None:
    """A portal given by name is probed at its address; an unknown name has no way there."""
    export = tgtd.export(chap=None)
    tgtd.helper.export(export)
    by_name = replace(tgtd.portals[0], host="no-such-name.invalid")
    unknown = probe(by_name, export.iqn, seconds=2)
    # Where the resolver's own servers are silent, the name takes all the time there is.
    assert unknown.verdict in {Verdict.UNREACHABLE, Verdict.TIMED_OUT}
    named = probe(replace(tgtd.portals[0], host="localhost"), export.iqn)
    # The system may prefer ::1 for this name, where this daemon does not listen.
    assert named.verdict in {Verdict.REACHABLE, Verdict.REFUSED}


# -- portals that are not there --------------------------------------------------------------


def test_nobody_listens() -> None:
    """A port without a listener refuses."""
    (portal,) = free_portals("127.0.0.1")
    outcome = probe(portal)
    assert (outcome.verdict, outcome.connect_s) == (Verdict.REFUSED, None)


def test_a_black_hole(black_hole: Portal) -> None:
    """A portal that swallows packets times out at the deadline."""
    outcome = probe(black_hole, seconds=SHORT_S)
    assert (outcome.verdict, outcome.connect_s) == (Verdict.TIMED_OUT, None)
    assert "a connection" in outcome.detail


def test_no_way_there() -> None:
    """An address that cannot be reached from here is unreachable at once."""
    outcome = probe(Portal("255.255.255.255"), seconds=SHORT_S)
    assert outcome.verdict is Verdict.UNREACHABLE


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


# -- targets that misbehave ------------------------------------------------------------------


@pytest.mark.parametrize("at", ["connect", "login", "command"])
def test_silence(at: str) -> None:
    """A target that falls silent, at whatever point, times out at the deadline."""
    outcome = probe_fake(Manners(hang_at=at), seconds=SHORT_S)
    assert outcome.verdict is Verdict.TIMED_OUT
    assert outcome.connect_s is not None


@pytest.mark.parametrize("at", ["connect", "login", "command"])
def test_a_cut(at: str) -> None:
    """A target that resets the connection, at whatever point, closed it."""
    assert probe_fake(Manners(close_at=at)).verdict is Verdict.CLOSED


@pytest.mark.parametrize("manners", [Manners(hang_at="logout"), Manners(close_at="logout")])
def test_a_bad_farewell_changes_nothing(manners: Manners) -> None:
    """A target that does not answer the logout is healthy all the same."""
    assert probe_fake(manners).verdict is Verdict.REACHABLE


@pytest.mark.parametrize(
    "raw",
    [
        b"SSH-2.0-OpenSSH_9.2p1 Debian-2+deb12u3 and some more to fill up the header",
        b"HTTP/1.1 400 Bad Request\r\nConnection: close\r\nContent-Length: 0\r\n\r\n",
        bytes(48),
        b"\x23" + bytes(4) + b"\xff\xff\xff" + bytes(40),
        NopIn(NO_TAG, NO_TAG, 0).encode(),
    ],
    ids=["ssh", "http", "zeros", "endless segment", "nop instead of login"],
)
def test_garbage(raw: bytes) -> None:
    """What answers without speaking iSCSI is a protocol error, read no further than it must."""
    assert probe_fake(Manners(raw=raw)).verdict is Verdict.PROTOCOL_ERROR


def test_forbidden() -> None:
    """A target that says no to this initiator is told apart from a wrong secret."""
    assert probe_fake(Manners(login_status=0x0202)).verdict is Verdict.FORBIDDEN
    assert probe_fake(Manners(login_status=0x0301)).verdict is Verdict.NOT_READY


@pytest.mark.parametrize("host", ["127.0.0.1", "localhost"])
def test_a_redirect_is_followed_once(host: str) -> None:
    """A redirect leads to the other portal, whose unit is looked at."""
    with FakeTarget() as there:
        where = f"{there.portal}".replace("127.0.0.1", host) + ",1"
        with FakeTarget(Manners(redirect_to=where)) as here:
            outcome = probe(here.portal, wwid=WWID)
    if host == "127.0.0.1":
        assert (outcome.verdict, outcome.redirected_to) == (Verdict.REACHABLE, there.portal)
        assert there.logouts == 1
    else:
        assert outcome.verdict in {Verdict.REACHABLE, Verdict.REFUSED}
    assert outcome.portal == here.portal


def test_a_circle_of_redirects_ends() -> None:
    """A second redirect is not followed."""
    with FakeTarget() as target:
        target.manners = Manners(redirect_to=str(target.portal))
        outcome = probe(target.portal)
        assert outcome.verdict is Verdict.PROTOCOL_ERROR
        assert "redirected again" in outcome.detail
        assert target.connections == 2


@pytest.mark.parametrize("algorithm", ["5", "6", "7", "8"])
@pytest.mark.parametrize("encoding", ["hex", "base64"])
def test_algorithms(algorithm: str, encoding: str) -> None:
    """Whichever offered algorithm and encoding a target picks, both sides prove themselves."""
    manners = Manners(chap=MUTUAL, algorithm=algorithm, encoding=encoding)
    assert probe_fake(manners, chap=MUTUAL).verdict is Verdict.REACHABLE
    assert probe_fake(manners, chap=WRONG).verdict is Verdict.CHAP_REJECTED


@pytest.mark.parametrize("mutual", ["wrong", "none"])
def test_an_impostor(mutual: str) -> None:
    """A target that cannot prove itself gets no session."""
    with FakeTarget(Manners(chap=MUTUAL, mutual=mutual)) as target:
        outcome = probe(target.portal, chap=MUTUAL)
        assert outcome.verdict is Verdict.TARGET_NOT_TRUSTED
        assert target.luns == []


def test_a_target_that_skips_chap_is_an_impostor() -> None:
    """A target that lets us in without CHAP is not trusted when it had to prove itself."""
    assert probe_fake(Manners(), chap=MUTUAL).verdict is Verdict.TARGET_NOT_TRUSTED
    assert probe_fake(Manners(), chap=CHAP).verdict is Verdict.REACHABLE


def test_a_target_with_offers_of_its_own() -> None:
    """A target that negotiates, in parts, and interjects, is still understood."""
    offers = (("MaxBurstLength", "16384"), ("X-com.example", "1"))
    with FakeTarget(Manners(chap=CHAP, offers=offers, is_split=True, interjects=True)) as target:
        outcome = probe(target.portal, chap=CHAP)
        assert outcome.verdict is Verdict.REACHABLE, outcome
        assert ("MaxBurstLength", "16384") in target.login_keys
        assert ("X-com.example", "NotUnderstood") in target.login_keys
        assert target.nop_outs > 0
        assert target.logouts == 1


@pytest.mark.parametrize(
    "manners, verdict",
    [
        (Manners(unit_attentions=3), Verdict.REACHABLE),
        (Manners(unit_attentions=99), Verdict.NOT_READY),
        (Manners(has_capacity_16=False), Verdict.REACHABLE),
        (Manners(is_not_ready=True), Verdict.NOT_READY),
        (Manners(status=0x08), Verdict.NOT_READY),
        (Manners(status=0x18), Verdict.NOT_READY),
        (Manners(status=0x28), Verdict.NOT_READY),
        (Manners(first_byte=0x7F), Verdict.LUN_ABSENT),
        (Manners(first_byte=0x05), Verdict.LUN_ABSENT),
        (Manners(wwid=None), Verdict.WRONG_IDENTITY),
        (Manners(rejects=True), Verdict.PROTOCOL_ERROR),
        (Manners(asks_to_leave=True), Verdict.CLOSED),
    ],
)
def test_units(manners: Manners, verdict: Verdict) -> None:
    """What a unit answers gives its verdict; greetings of a new session are passed over."""
    outcome = probe_fake(manners, wwid=WWID)
    assert outcome.verdict is verdict, outcome
    if outcome.is_healthy:
        assert (outcome.wwid, outcome.size_bytes) == (WWID, BLOCKS * 512)


@pytest.mark.parametrize("lun", [0, 255, 256, 16383])
def test_luns_reach_the_target(lun: int) -> None:
    """Each LUN reaches the target as it was meant."""
    with FakeTarget() as target:
        assert probe(target.portal, lun=lun).is_healthy
        assert set(target.luns) == {lun}


def test_the_addressing_mode_reaches_the_target() -> None:
    """A LUN is sent as the kernel would send it in the mode that the storage wants."""
    with FakeTarget() as target:
        path = TargetPath(target.portal, TARGET, 300)
        for mode in (None, *AddressingMode):
            outcome = probe_path(
                path,
                INITIATOR,
                None,
                expected_wwid=None,
                check_lun=True,
                deadline=Deadline.after(LONG_S),
                addressing_mode=mode,
            )
            assert outcome.is_healthy
        fields = {field[:2].hex() for field in target.lun_fields}
    assert fields == {"012c", "412c"}


@pytest.mark.parametrize("told, tpgt", [("2", 2), ("", None)])
def test_the_portal_group_is_in_the_outcome(told: str, tpgt: int | None) -> None:
    """The outcome has the portal group's tag if the login told it: a node record needs it."""
    with FakeTarget(Manners(tpgt=told)) as target:
        assert probe(target.portal).tpgt == tpgt


def test_each_probe_has_a_session_of_its_own() -> None:
    """Every probe comes with another ISID of the random type."""
    with FakeTarget() as target:
        for _ in range(5):
            assert probe(target.portal).is_healthy
        assert len(set(target.isids)) == 5
        assert {isid[0] for isid in target.isids} == {0x80}


@pytest.mark.parametrize("at", ["connect", "login", "command"])
def test_a_probe_can_be_cut_off(at: str) -> None:
    """A probe that nobody waits for ends at once, wherever it hangs, and leaves nothing."""
    stop = Stop()
    try:
        with FakeTarget(Manners(hang_at=at)) as target:
            threading.Timer(0.05, stop.set).start()
            outcome = probe(target.portal, stop=stop, seconds=60)
            assert outcome.verdict is Verdict.CANCELLED
            assert outcome.elapsed_s < 30
            assert target.wait_until_left()
    finally:
        stop.close()


# -- discovery of targets that misbehave -------------------------------------------------------


def test_a_long_list_in_parts() -> None:
    """A list of targets that comes in several answers is one list."""
    name = "iqn.2026-11.io.lunport.test:t{}"
    targets = tuple(
        pair
        for n in range(50)
        for pair in (("TargetName", name.format(n)), ("TargetAddress", f"10.0.0.{n + 1}:3260,1"))
    )
    with FakeTarget(Manners(targets=targets, is_split=True)) as target:
        found = discover_targets(target.portal, INITIATOR, None, deadline=Deadline.after(LONG_S))
    assert [one.iqn for one in found] == [name.format(n) for n in range(50)]
    assert str(found[49].portal) == "10.0.0.50:3260"


@pytest.mark.parametrize(
    "manners, error",
    [
        (Manners(hang_at="command"), LoginTimedOut),
        (Manners(close_at="login"), PortalUnreachable),
        (Manners(login_status=0x0201), AuthenticationFailed),
        (Manners(raw=bytes(48)), IscsiError),
        (Manners(targets=(("TargetAddress", "10.0.0.1"),)), IscsiError),
    ],
)
def test_a_discovery_that_fails(manners: Manners, error: type[IscsiError]) -> None:
    """A discovery that fails raises the error of its verdict, with the portal's name."""
    with FakeTarget(manners) as target:
        with pytest.raises(error, match=str(target.portal.port)):
            discover_targets(target.portal, INITIATOR, None, deadline=Deadline.after(SHORT_S))
        assert target.wait_until_left()


def test_many_probes_leave_no_descriptor() -> None:
    """A hundred probes of all fates open no more than one needs."""
    fates = [Manners(), Manners(close_at="login"), Manners(login_status=0x0203), Manners(raw=b"x")]
    before = len(open_descriptors())
    for manners in fates:
        with FakeTarget(manners) as target:
            for _ in range(25):
                probe(target.portal, seconds=0.02 if manners.raw else LONG_S)
    assert len(open_descriptors()) == before
