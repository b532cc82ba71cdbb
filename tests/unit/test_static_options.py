"""How the units of a static backend are declared."""

from __future__ import annotations

from pathlib import Path

import pytest

from lunport.core.errors import BackendError, InvalidConfig
from lunport.core.portal import Portal
from lunport.core.wwid import Wwid
from lunport.drivers.static_options import make_static_driver, parse_units
from lunport.drivers.static_units import (
    Assignment,
    Assignments,
    Phase,
    StaticUnit,
    choose_unit,
    describe_free,
)

UNIT: dict[str, object] = {
    "size_gib": 10,
    "portals": ["10.0.1.2", "10.0.2.2:3261"],
    "iqn": "iqn.2014-2.org.example:vol1",
    "lun": 1,
}


def test_one_iqn_and_lun_stand_for_every_portal() -> None:
    """The short form: all portals lead to the same target and number, in the given order."""
    (unit,) = parse_units("backend.nas", [UNIT | {"wwid": "3600140500000000000000000000000a1"}])
    assert [str(path) for path in unit.paths] == [
        "10.0.1.2:3260 iqn.2014-2.org.example:vol1 lun 1",
        "10.0.2.2:3261 iqn.2014-2.org.example:vol1 lun 1",
    ]
    assert (unit.size_gib, unit.wwid) == (10, Wwid("naa.600140500000000000000000000000a1"))


def test_each_portal_may_have_an_iqn_and_a_lun_of_its_own() -> None:
    """The long form, as in the example of the specification of alternative portals."""
    entry = {
        "size_gib": 1,
        "portals": ["10.0.1.2", "10.0.2.2"],
        "iqns": ["iqn.2014-2.org.example:vol1-1", "iqn.2014-2.org.example:vol1-2"],
        "luns": [1, 2],
    }
    (unit,) = parse_units("backend.nas", [entry])
    assert [(path.portal, path.iqn[-1], path.lun) for path in unit.paths] == [
        (Portal("10.0.1.2"), "1", 1),
        (Portal("10.0.2.2"), "2", 2),
    ]


@pytest.mark.parametrize(
    ("changes", "told"),
    [
        ({"size_gib": 0}, "size_gib"),
        ({"size_gib": None}, "size_gib"),
        ({"portals": []}, "portals"),
        ({"portals": "10.0.1.2"}, "portals"),
        ({"portals": ["storage.example"]}, "an address, not a name"),
        ({"portals": ["10.0.1.2", "10.0.1.2:3260"]}, "one occurs twice"),
        ({"lun": 16384}, "LUN"),
        ({"iqn": "volume 1"}, "iqn"),
        ({"iqns": ["iqn.2014-2.org.example:a"]}, "either iqn or iqns"),
        ({"wwid": 7}, "wwid"),
        ({"wwid": "sda"}, "WWID"),
        ({"colour": "green"}, "known keys"),
        ({"chap_username": "somebody"}, "come together"),
        ({"chap_password_file": "/etc/secret"}, "come together"),
        ({"chap_username": "a", "chap_password_file": "/nowhere/at/all"}, "password_file"),
    ],
)
def test_what_is_wrong_is_named(changes: dict[str, object], told: str) -> None:
    """The error says which entry and key, and what was expected."""
    with pytest.raises(InvalidConfig) as raised:
        parse_units("backend.nas", [UNIT | changes])
    assert told in str(raised.value)
    assert "backend.nas.luns[0]" in str(raised.value)


def test_lists_that_do_not_fit_are_refused() -> None:
    """As many IQNs as portals, or one."""
    entry = {key: value for key, value in UNIT.items() if key != "iqn"}
    with pytest.raises(InvalidConfig, match="expected 2, one for each portal"):
        parse_units("backend.nas", [entry | {"iqns": ["iqn.2014-2.org.example:a"]}])


def test_a_unit_is_declared_once() -> None:
    """The same place, or the same identity, twice would give one disk to two volumes."""
    with pytest.raises(InvalidConfig, match="declared twice"):
        parse_units("backend.nas", [UNIT, UNIT | {"size_gib": 20}])
    wwid = {"wwid": "naa.600140500000000000000000000000a1"}
    with pytest.raises(InvalidConfig, match="two units have this wwid"):
        parse_units("backend.nas", [UNIT | wwid, UNIT | wwid | {"lun": 2}])


def test_a_secret_is_read_from_a_file_that_others_cannot_read(tmp_path: Path) -> None:
    """A file with a wider mode is refused, and no secret is in the error or the value's repr."""
    file = tmp_path / "secret"
    file.write_text("FirstSecret12345\n")
    file.chmod(0o644)
    entry = UNIT | {"chap_username": "somebody", "chap_password_file": str(file)}
    with pytest.raises(InvalidConfig, match="chmod 600") as raised:
        parse_units("backend.nas", [entry])
    assert "FirstSecret" not in str(raised.value)
    file.chmod(0o600)
    (unit,) = parse_units("backend.nas", [entry])
    assert unit.chap is not None
    assert unit.chap.initiator.password.reveal() == "FirstSecret12345"
    assert "FirstSecret" not in repr(unit)


def test_options_are_checked_before_a_driver_is_made(tmp_path: Path) -> None:
    """Unknown options, another wipe and a name that is none are refused."""
    known: dict[str, object] = {"luns": [UNIT], "initiator": "iqn.2026-11.org.example:storage"}
    wrong: dict[str, tuple[object, str]] = {
        "wipe": ("shred", "zero or none"),
        "discovered": ("yes", "true or false"),
        "initiator": ("storage", "initiator"),
        "colour": ("green", "known options"),
        "luns": ([], "at least one"),
    }
    for key, (value, told) in wrong.items():
        with pytest.raises(InvalidConfig) as raised:
            make_static_driver("nas", tmp_path, known | {key: value}, stop=lambda: False)
        assert told in str(raised.value)


def test_a_unit_that_could_never_be_wiped_is_refused_at_the_start(tmp_path: Path) -> None:
    """Mutual CHAP and a wipe by QEMU exclude each other; without a wipe it is fine."""
    file = tmp_path / "secret"
    file.write_text("FirstSecret12345\n")
    file.chmod(0o600)
    sides = ("chap", "mutual")
    entry = UNIT | {f"{side}_username": side for side in sides}
    entry |= {f"{side}_password_file": str(file) for side in sides}
    options: dict[str, object] = {"luns": [entry], "initiator": "iqn.2026-11.org.example:s"}
    with pytest.raises(InvalidConfig, match="mutual CHAP"):
        make_static_driver("nas", tmp_path, options, stop=lambda: False)
    make_static_driver("nas", tmp_path, options | {"wipe": "none"}, stop=lambda: False)


def unit_of(number: int, size_gib: int) -> StaticUnit:
    """Declare a unit."""
    (unit,) = parse_units("backend.nas", [UNIT | {"lun": number, "size_gib": size_gib}])
    return unit


def test_the_first_free_unit_of_the_size_is_chosen() -> None:
    """Of those with exactly the size, in the order of their declaration."""
    units = {one.key: one for one in (unit_of(1, 10), unit_of(2, 20), unit_of(3, 10))}
    first = choose_unit(units, {}, 10)
    assert first is not None
    assert first.paths[0].lun == 1
    taken = {first.key: Assignment("volume-1", 10 << 30, Wwid("naa.6a"))}
    second = choose_unit(units, taken, 10)
    assert second is not None
    assert second.paths[0].lun == 3
    assert choose_unit(units, taken, 15) is None
    assert describe_free(units, taken) == "1 of 10 GiB, 1 of 20 GiB"
    assert describe_free({}, {}) == "none"


def test_assignments_are_read_as_they_were_written(tmp_path: Path) -> None:
    """Without a file there are none; a damaged one is never taken for none."""
    kept = Assignments(tmp_path / "folder" / "assignments.json")
    assert kept.read() == {}
    one = Assignment("volume-1", 10 << 30, Wwid("naa.6a"), Phase.WIPING)
    kept.write({"somewhere": one})
    assert kept.read() == {"somewhere": one}
    kept.file.write_text("{")
    with pytest.raises(BackendError, match="damaged"):
        kept.read()
    kept.file.write_text('{"somewhere": {"image": "volume-1"}}')
    with pytest.raises(BackendError, match="damaged"):
        kept.read()
