"""The two ways in which a guest is moved here, each measured: by Lunport, and by libvirt alone.

Ours is carried out in this process, as ``lunport guest migrate`` does, with every call of it
noted: to either hypervisor, to the other agent, to the service. The other one is the same call of
libvirt with the guest's definition as it is: its target lets both hosts in under one name.
"""

from __future__ import annotations

import os
import re
import threading
import time
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass, field, replace
from datetime import UTC, datetime
from functools import partial
from pathlib import Path
from typing import Any, Self

import libvirt

from lunport.agent.migrate_source import MoveWish, migrate
from lunport.bootstrap.demo.guest_image import read_growing_log
from lunport.cli.guest_parts import GuestCommandParts
from lunport.core.connection_info import parse_connection_info
from lunport.core.disk_source import make_disk_source
from lunport.core.guest_disk import DiskSettings, format_network_disk
from lunport.core.iqn import Iqn
from lunport.core.move_call import MoveOptions
from lunport.host.host_root import ENVIRONMENT_VARIABLE
from tests.daemons.moving_site import GUEST, NAME, MovingHost, MovingSite, soon
from tests.daemons.service_process import INITIATOR
from tests.daemons.tiny_guest import build_tiny_guest

OURS, PLAIN = "Lunport", "libvirt alone"
PLAIN_GUEST = "d0000000-0000-4000-8000-0000000000bb"
PLAIN_NAME = "stayer"
_PLAIN_SECRET = "d0000000-0000-4000-8000-0000000000cc"
_TIMED = re.compile(r"(\d{4}-\d\d-\d\dT\d\d:\d\d:\d\d\.\d+)Z")
_MOVING = "move"
_LOOKS = "move_progress"


@dataclass(frozen=True)
class Sample:
    """One move. ``between``: what of ours was under way from the guest's stop to its start."""

    who: str
    volumes: int
    total_s: float
    call_s: float
    downtime_ms: int
    stopped_ms: float
    steps: dict[str, float] = field(default_factory=dict)
    between: tuple[str, ...] = ()
    looks: int = 0

    def __str__(self) -> str:
        parts = f"{self.total_s:.2f} s, of which the call {self.call_s:.2f} s"
        own = f", {', '.join(self.between)}" if self.between else ""
        return f"{self.who}: {parts}, down {self.downtime_ms} ms{own}"


class Stops:
    """When guests stop at one libvirt and start at another, by their events.

    One for all guests: libvirt's binding takes a second listener to everybody for the first one.
    """

    def __init__(self, hosts: tuple[MovingHost, ...]) -> None:
        self._hosts = hosts
        self._seen: list[tuple[float, str, int, int]] = []
        self._ids: list[int] = []

    def __enter__(self) -> Self:
        for host in self._hosts:
            self._ids.append(
                host.connection.call(
                    "listening",
                    lambda one: one.domainEventRegisterAny(
                        None, libvirt.VIR_DOMAIN_EVENT_ID_LIFECYCLE, self._heard, None
                    ),
                    soon(),
                )
            )
        return self

    def __exit__(self, *_: object) -> None:
        for host, number in zip(self._hosts, self._ids, strict=True):
            host.connection.call("not listening", partial(_stop, number), soon())

    def _heard(self, _connection: Any, domain: Any, event: int, detail: int, _: object) -> None:
        self._seen.append((time.monotonic(), domain.UUIDString(), event, detail))

    def last(self, guest: str) -> tuple[float, float]:
        """Wait for both events of a guest's last move; return when they came."""
        deadline = soon(10)
        while not deadline.has_passed():
            mine = [one for one in self._seen if one[1] == guest]
            stops = [one[0] for one in mine if one[2] == libvirt.VIR_DOMAIN_EVENT_SUSPENDED]
            goes = [one[0] for one in mine if one[2] == libvirt.VIR_DOMAIN_EVENT_RESUMED]
            if stops and goes and goes[-1] > stops[-1]:
                return stops[-1], goes[-1]
            threading.Event().wait(0.02)
        raise AssertionError(f"no stop and start of {guest}: {self._seen}")

    def forget(self) -> None:
        """Begin anew."""
        self._seen.clear()


def _stop(number: int, connection: Any) -> None:
    connection.domainEventDeregisterAny(number)


class Noted:
    """Stands before a part of ours, and notes each call of it."""

    def __init__(self, part: object, name: str, calls: list[tuple[str, float, float]]) -> None:
        self._part = part
        self._name = name
        self._calls = calls

    def __getattr__(self, name: str) -> Any:
        found = getattr(self._part, name)
        if not callable(found):
            return found

        def noted(*arguments: Any, **named: Any) -> Any:
            began = time.monotonic()
            try:
                return found(*arguments, **named)
            finally:
                self._calls.append((f"{self._name}.{name}", began, time.monotonic()))

        return noted


class Side:
    """A guest that is moved to and fro, and stands still while the other one is."""

    guest = ""

    def __init__(self, site: MovingSite, stops: Stops) -> None:
        self.site = site
        self.stops = stops
        self.at = 0

    @contextmanager
    def _going(self) -> Iterator[None]:
        self._set_going(True)
        self.until_written()
        self.stops.forget()
        yield
        self.stand_still()

    def stand_still(self) -> None:
        """Let it wait for its turn."""
        self._set_going(False)

    def _set_going(self, wanted: bool) -> None:
        def act(connection: Any) -> None:
            domain = connection.lookupByUUIDString(self.guest)
            is_going = domain.state()[0] == libvirt.VIR_DOMAIN_RUNNING
            if wanted and not is_going:
                domain.resume()
            if is_going and not wanted:
                domain.suspend()

        self.site.hosts[self.at].connection.call("acting", act, soon())

    def _downtime_ms(self) -> int:
        def read(connection: Any) -> int:
            domain = connection.lookupByUUIDString(self.guest)
            return int(domain.jobStats(libvirt.VIR_DOMAIN_JOB_STATS_COMPLETED)["downtime"])

        return self.site.hosts[self.at].connection.call("reading", read, soon())

    def images(self) -> list[Path]:
        """Return where its volumes' bytes are."""
        raise NotImplementedError

    def until_written(self, more: int = 10) -> None:
        """Wait until it has written so much more."""
        deadline = soon()
        for image in self.images():
            begun = read_growing_log(image, soon(5))
            while read_growing_log(image, soon(5)) < begun + more:
                assert not deadline.has_passed(), f"{begun} blocks"
                threading.Event().wait(0.05)

    def expect_whole(self) -> None:
        """Insist on whole logs."""
        for image in self.images():
            read_growing_log(image, soon(5))


class Ours(Side):
    """The site's own guest, which Lunport moves."""

    guest = GUEST

    def __init__(self, site: MovingSite, stops: Stops) -> None:
        super().__init__(site, stops)
        self.stand_still()

    def images(self) -> list[Path]:
        return [self.site.image(volume) for volume in self.site.volumes]

    def measured(self, source: int) -> Sample:
        """Move it away from a host, and say how that went."""
        assert source == self.at
        here, there = self.site.hosts[source], self.site.hosts[1 - source]
        calls: list[tuple[str, float, float]] = []
        steps: list[tuple[str, float]] = []
        with self._going():
            parts = _parts_of(here, calls, steps)
            wish = MoveWish(NAME, there.name, self.site.endpoint, at=there.at)
            began, clock = time.monotonic(), time.time() - time.monotonic()
            moved = migrate(parts, wish, soon())
            ended = time.monotonic()
            assert (moved.left, moved.was_fenced) == ((), False), moved
            self.at = 1 - source
            window = self.stops.last(GUEST)
            downtime_ms = self._downtime_ms()
        call = next(one for one in calls if one[0] == f"libvirt.{_MOVING}")
        inside = [one for one in calls if one[1] < window[1] and one[2] > window[0]]
        names = [name for name, *_ in inside if not name.endswith((_LOOKS, f".{_MOVING}"))]
        names += [name for name, at in steps if window[0] < at < window[1]]
        logs = {"service": self.site.service.log_text, "other agent": there.log}
        names += _logged(logs, window[0] + clock, window[1] + clock)
        return Sample(
            OURS,
            len(self.site.volumes),
            ended - began,
            call[2] - call[1],
            downtime_ms,
            1000 * (window[1] - window[0]),
            {name: at - began for name, at in steps},
            tuple(names),
            sum(name.endswith(_LOOKS) for name, *_ in inside),
        )


class Plain(Side):
    """A guest whose disk is the same at both hosts, which libvirt moves as it is."""

    guest = PLAIN_GUEST

    def __enter__(self) -> Self:
        service, here = self.site.service, self.site.hosts[0]
        self._volume = service.create()
        status, answer = service.connect(self._volume)
        assert status == 200, answer
        info = parse_connection_info(answer["connection_info"])
        source = make_disk_source(info.main_path, Iqn(INITIATOR), info.chap)
        settings = DiskSettings(self._volume, "vda")
        disk = format_network_disk(settings, source, secret_id=_PLAIN_SECRET)
        for host in self.site.hosts:
            assert info.chap is not None
            secret = info.chap.initiator.password
            host.hypervisor.keep_secret(_PLAIN_SECRET, "bench", secret, soon())
        console = self.site.folder / "plain-console"
        xml = build_tiny_guest().domain_xml(PLAIN_NAME, PLAIN_GUEST, console, pause_us=5000)
        xml = xml.replace("</devices>", f"{disk}</devices>")
        here.connection.call("defining a guest", lambda one: one.defineXML(xml), soon())
        here.hypervisor.start(PLAIN_GUEST, soon())
        self.until_written(20)
        self.stand_still()
        return self

    def __exit__(self, *_: object) -> None:
        self.site.hosts[self.at].hypervisor.discard(PLAIN_GUEST, soon())

    def images(self) -> list[Path]:
        return [self.site.image(self._volume)]

    def measured(self, source: int) -> Sample:
        """Move it away from a host, and say how that went."""
        assert source == self.at
        here, there = self.site.hosts[source], self.site.hosts[1 - source]
        with self._going():
            began = time.monotonic()
            own = here.hypervisor.definitions(PLAIN_GUEST, soon())
            called = time.monotonic()
            uri = there.libvirt.migration_uri
            here.hypervisor.move(PLAIN_GUEST, uri, own, MoveOptions())
            ended = time.monotonic()
            self.at = 1 - source
            window = self.stops.last(PLAIN_GUEST)
            downtime_ms = self._downtime_ms()
        stopped_ms = 1000 * (window[1] - window[0])
        return Sample(PLAIN, 1, ended - began, ended - called, downtime_ms, stopped_ms)


def _parts_of(
    host: MovingHost, calls: list[tuple[str, float, float]], steps: list[tuple[str, float]]
) -> Any:
    """Make what the command works with, each call of it noted."""
    for name in (ENVIRONMENT_VARIABLE, "LUNPORT_TLS", "LUNPORT_LIBVIRT"):
        os.environ[name] = host.agent.environment[name]
    parts = GuestCommandParts().migration_parts(host.libvirt.uri, None, None)
    hypervisor: Any = Noted(parts.hypervisor, "libvirt", calls)
    guests = replace(
        parts.guests,
        hypervisor=hypervisor,
        on_step=lambda name: steps.append((name, time.monotonic())),
    )
    moves, peer = parts.moves, parts.peer
    return replace(
        parts,
        host=host.name,
        guests=guests,
        hypervisor=hypervisor,
        moves=lambda endpoint: Noted(moves(endpoint), "service", calls),
        peer=lambda name, at: Noted(peer(name, at), "agent", calls),
    )


def _logged(logs: dict[str, str], begin: float, end: float) -> list[str]:
    """Return what was logged within these times."""
    found = []
    for name, text in logs.items():
        for line in text.splitlines():
            stamp = _TIMED.search(line)
            if stamp is None:
                continue
            at = datetime.fromisoformat(stamp[1]).replace(tzinfo=UTC).timestamp()
            if begin < at < end:
                found.append(f"{name}: {line[:80]}")
    return found
