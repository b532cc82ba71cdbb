"""Tests of ``lunport probe`` against a real tgtd: what it prints, and its exit status."""

from __future__ import annotations

import json
from collections.abc import Callable
from pathlib import Path

import pytest

from lunport.cli.main import main
from lunport.core.connection_info import ConnectionInfo, format_connection_info
from lunport.core.target_path import TargetPath
from lunport.core.wwid import Wwid
from tests.daemons.conftest import CHAP, INITIATOR, OTHER_INITIATOR, RunningTgtd, free_portals
from tests.single_exports import unit_of

SECRET = "Secret4Tests1234"
Probe = Callable[..., tuple[int, str]]


@pytest.fixture
def probe(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> Probe:
    """Run the command in this process; give its exit status and all it printed."""
    monkeypatch.setenv("LUNPORT_HOST_ROOT", str(tmp_path / "host"))

    def run(*words: str, initiator: str = INITIATOR) -> tuple[int, str]:
        with pytest.raises(SystemExit) as ended:
            main(["probe", "--initiator", initiator, "--timeout", "10", *words])
        printed = capsys.readouterr()
        assert SECRET not in printed.out + printed.err
        return int(ended.value.code or 0), printed.out + printed.err

    return run


@pytest.fixture
def secret_file(tmp_path: Path) -> Path:
    """The right secret, as an editor leaves it."""
    file = tmp_path / "secret"
    file.write_text(SECRET + "\n")
    return file


def test_a_portal_alone_lists_its_targets(tgtd: RunningTgtd, probe: Probe) -> None:
    """With a portal alone the targets are listed, for those who may see them."""
    export = tgtd.export(chap=None)
    tgtd.helper.export(export)
    portal = str(tgtd.portals[0])
    assert probe(portal) == (0, f"{portal},1 {export.iqn}\n")
    status, said = probe(portal, "-o", "json")
    assert status == 0
    assert json.loads(said) == [{"portal": portal, "tpgt": 1, "iqn": export.iqn}]
    assert probe(portal, initiator=OTHER_INITIATOR)[1].startswith("The portal answers, and shows")


def test_a_unit_is_looked_at(tgtd: RunningTgtd, probe: Probe, secret_file: Path) -> None:
    """With target, LUN and credentials the unit's identity and size are shown."""
    export = tgtd.export(chap=CHAP)
    tgtd.helper.export(export)
    words = [str(tgtd.portals[1]), "--iqn", export.iqn, "--lun", "1"]
    words += ["--chap-user", "userfortests", "--chap-password-file", str(secret_file)]
    status, said = probe(*words, "--wwid", unit_of(export).identity.wwid)
    assert status == 0, said
    assert said.startswith(f"{tgtd.portals[1]}  reachable\n")
    assert unit_of(export).identity.wwid in said
    assert "16777216 bytes" in said
    status, said = probe(*words, "-o", "json")
    fields = json.loads(said)
    assert (fields["verdict"], fields["size_bytes"]) == ("reachable", 16777216)


def test_exit_statuses(tgtd: RunningTgtd, probe: Probe, tmp_path: Path, secret_file: Path) -> None:
    """What is wrong is told by the verdict and by the exit status."""
    export = tgtd.export(chap=CHAP)
    tgtd.helper.export(export)
    wrong = tmp_path / "wrong"
    wrong.write_text("NotTheSecret1234")
    target = [str(tgtd.portals[0]), "--iqn", export.iqn]
    chap = ["--chap-user", "userfortests", "--chap-password-file"]
    right = [*target, *chap, str(secret_file)]
    (refusing,) = free_portals("127.0.0.1")
    cases = [
        (6, "chap-rejected", [*target, *chap, str(wrong)]),
        (3, "target-unknown", [*target[:2], "iqn.2026-11.io.lunport.test:nothing"]),
        (3, "lun-absent", [*right, "--lun", "9"]),
        (9, "wrong-identity", [*right, "--lun", "1", "--wwid", "naa.6" + "0" * 31]),
        (5, "refused", [str(refusing), "--iqn", export.iqn]),
        (5, "refused", [str(refusing)]),
    ]
    for status, verdict, words in cases:
        found, said = probe(*words)
        assert (found, verdict in said) == (status, True), (words, said)


def test_bad_usage(probe: Probe, secret_file: Path) -> None:
    """What cannot be meant is refused in one line, before anything is sent."""
    here = "127.0.0.1"
    for words in (
        [],
        [here, "--connection-info", str(secret_file)],
        [here, "--lun", "1"],
        [here, "--iqn", "iqn.2026-11.a:b", "--wwid", "naa.6" + "0" * 31],
        [here, "--iqn", "not a name"],
        [here, "--iqn", "iqn.2026-11.a:b", "--lun", "16384"],
        ["127.0.0.1:99999"],
        [here, "--chap-user", "u"],
        [here, "--mutual-user", "u", "--mutual-password-file", str(secret_file)],
        [here, "--timeout", "nan"],
        ["--connection-info", str(secret_file)],
    ):
        status, said = probe(*words)
        assert (status, "Traceback" in said) == (2, False), (words, said)


def test_a_connection_info_gives_the_choice(
    tgtd: RunningTgtd, probe: Probe, tmp_path: Path
) -> None:
    """With a connection info the path used, those not used and the URI are shown."""
    export = tgtd.export(chap=CHAP)
    tgtd.helper.export(export)
    (refusing,) = free_portals("127.0.0.1")
    portals = (refusing, *tgtd.portals)
    info = ConnectionInfo(
        paths=tuple(TargetPath(portal, export.iqn, 1) for portal in portals),
        chap=CHAP,
        wwid=Wwid(unit_of(export).identity.wwid),
    )
    file = tmp_path / "info.json"
    file.write_text(json.dumps(format_connection_info(info, multipath=False)))
    file.chmod(0o600)
    uri = f"iscsi://{tgtd.portals[0]}/{export.iqn}/1"
    status, said = probe("--connection-info", str(file))
    assert status == 0, said
    lines = said.splitlines()
    assert lines[0] == f"use       {tgtd.portals[0]} {export.iqn} lun 1"
    assert lines[1].startswith(f"not used  {refusing} {export.iqn} lun 1: refused: ")
    assert lines[2].startswith(f"not used  {tgtd.portals[1]} {export.iqn} lun 1: not tried")
    assert lines[-1].split() == ["uri", uri]
    status, said = probe("--connection-info", str(file), "-o", "json")
    fields = json.loads(said)
    assert (status, fields["uri"], fields["used"]["portal"]) == (0, uri, str(tgtd.portals[0]))
    assert len(fields["unused"]) == 2
    assert f"portal={tgtd.portals[0]},target={export.iqn},lun=1" in fields["qemu"]
    assert fields["qemu"].endswith(f"user={CHAP.initiator.username},password-secret=chap")
    assert CHAP.initiator.password.reveal() not in said


def test_no_path_of_a_connection_info(probe: Probe, tmp_path: Path) -> None:
    """When no path can be used each is told with its error."""
    portals = free_portals("127.0.0.1", "127.0.0.2")
    data = {
        "target_portals": [str(portal) for portal in portals],
        "target_iqns": ["iqn.2026-11.io.lunport.test:nothing"] * 2,
        "target_luns": [1, 1],
    }
    file = tmp_path / "info.json"
    file.write_text(json.dumps({"driver_volume_type": "iscsi", "data": data}))
    status, said = probe("--connection-info", str(file))
    assert status == 5
    assert [str(portal) in said for portal in portals] == [True, True]
    status, said = probe("--connection-info", str(file), "-o", "json")
    assert (status, len(json.loads(said)["errors"])) == (5, 2)
