"""Drivers and helpers by name: those known, those not, and the options of each."""

from __future__ import annotations

from pathlib import Path

import pytest

from lunport.core.errors import InvalidConfig, InvalidInput
from lunport.core.portal import Portal
from lunport.drivers import registry as drivers
from lunport.drivers.file import FileDriver
from lunport.drivers.lvm import LvmDriver
from lunport.drivers.lvm_group import HostFilter, LvmSettings, LvmType, VolumeClear
from lunport.drivers.registry import DriverSettings, driver_names, make_driver
from lunport.targets.lio import LioHelper
from lunport.targets.registry import HelperSettings, helper_names, make_helper, require_protocol
from lunport.targets.tgt import TgtHelper

FOLDER = Path("/nowhere/images")
PORTALS = (Portal("127.0.0.1"),)


def test_the_built_in_ones_are_known() -> None:
    """The drivers and the helper that come along need no installation of anything."""
    assert {"file", "lvm", "static"} <= set(driver_names())
    assert {"lio", "tgt"} <= set(helper_names())


def test_a_driver_is_made_with_its_options() -> None:
    """Options reach the driver, and its folder is the service's unless one is given."""
    options = {"directory": "/elsewhere", "over_subscription_ratio": 2, "reserve_mib": 100}
    assert isinstance(make_driver("file", DriverSettings("fast", FOLDER)), FileDriver)
    driver = make_driver("file", DriverSettings("fast", FOLDER, options))
    assert isinstance(driver, FileDriver)
    assert driver._folder == Path("/elsewhere")
    assert driver._ratio == 2.0
    assert driver._reserve_bytes == 100 << 20


@pytest.mark.parametrize("options", [{}, {"tgtd": "system"}, {"io_threads": 4}])
def test_a_helper_is_made_with_its_options(options: dict[str, object]) -> None:
    """The helper has the configured portals, with its own daemon or the system's."""
    helper = make_helper("tgt", HelperSettings("fast", FOLDER, PORTALS, options=options))
    assert isinstance(helper, TgtHelper)
    assert tuple(helper.portals) == PORTALS


@pytest.mark.parametrize("options", [{}, {"direct_io": False}, {"iser": ["127.0.0.1:3260"]}])
def test_the_kernels_target_is_made_with_its_options(options: dict[str, object]) -> None:
    """LIO's helper has the configured portals; nothing is loaded yet."""
    helper = make_helper("lio", HelperSettings("fast", FOLDER, PORTALS, options=options))
    assert isinstance(helper, LioHelper)
    assert tuple(helper.portals) == PORTALS


@pytest.mark.parametrize(
    "options, what",
    [
        ({"direct_io": "yes"}, "direct_io"),
        ({"iser": "127.0.0.1"}, "iser"),
        ({"iser": ["10.9.9.9"]}, "iser"),
        ({"iser": ["not a portal"]}, "iser"),
        ({"io_threads": 2}, "fast"),
    ],
)
def test_a_wrong_option_of_the_kernels_target_is_named(
    options: dict[str, object], what: str
) -> None:
    """Unknown options, and iSER on something that is no portal of the backend."""
    with pytest.raises(InvalidInput, match=what):
        make_helper("lio", HelperSettings("fast", FOLDER, PORTALS, options=options))


def test_an_unknown_name_lists_the_known_ones() -> None:
    """A misspelt driver or helper is an error that says what would be right, and where."""
    with pytest.raises(InvalidConfig, match=r"backend\.fast\.driver.*known drivers: .*file"):
        make_driver("fiel", DriverSettings("fast", FOLDER))
    with pytest.raises(InvalidConfig, match=r"backend\.fast\.helper.*known helpers: .*tgt"):
        make_helper("lio2", HelperSettings("fast", FOLDER, PORTALS))


def test_a_helper_of_another_protocol_is_refused() -> None:
    """One that was written for an earlier version is named at once, not at its first export."""
    require_protocol("tgt", "fast", 2)
    with pytest.raises(InvalidConfig, match=r"backend\.fast\.helper.*version 1 .*, not 2"):
        require_protocol("theirs", "fast", 1)
    drivers.require_protocol("file", "fast", 1)
    with pytest.raises(InvalidConfig, match=r"backend\.fast\.driver.*version 2 .*, not 1"):
        drivers.require_protocol("theirs", "fast", 2)


@pytest.mark.parametrize(
    "options",
    [
        {"directory": "relative"},
        {"directory": 7},
        {"over_subscription_ratio": "much"},
        {"over_subscription_ratio": 0.5},
        {"over_subscription_ratio": True},
        {"reserve_mib": 1.5},
        {"reserve_mib": -1},
        {"reserved": 1},
    ],
)
def test_an_option_that_a_driver_cannot_use_is_refused(options: dict[str, object]) -> None:
    """Wrong types, wrong values and unknown keys are errors."""
    with pytest.raises(InvalidConfig):
        make_driver("file", DriverSettings("fast", FOLDER, options))


@pytest.mark.parametrize(
    "options", [{"tgtd": "theirs"}, {"io_threads": 0}, {"io_threads": "2"}, {"threads": 2}]
)
def test_an_option_that_a_helper_cannot_use_is_refused(options: dict[str, object]) -> None:
    """Wrong types, wrong values and unknown keys are errors."""
    with pytest.raises(InvalidConfig):
        make_helper("tgt", HelperSettings("fast", FOLDER, PORTALS, options=options))


def test_the_lvm_driver_is_made_with_its_options() -> None:
    """Options reach the driver, in bytes; nothing is looked at until it is used."""
    options = {
        "volume_group": "vg",
        "lvm_type": "thick",
        "physical_volumes": ("/dev/sdb",),
        "volume_clear": "discard",
        "clear_mib_per_s": 0,
        "reserve_mib": 7,
        "host_filter": "warn",
    }
    driver = make_driver("lvm", DriverSettings("fast", FOLDER, options))
    assert isinstance(driver, LvmDriver)
    assert driver.settings == LvmSettings(
        "vg",
        lvm_type=LvmType.THICK,
        physical_volumes=("/dev/sdb",),
        volume_clear=VolumeClear.DISCARD,
        clear_bytes_per_s=0,
        reserve_bytes=7 << 20,
        host_filter=HostFilter.WARN,
    )
    assert driver.settings.pool_name == "vg-pool"


@pytest.mark.parametrize(
    ("key", "value"),
    [
        ("volume_group", None),
        ("volume_group", "a/b"),
        ("pool", "-x"),
        ("lvm_type", "fat"),
        ("volume_clear", "shred"),
        ("physical_volumes", ("sdb",)),
        ("physical_volumes", "/dev/sdb"),
        ("clear_mib_per_s", -1),
        ("copy_mib_per_s", 1.5),
        ("reserve_mib", True),
        ("over_subscription_ratio", 0.5),
        ("host_filter", "no"),
    ],
)
def test_an_option_that_the_lvm_driver_cannot_use_is_named(key: str, value: object) -> None:
    """The error has the backend's name, the key and the value."""
    options = {"volume_group": "vg"} | {key: value}
    with pytest.raises(InvalidConfig, match=rf"backend\.fast\.{key}"):
        make_driver("lvm", DriverSettings("fast", FOLDER, options))


def test_an_option_that_the_lvm_driver_does_not_know() -> None:
    """It is named, with those that are known."""
    with pytest.raises(
        InvalidConfig, match=r"backend\.fast.*colour.*known options: .*volume_group"
    ):
        make_driver("lvm", DriverSettings("fast", FOLDER, {"colour": "red", "volume_group": "v"}))
