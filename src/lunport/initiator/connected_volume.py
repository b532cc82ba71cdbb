"""What a connect returns, and how patient connects and disconnects are."""

from __future__ import annotations

from dataclasses import dataclass, field

from lunport.core.change import Change
from lunport.core.login_progress import ChoicePolicy
from lunport.core.node_record import RecordSettings
from lunport.core.path_status import PathStatus
from lunport.core.scsi_address import ScsiAddress
from lunport.core.target_path import TargetPath
from lunport.core.wwid import Wwid
from lunport.initiator.multipath_policy import MultipathPolicy
from lunport.initiator.portal_choice import UnusedPath


@dataclass(frozen=True, slots=True)
class ConnectedVolume:
    """A logical unit that is a disk of this host now.

    ``path``: what can be opened (``/dev/sda``, ``/dev/dm-0``). ``unused``: each path that is not
    used, and why. ``choice_s``: from the start to the chosen path; ``elapsed_s``: to the
    verified disk. With a map ``used`` and ``unit`` are those of a path in it, ``map_name`` is
    its device ("dm-0"), ``paths`` all that are wanted, as they are now. ``note``: what is not as
    it was asked for.
    """

    path: str
    wwid: Wwid | None
    size_bytes: int
    used: TargetPath
    unit: ScsiAddress
    unused: tuple[UnusedPath, ...]
    change: Change
    choice_s: float
    elapsed_s: float
    map_name: str | None = None
    paths: tuple[PathStatus, ...] = ()
    note: str | None = None


@dataclass(frozen=True, slots=True)
class InitiatorPolicy:
    """How long each thing may take, in seconds.

    ``budget_s`` bounds a whole connect, disconnect or extend, and what a failed one undoes comes
    on top (``flush_s`` and ``logout_s``); ``disk_s`` the wait for one path's disk. Of a disk
    that is to go, ``answer_s`` is the wait for a sign of life, ``close_s`` for others to close
    it, ``flush_s`` for what is not on the storage yet.
    """

    budget_s: float = 60.0
    choice: ChoicePolicy = field(default_factory=ChoicePolicy)
    record: RecordSettings = field(default_factory=RecordSettings)
    multipath: MultipathPolicy = field(default_factory=MultipathPolicy)
    login_s: float = 30.0  # iscsid's own limit is RecordSettings'; on a busy host logins queue
    logout_s: float = 25.0
    reconnect_s: float = 8.0  # for a session whose target was restarted; iscsid tries each 3 s
    disk_s: float = 10.0  # a busy host scans and names slowly
    answer_s: float = 3.0
    close_s: float = 5.0
    flush_s: float = 15.0
    lock_s: float = 60.0
