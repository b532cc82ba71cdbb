"""The faults of links, connections and targets do what their names say, and are healed."""

from __future__ import annotations

import os
import socket
from pathlib import Path

import pytest

from lab import faults
from lab.san import San
from lab.services import wait_until
from lunport.core.portal import Portal
from tests.lab.conftest import LabHost

CARRIER = "/sys/class/net/san{}/carrier"


def has_carrier(number: int) -> bool:
    """Tell whether this machine's end of a link sees the other."""
    return Path(CARRIER.format(number)).read_text().strip() == "1"


def connect(portal: Portal, timeout_s: float = 20) -> socket.socket:
    """Connect to a portal."""
    return socket.create_connection((portal.host, portal.port), timeout=timeout_s)


@pytest.mark.parametrize("family", ["portals", "portals6"])
def test_a_link_that_is_down_has_no_carrier(lab_host: LabHost, family: str) -> None:
    """Nothing gets through to its portal and all to the others; healed, both families are back."""
    first, second = getattr(lab_host.network, family)[:2]
    with faults.link_down(lab_host, first):
        assert not has_carrier(1)
        with pytest.raises(OSError, match=r"timed out|[Nn]o route|unreachable"):
            connect(first, 1)
        connect(second).close()
    assert has_carrier(1)
    for portal in (lab_host.network.portals[0], lab_host.network.portals6[0]):
        connect(portal).close()


def test_a_link_flaps_until_it_is_healed(lab_host: LabHost) -> None:
    """It comes and goes as often as is said, and is up afterwards."""
    portal = lab_host.network.portals[1]
    changes = Path("/sys/class/net/san2/carrier_changes")
    before = int(changes.read_text())
    with faults.link_flaps(lab_host, portal, every_s=0.2) as count:
        wait_until(lambda: count() >= 3, "three flaps")
    wait_until(lambda: has_carrier(2), "the carrier")
    assert int(changes.read_text()) - before >= 5
    connect(portal).close()


@pytest.mark.parametrize("family", ["portals", "portals6"])
def test_a_portal_that_resets_can_be_connected_to_again(lab_host: LabHost, family: str) -> None:
    """Connections that live are reset, now and at intervals; other portals' are not."""
    first, second = getattr(lab_host.network, family)[:2]
    with connect(first) as ours, connect(second) as others:
        with faults.portal_resets(lab_host, first, every_s=0.2) as count:
            with pytest.raises(ConnectionResetError):
                ours.recv(1)
            with connect(first) as again, pytest.raises(ConnectionResetError):
                again.recv(1)
            assert count() >= 1
        others.setblocking(False)
        with pytest.raises(BlockingIOError):
            others.recv(1)
    connect(first).close()


def test_a_target_that_restarts_has_its_luns_again(san: San) -> None:
    """It is disabled meanwhile, and shows what it showed."""
    target = san.target()
    disk = san.add_lun(target, 1)
    with faults.target_restarted(target):
        assert (target.place / "enable").read_text().strip() == "0"
    assert (target.place / "enable").read_text().strip() == "1"
    shown = target.place / "lun/lun_1/store"
    assert os.path.realpath(shown) == str(disk.place)
