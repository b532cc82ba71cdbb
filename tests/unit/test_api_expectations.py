"""What clients and test suites of Block Storage rely on beyond the shapes of bodies."""

from __future__ import annotations

import uuid
from collections.abc import Iterator
from datetime import datetime, timedelta
from pathlib import Path

import pytest

from lunport.api.app import ApiSettings, routes
from lunport.api.gate import ABSENT
from lunport.api.resources.actions import VOLUME_ACTIONS
from lunport.core.errors import OutOfSpace
from lunport.store import tables
from tests.fakes.api_client import PROJECT, ApiClient
from tests.fakes.fake_service import FakeBench, make_bench

PAGE = Path(__file__).parents[2] / "docs" / "reference" / "api.md"


@pytest.fixture
def bench(tmp_path_factory: pytest.TempPathFactory) -> Iterator[FakeBench]:
    made = make_bench(tmp_path_factory.mktemp("api"))
    yield made
    made.service.store.close()


@pytest.fixture
def api(bench: FakeBench) -> ApiClient:
    return ApiClient(bench)


def volume_of(api: ApiClient, **keys: object) -> dict[str, object]:
    """Create a volume, and show it once it is there."""
    shown: dict[str, object] = api.get(f"/volumes/{api.make_volume(**keys)}").json["volume"]
    assert shown["status"] == "available"
    return shown


def snapshot_of(api: ApiClient, volume_id: str) -> str:
    """Take a snapshot and return its id."""
    answer = api.post("/snapshots", {"snapshot": {"volume_id": volume_id}})
    assert answer.status == 202, answer.text
    identifier: str = answer.json["snapshot"]["id"]
    return identifier


# -- paths -----------------------------------------------------------------------------------


@pytest.mark.parametrize("method", ["GET", "PUT", "DELETE", "POST"])
@pytest.mark.parametrize(
    "path",
    [
        "/volumes/",
        "/volumes/detail/",
        "/snapshots/",
        "/types/",
        "/attachments/",
        "/limits/",
        "/v3/volumes/",
        "/v3/volumes/detail/",
        "/v3/os-quota-sets/",
    ],
)
def test_empty_id_is_not_found(api: ApiClient, method: str, path: str) -> None:
    """A path whose id was left out is a 404: never the list, and nothing is created."""
    body = {"volume": {"name": "x", "size": 1}} if method in ("PUT", "POST") else None
    assert api.call(method, path, body).fault[:2] == ("itemNotFound", 404)
    assert api.get("/volumes").json == {"volumes": []}


def test_documents_keep_their_slash(api: ApiClient) -> None:
    """The version document is found with a slash behind it, as catalogs have it, and without."""
    for path in ("/v3", "/v3/", f"/v3/{PROJECT}", f"/v3/{PROJECT}/"):
        assert api.get(path).status == 200


# -- pages -----------------------------------------------------------------------------------


def test_full_page_has_a_link(api: ApiClient) -> None:
    """A page as long as its limit has a link even if it is the last; the next one is empty."""
    volume_id = api.make_volume()
    api.make_volume()
    for _ in range(2):
        snapshot_of(api, volume_id)
    for resource in ("volumes", "volumes/detail", "snapshots", "snapshots/detail"):
        key = resource.partition("/")[0]
        whole = api.get(f"/{resource}", "limit=2").json
        (link,) = whole[f"{key}_links"]
        assert link["rel"] == "next"
        behind = api.get(f"/{resource}", link["href"].partition("?")[2]).json
        assert behind == {key: []}
        assert f"{key}_links" not in api.get(f"/{resource}", "limit=3").json
        assert f"{key}_links" not in api.get(f"/{resource}").json
        assert api.get(f"/{resource}", "limit=0").json == {key: []}
    assert "volume_type_links" in api.get("/types", "limit=1").json
    assert "volume_type_links" not in api.get("/types").json


# -- sources ---------------------------------------------------------------------------------


def test_copy_of_a_bootable_volume_is_bootable(api: ApiClient) -> None:
    """A volume made from a bootable one, or from a snapshot of it, boots as well."""
    plain, bootable = api.make_volume(), api.make_volume()
    assert api.act(bootable, "os-set_bootable", {"bootable": True}).status == 200
    for source, expected in ((plain, "false"), (bootable, "true")):
        snapshot = snapshot_of(api, source)
        assert volume_of(api, source_volid=source)["bootable"] == expected
        assert volume_of(api, snapshot_id=snapshot)["bootable"] == expected


def test_copy_has_the_type_of_its_source(bench: FakeBench, api: ApiClient) -> None:
    """A source's volume type is kept unless another one is asked for."""
    with bench.service.store.write() as connection:
        connection.execute(
            tables.volume_types.insert().values(
                id=str(uuid.uuid4()),
                name="fast",
                description=None,
                is_public=True,
                extra_specs={},
            )
        )
    source = api.make_volume(volume_type="fast")
    snapshot = snapshot_of(api, source)
    for keys in ({"source_volid": source}, {"snapshot_id": snapshot}):
        assert volume_of(api, **keys)["volume_type"] == "fast"
        other = volume_of(api, volume_type="__DEFAULT__", **keys)
        assert other["volume_type"] == "__DEFAULT__"
    assert volume_of(api)["volume_type"] == "__DEFAULT__"


def test_snapshot_of_no_volume_is_not_found(api: ApiClient) -> None:
    """A null volume is a volume that does not exist; a word that is no id is a bad request."""
    assert api.post("/snapshots", {"snapshot": {"volume_id": None}}).fault == (
        "itemNotFound",
        404,
        "Volume None could not be found.",
    )
    assert api.post("/snapshots", {"snapshot": {"volume_id": "x"}}).status == 400


# -- flags -----------------------------------------------------------------------------------


def test_readonly_flag_stays_visible(api: ApiClient) -> None:
    """Once somebody has said whether a volume is read-only, its metadata tells, also if not."""
    volume_id = api.make_volume(metadata={"a": "b"})
    assert api.get(f"/volumes/{volume_id}").json["volume"]["metadata"] == {"a": "b"}
    for readonly in (True, False):
        answer = api.act(volume_id, "os-update_readonly_flag", {"readonly": readonly})
        assert answer.status == 202
        for shown in (
            api.get(f"/volumes/{volume_id}").json["volume"],
            api.get("/volumes/detail").json["volumes"][0],
            api.put(f"/volumes/{volume_id}", {"volume": {"name": "n"}}).json["volume"],
        ):
            assert shown["metadata"] == {"a": "b", "readonly": str(readonly)}
    # It is not the caller's own entry.
    assert api.get(f"/volumes/{volume_id}/metadata").json == {"metadata": {"a": "b"}}


def test_replication_of_a_backend_is_a_word(api: ApiClient) -> None:
    """What /os-services says of replication is text: it is disabled."""
    found = api.get("/os-services", "binary=cinder-volume").json["services"]
    assert [one["replication_status"] for one in found] == ["disabled"]


def test_services_of_a_host_are_those_of_its_backends(api: ApiClient) -> None:
    """Services are found by the host alone, and by host and backend as they are listed."""
    listed = api.get("/os-services").json["services"]
    (backend,) = [one for one in listed if one["binary"] == "cinder-volume"]
    host, _, name = backend["host"].partition("@")
    assert name
    for wanted, binaries in (
        (host, {"cinder-scheduler", "cinder-volume"}),
        (backend["host"], {"cinder-volume"}),
        (name, set()),
        (host + "@", set()),
    ):
        found = api.get("/os-services", f"host={wanted}").json["services"]
        assert {one["binary"] for one in found} == binaries


def test_message_is_kept_for_a_time(bench: FakeBench, api: ApiClient) -> None:
    """A message says, as a time like all others, until when it is surely kept: thirty days."""
    bench.driver.fail_next["create"] = OutOfSpace("images", 2**30, 0)
    failed = api.make_volume()
    (message,) = api.get("/messages").json["messages"]
    assert message["resource_uuid"] == failed
    assert api.get(f"/messages/{message['id']}").json["message"] == message
    created, kept = message["created_at"], message["guaranteed_until"]
    assert len(kept) == len(created)
    assert datetime.fromisoformat(kept) - datetime.fromisoformat(created) == timedelta(days=30)


# -- the page --------------------------------------------------------------------------------


def test_page_names_all_resources(bench: FakeBench) -> None:
    """The reference says of every resource and action whether it is there."""
    there, _, absent = PAGE.read_text().partition("## What is not there")
    for route in routes(bench.service, ApiSettings()):
        assert f"/{route.path.split('/')[1]}" in there, route.path
    for action in VOLUME_ACTIONS:
        assert f"`{action}`" in there
    for resource in ABSENT:
        assert f"`{resource}`" in absent
