"""The authority: what it issues, what it refuses, and that it writes nothing over."""

from __future__ import annotations

import json
import ssl
import stat
from datetime import UTC, datetime, timedelta
from pathlib import Path

import pytest
from click.testing import CliRunner

from lunport.cli.pki import pki
from lunport.core.errors import AlreadyExists, InvalidConfig, InvalidInput
from lunport.core.host_name import parse_host_name, same_host
from lunport.host.tls import TlsFolder
from lunport.pki.authority import init_authority, issue, parse_holder, renew
from lunport.pki.summary import load_certificate, summarise

NOW = datetime(2026, 11, 28, 6, tzinfo=UTC)
HOLDER = parse_holder(["Node-A", "node-a.example"], ["127.0.0.1", "::1"])


@pytest.fixture
def authority(tmp_path: Path) -> Path:
    """An authority."""
    init_authority(tmp_path / "pki", "Tests", 3650, NOW)
    return tmp_path / "pki"


def _modes(folder: Path) -> dict[str, str]:
    return {one.name: stat.filemode(one.stat().st_mode) for one in folder.iterdir()}


def test_an_authority_and_what_it_issues(authority: Path, tmp_path: Path) -> None:
    """Keys are their owner's alone, names are as given, and Python's TLS takes both sides."""
    done = issue(authority, tmp_path / "a", HOLDER, 397, NOW)
    assert done.names == ("node-a", "node-a.example", "127.0.0.1", "::1")
    assert (done.issuer, done.days_left(NOW), done.is_authority) == ("CN=Tests", 397, False)
    assert _modes(authority) == {"ca.pem": "-rw-r--r--", "ca-key.pem": "-rw-------"}
    assert _modes(tmp_path / "a") == {
        "ca.pem": "-rw-r--r--",
        "certificate.pem": "-rw-r--r--",
        "key.pem": "-rw-------",
    }
    server = TlsFolder(tmp_path / "a").server_context()
    assert server.verify_mode is ssl.CERT_REQUIRED
    assert server.minimum_version is ssl.TLSVersion.TLSv1_2
    client = TlsFolder(tmp_path / "a").client_context()
    assert (client.check_hostname, client.verify_mode) == (True, ssl.CERT_REQUIRED)


def test_nothing_is_written_over(authority: Path, tmp_path: Path) -> None:
    """A folder with anything in it is left as it is; an empty one is taken."""
    (tmp_path / "a").mkdir()
    issue(authority, tmp_path / "a", HOLDER, 397, NOW)
    before = {file: file.read_bytes() for file in tmp_path.rglob("*.pem")}
    for folder in (tmp_path / "a", authority):
        with pytest.raises(AlreadyExists):
            issue(authority, folder, HOLDER, 397, NOW)
        with pytest.raises(AlreadyExists):
            init_authority(folder, "Tests", 3650, NOW)
    (tmp_path / "file").write_text("precious")
    with pytest.raises(AlreadyExists):
        init_authority(tmp_path / "file", "Tests", 3650, NOW)
    assert {file: file.read_bytes() for file in tmp_path.rglob("*.pem")} == before
    assert [one.name for one in tmp_path.iterdir() if one.name.startswith(".")] == []


def test_a_renewed_certificate_has_the_same_names_and_key(authority: Path, tmp_path: Path) -> None:
    """Only its time and its number are others; no moment has a key that does not fit."""
    old = issue(authority, tmp_path / "a", HOLDER, 10, NOW)
    key = (tmp_path / "a" / "key.pem").read_bytes()
    new = renew(authority, tmp_path / "a", 397, NOW + timedelta(days=9))
    assert new == summarise(load_certificate(tmp_path / "a" / "certificate.pem"))
    assert (new.names, new.days_left(NOW)) == (old.names, 406)
    assert new.serial != old.serial
    assert (tmp_path / "a" / "key.pem").read_bytes() == key
    assert TlsFolder(tmp_path / "a").stamp() != ()
    TlsFolder(tmp_path / "a").server_context()


def test_no_certificate_outlives_its_authority(tmp_path: Path) -> None:
    """It ends with the authority at the latest, and an expired authority signs nothing."""
    init_authority(tmp_path / "pki", "Tests", 100, NOW)
    done = issue(tmp_path / "pki", tmp_path / "a", HOLDER, 397, NOW)
    assert done.days_left(NOW) == 100
    with pytest.raises(InvalidInput, match="expired"):
        issue(tmp_path / "pki", tmp_path / "b", HOLDER, 1, NOW + timedelta(days=101))
    assert not (tmp_path / "b").exists()


def test_a_key_that_others_may_read_is_refused(authority: Path, tmp_path: Path) -> None:
    """By the authority and by TLS alike, with the command that mends it."""
    issue(authority, tmp_path / "a", HOLDER, 10, NOW)
    (tmp_path / "a" / "key.pem").chmod(0o640)
    with pytest.raises(InvalidConfig, match="chmod 600"):
        TlsFolder(tmp_path / "a").client_context()
    (authority / "ca-key.pem").chmod(0o604)
    with pytest.raises(InvalidConfig, match="chmod 600"):
        issue(authority, tmp_path / "b", HOLDER, 10, NOW)


def test_files_that_do_not_fit_are_told(authority: Path, tmp_path: Path) -> None:
    """Another's key, junk, nothing: each names the file."""
    issue(authority, tmp_path / "a", HOLDER, 10, NOW)
    issue(authority, tmp_path / "b", HOLDER, 10, NOW)
    (tmp_path / "a" / "key.pem").write_bytes((tmp_path / "b" / "key.pem").read_bytes())
    with pytest.raises(InvalidInput, match="another key"):
        renew(authority, tmp_path / "a", 10, NOW)
    with pytest.raises(InvalidConfig, match="key values mismatch"):
        TlsFolder(tmp_path / "a").client_context()
    (tmp_path / "a" / "certificate.pem").write_text("junk")
    with pytest.raises(InvalidInput, match="expected a certificate"):
        renew(authority, tmp_path / "a", 10, NOW)
    for folder in (tmp_path / "a", tmp_path / "nowhere"):
        with pytest.raises(InvalidConfig, match=folder.name):
            TlsFolder(folder).client_context()
    with pytest.raises(InvalidConfig):
        issue(tmp_path / "nowhere", tmp_path / "c", HOLDER, 10, NOW)


@pytest.mark.parametrize("name", ["", "a b", "-a", "a..b", "*.example", "a" * 64, "x/../y", 5])
def test_names_that_are_none(name: object) -> None:
    """Wildcards and whatever else is no host's name are refused."""
    with pytest.raises(InvalidInput):
        parse_host_name(name)


def test_names_have_no_case() -> None:
    """A host is the same however it is spelled, and nobody is not somebody."""
    assert same_host("Node-A", "node-a")
    assert not same_host("node-a", "node-b")
    assert not same_host(None, None)


def test_addresses_and_days_are_checked(tmp_path: Path) -> None:
    """What cannot be in a certificate is refused before anything is written."""
    with pytest.raises(InvalidInput, match="address"):
        parse_holder(["a"], ["10.0.0.300"])
    with pytest.raises(InvalidInput):
        parse_holder([])
    for days in (0, 36501):
        with pytest.raises(InvalidInput, match="days"):
            init_authority(tmp_path / "pki", "x", days, NOW)
    with pytest.raises(InvalidInput, match="name"):
        init_authority(tmp_path / "pki", "", 1, NOW)
    assert list(tmp_path.iterdir()) == []


def test_the_commands(tmp_path: Path) -> None:
    """An authority, a host, a look, and a renewal, by the command line."""
    runner, ca, out = CliRunner(), str(tmp_path / "pki"), str(tmp_path / "a")
    assert runner.invoke(pki, ["init", "--pki", ca]).exit_code == 0
    words = ["issue", "--pki", ca, "--host", "node-a", "--out", out, "--days", "20"]
    assert "node-a" in runner.invoke(pki, words).output
    shown = runner.invoke(pki, ["show", out])
    assert "renew      soon" in shown.output
    assert "key" not in shown.output
    made = runner.invoke(pki, ["renew", out, "--pki", ca, "-o", "json"])
    assert json.loads(made.output)["names"] == ["node-a"]
    assert isinstance(runner.invoke(pki, words).exception, AlreadyExists)
    assert isinstance(runner.invoke(pki, ["show", str(tmp_path)]).exception, InvalidConfig)
