"""Tests of the agent over HTTP: the same verbs, values and errors as in process."""

from __future__ import annotations

import json
import logging
import threading
from dataclasses import replace
from typing import Any

import falcon
import pytest
from falcon import testing
from hypothesis import given

from lunport.agent.agent import Agent
from lunport.agent.path_wish import PathWish
from lunport.agent_api import documents
from lunport.agent_api.faults import STATUSES, status_of
from lunport.agent_api.verbs import Verbs
from lunport.bootstrap.host_verbs import HostVerbs
from lunport.bootstrap.remote_agent import RemoteAgent
from lunport.core import errors
from lunport.core.change import Change
from lunport.core.connection_info import (
    ConnectionInfo,
    format_whole_connection_info,
    parse_connection_info,
)
from lunport.core.errors import (
    AgentUnavailable,
    AllPathsFailed,
    DeviceBusy,
    DeviceMissing,
    LunportError,
    PortalUnreachable,
    Unavailable,
    UndoFailed,
)
from lunport.core.multipath_use import StallProfile
from lunport.core.path_status import PathState, PathStatus, VolumePaths
from lunport.core.recovery_actions import ForgetConnection
from lunport.host.clock import Deadline
from lunport.initiator.connected_volume import ConnectedVolume
from lunport.initiator.multipath_policy import MultipathPolicy
from tests import strategies
from tests.fakes.agent_in_process import SocketInProcess, serve
from tests.fakes.played_host import SIZE, WWID, PlayedInitiator

SECRET = "Secret4Tests1234"
WAIT_S = 30.0
WIRE: dict[str, object] = {
    "target_portal": "10.0.1.2:3260",
    "target_iqn": "iqn.2026-11.io.lunport.test:v",
    "target_lun": 1,
    "target_portals": ["10.0.1.2:3260", "10.0.2.2:3260"],
    "auth_method": "CHAP",
    "auth_username": "u",
    "auth_password": SECRET,
    "volume_id": "volume-1",
    "wwid": WWID,
}
INFO = parse_connection_info(WIRE)
REFUSED = AllPathsFailed([PortalUnreachable("10.0.1.2:3260", "refused")])


class Both:
    """One initiator, and the two ways to it."""

    def __init__(self, *, runs_multipathd: bool = True) -> None:
        self.played = PlayedInitiator()
        self.here = Agent(
            self.played,
            lambda: runs_multipathd,
            policy=MultipathPolicy(queue_s=11.0, stall=StallProfile.FAST),
        )
        self.app, self.verbs = serve(self.here)
        self.socket = SocketInProcess(self.app)
        self.remote = RemoteAgent(self.socket, lambda: self.here)

    def post(self, path: str, body: object) -> tuple[int, dict[str, Any]]:
        """Ask without our client."""
        text = body if isinstance(body, (str, bytes)) else json.dumps(body)
        answer = testing.TestClient(self.app).simulate_post(path, body=text)
        return answer.status_code, answer.json

    def get(self, path: str) -> testing.Result:
        """Look without our client."""
        return testing.TestClient(self.app).simulate_get(path)


def _soon() -> Deadline:
    return Deadline.after(WAIT_S)


@pytest.fixture
def both() -> Both:
    """An agent on a played initiator."""
    return Both()


@pytest.fixture(params=["here", "remote"])
def verbs(request: pytest.FixtureRequest, both: Both) -> HostVerbs:
    """Each of the two ways."""
    found: HostVerbs = getattr(both, request.param)
    return found


# -- the same verbs either way ---------------------------------------------------------------


def test_there_and_back(verbs: HostVerbs, both: Both) -> None:
    """A volume becomes a disk, is listed, grows, and goes; each verb says what it did."""
    volume = verbs.connect(INFO, deadline=_soon())
    assert (volume.path, volume.change, volume.size_bytes) == ("/dev/sda", Change.CHANGED, SIZE)
    assert [one.reason for one in volume.unused] == ["refused"]
    assert verbs.connect(INFO, deadline=_soon()).change is Change.UNCHANGED
    assert verbs.connections() == both.played.connections()
    assert verbs.extend(INFO, deadline=_soon()) == 2 * SIZE
    assert verbs.disconnect(INFO, deadline=_soon()) is Change.CHANGED
    assert verbs.disconnect(INFO, force=True, deadline=_soon()) is Change.UNCHANGED
    assert both.played.calls[-2:] == ["disconnect", "force"]
    assert all(info == INFO for info in both.played.infos)


@pytest.mark.parametrize(
    "error",
    [
        REFUSED,
        DeviceBusy("/dev/sda", ["mounted on /mnt"]),
        Unavailable("volume-1 is busy"),
        UndoFailed(REFUSED, [DeviceBusy("/dev/sda", ["x"])]),
    ],
)
def test_errors_are_the_same(verbs: HostVerbs, both: Both, error: LunportError) -> None:
    """What the initiator raises is raised."""
    both.played.failures["connect"] = error
    with pytest.raises(type(error)) as raised:
        verbs.connect(INFO, deadline=_soon())
    assert str(raised.value) == str(error)
    with pytest.raises(DeviceMissing):
        verbs.extend(INFO, deadline=_soon())


def test_what_is_wished_goes_on_top_of_the_host_s_policy(verbs: HostVerbs, both: Both) -> None:
    """Only what is asked for differs from the policy; several paths where they are possible."""
    verbs.connect(INFO, deadline=_soon())
    verbs.connect(INFO, multipath=False, wish=PathWish(ready="all"), deadline=_soon())
    wish = PathWish(ready=3, queue_s=0.0, stall=StallProfile.DEFAULT, resilient=True)
    verbs.connect(INFO, multipath=True, wish=wish, deadline=_soon())
    base = MultipathPolicy(queue_s=11.0, stall=StallProfile.FAST)
    assert both.played.wishes == [
        (True, base),
        (False, replace(base, ready=None)),
        (True, MultipathPolicy(ready=3, queue_s=0.0, resilient=True)),
    ]


def test_several_paths_only_where_they_may_be_used_at_once() -> None:
    """Alternatives alone, or a host without multipathd, mean one path; enforced is enforced."""
    alone, without = Both(), Both(runs_multipathd=False)
    alternatives = replace(INFO, is_complete=False)
    alone.here.connect(alternatives, deadline=_soon())
    alone.here.connect(replace(alternatives, target_discovered=True), deadline=_soon())
    alone.here.connect(replace(alternatives, enforce_multipath=True), deadline=_soon())
    without.here.connect(INFO, deadline=_soon())
    found = [is_multipath for is_multipath, _ in alone.played.wishes + without.played.wishes]
    assert found == [False, True, True, False]


def test_recovery(verbs: HostVerbs, both: Both) -> None:
    """What was done and what failed is told in the same words."""
    cut_off, stuck = ForgetConnection("naa.6001"), ForgetConnection("naa.6002")
    both.played.actions += [cut_off, stuck]
    both.played.stuck[stuck] = DeviceBusy("/dev/sda", ["x"])
    lines = verbs.recover(remove_leftovers=True, deadline=_soon())
    assert [(line.outcome, line.sentence) for line in lines] == [
        ("done", str(cut_off)),
        ("failed", str(stuck)),
    ]
    assert lines[1].error == str(DeviceBusy("/dev/sda", ["x"]))
    assert both.played.calls == ["recover-all"]


def _paths() -> VolumePaths:
    live = PathStatus(INFO.paths[0], "default", PathState.LIVE, sid=3, device="sda", since=2.0)
    why = PathStatus(INFO.paths[1], "default", PathState.MISSING, since=4.0, why="refused")
    return VolumePaths("naa.6001", "volume-1", WWID, "dm-0", "dm-0", SIZE, 2, (live, why))


def test_paths(verbs: HostVerbs, both: Both) -> None:
    """The paths are shown, wanted and achieved."""
    both.played.looks.append((_paths(),))
    assert verbs.paths() == (_paths(),)


# -- documents -------------------------------------------------------------------------------


@given(strategies.connection_infos())
def test_a_connection_info_arrives_whole(info: ConnectionInfo) -> None:
    """What is written for another process of the host reads back as the same value."""
    for one in (info, replace(info, is_complete=True), replace(info, is_complete=False)):
        twin = parse_connection_info(json.loads(json.dumps(format_whole_connection_info(one))))
        assert (twin, twin.is_complete) == (one, one.is_complete)


def test_a_map_arrives_whole(both: Both) -> None:
    """A connected map is the same on the other side, with each path's state and the note."""
    volume = replace(
        both.here.connect(INFO, deadline=_soon()),
        map_name="dm-0",
        paths=_paths().paths,
        note="one path is used",
        unused=(),
    )
    assert documents.parse_connected(documents.format_connected(volume)) == volume


@pytest.mark.parametrize("answer", [b"", b"[]", b'{"change": "maybe"}', b"\xff"])
def test_an_answer_of_another_release(answer: bytes) -> None:
    """What can't be read is told as such."""
    for parse in (documents.parse_change, documents.parse_paths, documents.parse_connections):
        with pytest.raises(AgentUnavailable, match="another release"):
            parse(answer)


# -- requests of others ----------------------------------------------------------------------


@pytest.mark.parametrize(
    "body",
    [
        "",
        "{",
        b"\xff\xff",
        "[]",
        {},
        {"connection_info": {}},
        {"connection_info": WIRE, "timeout_s": 0},
        {"connection_info": WIRE, "timeout_s": 1e9},
        {"connection_info": WIRE, "timeout_s": "soon"},
        {"connection_info": WIRE, "multipath": "yes"},
        {"connection_info": WIRE, "wish": {"ready": 0}},
        {"connection_info": WIRE, "wish": {"ready": "most"}},
        {"connection_info": WIRE, "wish": {"queue_s": -1}},
        {"connection_info": WIRE, "wish": {"stall": "slow"}},
        {"connection_info": WIRE, "surprise": 1},
        {"connection_info": {**WIRE, "target_lun": "x"}},
        {"connection_info": {**WIRE, "auth_username": None}},
        "[" * 100_000,
    ],
)
def test_a_bad_body_is_told_and_nothing_is_done(both: Both, body: object) -> None:
    """The error has its kind, a sentence and the exit status, and does not repeat a password."""
    status, answer = both.post("/v1/connect", body)
    assert status == 400
    assert set(answer["error"]) == {"kind", "message", "fields", "exit_code"}
    assert answer["error"]["exit_code"] == 2
    assert SECRET not in json.dumps(answer)
    assert both.played.calls == []


def test_requests_that_lead_nowhere(both: Both) -> None:
    """An unknown path and a wrong method are answered in the same form."""
    assert both.get("/v1/nothing").status_code == 404
    assert both.get("/v1/connect").status_code == 405
    assert both.post("/v1/paths", {})[0] == 405
    assert both.get("/").json["error"]["exit_code"] == 2


def test_a_plain_request(both: Both) -> None:
    """Who has no client of ours sends the connection info as it came."""
    status, answer = both.post("/v1/connect", {"connection_info": WIRE})
    assert (status, answer["path"], answer["change"]) == (200, "/dev/sda", "changed")
    both.played.failures["disconnect"] = DeviceBusy("/dev/sda", ["mounted on /mnt"])
    status, answer = both.post("/v1/disconnect", {"connection_info": WIRE})
    assert (status, answer["error"]["kind"], answer["error"]["exit_code"]) == (409, "DeviceBusy", 4)
    assert both.post("/v1/recover", {}) == (200, {"actions": []})
    assert both.get("/v1/health").json["status"] == "ok"


def test_a_fault_of_ours_is_an_answer_too(
    both: Both, caplog: pytest.LogCaptureFixture, capfd: pytest.CaptureFixture[str]
) -> None:
    """What nobody expected is told without its details, which are in the log."""
    both.played.failures["extend"] = ZeroDivisionError("what?")
    with caplog.at_level(logging.ERROR):
        status, answer = both.post("/v1/extend", {"connection_info": WIRE})
    assert (status, answer["error"]["exit_code"]) == (500, 1)
    assert "what?" not in answer["error"]["message"]
    assert "ZeroDivisionError" in caplog.text
    assert SECRET not in caplog.text + "".join(capfd.readouterr())


def test_secrets_reach_the_initiator_and_no_log(
    both: Both, caplog: pytest.LogCaptureFixture
) -> None:
    """The password goes over the socket, and nothing is logged of it, done or failed."""
    with caplog.at_level(logging.DEBUG):
        both.remote.connect(INFO, deadline=_soon())
        both.played.failures["connect"] = REFUSED
        with pytest.raises(AllPathsFailed):
            both.remote.connect(INFO, deadline=_soon())
    chap = both.played.infos[0].chap
    assert chap is not None
    assert chap.initiator.password.reveal() == SECRET
    assert "connect_done volume=volume-1" in caplog.text
    assert "connect_failed volume=volume-1" in caplog.text
    assert SECRET not in caplog.text


@pytest.mark.parametrize(
    "kind",
    [
        value
        for value in vars(errors).values()
        if isinstance(value, type) and issubclass(value, LunportError)
    ],
)
def test_every_error_has_a_status(kind: type[LunportError]) -> None:
    """No class of errors is without an HTTP status."""
    assert any(ancestor in STATUSES for ancestor in kind.__mro__)
    assert status_of(REFUSED) == 500


# -- lost between the two --------------------------------------------------------------------


def test_a_connect_that_is_lost_is_taken_back_here(both: Both) -> None:
    """When the agent dies after its work the disk goes, since nobody was told of it."""
    both.socket.is_lost = True
    with pytest.raises(AgentUnavailable):
        both.remote.connect(INFO, deadline=_soon())
    assert both.played.calls == ["connect", "disconnect"]
    assert both.played.entries == {}


def test_a_disk_that_was_there_before_stays(both: Both) -> None:
    """A lost connect takes nothing away that was connected before it."""
    both.here.connect(INFO, deadline=_soon())
    (key,) = both.played.entries
    both.played.entries[key] = replace(both.played.entries[key], since=1.0)
    both.played.failures["connect"] = Unavailable("busy")
    both.socket.is_lost = True
    with pytest.raises(AgentUnavailable):
        both.remote.connect(INFO, deadline=_soon())
    assert list(both.played.entries) == [key]


def test_an_agent_that_never_began_leaves_nothing_to_do(both: Both) -> None:
    """Where the journal has nothing, and no agent is there to make it, nothing is disconnected."""
    both.played.failures["connect"] = REFUSED
    both.socket.is_lost = True
    with pytest.raises(AgentUnavailable):
        both.remote.connect(INFO, deadline=_soon())
    assert both.played.calls == ["connect"]


def test_a_loss_that_cannot_be_taken_back_is_told(both: Both) -> None:
    """Then the volume's attachment is to be kept: both errors are in one."""
    both.played.failures["disconnect"] = DeviceBusy("/dev/sda", ["x"])
    both.socket.is_lost = True
    with pytest.raises(UndoFailed, match="is gone"):
        both.remote.connect(INFO, deadline=_soon())


# -- bounds ----------------------------------------------------------------------------------


def test_only_so_much_at_once() -> None:
    """More verbs than the bound are refused as busy; those who only look are answered."""

    class Waiting(PlayedInitiator):
        def connect(self, *arguments: Any, **options: Any) -> ConnectedVolume:
            began.release()
            assert go_on.wait(WAIT_S)
            return PlayedInitiator.connect(self, *arguments, **options)

    began, go_on = threading.Semaphore(0), threading.Event()
    agent = Agent(Waiting(), lambda: False)
    app, verbs = serve(agent, verbs_at_once=2)
    remote = RemoteAgent(SocketInProcess(app), lambda: agent)
    threads = [
        threading.Thread(target=remote.connect, args=(INFO,), kwargs={"deadline": _soon()})
        for _ in range(2)
    ]
    for thread in threads:
        thread.start()
    try:
        assert all(began.acquire(timeout=WAIT_S) for _ in threads)
        with pytest.raises(Unavailable, match="2 things already"):
            remote.disconnect(INFO, deadline=_soon())
        assert remote.paths() == ()
        assert not verbs.wait_until_idle(Deadline.after(0.0))
    finally:
        go_on.set()
        for thread in threads:
            thread.join()
    assert verbs.wait_until_idle(_soon())
    assert isinstance(verbs, Verbs)


def test_a_body_that_is_too_long_is_not_read(both: Both) -> None:
    """A body beyond the bound is refused by its length."""
    answer = testing.TestClient(both.app).simulate_post("/v1/connect", body=b" " * (2 << 20))
    assert answer.status == falcon.HTTP_400


# -- metrics ---------------------------------------------------------------------------------


def test_metrics(both: Both) -> None:
    """What is wanted, what is live, which portals are up, and what was done."""
    both.played.looks.append((_paths(),))
    both.remote.connect(INFO, deadline=_soon())
    both.played.failures["disconnect"] = DeviceBusy("/dev/sda", ["x"])
    with pytest.raises(DeviceBusy):
        both.remote.disconnect(INFO, deadline=_soon())
    lines = both.get("/metrics").text.splitlines()
    assert 'lunport_paths_wanted{volume="volume-1"} 2.0' in lines
    assert 'lunport_paths_live{volume="volume-1"} 1.0' in lines
    assert 'lunport_portal_up{portal="10.0.1.2:3260"} 1.0' in lines
    assert 'lunport_portal_up{portal="10.0.2.2:3260"} 0.0' in lines
    assert 'lunport_agent_requests_total{outcome="done",verb="connect"} 1.0' in lines
    assert 'lunport_agent_requests_total{outcome="DeviceBusy",verb="disconnect"} 1.0' in lines
    assert 'lunport_attach_seconds_count{phase="all"} 1.0' in lines
    assert "lunport_connections_awaited 0.0" in lines
