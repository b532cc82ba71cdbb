"""The released clients, unmodified, against a service that really runs; there is no Keystone.

Rows that work here and not with Block Storage's own service are marked by their reason: these
clients look for the version document without a token.
"""

from __future__ import annotations

import json
import os
import select
import subprocess
import sys
import urllib.request
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import pytest

from lunport.api.auth import hash_token
from lunport.client.block_storage import BlockStorage
from lunport.core.connector import Connector
from lunport.core.errors import AttachmentNotFound
from lunport.core.iqn import Iqn
from lunport.core.path_report import format_path_report, parse_path_report
from lunport.core.path_status import PathState, PathStatus, VolumePaths
from lunport.host.clock import Deadline
from tests.daemons.conftest import free_portals

PROJECT = "0123456789abcdef0123456789abcdef"
BIN = Path(sys.executable).parent
START_S = 30
COMMAND_S = 60
INITIATOR = "iqn.2026-11.io.lunport.test:client"


@dataclass(frozen=True, slots=True)
class Served:
    """A running service."""

    root: str

    @property
    def url(self) -> str:
        """Where the project's resources are."""
        return f"{self.root}/v3/{PROJECT}"


def serve(folder: Path, extra: str = "") -> tuple[subprocess.Popen[str], Served]:
    """Start the service as its users do, on ports of its own."""
    listen, *portals = free_portals("127.0.0.1", "127.0.0.1", "127.0.0.2")
    config = folder / "lunport.toml"
    config.write_text(
        f'[service]\non_stop = "stop"\nlisten = "{listen}"\n{extra}\n'
        f"[backend.local]\nportals = {json.dumps([str(portal) for portal in portals])}\n"
    )
    with (folder / "log").open("w") as log:
        process = subprocess.Popen(
            [
                sys.executable,
                "-c",
                "from lunport.cli.main import main; main()",
                "serve",
                "--config",
                config,
                "--data-dir",
                folder / "data",
            ],
            stdout=subprocess.PIPE,
            stderr=log,
            text=True,
            env={**os.environ, "PYTHONPATH": os.pathsep.join(sys.path)},
        )
    assert process.stdout is not None
    ready, _, _ = select.select([process.stdout], [], [], START_S)
    said = process.stdout.readline() if ready else "nothing"
    if "serving Block Storage v3" not in said:
        stop(process)
        pytest.fail(f"the service did not start: {said}\n{(folder / 'log').read_text()}")
    return process, Served(f"http://{listen}")


def stop(process: subprocess.Popen[str]) -> None:
    """End a service."""
    process.terminate()
    try:
        assert process.wait(START_S) == 0
    except subprocess.TimeoutExpired:
        process.kill()
        process.wait(START_S)
        raise
    finally:
        if process.stdout is not None:
            process.stdout.close()


@pytest.fixture(scope="module")
def served(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Served]:
    """One service in mode none for the whole module."""
    process, found = serve(tmp_path_factory.mktemp("served"))
    yield found
    stop(process)


def run(program: str, *arguments: str, folder: Path, fails: bool = False) -> str:
    """Run a client that knows nothing but its arguments."""
    clean = {name: value for name, value in os.environ.items() if not name.startswith("OS_")}
    done = subprocess.run(
        [BIN / program, *arguments],
        capture_output=True,
        text=True,
        timeout=COMMAND_S,
        check=False,
        cwd=folder,
        env={**clean, "HOME": str(folder), "PYTHONWARNINGS": "ignore"},
    )
    assert bool(done.returncode) == fails, f"{arguments}: {done.stdout}{done.stderr}"
    return done.stderr if fails else done.stdout


Client = Callable[..., Any]


@pytest.fixture
def openstack(served: Served, tmp_path: Path) -> Client:
    """The ``openstack`` client without authentication; it answers with decoded JSON."""

    def call(*arguments: str, endpoint: str = served.url, shows: bool = True) -> Any:
        out = run(
            "openstack",
            *("--os-auth-type", "none", "--os-endpoint", endpoint),
            *("--os-volume-api-version", "3.71"),
            *arguments,
            *(("-f", "json") if shows else ()),
            folder=tmp_path,
        )
        return json.loads(out) if shows else out

    return call


@pytest.fixture
def cinder(served: Served, tmp_path: Path) -> Client:
    """The ``cinder`` client with its own no-authentication plug-in."""

    def call(*arguments: str, fails: bool = False) -> str:
        return run(
            "cinder",
            *("--os-auth-type", "noauth", "--os-endpoint", served.url),
            *("--os-project-id", PROJECT, "--os-user-id", "admin"),
            *("--os-volume-api-version", "3.70"),
            *arguments,
            folder=tmp_path,
            fails=fails,
        )

    return call


def column(table: str, number: int = 1) -> list[str]:
    """Return a column of a table as the clients draw it, without its head."""
    rows = [line.split("|") for line in table.splitlines() if line.startswith("|")]
    return [row[number].strip() for row in rows[1:]]


def field(table: str, name: str) -> str:
    """Return the value of a row of a two-column table."""
    return dict(zip(column(table, 1), column(table, 2), strict=True))[name]


@pytest.mark.parametrize("where", ["/v3/" + PROJECT, "/v3", "/v3/", "", "/"])
def test_openstack_without_authentication(served: Served, openstack: Client, where: str) -> None:
    """``--os-auth-type none`` finds the service at its URL with project, version or neither."""
    assert isinstance(openstack("volume", "list", endpoint=served.root + where), list)


def test_openstack_walks_through_a_volumes_life(openstack: Client) -> None:
    """Volume, snapshot, properties, size, state: each command of ``openstack`` works."""
    made = openstack("volume", "create", "--size", "1", "--property", "a=b", "life")
    assert made["status"] == "creating"
    assert [one["ID"] for one in openstack("volume", "list") if one["Name"] == "life"]
    assert openstack("volume", "show", "life")["properties"] == {"a": "b"}
    openstack("volume", "set", "--name", "life2", "--property", "c=d", "life", shows=False)
    # Fails with Block Storage's own service: no version document without a token.
    snapshot = openstack("volume", "snapshot", "create", "--volume", "life2", "taken")
    assert snapshot["volume_id"] == made["id"]
    (listed,) = openstack("volume", "snapshot", "list", "--long")
    assert (listed["Name"], listed["Size"]) == ("taken", 1)
    openstack("volume", "snapshot", "delete", "taken", shows=False)
    openstack("volume", "set", "--size", "2", "life2", shows=False)
    openstack("volume", "set", "--state", "error", "life2", shows=False)
    shown = openstack("volume", "show", "life2")
    assert (shown["size"], shown["status"]) == (2, "error")
    openstack("volume", "delete", "--force", "life2", shows=False)
    assert "life2" not in [one["Name"] for one in openstack("volume", "list")]


def test_openstack_reads_the_catalog(openstack: Client) -> None:
    """Types, services, pools, attachments, messages, summary, zones: all are listed."""
    assert openstack("volume", "type", "list")[0]["Name"] == "__DEFAULT__"
    # The next four fail with Block Storage's own service, for the reason above.
    binaries = {one["Binary"] for one in openstack("volume", "service", "list")}
    assert binaries == {"cinder-scheduler", "cinder-volume"}
    assert openstack("volume", "attachment", "list") == []
    (pool,) = openstack("volume", "backend", "pool", "list")
    assert pool["Name"].endswith("@local#local")
    assert openstack("volume", "message", "list") == []
    assert openstack("volume", "summary")["Total Count"] >= 0
    assert openstack("availability", "zone", "list", "--volume")[0]["Zone Status"] == "available"


def test_openstack_with_a_token_of_mode_none(served: Served, tmp_path: Path) -> None:
    """``--os-auth-type admin_token`` with USER:PROJECT works for what failed before as well."""
    for command in ("volume list", "volume service list", "volume attachment list"):
        out = run(
            "openstack",
            *("--os-auth-type", "admin_token", "--os-endpoint", served.url),
            *("--os-token", f"admin:{PROJECT}", "--os-volume-api-version", "3.71"),
            *command.split(),
            *("-f", "json"),
            folder=tmp_path,
        )
        assert isinstance(json.loads(out), list)


def test_cinder_walks_through_a_volumes_life(cinder: Client) -> None:
    """A volume is made, attached, extended, reverted and deleted by ``cinder``."""
    volume = field(cinder("create", "1", "--name", "by-cinder", "--poll"), "id")
    assert volume in column(cinder("list"))
    made = cinder(
        "attachment-create",
        *("--connect", "True", "--initiator", INITIATOR, "--ip", "127.0.0.1"),
        *("--host", "client", "--multipath", "True"),
        volume,
    )
    attachment = field(made, "attachment_id")
    assert field(made, "driver_volume_type") == "iscsi"
    assert field(made, "target_portals").count("127.0.0.") == 2
    assert column(cinder("attachment-list")) == [attachment]
    cinder("attachment-complete", attachment)
    assert field(cinder("show", volume), "status") == "in-use"
    cinder("attachment-delete", attachment)
    assert field(cinder("show", volume), "status") == "available"
    cinder("extend", volume, "2")
    cinder("snapshot-create", volume, "--name", "by-cinder")
    assert column(cinder("snapshot-list"), 2) == [volume]
    (snapshot,) = column(cinder("snapshot-list"))
    cinder("--os-volume-api-version", "3.40", "revert-to-snapshot", snapshot)
    assert field(cinder("show", volume), "status") in {"reverting", "available"}
    cinder("delete", "--cascade", volume)
    assert "by-cinder" not in column(cinder("list", "--status", "available"), 3)


def test_clients_show_an_attachment_with_a_report(
    served: Served, cinder: Client, openstack: Client, tmp_path: Path
) -> None:
    """What a host told of its paths disturbs no released client, and is gone with the rest."""
    client = BlockStorage(served.root)
    volume = client.create_volume("reported", 1, Deadline.after(START_S))
    client.wait_for_volume(volume.id, "available", Deadline.after(START_S))
    attachment = client.create_attachment(volume.id, Deadline.after(START_S))
    host = Connector(Iqn(INITIATOR), ip="127.0.0.1", host="client", multipath=True)
    info = client.connect_attachment(attachment.id, host, Deadline.after(START_S)).connection
    assert info is not None
    told = VolumePaths(
        key="naa.6",
        volume_id=volume.id,
        wwid=info.wwid,
        device="dm-0",
        map_name="dm-0",
        size_bytes=1 << 30,
        wanted=len(info.paths),
        paths=(
            PathStatus(info.paths[0], "default", PathState.LIVE, 1, "sda", 1790000000.0),
            PathStatus(info.paths[1], "default", PathState.MISSING, why="no answer"),
        ),
    )
    client.report_paths(attachment.id, format_path_report(told), Deadline.after(START_S))
    address = f"{served.url}/attachments/{attachment.id}"
    request = urllib.request.Request(address, headers={"OpenStack-API-Version": "volume 3.70"})
    with urllib.request.urlopen(request, timeout=START_S) as answer:
        shown = json.load(answer)["attachment"]["lunport:paths"]
    assert parse_path_report(shown) == told
    assert client.get_attachment(attachment.id, Deadline.after(START_S)).connection == info
    assert attachment.id in cinder("attachment-show", attachment.id)
    shown = openstack("volume", "attachment", "show", attachment.id)
    assert shown["Volume ID"] == volume.id
    options = {
        "auth_type": "none",
        "auth": {"endpoint": served.url},
        "block_storage_default_microversion": "3.71",
    }
    look = (
        "import json, sys, openstack\n"
        "api = openstack.connect(**json.loads(sys.argv[1])).block_storage\n"
        "print(json.dumps(api.get_attachment(sys.argv[2]).to_dict()))\n"
    )
    out = run("python", "-c", look, json.dumps(options), attachment.id, folder=tmp_path)
    assert json.loads(out)["volume_id"] == volume.id
    cinder("attachment-delete", attachment.id)
    with pytest.raises(AttachmentNotFound):
        client.report_paths(attachment.id, format_path_report(told), Deadline.after(START_S))
    client.delete_volume(volume.id, Deadline.after(START_S))
    client.wait_until_deleted(volume.id, Deadline.after(START_S))
    client.close()


def test_cinder_reads_the_catalog(cinder: Client) -> None:
    """Services, types, pools, quotas, limits and filters are listed by ``cinder``."""
    assert "cinder-volume" in column(cinder("service-list"))
    assert column(cinder("type-list"), 2) == ["__DEFAULT__"]
    assert "iSCSI" in cinder("get-pools", "--detail")
    assert field(cinder("quota-usage", PROJECT), "volumes") is not None
    assert "totalVolumesUsed" in column(cinder("absolute-limits"))
    assert "bootable" in cinder("list-filters", "--resource", "volume")
    assert "3.71" in cinder("version-list")


SDK = """
import json, sys
import openstack

cloud = openstack.connect(**json.loads(sys.argv[1]))
api = cloud.block_storage
volume = api.create_volume(size=1, name="by-sdk", metadata={"a": "b"})
api.wait_for_status(volume, "available", interval=0.1, wait=30)
attachment = api.create_attachment(volume, connector=json.loads(sys.argv[2]))
api.complete_attachment(attachment)
shown = api.get_volume(volume.id).status
api.delete_attachment(attachment)
snapshot = api.create_snapshot(volume_id=volume.id, name="by-sdk")
api.wait_for_status(snapshot, "available", interval=0.1, wait=30)
api.delete_snapshot(snapshot, ignore_missing=False)
api.wait_for_delete(snapshot, interval=0.1, wait=30)
names = [one.name for one in api.volumes(details=True)]
api.delete_volume(volume, ignore_missing=False)
api.wait_for_delete(volume, interval=0.1, wait=30)
services = sorted(one.binary for one in api.services())
portals = attachment.connection_info["target_portals"]
print(json.dumps([shown, "by-sdk" in names, services, len(portals)]))
"""


@pytest.mark.parametrize("how", ["none", "none, overridden", "admin_token"])
def test_sdk(served: Served, tmp_path: Path, how: str) -> None:
    """The SDK connects without Keystone in each way, and attaches a volume."""
    ways: dict[str, dict[str, Any]] = {
        "none": {"auth_type": "none", "auth": {"endpoint": served.url}},
        "none, overridden": {
            "auth_type": "none",
            "block_storage_endpoint_override": served.url,
        },
        "admin_token": {
            "auth_type": "admin_token",
            "auth": {"endpoint": served.url, "token": f"admin:{PROJECT}"},
        },
    }
    options = {**ways[how], "block_storage_default_microversion": "3.71"}
    connector = {"initiator": INITIATOR, "ip": "127.0.0.1", "host": "client"}
    arguments: Sequence[str] = ("-c", SDK, json.dumps(options), json.dumps(connector))
    shown = json.loads(run("python", *arguments, folder=tmp_path))
    assert shown == ["in-use", True, ["cinder-scheduler", "cinder-volume"], 2]


def test_static_tokens(tmp_path: Path) -> None:
    """In mode token the clients bring a token from the file; another one is refused."""
    tokens = tmp_path / "tokens.toml"
    tokens.write_text(
        f'[[token]]\nhash = "{hash_token("good")}"\nuser = "alice"\nproject = "{PROJECT}"\n'
        'roles = ["admin"]\n'
    )
    process, found = serve(tmp_path, f'auth = "token"\ntokens = "{tokens}"')
    try:
        for token, fails in (("good", False), ("bad", True)):
            out = run(
                "openstack",
                *("--os-auth-type", "admin_token", "--os-endpoint", found.url),
                *("--os-token", token, "volume", "service", "list"),
                folder=tmp_path,
                fails=fails,
            )
            assert ("cinder-volume" in out) is not fails
    finally:
        stop(process)
