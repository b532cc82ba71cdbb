"""What ``lunport host`` works with: the host's initiator, the notes, the volume service.

One value that a test replaces; everything is made when it is first asked for.
"""

from __future__ import annotations

import socket
import threading
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from functools import partial
from typing import Protocol

from lunport.bootstrap.host_volumes import DiskInitiator, HostVolumes, Locks, VolumeApi
from lunport.core.connection_info import ConnectionInfo
from lunport.core.connector import Connector
from lunport.core.errors import JournalDamaged
from lunport.core.path_status import VolumePaths
from lunport.core.recovery_actions import RecoveryAction
from lunport.core.secret import Secret
from lunport.host.attachment_notes import AttachmentNotes
from lunport.host.file_locks import FileLocks
from lunport.host.host_root import run_directory
from lunport.host.local_address import local_address
from lunport.initiator.connector import Initiator
from lunport.initiator.initiator_host import InitiatorHost
from lunport.initiator.journal import Journal
from lunport.initiator.recover import RecoveryStep


class HostInitiator(DiskInitiator, Protocol):
    """What the commands use of the initiator library."""

    def foresee_connect(self, info: ConnectionInfo) -> tuple[str, ...]:
        """Say what a connect would do."""

    def foresee_disconnect(self, info: ConnectionInfo) -> tuple[str, ...]:
        """Say what a disconnect would do."""

    def recover(self, *, remove_leftovers: bool = False) -> tuple[RecoveryStep, ...]:
        """Finish or undo what was cut off."""

    def foresee_recover(self) -> tuple[RecoveryAction, ...]:
        """Say what a recovery would do, and what no journal knows."""

    def paths(self) -> tuple[VolumePaths, ...]:
        """Show the paths of each connection, wanted and achieved."""


@dataclass(frozen=True, slots=True)
class HostParts:
    """The real parts of this host."""

    def initiator(self) -> HostInitiator:
        """Make the initiator. Raises: CommandMissing, HostLacks."""
        return Initiator()

    def damages(self) -> Sequence[JournalDamaged]:
        """List what of the journal can't be read."""
        return Journal().damages()

    def notes(self) -> AttachmentNotes:
        """Return the notes of attachments."""
        return AttachmentNotes()

    def locks(self) -> Locks:
        """Return the locks that all processes of the host share."""
        return FileLocks(run_directory() / "locks")

    def api(self, endpoint: str, token: Secret | None) -> VolumeApi:
        """Make a client of the volume service."""
        from lunport.client.block_storage import BlockStorage  # noqa: PLC0415 - only now needed

        return BlockStorage(endpoint, token=token)

    def connector(self) -> Connector:
        """Say what this host is to the storage side. Raises: InitiatorDown, InvalidIqn."""
        name = InitiatorHost().initiator_name()
        return Connector(initiator=name, ip=local_address(), host=socket.gethostname())

    def host_name(self) -> str:
        """Return what this host is called."""
        return socket.gethostname()

    def pause(self, seconds: float) -> Callable[[], bool]:
        """Return a wait of so long, which tells whether no more is wanted."""
        return partial(threading.Event().wait, seconds)

    def volumes(self, endpoint: str, token: Secret | None) -> HostVolumes:
        """Join the service and the initiator."""
        return HostVolumes(self.initiator(), self.api(endpoint, token), self.notes(), self.locks())
