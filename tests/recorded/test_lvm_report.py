"""The readers of what LVM's programs print, against what real ones printed, and against damage."""

from __future__ import annotations

from pathlib import Path

import pytest

from lunport.core.errors import (
    BackendError,
    CommandError,
    ImageMissing,
    LunportError,
    OutOfSpace,
    Unavailable,
)
from lunport.core.lvm_filter import parse_rules, parse_settings
from lunport.host.lvm import parse_failure, parse_groups, parse_volumes

FOLDER = Path(__file__).parent / "lvm" / "2.03.16"
EXTENT = 64 << 10
MIB = 1 << 20
VOLUME = "volume-0f0e0d0c-0b0a-4908-8706-0504030201"
SNAP = "snap-0f0e0d0c-0b0a-4908-8706-0504030201"


def recorded(name: str) -> str:
    """Read one recorded answer."""
    return (FOLDER / name).read_text()


def test_an_empty_group() -> None:
    """A group's sizes are bytes."""
    (group,) = parse_groups(recorded("vgs-empty.out"), "vg")
    assert (group.name, group.size_bytes, group.free_bytes) == ("vg", 128 * MIB, 128 * MIB)
    assert (group.extent_bytes, group.missing_disks, group.volumes) == (EXTENT, 0, 0)
    assert group.round_up(1) == group.round_up(EXTENT) == EXTENT
    assert parse_volumes(recorded("lvs-missing.out")) == []


def test_volumes_of_every_kind() -> None:
    """Thick and thin, of what they are a snapshot, and what of the group they take."""
    found = {one.name: one for one in parse_volumes(recorded("lvs.out"))}
    assert set(found) == {
        f"{VOLUME}00", f"{SNAP}01", "vg-pool", f"{VOLUME}02", f"{SNAP}03",
    }  # fmt: skip
    thick, store = found[f"{VOLUME}00"], found[f"{SNAP}01"]
    assert (thick.is_thick_origin, thick.is_thin, thick.is_active) == (True, False, True)
    assert (store.is_thick_snapshot, store.is_read_only, store.origin) == (True, True, thick.name)
    assert store.size_bytes == thick.size_bytes == 8 * MIB < store.stored_bytes
    pool, thin, snapshot = found["vg-pool"], found[f"{VOLUME}02"], found[f"{SNAP}03"]
    assert (pool.is_pool, pool.zeroes, pool.health) == (True, True, "")
    assert pool.metadata_percent > 0
    assert pool.metadata_bytes > 0
    assert (thin.pool, thin.is_thin, thin.is_thick_origin) == ("vg-pool", True, False)
    assert (snapshot.is_active, snapshot.is_read_only, snapshot.pool) == (False, True, "vg-pool")
    assert not snapshot.is_thick_snapshot
    groups = parse_groups(recorded("lvs.out"), "lv")
    assert {(group.name, group.volumes) for group in groups} == {("vg", 5)}


@pytest.mark.parametrize(
    ("name", "kind", "part"),
    [
        ("full", OutOfSpace, "1024 MiB needed"),
        ("lvs-missing", ImageMissing, "nosuch"),
        ("not-there", ImageMissing, "nosuch"),
        ("there", Unavailable, "another command"),
        ("busy", BackendError, "in use"),
        ("no-group", BackendError, "nogroup"),
    ],
)
def test_failures(name: str, kind: type[LunportError], part: str) -> None:
    """What a program complains of is an error of the tree, and says what it was."""
    error = CommandError(("/sbin/lvm",), 5, recorded(f"{name}.err"), 0.1)
    found = parse_failure(error, "vg", EXTENT)
    assert type(found) is kind
    assert part in str(found)


def test_the_configuration_of_debian() -> None:
    """Debian's LVM looks at every device, but not into its own volumes."""
    settings = parse_settings(recorded("lvmconfig.out"))
    assert settings["scan_lvs"] == "0"
    assert settings["use_devicesfile"] == "0"
    assert parse_rules(settings["global_filter"])[-1] == "r|.*|"


@pytest.mark.parametrize(
    "text", ["", "{", "[]", "{}", '{"report": [{"lv": [{}]}]}', '{"report": [{"lv": [1]}]}']
)
def test_damage(text: str) -> None:
    """What is no report is our error."""
    with pytest.raises(BackendError, match="report"):
        parse_volumes(text)
