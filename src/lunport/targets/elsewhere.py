"""No targets of ours: the units are offered by storage that somebody else administers.

Every verb changes nothing and succeeds. That a host is let in, and that it is kept out once it
has let go, is the doing of whoever runs that storage; here it is only kept in the records.
"""

from __future__ import annotations

import select
from collections.abc import Sequence

from lunport.core.change import Change
from lunport.core.iqn import Iqn
from lunport.core.portal import Portal
from lunport.core.target_path import MAX_LUN
from lunport.host.clock import Deadline
from lunport.host.tasks import Stop
from lunport.targets.helper import (
    PROTOCOL_VERSION,
    Admission,
    Export,
    HelperLimits,
    SeenExport,
    Unit,
)

_UNBOUNDED = 2**31 - 1


class ElsewhereHelper:
    """The target helper of a static backend."""

    protocol_version = PROTOCOL_VERSION
    limits = HelperLimits(max_lun=MAX_LUN, max_units=_UNBOUNDED, max_targets=_UNBOUNDED, min_lun=0)
    portals: Sequence[Portal] = ()
    missing_portals: tuple[Portal, ...] = ()

    def start(self) -> Change:
        """There is no daemon."""
        return Change.UNCHANGED

    def is_alive(self) -> bool:
        """What is not there cannot be down."""
        return True

    def wait_for_exit(self, deadline: Deadline, stop: Stop | None = None) -> bool:
        """Wait for the deadline, or until stopped."""
        select.select([] if stop is None else [stop], [], [], deadline.remaining_s())
        return False

    def stop(self) -> Change:
        """There is no daemon."""
        return Change.UNCHANGED

    def export(self, export: Export) -> Change:
        """It is offered already."""
        del export
        return Change.UNCHANGED

    def unexport(self, iqn: Iqn, tid: int) -> Change:
        """It stays offered."""
        del iqn, tid
        return Change.UNCHANGED

    def map_unit(self, iqn: Iqn, tid: int, unit: Unit, initiators: frozenset[Iqn]) -> Change:
        """It is mapped already."""
        del iqn, tid, unit, initiators
        return Change.UNCHANGED

    def unmap_unit(
        self, iqn: Iqn, tid: int, lun: int, initiators: frozenset[Iqn] | None = None
    ) -> Change:
        """It stays mapped."""
        del iqn, tid, lun, initiators
        return Change.UNCHANGED

    def allow(self, iqn: Iqn, tid: int, admission: Admission) -> Change:
        """Whoever runs the storage lets hosts in."""
        del iqn, tid, admission
        return Change.UNCHANGED

    def disallow(self, iqn: Iqn, tid: int, initiator: Iqn) -> Change:
        """Whoever runs the storage keeps hosts out."""
        del iqn, tid, initiator
        return Change.UNCHANGED

    def resize(self, iqn: Iqn, tid: int, lun: int, size_bytes: int) -> Change:
        """Nothing grows."""
        del iqn, tid, lun, size_bytes
        return Change.UNCHANGED

    def exports(self) -> tuple[SeenExport, ...]:
        """There is none of ours."""
        return ()

    def compare(self, export: Export) -> tuple[str, ...]:
        """There is nothing to compare with."""
        del export
        return ()
