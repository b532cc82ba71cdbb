"""How a volume of this host uses several paths: what is wanted, and what has been made of it.

A part of the journal's entry of a connection (:mod:`lunport.core.host_connection`):

    "multipath": {"wanted": null, "queue_s": 60.0, "stall": "default", "is_registered": true,
                  "members": [{"path": {...}, "iface": "default", "unit": "3:0:0:1",
                               "disk_name": "sda", "since": 1790000000.0}]}

A *member* is a path whose disk was verified and which may be in the map. What the kernel shows
now is not here: see :mod:`lunport.core.path_status`.
"""

from __future__ import annotations

import enum
from dataclasses import dataclass, replace

from lunport.core.iqn import fold_iqn
from lunport.core.scsi_address import ScsiAddress
from lunport.core.target_path import TargetPath


class StallProfile(enum.StrEnum):
    """How soon a path that is silent is given up, at the price of more false alarms."""

    DEFAULT = "default"
    FAST = "fast"


@dataclass(frozen=True, slots=True)
class MemberPath:
    """A path whose disk was verified. ``since``: seconds since the epoch."""

    path: TargetPath
    iface: str
    unit: ScsiAddress
    disk_name: str
    since: float


@dataclass(frozen=True, slots=True)
class MultipathUse:
    """One volume's map.

    ``wanted``: how many paths at once, None for all; 1 is a map that follows its volume from
    portal to portal. ``queue_s``: how long I/O waits once all paths are gone, 0 for not at all.
    ``is_registered``: its WWID is in multipath's list because we put it there.
    """

    members: tuple[MemberPath, ...] = ()
    wanted: int | None = None
    queue_s: float = 60.0
    stall: StallProfile = StallProfile.DEFAULT
    is_registered: bool = False

    def member(self, path: TargetPath) -> MemberPath | None:
        """Return the member that goes this way."""
        return next((one for one in self.members if is_same_way(one.path, path)), None)

    def with_member(self, member: MemberPath) -> MultipathUse:
        """Return it with a member more, in place of an earlier one of the same way."""
        return replace(self, members=(*self.without(member.path).members, member))

    def without(self, path: TargetPath) -> MultipathUse:
        """Return it without the member of that way."""
        return replace(
            self, members=tuple(one for one in self.members if not is_same_way(one.path, path))
        )


def is_same_way(one: TargetPath, other: TargetPath) -> bool:
    """Tell whether two paths are the same, whatever case their names are written in."""
    return (one.portal, fold_iqn(one.iqn), one.lun) == (
        other.portal,
        fold_iqn(other.iqn),
        other.lun,
    )
