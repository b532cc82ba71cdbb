"""What every request passes: versions, identity, errors, bodies that cannot be."""

from __future__ import annotations

import json
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest

from lunport.api import faults, microversions
from lunport.api.app import ApiSettings, routes
from lunport.api.auth import (
    NoAuth,
    TokenAuth,
    TokenEntry,
    generate_token,
    hash_token,
    parse_tokens,
    read_tokens,
)
from lunport.api.gate import ABSENT
from lunport.core import errors
from tests.fakes.api_client import PROJECT, ApiClient
from tests.fakes.fake_service import FakeBench, make_bench

DOCS = Path(__file__).parents[2] / "docs"
VERSION = "OpenStack-API-Version"


@pytest.fixture(scope="module")
def bench(tmp_path_factory: pytest.TempPathFactory) -> Iterator[FakeBench]:
    made = make_bench(tmp_path_factory.mktemp("api"))
    yield made
    made.service.store.close()


@pytest.fixture
def api(bench: FakeBench) -> ApiClient:
    return ApiClient(bench)


def with_tokens(bench: FakeBench, token: str | None, **more: Any) -> ApiClient:
    entries = [
        TokenEntry(hash_token("admin-token"), "root", "ops", frozenset({"admin"})),
        TokenEntry(hash_token("user-token"), "alice", PROJECT, frozenset({"member"})),
    ]
    return ApiClient(bench, ApiSettings(authenticator=TokenAuth(entries)), token=token, **more)


# -- versions --------------------------------------------------------------------------------


@pytest.mark.parametrize(
    "path, status",
    [
        ("/", 300),
        ("/v3", 200),
        ("/v3/", 200),
        (f"/v3/{PROJECT}", 200),
        (f"/v3/{PROJECT}/", 200),
    ],
)
def test_version_document_needs_no_token(bench: FakeBench, path: str, status: int) -> None:
    """Whoever asks gets the version document, with the link that leads to /v3/."""
    answer = with_tokens(bench, None).get(path, headers={"Host": "store:8776"})
    assert answer.status == status
    (version,) = answer.json["versions"]
    assert (version["id"], version["min_version"], version["version"]) == ("v3.0", "3.0", "3.71")
    assert {"rel": "self", "href": "http://store:8776/v3/"} in version["links"]


@pytest.mark.parametrize(
    "header, spoken",
    [
        (None, "volume 3.0"),
        ("volume 3.0", "volume 3.0"),
        ("volume 3.71", "volume 3.71"),
        ("volume latest", "volume 3.71"),
        ("compute 2.1, volume 3.27", "volume 3.27"),
    ],
)
def test_version_is_negotiated(api: ApiClient, header: str | None, spoken: str) -> None:
    """The answer says which version it speaks, and that it depends on the header."""
    answer = api.get("/limits", headers={VERSION: header or ""})
    assert answer.status == 200
    assert answer.headers["openstack-api-version"] == spoken
    assert answer.headers["vary"] == VERSION
    assert answer.headers["x-openstack-request-id"].startswith("req-")
    assert answer.headers["x-compute-request-id"] == answer.headers["x-openstack-request-id"]


@pytest.mark.parametrize("header", ["volume 3.72", "volume 2.0", "volume 4.0", "volume 3.999999"])
def test_versions_out_of_range_are_406(api: ApiClient, header: str) -> None:
    """A version that is not spoken here is a 406 with the range."""
    answer = api.get("/limits", headers={VERSION: header})
    assert answer.fault[:2] == ("computeFault", 406)
    assert answer.fault[2].endswith("Minimum is 3.0 and maximum is 3.71.")


@pytest.mark.parametrize(
    "header",
    [
        "volume",
        "volume 3",
        "volume 3.",
        "volume 3.07",
        "volume x",
        "3.27",
        "compute 2.1",
        "volume 3.2 7",
        ",",
        "volume 3.\u0663",
    ],
)
def test_malformed_versions_are_400(api: ApiClient, header: str) -> None:
    """A header that is not a version is a 400."""
    header = header.encode().decode("latin-1")
    assert api.get("/limits", headers={VERSION: header}).fault[:2] == ("badRequest", 400)


def test_every_microversion_is_in_the_table() -> None:
    """The table has each version once, in order, from 3.0 to 3.71, and says something of it."""
    minors = [one.minor for one in microversions.MICROVERSIONS]
    assert minors == list(range(microversions.MINIMUM, microversions.MAXIMUM + 1))
    assert all(one.here.endswith(".") for one in microversions.MICROVERSIONS)


def test_every_named_version_is_said_to_bring_something() -> None:
    """A constant that the code decides by stands for a version that changes something."""
    named = {
        value
        for name, value in vars(microversions).items()
        if name.isupper() and isinstance(value, int) and name not in ("MAJOR", "MINIMUM")
    }
    idle = {
        one.minor
        for one in microversions.MICROVERSIONS
        if one.here.startswith(microversions.NOTHING)
    }
    assert not named & idle


def test_reference_page_is_the_table() -> None:
    """docs/reference/microversions.md is what the table makes."""
    page = (DOCS / "reference" / "microversions.md").read_text(encoding="utf-8")
    assert page == microversions.as_markdown()


# -- identity --------------------------------------------------------------------------------


def test_no_token_is_401(bench: FakeBench) -> None:
    """Without a token, or with a wrong one, everything but the version document is a 401."""
    for token in (None, "wrong", "user-token2"):
        answer = with_tokens(bench, token).get("/volumes")
        assert answer.fault[:2] == ("unauthorized", 401)
        assert answer.headers["www-authenticate"].startswith("Token ")


def test_project_of_the_url_must_be_the_tokens(bench: FakeBench) -> None:
    """A member's request for another project is a 400; an administrator acts in it."""
    other = "f" * 32
    refused = with_tokens(bench, "user-token", project=other).get("/volumes")
    assert refused.fault == ("badRequest", 400, "Malformed request url")
    admin = with_tokens(bench, "admin-token", project=other)
    volume = admin.get(f"/volumes/{admin.make_volume()}").json["volume"]
    assert volume["os-vol-tenant-attr:tenant_id"] == other
    assert volume["user_id"] == "root"


def test_project_in_the_url_is_optional(bench: FakeBench) -> None:
    """Without a project in the URL, the token's is meant."""
    user = with_tokens(bench, "user-token")
    volume_id = user.make_volume()
    assert user.get(f"/v3/volumes/{volume_id}").status == 200
    assert user.get("/v3/volumes/detail").json["volumes"][0]["id"] == volume_id


@pytest.mark.parametrize(
    "token, user, project",
    [
        (None, "admin", PROJECT),
        ("", "admin", PROJECT),
        (f"me:{PROJECT}", "me", PROJECT),
        ("me", "me", PROJECT),
        ("notused", "admin", PROJECT),
        (":", "admin", PROJECT),
    ],
)
def test_mode_none_believes_everybody(
    bench: FakeBench, token: str | None, user: str, project: str
) -> None:
    """In mode none the token names user and project, and may be missing."""
    api = ApiClient(bench, token=token)
    volume = api.get(f"/volumes/{api.make_volume()}").json["volume"]
    assert (volume["user_id"], volume["os-vol-tenant-attr:tenant_id"]) == (user, project)


def test_mode_none_without_any_project_has_a_default(bench: FakeBench) -> None:
    """Neither token nor URL names a project: the configured one is meant."""
    api = ApiClient(bench, ApiSettings(default_project="home"))
    made = api.post("/v3/volumes", {"volume": {"size": 1}}).json["volume"]
    shown = api.get(f"/v3/volumes/{made['id']}").json["volume"]
    assert shown["os-vol-tenant-attr:tenant_id"] == "home"
    named = ApiClient(bench, token="me:mine")
    made = named.post("/v3/volumes", {"volume": {"size": 1}}).json["volume"]
    shown = named.get(f"/v3/volumes/{made['id']}").json["volume"]
    assert shown["os-vol-tenant-attr:tenant_id"] == "mine"


def test_overlong_identity_is_400(bench: FakeBench) -> None:
    """A user or project that no record can hold is refused."""
    for token in ("u" * 256, f"u:{'p' * 256}"):
        assert ApiClient(bench, token=token).get("/volumes").fault[1] == 400
    assert ApiClient(bench, project="p" * 256).get("/volumes").fault[1] == 404


def test_wrong_service_token_is_401(bench: FakeBench) -> None:
    """Who claims to be the service and is not gets a 401, also where nobody is."""
    settings = ApiSettings(service_token_hash=hash_token("right"))
    assert ApiClient(bench, settings, service_token="right").get("/volumes").status == 200
    assert ApiClient(bench, settings, service_token="wrong").get("/volumes").status == 401
    assert ApiClient(bench, service_token="any").get("/volumes").status == 401


def test_tokens_are_long_and_hashed() -> None:
    """A generated token is not in its hash, and has 256 bits."""
    token = generate_token()
    assert len(token.reveal()) >= 43
    assert token.reveal() not in hash_token(token)
    assert hash_token(token) == hash_token(token.reveal())


def test_token_files_are_read_in_both_forms(tmp_path: Path) -> None:
    """TOML and JSON say the same."""
    entry = {"hash": hash_token("t"), "user": "u", "project": "p", "roles": ["admin"]}
    toml = tmp_path / "tokens.toml"
    toml.write_text(
        f'[[token]]\nhash = "{entry["hash"]}"\nuser = "u"\nproject = "p"\nroles = ["admin"]\n'
    )
    as_json = tmp_path / "tokens.json"
    as_json.write_text(json.dumps({"token": [entry]}))
    assert read_tokens(toml) == read_tokens(as_json)
    assert TokenAuth(read_tokens(toml)).identify("t").is_admin


@pytest.mark.parametrize(
    "content",
    [
        [],
        {},
        {"token": {}},
        {"token": [], "more": 1},
        {"token": [1]},
        {"token": [{"hash": "sha256:12", "user": "u", "project": "p"}]},
        {"token": [{"hash": "0" * 64, "user": "u", "project": "p"}]},
        {"token": [{"hash": "sha256:" + "0" * 64, "user": "", "project": "p"}]},
        {"token": [{"hash": "sha256:" + "0" * 64, "user": "u"}]},
        {"token": [{"hash": "sha256:" + "0" * 64, "user": "u", "project": "p", "roles": "admin"}]},
        {"token": [{"hash": "sha256:" + "0" * 64, "user": "u", "project": "p", "role": "admin"}]},
    ],
)
def test_broken_token_files_are_refused(content: object) -> None:
    """A token file that is not exactly so is an error of the configuration."""
    with pytest.raises(errors.InvalidConfig):
        parse_tokens(content, what="tokens.toml")


def test_unreadable_token_files_are_refused(tmp_path: Path) -> None:
    """A file that is missing or not TOML is an error of the configuration."""
    broken = tmp_path / "tokens.toml"
    broken.write_text("[[token")
    for path in (broken, tmp_path / "none.toml"):
        with pytest.raises(errors.InvalidConfig):
            read_tokens(path)


def test_no_auth_is_always_admin() -> None:
    """In mode none everybody is an administrator."""
    assert NoAuth().identify("x:y") == ("x", "y", True)


# -- errors ----------------------------------------------------------------------------------


def every_error(kind: type[errors.LunportError]) -> Iterator[type[errors.LunportError]]:
    for child in kind.__subclasses__():
        if child.__module__ == errors.__name__:
            yield child
            yield from every_error(child)


def test_every_error_has_a_code() -> None:
    """Each class of the tree is in the table, itself or by an ancestor below the root."""
    missing = [
        kind.__name__
        for kind in every_error(errors.LunportError)
        if not any(ancestor in faults.FAULTS for ancestor in kind.__mro__)
    ]
    assert not missing
    assert errors.LunportError not in faults.FAULTS


def test_every_code_of_the_table_has_a_name() -> None:
    """A code that an error maps to has a body's name, as Block Storage has it."""
    for kind, fault in faults.FAULTS.items():
        assert fault.code in faults.NAMES or fault.code == 500, kind


@pytest.mark.parametrize(
    "error, code",
    [
        (errors.InvalidInput("size", 0, "x"), 400),
        (errors.InvalidConnector("initiator", None, "x"), 400),
        (errors.VolumeNotFound("v"), 404),
        (errors.InvalidState("volume", "v", "error", "available"), 400),
        (errors.AttachedElsewhere("v", "a"), 409),
        (errors.GuardedAttachment("v", "i"), 409),
        (errors.StaleWrite("volume", "v"), 409),
        (errors.NotAuthenticated(), 401),
        (errors.NotAllowed("x"), 403),
        (errors.OverQuota("volumes", 1, 1, 1), 413),
        (errors.OutOfSpace("/x", 1, 0), 500),
        (errors.TargetDaemonDown("tgtd", "x"), 503),
        (errors.StoreUnavailable("x"), 503),
        (errors.CommandMissing("tgtd", "tgt"), 500),
    ],
)
def test_codes_of_errors(error: errors.LunportError, code: int) -> None:
    """Each branch of the tree has the code that Block Storage's clients expect."""
    assert faults.fault_of(error).code == code


def test_what_a_machine_says_is_not_told(bench: FakeBench, api: ApiClient) -> None:
    """An error of this machine's tools gives the request id, not the command."""
    volume_id = api.make_volume()
    bench.helper.fail_next["export"] = errors.UndoFailed(
        errors.CommandError(["tgtadm", "--secret"], 1, "private", 0.1), []
    )
    answer = api.act(
        volume_id,
        "os-initialize_connection",
        {"connector": {"initiator": "iqn.2026-01.example:h"}},
    )
    assert answer.fault[:2] == ("computeFault", 500)
    assert "private" not in answer.text
    assert "tgtadm" not in answer.text
    assert answer.headers["x-openstack-request-id"] in answer.fault[2]


def test_defects_are_500_and_logged_without_locals(
    bench: FakeBench, api: ApiClient, caplog: pytest.LogCaptureFixture
) -> None:
    """An exception that nobody expected is a 500 with the request id; the log has the trace."""
    volume_id = api.make_volume()
    bench.helper.fail_next["export"] = ZeroDivisionError("secret-of-the-error")
    connector = {"initiator": "iqn.2026-01.example:h", "password": "hunter2"}
    answer = api.act(volume_id, "os-initialize_connection", {"connector": connector})
    assert answer.fault[:2] == ("computeFault", 500)
    assert "secret-of-the-error" not in answer.text
    assert "ZeroDivisionError" in caplog.text
    assert answer.headers["x-openstack-request-id"] in caplog.text
    assert "hunter2" not in caplog.text


# -- requests that cannot be ---------------------------------------------------------------


@pytest.mark.parametrize(
    "method, path, code",
    [
        ("GET", "/nothing", 404),
        ("GET", "/v3/groups", 404),
        ("GET", "/groups/detail", 404),
        ("GET", "/backups", 404),
        ("GET", "/volumes/x/y/z", 404),
        ("GET", "/v4/volumes", 404),
        ("POST", "/volumes/detail", 405),
        ("PATCH", "/volumes", 405),
        ("HEAD", "/volumes", 405),
        ("OPTIONS", "/volumes", 405),
        ("DELETE", "/volumes", 405),
        ("POST", "/types", 405),
        ("PUT", "/os-quota-sets/x", 405),
        ("POST", "/v3", 405),
    ],
)
def test_what_is_not_there(api: ApiClient, method: str, path: str, code: int) -> None:
    """A resource that does not exist is a 404, a method that it does not have a 405."""
    answer = api.call(method, path)
    assert answer.status == code
    name = {404: "itemNotFound", 405: "badMethod"}[code]
    assert method == "HEAD" or answer.fault[:2] == (name, code)


def test_routes_do_not_shadow_absent_resources(bench: FakeBench) -> None:
    """What is said to be absent has no route."""
    present = {route.path.split("/")[1] for route in routes(bench.service, ApiSettings())}
    assert not present & ABSENT


JSON = {"Content-Type": "application/json"}


@pytest.mark.parametrize(
    "raw, code",
    [
        (b"", 400),
        (b"{", 400),
        (b"null", 400),
        (b"[]", 400),
        (b'"text"', 400),
        (b"{}", 400),
        (b'{"volume": null}', 400),
        (b'{"volume": []}', 400),
        (b'{"volume": {"size": 1}, "other": 1}', 400),
        (b'{"volume": {"size": 1}} x', 400),
        (b'{"volume": {"size": 1, "name": "\xff"}}', 400),
        (b'{"volume": {"size": 1, "name": "\\ud800"}}', 400),
        (b'{"volume": {"size": 1, "name": "a\\u0000b"}}', 400),
        (b'{"volume": {"size": NaN}}', 400),
        (b"\xef\xbb\xbf{}", 400),
        (b'{"volume":' + b"[" * 50000, 400),
        (b'{"volume":' * 10000, 400),
        (b'{"volume": {"size": 1, "metadata": ' + b"[" * 5000 + b"]" * 5000 + b"}}", 400),
        (b" " * 114689, 413),
        (b"x" * (1 << 20), 413),
    ],
)
def test_bodies_that_cannot_be(api: ApiClient, raw: bytes, code: int) -> None:
    """A body that is not the JSON it should be is refused, with a body of our own."""
    before = len(api.get("/volumes").json["volumes"])
    answer = api.post("/volumes", raw=raw)
    assert answer.status == code, answer.text
    assert answer.fault[1] == code
    assert len(api.get("/volumes").json["volumes"]) == before


@pytest.mark.parametrize(
    "keys, part",
    [
        ({"size": 0}, "minimum"),
        ({"size": -1}, "minimum"),
        ({"size": 1.5}, "float"),
        ({"size": True}, "bool"),
        ({"size": "x"}, "'x' does not match"),
        ({"size": "-1"}, "does not match"),
        ({"size": "\u0663"}, "does not match"),
        ({"size": ""}, "does not match"),
        ({"size": 2147483648}, "maximum"),
        ({"size": "9" * 4000}, "maximum"),
        ({"size": 10**30}, "maximum"),
        ({"size": None}, "size"),
        ({}, "size"),
        ({"size": [1]}, "array"),
        ({"size": 1, "name": 5}, "name"),
        ({"size": 1, "name": "n" * 256}, "name has 256 characters, more than 255."),
        ({"size": 1, "description": "d" * 256}, "description has 256 characters"),
        ({"size": 1, "unheard_of": 1}, "('unheard_of' was unexpected)"),
        ({"size": 1, "metadata": {"k": 1}}, "Expected `str`"),
        ({"size": 1, "metadata": {"k": "v" * 256}}, "too long"),
        ({"size": 1, "metadata": {"": "v"}}, "('' was unexpected)"),
        ({"size": 1, "metadata": {"k\n": "v"}}, "was unexpected"),
        ({"size": 1, "metadata": {"\u00e4": "v"}}, "was unexpected"),
        ({"size": 1, "metadata": []}, "metadata"),
        ({"size": 1, "snapshot_id": "x"}, "is not a 'uuid'"),
        ({"size": 1, "source_volid": 7}, "source_volid"),
        ({"size": 1, "availability_zone": ""}, "availability_zone"),
        ({"size": 1, "availability_zone": "mars"}, "mars"),
        ({"size": 1, "multiattach": "perhaps"}, "multiattach"),
        ({"size": 1, "imageRef": "cirros"}, "Invalid image identifier"),
    ],
)
def test_bad_volumes_are_400(api: ApiClient, keys: dict[str, object], part: str) -> None:
    """A value that a volume cannot have is a 400 that says which, and makes nothing."""
    before = len(api.get("/volumes").json["volumes"])
    name, code, message = api.post("/volumes", {"volume": keys}).fault
    assert (name, code) == ("badRequest", 400)
    assert part in message
    assert len(api.get("/volumes").json["volumes"]) == before


@pytest.mark.parametrize(
    "keys",
    [
        {"snapshot_id": "00000000-0000-4000-8000-000000000000"},
        {"source_volid": "00000000-0000-4000-8000-000000000000"},
        {"volume_type": "nonsense"},
        {"group_id": "g"},
        {"consistencygroup_id": "g"},
        {"backup_id": "00000000-0000-4000-8000-000000000000"},
    ],
)
def test_sources_that_are_not_there_are_404(api: ApiClient, keys: dict[str, object]) -> None:
    """A volume of something that does not exist is a 404."""
    answer = api.post("/volumes", {"volume": {"size": 1, **keys}})
    assert answer.fault[:2] == ("itemNotFound", 404)


def test_unknown_keys_are_ignored_before_353(api: ApiClient) -> None:
    """Old clients send keys that mean nothing; they are let through as Block Storage does."""
    body = {"volume": {"size": 1, "status": "creating", "user_id": None}}
    assert api.post("/volumes", body, version="3.52").status == 202
    assert api.post("/volumes", body, version="3.53").status == 400


@pytest.mark.parametrize("name", ["n" * 255, "\u96ea" * 255, "\U0001f40b", "a\tb", ""])
def test_names_that_can_be(api: ApiClient, name: str) -> None:
    """A name is any text of at most 255 characters."""
    answer = api.post("/volumes", {"volume": {"size": 1, "name": name}})
    assert answer.json["volume"]["name"] == name


def test_the_last_of_two_equal_keys_counts(api: ApiClient) -> None:
    """A key that is there twice is not an error; the last one is meant."""
    answer = api.post("/volumes", raw=b'{"volume": {"size": 1, "size": 2}}')
    assert answer.json["volume"]["size"] == 2


@pytest.mark.parametrize(
    "content_type, code",
    [
        ("application/json", 202),
        ("application/json; charset=utf-8", 202),
        ("application/vnd.openstack.volume+json", 202),
        ("text/plain", 415),
        ("application/xml", 415),
        ("application/json+x", 415),
        ("\xe4", 415),
        ("", 400),
    ],
)
def test_content_types(api: ApiClient, content_type: str, code: int) -> None:
    """Only JSON is read; a body of nothing that is named is a 400."""
    answer = api.post("/volumes", {"volume": {"size": 1}}, headers={"Content-Type": content_type})
    assert answer.status == code
    assert code == 202 or answer.fault[1] == code


@pytest.mark.parametrize(
    "path",
    [
        "/volumes/%00",
        "/volumes/%ff%fe",
        "/volumes/..%2f..%2fetc",
        "/volumes/" + "x" * 4000,
        "/volumes/%F0%9F%90%8B",
        "/snapshots/'%20OR%201=1",
        "/types/%00",
        "/messages/%00",
        "/attachments/%ff",
        "/volumes/x/metadata/%00",
        "/extensions/%ff",
        "//volumes//x",
    ],
)
def test_odd_identifiers_are_404(api: ApiClient, path: str) -> None:
    """An identifier that cannot be one is a 404 like every other that is not there."""
    assert api.get(path).fault[:2] == ("itemNotFound", 404)


@pytest.mark.parametrize(
    "headers",
    [
        {"Host": "\xff\xfe"},
        {"Host": 'a"b\\c'},
        {"X-Forwarded-Host": ","},
        {"X-Forwarded-Proto": "javascript"},
        {"Accept": "text/html"},
        {"Accept": "\xff"},
        {"If-Match": '"', "Range": "bytes=0-"},
        {"Cookie": "=" * 8000},
        {"X-Auth-Token": "\xff:\xfe"},
    ],
)
def test_odd_headers_do_no_harm(api: ApiClient, headers: dict[str, str]) -> None:
    """Headers that nobody should send leave the answer well-formed."""
    api.make_volume()
    answer = api.get("/volumes/detail", headers=headers)
    assert answer.status == 200
    assert isinstance(answer.json["volumes"], list)
