"""A static backend of ``lunport serve``: units of a tgtd that somebody else runs, as volumes."""

from __future__ import annotations

import json
from collections.abc import Iterator
from pathlib import Path

import pytest

from lunport.core.identity import derive_identity
from lunport.core.size import GIB
from lunport.core.volume import image_name
from lunport.targets.naming import target_name
from tests.daemons.conftest import CHAP, INITIATOR, RunningTgtd
from tests.daemons.qemu_io import QemuSession
from tests.daemons.service_process import INITIATOR as SERVICE_INITIATOR
from tests.daemons.service_process import ServiceProcess

pytestmark = pytest.mark.needs("tgtd", "qemu-img", "qemu-io")

NAME = "array-volume-7"


def declared(tgtd: RunningTgtd, folder: Path, more: str = "") -> str:
    """Declare the one unit that the storage offers, as an operator writes it."""
    secret = folder / "nas.secret"
    secret.touch(mode=0o600)
    secret.write_text(f"{CHAP.initiator.password.reveal()}\n")
    return (
        '[backend.nas]\ndriver = "static"\n'
        f'initiator = "{INITIATOR}"\n{more}\n'
        "[[backend.nas.luns]]\nsize_gib = 1\n"
        f"portals = {json.dumps([str(portal) for portal in tgtd.portals])}\n"
        f'iqn = "{target_name(NAME)}"\nlun = 1\n'
        f'wwid = "{derive_identity(NAME).wwid}"\n'
        f'chap_username = "{CHAP.initiator.username}"\n'
        f'chap_password_file = "{secret}"\n'
    )


@pytest.fixture
def offered(tgtd: RunningTgtd) -> RunningTgtd:
    """Storage with one unit of 1 GiB, which lets this host's names in."""
    tgtd.helper.export(tgtd.export(NAME, size_bytes=GIB))
    return tgtd


@pytest.fixture
def service(offered: RunningTgtd, tmp_path: Path) -> Iterator[ServiceProcess]:
    """A service whose default backend is the static one."""
    backends = declared(offered, tmp_path)
    default = 'default_backend = "nas"'
    with ServiceProcess(tmp_path / "service", service=default, backend=backends) as running:
        yield running


def test_a_unit_becomes_a_volume_is_used_and_comes_back_wiped(
    service: ServiceProcess, offered: RunningTgtd, tmp_path: Path
) -> None:
    """What hosts are told leads to the unit, and nothing on the storage changes but its bytes."""
    volume = service.create(name="from the array")
    assert service.status_of(volume) == "available"
    status, answer = service.connect(volume)
    assert status == 200, answer
    data = answer["connection_info"]["data"]
    assert (data["target_iqn"], data["target_lun"]) == (target_name(NAME), 1)
    assert data["target_portals"] == [str(portal) for portal in offered.portals]
    assert data["wwid"] == derive_identity(NAME).wwid
    assert data["auth_username"] == CHAP.initiator.username
    assert "target_alternative_portals" in data

    before = offered.helper.exports()
    portal, iqn = offered.portals[1], target_name(NAME)
    with QemuSession(tmp_path, portal, iqn, INITIATOR, CHAP.initiator) as session:
        assert "wrote" in session.run("write -P 0x61 0 4096")
    status, _ = service.ask(
        "POST",
        f"/p/volumes/{volume}/action",
        {"os-terminate_connection": {"connector": {"initiator": INITIATOR}}},
    )
    assert status == 202
    assert offered.helper.exports() == before

    second = service.create(name="there is no second one")
    assert service.status_of(second) == "error"
    status, answer = service.ask("DELETE", f"/p/volumes/{volume}")
    assert (status, service.until(volume, "gone", "error_deleting")) == (202, "gone")
    with offered.image(f"volume-{NAME}", GIB).open("rb") as file:
        assert not any(file.read(4096))
    third = service.create(name="the next one")
    assert service.status_of(third) == "available"
    assert offered.helper.exports() == before


def test_who_has_which_unit_survives_a_restart(service: ServiceProcess) -> None:
    """The same volume has the same unit, and nobody else gets it."""
    volume = service.create(name="kept")
    assert service.connect(volume)[0] == 200
    service.stop()
    service.start()
    status, answer = service.connect(volume)
    assert status == 200
    assert answer["connection_info"]["data"]["wwid"] == derive_identity(NAME).wwid
    other = service.create(name="another")
    assert service.status_of(other) == "error"


def test_what_a_unit_cannot_do_leaves_the_volume_as_good_as_it_was(
    service: ServiceProcess,
) -> None:
    """Growing is refused with a message; a snapshot ends in error; the volume is available."""
    volume = service.create(name="fixed")
    assert service.ask("POST", f"/p/volumes/{volume}/action", {"os-extend": {"new_size": 2}})[
        0
    ] in (202, 400)
    assert service.until(volume, "available", "error_extending") == "available"
    status, answer = service.ask("POST", "/p/snapshots", {"snapshot": {"volume_id": volume}})
    assert status == 202, answer
    _, messages = service.ask("GET", "/p/messages")
    assert any(volume == one["resource_uuid"] for one in messages["messages"]), messages
    assert service.status_of(volume) == "available"


def test_one_portal_is_told_where_the_others_are_discovered(
    offered: RunningTgtd, tmp_path: Path
) -> None:
    """The answer of a backend that knows one portal: singular keys, and that there are more."""
    backends = declared(offered, tmp_path, more="discovered = true")
    default = 'default_backend = "nas"'
    with ServiceProcess(tmp_path / "service", service=default, backend=backends) as service:
        volume = service.create(name="one portal")
        connector = {"initiator": INITIATOR, "host": "h", "multipath": True}
        action = {"os-initialize_connection": {"connector": connector}}
        status, answer = service.ask("POST", f"/p/volumes/{volume}/action", action)
    assert status == 200
    data = answer["connection_info"]["data"]
    assert data["target_portal"] == str(offered.portals[0])
    assert data["target_discovered"] is True
    assert "target_portals" not in data
    assert image_name(volume) not in json.dumps(data)


def test_a_setting_of_targets_that_are_not_ours_is_refused(
    offered: RunningTgtd, tmp_path: Path
) -> None:
    """Its portals are those of its units: others would mean nothing."""
    backends = declared(offered, tmp_path, more='portals = ["127.0.0.9"]')
    service = ServiceProcess(tmp_path / "service", backend=backends)
    status, said = service.refusal()
    assert status != 0
    assert "backend.nas.portals" in said


def test_a_host_cannot_be_cut_off_here_and_that_is_said(service: ServiceProcess) -> None:
    """It is an error, the host may not connect again, and the look at all exports is content."""
    volume = service.create(name="doubted")
    assert service.connect(volume)[0] == 200
    status, answer = service.ask("GET", "/p/exports")
    assert status == 200, answer
    assert status == 200
    (shown,) = answer["exports"]
    assert (shown["volume_id"], shown["iqn"]) == (volume, target_name(NAME))
    status, answer = service.ask("POST", "/p/exports/action", {"lunport:check": {"repair": False}})
    assert (status, answer["whole"]) == (200, True), answer
    revoke = {"lunport:revoke": {"initiator": SERVICE_INITIATOR}}
    status, answer = service.ask("POST", "/p/exports/action", revoke)
    assert status in (500, 503), answer
    assert service.connect(volume)[0] in (403, 409)
    restore = {"lunport:restore": {"initiator": SERVICE_INITIATOR}}
    assert service.ask("POST", "/p/exports/action", restore)[0] == 200
    assert service.connect(volume)[0] == 200
