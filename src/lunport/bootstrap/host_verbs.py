"""What a host does with volumes: the seam between the commands and whoever carries it out."""

from __future__ import annotations

from typing import Protocol

from lunport.agent.agent import NO_WISH
from lunport.agent.path_wish import PathWish
from lunport.agent.recovery_line import RecoveryLine
from lunport.core.change import Change
from lunport.core.connection_info import ConnectionInfo
from lunport.core.host_connection import HostConnection
from lunport.core.path_status import VolumePaths
from lunport.host.clock import Deadline
from lunport.initiator.connected_volume import ConnectedVolume


class HostVerbs(Protocol):
    """The verbs, here or in the agent."""

    def connect(
        self,
        info: ConnectionInfo,
        *,
        multipath: bool | None = None,
        wish: PathWish = NO_WISH,
        deadline: Deadline,
    ) -> ConnectedVolume:
        """Make the volume a disk."""

    def disconnect(
        self, info: ConnectionInfo, *, force: bool = False, deadline: Deadline
    ) -> Change:
        """Take the disk away."""

    def extend(self, info: ConnectionInfo, *, deadline: Deadline) -> int:
        """Make the disk as large as its unit."""

    def recover(
        self, *, remove_leftovers: bool = False, deadline: Deadline
    ) -> tuple[RecoveryLine, ...]:
        """Finish or undo what was cut off."""

    def connections(self) -> tuple[HostConnection, ...]:
        """List what is connected."""

    def paths(self) -> tuple[VolumePaths, ...]:
        """Show the paths of each connection."""
