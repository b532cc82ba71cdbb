"""What every storage driver keeps, proved on the fake, and on files on disk and in memory."""

from __future__ import annotations

import shutil
import tempfile
from collections.abc import Iterator
from pathlib import Path

import pytest

from lunport.drivers.file import FileDriver
from tests.contract.driver_suite import RATIO, Bench, DriverContract, bench_of
from tests.fakes.fake_driver import FakeDriver


@pytest.fixture(params=["fake", "file on disk", "file in memory"])
def bench(request: pytest.FixtureRequest, tmp_path: Path) -> Iterator[Bench]:
    """One driver after the other, empty."""
    if request.param == "fake":
        fake = FakeDriver(over_subscription_ratio=RATIO)
        yield Bench(fake, fake.write, fake.read)
        return
    if request.param == "file on disk":
        driver = FileDriver(tmp_path / "images", over_subscription_ratio=RATIO)
        driver.check()
        yield bench_of(driver)
        return
    folder = Path(tempfile.mkdtemp(prefix="lunport-test-", dir="/dev/shm"))
    try:
        driver = FileDriver(folder / "images", over_subscription_ratio=RATIO)
        driver.check()
        yield bench_of(driver)
    finally:
        shutil.rmtree(folder)


class TestDriverContract(DriverContract):
    """The fake, files on disk and files in memory."""
