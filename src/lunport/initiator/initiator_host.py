"""What the initiator works with on this host: the kernel's trees, records, locks, journal.

One value that every use case of the initiator gets, so that a test can move each part to a
folder of its own. Decides nothing.
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass, field
from pathlib import Path

from lunport.core.errors import InitiatorDown
from lunport.core.iqn import Iqn
from lunport.host.boot_id import read_boot_id
from lunport.host.dead_portals import DeadPortals
from lunport.host.device_mapper import DeviceMapper
from lunport.host.file_locks import FileLocks
from lunport.host.host_root import run_directory, state_directory
from lunport.host.initiator_name import FILE, read_initiator_name
from lunport.host.multipath_wwids import WWIDS_FILE
from lunport.host.multipathd import Multipathd
from lunport.host.node_records import NodeRecords
from lunport.host.path_notes import PathNotes
from lunport.host.systree import SysTree
from lunport.initiator.journal import Journal


def _ignore(step: str) -> None:
    """Take no notice of a step."""


@dataclass(frozen=True, slots=True)
class InitiatorHost:
    """The parts of one host. ``on_step`` hears the name of each step once it is done.

    ``finish`` is told the key of each connection whose missing paths are left to whoever lives
    on; None starts a helper that ends by itself. ``keeps_watch``: somebody heals paths and
    bounds queueing as long as we live (the agent).
    """

    sys: SysTree = field(default_factory=SysTree)
    records: NodeRecords = field(default_factory=NodeRecords)
    locks: FileLocks = field(default_factory=lambda: FileLocks(run_directory() / "locks"))
    journal: Journal = field(default_factory=lambda: Journal(state_directory()))
    memory: DeadPortals = field(default_factory=DeadPortals)
    boot_id: str = field(default_factory=read_boot_id)
    on_step: Callable[[str], None] = _ignore
    multipathd: Multipathd = field(default_factory=Multipathd)
    mapper: DeviceMapper = field(default_factory=DeviceMapper)
    wwids_file: Path = WWIDS_FILE
    path_notes: PathNotes = field(default_factory=PathNotes)
    finish: Callable[[str], None] | None = None
    keeps_watch: bool = False

    def initiator_name(self) -> Iqn:
        """Return this host's iSCSI name. Raises: InitiatorDown where it has none, InvalidIqn."""
        name = read_initiator_name()
        if name is None:
            raise InitiatorDown(
                f"{FILE} names no initiator",
                "install open-iscsi (apt-get install open-iscsi), whose setup makes the name",
            )
        return name
