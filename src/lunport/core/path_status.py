"""The paths of a volume as they are now: wanted and achieved, and why not.

    web-01-data   naa.6001405...   dm-7   1 of 2   DEGRADED
      live     10.0.1.2:3260  session 12  sdc  since 14:00:02
      missing  10.0.2.2:3260  no answer to a connection within 5 s, since 14:02:11

Values only, made from the journal (what is wanted), the kernel (what is there) and the notes of
whoever tried last (why not). Times are seconds since the epoch.
"""

from __future__ import annotations

import enum
from dataclasses import dataclass

from lunport.core.target_path import TargetPath
from lunport.core.wwid import Wwid


class PathState(enum.StrEnum):
    """What a path is good for now."""

    LIVE = "live"  # I/O may go over it
    JOINING = "joining"  # its disk is there, and not in the map yet
    FAILED = "failed"  # it is in the map, which sends nothing over it
    MISSING = "missing"  # it has no session, or no disk
    SPARE = "spare"  # not wanted now, since enough others are there


class VolumeState(enum.StrEnum):
    """What a volume's paths come to."""

    OK = "ok"  # all that are wanted are live
    DEGRADED = "degraded"  # some are live
    DOWN = "down"  # none is


@dataclass(frozen=True, slots=True)
class PathStatus:
    """One path. ``device``: "sda"; ``sid``: the session's number; ``why``: None while live."""

    path: TargetPath
    iface: str
    state: PathState
    sid: int | None = None
    device: str | None = None
    since: float | None = None
    why: str | None = None


@dataclass(frozen=True, slots=True)
class VolumePaths:
    """All paths of one volume of this host.

    ``key``: the journal's. ``device``: what is handed out, "dm-7" or "sda". ``map_name``: None
    without a map. ``wanted``: how many paths are to be live.
    """

    key: str
    volume_id: str | None
    wwid: Wwid | None
    device: str | None
    map_name: str | None
    size_bytes: int | None
    wanted: int
    paths: tuple[PathStatus, ...]

    @property
    def live(self) -> int:
        """How many paths are live."""
        return sum(path.state is PathState.LIVE for path in self.paths)

    @property
    def state(self) -> VolumeState:
        """What they come to."""
        if self.live == 0:
            return VolumeState.DOWN
        return VolumeState.OK if self.live >= self.wanted else VolumeState.DEGRADED

    @property
    def since(self) -> float | None:
        """When the last of its paths changed, as far as it is known."""
        return max((path.since for path in self.paths if path.since is not None), default=None)
