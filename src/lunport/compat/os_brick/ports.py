"""What the connector asks of this host, so that a test can stand in for each part.

The real parts are made when they are first needed, one initiator for the whole process.
"""

from __future__ import annotations

import functools
from collections.abc import Callable
from dataclasses import dataclass, field
from pathlib import Path
from typing import Protocol

from lunport.core.change import Change
from lunport.core.connection_info import ConnectionInfo
from lunport.core.wwid import Wwid
from lunport.host.initiator_name import FILE
from lunport.host.systree import SysTree
from lunport.initiator.connector import Initiator


class Connected(Protocol):
    """A volume that is a disk of this host."""

    @property
    def path(self) -> str:
        """The device node."""

    @property
    def wwid(self) -> Wwid | None:
        """The identity that was verified, or seen."""


class VolumeInitiator(Protocol):
    """The verbs of :class:`lunport.initiator.connector.Initiator` that are used here."""

    def connect(self, info: ConnectionInfo) -> Connected:
        """Make the volume a disk of this host."""

    def disconnect(self, info: ConnectionInfo, *, force: bool = False) -> Change:
        """Take the disk away, and what only it needed."""

    def extend(self, info: ConnectionInfo) -> int:
        """Make the disk as large as its unit; return the bytes."""


@functools.cache
def _initiator_of_this_process() -> VolumeInitiator:
    return Initiator()


@dataclass(frozen=True, slots=True)
class HostParts:
    """One host, as far as a connector touches it. ``naming_s``: how long udev may take."""

    initiator: Callable[[], VolumeInitiator] = _initiator_of_this_process
    sys: SysTree = field(default_factory=SysTree)
    disk_links: Path = Path("/dev/disk")
    initiator_file: Path = FILE
    naming_s: float = 5.0
