"""What the connector asks of this host, so that a test can stand in for each part.

The real parts are made when they are first needed, one initiator for the whole process.
"""

from __future__ import annotations

import functools
from collections.abc import Callable, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Protocol

from lunport.core.change import Change
from lunport.core.connection_info import ConnectionInfo
from lunport.core.target_path import TargetPath
from lunport.core.wwid import Wwid
from lunport.host.clock import Deadline
from lunport.host.initiator_name import FILE
from lunport.host.multipathd import Multipathd
from lunport.host.systree import SysTree
from lunport.initiator.connector import Initiator
from lunport.initiator.multipath_policy import MultipathPolicy
from lunport.initiator.path_source import FoundPaths, resolve_paths


class Connected(Protocol):
    """A volume that is a disk of this host."""

    @property
    def path(self) -> str:
        """The device node."""

    @property
    def wwid(self) -> Wwid | None:
        """The identity that was verified, or seen."""

    @property
    def map_name(self) -> str | None:
        """The device of the map over its paths ("dm-0"); None without one."""

    @property
    def note(self) -> str | None:
        """What is not as it was asked for."""


class MultipathDaemon(Protocol):
    """What is asked of multipathd."""

    def is_running(self) -> bool:
        """Tell whether it answers."""


class VolumeInitiator(Protocol):
    """The verbs of :class:`lunport.initiator.connector.Initiator` that are used here."""

    def connect(
        self, info: ConnectionInfo, *, multipath: bool, policy: MultipathPolicy
    ) -> Connected:
        """Make the volume a disk of this host, or a map over all its paths."""

    def disconnect(self, info: ConnectionInfo, *, force: bool = False) -> Change:
        """Take the disk away, and what only it needed."""

    def extend(self, info: ConnectionInfo) -> int:
        """Make the disk as large as its unit; return the bytes."""


@functools.cache
def _initiator_of_this_process() -> VolumeInitiator:
    return Initiator()


@dataclass(frozen=True, slots=True)
class HostParts:
    """One host, as far as a connector touches it.

    ``resolve`` gives paths by name their addresses; ``naming_s``: how long udev may take.
    """

    initiator: Callable[[], VolumeInitiator] = _initiator_of_this_process
    multipathd: MultipathDaemon = field(default_factory=Multipathd)
    sys: SysTree = field(default_factory=SysTree)
    disk_links: Path = Path("/dev/disk")
    initiator_file: Path = FILE
    resolve: Callable[[Sequence[TargetPath], Deadline], FoundPaths] = resolve_paths
    naming_s: float = 10.0
