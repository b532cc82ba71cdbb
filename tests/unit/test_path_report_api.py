"""What a host tells the service of an attachment's paths: kept, shown, bounded, and gone."""

from __future__ import annotations

from collections.abc import Iterator
from typing import Any

import pytest
import sqlalchemy as sa

from lunport.api.app import ApiSettings
from lunport.api.auth import NoAuth, TokenAuth, TokenEntry, hash_token
from lunport.api.schemas.path_reports import MAX_PATHS, MAX_REPORT_BYTES
from lunport.core.iqn import Iqn
from lunport.core.path_report import MAX_REASON, format_path_report
from lunport.core.path_status import PathState, PathStatus, VolumePaths
from lunport.core.portal import Portal
from lunport.core.target_path import TargetPath
from lunport.core.wwid import Wwid
from lunport.store import tables
from tests.fakes.api_client import HOST_1, PROJECT, ApiClient
from tests.fakes.fake_service import FakeBench, make_bench

IQN = Iqn("iqn.2026-11.io.lunport.test:v")
LONG_IQN = Iqn("iqn.2026-11.io.lunport.test:" + "v" * 190)
WWID = Wwid("naa.60014050000000010000000000000000")
LIVE = PathStatus(
    TargetPath(Portal("10.0.1.2"), IQN, 1), "default", PathState.LIVE, 12, "sdc", 1790000000.0
)
LOST = PathStatus(
    TargetPath(Portal("fd00:2::2"), IQN, 1),
    "default",
    PathState.MISSING,
    since=1790000003.5,
    why="no answer to a connection within 5 s",
)
SEEN = VolumePaths(WWID, None, WWID, "dm-7", "dm-7", 1 << 30, wanted=2, paths=(LIVE, LOST))
SERVICE_TOKEN = "the-service"


def report(volume: VolumePaths = SEEN, **changes: Any) -> dict[str, Any]:
    """Return the action's body."""
    return {"lunport:report_paths": {**format_path_report(volume), **changes}}


@pytest.fixture(scope="module")
def bench(tmp_path_factory: pytest.TempPathFactory) -> Iterator[FakeBench]:
    made = make_bench(tmp_path_factory.mktemp("api"))
    yield made
    made.service.store.close()


def client(bench: FakeBench, name: str, **more: Any) -> ApiClient:
    entries = [
        TokenEntry(hash_token("owner"), "alice", PROJECT, frozenset()),
        TokenEntry(hash_token("stranger"), "mallory", "elsewhere", frozenset()),
        TokenEntry(hash_token("agent"), "agent", "hosts", frozenset()),
    ]
    settings = ApiSettings(
        authenticator=TokenAuth(entries) if name else NoAuth(),
        service_token_hash=hash_token(SERVICE_TOKEN),
    )
    return ApiClient(bench, settings, token=name or None, **more)


@pytest.fixture
def api(bench: FakeBench) -> ApiClient:
    return client(bench, "owner")


@pytest.fixture
def volume(api: ApiClient) -> str:
    return api.make_volume()


@pytest.fixture
def path(api: ApiClient, volume: str) -> str:
    """Where a connected attachment is."""
    body = {"attachment": {"volume_uuid": volume, "connector": HOST_1}}
    return f"/attachments/{api.post('/attachments', body).json['attachment']['id']}"


def rows_of(bench: FakeBench) -> int:
    with bench.service.store.read() as connection:
        count = connection.scalar(sa.select(sa.func.count()).select_from(tables.path_reports))
        assert isinstance(count, int)
        return count


def test_what_was_told_is_shown(api: ApiClient, path: str, volume: str) -> None:
    """A report is accepted without a body, and shown with its moment; a later one replaces it."""
    before = api.get(path).json["attachment"]
    assert "lunport:paths" not in before
    told = api.post(f"{path}/action", report(volume_id=volume))
    assert (told.status, told.text) == (202, "")
    shown = api.get(path).json["attachment"]
    paths = shown.pop("lunport:paths")
    assert shown == before
    first = paths.pop("reported_at")
    expected = {**format_path_report(SEEN), "volume_id": volume}
    assert paths == expected
    assert (paths["live"], paths["state"]) == (1, "degraded")
    assert api.post(f"{path}/action", report(wanted=1)).status == 202
    again = api.get(path).json["attachment"]["lunport:paths"]
    assert (again["wanted"], again["state"]) == (1, "ok")
    assert again["reported_at"] > first


def test_only_one_attachments_own_page_has_it(api: ApiClient, path: str) -> None:
    """Lists, updates and completions look as they do for attachments without a report."""
    api.post(f"{path}/action", report())
    key = "lunport:paths"
    assert key in api.get(path).text
    assert key not in api.get("/attachments").text + api.get("/attachments/detail").text
    assert key not in api.put(path, {"attachment": {"connector": HOST_1}}).text
    assert api.post(f"{path}/action", {"os-complete": {}}).status == 204
    assert key in api.get(path, version="3.27").text


def test_a_report_goes_with_its_attachment(
    bench: FakeBench, api: ApiClient, path: str, volume: str
) -> None:
    """When the attachment is deleted, or the volume with it, nothing is left of the report."""
    had = rows_of(bench)
    api.post(f"{path}/action", report())
    assert rows_of(bench) == had + 1
    assert client(bench, "owner", service_token=SERVICE_TOKEN).delete(path).status == 200
    assert rows_of(bench) == had
    assert api.post(f"{path}/action", report()).fault[:2] == ("itemNotFound", 404)
    assert api.delete(f"/volumes/{volume}").status == 202


def test_a_strangers_attachment_is_not_there(bench: FakeBench, path: str) -> None:
    """Who is of another project can neither tell nor see; the service identity can tell."""
    stranger = client(bench, "stranger", project="elsewhere")
    assert stranger.post(f"{path}/action", report()).fault[:2] == ("itemNotFound", 404)
    assert stranger.get(path).status == 404
    agent = client(bench, "agent", project="hosts", service_token=SERVICE_TOKEN)
    assert agent.post(f"{path}/action", report()).status == 202
    assert agent.get(path).status == 404


def test_the_action_is_there_since_attachments_are(api: ApiClient, path: str) -> None:
    """No microversion brings it: it is there from 3.27 on, and os-complete still from 3.44."""
    action = f"{path}/action"
    assert api.post(action, report(), version="3.26").status == 404
    assert api.post(action, report(), version="3.27").status == 202
    assert api.post(action, {"os-complete": {}}, version="3.43").status == 404
    assert api.post(action, {"lunport:other": {}}).fault[:2] == ("badRequest", 400)


@pytest.mark.parametrize(
    "changes, told",
    [
        ({"version": 2}, "version"),
        ({"version": "1"}, "version"),
        ({"key": "../etc"}, "key"),
        ({"key": None}, "key"),
        ({"wwid": "naa.zz"}, "wwid"),
        ({"wanted": -1}, "wanted"),
        ({"wanted": 2**63}, "wanted"),
        ({"wanted": True}, "wanted"),
        ({"size_bytes": 1.5}, "size_bytes"),
        ({"device": "x" * 256}, "device"),
        ({"device": "sd\x1b[2Ja"}, "device"),
        ({"paths": {}}, "paths"),
        ({"paths": [{}]}, "portal"),
        ({"paths": [1]}, "object"),
        ({"paths": [None] * (MAX_PATHS + 1)}, "paths"),
        ({"more": 1}, "more"),
        ({"volume_id": "00000000-0000-4000-8000-000000000000"}, "volume_id"),
    ],
)
def test_what_is_no_report_is_refused(
    api: ApiClient, path: str, changes: dict[str, Any], told: str
) -> None:
    """A wrong type, an unknown key, another volume or a newer version is a 400 that names it."""
    name, code, message = api.post(f"{path}/action", report(**changes)).fault
    assert (name, code) == ("badRequest", 400)
    assert told in message
    assert "lunport:paths" not in api.get(path).text


@pytest.mark.parametrize("value", [None, [], "x", 1, {}])
def test_what_is_no_object_is_refused(api: ApiClient, path: str, value: object) -> None:
    """A report that is no object, or an empty one, is a 400."""
    assert api.post(f"{path}/action", {"lunport:report_paths": value}).status == 400


@pytest.mark.parametrize(
    "changes",
    [
        {"state": "fine"},
        {"portal": "nowhere:0"},
        {"iqn": "x"},
        {"lun": 16384},
        {"transport": "fc"},
        {"since": -1},
        {"since": "now"},
        {"why": "x" * (MAX_REASON + 1)},
        {"why": "a\0b"},
        {"sid": "12"},
        {"chap_password": "x"},
    ],
    ids=lambda changes: next(iter(changes)),
)
def test_a_path_that_is_none_is_refused(api: ApiClient, path: str, changes: dict[str, Any]) -> None:
    """One path that can't be is a 400 for all of it, and keeps what was told before."""
    assert api.post(f"{path}/action", report()).status == 202
    one = report(VolumePaths(WWID, None, None, None, None, None, 1, (LOST,)))
    (fields,) = one["lunport:report_paths"]["paths"]
    assert api.post(f"{path}/action", report(paths=[{**fields, **changes}])).status == 400
    assert len(api.get(path).json["attachment"]["lunport:paths"]["paths"]) == 2


def test_as_many_paths_as_there_may_be_fit(api: ApiClient, path: str) -> None:
    """The largest report that a host writes is accepted; one that is padded beyond it is not."""
    many = tuple(
        PathStatus(
            TargetPath(Portal(f"fd00:1:2:3:4:5:6:{at:x}", 65535), LONG_IQN, 16383),
            "interface-of-a-host",
            PathState.FAILED,
            2**31,
            "sdxyz",
            1790000000.123456,
            "w" * 2 * MAX_REASON,
        )
        for at in range(1, MAX_PATHS + 1)
    )
    volume = VolumePaths(WWID, None, WWID, "dm-7", "dm-7", 2**60, wanted=MAX_PATHS, paths=many)
    assert api.post(f"{path}/action", report(volume)).status == 202
    assert len(api.get(path).json["attachment"]["lunport:paths"]["paths"]) == MAX_PATHS
    padded = report(state=" " * MAX_REPORT_BYTES)
    assert api.post(f"{path}/action", padded).fault[:2] == ("overLimit", 413)
