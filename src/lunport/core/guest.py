"""A guest of this host, as its hypervisor tells of it. Decides nothing.

A guest that runs has a *live* definition, one that is kept over a shutdown a *persistent* one;
either may lack what the other has, since disks come and go while a guest runs.
"""

from __future__ import annotations

import enum
from collections.abc import Iterator
from dataclasses import dataclass

from lunport.core.domain_xml import DomainSummary
from lunport.core.guest_disk import GuestDisk


class GuestState(enum.StrEnum):
    """What a guest does now."""

    RUNNING = "running"
    PAUSED = "paused"
    SHUT_OFF = "shut off"
    CRASHED = "crashed"
    UNKNOWN = "unknown"


@dataclass(frozen=True, slots=True)
class Guest:
    """One guest. ``reason``: why it is in its state, in the hypervisor's word ("migrated").

    ``live`` is None where it does not run, ``persistent`` where it ends with its shutdown.
    """

    id: str
    name: str
    state: GuestState
    reason: str
    autostart: bool
    live: DomainSummary | None
    persistent: DomainSummary | None

    @property
    def is_active(self) -> bool:
        """Tell whether there is a process of it, running or paused."""
        return self.live is not None

    def live_disk(self, serial: str) -> GuestDisk | None:
        """Return the disk of a volume as the running guest has it."""
        return _find(self.live, serial)

    def persistent_disk(self, serial: str) -> GuestDisk | None:
        """Return the disk of a volume as the guest has it at its next start."""
        return _find(self.persistent, serial)

    def disk(self, serial: str) -> GuestDisk | None:
        """Return the disk of a volume, the live one first."""
        return self.live_disk(serial) or self.persistent_disk(serial)

    def targets(self) -> Iterator[str]:
        """Walk the names that disks have, live or persistent."""
        for summary in (self.live, self.persistent):
            if summary is not None:
                yield from (disk.target for disk in summary.disks)


def _find(summary: DomainSummary | None, serial: str) -> GuestDisk | None:
    disks = () if summary is None else summary.disks
    return next((disk for disk in disks if disk.serial == serial), None)
