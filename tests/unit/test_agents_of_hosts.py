"""Agents by their certificates: what is their own host's passes, every overreach is refused."""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from pathlib import Path
from typing import Any

import pytest

from lunport.api.agent_gate import AGENT_ROUTES
from lunport.api.app import ApiSettings, routes
from lunport.api.auth import TokenAuth, hash_token, parse_tokens
from tests.fakes.api_client import Answer, ApiClient
from tests.fakes.fake_service import FakeBench
from tests.fakes.policy_play import bench_of

NODE_A: Mapping[str, object] = {"initiator": "iqn.2026-01.example:a", "host": "node-a"}
NODE_B: Mapping[str, object] = {"initiator": "iqn.2026-01.example:b", "host": "node-b"}
GUEST = "5f0e3e2a-0d8e-4b7b-9c53-000000000001"
TOKENS = ApiSettings(
    TokenAuth(
        parse_tokens(
            {
                "token": [
                    {"hash": hash_token("root"), "user": "r", "project": "p", "roles": ["admin"]},
                    {"hash": hash_token("user"), "user": "u", "project": "p"},
                ]
            },
            what="test",
        )
    ),
    service_token_hash=hash_token("service"),
)


class Play:
    """A service with two enrolled hosts, and whoever asks it."""

    def __init__(self, bench: FakeBench) -> None:
        self.bench = bench
        self.admin = ApiClient(bench)
        self.a = ApiClient(bench, peers=("node-a",), project="")
        self.b = ApiClient(bench, peers=("node-b",), project="")
        for one in (NODE_A, NODE_B):
            answer = self.enrol(str(one["host"]), str(one["initiator"]))
            assert (answer.status, answer.json["change"]) == (200, "changed"), answer.text

    def enrol(self, host: str, initiator: str) -> Answer:
        """Enrol a host."""
        keys = {"host": host, "initiator": initiator}
        return self.admin.post("/enrolments", {"enrolment": keys})


def attach(
    client: ApiClient, volume: str, connector: object = None, instance: str | None = GUEST
) -> Answer:
    """Ask for an attachment."""
    keys: dict[str, Any] = {"volume_uuid": volume, "instance_uuid": instance}
    if connector is not None:
        keys["connector"] = connector
    return client.post("/v3/attachments", {"attachment": keys})


def connect(client: ApiClient, attachment: str, connector: object) -> Answer:
    """Ask to be connected."""
    return client.put(f"/v3/attachments/{attachment}", {"attachment": {"connector": connector}})


def id_of(answer: Answer) -> str:
    """Return the attachment's id."""
    assert answer.status == 200, answer.text
    identifier: str = answer.json["attachment"]["id"]
    return identifier


def assert_refused(answer: Answer, *words: str) -> None:
    """Assert that an answer is 403, in words that say what is wrong."""
    name, code, message = answer.fault
    assert (answer.status, name, code) == (403, "forbidden", 403), answer.text
    for word in ("agent of host", *words):
        assert word in message


@pytest.fixture
def play(tmp_path: Path) -> Iterator[Play]:
    """A service with a target for each host."""
    made = Play(bench_of(tmp_path, "host"))
    yield made
    made.bench.service.store.close()


def test_an_agent_does_its_host_s_work(play: Play) -> None:
    """Reserve, connect, complete, look, report, take away: for its own host, without a token."""
    volume = play.admin.make_volume()
    made = id_of(attach(play.a, volume))
    told = connect(play.a, made, NODE_A)
    assert told.json["attachment"]["connection_info"]["target_lun"] == 1, told.text
    action = f"/v3/attachments/{made}/action"
    assert play.a.post(action, {"os-complete": {}}).status == 204
    assert play.a.get(f"/v3/attachments/{made}").status == 200
    assert play.a.get(f"/v3/volumes/{volume}").json["volume"]["status"] == "in-use"
    assert [one["id"] for one in play.a.get("/v3/attachments").json["attachments"]] == [made]
    # An instance's volume, which only the service identity may take away elsewhere.
    assert play.a.delete(f"/v3/attachments/{made}").status == 200
    assert play.admin.status_of(volume) == "available"
    assert id_of(attach(play.a, volume, NODE_A))


@pytest.mark.parametrize(
    ("connector", "words"),
    [
        (NODE_B, "host node-b"),
        ({**NODE_A, "host": "node-b"}, "host node-b"),
        ({**NODE_A, "initiator": NODE_B["initiator"]}, "it is enrolled with"),
        ({**NODE_A, "initiator": "iqn.2026-01.example:A"}, "it is enrolled with"),
        ({"initiator": NODE_A["initiator"]}, "no host"),
    ],
)
def test_another_host_s_connector(play: Play, connector: object, words: str) -> None:
    """In no part may a connector be somebody else's, with a reservation or without."""
    volume = play.admin.make_volume()
    assert_refused(attach(play.a, volume, connector), words)
    made = id_of(attach(play.a, volume))
    assert_refused(connect(play.a, made, connector), words)
    assert play.bench.helper.exports() == ()


def test_a_host_is_itself_however_it_spells_its_name(play: Play) -> None:
    """Names of hosts have no case, in a certificate and in a connector."""
    shouting = ApiClient(play.bench, peers=("NODE-A",), project="")
    volume = play.admin.make_volume()
    made = id_of(attach(shouting, volume))
    assert connect(shouting, made, {**NODE_A, "host": "Node-A"}).status == 200


def test_another_host_s_attachments(play: Play) -> None:
    """They can't be seen, connected, completed, reported on, or taken away."""
    volume = play.admin.make_volume()
    reserved = id_of(attach(play.b, volume))
    made = reserved
    for is_connected in (False, True):
        if is_connected:
            assert id_of(connect(play.b, reserved, NODE_B)) == made
        path = f"/v3/attachments/{made}"
        assert_refused(play.a.get(path), made)
        assert_refused(connect(play.a, made, NODE_A), made)
        assert_refused(play.a.delete(path), made)
        assert_refused(play.a.post(f"{path}/action", {"os-complete": {}}), made)
        report = {"volume_id": volume, "paths": []}
        assert play.a.post(f"{path}/action", {"lunport:report_paths": report}).status in (400, 403)
        assert_refused(play.a.get(f"/v3/volumes/{volume}"), volume)
    assert play.a.get("/v3/attachments").json["attachments"] == []
    assert play.a.get("/v3/attachments/detail").json["attachments"] == []
    # To say whose they are in the query gains nothing.
    assert play.a.get("/v3/attachments", "attached_host=node-b").json.get("attachments", []) == []
    assert play.b.get(f"/v3/attachments/{reserved}").status == 200


def test_an_instance_s_volume_is_not_taken_by_naming_the_instance(play: Play) -> None:
    """The way by which a migration attaches twice is open to its destination alone."""
    volume = play.admin.make_volume()
    made = id_of(attach(play.b, volume, NODE_B))
    assert play.b.post(f"/v3/attachments/{made}/action", {"os-complete": {}}).status == 204
    assert_refused(attach(play.a, volume, NODE_A), "on another host")
    assert_refused(attach(play.a, volume), "on another host")
    # Nor with a reservation that somebody else has made for the instance.
    other = id_of(attach(play.admin, volume))
    assert_refused(connect(play.a, other, NODE_A), "on another host")


def test_a_reservation_of_nobody_s(play: Play) -> None:
    """What an administrator has reserved may be connected by the host that it is meant for."""
    volume = play.admin.make_volume()
    made = id_of(attach(play.admin, volume))
    assert_refused(play.a.get(f"/v3/attachments/{made}"))
    assert connect(play.a, made, NODE_A).status == 200
    assert play.a.get(f"/v3/attachments/{made}").status == 200


OVERREACH = [
    ("GET", "/v3/volumes"),
    ("GET", "/v3/volumes/detail"),
    ("GET", "/v3/volumes/summary"),
    ("POST", "/v3/volumes"),
    ("DELETE", "/v3/volumes/{volume}"),
    ("PUT", "/v3/volumes/{volume}"),
    ("POST", "/v3/volumes/{volume}/action"),
    ("GET", "/v3/volumes/{volume}/metadata"),
    ("GET", "/v3/snapshots"),
    ("POST", "/v3/snapshots"),
    ("GET", "/v3/exports"),
    ("POST", "/v3/exports/action"),
    ("GET", "/v3/enrolments"),
    ("POST", "/v3/enrolments"),
    ("DELETE", "/v3/enrolments/node-b"),
    ("GET", "/v3/types"),
    ("GET", "/v3/os-services"),
    ("GET", "/v3/limits"),
    ("GET", "/v3/messages"),
    ("POST", "/v3/attachments/detail"),
    ("GET", "/v3/some-project/volumes"),
    ("GET", "/v3/some-project/exports"),
]


@pytest.mark.parametrize(("method", "path"), OVERREACH)
def test_what_no_agent_may_ask(play: Play, method: str, path: str) -> None:
    """Whatever is not in the table is refused before anything is looked at."""
    volume = play.admin.make_volume()
    body: object = {} if method in ("POST", "PUT") else None
    answer = play.a.call(method, path.format(volume=volume), body)
    assert answer.status in (403, 405), answer.text
    if answer.status == 403:
        assert_refused(answer)
    assert play.admin.status_of(volume) == "available"


def test_every_route_is_decided(play: Play) -> None:
    """What is not in the table is refused, for each route and method that there is."""
    for route in routes(play.bench.service, ApiSettings()):
        path = route.path.replace("{", "").replace("}", "")
        for method in ("GET", "POST", "PUT", "DELETE"):
            is_listed = any(m == method and p.fullmatch(path) for m, p in AGENT_ROUTES)
            is_look = path in ("/volumes/detail", "/volumes/summary")
            if not is_listed or is_look:
                answer = play.a.call(method, f"/v3{path}", {} if method != "GET" else None)
                assert answer.status == 403, (method, path, answer.text)


def test_who_is_not_enrolled(play: Play) -> None:
    """A certificate alone is not enough; one that names two enrolled hosts is nobody's."""
    for peers, words in (
        (("node-c",), "enrols node-c"),
        (("node-a", "node-b"), "exactly one"),
    ):
        answer = ApiClient(play.bench, peers=peers, project="").get("/v3/attachments")
        assert (answer.status, answer.fault[0]) == (403, "forbidden")
        assert words in answer.fault[2]
    both = ApiClient(play.bench, peers=("alias", "node-a"), project="")
    assert both.get("/v3/attachments").status == 200
    assert play.admin.delete("/enrolments/node-a").status == 204
    assert play.a.get("/v3/attachments").status == 403
    assert play.admin.delete("/enrolments/node-a").status == 404


def test_by_tls_nobody_is_believed_without_proof(play: Play) -> None:
    """No certificate and no token is 401, though this machine's own callers need neither."""
    bare = ApiClient(play.bench, peers=(), project="")
    assert bare.get("/v3/volumes").status == 401
    assert (
        ApiClient(play.bench, peers=(), token="anybody:p", project="").get("/v3/volumes").status
        == 401
    )
    pretending = ApiClient(play.bench, peers=("node-a",), token="admin:admin", project="")
    assert_refused(pretending.get("/v3/volumes"))
    named = {"lunport.peer_hosts": "node-b", "X-Lunport-Peer-Hosts": "node-b"}
    assert play.admin.get("/volumes", headers=named).status == 200  # a header is a header


def test_tokens_by_tls(play: Play) -> None:
    """With a token a caller is whom the token stands for, certificate or not."""
    for peers in ((), ("node-a",)):
        root = ApiClient(play.bench, TOKENS, token="root", peers=peers, project="")
        assert root.get("/v3/exports").status == 200
        user = ApiClient(play.bench, TOKENS, token="user", peers=peers, project="")
        assert user.get("/v3/exports").status == 403
        wrong = ApiClient(play.bench, TOKENS, token="wrong", peers=peers, project="")
        assert wrong.get("/v3/volumes").status == 401
    agent = ApiClient(play.bench, TOKENS, peers=("node-a",), project="")
    assert agent.get("/v3/attachments").status == 200
    assert_refused(agent.get("/v3/volumes"))
    assert ApiClient(play.bench, TOKENS, peers=(), project="").get("/v3/volumes").status == 401


def test_enrolments(play: Play) -> None:
    """Idempotent; one initiator a host and one host an initiator, however they are spelled."""
    assert play.enrol("NODE-A", str(NODE_A["initiator"])).json["change"] == "unchanged"
    for host, initiator in (
        ("node-a", "iqn.2026-01.example:other"),
        ("node-c", str(NODE_A["initiator"])),
        ("node-c", "iqn.2026-01.example:A"),
    ):
        answer = play.enrol(host, initiator)
        assert (answer.status, "node-a" in answer.fault[2]) == (409, True)
    for host, initiator in (("no host", "iqn.2026-01.example:c"), ("node-c", "no-iqn")):
        assert play.enrol(host, initiator).status == 400
    listed = play.admin.get("/enrolments").json["enrolments"]
    assert [one["host"] for one in listed] == ["node-a", "node-b"]
    user = ApiClient(play.bench, TOKENS, token="user", project="")
    assert user.get("/v3/enrolments").status == 403
    keys = {"host": "node-c", "initiator": "iqn.2026-01.example:c"}
    assert user.post("/v3/enrolments", {"enrolment": keys}).status == 403
    assert user.delete("/v3/enrolments/node-a").status == 403
