"""The target helper: how images are offered over iSCSI. Version 2 of the protocol.

A helper owns the portals of its backend and the targets on them. It is told the desired
state as frozen values and makes it so; it keeps no state of its own, so after a restart
the same calls bring everything back. Every verb is idempotent and says whether it changed
anything. Verbs on one target are the caller's to keep apart, those on different ones are not.
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

PROTOCOL_VERSION = 2


@dataclass(frozen=True, slots=True)
class Unit:
    """One logical unit behind a target: its number, where its bytes are, who it says it is."""

    lun: int
    path: Path
    identity: LuIdentity


@dataclass(frozen=True, slots=True)
class Admission:
    """An initiator that may log in, its credentials, and the units it sees.

    ``luns`` None stands for all units that the target has when it is applied.
    """

    initiator: Iqn
    chap: Chap | None
    luns: frozenset[int] | None = None


@dataclass(frozen=True, slots=True)
class Export:
    """One target, as it shall be: its units, and exactly who may log in.

    ``tid`` is the number by which tgt knows the target; LIO ignores it (its TPGT is 1).
    Units are sorted by LUN, admissions by initiator, each named once. Without an admission
    nobody gets in.
    """

    iqn: Iqn
    tid: int
    units: tuple[Unit, ...]
    admissions: tuple[Admission, ...]

    @property
    def initiators(self) -> frozenset[Iqn]:
        """Name those that may log in."""
        return frozenset(one.initiator for one in self.admissions)


@dataclass(frozen=True, slots=True)
class SeenUnit:
    """A logical unit as the daemon shows it now; ``path`` is None when nothing is behind it."""

    lun: int
    path: Path | None


@dataclass(frozen=True, slots=True)
class SeenExport:
    """A target as the daemon shows it now. ``sessions`` counts logged-in sessions."""

    iqn: Iqn
    tid: int
    units: tuple[SeenUnit, ...]
    initiators: frozenset[Iqn]
    sessions: int


@dataclass(frozen=True, slots=True)
class HelperLimits:
    """What a helper cannot exceed, and what it can at all.

    What goes beyond is refused before anything is done, with the number.

    - ``min_lun`` to ``max_lun``: the numbers that its units can have.
    - ``max_units`` of one target, ``max_targets`` of one helper.
    - ``masks_units``: two initiators of one target may see different units.
    - ``own_credentials``: two initiators of one target may have different credentials.
    - ``grows_live``: ``resize`` reaches connected initiators.
    """

    max_lun: int
    max_units: int
    max_targets: int
    min_lun: int = 1
    masks_units: bool = False
    own_credentials: bool = False
    grows_live: bool = False


class TargetHelper(Protocol):
    """What a backend's target helper does. Third parties implement this."""

    protocol_version: int
    limits: HelperLimits

    @property
    def portals(self) -> Sequence[Portal]:
        """The configured portals, in configuration order."""

    @property
    def missing_portals(self) -> tuple[Portal, ...]:
        """The configured portals that the last start found no address for, in their order."""

    def start(self) -> Change:
        """Bring the daemon up with exactly the configured portals bound.

        A daemon of ours that still runs is taken over as it is, its exports live. A portal
        whose address is not on this host is left out and is in ``missing_portals``; another
        start binds it when the address is there.
        Raises: CommandMissing, TargetDaemonDown, PortalUnavailable (somebody else has the
        port, or there is no portal that can be bound); then nothing is left running that was
        not running before.
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
        """Make the target exist exactly so: units, identities, credentials, initiators, masks.

        Sessions that may stay are not touched; a unit too many is taken away from them. A
        unit whose image or identity is wrong is replaced only while no session uses the
        target. Undone when a step fails: a target that was not there before is not there after.
        Raises: InvalidInput (before anything is done), ExportFailed, TargetDaemonDown.
        """

    def unexport(self, iqn: Iqn, tid: int) -> Change:
        """Take the target away, sessions and credentials included.

        Raises: ExportFailed, TargetDaemonDown.
        """

    def map_unit(self, iqn: Iqn, tid: int, unit: Unit, initiators: frozenset[Iqn]) -> Change:
        """Put one more unit on a target that is there, seen by these admitted initiators.

        A helper that cannot mask shows it to every initiator of the target. Live sessions
        stay. Undone when a step fails.
        Raises: InvalidInput (before anything is done), ExportFailed (the LUN shows another
        image, there is no such target or initiator), TargetDaemonDown.
        """

    def unmap_unit(
        self, iqn: Iqn, tid: int, lun: int, initiators: frozenset[Iqn] | None = None
    ) -> Change:
        """Take a unit away, from these initiators only or (None) from all and off the target.

        The I/O of live sessions to that LUN fails from now on; their other units are not
        disturbed.
        Raises: InvalidInput (some initiators only, and it cannot mask), ExportFailed,
        TargetDaemonDown.
        """

    def allow(self, iqn: Iqn, tid: int, admission: Admission) -> Change:
        """Let an initiator log in, with these credentials and units.

        What changed is applied to an admission that is there already; its sessions stay.
        Raises: InvalidInput (before anything is done), ExportFailed, TargetDaemonDown.
        """

    def disallow(self, iqn: Iqn, tid: int, initiator: Iqn) -> Change:
        """Refuse an initiator from now on; its sessions are gone when this returns.

        Raises: ExportFailed, TargetDaemonDown.
        """

    def resize(self, iqn: Iqn, tid: int, lun: int, size_bytes: int) -> Change:
        """Have initiators find a unit's new size: connected ones, no session dropped.

        Precondition: the image has grown to ``size_bytes``.
        Raises: InvalidState (an initiator is connected, and the helper cannot grow live),
        ExportFailed (there is no such unit), TargetDaemonDown.
        """

    def exports(self) -> tuple[SeenExport, ...]:
        """List what the daemon shows now. Raises: TargetDaemonDown."""

    def compare(self, export: Export) -> tuple[str, ...]:
        """Say how the target differs from ``export``, a short sentence each; () when it is so.

        Changes nothing. Credentials are compared as far as the daemon lets them be known,
        and never shown. Raises: ExportFailed, TargetDaemonDown.
        """
