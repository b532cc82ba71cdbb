"""Two hosts with a libvirt each, their agents, and a service: where real guests move to and fro.

Each host has a name, an initiator and folders of its own, though all are one machine: its agent
and its commands run in a mount namespace in which it is called so. The targets are a real tgtd's,
one for each host, with CHAP; the guest's disk is reached by QEMU's own initiator.
"""

from __future__ import annotations

import contextlib
import json
import shutil
import subprocess
import threading
from collections.abc import Iterator
from pathlib import Path
from typing import Self

from lunport.client.block_storage import BlockStorage
from lunport.client.guest_migrations import GuestMigrations
from lunport.core.errors import GuestNotFound
from lunport.core.guest import Guest
from lunport.host.clock import Deadline
from lunport.host.tls import TlsFolder
from lunport.hypervisor.connection import Keepalive, LibvirtConnection
from lunport.hypervisor.migration import LibvirtMoves
from tests.daemons.agent_process import AgentProcess
from tests.daemons.conftest import free_portals
from tests.daemons.libvirt_host import LibvirtHost
from tests.daemons.service_process import ServiceProcess
from tests.daemons.tiny_guest import GuestLog, build_tiny_guest, read_growing_log
from tests.fakes.certificates import Authority

GUEST = "d0000000-0000-4000-8000-0000000000aa"
NAME = "wanderer"
WAIT_S = 90.0
_LOOK_S = 0.05
_pause = threading.Event()
_AS = 'mount --bind "$1" /etc/iscsi/initiatorname.iscsi; hostname "$0"; shift; exec "$@"'


def soon(seconds: float = WAIT_S) -> Deadline:
    """Give a busy machine time enough."""
    return Deadline.after(seconds)


class MovingHost:
    """One host; ``with`` starts its libvirt and its agent, and ends them."""

    def __init__(
        self,
        folder: Path,
        number: int,
        authority: Authority,
        endpoint: str,
        *,
        debug: bool = False,
    ) -> None:
        self.name = f"node-{'ab'[number]}"
        address = f"127.0.0.{11 + number}"
        listen, self._own = free_portals(address, "127.0.0.1")
        self.libvirt = LibvirtHost(f"{number + 1:08}-0000-4000-8000-00000000000a", listen=listen)
        self.tls = authority.issue(self.name)
        self.initiator = f"iqn.2026-11.io.lunport.test:{self.name}"
        self._folder = folder / self.name
        self._folder.mkdir(parents=True)
        name_file = self._folder / "initiatorname.iscsi"
        name_file.write_text(f"InitiatorName={self.initiator}\n")
        prefix = ["unshare", "--mount", "--uts", "sh", "-c", _AS, self.name, str(name_file)]
        self.agent = AgentProcess(self._folder, prefix)
        self.agent.environment |= {
            "LUNPORT_TLS": str(self.tls.path),
            "LUNPORT_LIBVIRT": self.libvirt.uri,
            "OS_ENDPOINT": endpoint,
        }
        self._options = ("--debug",) if debug else ()
        self.endpoint = endpoint
        self._stack = contextlib.ExitStack()

    def __enter__(self) -> Self:
        with contextlib.ExitStack() as stack:
            stack.enter_context(self.libvirt)
            self.connection = LibvirtConnection(self.libvirt.uri, keepalive=Keepalive(1, 3))
            stack.callback(self.connection.close, soon(10))
            self.hypervisor = LibvirtMoves(self.connection)
            self.start_agent()
            stack.callback(self.end_agent)
            self._stack = stack.pop_all()
        return self

    def __exit__(self, *_: object) -> None:
        self._stack.close()

    @property
    def at(self) -> str:
        """Where its agent answers."""
        return str(self._own)

    @property
    def log(self) -> str:
        """What its agent has logged."""
        return self.agent.log.read_text()

    def start_agent(self) -> None:
        """Start the agent."""
        self.agent.start(
            *("--listen", self.at, "--tls", str(self.tls.path), "--host-name", self.name),
            *("--libvirt", self.libvirt.uri, "--migration-uri", self.libvirt.migration_uri),
            *self._options,
        )

    def end_agent(self) -> None:
        """End it, unless it was killed."""
        if self.agent.process is not None and self.agent.process.poll() is None:
            self.agent.end()

    def use_tls(self, tls: TlsFolder) -> None:
        """Show another certificate from the next start on."""
        self.tls = tls
        self.agent.environment["LUNPORT_TLS"] = str(tls.path)

    @contextlib.contextmanager
    def full_disk(self) -> Iterator[None]:
        """Leave no room for what the host keeps for good, for a while."""
        self.end_agent()
        state = self._folder / "state"
        aside = self._folder / "state-aside"
        state.rename(aside)
        state.mkdir()
        subprocess.run(["mount", "-t", "tmpfs", "-o", "size=256k", "tmpfs", str(state)], check=True)
        try:
            shutil.copytree(aside, state, dirs_exist_ok=True)
            self.start_agent()
            with contextlib.suppress(OSError), (state / "filler").open("wb") as file:
                for _ in range(1000):
                    file.write(bytes(4096))
                    file.flush()
            yield
            (state / "filler").unlink()
            self.end_agent()
            shutil.rmtree(aside)
            shutil.copytree(state, aside)
        finally:
            subprocess.run(["umount", str(state)], check=True)
            state.rmdir()
            aside.rename(state)
            self.start_agent()

    def run(self, *words: str) -> tuple[int, str, str]:
        """Run a command on the host."""
        return self.agent.run(*words)

    def guest(self) -> Guest | None:
        """Look at the guest."""
        with contextlib.suppress(GuestNotFound):
            return self.hypervisor.guest(GUEST, soon())
        return None

    @property
    def runs_it(self) -> bool:
        """Tell whether there is a process of the guest."""
        found = self.guest()
        return found is not None and found.is_active

    def left(self) -> list[object]:
        """Name what there is here of the guest or its volumes."""
        folder = self._folder / "state" if (self._folder / "state").exists() else self._folder
        files = [
            str(file.relative_to(self._folder))
            for kind in ("attachments", "moves", "credentials", "owned")
            for file in folder.rglob(f"guests/{kind}/*.json")
        ]
        found: list[object] = [*sorted(files), *self.hypervisor.secrets(soon())]
        guest = self.guest()
        return [*found, *([] if guest is None else [f"{guest.name} {guest.state}"])]


class MovingSite:
    """A service, two hosts, a guest with one volume."""

    def __init__(self, folder: Path, *, debug: bool = False) -> None:
        self.authority = Authority.make(folder / "ours")
        port = free_portals("127.0.0.1")[0].port
        tls = self.authority.issue("storage-1")
        self.service = ServiceProcess(
            folder / "service",
            service=f'tls = "{tls.path}"\ntls_listen = "127.0.0.1:{port}"',
            backend='export = "target_per_host"',
            options=("--debug",) if debug else (),
        )
        self.endpoint = f"https://127.0.0.1:{port}"
        self.hosts = tuple(
            MovingHost(folder, number, self.authority, self.endpoint, debug=debug)
            for number in range(2)
        )
        self.folder = folder
        self.volumes: list[str] = []
        self._logs: dict[str, GuestLog] = {}

    @property
    def moves(self) -> GuestMigrations:
        """Ask for records as the administrator."""
        return GuestMigrations(BlockStorage(self.service.endpoint))

    def image(self, volume: str) -> Path:
        """Return where a volume's bytes are."""
        (found,) = self.service.images.glob(f"*{volume}*")
        return found

    def start(self, *, volumes: int = 1) -> None:
        """Enrol the hosts, and start a guest with volumes on the first."""
        for host in self.hosts:
            words = ("enrol", "add", host.name, "--initiator", host.initiator)
            status, _, error = AgentProcess(self.folder).run(
                *words, "--endpoint", self.service.endpoint
            )
            assert status == 0, error
        here = self.hosts[0]
        self.volumes = [self.service.create() for _ in range(volumes)]
        image = build_tiny_guest()
        xml = image.domain_xml(NAME, GUEST, self.folder / "console", pause_us=5000)
        here.connection.call("defining a guest", lambda one: one.defineXML(xml), soon())
        for volume in self.volumes:
            status, _, error = here.run("guest", "attach", NAME, volume, "--initiator", "qemu")
            assert status == 0, error
        here.hypervisor.start(GUEST, soon())
        self.until_written(20)

    def migrate(self, source: int, *options: str) -> tuple[int, str, str]:
        """Move the guest away from a host."""
        to = self.hosts[1 - source]
        words = ("guest", "migrate", NAME, "--to", to.name, "--at", to.at)
        return self.hosts[source].run(*words, *options)

    def launch(self, source: int, *options: str) -> subprocess.Popen[str]:
        """Begin to move the guest away from a host, slowly; return once its memory moves."""
        to = self.hosts[1 - source]
        words = ("guest", "migrate", NAME, "--to", to.name, "--at", to.at, "--bandwidth", "4")
        process = self.hosts[source].agent.launch(*words, *options)
        deadline = soon()
        while not self._is_moving(source):
            assert process.poll() is None, process.communicate()
            assert not deadline.has_passed()
            _pause.wait(_LOOK_S)
        return process

    def _is_moving(self, source: int) -> bool:
        progress = self.hosts[source].hypervisor.move_progress(GUEST, soon())
        return progress is not None and progress.processed_bytes > 0

    def switch_over(self, source: int) -> None:
        """Let a move come to its end now, however much is left."""
        host = self.hosts[source]
        host.connection.call(
            "letting a guest stand still",
            lambda one: one.lookupByUUIDString(GUEST).migrateSetMaxDowntime(60_000),
            soon(),
        )

    def blocks(self, volume: str | None = None) -> int:
        """Count the blocks of a volume's log, which must be whole as far as it is new."""
        volume = volume or self.volumes[0]
        log = self._logs.setdefault(volume, GuestLog(self.image(volume)))
        return log.read_growing(soon(5))

    def expect_whole(self) -> None:
        """Insist on whole logs, from their start."""
        for volume in self.volumes:
            read_growing_log(self.image(volume), soon(20))

    def until_written(self, more: int) -> None:
        """Wait until the guest has written so many blocks more to each volume."""
        for volume in self.volumes:
            begun, deadline = self.blocks(volume), soon()
            while (now := self.blocks(volume)) < begun + more:
                assert not deadline.has_passed(), f"{now} blocks, {begun} before"
                _pause.wait(_LOOK_S)

    def until_alone_at(self, winner: int) -> None:
        """Wait until the guest is at one host, and nothing of it at the other."""
        deadline = soon()
        loser = self.hosts[1 - winner]
        while loser.left():
            assert not deadline.has_passed(), f"{loser.left()}\n{loser.log[-3000:]}"
            _pause.wait(_LOOK_S)
        assert self.hosts[winner].runs_it
        names = {one.name for one in self.hosts if one.runs_it}
        assert names == {self.hosts[winner].name}
        initiators = {
            one["initiator"]
            for one in json.loads(self.exports())["exports"]
            if one["volume_id"] in self.volumes
        }
        assert initiators == {self.hosts[winner].initiator}
        assert self.moves.list(soon()) == ()

    def exports(self) -> str:
        """List the exports, as JSON."""
        words = ("export", "list", "--endpoint", self.service.endpoint, "-o", "json")
        status, said, error = AgentProcess(self.folder).run(*words)
        assert status == 0, error
        return said


@contextlib.contextmanager
def moving_site(folder: Path, *, volumes: int = 1, debug: bool = False) -> Iterator[MovingSite]:
    """Run everything, the guest on the first host. ``debug``: services log all they do."""
    site = MovingSite(folder, debug=debug)
    with site.service, site.hosts[0], site.hosts[1]:
        site.start(volumes=volumes)
        yield site
        site.expect_whole()
    assert "Traceback" not in site.service.log_text
    for host in site.hosts:
        assert "Traceback" not in host.log
