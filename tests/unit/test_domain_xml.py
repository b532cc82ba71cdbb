"""Tests of what is read from a guest's definition, and of what a rewrite changes: no more."""

from __future__ import annotations

from xml.etree import ElementTree as ET

import pytest
from hypothesis import given
from hypothesis import strategies as st

from lunport.core.chap import Chap, ChapCredentials
from lunport.core.disk_source import make_disk_source
from lunport.core.domain_xml import parse_disk, parse_domain, rewrite_domain
from lunport.core.errors import InvalidInput, XmlMismatch
from lunport.core.guest_disk import (
    DiskSettings,
    InitiatorKind,
    format_block_disk,
    format_network_disk,
)
from lunport.core.iqn import Iqn
from lunport.core.portal import Portal
from lunport.core.secret import Secret
from lunport.core.target_path import TargetPath
from tests.unit.domain_corpus import (
    BLOCK_DISK,
    CLOUD,
    DISKS,
    DOMAINS,
    HAND,
    NETWORK_DISK,
    ODD_DISK,
    PLAIN,
    SERIAL,
    domain_with,
)

CHAP = Chap(ChapCredentials("user-b", Secret("Secret4Tests1234")))
PATH = TargetPath(Portal("192.0.2.2", 3260), Iqn("iqn.2026-11.lab:b"), 7)
SECRET_ID = "5ec00000-0000-4000-8000-00000000000b"
SETTINGS = DiskSettings(SERIAL, "vdq")
NEW_BLOCK = format_block_disk(SETTINGS, "/dev/disk/by-id/scsi-36001405")
NEW_NETWORK = format_network_disk(
    SETTINGS, make_disk_source(PATH, Iqn("iqn.2026-11.lab:init-b"), CHAP), secret_id=SECRET_ID
)
REPLACEMENTS = {"block": NEW_BLOCK, "network": NEW_NETWORK}
EVERY = [(domain, disk) for domain in DOMAINS for disk in DISKS]


@pytest.mark.parametrize("domain, disk", EVERY)
def test_only_what_is_a_disk_is_read_as_one(domain: str, disk: str) -> None:
    """Comments, CDATA, metadata and command lines hold no disks, whatever they look like."""
    summary = parse_domain(domain_with(DOMAINS[domain], DISKS[disk]))
    ours = [one for one in summary.disks if one.serial == SERIAL]
    assert [one.xml for one in ours] == [DISKS[disk]]
    assert ours[0].source is not None


def test_a_disk_says_how_it_is_reached() -> None:
    """Source, portal, secret and name of a disk are read, wherever its credentials stand."""
    block, network, odd = map(parse_disk, (BLOCK_DISK, NETWORK_DISK, ODD_DISK))
    assert block.initiator is InitiatorKind.KERNEL
    assert block.alias == f"ua-{SERIAL}"
    assert (network.source, network.portal) == ("iqn.2026-11.lab:a/1", "192.0.2.1:3260")
    assert network.secret_id == "5ec00000-0000-4000-8000-00000000000a"
    assert network.initiator is InitiatorKind.QEMU
    assert (odd.target, odd.bus, odd.secret_id) == ("sdb", "scsi", "x")
    assert odd.portal == "[fd00::1]:3261"


def test_a_domain_says_what_it_is() -> None:
    """Name, id, machine, memory and where its graphics listen are read."""
    summary = parse_domain(domain_with(CLOUD, BLOCK_DISK))
    assert summary.name == "instance-0000002a"
    assert summary.uuid == "d0000000-0000-4000-8000-00000000002a"
    assert (summary.machine, summary.memory_kib) == ("pc-q35-7.2", 2097152)
    assert summary.emulator == "/usr/bin/qemu-system-x86_64"
    assert summary.graphics == (("vnc", "10.0.0.1"), ("spice", "10.0.0.1"))


@pytest.mark.parametrize("domain, disk", EVERY)
@pytest.mark.parametrize("kind", REPLACEMENTS)
def test_a_rewrite_changes_the_disk_alone(domain: str, disk: str, kind: str) -> None:
    """What is in front of the disk and behind it is the same to the byte."""
    before, after = DOMAINS[domain].split("{disk}")
    xml = domain_with(DOMAINS[domain], DISKS[disk])
    changed = rewrite_domain(xml, {SERIAL: REPLACEMENTS[kind]})
    assert changed.startswith(before)
    assert changed.endswith(after)
    inside = changed.removeprefix(before).removesuffix(after)
    assert inside != DISKS[disk]
    assert _identity(inside) == _identity(DISKS[disk])
    assert parse_disk(inside).kind == parse_disk(REPLACEMENTS[kind]).kind
    assert _part(inside, "source") == _part(REPLACEMENTS[kind], "source")


def _identity(disk: str) -> list[str]:
    """Give all of a disk but what a rewrite is for: type, driver, source, credentials."""
    root = ET.fromstring(disk)
    named = {"driver", "source", "auth"}
    kept = [ET.tostring(one, "unicode").strip() for one in root if one.tag not in named]
    return [*kept, root.get("device", "")]


def _part(disk: str, name: str) -> str:
    found = ET.fromstring(disk).find(name)
    assert found is not None
    found.tail = None
    return ET.tostring(found, "unicode")


def test_a_rewritten_disk_to_the_letter() -> None:
    """The whole of one rewrite, as a reader would do it by hand."""
    xml = domain_with(PLAIN, BLOCK_DISK)
    expected = BLOCK_DISK.replace(
        "<source dev='/dev/disk/by-path/ip-192.0.2.1:3260-iscsi-iqn.2026-11.lab:a-lun-1' "
        "index='1'/>",
        "<source dev='/dev/disk/by-id/scsi-36001405'/>",
    )
    assert rewrite_domain(xml, {SERIAL: NEW_BLOCK}) == domain_with(PLAIN, expected)


def test_the_virtual_device_keeps_what_shapes_it() -> None:
    """Queues and threads of the device stay; what concerns the bytes is the destination's."""
    changed = rewrite_domain(domain_with(PLAIN, ODD_DISK), {SERIAL: NEW_BLOCK})
    driver = (
        "<driver name='qemu' type='raw' cache='none' io='native' discard='unmap' "
        'queues="4" iothread="2"><iothreads/></driver>'
    )
    assert driver in changed
    assert "<auth" not in changed


def test_a_disk_without_driver_and_source_gets_them() -> None:
    """What the disk lacks is put in front of its target."""
    bare = f"<disk type='block'><target dev='vdb'/><serial>{SERIAL}</serial></disk>"
    changed = rewrite_domain(domain_with(PLAIN, bare), {SERIAL: NEW_NETWORK})
    assert parse_domain(changed).disks[0].portal == "192.0.2.2:3260"
    assert changed.index("<driver") < changed.index("<source") < changed.index("<target")


def test_graphics_listen_where_the_destination_says() -> None:
    """Each kind listens at its new address; sockets, and kinds that are not named, stay."""
    xml = domain_with(CLOUD, BLOCK_DISK)
    changed = rewrite_domain(xml, {SERIAL: BLOCK_DISK}, listen={"vnc": "10.0.0.2"})
    assert parse_domain(changed).graphics == (("vnc", "10.0.0.2"), ("spice", "10.0.0.1"))
    assert changed == xml.replace("10.0.0.1", "10.0.0.2", 2)
    hand = domain_with(HAND, NETWORK_DISK)
    changed = rewrite_domain(hand, {SERIAL: NETWORK_DISK}, listen={"vnc": "::", "spice": "::"})
    assert changed == hand.replace('<graphics type="vnc"/>', "<graphics listen='::' type=\"vnc\"/>")


def test_a_disk_that_would_stay_behind_stops_it() -> None:
    """A disk without a replacement is named, unless it is shared; empty drives are no matter."""
    other = BLOCK_DISK.replace(SERIAL, "another").replace("vdb", "vdc")
    xml = domain_with(PLAIN, BLOCK_DISK + other)
    with pytest.raises(XmlMismatch, match=r"Guest plain, disk vdc \(serial another\): there is no"):
        rewrite_domain(xml, {SERIAL: NEW_BLOCK})
    assert "another" in rewrite_domain(xml, {SERIAL: NEW_BLOCK}, shared=("vdc",))


def test_each_replacement_has_just_one_disk() -> None:
    """A serial that no disk has, or that two have, stops a rewrite."""
    xml = domain_with(PLAIN, BLOCK_DISK)
    with pytest.raises(XmlMismatch, match=r"serial unknown: no disk"):
        rewrite_domain(xml, {SERIAL: NEW_BLOCK, "unknown": NEW_BLOCK})
    assert rewrite_domain(xml, {SERIAL: BLOCK_DISK, "unknown": NEW_BLOCK}, demands_all=False) == xml
    twice = domain_with(PLAIN, BLOCK_DISK + BLOCK_DISK.replace("vdb", "vdc"))
    with pytest.raises(XmlMismatch, match=r"disk vdc .* same serial"):
        rewrite_domain(twice, {SERIAL: NEW_BLOCK})
    with pytest.raises(XmlMismatch, match=r"a <disk> with a <source>"):
        rewrite_domain(xml, {SERIAL: "<disk type='block'/>"})


@pytest.mark.parametrize(
    "xml",
    [
        "",
        "<domain>",
        "<domain></disk></domain>",
        "<domain a='1' a='2'/>",
        "<!DOCTYPE domain [<!ENTITY a 'b'>]><domain>&a;</domain>",
        "<domain>&unknown;</domain>",
        "<domain>\ud800</domain>",
        "<a>" * 300 + "</a>" * 300,
        "no xml",
    ],
)
def test_what_is_no_plain_xml_is_refused(xml: str) -> None:
    """Broken texts, entities and nesting without end are refused, not guessed at."""
    for read in (parse_domain, parse_disk):
        with pytest.raises(InvalidInput):
            read(xml)


def test_other_documents_are_no_domains() -> None:
    """A network's or a snapshot's XML is told from a domain's, and a disk's from others."""
    with pytest.raises(XmlMismatch, match=r"<network>"):
        parse_domain("<network/>")
    with pytest.raises(XmlMismatch, match=r"<interface>"):
        parse_disk("<interface/>")


# -- properties ------------------------------------------------------------------------------

TEXTS = st.text(st.characters(exclude_categories=("Cc", "Cs", "Cn", "Co")), max_size=12)
_PLAIN_TEXTS = TEXTS.map(lambda text: text.replace("&", "+").replace("<", "(").replace("]", ")"))
_COMMENTS = _PLAIN_TEXTS.map(lambda text: f"<!--{text.replace('-', '+')} <disk>-->")
_CDATA = TEXTS.map(lambda text: f"<![CDATA[<disk>{text.replace(']', ')')}]]>")
_ELEMENTS = st.sampled_from(
    [
        "<x:disk xmlns:x='urn:x' type='block'><serial>1</serial></x:disk>",
        '<controller type="pci" index=\'0\' model="pcie-root"/>',
        "<interface\n\ttype='bridge' ><source bridge='br>0'/></interface  >",
        "<nested><devices><disk type='file'/></devices></nested>",
        "<empty/>",
        "\r\n\t",
    ]
)
NOISE = st.lists(st.one_of(_PLAIN_TEXTS, _COMMENTS, _CDATA, _ELEMENTS), max_size=5).map("".join)


@given(
    before=NOISE,
    between=NOISE,
    after=NOISE,
    disk=st.sampled_from(sorted(DISKS)),
    kind=st.sampled_from(sorted(REPLACEMENTS)),
)
def test_every_other_byte_stays(
    before: str, between: str, after: str, disk: str, kind: str
) -> None:
    """Whatever stands round two disks is the same afterwards, and each disk has its own source."""
    other = BLOCK_DISK.replace(SERIAL, "other").replace("vdb", "vdo")
    head = f"<domain><name>n</name>{before}<devices>{before}"
    tail = f"{after}</devices>{after}</domain>\n"
    xml = f"{head}{DISKS[disk]}{between}{other}{tail}"
    new_other = format_block_disk(DiskSettings("other", "vdx"), "/dev/disk/by-id/wwn-0x5")
    changed = rewrite_domain(xml, {SERIAL: REPLACEMENTS[kind], "other": new_other})
    assert changed.startswith(head)
    assert changed.endswith(tail)
    first, second = changed.removeprefix(head).removesuffix(tail).split(f"</disk>{between}<disk")
    assert _identity(f"{first}</disk>") == _identity(DISKS[disk])
    assert parse_disk(f"<disk{second}").source == "/dev/disk/by-id/wwn-0x5"
    assert rewrite_domain(changed, {SERIAL: REPLACEMENTS[kind], "other": new_other}) == changed


@given(device=TEXTS.filter(bool), serial=TEXTS.filter(lambda text: text.strip() == text != ""))
def test_what_is_written_is_read(device: str, serial: str) -> None:
    """A disk of any source and serial is read back as it was meant, by us and by others."""
    xml = format_block_disk(DiskSettings(serial, "vdb"), device)
    disk = parse_disk(xml)
    assert (disk.source, disk.serial, disk.alias) == (device, serial, f"ua-{serial}")
    root = ET.fromstring(xml)
    source = root.find("source")
    assert source is not None
    assert (source.get("dev"), root.findtext("serial")) == (device, serial)
    domain = domain_with(PLAIN, BLOCK_DISK.replace(SERIAL, "s"))
    assert parse_domain(rewrite_domain(domain, {"s": xml})).disks[0].source == device


@given(st.text(max_size=60))
def test_junk_is_refused_as_ours(text: str) -> None:
    """Any text is read, or refused with an error of ours."""
    for xml in (text, f"<domain>{text}</domain>", f"<domain><devices>{text}</devices></domain>"):
        try:
            parse_domain(xml)
            rewrite_domain(xml, {})
        except (InvalidInput, XmlMismatch):
            continue
