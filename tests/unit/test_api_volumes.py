"""Volumes over the API: bodies, codes, versions, lists."""

from __future__ import annotations

from collections.abc import Iterator
from urllib.parse import quote, urlsplit

import pytest

from lunport.api.app import ApiSettings
from lunport.api.auth import TokenAuth, TokenEntry, hash_token
from tests.fakes.api_client import HOST_1, PROJECT, ApiClient
from tests.fakes.fake_service import FakeBench, make_bench

NOBODY = "00000000-0000-4000-8000-000000000000"


@pytest.fixture(scope="module")
def bench(tmp_path_factory: pytest.TempPathFactory) -> Iterator[FakeBench]:
    made = make_bench(tmp_path_factory.mktemp("api"))
    yield made
    made.service.store.close()


@pytest.fixture
def api(bench: FakeBench, request: pytest.FixtureRequest) -> ApiClient:
    # A project for each test: what another one left does not show in lists.
    return ApiClient(bench, project=f"{abs(hash(request.node.name)):032x}")


@pytest.fixture
def member(bench: FakeBench, api: ApiClient) -> ApiClient:
    entry = TokenEntry(hash_token("t"), "user", api.project, frozenset())
    settings = ApiSettings(authenticator=TokenAuth([entry]))
    return ApiClient(bench, settings, token="t", project=api.project)


def test_create_answers_202_with_the_whole_volume(api: ApiClient) -> None:
    """A new volume is answered with 202, status creating, and what was asked for."""
    api.bench.queue.holds = True
    try:
        answer = api.post(
            "/volumes",
            {"volume": {"size": 3, "name": " a b ", "description": None, "metadata": {"k": "v"}}},
        )
    finally:
        api.bench.queue.holds = False
    volume = answer.json["volume"]
    assert answer.status == 202
    assert (volume["status"], volume["size"], volume["name"]) == ("creating", 3, "a b")
    assert volume["metadata"] == {"k": "v"}
    assert volume["bootable"] == "false"
    assert volume["volume_type"] == "__DEFAULT__"
    assert volume["attachments"] == []
    assert not [key for key in volume if key.startswith("os-vol")]
    assert [link["rel"] for link in volume["links"]] == ["self", "bookmark"]


def test_show_has_the_admin_attributes(api: ApiClient) -> None:
    """An administrator sees host, project and migration status of a volume that is read."""
    volume = api.get(f"/volumes/{api.make_volume()}").json["volume"]
    assert volume["status"] == "available"
    assert volume["os-vol-host-attr:host"] == "node@files#files"
    assert volume["os-vol-tenant-attr:tenant_id"] == api.project
    assert volume["os-vol-mig-status-attr:migstat"] is None
    assert volume["migration_status"] is None


def test_others_do_not_see_the_admin_attributes(api: ApiClient, member: ApiClient) -> None:
    """A member sees the project of a volume, and nothing of where it is."""
    volume = member.get(f"/volumes/{api.make_volume()}").json["volume"]
    assert volume["os-vol-tenant-attr:tenant_id"] == api.project
    hidden = {"os-vol-host-attr:host", "migration_status", "provider_id", "cluster_name"}
    assert not hidden & set(volume)


FIELDS_BY_VERSION = [
    ("group_id", 13, None),
    ("provider_id", 21, None),
    ("shared_targets", 48, False),
    ("service_uuid", 48, None),
    ("cluster_name", 61, None),
    ("volume_type_id", 63, ...),
    ("consumes_quota", 65, True),
]


@pytest.mark.parametrize("name, since, value", FIELDS_BY_VERSION)
def test_fields_come_with_their_version(
    api: ApiClient, name: str, since: int, value: object
) -> None:
    """A field is there from its microversion on, and not before."""
    path = f"/volumes/{api.make_volume()}"
    before = api.get(path, version=f"3.{since - 1}").json["volume"]
    after = api.get(path, version=f"3.{since}").json["volume"]
    assert name not in before
    assert name in after
    assert value is ... or after[name] == value
    assert "encryption_key_id" not in after


def test_links_follow_the_url(api: ApiClient) -> None:
    """Links have the project when the URL has it, and the host that the client named."""
    volume_id = api.make_volume()
    api.project = PROJECT
    with_project = api.get(f"/volumes/{volume_id}", headers={"Host": "store:99"})
    without = api.get(f"/v3/volumes/{volume_id}", headers={"Host": "store:99"})
    proxied = api.get(
        f"/v3/volumes/{volume_id}",
        headers={"X-Forwarded-Host": "inner, public.example", "X-Forwarded-Proto": "https"},
    )
    assert [link["href"] for link in with_project.json["volume"]["links"]] == [
        f"http://store:99/v3/{PROJECT}/volumes/{volume_id}",
        f"http://store:99/{PROJECT}/volumes/{volume_id}",
    ]
    assert without.json["volume"]["links"][0]["href"] == (f"http://store:99/v3/volumes/{volume_id}")
    assert proxied.json["volume"]["links"][0]["href"] == (
        f"https://public.example/v3/volumes/{volume_id}"
    )


def test_update_changes_what_is_named(api: ApiClient) -> None:
    """PUT changes the name and leaves the description."""
    volume_id = api.make_volume(name="old", description="kept")
    answer = api.put(f"/volumes/{volume_id}", {"volume": {"name": "new"}})
    assert answer.status == 200
    shown = api.get(f"/volumes/{volume_id}").json["volume"]
    assert (shown["name"], shown["description"]) == ("new", "kept")


def test_update_of_nothing_is_refused_since_353(api: ApiClient) -> None:
    """An update without changes is a 400 from 3.53 on, and fine before."""
    path = f"/volumes/{api.make_volume()}"
    assert api.put(path, {"volume": {}}, version="3.52").status == 200
    assert api.put(path, {"volume": {}}, version="3.53").status == 400


def test_delete_answers_202_and_then_404(api: ApiClient) -> None:
    """A deleted volume is gone once the work is done."""
    volume_id = api.make_volume()
    answer = api.delete(f"/volumes/{volume_id}")
    assert (answer.status, answer.text) == (202, "")
    gone = api.get(f"/volumes/{volume_id}")
    assert gone.fault == ("itemNotFound", 404, f"Volume {volume_id} could not be found.")


def test_delete_with_snapshots_needs_cascade(api: ApiClient) -> None:
    """A volume with snapshots is deleted only with cascade=true."""
    volume_id = api.make_volume()
    assert api.post("/snapshots", {"snapshot": {"volume_id": volume_id}}).status == 202
    refused = api.delete(f"/volumes/{volume_id}")
    assert refused.fault[:2] == ("badRequest", 400)
    assert api.delete(f"/volumes/{volume_id}", "cascade=maybe").status == 400
    assert api.delete(f"/volumes/{volume_id}", "cascade=True").status == 202
    assert api.get(f"/volumes/{volume_id}").status == 404


def test_forced_delete_is_for_administrators(api: ApiClient, member: ApiClient) -> None:
    """?force=true from somebody else is a 403, and nothing is deleted."""
    volume_id = api.make_volume()
    answer = member.delete(f"/volumes/{volume_id}", "force=true")
    assert answer.fault == (
        "forbidden",
        403,
        "Policy doesn't allow volume:force_delete to be performed.",
    )
    assert api.status_of(volume_id) == "available"


def test_volume_from_snapshot_and_from_volume(api: ApiClient) -> None:
    """A source gives its size when none is named, and is shown."""
    source = api.make_volume(size=2)
    snapshot = api.post("/snapshots", {"snapshot": {"volume_id": source}}).json["snapshot"]["id"]
    of_volume = api.post("/volumes", {"volume": {"source_volid": source}}).json["volume"]
    of_snapshot = api.post("/volumes", {"volume": {"snapshot_id": snapshot}}).json["volume"]
    assert (of_volume["size"], of_volume["source_volid"]) == (2, source)
    assert (of_snapshot["size"], of_snapshot["snapshot_id"]) == (2, snapshot)


def test_lists_differ_in_detail(api: ApiClient) -> None:
    """The plain list has id, name and links; the detailed one has everything."""
    api.make_volume(name="one")
    plain = api.get("/volumes").json["volumes"]
    full = api.get("/volumes/detail").json["volumes"]
    assert set(plain[0]) == {"id", "name", "links"}
    assert full[0]["name"] == "one"
    assert "status" in full[0]


def test_attached_volume_shows_its_attachment(api: ApiClient) -> None:
    """An attached volume shows host, device and attachment id; before, it shows none."""
    volume_id = api.make_volume()
    attachment = api.post(
        "/attachments", {"attachment": {"volume_uuid": volume_id, "connector": HOST_1}}
    ).json["attachment"]["id"]
    assert api.get(f"/volumes/{volume_id}").json["volume"]["attachments"] == []
    api.post(f"/attachments/{attachment}/action", {"os-complete": {}})
    for shown in (
        api.get(f"/volumes/{volume_id}").json["volume"],
        api.get("/volumes/detail").json["volumes"][0],
    ):
        assert shown["status"] == "in-use"
        (entry,) = shown["attachments"]
        assert (entry["attachment_id"], entry["host_name"]) == (attachment, "h1")
        assert entry["id"] == entry["volume_id"] == volume_id


def test_pages_follow_each_other_without_loss(api: ApiClient) -> None:
    """Following volumes_links sees each volume once, in the order asked for."""
    made = {api.make_volume(name=f"v{number}") for number in range(5)}
    seen: list[str] = []
    pages = 0
    query: str | None = "limit=2&sort=name:asc"
    while query is not None:
        answer = api.get("/volumes/detail", query)
        pages += 1
        seen += [volume["id"] for volume in answer.json["volumes"]]
        links = answer.json.get("volumes_links", [])
        assert len(links) <= 1
        query = None
        for link in links:
            assert link["rel"] == "next"
            assert urlsplit(link["href"]).path == f"/v3/{api.project}/volumes/detail"
            query = urlsplit(link["href"]).query
    assert set(seen) == made
    assert len(seen) == 5
    assert pages == 3


@pytest.mark.parametrize(
    "query, names",
    [
        ("name=b1", ["b1"]),
        ("name~=b", ["b2", "b1"]),
        ("status=error", []),
        ("status=['available','error']", ["b2", "b1", "a"]),
        ("metadata={'k':'1'}", ["b1"]),
        ('metadata={"k":"1"}', ["b1"]),
        ("bootable=true", []),
        ("size=2", ["b2"]),
        ("size=x", []),
        ("created_at=gt:2020-01-01T00:00:00Z", ["b2", "b1", "a"]),
        ("created_at=gt:2020-01-01,lt:2021-01-01", []),
        ("consumes_quota=true&sort=size:desc,name:desc", ["b2", "b1", "a"]),
        ("consumes_quota=false", []),
        ("group_id=x", []),
        ("unheard_of=x", []),
        ("sort_key=name&sort_dir=asc", ["a", "b1", "b2"]),
        ("limit=1", ["b2"]),
        ("limit=0", []),
        ("offset=1", ["b1", "a"]),
        ("all_tenants=0", ["b2", "b1", "a"]),
    ],
)
def test_list_parameters(api: ApiClient, query: str, names: list[str]) -> None:
    """Filters, order and paging select what Block Storage selects."""
    api.make_volume(name="a")
    api.make_volume(name="b1", metadata={"k": "1"})
    api.make_volume(name="b2", size=2, metadata={"k": "2"})
    answer = api.get("/volumes", quote(query, safe="=&"))
    assert answer.status == 200, answer.text
    assert [volume["name"] for volume in answer.json["volumes"]] == names


@pytest.mark.parametrize(
    "query, message",
    [
        ("limit=x", "limit param must be an integer"),
        ("limit=-1", "limit param must be positive"),
        ("offset=-1", "offset must be >= 0"),
        ("offset=99999999999", "offset must be >= 0 and <= 2147483647"),
        ("sort=name&sort_key=name", "cannot be used with the 'sort' parameter"),
        ("sort=nonsense", "Sort key supplied is invalid"),
        ("sort=metadata", "Sort key supplied is invalid"),
        ("sort=name:up", "Unknown sort direction"),
        ("sort=", "Sort key supplied is invalid"),
        ("bootable=perhaps", "'bootable = perhaps'"),
        ("created_at=since:2020-01-01", "Invalid since operator"),
        ("created_at=gt:yesterday", "Invalid yesterday value"),
        ("metadata=x", "filtered by a dictionary"),
        ("with_count=x", "is not a boolean"),
        ("all_tenants=x", "is not a boolean"),
        ("n%C3%A4me=x", "Filter keys can only contain ASCII characters."),
    ],
)
def test_bad_list_parameters_are_400(api: ApiClient, query: str, message: str) -> None:
    """A parameter that cannot be read is a 400 that says which."""
    name, code, said = api.get("/volumes", query).fault
    assert (name, code) == ("badRequest", 400)
    assert message in said


def test_an_unknown_marker_is_404(api: ApiClient) -> None:
    """A marker that names no volume is not found, as in Block Storage."""
    name, code, said = api.get("/volumes", "marker=nobody").fault
    assert (name, code) == ("itemNotFound", 404)
    assert "nobody" in said


def test_filters_of_members_are_checked_since_331(api: ApiClient, member: ApiClient) -> None:
    """A filter for administrators is ignored before 3.31, and a 400 from then on."""
    api.make_volume()
    ignored = member.get("/volumes", "host=elsewhere", version="3.30")
    refused = member.get("/volumes", "host=elsewhere&all_tenants=1", version="3.31")
    assert len(ignored.json["volumes"]) == 1
    assert refused.fault == (
        "badRequest",
        400,
        "Invalid filters host are found in query options.",
    )


def test_members_see_their_project_only(api: ApiClient, member: ApiClient) -> None:
    """all_tenants from a member is ignored, and another project's volume is a 404."""
    api.make_volume()
    other = ApiClient(api.bench, project=PROJECT).make_volume()
    assert len(member.get("/volumes", "all_tenants=1").json["volumes"]) == 1
    assert member.get(f"/volumes/{other}").status == 404
    everything = api.get("/volumes", "all_tenants=1").json["volumes"]
    assert {api.project, PROJECT} <= {
        volume["os-vol-tenant-attr:tenant_id"]
        for volume in api.get("/volumes/detail", "all_tenants=1").json["volumes"]
    }
    assert len(everything) > 1


def test_count_is_told_since_345(api: ApiClient) -> None:
    """with_count gives the number of all matching volumes, whatever the page."""
    for _ in range(3):
        api.make_volume()
    assert api.get("/volumes", "limit=1&with_count=true").json["count"] == 3
    assert "count" not in api.get("/volumes", "limit=1").json


def test_summary_counts_sizes_and_metadata(api: ApiClient) -> None:
    """The summary adds up; it is there from 3.12 on, its metadata from 3.36 on."""
    api.make_volume(size=2, metadata={"k": "1"})
    api.make_volume(size=3, metadata={"k": "2"})
    assert api.get("/volumes/summary").json["volume-summary"] == {
        "total_count": 2,
        "total_size": 5,
        "metadata": {"k": ["1", "2"]},
    }
    assert "metadata" not in api.get("/volumes/summary", version="3.35").json["volume-summary"]
    assert api.get("/volumes/summary", version="3.11").status == 404


def test_metadata_round_trip(api: ApiClient) -> None:
    """Metadata is read, merged, replaced, and removed by key."""
    path = f"/volumes/{api.make_volume(metadata={'a': '1'})}/metadata"
    assert api.post(path, {"metadata": {"b": "2"}}).json == {"metadata": {"a": "1", "b": "2"}}
    assert api.put(path, {"metadata": {"c": "3"}}).json == {"metadata": {"c": "3"}}
    assert api.put(f"{path}/d", {"meta": {"d": "4"}}).json == {"meta": {"d": "4"}}
    assert api.get(f"{path}/d").json == {"meta": {"d": "4"}}
    assert api.delete(f"{path}/c").status == 200
    assert api.get(path).json == {"metadata": {"d": "4"}}
    assert api.get(f"{path}/c").fault[1] == 404
    assert api.delete(f"{path}/c").fault[1] == 404
    assert api.put(f"{path}/d", {"meta": {"e": "4"}}).fault[2] == "Request body and URI mismatch"


def test_metadata_is_not_overwritten_when_it_changed(api: ApiClient) -> None:
    """A write with the ETag of an older state is a 412 and changes nothing."""
    path = f"/volumes/{api.make_volume(metadata={'a': '1'})}/metadata"
    etag = api.get(path).headers["etag"]
    assert "etag" not in api.get(path, version="3.14").headers
    seen = {"If-Match": etag}
    assert api.put(path, {"metadata": {"a": "2"}}, headers=seen).status == 200
    assert api.put(path, {"metadata": {"a": "3"}}, headers=seen).status == 412
    assert api.get(path).json == {"metadata": {"a": "2"}}


def test_encryption_says_no(api: ApiClient) -> None:
    """No volume is encrypted by the service."""
    path = f"/volumes/{api.make_volume()}/encryption"
    assert api.get(path).json == {"encryption_key_id": None}
    assert api.get(f"/volumes/{NOBODY}/encryption").status == 404
