"""Real guests of a real libvirt, for tests: two tiny ones, and what they say on their consoles."""

from __future__ import annotations

import contextlib
import threading
from collections.abc import Iterator
from dataclasses import dataclass, field
from pathlib import Path

from lunport.core.guest import Guest
from lunport.host.clock import Deadline
from lunport.host.loop_device import attached
from lunport.hypervisor.connection import Keepalive, LibvirtConnection
from lunport.hypervisor.guests import LibvirtGuests, UnplugPatience
from tests.contract.hypervisor_suite import MIB
from tests.daemons.libvirt_host import LibvirtHost
from tests.daemons.tiny_guest import TinyGuest, build_tiny_guest

RUNNING = ("d0000000-0000-4000-8000-000000000001", "runs")
OFF = ("d0000000-0000-4000-8000-000000000002", "is-off")
WAIT_S = 60.0
_LOOK_S = 0.05
_pause = threading.Event()


def soon() -> Deadline:
    """Give a busy machine time enough."""
    return Deadline.after(WAIT_S)


@dataclass(slots=True)
class GuestBench:
    """One libvirt with two tiny guests, one of them running, and a loop device for them."""

    host: LibvirtHost
    image: TinyGuest
    loop: Path
    hypervisor: LibvirtGuests
    running: tuple[str, str] = RUNNING
    off: tuple[str, str] = OFF
    read: dict[str, int] = field(default_factory=dict)

    # -- for the contract ------------------------------------------------------------------

    def device(self) -> str:
        """Return the loop device."""
        return str(self.loop)

    def stop(self, guest_id: str) -> None:
        """Pull the plug."""
        self.hypervisor.connection.call(
            "stopping a guest", lambda one: one.lookupByUUIDString(guest_id).destroy(), soon()
        )

    def seen_size(self, serial: str) -> int:
        """Wait for the guest to say that it has a disk, and how large that is.

        By which name is the guest's business: it counts as disks come.
        """
        assert self.guest().live_disk(serial) is not None
        return self.until_sized("DISK")

    # -- guests ----------------------------------------------------------------------------

    def guest(self, guest_id: str = RUNNING[0]) -> Guest:
        """Look at a guest."""
        return self.hypervisor.guest(guest_id, soon())

    def define(self, guest_id: str, name: str) -> None:
        """Define a tiny guest."""
        xml = self.image.domain_xml(name, guest_id, self.console(name))
        self.hypervisor.connection.call("defining a guest", lambda one: one.defineXML(xml), soon())

    def boot(self, guest_id: str, name: str) -> None:
        """Start a guest and wait until it is up."""
        self.console(name).unlink(missing_ok=True)
        self.read.pop(name, None)
        self.hypervisor.start(guest_id, soon())
        self.until_said("READY", name)

    def console(self, name: str) -> Path:
        """Return the file of a guest's console."""
        return self.host.folder / f"{name}.console"

    def until_said(self, words: str, name: str = RUNNING[1]) -> str:
        """Wait for a line of a guest's console behind those waited for before; return it."""
        deadline = soon()
        while not deadline.has_passed():
            for line in self._new_lines(name):
                if words in line:
                    return line
            _pause.wait(_LOOK_S)
        raise AssertionError(f"the guest never said {words!r}: {self._text(name)}")

    def until_sized(self, word: str, name: str = RUNNING[1]) -> int:
        """Wait for ``DISK`` or ``SIZE``; return the bytes."""
        return int(self.until_said(f"{word} ", name).split()[2])

    def skip(self, name: str = RUNNING[1]) -> None:
        """Take all that was said for heard."""
        for _ in self._new_lines(name):
            pass

    def _new_lines(self, name: str) -> Iterator[str]:
        text = self._text(name)
        at = self.read.get(name, 0)
        while (end := text.find("\n", at)) >= 0:
            line, at = text[at:end], end + 1
            self.read[name] = at
            yield line.strip()

    def _text(self, name: str) -> str:
        file = self.console(name)
        return file.read_text(errors="replace") if file.exists() else ""


@contextlib.contextmanager
def guest_bench() -> Iterator[GuestBench]:
    """Start all of it, and take it down again."""
    image = build_tiny_guest()
    with LibvirtHost() as host:
        disk = host.folder / "loop.img"
        with disk.open("wb") as file:
            file.truncate(16 * MIB)
        with attached(disk, soon()) as loop:
            connection = LibvirtConnection(host.uri, keepalive=Keepalive(1, 3))
            hypervisor = LibvirtGuests(connection, UnplugPatience(5.0))
            bench = GuestBench(host, image, loop, hypervisor)
            try:
                bench.define(*RUNNING)
                bench.define(*OFF)
                bench.boot(*RUNNING)
                yield bench
            finally:
                connection.close(Deadline.after(10))
