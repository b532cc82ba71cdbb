"""How a service comes and goes: signals, addresses, folders, tokens, and what it leaves."""

from __future__ import annotations

import os
import signal
import stat
import threading
from collections.abc import Callable
from pathlib import Path

import pytest
from click.testing import CliRunner

from lunport.cli.token import token as token_command
from lunport.config import load_config
from lunport.core.errors import InvalidConfig
from lunport.host.clock import Deadline
from tests.daemons.service_process import WAIT_S, ServiceProcess, ask_at

pytestmark = pytest.mark.needs("tgtd")

_pause = threading.Event()


def _file(path: Path) -> None:
    path.parent.mkdir(parents=True, exist_ok=True)
    path.write_text("")


def _folder(path: Path) -> None:
    path.mkdir(parents=True)


@pytest.mark.parametrize(
    ("make", "inside", "status"),
    [
        (_file, ".", 2),
        (_folder, "lock", 2),
        (_folder, "service-token", 2),
        (_file, "service-token", 2),
        (_folder, "lunport.sqlite", 2),
        (_file, "backends/local/target", 5),
    ],
)
def test_a_data_directory_that_cannot_be_used_is_refused(
    tmp_path: Path, make: Callable[[Path], None], inside: str, status: int
) -> None:
    """One line that names the path, an exit status, and nothing is left running."""
    data_dir = tmp_path / "a" / "b" if inside == "." else tmp_path / "data"
    make(tmp_path / "a" if inside == "." else data_dir / inside)
    found, said = ServiceProcess(tmp_path, data_dir=data_dir).refusal()
    assert found == status
    assert said.count("\n") == 1
    assert str(data_dir) in said


def test_a_path_that_means_something_in_a_url_is_a_path(tmp_path: Path) -> None:
    """The database of ``%41 #b?c`` lies there and nowhere else."""
    with ServiceProcess(tmp_path, data_dir=tmp_path / "%41 #b?c" / "data") as service:
        service.connect(service.create())
        assert (service.data_dir / "lunport.sqlite").stat().st_size > 0
    assert {path.name for path in tmp_path.iterdir()} == {"%41 #b?c", "log", "lunport.toml"}


def test_a_path_that_tgtd_cannot_take_is_refused_at_the_start(tmp_path: Path) -> None:
    """A comma would make every attachment fail, so the service does not even start."""
    status, said = ServiceProcess(tmp_path, data_dir=tmp_path / "a,b").refusal()
    assert (status, said.count("\n")) == (2, 1)
    assert "comma" in said


@pytest.mark.parametrize(
    ("text", "names"),
    [
        ("[backend.a]\nover_subscription_ratio = nan", "backend.a.over_subscription_ratio"),
        ("[backend.a]\nover_subscription_ratio = inf", "backend.a.over_subscription_ratio"),
        ("[backend.a]\nreserve_mib = -1", "backend.a.reserve_mib"),
        ('[backend.a]\n[backend.b]\nportals = "x"', "backend.b.portals"),
        ('[service]\nhost = "a@b#c"', "service.host"),
        ('[service]\nzone = ""', "service.zone"),
    ],
)
def test_a_setting_that_cannot_be_is_named(tmp_path: Path, text: str, names: str) -> None:
    """The error says which setting of which backend it is."""
    file = tmp_path / "lunport.toml"
    file.write_text(text)
    with pytest.raises(InvalidConfig, match=names):
        load_config(file)


def test_a_signal_ends_a_start_with_all_that_it_began(tmp_path: Path) -> None:
    """SIGTERM while the target daemon comes up leaves no daemon."""
    service = ServiceProcess(tmp_path)
    service.launch()
    deadline = Deadline.after(WAIT_S)
    while not (service.target / "tgtd.json").exists() and not deadline.has_passed():
        _pause.wait(0.001)
    service.send(signal.SIGTERM)
    assert service.wait() == 0


@pytest.mark.parametrize("signum", [signal.SIGTERM, signal.SIGINT, signal.SIGHUP])
def test_later_signals_do_not_disturb_the_end(tmp_path: Path, signum: signal.Signals) -> None:
    """Any of the three ends the service and its idle daemon, sent three times as well."""
    with ServiceProcess(tmp_path) as service:
        for _ in range(3):
            service.send(signum)
            _pause.wait(0.05)
        assert service.wait() == 0
        assert not (service.target / "tgtd.json").exists()


def test_a_unix_socket_is_for_its_owner_and_goes_with_the_service(tmp_path: Path) -> None:
    """Mode 0600 whatever the umask; the file is there as long as the service."""
    path = tmp_path / "api.sock"
    with ServiceProcess(tmp_path, listen=f"unix:{path}") as service:
        assert ask_at(path) == 200
        assert stat.filemode(path.stat().st_mode) == "srw-------"
        service.stop()
        assert not path.exists()


def test_a_unix_socket_is_taken_from_nobody(tmp_path: Path) -> None:
    """One that is listened on and a file of another kind are refused; a dead one is replaced."""
    path = tmp_path / "api.sock"
    with ServiceProcess(tmp_path / "a", listen=f"unix:{path}") as first:
        status, said = ServiceProcess(tmp_path / "b", listen=f"unix:{path}").refusal()
        assert (status, said.count("\n")) == (4, 1)
        assert ask_at(path) == 200
        first.stop(signal.SIGKILL)
        first.start()
        assert ask_at(path) == 200
        first.stop()
    path.write_text("precious")
    status, _ = ServiceProcess(tmp_path / "c", listen=f"unix:{path}").refusal()
    assert (status, path.read_text()) == (4, "precious")


def test_a_service_manager_of_somebody_else_is_not_listened_to(tmp_path: Path) -> None:
    """``LISTEN_PID`` in the environment does not make descriptor 3 the API's socket."""
    service = ServiceProcess(tmp_path)
    try:
        service.start(environment={"LISTEN_PID": "1", "LISTEN_FDS": "1"})
        assert service.ask("GET", "/p/volumes")[0] == 200
    finally:
        service.end()


def _make_token(user: str, project: str) -> tuple[str, str]:
    done = CliRunner().invoke(token_command, ["--user", user, "--project", project])
    assert done.exit_code == 0
    return done.stdout, done.stderr.split()[-1]


def test_a_token_that_was_made_lets_its_bearer_into_its_project_alone(tmp_path: Path) -> None:
    """The entry holds no token; another project's volume is not there, a wrong token is 401."""
    (entry, ours), (other_entry, theirs) = _make_token("a", "p"), _make_token("b", "q")
    assert ours not in entry
    tokens = tmp_path / "tokens.toml"
    tokens.write_text(entry + other_entry)
    settings = f'auth = "token"\ntokens = "{tokens}"'
    with ServiceProcess(tmp_path, service=settings) as service:
        status, made = service.ask("POST", "/p/volumes", {"volume": {"size": 1}}, token=ours)
        assert status == 202
        volume = f"/volumes/{made['volume']['id']}"
        assert service.ask("GET", f"/p{volume}", token=ours)[0] == 200
        assert service.ask("GET", f"/q{volume}", token=theirs)[0] == 404
        assert service.ask("GET", f"/p{volume}", token=theirs)[0] == 400
        for wrong in ("", "x", ours + "x"):
            assert service.ask("GET", f"/p{volume}", token=wrong)[0] == 401
        for secret in (ours, theirs):
            assert secret not in service.log_text
            assert secret.encode() not in Path(f"/proc/{os.getpid()}/cmdline").read_bytes()
