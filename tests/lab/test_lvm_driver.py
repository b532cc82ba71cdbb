"""The LVM driver on the real kernel: the contract of every driver, thin and thick."""

from __future__ import annotations

from collections.abc import Iterator

import pytest

from lab.lvm import EXTENT_KIB, remove_volumes, volume_group
from lunport.drivers.lvm import LvmDriver
from lunport.drivers.lvm_group import LvmSettings, LvmType
from tests.contract.driver_suite import MIB, ONE, RATIO, Bench, DriverContract, bench_of

ROOM_MIB = 128
RESERVE_BYTES = 1 << 20


@pytest.fixture(scope="module", params=["thin", pytest.param("thick", marks=pytest.mark.again)])
def group(request: pytest.FixtureRequest, lab_host: object) -> Iterator[LvmDriver]:
    """One volume group of each kind, and its driver."""
    name = f"lab-{request.param}"
    with volume_group(name, ROOM_MIB, by_udev=False):
        is_thin = request.param == "thin"
        driver = LvmDriver(
            LvmSettings(
                name,
                lvm_type=LvmType(request.param),
                over_subscription_ratio=RATIO,
                reserve_bytes=RESERVE_BYTES if is_thin else 0,
            )
        )
        driver.check()
        driver.create(ONE, MIB)  # with its first volume a pool gets the devices that it keeps
        driver.delete(ONE)
        yield driver


@pytest.fixture
def bench(group: LvmDriver) -> Iterator[Bench]:
    """The group, empty."""
    is_thin = group.capacity().is_thin
    try:
        yield bench_of(group, RATIO if is_thin else 1.0, EXTENT_KIB << 10)
    finally:
        name = group.settings.volume_group
        remove_volumes(name, keep=group.settings.pool_name if is_thin else "")


class TestLvmDriverContract(DriverContract):
    """A thin pool, and a group of thick volumes."""
