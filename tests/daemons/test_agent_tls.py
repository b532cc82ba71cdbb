"""The agent's API for other hosts: who is let in, who is told what, and who can't hold it up."""

from __future__ import annotations

import contextlib
import shutil
import signal
import socket
import ssl
import threading
from collections.abc import Iterator
from pathlib import Path

import pytest

from lunport.client.agent import AgentPeer
from lunport.core.errors import AgentUnavailable, NotAllowed, NotTrusted
from lunport.host.clock import Deadline
from lunport.host.tls import TlsFolder
from tests.daemons.agent_process import AgentProcess
from tests.daemons.conftest import free_portals
from tests.fakes.certificates import Authority

WAIT_S = 30.0

pytestmark = pytest.mark.needs("root")


class Hosts:
    """An agent of host ``node-b`` that answers by TLS, and the certificates of all."""

    def __init__(self, folder: Path) -> None:
        self.authority = Authority.make(folder / "ours")
        self.others = Authority.make(folder / "others", "Others")
        self.port = free_portals("127.0.0.1")[0].port
        self.agent = AgentProcess(folder)
        self.tls = self.authority.issue("node-b")

    def start(self) -> None:
        """Start the agent."""
        listen = f"127.0.0.1:{self.port}"
        tls = str(self.tls.path)
        self.agent.start("--listen", listen, "--tls", tls, "--host-name", "node-b")

    def peer(self, tls: TlsFolder, host: str = "node-b") -> AgentPeer:
        """Make a client that shows a certificate."""
        return AgentPeer(host, tls, port=self.port, at="127.0.0.1")

    def until_logged(self, words: str) -> None:
        """Wait until the agent's log holds these words: it is written behind the answer."""
        deadline, pause = _soon(), threading.Event()
        while words not in self.agent.log.read_text():
            assert not deadline.has_passed(), self.agent.log.read_text()
            pause.wait(0.02)

    def plain(self, stack: contextlib.ExitStack) -> socket.socket:
        """Open a connection that speaks no TLS yet."""
        return stack.enter_context(socket.create_connection(("127.0.0.1", self.port), WAIT_S))


def _soon() -> Deadline:
    return Deadline.after(WAIT_S)


@pytest.fixture(scope="module")
def hosts(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Hosts]:
    """One agent for all tests of this file; none may harm it."""
    made = Hosts(tmp_path_factory.mktemp("tls"))
    made.start()
    yield made
    assert made.agent.end() == 0
    text = made.agent.log.read_text()
    assert "PRIVATE KEY" not in text
    assert "Traceback" not in text


def test_peers_know_each_other(hosts: Hosts) -> None:
    """Each learns the other's name from its certificate, and sees that it is well."""
    peer = hosts.peer(hosts.authority.issue("node-a"))
    said = peer.identity(_soon())
    assert (said.host, said.peers) == ("node-b", ("node-a",))
    assert peer.answers(_soon())


@pytest.mark.parametrize(
    ("method", "path"),
    [
        ("POST", "/v1/connect"),
        ("POST", "/v1/disconnect"),
        ("POST", "/v1/recover"),
        ("GET", "/v1/connections"),
        ("GET", "/v1/paths"),
        ("GET", "/metrics"),
        ("POST", "/v1/health/../connect"),
    ],
)
def test_a_peer_may_ask_next_to_nothing(hosts: Hosts, method: str, path: str) -> None:
    """What is this host's own is refused to another host, whatever the certificate."""
    with pytest.raises(NotAllowed, match="for other hosts"):
        hosts.peer(hosts.authority.issue("node-a")).ask(method, path, b"{}", _soon())


def test_who_is_not_trusted_is_told_why(hosts: Hosts) -> None:
    """Another authority, an expired certificate, one not valid yet: each side says which."""
    ours, others = hosts.authority, hosts.others
    for tls, words in (
        (ours.believed_by(others.issue("node-a")), "does not know the authority"),
        (ours.expired("node-a"), "has expired"),
        (ours.not_yet("node-a"), "refuses our certificate"),
    ):
        with pytest.raises(NotTrusted, match=words) as raised:
            hosts.peer(tls).ask("GET", "/v1/health", None, _soon())
        assert "node-b" in str(raised.value)
    for reason in ("not known here", "has expired", "not valid yet"):
        hosts.until_logged(reason)


def test_a_client_checks_whom_it_speaks_to(hosts: Hosts) -> None:
    """Another host's certificate, and another authority's, end the call before the request."""
    ours, others = hosts.authority, hosts.others
    with pytest.raises(NotTrusted, match="names another host"):
        hosts.peer(ours.issue("node-a"), "node-c").ask("GET", "/v1/health", None, _soon())
    with pytest.raises(NotTrusted, match="authority that is not known here"):
        hosts.peer(others.issue("node-a")).ask("GET", "/v1/health", None, _soon())


@pytest.mark.parametrize("version", [ssl.TLSVersion.TLSv1_2, ssl.TLSVersion.TLSv1_3])
def test_without_a_certificate(hosts: Hosts, version: ssl.TLSVersion) -> None:
    """Whoever shows none gets an alert that says so, in either version, and no answer."""
    context = ssl.create_default_context(cafile=str(hosts.tls.path / "ca.pem"))
    context.minimum_version = context.maximum_version = version
    with contextlib.ExitStack() as stack:
        plain = hosts.plain(stack)
        with pytest.raises(ssl.SSLError, match=r"(?i)alert|required"):  # noqa: PT012
            opened = stack.enter_context(context.wrap_socket(plain, server_hostname="node-b"))
            opened.sendall(b"GET /v1/health HTTP/1.1\r\nHost: node-b\r\n\r\n")
            opened.recv(1)
    hosts.until_logged("it shows no certificate")


def test_what_is_no_tls(hosts: Hosts) -> None:
    """Plain HTTP and an old version are refused, and named in the log."""
    with contextlib.ExitStack() as stack:
        one = hosts.plain(stack)
        one.sendall(b"GET /v1/health HTTP/1.1\r\nHost: x\r\n\r\n")
        assert b"200" not in one.recv(4096)
    hosts.until_logged("plain HTTP")


def test_silent_and_slow_clients_block_nobody(hosts: Hosts) -> None:
    """More of them than threads, at every point of a handshake, and a peer is answered."""
    peer = hosts.peer(hosts.authority.issue("node-a"))
    with contextlib.ExitStack() as stack:
        for _ in range(60):
            hosts.plain(stack)
        context = hosts.authority.issue("node-a").client_context()
        for _ in range(30):  # greeted, and no request
            stack.enter_context(context.wrap_socket(hosts.plain(stack), server_hostname="node-b"))
        for _ in range(40):  # within the handshake
            hosts.plain(stack).sendall(b"\x16\x03\x01\x02\x00\x01")
        assert peer.answers(_soon())


def test_a_call_ends_by_its_deadline(hosts: Hosts) -> None:
    """Nobody there, and somebody who says nothing: the client says which, in time."""
    tls = hosts.authority.issue("node-a")
    with contextlib.ExitStack() as stack:
        deaf = stack.enter_context(socket.create_server(("127.0.0.1", 0)))
        silent = AgentPeer("node-b", tls, port=deaf.getsockname()[1], at="127.0.0.1")
        with pytest.raises(AgentUnavailable, match=r"within 0\.3 s"):
            silent.ask("GET", "/v1/health", None, Deadline.after(0.3))
    with pytest.raises(AgentUnavailable, match="refused"):
        silent.ask("GET", "/v1/health", None, _soon())
    unknown = AgentPeer("no-such-host.invalid", tls, port=hosts.port)
    with pytest.raises(AgentUnavailable, match=r"no-such-host\.invalid"):
        unknown.ask("GET", "/v1/health", None, _soon())


def test_renewed_certificates_are_taken_without_a_restart(hosts: Hosts) -> None:
    """The next connection sees the new one; a folder that is broken meanwhile changes nothing."""
    peer = hosts.peer(hosts.authority.issue("node-a"))
    good = hosts.tls.path / "certificate.pem"
    before = good.read_bytes()
    good.write_text("half a certifica")
    assert peer.answers(_soon())
    other = hosts.authority.issue("node-x")
    for name in ("key.pem", "certificate.pem"):
        shutil.copy(other.path / name, hosts.tls.path / name)
    with pytest.raises(NotTrusted, match="names another host"):
        peer.ask("GET", "/v1/health", None, _soon())
    fresh = hosts.authority.issue("node-b", days=29)
    for name in ("key.pem", "certificate.pem"):
        shutil.copy(fresh.path / name, hosts.tls.path / name)
    assert peer.answers(_soon())
    assert good.read_bytes() != before


def test_the_unix_socket_is_as_before(hosts: Hosts) -> None:
    """Commands of the host itself need no certificate and may ask for everything."""
    assert hosts.agent.ask("GET", "/v1/connections") == (200, {"connections": []})
    assert hosts.agent.ask("GET", "/v1/identity")[1]["peers"] == []


@pytest.mark.parametrize(
    "problem", ["no --tls", "readable key", "nothing there", "nobody listens", "port taken"]
)
def test_what_it_does_not_start_with(tmp_path: Path, problem: str) -> None:
    """Each is one line that names what is wrong, and nothing is left running."""
    authority = Authority.make(tmp_path / "ours")
    tls = authority.issue("node-b")
    words = ["--listen", "127.0.0.1:0", "--tls", str(tls.path)]
    taken = socket.create_server(("127.0.0.1", 0))
    with taken:
        if problem == "no --tls":
            words = words[:2]
        elif problem == "readable key":
            (tls.path / "key.pem").chmod(0o644)
        elif problem in ("nothing there", "nobody listens"):
            words[3] = str(tmp_path / "nowhere")
        words[1] = f"127.0.0.1:{taken.getsockname()[1]}"
        if problem == "nobody listens":
            words = words[2:]
        status, said, error = AgentProcess(tmp_path).run("agent", *words)
    expected = 4 if problem == "port taken" else 2
    assert (status, said, error.count("\n")) == (expected, "", 1), error


def test_a_kill_leaves_nothing_in_the_way(tmp_path: Path) -> None:
    """After a kill the next agent listens at the same address."""
    hosts = Hosts(tmp_path)
    hosts.start()
    hosts.agent.end(signal.SIGKILL)
    hosts.start()
    assert hosts.peer(hosts.authority.issue("node-a")).answers(_soon())
    assert hosts.agent.end() == 0
