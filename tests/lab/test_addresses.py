"""LUNs above 255, several LUNs of one target, IPv6 portals, portals by name, discovery."""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import replace
from pathlib import Path

import pytest

from lab.san import San
from lunport.core.errors import AllPathsFailed
from lunport.core.portal import Portal
from lunport.initiator.connector import Initiator
from tests.lab.connecting import CHAP, disks, first_bytes, info_of, mark, sessions

_HOSTS = Path("/etc/hosts")


@contextmanager
def _named(name: str, *addresses: str) -> Iterator[None]:
    """Give addresses a name on this machine."""
    before = _HOSTS.read_bytes() if _HOSTS.exists() else b""
    _HOSTS.write_bytes(before + "".join(f"\n{each} {name}" for each in addresses).encode() + b"\n")
    try:
        yield
    finally:
        _HOSTS.write_bytes(before)


@pytest.mark.parametrize(
    "lun", [0, *(pytest.param(lun, marks=pytest.mark.again) for lun in (255, 256)), 257, 16383]
)
def test_a_lun_of_any_number_is_connected(san: San, lun: int) -> None:
    """LUNs above 255 are found by the probe and by the kernel under the number that LIO means."""
    target = san.target(portals=san.portals[:1])
    other = san.add_lun(target, 1)
    mark(other, "not this one")
    disk = san.add_lun(target, lun)
    content = mark(disk, f"lun {lun}")
    volume = Initiator().connect(info_of(target, lun, disk))
    assert (volume.unit.lun, first_bytes(volume.path)) == (lun, content)
    Initiator().disconnect(info_of(target, lun, disk))
    assert (sessions(), disks()) == ([], [])


def test_ten_luns_of_one_target_are_ten_disks_on_one_session(san: San) -> None:
    """Each LUN is its own disk with its own bytes; they come and go in any order."""
    target = san.target(portals=san.portals[:1])
    made = {lun: san.add_lun(target, lun) for lun in (*range(1, 9), 300, 301)}
    contents = {lun: mark(disk, f"lun {lun}") for lun, disk in made.items()}
    initiator = Initiator()
    seen = {
        lun: first_bytes(initiator.connect(info_of(target, lun, disk)).path)
        for lun, disk in made.items()
    }
    assert seen == contents
    assert len(sessions()) == 1
    for lun in sorted(made, key=lambda number: number % 4):
        initiator.disconnect(info_of(target, lun, made[lun]))
    assert (sessions(), disks()) == ([], [])


def test_ipv6_portals_are_connected_and_failed_over(san: San) -> None:
    """An IPv6 portal works as main and as alternative, in whatever spelling."""
    target = san.target(portals=(*san.portals6[:2], san.portals[0]))
    disk = san.add_lun(target, 1)
    content = mark(disk, "six")
    dead = Portal(san.portals6[0].host, 3999)
    info = info_of(target, 1, disk, portals=(dead, *target.portals))
    volume = Initiator().connect(info)
    assert (volume.used.portal, first_bytes(volume.path)) == (san.portals6[0], content)
    Initiator().disconnect(info)
    assert (sessions(), disks()) == ([], [])


def test_a_portal_by_name_is_each_of_its_addresses_in_turn(san: San) -> None:
    """A name that has two addresses is two paths, and the dead one of them does no harm."""
    target = san.target(portals=san.portals[1:2])
    disk = san.add_lun(target, 1)
    name = "san-a.lab.example"
    with _named(name, "10.0.1.250", san.portals[1].host):
        info = info_of(target, 1, disk, portals=(Portal(name),))
        volume = Initiator().connect(info)
        assert volume.used.portal == san.portals[1]
        assert Initiator().connect(info).path == volume.path
    # The name is gone; the journal has the address.
    Initiator().disconnect(info)
    assert (sessions(), disks()) == ([], [])


def test_a_name_without_an_address_says_so(san: San) -> None:
    """A portal that can't be resolved is an error with its name."""
    target = san.target(portals=san.portals[:1])
    disk = san.add_lun(target, 1)
    info = info_of(target, 1, disk, portals=(Portal("nowhere.lab.invalid"),))
    with pytest.raises(AllPathsFailed) as raised:
        Initiator().connect(info)
    assert "nowhere.lab.invalid" in str(raised.value)


def test_a_discovery_that_is_asked_for_falls_to_the_alternative_and_finds_more(san: San) -> None:
    """With the main portal dead, an alternative is asked, and a portal it tells of is used."""
    target = san.target(portals=san.portals[1:4])
    disk = san.add_lun(target, 1)
    dead = Portal(san.portals[0].host, 3999)
    info = replace(info_of(target, 1, disk, portals=(dead, san.portals[1])), target_discovered=True)
    volume = Initiator().connect(info)
    assert volume.used.portal == san.portals[1]
    assert {unused.path.portal for unused in volume.unused} >= {dead, *san.portals[2:4]}
    Initiator().disconnect(info)
    assert (sessions(), disks()) == ([], [])


def test_a_discovery_shows_its_credentials(san: San) -> None:
    """Where discovery demands CHAP, the discovery's own credentials are used."""
    target = san.target(portals=san.portals[:2])
    disk = san.add_lun(target, 1)
    san.discovery_chap(CHAP)
    info = replace(
        info_of(target, 1, disk, portals=san.portals[:1]),
        target_discovered=True,
        discovery_chap=CHAP.initiator,
    )
    volume = Initiator().connect(info)
    assert san.portals[1] in {unused.path.portal for unused in volume.unused}
    Initiator().disconnect(info)
