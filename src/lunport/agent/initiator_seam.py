"""What the agent uses of the initiator library: the seam at which tests put another one."""

from __future__ import annotations

from typing import Protocol

from lunport.core.change import Change
from lunport.core.connection_info import ConnectionInfo
from lunport.core.host_connection import HostConnection
from lunport.core.path_status import VolumePaths
from lunport.host.clock import Deadline
from lunport.initiator.connected_volume import ConnectedVolume
from lunport.initiator.multipath_policy import MultipathPolicy
from lunport.initiator.recover import RecoveryStep


class AgentInitiator(Protocol):
    """What is used of the initiator library."""

    def connect(
        self,
        info: ConnectionInfo,
        *,
        multipath: bool = False,
        policy: MultipathPolicy | None = None,
        deadline: Deadline | None = None,
    ) -> ConnectedVolume:
        """Make the volume a disk."""

    def disconnect(
        self,
        info: ConnectionInfo,
        connected: ConnectedVolume | None = None,
        *,
        force: bool = False,
        deadline: Deadline | None = None,
    ) -> Change:
        """Take the disk away."""

    def extend(self, info: ConnectionInfo, *, deadline: Deadline | None = None) -> int:
        """Make the disk as large as its unit."""

    def connections(self) -> tuple[HostConnection, ...]:
        """List what the journal says is connected."""

    def paths(self) -> tuple[VolumePaths, ...]:
        """Show the paths of each connection."""

    def recover(
        self, *, remove_leftovers: bool = False, deadline: Deadline | None = None
    ) -> tuple[RecoveryStep, ...]:
        """Finish or undo what was cut off."""
