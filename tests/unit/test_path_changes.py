"""What changed between two looks at the paths of a host's volumes."""

from __future__ import annotations

from dataclasses import replace

from lunport.core.iqn import Iqn
from lunport.core.path_changes import path_changes
from lunport.core.path_status import PathState, PathStatus, VolumePaths
from lunport.core.portal import Portal
from lunport.core.target_path import TargetPath

IQN = Iqn("iqn.2026-11.io.lunport.test:v")
ONE = PathStatus(TargetPath(Portal("10.0.1.2"), IQN, 1), "default", PathState.LIVE, sid=1)
TWO = PathStatus(TargetPath(Portal("10.0.2.2"), IQN, 1), "default", PathState.MISSING)
VOLUME = VolumePaths("naa.6", "v1", None, "dm-7", "dm-7", None, wanted=2, paths=(ONE, TWO))


def told(before: tuple[VolumePaths, ...], after: tuple[VolumePaths, ...]) -> list[str]:
    """Say each change in a line."""
    return [
        f"{one.volume.key} {one.status.path.portal.host} {one.before} {one.after}"
        for one in path_changes(before, after)
    ]


def test_a_first_look_tells_every_path() -> None:
    """Paths that were not there before came."""
    assert told((), (VOLUME,)) == ["naa.6 10.0.1.2 None live", "naa.6 10.0.2.2 None missing"]


def test_only_states_are_changes() -> None:
    """Another age, reason or session, or another spelling of the target, is no change."""
    renamed = replace(TWO.path, iqn=Iqn(IQN.upper()))
    other = replace(TWO, path=renamed, why="no answer", since=7.0, sid=9)
    assert told((VOLUME,), (replace(VOLUME, paths=(ONE, other)),)) == []


def test_a_change_of_state_is_told() -> None:
    """A path whose state is another one is told with both."""
    lost = replace(VOLUME, paths=(replace(ONE, state=PathState.FAILED), TWO))
    assert told((VOLUME,), (lost,)) == ["naa.6 10.0.1.2 live failed"]


def test_what_went_is_told_last() -> None:
    """A path that went, alone or with its volume, is told with what it was."""
    other = replace(VOLUME, key="naa.7", paths=(ONE,))
    assert told((VOLUME,), (replace(VOLUME, paths=(TWO,)), other)) == [
        "naa.7 10.0.1.2 None live",
        "naa.6 10.0.1.2 live None",
    ]


def test_two_sessions_to_a_portal_are_two_paths() -> None:
    """The same portal through another iface is another path."""
    twin = replace(ONE, iface="second", state=PathState.JOINING)
    both = replace(VOLUME, paths=(ONE, twin))
    assert told((both,), (replace(VOLUME, paths=(replace(twin, state=PathState.LIVE), ONE)),)) == [
        "naa.6 10.0.1.2 joining live"
    ]
