"""Every route of a running service under hostile requests: never a 5xx, errors well-formed.

The API is described as OpenAPI from the route table and the body schemas, and schemathesis
makes requests that fit it and requests that do not; a second run sends what no description
allows. The service must have logged no failure, and leave nothing that it cannot clean up.
"""

from __future__ import annotations

import contextlib
import http.client
import json
import re
import socket
import urllib.error
import urllib.request
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Any, cast

import msgspec
import pytest
import schemathesis
from hypothesis import HealthCheck, Phase, example, given, settings
from hypothesis import strategies as st
from schemathesis import GenerationMode
from schemathesis.core.result import Ok

from lunport.api.app import ApiSettings, Route, routes
from lunport.api.faults import NAMES, OTHER_NAME
from lunport.api.resources.actions import VOLUME_ACTIONS
from lunport.api.resources.migrations import MIGRATION_ACTIONS
from lunport.api.schemas import (
    actions,
    attachments,
    enrolments,
    exports,
    host_reports,
    metadata,
    migrations,
    path_reports,
    snapshots,
    volumes,
)
from lunport.volume.service import Service
from tests.daemons.test_clients import PROJECT, Served, serve, stop

EXAMPLES = 8
RAW_EXAMPLES = 1500
ANSWER_S = 30
# A name to look for in filters, so that some examples find something.
LIST_PARAMETERS = (
    *("limit", "marker", "offset", "sort", "sort_key", "sort_dir", "all_tenants", "with_count"),
    *("name", "name~", "status", "metadata", "bootable", "size", "created_at", "consumes_quota"),
    *("volume_id", "instance_id", "resource_uuid", "extra_specs", "usage", "detail", "force"),
)

BODIES: dict[tuple[str, str], Any] = {
    ("post", "/volumes"): volumes.StrictCreateVolume,
    ("put", "/volumes/{identifier}"): volumes.UpdateVolume,
    ("post", "/volumes/{identifier}/metadata"): metadata.Metadata,
    ("put", "/volumes/{identifier}/metadata"): metadata.Metadata,
    ("put", "/volumes/{identifier}/metadata/{key}"): metadata.Meta,
    ("post", "/snapshots"): snapshots.CreateSnapshot,
    ("put", "/snapshots/{identifier}"): snapshots.UpdateSnapshot,
    ("post", "/snapshots/{identifier}/metadata"): metadata.Metadata,
    ("put", "/snapshots/{identifier}/metadata"): metadata.Metadata,
    ("put", "/snapshots/{identifier}/metadata/{key}"): metadata.Meta,
    ("post", "/attachments"): attachments.CreateAttachmentWithMode,
    ("put", "/attachments/{attachment_id}"): attachments.UpdateAttachment,
    ("post", "/enrolments"): enrolments.EnrolBody,
    ("put", "/enrolments/{host}/report"): host_reports.ReportBody,
    ("post", "/migrations"): migrations.StartBody,
}

_ANY: dict[str, Any] = {}
_ACTION_VALUES: dict[str, Any] = {
    "os-attach": actions.Attach,
    "os-detach": actions.Detach,
    "os-force_detach": actions.ForceDetach,
    "os-initialize_connection": actions.InitializeConnection,
    "os-terminate_connection": actions.TerminateConnection,
    "os-extend": actions.Extend,
    "os-extend_volume_completion": actions.ExtendCompletion,
    "os-update_readonly_flag": actions.ReadonlyFlag,
    "os-set_bootable": actions.Bootable,
    "os-reset_status": actions.ResetVolumeStatus,
}
_MIGRATION_VALUES: dict[str, Any] = {
    "lunport:prepared": migrations.PreparedKeys,
    "lunport:moving": migrations.NoKeys,
    "lunport:settle": migrations.SettleKeys,
    "lunport:release": migrations.NoKeys,
    "lunport:abort": migrations.AbortKeys,
    "lunport:note": migrations.NoteKeys,
}
GUEST = "5f0e3e2a-0d8e-4b7b-9c53-000000000001"
CONNECTORS: list[dict[str, Any]] = [
    {"initiator": "iqn.2026-11.io.lunport.test:fuzz", "ip": "127.0.0.1", "host": "fuzz"},
    {"initiator": "x", "multipath": "True"},
    {"initiator": 5},
    {},
]


@dataclass(frozen=True, slots=True)
class Target:
    """A service to attack, and what there is in it."""

    served: Served
    ids: dict[str, str]
    log: Path


@pytest.fixture(scope="module")
def target(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Target]:
    """A service with a volume, a snapshot and an attachment; clean when all is over."""
    folder = tmp_path_factory.mktemp("fuzz")
    process, served = serve(folder)
    with contextlib.ExitStack() as stack:
        stack.callback(stop, process)
        volume = create(served, "volumes", {"size": 1})
        ids = {
            "volume": volume,
            "snapshot": create(served, "snapshots", {"volume_id": volume, "force": True}),
            "attachment": create(served, "attachments", {"volume_uuid": volume}),
        }
        ids["migration"] = create_migration(served)
        yield Target(served, ids, folder / "log")
        assert "request_failed" not in (folder / "log").read_text()


def create_migration(served: Served) -> str:
    """Record a guest's move, of a volume of its own."""
    volume = create(served, "volumes", {"size": 1})
    used = {"volume_uuid": volume, "instance_uuid": GUEST, "connector": CONNECTORS[0]}
    attachment = create(served, "attachments", used)
    moved = [{"volume_id": volume, "source_attachment": attachment}]
    ends = {"source": "fuzz", "destination": "other"}
    return create(served, "migrations", {"guest": GUEST, **ends, "volumes": moved})


def create(served: Served, collection: str, keys: dict[str, Any]) -> str:
    """Create something and return its id; the volume's work may be going on."""
    kind = collection.removesuffix("s")
    request = urllib.request.Request(
        f"{served.url}/{collection}",
        data=json.dumps({kind: keys}).encode(),
        headers={
            "Content-Type": "application/json",
            "OpenStack-API-Version": "volume 3.65",
        },
    )
    for _ in range(200):
        try:
            with urllib.request.urlopen(request, timeout=ANSWER_S) as answer:
                made: str = json.load(answer)[kind]["id"]
                return made
        except urllib.error.HTTPError as error:
            error.close()
            if error.code != 400:  # the volume is not available yet
                raise
    raise AssertionError(f"no {kind} could be made")


def check(status: int, headers: dict[str, str], body: bytes) -> None:
    """Hold an answer to what every answer must be."""
    assert 200 <= status < 500, (status, body[:500])
    kind = headers.get("content-type", "")
    if status < 400:
        assert not body or json.loads(body) is not None
    elif kind.startswith("application/json"):
        ((name, inner),) = json.loads(body).items()
        assert name == NAMES.get(status, OTHER_NAME)
        assert inner["code"] == status
        assert inner["message"]
        assert headers["x-openstack-request-id"].startswith("req-")


# -- what the description allows, and what it forbids ----------------------------------------


def methods_of(route: Route) -> list[str]:
    """List the methods of a route."""
    suffix = f"_{route.suffix}" if route.suffix else ""
    return [
        method
        for method in ("get", "post", "put", "delete")
        if hasattr(route.resource, f"on_{method}{suffix}")
    ]


def describe(ids: dict[str, str]) -> dict[str, Any]:
    """Describe the API as OpenAPI; actions are one schema each, of which one applies."""
    named = {*BODIES.values(), *_ACTION_VALUES.values(), actions.ResetSnapshotStatus}
    named.add(path_reports.PathReportKeys)
    named |= {exports.RevokeKeys, exports.HostKeys, exports.CheckKeys}
    named |= set(_MIGRATION_VALUES.values())
    types = sorted(named, key=lambda one: str(one.__name__))
    refs, components = msgspec.json.schema_components(
        types, ref_template="#/components/schemas/{name}"
    )
    by_type = dict(zip(types, refs, strict=True))
    connector = {"enum": CONNECTORS}
    for name in ("AttachmentConnector", "InitializeConnection", "TerminateConnection"):
        components[name]["properties"]["connector"] = connector

    def one_of(values: dict[str, Any]) -> dict[str, Any]:
        return {
            "oneOf": [
                {
                    "type": "object",
                    "properties": {action: by_type[value] if value else _ANY},
                    "required": [action],
                    "additionalProperties": False,
                }
                for action, value in values.items()
            ]
        }

    volume_actions = one_of({name: _ACTION_VALUES.get(name) for name in VOLUME_ACTIONS})
    snapshot_actions = one_of(
        {"os-reset_status": actions.ResetSnapshotStatus, "os-force_delete": None}
    )
    paths: dict[str, Any] = {}
    for route in routes(cast("Service", None), ApiSettings()):
        operations = paths.setdefault(f"/v3/{PROJECT}{route.path}", {})
        for method in methods_of(route):
            operation = operations[method] = describe_operation(route.path, method, ids)
            body: dict[str, Any] | None = None
            if route.path.endswith("/action"):
                kind = route.path.split("/")[1]
                body = {
                    "volumes": volume_actions,
                    "snapshots": snapshot_actions,
                    "attachments": one_of(
                        {"os-complete": None, "lunport:report_paths": path_reports.PathReportKeys}
                    ),
                    "exports": one_of(
                        {
                            "lunport:revoke": exports.RevokeKeys,
                            "lunport:restore": exports.HostKeys,
                            "lunport:check": exports.CheckKeys,
                        }
                    ),
                    "migrations": one_of(_MIGRATION_VALUES),
                }[kind]
            elif method in ("post", "put"):
                body = by_type[BODIES[method, route.path]]
            if body is not None:
                content = {"application/json": {"schema": body}}
                operation["requestBody"] = {"required": True, "content": content}
    return {
        "openapi": "3.1.0",
        "info": {"title": "Block Storage v3", "version": "3.71"},
        "paths": paths,
        "components": {"schemas": components},
    }


def describe_operation(path: str, method: str, ids: dict[str, str]) -> dict[str, Any]:
    """Describe the parameters of one operation."""
    text = {"type": "string"}
    parameters: list[dict[str, Any]] = [
        {
            "name": name,
            "in": "path",
            "required": True,
            "schema": {"anyOf": [{"enum": [*ids.values(), "default"]}, text]},
        }
        for name in (
            *("identifier", "attachment_id", "type_id", "key", "message_id", "alias"),
            *("project_id", "migration_id", "host"),
        )
        if "{" + name + "}" in path
    ]
    if method in ("get", "delete"):
        parameters += [{"name": name, "in": "query", "schema": text} for name in LIST_PARAMETERS]
    return {"parameters": parameters, "responses": {"default": {"description": "any"}}}


def test_every_body_is_described() -> None:
    """Each route that takes a body has its schema in the description."""
    taking = {
        (method, route.path)
        for route in routes(cast("Service", None), ApiSettings())
        for method in methods_of(route)
        if method in ("post", "put") and not route.path.endswith("/action")
    }
    assert taking == set(BODIES)
    assert set(_ACTION_VALUES) <= set(VOLUME_ACTIONS)
    assert set(_MIGRATION_VALUES) == set(MIGRATION_ACTIONS)


@pytest.mark.parametrize("mode", [GenerationMode.POSITIVE, GenerationMode.NEGATIVE])
def test_described_requests_never_fail(target: Target, mode: GenerationMode) -> None:
    """Requests that fit the description, and ones that break it, never give a 5xx."""
    schema = schemathesis.openapi.from_dict(describe(target.ids))
    sent = 0
    for result in schema.get_all_operations():
        assert isinstance(result, Ok)
        operation = result.ok()

        @settings(
            max_examples=EXAMPLES,
            deadline=None,
            database=None,
            phases=[Phase.explicit, Phase.generate],
            suppress_health_check=list(HealthCheck),
        )
        @given(case=operation.as_strategy(generation_mode=mode))
        def attack(case: schemathesis.Case[Any]) -> None:
            nonlocal sent
            answer = case.call(
                base_url=target.served.root,
                headers={"OpenStack-API-Version": "volume latest"},
                timeout=ANSWER_S,
            )
            sent += 1
            headers = {name.lower(): values[0] for name, values in answer.headers.items()}
            check(answer.status_code, headers, answer.content)

        attack()
    assert sent > EXAMPLES


# -- what no description allows --------------------------------------------------------------

SEGMENTS = st.one_of(
    st.sampled_from(
        [
            *("v3", PROJECT, "volumes", "snapshots", "attachments", "types", "detail", "action"),
            *("metadata", "messages", "limits", "os-quota-sets", "..", ".", "", "%00", "%ff"),
            *("%2e%2e", "%2f", "%", "%zz", "'", '"', "*", ";", "a" * 3000),
        ]
    ),
    st.text(
        st.characters(min_codepoint=33, max_codepoint=126, exclude_characters="?#"), max_size=8
    ),
)
ROUTES = sorted({route.path for route in routes(cast("Service", None), ApiSettings())})
# A route with something in its holes, or any segments at all.
PATHS = st.one_of(
    st.lists(SEGMENTS, max_size=5).map(lambda segments: "/" + "/".join(segments)),
    st.builds(
        lambda route, filling: f"/v3/{PROJECT}" + re.sub(r"{\w+}", lambda _: filling, route),
        st.sampled_from(ROUTES),
        st.one_of(
            st.sampled_from(["<volume>", "<snapshot>", "<attachment>", "default", PROJECT]),
            SEGMENTS,
        ),
    ),
)
JSON_VALUES = st.recursive(
    st.one_of(
        st.none(),
        st.booleans(),
        st.integers(),
        st.floats(),
        st.text(max_size=40),
        st.sampled_from(["\x00", "\ud800", "n" * 300, "1", "-1", "latest", PROJECT]),
    ),
    lambda inner: st.one_of(
        st.lists(inner, max_size=4),
        st.dictionaries(
            st.sampled_from(
                [
                    *("volume", "snapshot", "attachment", "metadata", "meta", "size", "name"),
                    *("connector", "initiator", "volume_uuid", "volume_id", "status", "mode"),
                    *VOLUME_ACTIONS,
                ]
            ),
            inner,
            max_size=4,
        ),
    ),
    max_leaves=12,
)
RAW_BODIES = st.one_of(
    st.none(),
    JSON_VALUES.map(lambda value: json.dumps(value).encode()),
    st.binary(max_size=200),
    st.sampled_from([b"[" * 60000, b'{"volume":' * 9000, b"x" * 114689, b"\x00", b"{}"]),
)
HEADER_VALUES = st.one_of(
    st.sampled_from(["application/json", "volume latest", "gzip, chunked", "-1", "0", "*/*"]),
    st.text(st.characters(min_codepoint=32, max_codepoint=255), max_size=60),
)
HEADERS = st.dictionaries(
    st.sampled_from(
        [
            *("Content-Type", "OpenStack-API-Version", "X-Auth-Token", "Accept", "Host", "Cookie"),
            *("X-Forwarded-Host", "X-Forwarded-Proto", "If-Match", "Range", "Forwarded"),
            *("X-OpenStack-Request-ID", "Accept-Language", "Content-Encoding"),
        ]
    ),
    HEADER_VALUES,
    max_size=4,
)
METHODS = st.sampled_from(
    ["GET", "POST", "PUT", "DELETE", "PATCH", "HEAD", "OPTIONS", "TRACE", "PROPFIND", "X"]
)


@settings(
    max_examples=RAW_EXAMPLES,
    deadline=None,
    database=None,
    phases=[Phase.explicit, Phase.generate],
    suppress_health_check=list(HealthCheck),
)
@example(method="GET", path="//[", query="", headers={}, body=None)
@given(
    method=METHODS,
    path=PATHS,
    query=st.text(st.characters(min_codepoint=33, max_codepoint=126), max_size=60),
    headers=HEADERS,
    body=RAW_BODIES,
)
def test_raw_requests_never_fail(
    target: Target,
    method: str,
    path: str,
    query: str,
    headers: dict[str, str],
    body: bytes | None,
) -> None:
    """Any method, path, query, headers and bytes give an answer below 500, in good form."""
    for kind, identifier in target.ids.items():
        path = path.replace(f"<{kind}>", identifier)
    path += f"?{query}" if query else ""
    sent = {"Content-Type": "application/json", **headers}
    connection = http.client.HTTPConnection(
        target.served.root.removeprefix("http://"), timeout=ANSWER_S
    )
    try:
        connection.request(
            method,
            path,
            body,
            {name: value.encode("latin-1") for name, value in sent.items()},
        )
        answer = connection.getresponse()
        got = {name.lower(): value for name, value in answer.getheaders()}
        content = answer.read()
    finally:
        connection.close()
    if method == "HEAD":
        assert answer.status < 500
    else:
        check(answer.status, got, content)


HEAD = b"POST /v3/x/volumes HTTP/1.1\r\nHost: x\r\nContent-Type: application/json\r\n"


@pytest.mark.parametrize(
    "raw, status",
    [
        (b"GET //[ HTTP/1.1\r\nHost: x\r\n\r\n", 400),
        (b"GET /v3/\x00\xff HTTP/1.1\r\nHost: x\r\n\r\n", 400),
        (b"nonsense\r\n\r\n", 400),
        (b"\x16\x03\x01\x02\x00\x01\x00\r\n\r\n", 400),
        (HEAD + b'Content-Length: 50\r\n\r\n{"volume"', 400),
        (HEAD + b"Content-Length: -5\r\n\r\n", 400),
        (HEAD + b"Content-Length: x\r\n\r\n", 400),
        (HEAD + b"Content-Length: 9999999999999\r\n\r\n", 413),
        (HEAD + b"Transfer-Encoding: chunked\r\n\r\nzz\r\n", 411),
        (HEAD + b"Transfer-Encoding: chunked\r\n\r\nfffffffffffff\r\n", 411),
        (HEAD + b"X: " + b"x" * 70000 + b"\r\n\r\n", 413),
        (b"GET /" + b"x" * 70000 + b" HTTP/1.1\r\n\r\n", 414),
    ],
)
def test_broken_http_is_the_clients_mistake(target: Target, raw: bytes, status: int) -> None:
    """What is not HTTP, or not as long as it says, is refused and the connection closed."""
    host, _, port = target.served.root.removeprefix("http://").partition(":")
    with socket.create_connection((host, int(port)), timeout=ANSWER_S) as connection:
        connection.sendall(raw)
        connection.shutdown(socket.SHUT_WR)
        answer = connection.recv(4096)
    assert int(answer.split()[1]) == status


def test_long_bodies_are_answered(target: Target) -> None:
    """A client that sends a megabyte of junk gets to read its 413."""
    request = urllib.request.Request(
        f"{target.served.url}/volumes",
        data=b"\x00junk\xff" * (1 << 18),
        headers={"Content-Type": "application/json"},
    )
    with pytest.raises(urllib.error.HTTPError) as caught:
        urllib.request.urlopen(request, timeout=ANSWER_S)
    with caught.value as error:
        assert error.code == 413
        assert "overLimit" in json.load(error)


def test_it_still_works_after_all(target: Target) -> None:
    """After the attacks the service does its job for the next caller."""
    made = create(target.served, "volumes", {"size": 1})
    with urllib.request.urlopen(f"{target.served.url}/volumes/{made}", timeout=ANSWER_S) as got:
        assert json.load(got)["volume"]["id"] == made
