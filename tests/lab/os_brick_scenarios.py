"""The scenarios in which os-brick and Lunport are compared, and where they differ on purpose.

A scenario is a function that plays; a difference names the scenario, the step, the aspect, what
each of the two gives, and its row in ``docs/reference/os-brick.md``. What is not listed is equal.
"""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path

from lunport.core.chap import Chap, ChapCredentials
from lunport.core.portal import Portal
from lunport.core.secret import Secret
from tests.lab.os_brick_play import NODES, Difference, Play, left

CHAP = Chap(ChapCredentials("lab-user", Secret("lab-secret-12345")))
MULTIPATH = ("ISCSI", {"use_multipath": True})
MIB = 1 << 20
# Keys by which os-brick speaks of NVMe, LightOS, Fibre Channel and ScaleIO.
OTHER_PROTOCOLS = {
    "nqn", "nvme_hostid", "nvme_native_multipath", "uuid", "found_dsc", "host_ips",
    "wwpns", "wwnns", "sdc_guid",
}  # fmt: skip


def connect_and_disconnect(play: Play) -> None:
    """The ordinary life of a volume, all questions asked, and each verb once too often."""
    target = play.target()
    disk = play.disk(target, 1, growable=True)
    volume = play.properties(target)
    play.call("paths before", "get_volume_paths", volume)
    play.call("extend before", "extend_volume", volume)
    play.call("disconnect before", "disconnect_volume", volume, None)
    info = play.call("connect", "connect_volume", volume)
    files = [file.read_text() for file in NODES.rglob("*") if file.is_file()]
    play.note("connect", automatic=any("node.startup = automatic" in text for text in files))
    play.call("paths", "get_volume_paths", volume)
    play.call("all volumes", "get_all_available_volumes")
    play.call("search path", "get_search_path")
    play.call("valid", "check_valid_device", info["path"])
    play.call("connect again", "connect_volume", volume)
    disk.grow(96 * MIB)
    play.call("extend", "extend_volume", volume)
    play.call("extend again", "extend_volume", volume)
    play.call("disconnect", "disconnect_volume", volume, info)
    play.call("paths after", "get_volume_paths", volume)
    play.call("valid after", "check_valid_device", info["path"])
    play.call("disconnect again", "disconnect_volume", volume, info)
    play.call("forced", "disconnect_volume", volume, info, force=True, ignore_errors=True)


def ipv6_and_a_large_lun(play: Play) -> None:
    """An IPv6 portal, a LUN that does not fit one byte, and nothing given back."""
    target = play.target(portals=play.san.portals6[:1])
    play.disk(target, 300)
    volume = play.properties(target, 300)
    play.call("connect", "connect_volume", volume)
    play.call("paths", "get_volume_paths", volume)
    play.call("disconnect", "disconnect_volume", volume, None)


def chap_behind_a_dead_portal(play: Play) -> None:
    """The first portal refuses, the second wants a secret: the right one, then a wrong one."""
    target = play.target(portals=play.san.portals[1:2], chap=CHAP)
    play.disk(target, 1)
    dead = str(Portal(play.san.portals[0].host, 3999))
    volume = play.properties(
        target,
        target_portal=dead,
        target_portals=[dead, str(target.portals[0])],
        target_iqns=[target.iqn] * 2,
        target_luns=[1, 1],
        auth_method="CHAP",
        auth_username="lab-user",
        auth_password="lab-secret-12345",
    )
    info = play.call("good", "connect_volume", volume)
    play.call("paths", "get_volume_paths", volume)
    play.call("disconnect", "disconnect_volume", volume, info)
    play.call("bad", "connect_volume", volume | {"auth_password": "lab-secret-99999"})


def two_luns(play: Play) -> None:
    """Two volumes of one target: the session stays until the second has gone."""
    target = play.target()
    for lun in (1, 2):
        play.disk(target, lun)
    volumes = [play.properties(target, lun) for lun in (1, 2)]
    first = play.call("connect 1", "connect_volume", volumes[0])
    second = play.call("connect 2", "connect_volume", volumes[1])
    play.call("disconnect 1", "disconnect_volume", volumes[0], first)
    play.call("paths 2", "get_volume_paths", volumes[1])
    play.call("disconnect 2", "disconnect_volume", volumes[1], second)


def lun_as_text(play: Play) -> None:
    """A LUN that came as a text, as some drivers send it."""
    target = play.target()
    play.disk(target, 1)
    volume = play.properties(target, "1")
    info = play.call("connect", "connect_volume", volume)
    play.call("disconnect", "disconnect_volume", volume, info)


def all_refused(play: Play) -> None:
    """Nothing listens at the only portal."""
    target = play.target()
    dead = str(Portal(play.san.portals[0].host, 3999))
    play.call("connect", "connect_volume", play.properties(target, target_portal=dead))


def lun_absent(play: Play) -> None:
    """The target has no such LUN."""
    target = play.target()
    play.disk(target, 1)
    few = ("ISCSI", {"device_scan_attempts": 1})
    play.call("connect", "connect_volume", play.properties(target, 9), make=few, hurry=10)


def target_unknown(play: Play) -> None:
    """The portal knows no such target."""
    target = play.target()
    volume = play.properties(target, target_iqn=f"{target.iqn}-unknown")
    play.call("connect", "connect_volume", volume)


def alternatives(play: Play) -> None:
    """The alternative keys alone name a second portal."""
    target = play.target(portals=play.san.portals[1:2])
    play.disk(target, 1)
    volume = play.properties(
        target,
        target_portal=str(Portal(play.san.portals[0].host, 3999)),
        target_alternative_portals=[str(target.portals[0])],
        target_alternative_iqns=[target.iqn],
        target_alternative_luns=[1],
    )
    play.call("connect", "connect_volume", volume)
    play.call("disconnect", "disconnect_volume", volume, None)


def encrypted(play: Play) -> None:
    """An encrypted volume's path is a link that the caller may replace."""
    target = play.target()
    play.disk(target, 1)
    volume = play.properties(target, encrypted=True)
    info = play.call("connect", "connect_volume", volume)
    play.note("connect", link=Path(info["path"]).is_symlink())
    play.call("disconnect", "disconnect_volume", volume, info)
    play.note("disconnect", link=Path(info["path"]).is_symlink())


def multipath_enforced(play: Play) -> None:
    """Multipath is demanded on a host that cannot have it."""
    target = play.target()
    volume = play.properties(target, enforce_multipath=True)
    play.call("connect", "connect_volume", volume, make=MULTIPATH)


def multipath_wished(play: Play) -> None:
    """Multipath is wished, but not demanded, on a host that cannot have it."""
    target = play.target(portals=play.san.portals[:2])
    play.disk(target, 1)
    volume = play.properties(
        target,
        target_portals=[str(portal) for portal in target.portals],
        target_iqns=[target.iqn] * 2,
        target_luns=[1, 1],
    )
    info = play.call("connect", "connect_volume", volume, make=MULTIPATH)
    play.call("disconnect", "disconnect_volume", volume, info, make=MULTIPATH)


def bad_properties(play: Play) -> None:
    """Properties that nobody can connect by, and lists that do not fit."""
    target = play.target(portals=play.san.portals[:1])
    play.disk(target, 1)
    nameless = play.properties(target)
    del nameless["target_iqn"]
    play.call("nameless", "connect_volume", nameless)
    uneven = play.properties(
        target,
        target_portals=[str(portal) for portal in play.san.portals[:2]],
        target_iqns=[target.iqn],
        target_luns=[1],
    )
    play.call("uneven", "connect_volume", uneven)
    play.call("uneven disconnect", "disconnect_volume", uneven, None)


def wrong_identity(play: Play) -> None:
    """The volume service stated an identity, and the unit has another."""
    target = play.target()
    play.disk(target, 1)
    volume = play.properties(target, wwid="naa.6001405" + "f" * 25)
    play.call("connect", "connect_volume", volume)
    play.call("disconnect", "disconnect_volume", volume, None)


def busy_disk(play: Play) -> None:
    """Somebody has the disk open when it is to go."""
    target = play.target()
    play.disk(target, 1)
    volume = play.properties(target)
    info = play.call("connect", "connect_volume", volume)
    with Path(info["path"]).open("rb"):
        play.call("while open", "disconnect_volume", volume, info)
    play.call("closed", "disconnect_volume", volume, info)


def others_session(play: Play) -> None:
    """A session that was there before, with its record."""
    target = play.target()
    play.disk(target, 1)
    volume = play.properties(target)
    play.log_in_as_somebody_else(target)
    info = play.call("connect", "connect_volume", volume)
    play.call("disconnect", "disconnect_volume", volume, info)


def factory(play: Play) -> None:
    """Protocols that there are, in small letters too, and one that there is not."""
    play.call("small letters", "get_search_path", make=("iscsi", {}))
    play.call("iser", "get_search_path", make=("ISER", {}))
    play.call("another", "get_search_path", make=("NONSENSE", {}))


def connector_properties(play: Play) -> None:
    """What the host says of itself."""
    for wish in (False, True):
        step = f"multipath {wish}"
        of_host = ("", "10.0.1.1", wish, wish)
        said = play.call(step, "get_connector_properties", *of_host, make=None, host="node-7")
        kept = {key: value for key, value in said.items() if key not in OTHER_PROTOCOLS}
        play.note(step, answer=kept, says_of_other_protocols=kept != said)


SCENARIOS: dict[str, Callable[[Play], None]] = {
    scenario.__name__: scenario
    for scenario in (
        connect_and_disconnect, ipv6_and_a_large_lun, two_luns, lun_as_text,
        chap_behind_a_dead_portal, all_refused, lun_absent, target_unknown, alternatives,
        encrypted, multipath_enforced, multipath_wished, bad_properties, wrong_identity,
        busy_disk, others_session, factory, connector_properties,
    )
}  # fmt: skip


CONNECTED = {"type": "block", "scsi_wwn": "identity of disk 1", "path": "disk 1"}
HERE = (["t1 10.0.1.2"], ["t1 10.0.1.2"], ["disk 1"])
NOTHING: tuple[list[str], list[str], list[str]] = ([], [], [])


AT_SECOND = (["t1 10.0.2.2"], ["t1 10.0.2.2"], ["disk 1"])
AT_BOTH = (["t1 10.0.1.2", "t1 10.0.2.2"], ["t1 10.0.1.2", "t1 10.0.2.2"], ["disk 1", "disk 1"])
WITHOUT_DISK = (["t1 10.0.1.2"], ["t1 10.0.1.2"], list[str]())

DIFFERENCES: tuple[Difference, ...] = (
    Difference(
        "alternatives", alternatives, "connect", "answer", "VolumeDeviceNotFound", CONNECTED
    ),
    *left("alternatives", alternatives, "connect", NOTHING, AT_SECOND),
    *left("lun-as-text", lun_as_text, "disconnect", HERE, NOTHING),
    Difference("identity", wrong_identity, "connect", "answer", CONNECTED, "VolumeDeviceNotFound"),
    *left("identity", wrong_identity, "connect", HERE, NOTHING),
    Difference("busy", busy_disk, "while open", "answer", None, "VolumePathNotRemoved"),
    *left("busy", busy_disk, "while open", NOTHING, HERE),
    *left("others-session", others_session, "disconnect", NOTHING, WITHOUT_DISK),
    Difference("startup", connect_and_disconnect, "connect", "automatic", True, False),
    Difference(
        "properties", bad_properties, "nameless", "answer", "KeyError", "InvalidParameterValue"
    ),
    Difference(
        "properties", bad_properties, "uneven", "answer", CONNECTED, "InvalidParameterValue"
    ),
    *left("properties", bad_properties, "uneven", HERE, NOTHING),
    Difference(
        "properties", bad_properties, "uneven disconnect", "answer", None, "InvalidParameterValue"
    ),
    *left("multipath", multipath_wished, "connect", AT_BOTH, HERE),
    *(
        Difference("registered", multipath_wished, step, "registered", ["disk 1"], [])
        for step in ("connect", "disconnect")
    ),
    *(
        Difference("connector", connector_properties, step, "says_of_other_protocols", True, False)
        for step in ("multipath False", "multipath True")
    ),
)
