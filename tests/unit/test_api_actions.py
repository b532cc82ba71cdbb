"""Volume actions, snapshots and attachments over the API."""

from __future__ import annotations

from collections.abc import Iterator

import pytest

from lunport.api.app import ApiSettings
from lunport.api.auth import TokenAuth, TokenEntry, hash_token
from lunport.core.errors import ExportFailed, TargetDaemonDown
from tests.fakes.api_client import HOST_1, HOST_2, PROJECT, ApiClient
from tests.fakes.fake_service import FakeBench, make_bench

NOBODY = "00000000-0000-4000-8000-000000000000"
INSTANCE = "11111111-1111-4111-8111-111111111111"


@pytest.fixture(scope="module")
def bench(tmp_path_factory: pytest.TempPathFactory) -> Iterator[FakeBench]:
    made = make_bench(tmp_path_factory.mktemp("api"))
    yield made
    made.service.store.close()


@pytest.fixture
def api(bench: FakeBench) -> ApiClient:
    return ApiClient(bench)


@pytest.fixture
def member(bench: FakeBench) -> ApiClient:
    entry = TokenEntry(hash_token("t"), "user", PROJECT, frozenset())
    return ApiClient(bench, ApiSettings(authenticator=TokenAuth([entry])), token="t")


@pytest.fixture
def volume(api: ApiClient) -> str:
    return api.make_volume()


def test_legacy_attach_cycle(api: ApiClient, volume: str) -> None:
    """Reserve, connect, attach, begin to detach, disconnect, detach: each state as told."""
    connector = {"connector": HOST_1}
    steps: list[tuple[str, object, int, str]] = [
        ("os-reserve", None, 202, "attaching"),
        ("os-unreserve", {}, 202, "available"),
        ("os-reserve", {}, 202, "attaching"),
        ("os-initialize_connection", connector, 200, "attaching"),
        ("os-attach", {"host_name": "h1", "mountpoint": "/dev/vdb"}, 202, "in-use"),
        ("os-begin_detaching", {}, 202, "detaching"),
        ("os-roll_detaching", {}, 202, "in-use"),
        ("os-begin_detaching", {}, 202, "detaching"),
        ("os-terminate_connection", connector, 202, "detaching"),
        ("os-detach", {}, 202, "available"),
    ]
    for action, value, code, status in steps:
        answer = api.act(volume, action, value)
        assert (action, answer.status) == (action, code), answer.text
        assert answer.text == "" or code == 200
        assert (action, api.status_of(volume)) == (action, status)
    assert api.bench.helper.exports() == ()


def test_initialize_connection_answers_the_wire_form(api: ApiClient, volume: str) -> None:
    """The connection info has driver type and data, with main path and alternatives."""
    answer = api.act(volume, "os-initialize_connection", {"connector": HOST_1})
    info = answer.json["connection_info"]
    assert info["driver_volume_type"] == "iscsi"
    data = info["data"]
    assert data["target_portal"] == "127.0.0.1:3260"
    assert data["target_portals"] == ["127.0.0.1:3260", "127.0.0.2:3260"]
    assert data["volume_id"] == volume
    assert data["auth_password"]
    api.act(volume, "os-terminate_connection", {"connector": None})


def test_wrong_state_is_400(api: ApiClient, volume: str) -> None:
    """An action that the status forbids is a 400 that names the status."""
    api.act(volume, "os-reserve")
    name, code, message = api.act(volume, "os-reserve").fault
    assert (name, code) == ("badRequest", 400)
    assert message.startswith("Invalid volume: ")
    assert message.endswith("current status is: attaching.")


def test_flags_and_size(api: ApiClient, volume: str) -> None:
    """Bootable, read-only and size are changed by their actions."""
    assert api.act(volume, "os-set_bootable", {"bootable": "true"}).status == 200
    assert api.act(volume, "os-update_readonly_flag", {"readonly": True}).status == 202
    assert api.act(volume, "os-extend", {"new_size": "3"}).status == 202
    shown = api.get(f"/volumes/{volume}").json["volume"]
    assert (shown["bootable"], shown["size"]) == ("true", 3)
    assert shown["metadata"]["readonly"] == "True"
    assert api.act(volume, "os-extend", {"new_size": 3}).fault[1] == 400


def test_unknown_actions_are_named(api: ApiClient, volume: str) -> None:
    """An action that does not exist is a 400 with its name; so is no action."""
    assert api.act(volume, "os-fly").fault == (
        "badRequest",
        400,
        (
            "There is no such action: os-fly. Verify the request body and Content-Type header "
            "and try again."
        ),
    )
    path = f"/volumes/{volume}/action"
    bodies: list[object] = [{}, {"os-reserve": {}, "os-unreserve": {}}, [], ["os-reserve"]]
    for body in bodies:
        assert api.post(path, body).fault == ("badRequest", 400, "Malformed request body")
    assert api.status_of(volume) == "available"


@pytest.mark.parametrize(
    "action, value",
    [
        ("os-reset_status", {"status": "error"}),
        ("os-force_delete", {}),
        ("os-force_detach", {}),
        ("os-extend_volume_completion", {}),
    ],
)
def test_admin_actions_are_refused_to_members(
    api: ApiClient, member: ApiClient, volume: str, action: str, value: object
) -> None:
    """What Block Storage keeps for administrators is a 403 for others, and changes nothing."""
    policy = "volume_extension:volume_admin_actions:" + action.removeprefix("os-")
    assert member.act(volume, action, value).fault == (
        "forbidden",
        403,
        f"Policy doesn't allow {policy} to be performed.",
    )
    assert api.status_of(volume) == "available"
    assert member.act(NOBODY, action, value).status == 404


def test_reset_status_and_force_delete(api: ApiClient, volume: str) -> None:
    """An administrator sets the status by hand, and deletes whatever the status is."""
    assert api.act(volume, "os-reset_status", {"status": "ERROR"}).status == 202
    assert api.status_of(volume) == "error"
    assert api.act(volume, "os-reset_status", {}).status == 400
    assert api.act(volume, "os-reset_status", {"status": "nonsense"}).status == 400
    assert api.act(volume, "os-reset_status", {"status": "maintenance"}).status == 202
    assert api.act(volume, "os-force_delete", {}).status == 202
    assert api.get(f"/volumes/{volume}").status == 404


def test_extend_completion_finds_nothing_to_complete(api: ApiClient, volume: str) -> None:
    """No volume here waits for the end of an extend, so completing one is a 400."""
    answer = api.act(volume, "os-extend_volume_completion", {"error": False})
    assert answer.fault[:2] == ("badRequest", 400)


def test_image_metadata_is_empty(api: ApiClient, volume: str) -> None:
    """No volume here was made from an image."""
    assert api.act(volume, "os-show_image_metadata", {}).json == {"metadata": {}}


def test_backend_failures_are_told(api: ApiClient, volume: str) -> None:
    """A target daemon that is down is a 503, a failed export a 500 with its sentence."""
    helper = api.bench.helper
    connector = {"connector": HOST_1}
    helper.fail_next["export"] = TargetDaemonDown("tgtd", "it does not answer")
    assert api.act(volume, "os-initialize_connection", connector).fault == (
        "serviceUnavailable",
        503,
        "tgtd is not usable: it does not answer",
    )
    helper.fail_next["export"] = ExportFailed("iqn.x:1", "account", "no room")
    assert api.act(volume, "os-initialize_connection", connector).fault == (
        "computeFault",
        500,
        "Export of iqn.x:1 failed at account: no room",
    )
    assert api.status_of(volume) == "available"


# -- attachments ---------------------------------------------------------------------------


def test_attachment_cycle(api: ApiClient, volume: str) -> None:
    """Reserve, connect, complete, delete: the answers and the volume's states."""
    made = api.post("/attachments", {"attachment": {"volume_uuid": volume}})
    assert made.status == 200
    attachment = made.json["attachment"]
    assert attachment == {
        "id": attachment["id"],
        "status": "reserved",
        "instance": None,
        "volume_id": volume,
        "attached_at": "",
        "detached_at": "",
        "attach_mode": attachment["attach_mode"],
        "connection_info": {},
    }
    path = f"/attachments/{attachment['id']}"
    assert api.status_of(volume) == "reserved"

    updated = api.put(path, {"attachment": {"connector": HOST_1}})
    info = updated.json["attachment"]["connection_info"]
    assert updated.status == 200
    assert info["driver_volume_type"] == "iscsi"
    assert info["target_portal"] == "127.0.0.1:3260"
    assert info["attachment_id"] == attachment["id"]
    assert api.status_of(volume) == "attaching"

    completed = api.post(f"{path}/action", {"os-complete": None})
    assert (completed.status, completed.text) == (204, "")
    assert api.status_of(volume) == "in-use"
    shown = api.get(path).json["attachment"]
    assert shown["status"] == "attached"
    assert shown["attached_at"]
    assert shown["connection_info"] == info
    plain = {key: shown[key] for key in ("id", "status", "instance", "volume_id")}
    assert api.get("/attachments", f"volume_id={volume}").json == {"attachments": [plain]}
    assert api.get("/attachments/detail", f"volume_id={volume}").json == {"attachments": [shown]}

    deleted = api.delete(path)
    assert (deleted.status, deleted.json) == (200, {"attachments": []})
    assert api.status_of(volume) == "available"
    assert api.get(path).fault[:2] == ("itemNotFound", 404)
    assert api.bench.helper.exports() == ()


def test_attachments_come_with_their_versions(api: ApiClient, volume: str) -> None:
    """No attachments before 3.27, no os-complete before 3.44, no mode before 3.54."""
    body = {"attachment": {"volume_uuid": volume}}
    assert api.post("/attachments", body, version="3.26").status == 404
    assert api.get("/attachments", version="3.26").status == 404
    with_mode = {"attachment": {"volume_uuid": volume, "mode": "ro"}}
    assert api.post("/attachments", with_mode, version="3.53").status == 400
    made = api.post("/attachments", with_mode, version="3.54").json["attachment"]
    assert made["attach_mode"] == "ro"
    path = f"/attachments/{made['id']}"
    assert api.post(f"{path}/action", {"os-complete": {}}, version="3.43").status == 404
    assert api.delete(path).status == 200


def test_second_connection_conflicts(api: ApiClient, volume: str) -> None:
    """A second reservation is a 400, as the status forbids it."""
    body = {"attachment": {"volume_uuid": volume, "connector": HOST_1}}
    first = api.post("/attachments", body).json["attachment"]["id"]
    body["attachment"] = {"volume_uuid": volume, "connector": HOST_2}
    assert api.post("/attachments", body).fault[:2] == ("badRequest", 400)
    assert api.delete(f"/attachments/{first}").status == 200


def test_guard_of_connected_instances(bench: FakeBench, api: ApiClient, volume: str) -> None:
    """OSSA-2023-003: only the service token takes an instance's connection away."""
    settings = ApiSettings(service_token_hash=hash_token("the-service"))
    user = ApiClient(bench, settings)
    service = ApiClient(bench, settings, service_token="the-service")
    made = api.post(
        "/attachments",
        {
            "attachment": {
                "volume_uuid": volume,
                "instance_uuid": INSTANCE,
                "connector": HOST_1,
            }
        },
    )
    path = f"/attachments/{made.json['attachment']['id']}"
    api.post(f"{path}/action", {"os-complete": {}})
    for refused in (
        user.delete(path),
        user.act(volume, "os-detach", {}),
        user.act(volume, "os-terminate_connection", {"connector": HOST_1}),
        user.act(volume, "os-force_detach", {"connector": HOST_1}),
    ):
        assert refused.fault[:2] == ("conflictingRequest", 409), refused.text
    assert api.status_of(volume) == "in-use"
    assert service.delete(path).status == 200
    assert api.status_of(volume) == "available"


@pytest.mark.parametrize(
    "keys",
    [
        {},
        {"volume_uuid": "not-a-uuid"},
        {"volume_uuid": None},
        {"volume_uuid": NOBODY, "instance_uuid": "x"},
        {"volume_uuid": NOBODY, "connector": "text"},
        {"volume_uuid": NOBODY, "mode": "rx"},
        {"volume_uuid": NOBODY, "other": 1},
    ],
)
def test_bad_attachments_are_400(api: ApiClient, keys: dict[str, object]) -> None:
    """A body that the schema does not allow is a 400."""
    assert api.post("/attachments", {"attachment": keys}).fault[:2] == ("badRequest", 400)


def test_connector_without_initiator_is_400(api: ApiClient, volume: str) -> None:
    """A connector that names no initiator is refused, and leaves nothing."""
    keys = {"volume_uuid": volume, "connector": {"host": "h1"}}
    assert api.post("/attachments", {"attachment": keys}).fault[:2] == ("badRequest", 400)
    reserved = api.post("/attachments", {"attachment": {"volume_uuid": volume}}).json
    path = f"/attachments/{reserved['attachment']['id']}"
    assert api.put(path, {"attachment": {"connector": {}}}).status == 400
    assert api.put(path, {"attachment": {"connector": {"host": "h1"}}}).status == 400
    assert api.delete(path).status == 200
    assert api.status_of(volume) == "available"


# -- snapshots -------------------------------------------------------------------------------


def test_snapshot_cycle(api: ApiClient, volume: str) -> None:
    """Take, show, rename, list and delete a snapshot."""
    made = api.post("/snapshots", {"snapshot": {"volume_id": volume, "name": "s"}})
    assert made.status == 202
    snapshot = made.json["snapshot"]
    path = f"/snapshots/{snapshot['id']}"
    assert (snapshot["volume_id"], snapshot["size"]) == (volume, 1)
    shown = api.get(path).json["snapshot"]
    assert shown["status"] == "available"
    assert shown["os-extended-snapshot-attributes:progress"] == "100%"
    assert shown["os-extended-snapshot-attributes:project_id"] == PROJECT
    assert api.put(path, {"snapshot": {"name": "t"}}).json["snapshot"]["name"] == "t"
    assert api.put(path, {"snapshot": {}}).status == 400
    assert api.get("/snapshots", f"volume_id={volume}").json["snapshots"][0]["name"] == "t"
    assert api.post(f"{path}/metadata", {"metadata": {"k": "v"}}).status == 200
    with_entry = "metadata={'k':'v'}&with_count=1"
    found = api.get("/snapshots/detail", f"volume_id={volume}&{with_entry}").json
    assert (found["count"], found["snapshots"][0]["metadata"]) == (1, {"k": "v"})
    assert api.delete(path).status == 202
    assert api.get(path).fault[:2] == ("itemNotFound", 404)


def test_snapshot_fields_come_with_their_version(api: ApiClient, volume: str) -> None:
    """group_snapshot_id, user_id and consumes_quota appear from their versions on."""
    made = api.post("/snapshots", {"snapshot": {"volume_id": volume}}).json["snapshot"]
    path = f"/snapshots/{made['id']}"
    for name, since in (("group_snapshot_id", 14), ("user_id", 41), ("consumes_quota", 65)):
        assert name not in api.get(path, version=f"3.{since - 1}").json["snapshot"]
        assert name in api.get(path, version=f"3.{since}").json["snapshot"]
    api.delete(path)


def test_force_flag_by_version(api: ApiClient, volume: str) -> None:
    """force=false is refused from 3.66 on; a volume in use needs force before."""
    body = {"snapshot": {"volume_id": volume, "force": False}}
    assert api.post("/snapshots", body).fault[1] == 400
    api.act(volume, "os-reserve")
    api.act(volume, "os-attach", {"host_name": "h", "mountpoint": "/dev/vdb"})
    assert api.status_of(volume) == "in-use"
    assert api.post("/snapshots", body, version="3.65").fault[1] == 400
    body["snapshot"]["force"] = True
    assert api.post("/snapshots", body, version="3.65").status == 202
    assert api.post("/snapshots", {"snapshot": {"volume_id": volume}}).status == 202


def test_snapshot_admin_actions(api: ApiClient, member: ApiClient, volume: str) -> None:
    """Only administrators reset a snapshot's status or delete it by force."""
    made = api.post("/snapshots", {"snapshot": {"volume_id": volume}}).json["snapshot"]
    path = f"/snapshots/{made['id']}"
    body = {"os-reset_status": {"status": "error"}}
    assert member.post(f"{path}/action", body).fault[:2] == ("forbidden", 403)
    assert api.post(f"{path}/action", body).status == 202
    assert api.get(path).json["snapshot"]["status"] == "error"
    assert api.post(f"{path}/action", {"os-reset_status": {"status": "x"}}).status == 400
    assert api.post(f"{path}/action", {"os-unmanage": {}}).status == 400
    assert api.post(f"{path}/action", {"os-force_delete": {}}).status == 202
    assert api.get(path).status == 404
