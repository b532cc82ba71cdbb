"""Whether a host's LVM looks into volumes: its filter as lvm.conf(5) defines it."""

from __future__ import annotations

import pytest

from lunport.core.lvm_filter import (
    HostLvm,
    advise,
    exact_rule,
    find_gaps,
    is_accepted,
    parse_rules,
    parse_settings,
)

OWN = {"/dev/sdb": ("/dev/sdb", "/dev/disk/by-id/wwn-0x5")}
FOREIGN = {"the volumes": ("/dev/vg/volume-1", "/dev/dm-9"), "loops": ("/dev/loop7",)}
ONLY_SDB = ("a|^/dev/sdb$|", "r|.*|")


@pytest.mark.parametrize(
    ("rules", "names", "expected"),
    [
        ((), ("/dev/sda",), True),
        (("a|.*|",), ("/dev/sda",), True),
        (ONLY_SDB, ("/dev/sdb",), True),
        (ONLY_SDB, ("/dev/sdb1",), False),
        (("r|/dev/loop|",), ("/dev/loop0",), False),
        (("r|/dev/loop|",), ("/dev/sda",), True),
        (("r/loop/", "a/.*/"), ("/dev/loop0",), False),
        (("a/by-id/", "r/.*/"), ("/dev/sdb", "/dev/disk/by-id/wwn-0x5"), True),
        (("a{sdb}", "r{.*}"), ("/dev/sdb",), True),
        (("r|.*|", "a|sdb|"), ("/dev/sdb",), False),
        (("a|[|", "r|.*|"), ("/dev/sdb",), False),
    ],
)
def test_rules(rules: tuple[str, ...], names: tuple[str, ...], expected: bool) -> None:
    """The first rule that matches a name decides for it; one accepted name is enough."""
    assert is_accepted(rules, names) is expected


def test_what_lvmconfig_prints() -> None:
    """A filter is one string or a list; the sign that escapes goes."""
    text = 'global_filter=["a|^/dev/sdb$|","r|\\\\d|"]\nscan_lvs=0\n\nuse_devicesfile=1\n'
    settings = parse_settings(text)
    assert parse_rules(settings["global_filter"]) == ("a|^/dev/sdb$|", "r|\\d|")
    assert (settings["scan_lvs"], settings["use_devicesfile"]) == ("0", "1")
    assert parse_rules('"r|.*|"') == ("r|.*|",)


def test_a_fit_host_has_no_gaps() -> None:
    """A host that sees its disks and nothing else is fit, and so is what we advise."""
    assert find_gaps(HostLvm(ONLY_SDB, scans_lvs=False), OWN, FOREIGN) == ()
    rules = parse_rules(advise(["/dev/disk/by-id/wwn-0x5"]).splitlines()[1])
    assert find_gaps(HostLvm(rules, scans_lvs=False), OWN, FOREIGN) == ()


@pytest.mark.parametrize(
    ("host", "expected"),
    [
        (HostLvm(("a|.*|",), scans_lvs=False), ["accepts the volumes", "accepts loops"]),
        (HostLvm((), scans_lvs=True), ["scan_lvs", "accepts the volumes", "accepts loops"]),
        (HostLvm(("r|.*|",), scans_lvs=False), ["rejects /dev/sdb"]),
        (HostLvm((), scans_lvs=False, listed=frozenset({"/dev/sdb"})), []),
        (HostLvm((), scans_lvs=False, listed=frozenset({"/dev/loop7"})), ["lists loops"]),
        (HostLvm((), scans_lvs=True, listed=frozenset()), ["scan_lvs"]),
    ],
)
def test_gaps_are_named(host: HostLvm, expected: list[str]) -> None:
    """Each thing that would be looked at, or would be hidden, is said."""
    gaps = find_gaps(host, OWN, FOREIGN)
    assert len(gaps) == len(expected)
    for gap, part in zip(gaps, expected, strict=True):
        assert part in gap


def test_a_rule_means_one_device() -> None:
    """Signs that mean something in an expression are taken as they are."""
    rule = exact_rule("/dev/disk/by-id/a.b+c")
    assert is_accepted((rule, "r|.*|"), ("/dev/disk/by-id/a.b+c",))
    assert not is_accepted((rule, "r|.*|"), ("/dev/disk/by-id/aXbbc",))
