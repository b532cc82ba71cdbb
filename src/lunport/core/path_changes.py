"""What changed between two looks at the paths of a host's volumes.

A path is the same while iface, portal, target name and LUN are; what is told is that its state
is another one, or that it came or went. Ages, reasons and session numbers are no change. The
looks are handed in: nothing here looks by itself.
"""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from dataclasses import dataclass

from lunport.core.iqn import fold_iqn
from lunport.core.path_status import PathState, PathStatus, VolumePaths
from lunport.core.portal import Portal

WayKey = tuple[str, str, Portal, str, int]


@dataclass(frozen=True, slots=True)
class PathChange:
    """One path that came, changed or went.

    ``volume``: as it is now, or as it was last when it is gone. ``before``: None for a path
    that came; ``after``: None for one that went. ``status``: the last that is known of it.
    """

    volume: VolumePaths
    status: PathStatus
    before: PathState | None
    after: PathState | None


def way_key(volume: VolumePaths, status: PathStatus) -> WayKey:
    """Name one path of one volume; equal as long as it is the same path."""
    path = status.path
    return (volume.key, status.iface, path.portal, fold_iqn(path.iqn), path.lun)


def path_changes(
    before: Sequence[VolumePaths], after: Sequence[VolumePaths]
) -> tuple[PathChange, ...]:
    """List what changed, in the order of the later look; what went comes last."""
    old = {way_key(volume, status): (volume, status) for volume, status in _each(before)}
    new = {way_key(volume, status): (volume, status) for volume, status in _each(after)}
    found = []
    for key, (volume, status) in new.items():
        was = old[key][1].state if key in old else None
        if was is not status.state:
            found.append(PathChange(volume, status, was, status.state))
    for key, (volume, status) in old.items():
        if key not in new:
            found.append(PathChange(volume, status, status.state, None))
    return tuple(found)


def _each(volumes: Sequence[VolumePaths]) -> Iterator[tuple[VolumePaths, PathStatus]]:
    for volume in volumes:
        for status in volume.paths:
            yield volume, status
