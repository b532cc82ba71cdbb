"""The demo's act: one volume, three portals, two of them broken, and not a byte lost.

Runs inside the demo's own network, mounts and processes (:mod:`lunport.bootstrap.demo.stage`)
and reads from top to bottom as the job goes. Each step uses the parts as an operator would:
the service over HTTP, its portals over iSCSI, QEMU as a program. Never repairs, never repeats:
what goes wrong ends the demo.
"""

from __future__ import annotations

import hashlib
import os
from collections.abc import Mapping, Sequence
from contextlib import AbstractContextManager
from functools import partial
from pathlib import Path

from lunport.bootstrap.demo.faults import Fault, clear_faults, set_faults
from lunport.bootstrap.demo.leftovers import (
    expect_none,
    files_below,
    open_sockets,
    other_processes,
)
from lunport.bootstrap.demo.service import LISTEN, DemoService, Places
from lunport.bootstrap.demo.telling import Mark, Say, Teller, step
from lunport.bootstrap.demo.watched import run_watched
from lunport.client.block_storage import Attachment, Volume
from lunport.core.chap import Chap
from lunport.core.connection_info import ConnectionInfo
from lunport.core.connector import Connector
from lunport.core.disk_source import make_disk_source
from lunport.core.errors import HostLacks, PromiseBroken
from lunport.core.iqn import parse_iqn
from lunport.core.portal import Portal
from lunport.core.size import format_size
from lunport.core.wwid import Wwid
from lunport.host import nftables, qemu_img
from lunport.host.clock import Deadline
from lunport.host.dead_portals import DeadPortals
from lunport.host.host_root import ENVIRONMENT_VARIABLE
from lunport.host.iproute import set_up_loopback
from lunport.initiator.portal_choice import PathChoice, UnusedPath, choose_path

PORTALS = (Portal("10.0.1.2"), Portal("10.0.2.2"), Portal("10.0.3.2"))
MAIN, SECOND, THIRD = PORTALS
INITIATOR = parse_iqn("iqn.2026-11.io.lunport:demo-host")
VOLUME_GIB = 1
DATA_BYTES = 64 << 20
_BLOCK_BYTES = 1 << 20
_STEP_S = 20.0


def prepare_network(folder: Path, addresses: Sequence[str] = ()) -> None:
    """Set up the network, and check before anything begins that the host has what is needed.

    ``addresses``: what is needed beside the portals'.

    Raises: HostLacks, CommandMissing.
    """
    os.environ[ENVIRONMENT_VARIABLE] = str(Places(folder).host_root)
    deadline = Deadline.after(_STEP_S)
    set_up_loopback([*(portal.host for portal in PORTALS), *addresses], deadline)
    set_faults({MAIN: Fault.SWALLOWS, SECOND: Fault.REFUSES}, deadline)
    clear_faults(deadline)
    if not qemu_img.has_iscsi(deadline):
        raise HostLacks(
            "This QEMU has no initiator of its own",
            "block-iscsi.so is missing",
            f"apt-get install {qemu_img.ISCSI_PACKAGE}",
        )


def play(folder: Path, teller: Teller) -> None:
    """Play the act. Raises: PromiseBroken, and whatever goes wrong on the way."""
    teller.act("Lunport: one volume, three portals, two of them broken")
    story = _Story(folder, teller)
    story.start_service()
    volume = story.create_volume()
    story.break_portals({MAIN: Fault.SWALLOWS, SECOND: Fault.REFUSES}, "Two portals break")
    attachment, connection = story.attach(volume)
    first = story.choose(connection, "A path is chosen")
    story.complete(volume, attachment)
    written = story.write(connection, first)
    used = first.path.portal
    story.break_portals(
        {MAIN: Fault.SWALLOWS, used: Fault.SWALLOWS}, "Fortune turns: one heals, one dies"
    )
    second = story.choose(connection, "Another path is chosen")
    if second.path.portal == used:
        raise PromiseBroken("Another portal is used", f"{used} was chosen again")
    story.read_back(connection, second, written)
    story.detach_and_delete(volume, attachment)
    story.show_that_nothing_is_left()


class _Story:
    """The steps, in the order in which they are told."""

    def __init__(self, folder: Path, teller: Teller) -> None:
        self._teller = teller
        self._places = Places(folder)
        self._service = DemoService(self._places, PORTALS)
        self._client = self._service.client
        self._memory = DeadPortals(self._places.host_root / "run" / "dead-portals")

    def start_service(self) -> None:
        with self._step("The service starts") as say:
            self._service.start(_soon())
            say("service", f"Block Storage v3 on http://{LISTEN}, SQLite, volumes as files")
            say("portals", f"tgtd on {', '.join(map(str, PORTALS))}")

    def create_volume(self) -> Volume:
        with self._step("A volume is created") as say:
            volume = self._client.create_volume("demo", VOLUME_GIB, _soon())
            volume = self._client.wait_for_volume(volume.id, "available", _soon())
            say("volume", f"{volume.id}, {volume.size} GiB, {volume.status}")
        return volume

    def break_portals(self, faults: Mapping[Portal, Fault], title: str) -> None:
        with self._step(title) as say:
            set_faults(faults, _soon())
            for portal in PORTALS:
                match faults.get(portal):
                    case Fault.SWALLOWS:
                        say(str(portal), f"swallows every packet{_role(portal)}", Mark.BAD)
                    case Fault.REFUSES:
                        say(str(portal), f"refuses connections{_role(portal)}", Mark.BAD)
                    case None:
                        say(str(portal), f"works{_role(portal)}", Mark.GOOD)

    def attach(self, volume: Volume) -> tuple[Attachment, ConnectionInfo]:
        with self._step("A host asks for the volume") as say:
            attachment = self._client.create_attachment(volume.id, _soon())
            connector = Connector(initiator=INITIATOR, ip="127.0.0.1", host="demo-host")
            attachment = self._client.connect_attachment(attachment.id, connector, _soon())
            connection = attachment.connection
            if connection is None:
                raise PromiseBroken("A connected host is told how", f"{attachment.id} has no paths")
            say("target", str(connection.main_path.iqn))
            say("paths", f"{len(connection.paths)}, main first; lun {connection.main_path.lun}")
            say("allowed", str(INITIATOR))
            say("CHAP", f"one secret for this volume, user {_chap(connection).initiator.username}")
        return attachment, connection

    def choose(self, connection: ConnectionInfo, title: str) -> PathChoice:
        with self._step(title) as say:
            choice = choose_path(
                connection.paths,
                INITIATOR,
                chap=connection.chap,
                wwid=_identity(connection),
                memory=self._memory,
                deadline=_soon(),
            )
            _tell_choice(choice, connection, say)
        return choice

    def complete(self, volume: Volume, attachment: Attachment) -> None:
        with self._step("The host says that it uses the volume") as say:
            self._client.complete_attachment(attachment.id, _soon())
            volume = self._client.wait_for_volume(volume.id, "in-use", _soon())
            say("volume", volume.status)

    def write(self, connection: ConnectionInfo, choice: PathChoice) -> str:
        """Return the digest of what was written."""
        source = self._places.folder / "written"
        with self._step(f"Known data are made: {format_size(DATA_BYTES)}") as say:
            digest = _make_data(source)
            say("SHA-256", _short(digest))
        disk = make_disk_source(choice.path, INITIATOR, connection.chap)
        chap = _chap(connection)
        with self._step(f"QEMU writes them through {choice.path.portal}") as say:
            _, seen = run_watched(
                partial(qemu_img.write_unit, source, disk, chap.initiator.password, _soon()),
                chap.initiator.password,
            )
            say("data", f"{format_size(DATA_BYTES)}, written and flushed")
            _tell_arguments(seen, say)
        source.unlink()
        return digest

    def read_back(self, connection: ConnectionInfo, choice: PathChoice, digest: str) -> None:
        disk = make_disk_source(choice.path, INITIATOR, connection.chap)
        chap = _chap(connection)
        copy = self._places.folder / "read"
        with self._step(f"QEMU reads them back through {choice.path.portal}") as say:
            read = partial(
                qemu_img.read_unit, disk, DATA_BYTES, copy, chap.initiator.password, _soon()
            )
            _, seen = run_watched(read, chap.initiator.password)
            size_bytes, found = copy.stat().st_size, _digest(copy)
            if size_bytes != DATA_BYTES or found != digest:
                raise PromiseBroken("What was written is read", f"{size_bytes} bytes, {found}")
            say("SHA-256", _short(found))
            say("data", f"{format_size(size_bytes)}, the same to the last byte", Mark.GOOD)
            _tell_arguments(seen, say)
        copy.unlink()

    def detach_and_delete(self, volume: Volume, attachment: Attachment) -> None:
        with self._step("The host lets go, the volume is deleted") as say:
            self._client.delete_attachment(attachment.id, _soon())
            self._client.wait_for_volume(volume.id, "available", _soon())
            say("attachment", "gone, and with it the export and its credentials")
            self._client.delete_volume(volume.id, _soon())
            self._client.wait_until_deleted(volume.id, _soon())
            say("volume", "gone")

    def show_that_nothing_is_left(self) -> None:
        with self._step("Nothing is left") as say:
            expect_none("volumes", self._client.list_volumes(_soon()))
            expect_none("attachments", self._client.list_attachments(_soon()))
            expect_none("targets", self._service.target_helper().exports())
            expect_none("images", files_below(self._places.images))
            expect_none("secrets", files_below(self._places.host_root / "run" / "secrets"))
            say("service", "no volume, attachment, target, image or secret", Mark.GOOD)
            status = self._service.stop(_soon())
            if status != 0:
                raise PromiseBroken("The service ends well", self._service.last_words())
            clear_faults(_soon())
            expect_none("processes", other_processes())
            expect_none("sockets", open_sockets())
            rules = nftables.read_ruleset(_soon())
            expect_none("rules", rules.splitlines())
            say("host", "service and tgtd ended: no process, socket or rule", Mark.GOOD)

    def _step(self, title: str) -> AbstractContextManager[Say]:
        return step(self._teller, title)


def _tell_choice(choice: PathChoice, connection: ConnectionInfo, say: Say) -> None:
    reasons = {unused.path: unused for unused in choice.unused}
    for path in connection.paths:
        if path == choice.path:
            outcome = choice.outcome
            rtt = "" if outcome.connect_s is None else f", round trip {_ms(outcome.connect_s)}"
            words = f"chosen: healthy after {_ms(outcome.elapsed_s)}{rtt}"
            say(str(path.portal), words, Mark.GOOD)
        else:
            _tell_unused(reasons[path], say)
    say("identity", f"{choice.outcome.wwid}, as promised", Mark.GOOD)


def _tell_unused(unused: UnusedPath, say: Say) -> None:
    outcome = unused.outcome
    if outcome is None:
        say(str(unused.path.portal), unused.reason, Mark.BAD)
    elif outcome.is_healthy:
        say(str(unused.path.portal), unused.reason)
    else:
        words = f"{outcome.verdict.value} after {_ms(outcome.elapsed_s)}"
        say(str(unused.path.portal), words, Mark.BAD)


def _tell_arguments(seen: Mapping[str, int], say: Say) -> None:
    if not seen.get(qemu_img.PROGRAM):
        raise PromiseBroken("QEMU's arguments were looked at", f"only {sorted(seen)} were seen")
    programs = ", ".join(sorted(seen))
    say("CHAP secret", f"in no argument of {programs} ({sum(seen.values())} looks)", Mark.GOOD)


def _role(portal: Portal) -> str:
    return " (the main portal)" if portal == MAIN else ""


def _identity(connection: ConnectionInfo) -> Wwid:
    if connection.wwid is None:
        raise PromiseBroken("The service tells the unit's identity", "there is no wwid")
    return connection.wwid


def _chap(connection: ConnectionInfo) -> Chap:
    if connection.chap is None:
        raise PromiseBroken("Nobody gets in without CHAP", "the service sends no credentials")
    return connection.chap


def _make_data(file: Path) -> str:
    """Write blocks of which no two are alike; return their digest."""
    digest = hashlib.sha256()
    with file.open("wb") as stream:
        for number in range(DATA_BYTES // _BLOCK_BYTES):
            block = hashlib.shake_128(f"lunport demo {number}".encode()).digest(_BLOCK_BYTES)
            digest.update(block)
            stream.write(block)
    return digest.hexdigest()


def _digest(file: Path) -> str:
    with file.open("rb") as stream:
        return hashlib.file_digest(stream, "sha256").hexdigest()


def _short(digest: str) -> str:
    return f"{digest[:16]}...{digest[-16:]}"


def _ms(seconds: float) -> str:
    return f"{seconds * 1000:.1f} ms" if seconds < 1 else f"{seconds:.2f} s"


def _soon() -> Deadline:
    return Deadline.after(_STEP_S)
