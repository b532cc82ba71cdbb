"""Play in a network of its own: a guest with disks of each kind goes to and fro, portals dying.

Run inside new namespaces, as ``python -m``, by ``test_migration_kinds.py`` and the stress tests;
ends with 0 when everything was as it shall be. Both hosts' parts are in this process, real but for
the kernel's initiator: in its place stand loop devices over the volumes' images.

    python -m tests.daemons.moving_kinds_scenario FOLDER POLICY MOVES
"""

from __future__ import annotations

import contextlib
import os
import sys
import threading
from collections.abc import Iterator
from dataclasses import dataclass, field, replace
from pathlib import Path

from lunport.agent.attach import AttachWish, attach
from lunport.agent.detach import detach
from lunport.agent.migrate_destination import MigrationDestination
from lunport.agent.migrate_source import MoveWish, migrate
from lunport.agent.migration_parts import (
    MigrationParts,
    MoveName,
    Order,
    PreparedVolume,
    Question,
)
from lunport.bootstrap.demo.faults import Fault, clear_faults, set_faults
from lunport.bootstrap.guests import make_connector
from lunport.bootstrap.migrations import MovingHost, make_migration_parts
from lunport.client.block_storage import BlockStorage
from lunport.client.guest_migrations import Enrolments
from lunport.core.guest_disk import InitiatorKind
from lunport.core.guest_whereabouts import Sight
from lunport.core.iqn import Iqn
from lunport.core.migration_preflight import DestinationFacts
from lunport.core.portal import Portal
from lunport.host import nftables
from lunport.host.clock import Deadline
from lunport.host.host_root import ENVIRONMENT_VARIABLE
from lunport.host.iproute import set_up_loopback
from lunport.host.tls import TlsFolder
from lunport.hypervisor.connection import Keepalive, LibvirtConnection
from lunport.hypervisor.migration import LibvirtMoves
from tests.daemons.conftest import free_portals
from tests.daemons.libvirt_host import LibvirtHost
from tests.daemons.loop_host import LoopHost
from tests.daemons.service_process import ServiceProcess
from tests.daemons.tiny_guest import build_tiny_guest, read_growing_log, read_log
from tests.fakes.certificates import Authority

GUEST, NAME = "d0000000-0000-4000-8000-0000000000aa", "wanderer"
KINDS = (InitiatorKind.QEMU, InitiatorKind.KERNEL)
_pause = threading.Event()


def soon(seconds: float = 90.0) -> Deadline:
    """Give a busy machine time enough."""
    return Deadline.after(seconds)


@dataclass(slots=True)
class Host:
    """One host: a libvirt, and what Lunport keeps in its folders."""

    name: str
    folder: Path
    libvirt: LibvirtHost
    tls: TlsFolder
    loops: LoopHost
    others: dict[str, Host] = field(default_factory=dict)
    hypervisor: LibvirtMoves = field(init=False)

    @property
    def initiator(self) -> str:
        """Who QEMU logs in as."""
        return f"iqn.2026-11.io.lunport.test:{self.name}"

    def parts(self) -> MigrationParts:
        """Make the parts, as a process that just started does."""
        os.environ[ENVIRONMENT_VARIABLE] = str(self.folder)
        made = make_migration_parts(
            MovingHost(
                self.name,
                self.libvirt.uri,
                migration_uri=self.libvirt.migration_uri,
                tls=self.tls,
            ),
            self.loops,
            lambda _multipath: make_connector(Iqn(self.initiator), multipath=False, host=self.name),
            lambda: False,
        )
        # udev names no loops.
        guests = replace(
            made.guests, name_of=lambda device, _deadline: device, hypervisor=self.hypervisor
        )
        return replace(
            made,
            guests=guests,
            hypervisor=self.hypervisor,
            peer=lambda name, _at: Peer(MigrationDestination(self.others[name].parts()), self.name),
        )

    def left(self) -> list[object]:
        """Name what there is here of the guest or its volumes."""
        guests = self.parts().guests
        found: list[object] = [*guests.journal.all(), *guests.journal.moves(), *guests.notes.all()]
        found += [*self.loops.entries, *self.hypervisor.secrets(soon())]
        return [*found, *(one.name for one in self.hypervisor.guests(soon()))]


@dataclass(frozen=True, slots=True)
class Peer:
    """The other host's agent, without the wire."""

    there: MigrationDestination
    asker: str

    def facts(self, question: Question, deadline: Deadline) -> DestinationFacts:
        """Ask for facts."""
        return self.there.facts(question, deadline)

    def prepare(self, order: Order, deadline: Deadline) -> tuple[PreparedVolume, ...]:
        """Have it prepared."""
        return self.there.prepare(order, (self.asker,), deadline)

    def look(self, name: MoveName, deadline: Deadline) -> Sight:
        """Have it look."""
        return self.there.look(name, (self.asker,), deadline)

    def tell(self, name: MoveName, deadline: Deadline) -> Sight:
        """Have it tell."""
        return self.there.tell(name, (self.asker,), deadline)

    def confirm(self, name: MoveName, deadline: Deadline) -> None:
        """Have it confirm."""
        self.there.confirm(name, (self.asker,), deadline)

    def undo(self, name: MoveName, deadline: Deadline) -> None:
        """Have it undo."""
        self.there.undo(name, (self.asker,), deadline)


class Scene:
    """A service, two hosts, and a guest with a volume of each kind."""

    def __init__(self, folder: Path, service: ServiceProcess, hosts: tuple[Host, Host]) -> None:
        self.folder = folder
        self.service = service
        self.hosts = hosts
        self.volumes: dict[InitiatorKind, str] = {}
        self.endpoint = ""

    def start_guest(self) -> None:
        """Define a guest on the first host, give it its volumes, start it."""
        here = self.hosts[0]
        xml = build_tiny_guest().domain_xml(NAME, GUEST, self.folder / "console", pause_us=5000)
        here.hypervisor.connection.call("defining", lambda one: one.defineXML(xml), soon())
        for kind in KINDS:
            self.volumes[kind] = volume = self.service.create()
            wish = AttachWish(kind)
            attach(here.parts().guests, NAME, volume, self.endpoint, wish, soon())
        here.hypervisor.start(GUEST, soon())
        self.until_written(20)

    def move(self, source: int, initiator: InitiatorKind | None = None) -> None:
        """Move it away from a host: it writes before and after, the other host keeps nothing."""
        here, there = self.hosts[source], self.hosts[1 - source]
        wish = MoveWish(NAME, there.name, self.endpoint, initiator=initiator)
        moved = migrate(here.parts(), wish, soon())
        assert (moved.left, moved.was_fenced) == ((), False), moved
        assert here.left() == []
        self.until_written(20)

    def portal(self, host: int) -> str:
        """Say by which portal QEMU's initiator reaches its volume at a host."""
        disk = (
            self.hosts[host]
            .hypervisor.guest(GUEST, soon())
            .live_disk(self.volumes[InitiatorKind.QEMU])
        )
        assert disk is not None
        assert disk.portal is not None
        return disk.portal

    def image(self, volume: str) -> Path:
        """Return where a volume's bytes are."""
        return image_of(self.service, volume)

    def until_written(self, more: int) -> None:
        """Wait until the guest has written so many blocks more to each volume."""
        deadline = soon()
        for volume in self.volumes.values():
            image = self.image(volume)
            begun = read_growing_log(image, soon(5))
            while read_growing_log(image, soon(5)) < begun + more:
                assert not deadline.has_passed(), f"{volume}: {begun} blocks and no more"
                _pause.wait(0.05)

    def end(self, at: int) -> None:
        """Take the volumes from the guest, and read their logs."""
        host = self.hosts[at]
        for volume in self.volumes.values():
            detach(host.parts().guests, NAME, volume, soon())
            assert read_log(self.image(volume)) > 40
        host.hypervisor.discard(GUEST, soon())
        assert host.left() == []


def image_of(service: ServiceProcess, volume: str) -> Path:
    """Return where a volume's bytes are."""
    (found,) = service.images.glob(f"*{volume}*")
    return found


def dies_for_newcomers(portal: Portal) -> None:
    """Let a portal serve whoever is logged in, and swallow what others send it."""
    rule = f"ip daddr {portal.host} tcp dport {portal.port} tcp flags & (syn | ack) == syn drop"
    chain = f"  chain input {{\n    type filter hook input priority 0\n    {rule}\n  }}"
    nftables.replace_table("inet", "lunport-demo", chain, soon())


@contextlib.contextmanager
def scene(folder: Path, policy: str) -> Iterator[Scene]:
    """Start everything, the guest on the first host."""
    authority = Authority.make(folder / "ours")
    port = free_portals("127.0.0.1")[0].port
    service = ServiceProcess(
        folder / "service",
        service=f'tls = "{authority.issue("storage-1").path}"\ntls_listen = "127.0.0.1:{port}"',
        backend=f'export = "{policy}"\nportal_order = "fixed"',
    )
    with contextlib.ExitStack() as stack:
        stack.enter_context(service)
        hosts = []
        for number, name in enumerate(("node-a", "node-b")):
            (listen,) = free_portals(f"127.0.0.{11 + number}")
            uuid = f"{number + 1:08}-0000-4000-8000-00000000000a"
            libvirt = stack.enter_context(LibvirtHost(uuid, listen=listen))
            loops = LoopHost(lambda volume: image_of(service, volume))
            stack.callback(loops.close)
            host = Host(name, folder / name, libvirt, authority.issue(name), loops)
            connection = LibvirtConnection(libvirt.uri, keepalive=Keepalive(1, 3))
            stack.callback(connection.close, soon(10))
            host.hypervisor = LibvirtMoves(connection)
            hosts.append(host)
        for host in hosts:
            host.others = {one.name: one for one in hosts}
        made = Scene(folder, service, (hosts[0], hosts[1]))
        made.endpoint = f"https://127.0.0.1:{port}"
        for host in hosts:
            Enrolments(BlockStorage(service.endpoint)).add(host.name, host.initiator, soon())
        made.start_guest()
        yield made
    assert "Traceback" not in service.log_text


def play(folder: Path, policy: str, moves: int) -> None:
    """Move it so often; between the moves portals die, one after the other."""
    set_up_loopback([], soon())
    with scene(folder, policy) as made:
        first, second = (str(one) for one in made.service.portals)
        assert made.portal(0) == first
        for number in range(moves):
            at = number % 2
            made.move(at)
            used = made.portal(1 - at)
            # A host that saw one dead a moment ago may pass it by for a while longer.
            assert used == second or number == 0 or number % 3 == 0, (number, used)
            assert used == first or number > 0, (number, used)
            match number % 3:
                case 0:  # the guest's own portal is no place for whoever comes
                    dies_for_newcomers(made.service.portals[0])
                case 1:  # it is on the other one: now the first is dead
                    set_faults({made.service.portals[0]: Fault.SWALLOWS}, soon())
                    made.until_written(20)
                case _:
                    clear_faults(soon())
        clear_faults(soon())
        # All by the kernel's kind, then all by QEMU's: libvirt lets a disk change its kind.
        for number, kind in enumerate((InitiatorKind.KERNEL, InitiatorKind.QEMU), moves):
            made.move(number % 2, kind)
        made.end(moves % 2)


if __name__ == "__main__":
    play(Path(sys.argv[1]), sys.argv[2], int(sys.argv[3]))
