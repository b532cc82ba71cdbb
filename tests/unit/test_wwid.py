"""Tests of the identities of logical units."""

from __future__ import annotations

import pytest
from hypothesis import given
from hypothesis import strategies as st

from lunport.core.errors import InvalidInput
from lunport.core.wwid import Wwid, by_id_names, format_multipath_wwid, parse_wwid, same_wwid
from tests import strategies

NAA = "naa.60014058971605dd3db814e7d074f1fb"


@given(strategies.wwids())
def test_canonical_form_is_stable(wwid: Wwid) -> None:
    """A canonical identity is read as itself."""
    assert parse_wwid(wwid) == wwid
    assert parse_wwid(f"{wwid}\n") == wwid


@given(strategies.wwids())
def test_other_forms_round_trip(wwid: Wwid) -> None:
    """Multipath's form and every by-id name are read back as the same identity."""
    forms = (format_multipath_wwid(wwid), *by_id_names(wwid))
    for form in (*forms, *(f"/dev/disk/by-id/{name}" for name in by_id_names(wwid))):
        assert parse_wwid(form) == wwid
        assert same_wwid(form, wwid)


@given(strategies.wwids(), strategies.wwids())
def test_same_means_same(one: Wwid, other: Wwid) -> None:
    """Two identities are the same exactly if their canonical forms are, but for the case."""
    forms = ((a, b) for a in (one, *by_id_names(one)) for b in (other, *by_id_names(other)))
    for left, right in forms:
        assert same_wwid(left, right) is (one.lower() == other.lower())


@given(st.one_of(strategies.json_values(), st.text(), st.from_regex(r"\A[1238][0-9a-f]*\Z")))
def test_anything_parses_or_is_refused(value: object) -> None:
    """Whatever is given, the result is a stable canonical identity, or InvalidInput."""
    try:
        wwid = parse_wwid(value)
    except InvalidInput:
        assert not same_wwid(value, value)
    else:
        assert parse_wwid(wwid) == wwid
        assert same_wwid(value, wwid)


@pytest.mark.parametrize(
    "text, canonical",
    [
        (NAA, NAA),
        (NAA.upper(), NAA),
        ("360014058971605dd3db814e7d074f1fb", NAA),
        ("mpath-360014058971605dd3db814e7d074f1fb", NAA),
        ("dm-uuid-mpath-360014058971605dd3db814e7d074f1fb", NAA),
        ("scsi-360014058971605dd3db814e7d074f1fb", NAA),
        ("/dev/disk/by-id/scsi-360014058971605dd3db814e7d074f1fb", NAA),
        ("wwn-0x60014058971605dd3db814e7d074f1fb", NAA),
        ("/dev/disk/by-id/wwn-0x60014058971605dd3db814e7d074f1fb", NAA),
        ("0x60014058971605DD3DB814E7D074F1FB", NAA),
        ("8naa.60014058971605dd3db814e7d074f1fb", NAA),
        ("naa.5000c500a1b2c3d4", "naa.5000c500a1b2c3d4"),
        ("35000c500a1b2c3d4", "naa.5000c500a1b2c3d4"),
        ("eui.0025385971B04F2E", "eui.0025385971b04f2e"),
        ("20025385971b04f2e", "eui.0025385971b04f2e"),
        ("t10.ATA     QEMU HARDDISK   QM00001  ", "t10.ATA_QEMU_HARDDISK_QM00001"),
        ("1ATA_QEMU_HARDDISK_QM00001", "t10.ATA_QEMU_HARDDISK_QM00001"),
        ("scsi-1ATA_QEMU_HARDDISK_QM00001", "t10.ATA_QEMU_HARDDISK_QM00001"),
        ("iqn.2001-04.com.example,t,0x0001", "iqn.2001-04.com.example,t,0x0001"),
        ("8iqn.2001-04.com.example,t,0x0001", "iqn.2001-04.com.example,t,0x0001"),
    ],
)
def test_forms(text: str, canonical: str) -> None:
    """Each form in which Linux writes an identity is read."""
    assert parse_wwid(text) == canonical


def test_written_forms() -> None:
    """An identity is written as multipath and udev write it."""
    assert format_multipath_wwid(Wwid(NAA)) == "360014058971605dd3db814e7d074f1fb"
    assert by_id_names(Wwid(NAA)) == (
        "dm-uuid-mpath-360014058971605dd3db814e7d074f1fb",
        "scsi-360014058971605dd3db814e7d074f1fb",
        "wwn-0x60014058971605dd3db814e7d074f1fb",
    )


def test_t10_case_does_not_matter() -> None:
    """A T10 text that was put in lower case on the wire is still the same identity."""
    assert same_wwid("t10.ATA     QEMU HARDDISK  QM00001", "t10.ata qemu harddisk qm00001")


@pytest.mark.parametrize(
    "value",
    [
        "",
        " ",
        ".",
        "naa.",
        "naa.6",
        "naa.60014058971605dd3db814e7d074f1f",
        "naa.60014058971605dd3db814e7d074f1fbb",
        "naa.60014058971605dd3db814e7d074f1fg",
        "naa.6001405897160500",
        "naa.1000c500a1b2c3d4",
        "naa.\u0665000c500a1b2c3d4",
        "60014058971605dd3db814e7d074f1fb",
        "eui.0025385971b04f2",
        "t10.",
        "t10.   ",
        "t10.x\ny\x01",
        "t10.\u00f6",
        "iqn.",
        "iqn.x y",
        "3",
        "8",
        "1",
        "wwn-0x",
        "wwn-0x0025385971b04f2e",
        "scsi-360014058971605dd3db814e7d074f1fb-part1",
        "scsi-1ATA_QEMU_HARDDISK_QM00001-part2",
        "scsi-SLIO-ORG_disk_1234",
        "scsi-0QEMU_QEMU_HARDDISK",
        "dm-uuid-LVM-abc",
        "/dev/sda",
        "x" * 300,
        None,
        7,
        b"naa.60014058971605dd3db814e7d074f1fb",
    ],
)
def test_refused(value: object) -> None:
    """What is no whole unit's identity is refused, and is the same as nothing."""
    with pytest.raises(InvalidInput) as caught:
        parse_wwid(value)
    assert caught.value.what == "WWID"
    assert not same_wwid(value, value)
    assert not same_wwid(value, NAA)
