"""A path that comes back with another volume behind it is not used again.

multipathd looks at failed paths so seldom here that it has no part in it.
"""

from __future__ import annotations

from lab import faults, services
from lab.san import San
from lab.services import wait_until
from lunport.core.connection_info import ConnectionInfo
from lunport.core.target_path import TargetPath
from tests.lab.conftest import LabHost
from tests.lab.multipath_play import (
    SIZE_MIB,
    await_usable,
    playing,
    portals_in,
    state_of,
    usable,
    verified,
    why_not,
)

BACK_S = 120.0
SELDOM = "defaults {\n polling_interval 300\n max_polling_interval 300\n}\n"


def test_a_lun_that_is_another_volume_after_the_outage_leaves_the_map(
    san: San, lab_host: LabHost
) -> None:
    """While one of two targets is away its LUN is given to another volume: no write goes there."""
    one, two = (
        san.target(name, portals=[portal], allowed=[lab_host.initiator])
        for name, portal in zip(("t1", "t2"), san.portals, strict=False)
    )
    disk, other = san.disk(size_mib=SIZE_MIB), san.disk(size_mib=SIZE_MIB)
    for target in (one, two):
        target.map_lun(1, disk)
    untouched = other.file.read_bytes()
    info = ConnectionInfo(
        paths=tuple(TargetPath(target.portals[0], target.iqn, 1) for target in (one, two)),
        wwid=disk.wwid,
    )
    lost = two.portals[0]
    with (
        services.multipathd("strict", extra=SELDOM),
        playing(san, one, disk, info) as play,
    ):
        name = play.connect_all().map_name
        assert name is not None
        with verified(play, play.connect()) as writer:
            with faults.portal_drops(san, lost):
                await_usable(name, [one.portals[0]])
                two.remap_lun(1, other)
            wait_until(lambda: state_of(lost) == "LOGGED_IN", "the session's return", BACK_S)
            assert f"not {disk.wwid}" in why_not(play.complete())[str(lost)]
            wait_until(lambda: str(lost) not in portals_in(name), "it to leave the map", BACK_S)
            assert usable(name) == {str(one.portals[0])}
            writer.await_rounds()
    assert other.file.read_bytes() == untouched
