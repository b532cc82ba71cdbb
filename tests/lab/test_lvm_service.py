"""The whole volume service over LVM and tgt, and what a reboot of its node leaves."""

from __future__ import annotations

import contextlib
from collections.abc import Iterator
from pathlib import Path

import pytest

from lab.lvm import lvm, volume_group
from lab.services import wait_until
from lunport.bootstrap.serve import Running, running_service
from lunport.config import BackendConfig, Config, ServiceConfig
from lunport.core.snapshot import image_name as snapshot_image
from lunport.core.volume import image_name
from lunport.volume import actions, catalog, reverting, snapshots, volumes
from lunport.volume.requests import Caller, NewSnapshot, NewVolume

GROUP = "served"
BACKEND = "fast"
ADMIN = Caller("admin", "project", is_admin=True, is_service=True)
CONNECTOR = {"initiator": "iqn.2026-11.io.lunport.lab:host", "host": "h", "ip": "127.0.0.1"}
PATIENCE_S = 150.0

CONFIG = Config(
    ServiceConfig(on_stop="stop"),
    {BACKEND: BackendConfig(driver="lvm", volume_group=GROUP, portals=("127.0.0.1:3277",))},
)


@pytest.fixture
def group(lab_host: object) -> Iterator[None]:
    """A volume group for one service."""
    with volume_group(GROUP, 128, by_udev=False):
        yield


@contextlib.contextmanager
def serving(folder: Path) -> Iterator[Running]:
    """Have the service run."""
    with running_service(CONFIG, folder, "127.0.0.1:8797") as running:
        yield running


def _until(running: Running, volume_id: str, status: str) -> None:
    def is_so() -> bool:
        view = volumes.get_volume(running.service, ADMIN, volume_id)
        assert not view.volume.status.startswith("error"), view.volume.status
        return view.volume.status == status

    wait_until(is_so, f"{volume_id} to be {status}", PATIENCE_S)


@pytest.mark.timeout(600)
def test_a_volume_of_a_storage_node(group: None, tmp_path: Path) -> None:
    """A volume is made, snapshot, reverted, exported, there again after a reboot, and deleted."""
    with serving(tmp_path) as running:
        service = running.service
        driver = service.backend(BACKEND).driver
        volume = volumes.create_volume(service, ADMIN, NewVolume(1)).volume
        _until(running, volume.id, "available")
        path = driver.locate(image_name(volume.id)).path
        _write(path, b"then")
        snapshot = snapshots.create_snapshot(service, ADMIN, NewSnapshot(volume.id))
        wait_until(
            lambda: snapshots.get_snapshot(service, ADMIN, snapshot.id).status == "available",
            "the snapshot",
            PATIENCE_S,
        )
        assert snapshot_image(snapshot.id) in driver.images()
        _write(path, b"now!")
        reverting.revert_volume(service, ADMIN, volume.id, snapshot.id)
        _until(running, volume.id, "available")
        assert _read(driver.locate(image_name(volume.id)).path) == b"then"
        actions.initialize_connection(service, ADMIN, volume.id, CONNECTOR)
        (pool,) = catalog.list_pools(service, ADMIN)
        assert (pool.allocated_gib, pool.provisioned_gib, pool.is_thin) == (1, 2, True)
    lvm("vgchange", "-q", "-an", GROUP)
    with serving(tmp_path) as running:
        service = running.service
        backend = service.backend(BACKEND)
        wait_until(backend.helper.exports, "the export", PATIENCE_S)
        assert _read(backend.driver.locate(image_name(volume.id)).path) == b"then"
        actions.terminate_connection(service, ADMIN, volume.id, CONNECTOR)
        volumes.delete_volume(service, ADMIN, volume.id, cascade=True)
        wait_until(lambda: not backend.driver.images(), "the end of the volume", PATIENCE_S)


def _write(path: Path, content: bytes) -> None:
    with path.open("r+b") as file:
        file.write(content)


def _read(path: Path) -> bytes:
    with path.open("rb") as file:
        return file.read(4)
