"""An initiator library without a kernel, and a service without a network, that fail as told."""

from __future__ import annotations

from dataclasses import dataclass, field

from lunport.client.block_storage import Attachment
from lunport.core.change import Change
from lunport.core.connection_info import ConnectionInfo
from lunport.core.connector import Connector
from lunport.core.errors import AttachmentNotFound, DeviceMissing, LunportError
from lunport.core.host_connection import HostConnection, Phase, connection_key
from lunport.core.path_status import VolumePaths
from lunport.core.recovery_actions import Leftover, RecoveryAction
from lunport.core.scsi_address import ScsiAddress
from lunport.core.wwid import Wwid
from lunport.host.clock import Deadline
from lunport.initiator.connected_volume import ConnectedVolume
from lunport.initiator.multipath_policy import MultipathPolicy
from lunport.initiator.portal_choice import UnusedPath
from lunport.initiator.recover import RecoveryStep

WWID = Wwid("naa.60014050000000000000000000000001")
SIZE = 1 << 30


@dataclass(slots=True)
class PlayedInitiator:
    """Every volume becomes /dev/sda; ``failures`` are raised by the verb of that name, once."""

    failures: dict[str, BaseException] = field(default_factory=dict)
    entries: dict[str, HostConnection] = field(default_factory=dict)
    infos: list[ConnectionInfo] = field(default_factory=list)
    calls: list[str] = field(default_factory=list)
    actions: list[RecoveryAction] = field(default_factory=list)
    stuck: dict[RecoveryAction, LunportError] = field(default_factory=dict)
    wishes: list[tuple[bool, MultipathPolicy]] = field(default_factory=list)
    looks: list[tuple[VolumePaths, ...]] = field(default_factory=list)

    def connect(
        self,
        info: ConnectionInfo,
        *,
        multipath: bool = False,
        policy: MultipathPolicy | None = None,
        deadline: Deadline | None = None,
    ) -> ConnectedVolume:
        """Connect through the last path, the others refusing."""
        assert deadline is not None
        assert policy is not None
        self.wishes.append((multipath, policy))
        self._begin("connect", info)
        key = connection_key(info)
        change = Change.UNCHANGED if key in self.entries else Change.CHANGED
        used = info.paths[-1]
        self.entries[key] = HostConnection(
            key=key,
            phase=Phase.CONNECTED,
            paths=info.paths,
            used=used,
            iface="default",
            addressing_mode=info.addressing_mode,
            wwid=info.wwid,
            seen_wwid=WWID,
            volume_id=info.volume_id,
            holders=() if info.attachment_id is None else (info.attachment_id,),
            unit=ScsiAddress(2, 0, 0, 1),
            disk_name="sda",
            size_bytes=SIZE,
            boot_id="boot",
            since=1_800_000_000.0,
        )
        return ConnectedVolume(
            path="/dev/sda",
            wwid=WWID,
            size_bytes=SIZE,
            used=used,
            unit=ScsiAddress(2, 0, 0, 1),
            unused=tuple(UnusedPath(path, "refused", None) for path in info.paths[:-1]),
            change=change,
            choice_s=0.02,
            elapsed_s=0.31,
        )

    def disconnect(
        self,
        info: ConnectionInfo,
        connected: ConnectedVolume | None = None,
        *,
        force: bool = False,
        deadline: Deadline | None = None,
    ) -> Change:
        """Forget the entry."""
        del connected
        assert deadline is not None
        self._begin("force" if force else "disconnect", info)
        found = self.entries.pop(connection_key(info), None)
        return Change.UNCHANGED if found is None else Change.CHANGED

    def extend(self, info: ConnectionInfo, *, deadline: Deadline | None = None) -> int:
        """Tell twice the size."""
        assert deadline is not None
        self._begin("extend", info)
        if connection_key(info) not in self.entries:
            raise DeviceMissing(str(info.main_path), "the volume is not connected on this host")
        return 2 * SIZE

    def connections(self) -> tuple[HostConnection, ...]:
        """List the entries."""
        return tuple(self.entries.values())

    def foresee_connect(
        self,
        info: ConnectionInfo,
        *,
        multipath: bool = False,
        policy: MultipathPolicy | None = None,
    ) -> tuple[str, ...]:
        """Say a step for each path, and whether all are wanted."""
        assert policy is not None
        steps = tuple(f"Probe {path}." for path in info.paths)
        return (*steps, "Make a map over them.") if multipath else steps

    def foresee_disconnect(self, info: ConnectionInfo) -> tuple[str, ...]:
        """Say the step."""
        return (f"Remove the disk of {info.main_path}.",)

    def recover(
        self, *, remove_leftovers: bool = False, deadline: Deadline | None = None
    ) -> tuple[RecoveryStep, ...]:
        """Carry the actions out, but for the stuck ones."""
        assert deadline is not None
        self.calls.append("recover-all" if remove_leftovers else "recover")
        steps = []
        for action in self.actions:
            is_due = action.changes or (remove_leftovers and isinstance(action, Leftover))
            error = self.stuck.get(action)
            steps.append(RecoveryStep(action, is_due and error is None, error))
        return tuple(steps)

    def foresee_recover(self) -> tuple[RecoveryAction, ...]:
        """List the actions."""
        return tuple(self.actions)

    def paths(self) -> tuple[VolumePaths, ...]:
        """Show the next look of the list, and the last one from then on."""
        if not self.looks:
            return ()
        return self.looks.pop(0) if len(self.looks) > 1 else self.looks[0]

    def _begin(self, verb: str, info: ConnectionInfo) -> None:
        self.calls.append(verb)
        self.infos.append(info)
        failure = self.failures.pop(verb, None)
        if failure is not None:
            raise failure


@dataclass(slots=True)
class PlayedVolumeApi:
    """A volume service with one volume; ``failures`` are raised by the request of that name."""

    info: dict[str, object]
    endpoint: str = "http://san:8776"
    failures: dict[str, LunportError] = field(default_factory=dict)
    statuses: dict[str, str] = field(default_factory=dict)
    calls: list[str] = field(default_factory=list)

    def create_attachment(self, volume_id: str, deadline: Deadline) -> Attachment:
        """Reserve the volume."""
        del deadline
        self._begin("create")
        attachment_id = f"attachment-{len(self.calls)}"
        self.statuses[attachment_id] = "reserved"
        return self._show(attachment_id, volume_id)

    def get_attachment(self, attachment_id: str, deadline: Deadline) -> Attachment:
        """Show an attachment."""
        del deadline
        self._begin("get")
        return self._show(attachment_id)

    def connect_attachment(
        self, attachment_id: str, connector: Connector, deadline: Deadline
    ) -> Attachment:
        """Offer the volume."""
        del connector, deadline
        self._begin("offer")
        self._show(attachment_id)
        self.statuses[attachment_id] = "attaching"
        return self._show(attachment_id)

    def complete_attachment(self, attachment_id: str, deadline: Deadline) -> None:
        """Note that the volume is in use."""
        del deadline
        self._begin("complete")
        self._show(attachment_id)
        self.statuses[attachment_id] = "attached"

    def delete_attachment(self, attachment_id: str, deadline: Deadline) -> None:
        """Forget the attachment."""
        del deadline
        self._begin("delete")
        self._show(attachment_id)
        del self.statuses[attachment_id]

    def _show(self, attachment_id: str, volume_id: str = "volume-1") -> Attachment:
        status = self.statuses.get(attachment_id)
        if status is None:
            raise AttachmentNotFound(attachment_id)
        offered = {**self.info, "attachment_id": attachment_id} if status != "reserved" else {}
        return Attachment(attachment_id, status, volume_id, connection_info=offered)

    def _begin(self, request: str) -> None:
        self.calls.append(request)
        failure = self.failures.pop(request, None)
        if failure is not None:
            raise failure
