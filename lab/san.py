"""A SAN on this machine: portals in a namespace, and targets that are made and unmade at will.

    with san_network(4) as network, San.on(network) as san:
        target = san.target("t1")
        disk = san.add_lun(target, 1, size_mib=32)

Whatever a :class:`San` made is gone when it ends, in reverse order. LIO by :mod:`lab.lio`;
tgt by the project's own handling of that daemon.
"""

from __future__ import annotations

import contextlib
import tempfile
from collections.abc import Iterator, Sequence
from pathlib import Path

from lab import lio
from lab.lio import Disk, Target
from lab.network import SanNetwork
from lunport.core.chap import Chap
from lunport.core.iqn import Iqn
from lunport.core.portal import Portal
from lunport.core.target_path import TargetPath
from lunport.host.clock import Deadline
from lunport.host.tgtd import OwnTgtd
from lunport.targets.tgt import TgtHelper

IQN_PREFIX = "iqn.2026-11.io.lunport.lab"
KEEPER = Iqn(f"{IQN_PREFIX}:keeper")
TGTD_PORT = 3261
_ENDING_S = 15.0
_TGTD_S = 60.0


class San:
    """Targets behind the portals of one network."""

    def __init__(self, network: SanNetwork, folder: Path, undo: contextlib.ExitStack) -> None:
        self.network = network
        self.portals = network.portals
        self.portals6 = network.portals6
        self.folder = folder
        self._undo = undo
        self._targets: dict[Iqn, tuple[Target, contextlib.ExitStack]] = {}

    @classmethod
    @contextlib.contextmanager
    def on(cls, network: SanNetwork) -> Iterator[San]:
        """Begin with no target."""
        with (
            tempfile.TemporaryDirectory(prefix="lab-san-", dir="/dev/shm") as folder,
            contextlib.ExitStack() as undo,
        ):
            made = cls(network, Path(folder), undo)
            try:
                yield made
            finally:
                made._unmap_all()  # a disk can go once no LUN shows it

    def target(
        self,
        name: str = "t1",
        *,
        portals: Sequence[Portal] = (),
        tpgt: int = 1,
        chap: Chap | None = None,
        allowed: Sequence[Iqn] = (),
    ) -> Target:
        """Make a target of LIO on these portals, or on all of IPv4; it has no LUN."""
        iqn = Iqn(f"{IQN_PREFIX}:{name}")
        made = Target(iqn, tpgt, portals or self.portals, chap=chap, allowed=allowed)
        self.bring_back(made)
        return made

    def bring_back(self, target: Target) -> None:
        """Make a target that was removed as it was, but for its LUNs."""
        own = self._undo.enter_context(contextlib.ExitStack())
        own.enter_context(lio.shown(target, self.network.call))
        self._targets[target.iqn] = (target, own)

    def remove_target(self, target: Target) -> None:
        """Take a target away, with its sessions; its disks stay. Idempotent."""
        _, own = self._targets.pop(target.iqn, (target, contextlib.ExitStack()))
        own.close()

    def disk(self, *, size_mib: int = 64, wwid: str | None = None, growable: bool = False) -> Disk:
        """Make a sparse disk that no target shows yet."""
        return self._undo.enter_context(
            lio.disk(self.folder, size_mib=size_mib, wwid=wwid, growable=growable)
        )

    def add_lun(
        self,
        target: Target,
        lun: int,
        *,
        size_mib: int = 64,
        wwid: str | None = None,
        growable: bool = False,
    ) -> Disk:
        """Make a disk and show it under a LUN of a target."""
        made = self.disk(size_mib=size_mib, wwid=wwid, growable=growable)
        target.map_lun(lun, made)
        return made

    def discovery_chap(self, chap: Chap) -> None:
        """Demand CHAP of every discovery from now on."""
        self._undo.enter_context(lio.discovery_chap(chap))

    def paths(self, target: Target, lun: int) -> tuple[TargetPath, ...]:
        """List the ways to a LUN, in the order of the target's portals."""
        return tuple(TargetPath(portal, target.iqn, lun) for portal in target.portals)

    def tgtd(self, portals: Sequence[Portal] = ()) -> TgtHelper:
        """Start a tgtd on these portals, or on port 3261 of all of IPv4 (LIO has 3260)."""
        own = portals or [Portal(portal.host, TGTD_PORT) for portal in self.portals]
        daemon = OwnTgtd(self.folder / "tgtd", own)
        helper = TgtHelper(daemon, timeout_s=_TGTD_S)
        self._undo.callback(lambda: daemon.stop(Deadline.after(_ENDING_S)))
        self.network.call(helper.start)
        return helper

    def _unmap_all(self) -> None:
        for target, _ in self._targets.values():
            target.unmap_all()
