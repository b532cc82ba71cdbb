"""The target helper: how images are offered over iSCSI.

A helper owns the portals of its backend and the targets on them. It is told the desired
state as frozen values and makes it so; it keeps no state of its own, so after a restart
the same calls bring everything back. Every verb is idempotent and says whether it changed
anything.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Protocol

from lunport.core.change import Change
from lunport.core.chap import Chap
from lunport.core.identity import LuIdentity
from lunport.core.iqn import Iqn
from lunport.core.portal import Portal
from lunport.host.clock import Deadline
from lunport.host.tasks import Stop


@dataclass(frozen=True, slots=True)
class Export:
    """One logical unit behind one target, as it shall be.

    ``tid`` is the number by which tgt knows the target (a TPGT elsewhere). ``initiators``
    are exactly those that may log in; an empty set admits nobody.
    """

    iqn: Iqn
    tid: int
    lun: int
    path: Path
    identity: LuIdentity
    chap: Chap | None
    initiators: frozenset[Iqn]


@dataclass(frozen=True, slots=True)
class SeenExport:
    """A target as the daemon shows it now; ``path`` is None when it has no logical unit."""

    iqn: Iqn
    tid: int
    path: Path | None
    initiators: frozenset[Iqn]
    sessions: int


class TargetHelper(Protocol):
    """What a backend's target helper does. Third parties implement this."""

    protocol_version: int
    max_lun: int

    @property
    def portals(self) -> Sequence[Portal]:
        """The configured portals, in configuration order."""

    def start(self) -> Change:
        """Bring the daemon up with exactly the configured portals bound.

        A daemon of ours that still runs is taken over as it is, its exports live.
        Raises: CommandMissing, TargetDaemonDown, PortalUnavailable (nothing is left running
        that was not running before).
        """

    def is_alive(self) -> bool:
        """Tell whether the daemon answers now."""

    def wait_for_exit(self, deadline: Deadline, stop: Stop | None = None) -> bool:
        """Wait for the daemon's end; True as soon as it has ended, or when it does not run.

        A helper without a daemon waits for the deadline and says False.
        """

    def stop(self) -> Change:
        """Take every target away and end the daemon, if it is ours. Raises: BackendError."""

    def export(self, export: Export) -> Change:
        """Make the target exist exactly so: name, LUN, identity, credentials, initiators.

        Initiators and credentials are changed on a live target without touching other
        sessions; a wrong backing file or identity is replaced only while nobody is logged
        in. Undone when a step fails: a target that was not there before is not there after.
        Raises: ExportFailed, TargetDaemonDown.
        """

    def unexport(self, iqn: Iqn, tid: int) -> Change:
        """Take the target away, sessions and credentials included.

        Raises: ExportFailed, TargetDaemonDown.
        """

    def allow(self, iqn: Iqn, tid: int, initiator: Iqn) -> Change:
        """Let one more initiator log in. Raises: ExportFailed, TargetDaemonDown."""

    def disallow(self, iqn: Iqn, tid: int, initiator: Iqn) -> Change:
        """Refuse an initiator from now on, and drop its sessions.

        Raises: ExportFailed, TargetDaemonDown.
        """

    def exports(self) -> tuple[SeenExport, ...]:
        """List what the daemon shows now. Raises: TargetDaemonDown."""
