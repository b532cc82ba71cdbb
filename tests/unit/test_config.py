"""What a mistake in the configuration is answered with."""

from __future__ import annotations

from pathlib import Path

import pytest

from lunport.api.auth import read_tokens
from lunport.bootstrap.listener import bind_reason, parse_listener
from lunport.config import load_config
from lunport.core.errors import InvalidConfig


@pytest.mark.parametrize(
    ("text", "reason"),
    [
        (
            '[service]\nlisen = "x"',
            (
                "there is no key service.lisen; known here: listen, auth, tokens, host, zone,"
                " default_backend, threads, workers, on_stop, tls_listen, tls"
            ),
        ),
        ("fast = 1", "there is no key fast; known here: service, backend"),
        ('[service]\nauth = "noen"', "service.auth is 'noen'; expected 'none' or 'token'"),
        (
            '[service]\nthreads = "12"',
            "service.threads: expected a whole number, got a string",
        ),
        ("backend = 1", "backend: expected a table, got a whole number"),
        (
            '[backend.slow]\n[backend.fast]\nportals = "10.0.0.1"',
            "backend.fast.portals: expected a list, got a string",
        ),
        (
            "[backend.fast]\nportals = [1]",
            "backend.fast.portals[0]: expected a string, got a whole number",
        ),
        (
            '[backend.fast]\nchap = "no"',
            "backend.fast.chap: expected true or false, got a string",
        ),
        (
            '[backend.fast]\nreserve_mib = "1"',
            "backend.fast.reserve_mib: expected a whole number, got a string",
        ),
        (
            '[backend.fast]\nportal_order = "random"',
            "backend.fast.portal_order is 'random'; expected 'fixed' or 'rotate' or 'least_loaded'",
        ),
        ('[backend.fast]\ndriver = "lvm"', 'driver = "lvm" needs it'),
        (
            '[backend.fast]\nvolume_group = "vg"',
            'only a backend of driver = "lvm" has it',
        ),
        (
            '[backend.fast]\ndriver = "lvm"\nvolume_group = "vg"\ndirectory = "/d"',
            'only a backend of driver = "file" has it',
        ),
        (
            '[backend.fast]\ndriver = "lvm"\nvolume_group = "vg"\nlvm_type = "fat"',
            "backend.fast.lvm_type is 'fat'; expected 'auto' or 'thin' or 'thick'",
        ),
        (
            '[backend.fast]\ndriver = "lvm"\nvolume_group = "vg"\nclear_mib_per_s = -1',
            "at least 0",
        ),
    ],
)
def test_a_mistake_is_named_by_its_key_and_what_would_do(
    tmp_path: Path, text: str, reason: str
) -> None:
    """A wrong key or value is named as it stands in the file, with what would be right."""
    file = tmp_path / "lunport.toml"
    file.write_text(text)
    with pytest.raises(InvalidConfig) as caught:
        load_config(file)
    assert caught.value.reason == reason


def test_a_later_file_wins_key_by_key(tmp_path: Path) -> None:
    """``conf.d`` is read in the order of its names, and what it does not say stays."""
    (tmp_path / "lunport.toml").write_text('[service]\nzone = "a"\nthreads = 3')
    extra = tmp_path / "conf.d"
    extra.mkdir()
    (extra / "20.toml").write_text('[service]\nzone = "c"')
    (extra / "10.toml").write_text('[service]\nzone = "b"')
    service = load_config(tmp_path / "lunport.toml").service
    assert (service.zone, service.threads) == ("c", 3)


@pytest.mark.parametrize(
    ("text", "address"),
    [
        ("127.0.0.1", "http://127.0.0.1:8776"),
        ("[::1]", "http://[::1]:8776"),
        ("::1", "http://[::1]:8776"),
        ("[::1]:80", "http://[::1]:80"),
        ("localhost:80", "http://localhost:80"),
        ("unix:/run/api.sock", "unix:/run/api.sock"),
    ],
)
def test_the_port_of_block_storage_is_assumed(text: str, address: str) -> None:
    """An address to listen on without a port gets 8776, never iSCSI's."""
    assert str(parse_listener(text)) == address


@pytest.mark.parametrize("text", ["", "localhost:", "[::1", "::1]", "[]", "unix:api.sock"])
def test_no_address_to_listen_on(text: str) -> None:
    """What is no address is refused."""
    with pytest.raises(InvalidConfig):
        parse_listener(text)


def test_an_address_that_is_taken_is_said_in_a_few_words() -> None:
    """Of the HTTP server's long sentence the reasons remain, each once."""
    tried = "(('127.0.0.1', 8776): [Errno 98] Address already in use)"
    error = OSError(f"No socket could be created -- {tried} -- {tried}")
    assert bind_reason(error) == "Address already in use"


def test_an_unknown_name_to_listen_on_keeps_its_reason() -> None:
    """An error that has a reason of its own is told by it."""
    assert bind_reason(OSError(-2, "Name or service not known")) == "Name or service not known"


def test_a_token_file_that_is_not_there_is_said_once(tmp_path: Path) -> None:
    """The path is in the sentence once, and so is the reason."""
    missing = tmp_path / "tokens.toml"
    with pytest.raises(InvalidConfig) as caught:
        read_tokens(missing)
    assert caught.value.reason == "No such file or directory"
