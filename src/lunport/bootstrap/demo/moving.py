"""The demo's second act: a guest goes to a host with another target, and its log is whole.

Runs where the first act did (:mod:`lunport.bootstrap.demo.story`), once that has left nothing,
with a service of its own. Guests and hosts are real, libvirt and QEMU as installed; QEMU
translates, so that no machine needs KVM. Each step uses the parts as an operator would: Lunport's
commands, run on the hosts. Never repairs, never repeats: what goes wrong ends the demo.
"""

from __future__ import annotations

import threading
from contextlib import AbstractContextManager, ExitStack
from functools import partial
from pathlib import Path

from lunport.bootstrap.demo.guest_image import build_tiny_guest, read_growing_log, read_log
from lunport.bootstrap.demo.hosts import Certificates, DemoHost
from lunport.bootstrap.demo.leftovers import (
    expect_none,
    files_below,
    open_sockets,
    other_processes,
)
from lunport.bootstrap.demo.needs import HOSTS, SERVICE_ADDRESS
from lunport.bootstrap.demo.service import DemoService, ForHosts, Places
from lunport.bootstrap.demo.telling import Mark, Say, Teller, step
from lunport.client.block_storage import Volume
from lunport.client.guest_migrations import Enrolments
from lunport.core.errors import PromiseBroken
from lunport.core.portal import Portal
from lunport.host import runner
from lunport.host.clock import Deadline
from lunport.hypervisor.connection import LibvirtConnection
from lunport.hypervisor.migration import LibvirtMoves

GUEST = "wanderer"
_GUEST_ID = "d0000000-0000-4000-8000-0000000000aa"
_SHORT = Path("/mnt")  # a socket's path has 108 bytes at most
_TLS_PORT = 8777
_REST_US = 5000
_BLOCKS = 50
_BLOCK_KIB = 4
_STEP_S = 60.0
_LOOK_S = 0.05
_pause = threading.Event()


def play(folder: Path, portals: tuple[Portal, ...], teller: Teller) -> None:
    """Play the act. Raises: PromiseBroken, and whatever goes wrong on the way."""
    teller.act("Lunport: a guest goes to a host with another target, and writes all the while")
    runner.run(["mount", "--bind", folder, _SHORT], _soon())
    with ExitStack() as stack:
        story = _Story(_SHORT, portals, teller, stack)
        story.start_service()
        story.start_hosts()
        volume = story.create_volume()
        story.start_guest(volume)
        story.move(volume)
        story.compare(volume)
        story.detach_and_delete(volume)
        story.show_that_nothing_is_left()
    runner.run(["umount", _SHORT], _soon())


class _Story:
    """The steps, in the order in which they are told; ``stack`` ends what they started."""

    def __init__(
        self, folder: Path, portals: tuple[Portal, ...], teller: Teller, stack: ExitStack
    ) -> None:
        self._folder = folder
        self._teller = teller
        self._stack = stack
        certificates = Certificates(folder / "certificates")
        certificates.make()
        listen = str(Portal(SERVICE_ADDRESS, _TLS_PORT))
        answering = ForHosts(listen, certificates.issue("storage", SERVICE_ADDRESS))
        self._service = DemoService(Places(folder / "second"), portals, for_hosts=answering)
        self._client = self._service.client
        endpoint = f"https://{listen}"
        self._hosts = tuple(
            DemoHost(folder / name, name, address, certificates.issue(name, address), endpoint)
            for name, address in HOSTS.items()
        )
        self._counts: list[int] = []

    @property
    def _here(self) -> DemoHost:
        return self._hosts[0]

    @property
    def _there(self) -> DemoHost:
        return self._hosts[1]

    def start_service(self) -> None:
        with self._step("The service starts, with a target for each host") as say:
            self._service.start(_soon())
            say("service", "as before, and by TLS for the agents of hosts")

    def start_hosts(self) -> None:
        with self._step("Two hosts start: libvirt, and Lunport's agent") as say:
            for host in self._hosts:
                self._stack.callback(partial(host.end, Deadline.after(_STEP_S)))
                host.start(_soon())
                Enrolments(self._client).add(host.name, host.initiator, _soon())
                say(host.name, f"agent on {host.at}; its certificate says who it is")

    def create_volume(self) -> Volume:
        with self._step("A volume is created") as say:
            volume = self._client.create_volume("demo-guest", 1, _soon())
            volume = self._client.wait_for_volume(volume.id, "available", _soon())
            say("volume", f"{volume.id}, {volume.size} GiB, {volume.status}")
        return volume

    def start_guest(self, volume: Volume) -> None:
        with self._step(f"A guest gets it on {self._here.name}, boots and writes") as say:
            image = build_tiny_guest(self._folder / "guest", _soon())
            console = self._folder / "console"
            xml = image.domain_xml(GUEST, _GUEST_ID, console, pause_us=_REST_US)
            hypervisor = self._hypervisor(self._here)
            hypervisor.connection.call("defining a guest", lambda one: one.defineXML(xml), _soon())
            words = ("guest", "attach", GUEST, volume.id, "--initiator", "qemu")
            attached = self._here.run(*words, deadline=_soon())
            hypervisor.start(_GUEST_ID, _soon())
            self._until_written(volume, _BLOCKS)
            say("guest", f"{GUEST}: Linux, and a process that fills a disk with a log")
            say("disk", f"{attached['target']}, by QEMU's initiator, {attached['portal']}")
            self._say_target(self._here, say)
            self._say_count(f"at {self._here.name}", volume, say)

    def move(self, volume: Volume) -> None:
        here, there = self._here, self._there
        with self._step(f"It moves to {there.name} while it writes") as say:
            words = ("guest", "migrate", GUEST, "--to", there.name, "--at", there.at)
            moved = here.run(*words, deadline=_soon())
            if moved["fenced"] or moved["left"]:
                raise PromiseBroken("A move leaves nothing", str(moved["left"]))
            portal = moved["volumes"][0]["portal"]
            say("guest", f"runs at {there.name}, its disk through {portal}", Mark.GOOD)
            self._say_target(there, say)
            self._say_count("on its way", volume, say)
            self._until_written(volume, _BLOCKS)
            self._say_count(f"at {there.name}", volume, say)

    def compare(self, volume: Volume) -> None:
        """Show that the one writer is at one host, and nothing of it at the other."""
        with self._step(f"Nothing of it is left at {self._here.name}") as say:
            expect_none("guests", self._hypervisor(self._here).guests(_soon()))
            expect_none("secrets", self._hypervisor(self._here).secrets(_soon()))
            expect_none("notes", _notes(self._folder / self._here.name))
            allowed = {str(one) for one in self._allowed()}
            if allowed != {self._there.initiator}:
                raise PromiseBroken("One host is let in", ", ".join(sorted(allowed)))
            attachments = self._client.list_attachments(_soon())
            if [one.volume_id for one in attachments] != [volume.id]:
                raise PromiseBroken("A volume has one attachment", f"{len(attachments)}")
            say(self._here.name, "no guest, secret or note", Mark.GOOD)
            say("allowed", f"{self._there.initiator} alone", Mark.GOOD)

    def detach_and_delete(self, volume: Volume) -> None:
        with self._step("The guest gives the volume back, and its log is read") as say:
            words = ("guest", "detach", GUEST, volume.id)
            self._there.run(*words, deadline=_soon())
            self._hypervisor(self._there).discard(_GUEST_ID, _soon())
            count = read_log(self._image(volume))
            if count < sum(self._counts):
                raise PromiseBroken("No block of the log is lost", f"{count} of {self._counts}")
            blocks = f"{count} blocks of {_BLOCK_KIB} KiB, numbered, chained, with checksums"
            say("log", f"{blocks}: none lost, damaged or out of order", Mark.GOOD)
            self._client.wait_for_volume(volume.id, "available", _soon())
            self._client.delete_volume(volume.id, _soon())
            self._client.wait_until_deleted(volume.id, _soon())
            say("volume", "gone")

    def show_that_nothing_is_left(self) -> None:
        with self._step("Nothing is left") as say:
            expect_none("volumes", self._client.list_volumes(_soon()))
            expect_none("attachments", self._client.list_attachments(_soon()))
            expect_none("targets", self._service.target_helper().exports())
            expect_none("images", files_below(self._service.places.images))
            for host in self._hosts:
                expect_none("guests", self._hypervisor(host).guests(_soon()))
                expect_none("secrets", self._hypervisor(host).secrets(_soon()))
                expect_none("notes", _notes(self._folder / host.name))
            say("hosts", "no guest, secret or note", Mark.GOOD)
            self._stack.close()
            status = self._service.stop(_soon())
            if status != 0:
                raise PromiseBroken("The service ends well", self._service.last_words())
            expect_none("processes", other_processes())
            expect_none("sockets", open_sockets())
            say("machine", "hosts, guest and service ended: no process, no socket", Mark.GOOD)

    # -- looking ---------------------------------------------------------------------------

    def _hypervisor(self, host: DemoHost) -> LibvirtMoves:
        from lunport.hypervisor.migration import LibvirtMoves  # noqa: PLC0415 - libvirt

        connection = LibvirtConnection(host.libvirt.uri)
        self._stack.callback(lambda: connection.close(Deadline.after(_STEP_S)))
        return LibvirtMoves(connection)

    def _image(self, volume: Volume) -> Path:
        (found,) = self._service.places.images.glob(f"*{volume.id}*")
        return found

    def _written(self, volume: Volume) -> int:
        return read_growing_log(self._image(volume), Deadline.after(2.0))

    def _until_written(self, volume: Volume, more: int) -> None:
        deadline, begun = _soon(), self._written(volume)
        while (now := self._written(volume)) < begun + more:
            if deadline.has_passed():
                raise PromiseBroken("The guest writes", f"{now - begun} blocks in {_STEP_S:.0f} s")
            _pause.wait(_LOOK_S)

    def _say_count(self, where: str, volume: Volume, say: Say) -> None:
        count = self._written(volume) - sum(self._counts)
        self._counts.append(count)
        say("log", f"{count} blocks written {where}")

    def _allowed(self) -> set[object]:
        return {
            one for export in self._service.target_helper().exports() for one in export.initiators
        }

    def _say_target(self, host: DemoHost, say: Say) -> None:
        for export in self._service.target_helper().exports():
            if host.initiator in map(str, export.initiators):
                say("target", f"{export.iqn}")

    def _step(self, title: str) -> AbstractContextManager[Say]:
        return step(self._teller, title)


def _notes(folder: Path) -> list[str]:
    """List what a host remembers of guests, their volumes and moves."""
    kinds = ("attachments", "moves", "credentials", "owned")
    found = [path for kind in kinds for path in folder.rglob(f"guests/{kind}/*.json")]
    return sorted(str(path.relative_to(folder)) for path in found)


def _soon() -> Deadline:
    return Deadline.after(_STEP_S)
