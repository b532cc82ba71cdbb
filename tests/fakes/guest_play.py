"""A host with guests, all of it played but the journal: what attaching to guests is tested on."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass, field
from pathlib import Path

from lunport.agent.agent import Agent
from lunport.agent.guest_parts import GuestParts
from lunport.client.block_storage import Attachment, Volume
from lunport.core.attachment import AttachMode
from lunport.core.connection_info import ConnectionInfo
from lunport.core.connector import Connector
from lunport.core.errors import AttachmentNotFound, LunportError, VolumeNotFound
from lunport.core.iqn import Iqn
from lunport.core.portal import parse_portal
from lunport.core.probe_outcome import ProbeOutcome, Verdict
from lunport.host.attachment_notes import AttachmentNotes
from lunport.host.clock import Deadline
from lunport.host.file_locks import FileLocks
from lunport.host.guest_journal import GuestJournal
from lunport.initiator.portal_choice import PathChoice
from tests.fakes.fake_hypervisor import FakeHypervisor
from tests.fakes.played_host import WWID, PlayedInitiator

GUEST = "d0000000-0000-4000-8000-000000000001"
VOLUME = "58a84f6d-3f0c-4e19-a0af-eb657b790657"
SECRET = "Secret4Tests1234"
URI = "qemu:///system"
ENDPOINT = "http://san:8776"
INITIATOR = Iqn("iqn.2026-11.io.lunport.test:host")
INFO: dict[str, object] = {
    "target_portal": "10.0.1.2:3260",
    "target_iqn": "iqn.2026-11.io.lunport.test:v",
    "target_lun": 1,
    "target_portals": ["10.0.1.2:3260", "10.0.2.2:3260"],
    "target_iqns": ["iqn.2026-11.io.lunport.test:v"] * 2,
    "target_luns": [1, 1],
    "auth_method": "CHAP",
    "auth_username": "u",
    "auth_password": SECRET,
    "wwid": WWID,
}


class Killed(BaseException):
    """The process ends here: nothing of ours runs any more."""


@dataclass(slots=True)
class PlayedService:
    """A volume service; ``failures`` are raised by the request of that name, once.

    ``late_failures`` are raised when the request was carried out: the answer is lost.
    """

    endpoint: str = ENDPOINT
    info: dict[str, object] = field(default_factory=lambda: dict(INFO))
    volumes: dict[str, Volume] = field(
        default_factory=lambda: {VOLUME: Volume(VOLUME, "available", 1)}
    )
    attachments: dict[str, Attachment] = field(default_factory=dict)
    modes: dict[str, AttachMode] = field(default_factory=dict)
    connectors: list[Connector] = field(default_factory=list)
    failures: dict[str, LunportError] = field(default_factory=dict)
    late_failures: dict[str, BaseException] = field(default_factory=dict)
    calls: list[str] = field(default_factory=list)

    def get_volume(self, volume_id: str, deadline: Deadline) -> Volume:
        """Show a volume."""
        self._begin("volume")
        if volume_id not in self.volumes:
            raise VolumeNotFound(volume_id)
        return self.volumes[volume_id]

    def create_attachment(
        self,
        volume_id: str,
        deadline: Deadline,
        *,
        instance: str | None = None,
        mode: AttachMode = AttachMode.READ_WRITE,
    ) -> Attachment:
        """Reserve the volume for a guest."""
        self._begin("create")
        one = Attachment(f"attachment-{len(self.calls)}", "reserved", volume_id, instance)
        self.attachments[one.id] = one
        self.modes[one.id] = mode
        self._end("create")
        return one

    def get_attachment(self, attachment_id: str, deadline: Deadline) -> Attachment:
        """Show an attachment."""
        self._begin("get")
        return self._known(attachment_id)

    def list_attachments(self, deadline: Deadline) -> tuple[Attachment, ...]:
        """List all."""
        self._begin("list")
        return tuple(self.attachments.values())

    def connect_attachment(
        self, attachment_id: str, connector: Connector, deadline: Deadline
    ) -> Attachment:
        """Offer the volume."""
        self._begin("offer")
        self.connectors.append(connector)
        known = self._known(attachment_id)
        mode = self.modes[attachment_id].value
        info = {
            **self.info,
            "volume_id": known.volume_id,
            "attachment_id": attachment_id,
            "access_mode": mode,
        }
        self._put(known, "attaching", info)
        self._end("offer")
        return self.attachments[attachment_id]

    def complete_attachment(self, attachment_id: str, deadline: Deadline) -> None:
        """Note that it is in use."""
        self._begin("complete")
        known = self._known(attachment_id)
        self._put(known, "attached", known.connection_info)
        self._end("complete")

    def delete_attachment(self, attachment_id: str, deadline: Deadline) -> None:
        """Forget it."""
        self._begin("delete")
        self._known(attachment_id)
        del self.attachments[attachment_id]
        self._end("delete")

    def _put(self, known: Attachment, status: str, info: dict[str, object]) -> None:
        changed = Attachment(known.id, status, known.volume_id, known.instance, info)
        self.attachments[known.id] = changed

    def _known(self, attachment_id: str) -> Attachment:
        if attachment_id not in self.attachments:
            raise AttachmentNotFound(attachment_id)
        return self.attachments[attachment_id]

    def _begin(self, request: str) -> None:
        self.calls.append(request)
        failure = self.failures.pop(request, None)
        if failure is not None:
            raise failure

    def _end(self, request: str) -> None:
        failure = self.late_failures.pop(request, None)
        if failure is not None:
            raise failure


@dataclass(slots=True)
class GuestPlay:
    """One host: what is played of it, and the parts made of that.

    ``kill_at``: the step after which the process ends. ``steps``: those that were done.
    """

    folder: Path
    hypervisor: FakeHypervisor = field(default_factory=FakeHypervisor)
    service: PlayedService = field(default_factory=PlayedService)
    initiator: PlayedInitiator = field(default_factory=PlayedInitiator)
    choice_failure: LunportError | None = None
    dead: set[str] = field(default_factory=set)
    uri: str = URI
    kill_at: str | None = None
    steps: list[str] = field(default_factory=list)
    boot_id: str = "boot"
    has_multipath: Callable[[], bool] = lambda: False

    def parts(self) -> GuestParts:
        """Make the parts, as a process that just started does."""
        return GuestParts(
            uri=self.uri,
            hypervisor=self.hypervisor,
            host=Agent(self.initiator, self.has_multipath),
            api=lambda _endpoint: self.service,
            journal=GuestJournal(self.folder / "guests"),
            notes=AttachmentNotes(self.folder / "attachments"),
            locks=FileLocks(self.folder / "locks"),
            connector=self._connector,
            choose=self._choose,
            answers=lambda disk, _deadline: (
                disk.portal is not None and parse_portal(disk.portal).host not in self.dead
            ),
            name_of=lambda device, _deadline: f"/dev/disk/by-id/of{device.replace('/', '-')}",
            now=lambda: 1_800_000_000.0,
            boot_id=lambda: self.boot_id,
            on_step=self._step,
        )

    def left(self) -> dict[str, object]:
        """Name all that an attach could leave; empty when nothing is."""
        parts = self.parts()
        found: dict[str, object] = {
            "journal": [one.key for one in parts.journal.all()],
            "credentials": sorted(one.name for one in self.folder.glob("guests/credentials/*")),
            "owned": list(parts.journal.owned()),
            "notes": list(parts.notes.all()),
            "connections": list(self.initiator.entries),
            "attachments": list(self.service.attachments),
            "secrets": list(self.hypervisor.kept),
            "disks": [
                disk.serial
                for guest in self.hypervisor.known.values()
                for disks in (guest.live, guest.persistent)
                for disk in disks or ()
                if disk.serial is not None
            ],
        }
        return {what: left for what, left in found.items() if left}

    def _connector(self, multipath: bool | None) -> Connector:
        wants = multipath is not False and self.has_multipath()
        return Connector(INITIATOR, ip="192.0.2.7", host="kvm-1", multipath=wants)

    def _choose(self, info: ConnectionInfo, deadline: Deadline) -> PathChoice:
        if self.choice_failure is not None:
            raise self.choice_failure
        path = next(one for one in info.paths if one.portal.host not in self.dead)
        outcome = ProbeOutcome(Verdict.REACHABLE, path.portal, 0.01, wwid=info.wwid)
        return PathChoice(path, outcome, (), 0.01)

    def _step(self, name: str) -> None:
        self.steps.append(name)
        if name == self.kill_at:
            self.kill_at = None
            raise Killed
