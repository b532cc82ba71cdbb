"""``/exports`` and ``lunport export``: bodies, answers, who may, exit statuses, what is printed."""

from __future__ import annotations

import json
from collections.abc import Callable, Mapping
from pathlib import Path
from typing import Any

import click
import msgspec
import pytest

from lunport.api.app import ApiSettings
from lunport.api.auth import TokenAuth, hash_token, parse_tokens
from lunport.cli.exit_codes import exit_code_of
from lunport.cli.export import export
from lunport.core.errors import LunportError
from lunport.core.secret import Secret
from tests.fakes.api_client import HOST_1, HOST_2, ApiClient
from tests.fakes.fake_service import FakeBench
from tests.fakes.played_service import PlayedParts
from tests.fakes.policy_play import bench_of


@pytest.fixture
def bench(tmp_path: Path) -> FakeBench:
    """A service with a target for each host."""
    return bench_of(tmp_path, "host")


@pytest.fixture
def api(bench: FakeBench) -> ApiClient:
    """A client of it, as administrator."""
    return ApiClient(bench)


def act(api: ApiClient, action: str, **keys: object) -> Any:
    """Do an action on exports."""
    return api.post("/exports/action", {f"lunport:{action}": keys})


def initialize(api: ApiClient, connector: Mapping[str, object] = HOST_1) -> tuple[str, Any]:
    """Make a volume and connect a host; return the volume's id and the answer."""
    volume = api.make_volume()
    return volume, api.act(volume, "os-initialize_connection", {"connector": connector})


def test_revoked_and_restored(api: ApiClient) -> None:
    """The list follows: exported, revoked with the reason, exported again."""
    volume, answer = initialize(api)
    told = answer.json["connection_info"]["data"]
    (listed,) = api.get("/exports").json["exports"]
    assert listed.pop("since")
    assert listed == {
        "volume_id": volume,
        "attachment_id": None,
        "host": "h1",
        "initiator": HOST_1["initiator"],
        "backend": "files",
        "iqn": told["target_iqn"],
        "lun": told["target_lun"],
        "portals": ["127.0.0.1:3260", "127.0.0.2:3260"],
        "state": "exported",
    }
    done = act(api, "revoke", host="h1", reason="smoke")
    assert (done.status, done.json["change"], done.json["volume_ids"]) == (200, "changed", [volume])
    found = api.get("/exports").json
    assert [one["state"] for one in found["exports"]] == ["revoked"]
    assert [(one["host"], one["reason"]) for one in found["revocations"]] == [("h1", "smoke")]
    _, refused = initialize(api)
    assert refused.status == 403
    assert "smoke" in refused.fault[2]
    assert initialize(api, HOST_2)[1].status == 200
    assert act(api, "restore", host="h1").json["revocations"][0]["lifted_at"]
    assert {one["state"] for one in api.get("/exports").json["exports"]} == {"exported"}
    assert initialize(api)[1].status == 200


def test_checked(api: ApiClient, bench: FakeBench) -> None:
    """A check tells what differs by backend, and mends it if asked to."""
    initialize(api)
    (seen,) = bench.helper.exports()
    bench.helper.unexport(seen.iqn, seen.tid)
    found = act(api, "check").json
    assert found["whole"] is False
    ((difference,),) = [one["differences"] for one in found["backends"]]
    assert (difference["where"], difference["mended"]) == (seen.iqn, False)
    assert act(api, "check", repair=True).json["whole"] is True
    assert act(api, "check").json == {
        "whole": True,
        "backends": [{"name": "files", "targets": 1, "differences": []}],
    }


@pytest.mark.parametrize(
    "body, code",
    [
        ({"lunport:revoke": {}}, 400),
        ({"lunport:revoke": {"host": ""}}, 400),
        ({"lunport:revoke": {"host": "x" * 256}}, 400),
        ({"lunport:revoke": {"host": 7}}, 400),
        ({"lunport:revoke": {"host": "h", "all": True}}, 400),
        ({"lunport:revoke": {"initiator": "none"}}, 400),
        ({"lunport:revoke": {"host": "h", "volume_id": "none"}}, 400),
        ({"lunport:revoke": {"host": "h", "reason": "x" * 1001}}, 400),
        ({"lunport:revoke": {"host": "h", "volume_id": "0" * 32}}, 404),
        ({"lunport:restore": {}}, 400),
        ({"lunport:check": {"repair": "yes"}}, 400),
        ({"lunport:forget": {}}, 400),
        ({}, 400),
        ([], 400),
    ],
    ids=str,
)
def test_bodies_that_cannot_be(api: ApiClient, body: object, code: int) -> None:
    """A body that means nothing is refused, and nobody is cut off."""
    assert api.post("/exports/action", body).status == code
    assert api.get("/exports").json["revocations"] == []


def test_only_administrators(bench: FakeBench) -> None:
    """Everybody else gets 403 and learns nothing."""
    tokens = {"token": [{"hash": hash_token(Secret("t")), "user": "u", "project": "p"}]}
    settings = ApiSettings(authenticator=TokenAuth(parse_tokens(tokens, what="token")))
    user = ApiClient(bench, settings, token="t", project="p")
    assert user.get("/exports").status == 403
    for action in ("revoke", "restore", "check"):
        answer = act(user, action, host="h1")
        assert (answer.status, f"lunport:{action}" in answer.fault[2]) == (403, True)


def test_limits_are_conflicts(tmp_path: Path) -> None:
    """A unit too many is a 409 with the numbers; a volume says that it shares its target."""
    api = ApiClient(bench_of(tmp_path, "host", max_luns=1))
    volume, answer = initialize(api)
    assert answer.status == 200
    refused = initialize(api)[1]
    assert refused.status == 409
    assert "1 logical units in use and may have 1" in refused.fault[2]
    shown = api.get(f"/volumes/{volume}").json["volume"]
    assert shown["shared_targets"] is True


# -- the command -----------------------------------------------------------------------------------


Run = Callable[..., tuple[int, str]]


@pytest.fixture
def run(api: ApiClient, capsys: pytest.CaptureFixture[str]) -> Run:
    """Run the command; give its exit status, and what it printed or its error."""

    def run(*words: str) -> tuple[int, str]:
        try:
            status = export.main([*words], obj=PlayedParts(api), standalone_mode=False) or 0
        except click.UsageError as error:
            return 2, error.format_message()
        except LunportError as error:
            return exit_code_of(error), str(error)
        return int(status), capsys.readouterr().out

    return run


def test_the_command_cuts_off_and_restores(api: ApiClient, run: Run) -> None:
    """It says what it did and to which volumes, and when there was nothing to do."""
    assert run("list") == (0, "Nothing is exported.\n")
    volume, answer = initialize(api)
    told = answer.json["connection_info"]["data"]
    status, said = run("list")
    assert status == 0
    for word in (volume, "exported", "h1", told["target_iqn"], "LUN 1", "127.0.0.1:3260"):
        assert word in said
    assert run("revoke", "--host", "h1", "--reason", "smoke") == (
        0,
        f"Cut off.\n  volume    {volume}\n",
    )
    assert run("revoke", "-H", "h1")[1].startswith("It was cut off.")
    said = run("list")[1]
    assert "revoked" in said
    assert "cut off  h1 iqn.2026-01.example:h1  from all volumes since" in said
    assert "smoke" in said
    assert run("restore", "--host", "h1")[1].startswith("Restored.")
    assert run("restore", "--host", "h1") == (0, "It was not cut off.\n")


def test_the_command_checks(api: ApiClient, run: Run, bench: FakeBench) -> None:
    """The exit status is 8 while differences remain, and 0 when all is as it shall be."""
    initialize(api)
    assert run("check") == (0, "files  1 targets  0 differences\n")
    (seen,) = bench.helper.exports()
    bench.helper.unexport(seen.iqn, seen.tid)
    status, said = run("check")
    assert (status, f"  differs  {seen.iqn}: " in said) == (8, True)
    status, said = run("check", "--repair", "-o", "json")
    assert (status, json.loads(said)["whole"]) == (0, True)
    assert run("check", "-o", "json")[0] == 0


@pytest.mark.parametrize(
    "words, status",
    [
        (["revoke"], 2),
        (["restore", "--volume", "x"], 2),
        (["revoke", "--host", "h", "--volume", "0" * 32], 3),
        (["revoke", "--initiator", "none"], 4),
        (["mend"], 2),
    ],
    ids=str,
)
def test_exit_statuses(run: Run, words: list[str], status: int) -> None:
    """What is wrong with a command shows in its exit status."""
    assert run(*words)[0] == status


def test_documents_are_whole(api: ApiClient, run: Run) -> None:
    """As JSON the commands print what the service answers."""
    initialize(api)
    done = json.loads(run("revoke", "--host", "h1", "-o", "json")[1])
    assert done["change"] == "changed"
    listed = json.loads(run("list", "-o", "json")[1])
    answer = msgspec.json.decode(api.get("/exports").text)
    assert listed == answer or {*listed} == {*answer}
