"""Two hosts' agents and the service, each known by its certificate: who gets what, and the fence.

`lunport serve` with a real tgtd and a target for each host, two `lunport agent` of different
names, QEMU's initiator as what the hosts do with their volumes.
"""

from __future__ import annotations

import contextlib
import shutil
import signal
import socket
import sqlite3
import ssl
import threading
from collections.abc import Iterator
from pathlib import Path

import pytest

from lunport.client.agent import AgentPeer, PeerIdentity
from lunport.client.block_storage import Attachment, BlockStorage
from lunport.client.guest_migrations import GuestMigrations
from lunport.core.connection_info import ConnectionInfo
from lunport.core.connector import Connector
from lunport.core.errors import NotTrusted, VolumeApiRefused, VolumeApiUnavailable
from lunport.core.iqn import parse_iqn
from lunport.core.migration_plan import Side, State, Word
from lunport.host.clock import Deadline
from lunport.host.tls import TlsFolder
from tests.daemons.agent_process import AgentProcess
from tests.daemons.conftest import free_portals
from tests.daemons.qemu_io import QemuRefusedError, QemuSession
from tests.daemons.service_process import ServiceProcess
from tests.fakes.certificates import Authority

WAIT_S = 30.0
GUEST = "5f0e3e2a-0d8e-4b7b-9c53-000000000001"

pytestmark = pytest.mark.needs("root", "tgtd", "qemu-io")


class Host:
    """A host: its agent, its certificate, and what it asks the service with that."""

    def __init__(self, folder: Path, name: str, authority: Authority, endpoint: str) -> None:
        self.name = name
        self.tls = authority.issue(name)
        self.initiator = parse_iqn(f"iqn.2026-11.io.lunport.test:{name}")
        self.connector = Connector(self.initiator, host=name)
        self.api = BlockStorage(endpoint, tls=self.tls)
        self.moves = GuestMigrations(self.api)
        self.port = free_portals("127.0.0.1")[0].port
        self.agent = AgentProcess(folder / name)
        self.agent.folder.mkdir()
        self.agent.environment |= {"LUNPORT_TLS": str(self.tls.path), "OS_ENDPOINT": endpoint}

    def start(self) -> None:
        """Start the agent."""
        listen = ("--listen", f"127.0.0.1:{self.port}", "--host-name", self.name)
        self.agent.start(*listen, "--tls", str(self.tls.path))

    def asks(self, other: Host) -> PeerIdentity:
        """Ask another host's agent who it is."""
        peer = AgentPeer(other.name, self.tls, port=other.port, at="127.0.0.1")
        return peer.identity(soon())

    def attach(self, volume: str) -> tuple[Attachment, ConnectionInfo]:
        """Have a volume of the guest offered to this host."""
        made = self.api.create_attachment(volume, soon(), instance=GUEST)
        made = self.api.connect_attachment(made.id, self.connector, soon())
        self.api.complete_attachment(made.id, soon())
        assert made.connection is not None
        return made, made.connection

    def log_in(self, info: ConnectionInfo) -> QemuSession:
        """Use it."""
        path = info.main_path
        assert info.chap is not None
        credentials = info.chap.initiator
        folder = self.agent.folder
        return QemuSession(folder, path.portal, path.iqn, self.initiator, credentials, path.lun)


class Site:
    """The service, its administrator, and two hosts."""

    def __init__(self, folder: Path) -> None:
        self.authority = Authority.make(folder / "ours")
        self.port = free_portals("127.0.0.1")[0].port
        self.endpoint = f"https://127.0.0.1:{self.port}"
        tls = self.authority.issue("storage-1")
        self.service = ServiceProcess(
            folder / "service",
            service=f'tls = "{tls.path}"\ntls_listen = "127.0.0.1:{self.port}"',
            backend='export = "target_per_host"',
        )
        self.a = Host(folder, "node-a", self.authority, self.endpoint)
        self.b = Host(folder, "node-b", self.authority, self.endpoint)
        self.folder = folder

    def run(self, *words: str) -> tuple[int, str, str]:
        """Run a command as the service's administrator."""
        return AgentProcess(self.folder).run(*words, "--endpoint", self.service.endpoint)


def soon() -> Deadline:
    """Give a call its time."""
    return Deadline.after(WAIT_S)


@contextlib.contextmanager
def running_site(folder: Path) -> Iterator[Site]:
    """Run everything, with both hosts enrolled."""
    made = Site(folder)
    with made.service:
        for host in (made.a, made.b):
            host.start()
            status, said, error = made.run(
                "enrol", "add", host.name, "--initiator", str(host.initiator)
            )
            assert (status, said.startswith("Enrolled")) == (0, True), error
        yield made
        for host in (made.a, made.b):
            assert host.agent.end() == 0
            assert "PRIVATE KEY" not in host.agent.log.read_text()
        assert "Traceback" not in made.service.log_text


@pytest.fixture(scope="module")
def site(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Site]:
    """One site for the tests that harm nothing; each has volumes of its own."""
    with running_site(tmp_path_factory.mktemp("site")) as made:
        yield made


@pytest.fixture
def own_site(tmp_path: Path) -> Iterator[Site]:
    """A site whose service may be killed."""
    with running_site(tmp_path) as made:
        yield made


def test_each_host_gets_its_own_and_no_other(site: Site) -> None:
    """By its certificate alone; agents know each other; a command of the host asks as the host."""
    a, b = site.a, site.b
    assert (a.asks(b).host, b.asks(a).peers) == ("node-b", ("node-b",))
    volume = site.service.create()
    made, info = a.attach(volume)
    with a.log_in(info) as session:
        assert "wrote 4096/4096" in session.run("write 0 4k")
    with pytest.raises(VolumeApiRefused, match="host node-b may ask only for its own"):
        b.api.get_attachment(made.id, soon())
    spare = b.api.create_attachment(site.service.create(), soon())
    with pytest.raises(VolumeApiRefused, match="names host node-a"):
        b.api.connect_attachment(spare.id, a.connector, soon())
    with pytest.raises(VolumeApiRefused, match="on another host"):
        b.attach(volume)
    status, _, error = a.agent.run("export", "list")
    assert (status, "own host's exports" in error) == (6, True), error
    assert site.run("enrol", "list")[1].count("node-") == 4


def test_who_is_nobody_to_the_service(site: Site) -> None:
    """An unknown authority, an expired certificate, none, one that is not enrolled."""
    volume = site.service.create()
    others = Authority.make(site.folder / "others", "Others")
    for tls, words in (
        (site.authority.believed_by(others.issue("node-a")), "authority"),
        (site.authority.expired("node-a"), "expired"),
    ):
        with pytest.raises(NotTrusted, match=words):
            BlockStorage(site.endpoint, tls=tls).get_volume(volume, soon())
    with pytest.raises(NotTrusted, match="not known here"):
        BlockStorage(site.endpoint, tls=others.issue("node-a")).get_volume(volume, soon())
    stranger = BlockStorage(site.endpoint, tls=site.authority.issue("node-c"))
    with pytest.raises(VolumeApiRefused, match="enrols node-c"):
        stranger.get_volume(volume, soon())
    site.service.until_logged("expired")


def test_the_client_s_waits_end_by_tls_too(site: Site) -> None:
    """A service that says nothing after the handshake, or before it, is told in time."""
    context = site.a.tls.server_context()
    with socket.create_server(("127.0.0.1", 0)) as deaf, contextlib.ExitStack() as stack:
        api = BlockStorage(f"https://127.0.0.1:{deaf.getsockname()[1]}", tls=site.b.tls)
        with pytest.raises(VolumeApiUnavailable, match="did not answer within"):
            api.list_volumes(Deadline.after(0.3))
        deaf.accept()[0].close()

        def greet() -> None:
            stack.enter_context(context.wrap_socket(deaf.accept()[0], server_side=True))

        thread = threading.Thread(target=greet)
        thread.start()
        with pytest.raises(VolumeApiUnavailable, match="did not answer within"):
            api.list_volumes(Deadline.after(1.5))
        thread.join()


def test_a_client_takes_renewed_certificates(site: Site) -> None:
    """One that lives long, as an agent's reporter, shows the certificate that is there now."""
    folder = site.folder / "renewed"
    shutil.copytree(site.authority.expired("node-a").path, folder)
    api = BlockStorage(site.endpoint, tls=TlsFolder(folder))
    with pytest.raises(NotTrusted, match="expired"):
        api.list_attachments(soon())
    words = ("pki", "renew", str(folder), "--pki", str(site.authority.folder / "pki"))
    assert AgentProcess(site.folder).run(*words)[0] == 0
    api.list_attachments(soon())


def test_a_guest_moves_and_the_loser_is_cut_off(site: Site) -> None:
    """Both sides write, as after a split brain: one goes on, the other has lost the volume."""
    a, b = site.a, site.b
    volume = site.service.create()
    at_a, info_a = a.attach(volume)
    move = a.moves.start(GUEST, "node-a", "node-b", [(volume, at_a.id)], soon())
    at_b, info_b = b.attach(volume)
    assert info_a.main_path.iqn != info_b.main_path.iqn
    assert b.moves.prepared(move.id, volume, at_b.id, soon()).state is State.PREPARING
    assert a.moves.moving(move.id, soon()).state is State.MOVING
    with a.log_in(info_a) as of_a, b.log_in(info_b) as of_b:
        for number, one in enumerate((of_a, of_b)):
            assert "wrote 4096/4096" in one.run(f"write {number * 4096} 4k")
        waiting = b.moves.settle(move.id, soon(), destination=Word.PAUSED)
        assert (waiting.winner, waiting.state) == (None, State.SETTLING)
        done = a.moves.settle(move.id, soon(), source=Word.RUNS, destination=Word.RUNS)
        assert (done.winner, done.fenced, done.state) == (Side.SOURCE, True, State.DONE)
        assert "wrote 4096/4096" in of_a.run("write -P 65 8k 4k")
        # libiscsi asks again and again for what it has lost: no write of it ever ends.
        with pytest.raises((TimeoutError, QemuRefusedError)):
            of_b.run("write -P 66 8k 4k", deadline_s=2.0)
        assert "read 4096/4096" in of_a.run("read -P 65 8k 4k")
    with pytest.raises(QemuRefusedError):
        b.log_in(info_b)
    status, said, _ = site.run("migration", "show", move.id)
    assert (status, "the guest lives at node-a, the other side was fenced" in said) == (0, True)
    assert site.run("migration", "list")[1] == "No migration is open.\n"
    # The way back is open: nothing of the fence is left.
    again = a.moves.start(GUEST, "node-a", "node-b", [(volume, at_a.id)], soon())
    assert again.id != move.id
    at_b, info_b = b.attach(volume)
    b.log_in(info_b).close()
    b.moves.prepared(again.id, volume, at_b.id, soon())
    assert site.run("migration", "abort", again.id)[0] == 0
    with pytest.raises(QemuRefusedError):
        b.log_in(info_b)
    assert a.api.get_attachment(at_a.id, soon()).status == "attached"


def test_a_service_that_was_killed_goes_on(own_site: Site) -> None:
    """Killed after it had decided, it fences at its next start, before it answers anybody."""
    site = own_site
    a, b = site.a, site.b
    volume = site.service.create()
    at_a, info_a = a.attach(volume)
    move = a.moves.start(GUEST, "node-a", "node-b", [(volume, at_a.id)], soon())
    at_b, info_b = b.attach(volume)
    b.moves.prepared(move.id, volume, at_b.id, soon())
    a.moves.moving(move.id, soon())
    site.service.stop(signal.SIGKILL)
    decided = "UPDATE guest_migrations SET state='fencing', winner='destination', must_fence=1 "
    which = f"WHERE id='{move.id}'"
    with contextlib.closing(sqlite3.connect(site.service.data_dir / "lunport.sqlite")) as database:
        database.execute(decided + which)
        database.commit()
    b.log_in(info_b).close()
    a.log_in(info_a).close()
    site.service.start()
    with pytest.raises(QemuRefusedError):
        a.log_in(info_a)
    b.log_in(info_b).close()
    done = b.moves.get(move.id, soon())
    assert (done.state, done.winner) == (State.DONE, Side.DESTINATION)
    assert "migration_taken_up" in site.service.log_text


def test_silent_clients_of_the_service(site: Site) -> None:
    """More of them than threads, before and after the handshake, and both doors are open."""
    context = site.a.tls.client_context()
    context.check_hostname = False
    with contextlib.ExitStack() as stack:
        for count in range(60):
            one = stack.enter_context(socket.create_connection(("127.0.0.1", site.port), WAIT_S))
            if count % 2:
                stack.enter_context(context.wrap_socket(one))
        assert site.a.api.is_up(soon())
        assert site.service.ask("GET", "/p/volumes")[0] == 200


def test_tokens_beside_certificates(tmp_path: Path) -> None:
    """With tokens a caller without a certificate is let in by one, and by nothing else."""
    authority = Authority.make(tmp_path / "ours")
    status, entry, told = AgentProcess(tmp_path).run("token", "--role", "admin")
    assert status == 0
    (tmp_path / "tokens.toml").write_text(entry)
    port = free_portals("127.0.0.1")[0].port
    words = (
        f'auth = "token"\ntokens = "{tmp_path / "tokens.toml"}"\n'
        f'tls = "{authority.issue("storage-1").path}"\ntls_listen = "127.0.0.1:{port}"'
    )
    ca = str(authority.folder / "pki" / "ca.pem")
    with ServiceProcess(tmp_path / "service", service=words):
        token = told.split()[-1]
        for secret, expected in ((token, 200), ("wrong", 401), ("", 401)):
            assert _get(port, ca, secret) == expected
        bare = BlockStorage(f"https://127.0.0.1:{port}", tls=authority.issue("node-a"))
        with pytest.raises(VolumeApiRefused, match="enrols node-a"):
            bare.list_attachments(soon())


def _get(port: int, ca: str, token: str) -> int:
    """Ask for volumes by TLS without a certificate; return the status."""
    context = ssl.create_default_context(cafile=ca)
    plain = socket.create_connection(("127.0.0.1", port), WAIT_S)
    with context.wrap_socket(plain, server_hostname="127.0.0.1") as opened:
        header = f"X-Auth-Token: {token}\r\n" if token else ""
        opened.sendall(
            f"GET /v3/volumes HTTP/1.1\r\nHost: x\r\nConnection: close\r\n{header}\r\n".encode()
        )
        return int(opened.recv(64).split()[1])


def test_what_the_service_does_not_start_with(tmp_path: Path) -> None:
    """A listener without certificates, and certificates that are not there, are told."""
    for number, (words, expected) in enumerate(
        (
            ('tls_listen = "127.0.0.1:0"', "needs the folder"),
            (f'tls = "{tmp_path}"\ntls_listen = "127.0.0.1:8777"', "expected ca.pem"),
            (f'tls = "{tmp_path}"\ntls_listen = "unix:/x"', "TLS is for addresses"),
        )
    ):
        process = ServiceProcess(tmp_path / str(number), service=words)
        status, said = process.refusal()
        assert (status, expected in said) == (2, True), said


def test_folders_of_tls_are_ours_alone(tmp_path: Path) -> None:
    """A folder whose key others may read is refused by whoever is pointed at it."""
    tls = Authority.make(tmp_path / "ours").issue("node-a")
    (tls.path / "key.pem").chmod(0o644)
    process = AgentProcess(tmp_path)
    process.environment["LUNPORT_TLS"] = str(TlsFolder(tls.path).path)
    status, _, error = process.run("export", "list", "--endpoint", "https://127.0.0.1:1")
    assert (status, "others may read it" in error) == (2, True), error
