"""What others may build on, used as they would use it. Only mypy reads this; nothing runs it.

A line that stops type-checking is a change that breaks somebody: say so in ``changes/``.
"""

from __future__ import annotations

from functools import partial
from pathlib import Path
from typing import assert_type

from lunport.core.change import Change
from lunport.core.connection_info import (
    ConnectionInfo,
    format_connection_info,
    parse_connection_info,
)
from lunport.core.disk_source import DiskSource, make_disk_source
from lunport.core.errors import AllPathsFailed, LunportError, Remedy
from lunport.core.iqn import Iqn, parse_iqn
from lunport.core.portal import Portal, parse_portal
from lunport.core.provider_location import ProviderLocation, parse_provider_location
from lunport.core.target_path import TargetPath
from lunport.drivers.driver import Image, StorageDriver
from lunport.drivers.registry import DriverFactory, DriverSettings, make_driver
from lunport.host.clock import Deadline
from lunport.host.dead_portals import DeadPortals
from lunport.host.portal_probe import probe_path
from lunport.initiator.portal_choice import PathChoice, choose_path
from lunport.targets.helper import SeenExport, TargetHelper
from lunport.targets.registry import HelperFactory, HelperSettings, make_helper


def values_are_parsed_from_text() -> None:
    """Parsers take what came from outside and give values; formatters give text."""
    assert_type(parse_portal("10.0.1.2:3260"), Portal)
    assert_type(parse_iqn("iqn.2026-11.org.example:one"), Iqn)
    assert_type(
        parse_provider_location("10.0.1.2:3260,1 iqn.2026-11.org.example:one"), ProviderLocation
    )
    info = parse_connection_info({"driver_volume_type": "iscsi", "data": {}})
    assert_type(info, ConnectionInfo)
    assert_type(info.paths, tuple[TargetPath, ...])
    assert_type(format_connection_info(info, multipath=False), dict[str, object])


def a_host_chooses_a_path(wire: object, initiator: Iqn) -> DiskSource | None:
    """The host side is embedded with three calls; what a planner may do is on the error."""
    info = parse_connection_info(wire)
    try:
        choice = choose_path(
            info.paths,
            initiator,
            chap=info.chap,
            wwid=info.wwid,
            memory=DeadPortals(),
            deadline=Deadline.after(15),
        )
    except AllPathsFailed as error:
        assert_type(error.remedy, Remedy)
        return None
    assert_type(choice, PathChoice)
    return make_disk_source(choice.path, initiator, info.chap)


def a_path_is_probed(path: TargetPath, initiator: Iqn) -> str:
    """One path alone can be asked after; the verdict has a name."""
    outcome = probe_path(
        path, initiator, None, expected_wwid=None, check_lun=False, deadline=Deadline.after(5)
    )
    return outcome.verdict.value


def a_third_party_makes_its_driver(settings: DriverSettings) -> StorageDriver:
    """A factory is what an entry point names, and what comes of it is a driver."""
    factory: DriverFactory = partial(make_driver, "file")
    driver = factory(settings)
    assert_type(driver.create("volume-1", 1 << 30), Change)
    assert_type(driver.locate("volume-1"), Image)
    assert_type(driver.locate("volume-1").path, Path)
    return driver


def a_third_party_makes_its_helper(settings: HelperSettings) -> TargetHelper:
    """The same for a target helper."""
    factory: HelperFactory = partial(make_helper, "tgt")
    helper = factory(settings)
    assert_type(helper.exports(), tuple[SeenExport, ...])
    return helper


def every_error_is_ours(error: LunportError) -> bool:
    """One class catches all, and each says what may be tried."""
    return error.remedy is Remedy.NEXT_PATH
