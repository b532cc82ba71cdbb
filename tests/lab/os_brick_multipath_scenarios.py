"""The scenarios of several paths in which os-brick and Lunport are compared, and how they differ.

As in :mod:`tests.lab.os_brick_scenarios`, but multipathd runs here, as Debian configures it
(``find_multipaths strict``). Lunport hands a map out with its first path, so that each connect is
looked at once the paths that can be there are there.
"""

from __future__ import annotations

import contextlib
from collections.abc import Callable, Iterator, Sequence
from pathlib import Path

from lab import faults
from lab.lio import Target
from lab.san import KEEPER
from tests.lab.os_brick_play import Difference, Play
from tests.lab.os_brick_scenarios import CHAP, MIB, MULTIPATH

KEEPERS = Path("/sys/kernel/config/target/iscsi", KEEPER, "tpgt_1/attrib")
SHOWN = ("generate_node_acls", "demo_mode_discovery")


def several(play: Play, target: Target, **more: object) -> dict[str, object]:
    """Write what a volume service says of a LUN with all its portals."""
    count = len(target.portals)
    return play.properties(
        target,
        target_portals=[str(portal) for portal in target.portals],
        target_iqns=[target.iqn] * count,
        target_luns=[1] * count,
        **more,
    )


@contextlib.contextmanager
def nobody_else_shown() -> Iterator[None]:
    """Have discoveries show the play's own targets alone."""
    try:
        for name in SHOWN:
            (KEEPERS / name).write_text("0")
        yield
    finally:
        for name in SHOWN:
            (KEEPERS / name).write_text("1")


def two_portals(play: Play) -> None:
    """The ordinary life of a volume with two paths, and each verb once too often."""
    target = play.target(portals=play.san.portals[:2])
    disk = play.disk(target, 1, growable=True)
    volume = several(play, target, enforce_multipath=True)
    both = play.uses(target.portals)
    play.call("supported", "supports_multipath", make=MULTIPATH)
    play.call("extend before", "extend_volume", volume, make=MULTIPATH)
    play.call("disconnect before", "disconnect_volume", volume, None, make=MULTIPATH)
    info = play.call("connect", "connect_volume", volume, make=MULTIPATH, until=both)
    play.call("paths", "get_volume_paths", volume, make=MULTIPATH)
    play.call("connect again", "connect_volume", volume, make=MULTIPATH, until=both)
    disk.grow(96 * MIB)
    play.call("extend", "extend_volume", volume, make=MULTIPATH)
    play.call("disconnect", "disconnect_volume", volume, info, make=MULTIPATH)
    play.call("disconnect again", "disconnect_volume", volume, info, make=MULTIPATH)


def four_portals(play: Play) -> None:
    """Four portals that want a secret, an encrypted volume, and nothing given back."""
    target = play.target(portals=play.san.portals, chap=CHAP)
    play.disk(target, 1)
    volume = several(
        play,
        target,
        encrypted=True,
        auth_method="CHAP",
        auth_username="lab-user",
        auth_password="lab-secret-12345",
    )
    all_four = play.uses(target.portals)
    info = play.call("connect", "connect_volume", volume, make=MULTIPATH, until=all_four)
    play.note("connect", link=Path(info["path"]).is_symlink())
    play.call("disconnect", "disconnect_volume", volume, None, force=True, make=MULTIPATH)


def discovery(play: Play) -> None:
    """One portal is named, and the target's others are to be discovered."""
    target = play.target(portals=play.san.portals[:2])
    play.disk(target, 1)
    volume = play.properties(target, target_discovered=True)
    with nobody_else_shown():
        info = play.call(
            "connect",
            "connect_volume",
            volume,
            make=MULTIPATH,
            until=play.uses(target.portals),
        )
        play.call("paths", "get_volume_paths", volume, make=MULTIPATH)
        play.call("disconnect", "disconnect_volume", volume, info, make=MULTIPATH)


def discovery_beside_others(play: Play) -> None:
    """The portal that is asked knows a target that is no business of this volume."""
    target = play.target(portals=play.san.portals[:2])
    play.disk(target, 1)
    play.target("t2", portals=play.san.portals[2:3])
    volume = play.properties(target)
    both = play.uses(target.portals)
    with nobody_else_shown():
        info = play.call("connect", "connect_volume", volume, make=MULTIPATH, until=both)
        play.call("disconnect", "disconnect_volume", volume, info, make=MULTIPATH)


def portal_drops(play: Play) -> None:
    """One of two portals has fallen silent as the volume is connected."""
    target = play.target(portals=play.san.portals[:2])
    play.disk(target, 1)
    volume = several(play, target)
    with faults.portal_drops(play.san, target.portals[1]):
        one = play.uses(target.portals[:1])
        info = play.call("connect", "connect_volume", volume, make=MULTIPATH, until=one)
        play.call("disconnect", "disconnect_volume", volume, info, make=MULTIPATH)


def path_dies(play: Play) -> None:
    """One of two portals falls silent later: the volume grows, and is disconnected."""
    target = play.target(portals=play.san.portals[:2])
    disk = play.disk(target, 1, growable=True)
    volume = several(play, target)
    both = play.uses(target.portals)
    info = play.call("connect", "connect_volume", volume, make=MULTIPATH, until=both)
    with faults.portal_drops(play.san, target.portals[1]):
        disk.grow(96 * MIB)
        play.call("extend", "extend_volume", volume, make=MULTIPATH)
        play.call("disconnect", "disconnect_volume", volume, info, make=MULTIPATH, hurry=1)


def wish_is_gone(play: Play) -> None:
    """Connected with multipath, and disconnected without: while the map is open, and then."""
    target = play.target(portals=play.san.portals[:2])
    play.disk(target, 1)
    volume = several(play, target)
    both = play.uses(target.portals)
    info = play.call("connect", "connect_volume", volume, make=MULTIPATH, until=both)
    with Path(info["path"]).open("rb"):
        play.call("while open", "disconnect_volume", volume, info, hurry=20)
    play.call("closed", "disconnect_volume", volume, info)


def wish_is_new(play: Play) -> None:
    """Connected without multipath, and disconnected by a connector with it."""
    target = play.target(portals=play.san.portals[:2])
    play.disk(target, 1)
    volume = several(play, target)
    info = play.call("connect", "connect_volume", volume)
    play.call("paths", "get_volume_paths", volume, make=MULTIPATH)
    play.call("disconnect", "disconnect_volume", volume, info, make=MULTIPATH)


SCENARIOS: dict[str, Callable[[Play], None]] = {
    scenario.__name__: scenario
    for scenario in (
        two_portals, four_portals, discovery, discovery_beside_others, portal_drops, path_dies,
        wish_is_gone, wish_is_new,
    )
}  # fmt: skip


Scenario = Callable[[Play], None]


def stays(
    row: str, aspect: str, what: str, steps: Sequence[tuple[Scenario, str]]
) -> list[Difference]:
    """Make the differences in what os-brick alone has made, or has left."""
    return [Difference(row, scenario, step, aspect, [what], []) for scenario, step in steps]


ONE = ["t1 10.0.1.2"]
BOTH = ["t1 10.0.1.2", "t1 10.0.2.2"]
WITH_OTHER = [*BOTH, "t2 10.0.3.2"]
MAP = "map of disk 1 over 10.0.1.2:3260"

DIFFERENCES: tuple[Difference, ...] = (
    *stays("registered", "registered", "disk 1", (
        (two_portals, "disconnect"), (two_portals, "disconnect again"),
        (four_portals, "disconnect"), (discovery, "disconnect"),
        (discovery_beside_others, "disconnect"), (portal_drops, "disconnect"),
        (path_dies, "disconnect"), (wish_is_gone, "closed"),
    )),
    *stays("discovery-record", "discoveries", "10.0.1.2", (
        (discovery, "connect"), (discovery, "paths"), (discovery, "disconnect"),
        (discovery_beside_others, "connect"), (discovery_beside_others, "disconnect"),
    )),
    *(
        Difference("discovery", discovery_beside_others, "connect", aspect, WITH_OTHER, BOTH)
        for aspect in ("sessions", "records")
    ),
    Difference(
        "busy", wish_is_gone, "while open", "answer",
        "ProcessExecutionError", "VolumePathNotRemoved",
    ),
    Difference("dead-portal", portal_drops, "connect", "records", BOTH, ONE),
    Difference("extend-degraded", path_dies, "extend", "answer", "BrickException", 96 * MIB),
    Difference("extend-degraded", path_dies, "extend", "maps", [f"{MAP} 10.0.2.2:3260"], [MAP]),
)  # fmt: skip
