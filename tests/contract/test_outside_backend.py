"""The example of a driver and a helper from outside keeps what ours keep."""

from __future__ import annotations

import json
from dataclasses import replace
from pathlib import Path

import pytest
from outside_backend.shelf import ShelfDriver, make_shelf
from outside_backend.told import ToldHelper, make_told

from lunport.core.errors import BackendError, InvalidConfig
from lunport.core.portal import Portal
from lunport.drivers.registry import DriverSettings
from lunport.targets.registry import HelperSettings
from tests.contract import driver_suite
from tests.contract.driver_suite import RATIO, DriverContract, bench_of
from tests.contract.fake_bench import fake_bench
from tests.contract.helper_bench import Bench
from tests.contract.helper_suite import HelperContract

PORTALS = (Portal("127.0.0.1"),)
FOLDER = Path("/nowhere")


class TestShelf(DriverContract):
    """The driver."""

    @pytest.fixture
    def bench(self, tmp_path: Path) -> driver_suite.Bench:
        """Make one, empty."""
        driver = ShelfDriver(tmp_path / "images", RATIO)
        driver.check()
        return bench_of(driver)


class TestTold(HelperContract):
    """The helper, around a fake."""

    @pytest.fixture
    def bench(self, tmp_path: Path) -> Bench:
        """Make one, started."""
        inner = fake_bench(tmp_path)
        return replace(inner, helper=ToldHelper(inner.helper, tmp_path / "told"))


def test_a_half_made_image_is_swept(tmp_path: Path) -> None:
    """What a kill leaves is no image, and goes."""
    driver = ShelfDriver(tmp_path, RATIO)
    (tmp_path / ".half-volume-1").touch()
    assert driver.images() == frozenset()
    assert driver.sweep(()) == (".half-volume-1",)
    assert list(tmp_path.iterdir()) == []


def test_each_change_is_told_without_secrets(tmp_path: Path) -> None:
    """A line says what was done for whom; what changed nothing is not told."""
    bench = fake_bench(tmp_path)
    helper, told = ToldHelper(bench.helper, tmp_path / "told"), tmp_path / "told"
    export = bench.export()
    helper.export(export)
    helper.export(export)
    (line,) = told.read_text().splitlines()
    assert json.loads(line) == {
        "verb": "export",
        "target": export.iqn,
        "luns": [1],
        "initiators": sorted(export.initiators),
    }
    told.unlink()
    told.mkdir()
    with pytest.raises(BackendError, match="told"):
        helper.start()


@pytest.mark.parametrize("options", [{"promise": 0.5}, {"promise": "much"}, {"promised": 2}])
def test_an_option_that_the_driver_cannot_use_is_refused(options: dict[str, object]) -> None:
    """Wrong values and unknown keys are named."""
    with pytest.raises(InvalidConfig, match=r"backend\.fast"):
        make_shelf(DriverSettings("fast", FOLDER, options))


@pytest.mark.parametrize("options", [{}, {"tell": "here"}, {"tell": "/told", "threads": 1}])
def test_an_option_that_the_helper_cannot_use_is_refused(options: dict[str, object]) -> None:
    """So are the inner helper's, by itself."""
    with pytest.raises(InvalidConfig, match=r"backend\.fast"):
        make_told(HelperSettings("fast", FOLDER, PORTALS, options=options))
