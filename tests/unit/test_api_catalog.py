"""Types, pools, services, limits, quotas, zones, messages, extensions over the API."""

from __future__ import annotations

from collections.abc import Iterator

import pytest

from lunport.api.app import ApiSettings
from lunport.api.auth import TokenAuth, TokenEntry, hash_token
from lunport.core.errors import OutOfSpace
from tests.fakes.api_client import PROJECT, ApiClient
from tests.fakes.fake_service import FakeBench, make_bench


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


def test_types_are_read(api: ApiClient, member: ApiClient) -> None:
    """The default type is listed, shown by id, name and as the default."""
    (listed,) = api.get("/types").json["volume_types"]
    assert listed["name"] == "__DEFAULT__"
    for name in (listed["id"], "__DEFAULT__", "default"):
        assert api.get(f"/types/{name}").json["volume_type"] == listed
    assert api.get(f"/types/{listed['id']}/extra_specs").json == {"extra_specs": {}}
    assert api.get(f"/types/{listed['id']}/extra_specs/x").status == 404
    assert api.get(f"/types/{listed['id']}/encryption").json == {}
    assert api.get(f"/types/{listed['id']}/os-volume-type-access").status == 404
    assert api.get("/types/nonsense").fault[:2] == ("itemNotFound", 404)
    assert "qos_specs_id" not in member.get("/types/default").json["volume_type"]


def test_types_are_paged_and_filtered(api: ApiClient) -> None:
    """The short list of types understands the parameters of the long ones."""
    (listed,) = api.get("/types", "limit=1").json["volume_types"]
    assert api.get("/types", f"marker={listed['id']}").json["volume_types"] == []
    assert api.get("/types", "marker=x").status == 400
    assert api.get("/types", "is_public=None").json["volume_types"] == [listed]
    assert api.get("/types", "extra_specs={'a':'b'}").json["volume_types"] == []
    assert api.get("/types", "extra_specs={}").json["volume_types"] == [listed]


def test_pools_are_for_administrators(api: ApiClient, member: ApiClient) -> None:
    """An administrator sees the backends, with their capabilities when asked for."""
    assert member.get("/scheduler-stats/get_pools").status == 403
    assert api.get("/scheduler-stats/get_pools").json == {"pools": [{"name": "node@files#files"}]}
    (pool,) = api.get("/scheduler-stats/get_pools", "detail=True").json["pools"]
    assert pool["capabilities"]["storage_protocol"] == "iSCSI"
    assert pool["capabilities"]["total_capacity_gb"] == 1024
    assert api.get("/scheduler-stats/get_pools", "name=x").json == {"pools": []}
    assert api.get("/scheduler-stats/get_pools", "detail=x").status == 400


def test_services_are_for_administrators(api: ApiClient, member: ApiClient) -> None:
    """An administrator sees the parts of the service, filtered by host and binary."""
    assert member.get("/os-services").fault[:2] == ("forbidden", 403)
    found = api.get("/os-services").json["services"]
    assert {one["binary"] for one in found} == {"cinder-scheduler", "cinder-volume"}
    assert {(one["status"], one["state"]) for one in found} == {("enabled", "up")}
    (one,) = api.get("/os-services", "binary=cinder-volume").json["services"]
    assert one["backend_state"] == "up"
    old = api.get("/os-services", "binary=cinder-volume", version="3.6").json["services"][0]
    assert not {"cluster", "backend_state"} & set(old)
    assert api.get("/os-services", "host=elsewhere").json == {"services": []}


def test_limits_and_quotas_tell_the_use(api: ApiClient, member: ApiClient) -> None:
    """Limits and quotas are unlimited, and say what the project uses."""
    project = "a" * 32
    user = ApiClient(api.bench, project=project)
    user.make_volume(size=2)
    limits = user.get("/limits").json["limits"]
    assert limits["rate"] == []
    assert limits["absolute"]["maxTotalVolumes"] == -1
    assert limits["absolute"]["totalVolumesUsed"] == 1
    assert limits["absolute"]["totalGigabytesUsed"] == 2
    other = api.get("/limits", f"project_id={project}").json["limits"]
    assert other["absolute"]["totalVolumesUsed"] == 1
    quotas = api.get(f"/os-quota-sets/{project}", "usage=True").json["quota_set"]
    assert quotas["id"] == project
    assert quotas["gigabytes"] == {"limit": -1, "in_use": 2, "reserved": 0}
    assert api.get(f"/os-quota-sets/{project}").json["quota_set"]["gigabytes"] == -1
    assert api.get(f"/os-quota-sets/{project}/defaults").json["quota_set"]["volumes"] == -1
    assert member.get(f"/os-quota-sets/{project}").fault[:2] == ("forbidden", 403)
    assert member.get(f"/os-quota-sets/{PROJECT}").status == 200


def test_zones_extensions_and_filters(api: ApiClient) -> None:
    """What a client asks about the service itself is answered."""
    assert api.get("/os-availability-zone").json == {
        "availabilityZoneInfo": [{"zoneName": "nova", "zoneState": {"available": True}}]
    }
    extensions = api.get("/extensions").json["extensions"]
    assert "os-volume-actions" in {one["alias"] for one in extensions}
    assert api.get("/extensions/os-services").json["extension"]["name"] == "Services"
    assert api.get("/extensions/none").status == 404
    filters = api.get("/resource_filters").json["resource_filters"]
    by_name = {one["resource"]: one["filters"] for one in filters}
    assert "bootable" in by_name["volume"]
    assert "host" not in by_name["volume"]
    assert len(api.get("/resource_filters", "resource=volume").json["resource_filters"]) == 1
    assert api.get("/resource_filters", version="3.32").status == 404


def test_messages_say_why_something_failed(api: ApiClient, member: ApiClient) -> None:
    """A volume that could not be made is in error, and a message says why."""
    api.bench.driver.fail_next["create"] = OutOfSpace("/data", 1 << 30, 1 << 20)
    volume = api.make_volume()
    assert api.status_of(volume) == "error"
    (message,) = api.get("/messages", f"resource_uuid={volume}").json["messages"]
    assert message["resource_type"] == "VOLUME"
    assert message["message_level"] == "ERROR"
    assert message["request_id"].startswith("req-")
    path = f"/messages/{message['id']}"
    assert member.get(path).json == {"message": message}
    assert message in api.get("/messages", version="3.3").json["messages"]
    assert api.get("/messages", version="3.2").status == 404
    assert api.delete(path).status == 204
    assert api.get(path).fault[:2] == ("itemNotFound", 404)
