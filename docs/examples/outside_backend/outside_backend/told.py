"""The helper ``told``: LIO or tgt as they come, and a file that says what was changed.

Most of what a site wants of its own is of this kind (a firewall that opens for a host, a
ticket, an audit line), and one of Lunport's helpers does the rest. A helper for another
target, an array's REST API for one, has the same verbs and does them itself.
"""

from __future__ import annotations

import json
import threading
from collections.abc import Sequence
from pathlib import Path

from lunport.core.change import Change
from lunport.core.errors import BackendError, InvalidConfig
from lunport.core.iqn import Iqn
from lunport.core.portal import Portal
from lunport.host.clock import Deadline
from lunport.host.tasks import Stop
from lunport.targets.helper import (
    PROTOCOL_VERSION,
    Admission,
    Export,
    HelperLimits,
    SeenExport,
    TargetHelper,
    Unit,
)
from lunport.targets.registry import HelperSettings, make_helper


def make_told(settings: HelperSettings) -> ToldHelper:
    """Make the helper from its options. Raises: InvalidConfig."""
    options = dict(settings.options)
    by, tell = options.pop("by", "tgt"), options.pop("tell", None)
    where = f"backend.{settings.backend}"
    if not isinstance(tell, str) or not Path(tell).is_absolute():
        raise InvalidConfig(
            f"{where}.helper_options.tell", tell, "expected the absolute path of a file"
        )
    inner = HelperSettings(
        settings.backend, settings.folder, settings.portals, settings.target_prefix, options
    )
    return ToldHelper(make_helper(str(by), inner), Path(tell))


class ToldHelper:
    """Another helper's verbs, and a line of JSON for each change."""

    protocol_version = PROTOCOL_VERSION

    def __init__(self, inner: TargetHelper, file: Path) -> None:
        """Have ``inner`` do the work; append to ``file``."""
        self.limits: HelperLimits = inner.limits
        self._inner = inner
        self._file = file
        self._writing = threading.Lock()

    @property
    def portals(self) -> Sequence[Portal]:
        """The configured ones."""
        return self._inner.portals

    @property
    def missing_portals(self) -> tuple[Portal, ...]:
        """The ones without an address at the last start."""
        return self._inner.missing_portals

    def start(self) -> Change:
        """Start, and see at once whether lines can be written. Raises as well: BackendError."""
        self._tell("start")
        return self._inner.start()

    def is_alive(self) -> bool:
        """Ask."""
        return self._inner.is_alive()

    def wait_for_exit(self, deadline: Deadline, stop: Stop | None = None) -> bool:
        """Wait."""
        return self._inner.wait_for_exit(deadline, stop)

    def stop(self) -> Change:
        """Stop."""
        return self._told(self._inner.stop(), "stop")

    def export(self, export: Export) -> Change:
        """Export; who may log in is told, credentials never are."""
        change = self._inner.export(export)
        luns = [unit.lun for unit in export.units]
        return self._told(
            change, "export", target=export.iqn, luns=luns, initiators=sorted(export.initiators)
        )

    def unexport(self, iqn: Iqn, tid: int) -> Change:
        """Take a target away."""
        return self._told(self._inner.unexport(iqn, tid), "unexport", target=iqn)

    def map_unit(self, iqn: Iqn, tid: int, unit: Unit, initiators: frozenset[Iqn]) -> Change:
        """Add a unit."""
        change = self._inner.map_unit(iqn, tid, unit, initiators)
        return self._told(change, "map", target=iqn, luns=[unit.lun], initiators=sorted(initiators))

    def unmap_unit(
        self, iqn: Iqn, tid: int, lun: int, initiators: frozenset[Iqn] | None = None
    ) -> Change:
        """Take a unit away, from some initiators or all."""
        change = self._inner.unmap_unit(iqn, tid, lun, initiators)
        named = None if initiators is None else sorted(initiators)
        return self._told(change, "unmap", target=iqn, luns=[lun], initiators=named)

    def allow(self, iqn: Iqn, tid: int, admission: Admission) -> Change:
        """Let an initiator in."""
        change = self._inner.allow(iqn, tid, admission)
        return self._told(change, "allow", target=iqn, initiators=[admission.initiator])

    def disallow(self, iqn: Iqn, tid: int, initiator: Iqn) -> Change:
        """Cut an initiator off."""
        change = self._inner.disallow(iqn, tid, initiator)
        return self._told(change, "disallow", target=iqn, initiators=[initiator])

    def resize(self, iqn: Iqn, tid: int, lun: int, size_bytes: int) -> Change:
        """Show a unit's new size."""
        change = self._inner.resize(iqn, tid, lun, size_bytes)
        return self._told(change, "resize", target=iqn, luns=[lun])

    def exports(self) -> tuple[SeenExport, ...]:
        """List what is there."""
        return self._inner.exports()

    def compare(self, export: Export) -> tuple[str, ...]:
        """Say what differs."""
        return self._inner.compare(export)

    # -- telling -------------------------------------------------------------------------

    def _told(self, change: Change, verb: str, **what: object) -> Change:
        if change is Change.CHANGED:
            self._tell(verb, **what)
        return change

    def _tell(self, verb: str, **what: object) -> None:
        try:
            with self._writing, self._file.open("a") as file:
                file.write(json.dumps({"verb": verb, **what}) + "\n")
        except OSError as error:
            raise BackendError(f"{self._file}: {error.strerror}") from error
