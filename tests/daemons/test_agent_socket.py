"""``lunport agent`` as a process: its socket, its lock, its end, and bad company."""

from __future__ import annotations

import contextlib
import json
import signal
import socket
import stat
import subprocess
import threading
from collections.abc import Iterator
from dataclasses import replace
from pathlib import Path

import pytest

from lunport.client.agent import AgentSocket
from lunport.core.connection_info import parse_connection_info
from lunport.core.errors import AgentUnavailable
from lunport.host.clock import Deadline
from lunport.initiator.journal import Journal
from tests.daemons.agent_process import LUNPORT, AgentProcess
from tests.daemons.conftest import free_portals
from tests.fakes.journal_initiator import make_entry

WAIT_S = 30.0
SECRET = "Secret4Tests1234"

pytestmark = pytest.mark.needs("root")


@pytest.fixture
def agent(tmp_path: Path) -> Iterator[AgentProcess]:
    """An agent that listens."""
    one = AgentProcess(tmp_path)
    one.start()
    yield one
    if one.process is not None and one.process.poll() is None:
        one.end(signal.SIGKILL)
    assert SECRET not in one.log.read_text()


def _info(portal: object) -> dict[str, object]:
    return {
        "target_portal": str(portal),
        "target_iqn": "iqn.2026-11.io.lunport.test:nobody",
        "target_lun": 1,
        "auth_method": "CHAP",
        "auth_username": "u",
        "auth_password": SECRET,
        "volume_id": "volume-1",
        "wwid": "naa.60014050000000000000000000000001",
    }


def test_an_empty_host(agent: AgentProcess) -> None:
    """A host without volumes is healthy and has no paths, and the commands say so as without."""
    status, health = agent.ask("GET", "/v1/health")
    assert agent.process is not None
    assert (status, health["pid"], health["returning"]) == (200, agent.process.pid, [])
    assert agent.ask("GET", "/v1/paths") == (200, {"volumes": []})
    assert agent.ask("GET", "/v1/connections") == (200, {"connections": []})
    through = [agent.run("host", "list", "-o", "json"), agent.run("host", "paths")]
    assert agent.end() == 0
    assert through == [agent.run("host", "list", "-o", "json"), agent.run("host", "paths")]


def test_the_socket_is_root_s_alone(agent: AgentProcess) -> None:
    """Mode 0600, whatever the umask; gone with the agent, and with it the lock."""
    assert stat.filemode(agent.path.stat().st_mode) == "srw-------"
    assert agent.path.stat().st_uid == 0
    assert agent.end() == 0
    assert not agent.path.exists()
    assert list((agent.folder / "run" / "locks").iterdir()) == []


def test_one_agent_for_a_host(agent: AgentProcess) -> None:
    """A second one is refused with one line, and disturbs the first in nothing."""
    status, said, error = agent.run("agent")
    assert (status, said, error.count("\n")) == (4, "", 1)
    assert str(agent.path) in error
    assert agent.ask("GET", "/v1/health")[0] == 200
    assert agent.end() == 0


def test_a_killed_agent_is_followed_by_another(agent: AgentProcess) -> None:
    """A socket that nobody listens on is replaced, and until then commands do without."""
    agent.end(signal.SIGKILL)
    assert agent.path.exists()
    assert not AgentSocket(agent.path).answers(Deadline.after(WAIT_S))
    assert agent.run("host", "list") == (0, "Nothing is connected.\n", "")
    agent.start()
    assert agent.ask("GET", "/v1/health")[0] == 200
    assert agent.end() == 0
    assert not agent.path.exists()


def test_a_file_in_the_socket_s_place_is_left(tmp_path: Path) -> None:
    """What is no socket is not removed, and the agent says what is in its way."""
    one = AgentProcess(tmp_path)
    one.path.parent.mkdir()
    one.path.write_text("precious")
    status, _, error = one.run("agent")
    assert (status, error.count("\n"), one.path.read_text()) == (4, 1, "precious")


@pytest.mark.parametrize("signum", [signal.SIGTERM, signal.SIGINT, signal.SIGHUP])
def test_any_signal_ends_it_once(agent: AgentProcess, signum: signal.Signals) -> None:
    """Later signals do not disturb the end."""
    assert agent.process is not None
    for _ in range(2):
        agent.process.send_signal(signum)
    assert agent.end(signum) == 0
    assert not agent.path.exists()


def test_errors_are_the_same_with_and_without(agent: AgentProcess) -> None:
    """A connect that fails says the same, with the same status, and leaves nothing."""
    portal = free_portals("127.0.0.1")[0]
    text = json.dumps(_info(portal))
    words = ("host", "connect", "--connection-info", "-", "--no-multipath")
    status, said, error = agent.run(*words, text=text)
    assert (status, said) == (5, "")
    assert f"{portal}" in error
    assert "connect_failed volume=volume-1" in agent.log.read_text()
    gone = agent.run("host", "extend", "--connection-info", "-", text=text)
    assert gone[0] == 3
    assert agent.end() == 0
    again, _, other = agent.run(*words, text=text)
    assert (again, other.partition(", after")[0]) == (5, error.partition(", after")[0])
    assert agent.run("host", "extend", "--connection-info", "-", text=text) == gone
    assert Journal(agent.folder / "state").connections() == ()


def test_bad_bodies(agent: AgentProcess) -> None:
    """Bodies that can't be read are told, and the next request is served."""
    bodies: list[object] = [{}, [], "x", {"connection_info": {"target_lun": SECRET}}]
    for body in bodies:
        status, answer = agent.ask("POST", "/v1/connect", body)
        assert (status, answer["error"]["exit_code"]) == (400, 2)
    for said in (b"\x00\xff\r\n\r\n", b"POST /v1/connect HTTP/1.1\r\nContent-Length: x\r\n\r\n"):
        with contextlib.closing(agent.connection()) as one:
            one.sendall(said)
            assert b" 400 " in one.recv(4096)
    assert agent.ask("GET", "/v1/health")[0] == 200


def test_silent_clients_block_nobody(agent: AgentProcess) -> None:
    """More silent connections than there are threads, some within a request, and it answers."""
    with contextlib.ExitStack() as stack:
        for _ in range(80):
            stack.enter_context(contextlib.closing(agent.connection()))
        for _ in range(8):
            one = stack.enter_context(contextlib.closing(agent.connection()))
            one.sendall(b"POST /v1/connect HTTP/1.1\r\nHost: x\r\nContent-Length: 500\r\n\r\n{")
        assert AgentSocket(agent.path).answers(Deadline.after(WAIT_S))
        assert agent.run("host", "list")[0] == 0


class _Deaf:
    """Somebody who listens at a path and takes requests, but says little or nothing."""

    def __init__(self, path: Path, drip: bytes = b"") -> None:
        self._socket = socket.socket(socket.AF_UNIX)
        self._socket.bind(str(path))
        self._socket.listen(8)
        self._drip = drip
        self._over = threading.Event()
        self._thread = threading.Thread(target=self._speak)

    def __enter__(self) -> None:
        self._thread.start()

    def __exit__(self, *_: object) -> None:
        self._over.set()
        self._socket.shutdown(socket.SHUT_RDWR)
        self._thread.join()
        self._socket.close()

    def _speak(self) -> None:
        with contextlib.suppress(OSError):
            one, _ = self._socket.accept()
            with contextlib.closing(one):
                while not self._over.wait(0.01):
                    one.sendall(self._drip)


@pytest.mark.parametrize("drip", [b"", b"H", b"HTTP/1.1 200 OK\r\nContent-Length: 9000\r\n\r\n"])
def test_the_client_keeps_its_deadline(tmp_path: Path, drip: bytes) -> None:
    """An agent that says nothing, or a little again and again, is given up in time."""
    path = tmp_path / "agent.sock"
    with _Deaf(path, drip), pytest.raises(AgentUnavailable, match=r"did not answer within 0\.3 s"):
        AgentSocket(path).ask("GET", "/v1/paths", None, Deadline.after(0.3))


def test_commands_do_without_an_agent_that_hangs(agent: AgentProcess) -> None:
    """One that was stopped answers nobody, and the command does it in its own process."""
    assert agent.process is not None
    agent.process.send_signal(signal.SIGSTOP)
    try:
        assert agent.run("host", "list") == (0, "Nothing is connected.\n", "")
    finally:
        agent.process.send_signal(signal.SIGCONT)
    assert agent.ask("GET", "/v1/health")[0] == 200


def test_a_connect_under_way_ends_with_the_agent(agent: AgentProcess) -> None:
    """SIGTERM waits some seconds for what is being done, and no longer; no entry is left."""
    with socket.create_server(("127.0.0.1", 0)) as silent:
        address, port = silent.getsockname()
        text = json.dumps(_info(f"{address}:{port}"))
        with subprocess.Popen(
            [*LUNPORT, "host", "connect", "--connection-info", "-", "--timeout", "600"],
            env=agent.environment,
            stdin=subprocess.PIPE,
            stdout=subprocess.PIPE,
            stderr=subprocess.PIPE,
            text=True,
        ) as command:
            assert command.stdin is not None
            command.stdin.write(text)
            command.stdin.close()
            silent.settimeout(WAIT_S)
            asked, _ = silent.accept()
            with contextlib.closing(asked):
                assert agent.end() == 0
                assert command.wait(WAIT_S) == 5 or command.returncode == 7
    assert not agent.path.exists()
    assert Journal(agent.folder / "state").connections() == ()


def test_what_was_connected_before_a_reboot_is_wanted(tmp_path: Path) -> None:
    """An entry of an earlier boot is tried again and again, listed, and let go when asked."""
    one = AgentProcess(tmp_path)
    journal = Journal(tmp_path / "state")
    portal = free_portals("127.0.0.1")[0]
    info = parse_connection_info(_info(portal))
    entry = replace(make_entry(info, "an-earlier-boot"), holders=("a-1",))
    journal.write(entry)
    journal.write_chap(entry.key, info.chap)
    one.start()
    try:
        deadline = Deadline.after(WAIT_S)
        pause = threading.Event()
        why = None
        while why is None:
            assert not deadline.has_passed(), one.log.read_text()
            pause.wait(0.02)
            why = one.ask("GET", "/v1/health")[1]["returning"][0]["why"]
        assert str(portal) in why
        assert "not_connected_again" in one.log.read_text()
        (listed,) = json.loads(one.run("host", "list", "-o", "json")[1])["connections"]
        assert listed["key"] == entry.key
        status, shown, _ = one.run("host", "paths")
        assert status == 8
        assert str(portal) in shown
        status, said, _ = one.run("host", "recover", "--dry-run")
        assert (status, said.split()[:2]) == (0, ["would", "Connect"])
        status, said, _ = one.run("host", "recover", "-o", "json")
        lines = json.loads(said)["actions"]
        assert status == 1
        assert [line["outcome"] for line in lines if entry.key in line["sentence"]] == [
            "seen",
            "failed",
        ]
        assert journal.get(entry.key) == entry
        words = ("host", "disconnect", "--connection-info", "-", "--force")
        status, said, error = one.run(*words, text=json.dumps(_info(portal)))
        assert (status, said, error) == (0, "Disconnected.\n", "")
        assert one.ask("GET", "/v1/health")[1]["returning"] == []
    finally:
        assert one.end() == 0
    assert journal.connections() == ()
    assert journal.chap(entry.key) is None
    assert SECRET not in one.log.read_text()


def test_options_of_the_agent(tmp_path: Path) -> None:
    """A policy that can't be is refused before anything starts."""
    one = AgentProcess(tmp_path)
    for words in (["--ready", "none"], ["--queue-s", "nan"], ["--stall", "slow"]):
        assert one.run("agent", *words)[0] == 2
    assert not one.path.exists()
    one.start("--ready", "all", "--queue-s", "0", "--stall", "fast", "--resilient", "--json-logs")
    assert one.end() == 0
