"""A domain's XML: what is read from it, and what it becomes where its disks are reached otherwise.

A rewrite changes named places and nothing else: of a disk that has a replacement its type,
source, driver and credentials; of graphics the address they listen at. Address, target, alias
and every other byte stay, since the guest's hardware must be the same after a migration. Of the
driver the attributes that shape the virtual device (queues, iothread, ...) stay the guest's.

A replacement is a whole ``<disk>`` (:mod:`lunport.core.guest_disk`), found by its serial.
Metadata, command lines for QEMU and comments may hold what looks like a disk; they are no
disks. Follows libvirt's formatdomain.
"""

from __future__ import annotations

from collections.abc import Collection, Iterator, Mapping
from dataclasses import dataclass

from lunport.core.errors import XmlMismatch
from lunport.core.guest_disk import GuestDisk
from lunport.core.xml_spans import (
    Element,
    Splice,
    apply_splices,
    encode_xml,
    read_elements,
    set_attribute,
    written_attributes,
)

# Attributes of <driver> that the guest can see, or that bind it to a part of its own process:
# those of the virtual device, not of what is behind it.
_OF_THE_DEVICE = frozenset((
    "iothread", "queues", "queue_size", "ioeventfd", "event_idx",
    "iommu", "ats", "packed", "page_per_vq",
))  # fmt: skip


@dataclass(frozen=True, slots=True)
class DomainSummary:
    """What is used of a domain. ``graphics``: each kind, and where it listens if it says so."""

    name: str
    uuid: str | None
    machine: str | None
    emulator: str | None
    memory_kib: int | None
    disks: tuple[GuestDisk, ...]
    graphics: tuple[tuple[str, str | None], ...]


def parse_domain(xml: str) -> DomainSummary:
    """Read a domain. Raises: InvalidInput (no well-formed XML), XmlMismatch (no domain)."""
    data = encode_xml(xml)
    root = _domain(data)
    memory = root.first("memory")
    return DomainSummary(
        name=_name(root),
        uuid=_text(root, "uuid"),
        machine=root.attribute(("os", "type"), "machine"),
        emulator=_text(root, "devices", "emulator"),
        memory_kib=None if memory is None else _kib(memory),
        disks=tuple(_disk(data, element) for element in root.all("devices", "disk")),
        graphics=tuple(
            (one.attributes.get("type", ""), _listens_at(one))
            for one in root.all("devices", "graphics")
        ),
    )


def parse_disk(xml: str) -> GuestDisk:
    """Read one disk that stands alone. Raises: InvalidInput, XmlMismatch."""
    data = encode_xml(xml)
    root = read_elements(data)
    if root.name != "disk":
        raise XmlMismatch("no guest", f"<{root.name}>", "expected a <disk>")
    return _disk(data, root)


def rewrite_domain(
    xml: str,
    replacements: Mapping[str, str],
    *,
    shared: Collection[str] = (),
    listen: Mapping[str, str] | None = None,
    demands_all: bool = True,
) -> str:
    """Return a domain's XML as the destination has to get it.

    ``replacements``: a whole ``<disk>`` for each serial. ``shared``: targets (``vdc``) of disks
    that are reached in the same way on both hosts; drives without a medium need not be named.
    ``listen``: the new address for each kind of graphics. ``demands_all``: every replacement
    must find its disk, as in the XML of the running guest; a persistent one may lack it.

    Raises: XmlMismatch, which names the disk: one that has no replacement, a serial that is
    there twice, a replacement without a disk; InvalidInput (no XML).
    """
    data = encode_xml(xml)
    root = _domain(data)
    guest = _name(root)
    splices: list[Splice] = []
    seen: set[str] = set()
    for element in root.all("devices", "disk"):
        disk = _disk(data, element)
        if disk.serial in replacements:
            assert disk.serial is not None
            if disk.serial in seen:
                raise XmlMismatch(guest, str(disk), "another disk has the same serial")
            seen.add(disk.serial)
            splices += _replace_disk(data, element, guest, replacements[disk.serial])
        elif disk.source is not None and disk.target not in shared:
            raise XmlMismatch(guest, str(disk), "there is no source for it at the destination")
    missing = sorted(set(replacements) - seen)
    if missing and demands_all:
        raise XmlMismatch(guest, f"serial {missing[0]}", "no disk of the guest has it")
    for element in root.all("devices", "graphics"):
        address = (listen or {}).get(element.attributes.get("type", ""))
        if address is not None:
            splices += _listen_at(data, element, address)
    return apply_splices(data, splices).decode()


# -- reading -------------------------------------------------------------------------------


def _domain(data: bytes) -> Element:
    root = read_elements(data)
    if root.name != "domain":
        raise XmlMismatch("no guest", f"<{root.name}>", "expected a <domain>")
    return root


def _name(root: Element) -> str:
    return _text(root, "name") or "without a name"


def _text(element: Element, *path: str) -> str | None:
    found = element.first(*path)
    return None if found is None else found.text.strip()


def _kib(memory: Element) -> int | None:
    # <memory unit='KiB'>262144</memory>; libvirt always writes KiB.
    text = memory.text.strip()
    is_kib = memory.attributes.get("unit", "KiB") in ("KiB", "k")
    return int(text) if is_kib and text.isdecimal() and text.isascii() else None


def _disk(data: bytes, element: Element) -> GuestDisk:
    source = element.first("source")
    host = None if source is None else source.first("host")
    secret = element.attribute(("source", "auth", "secret"), "uuid")
    return GuestDisk(
        kind=element.attributes.get("type", ""),
        device=element.attributes.get("device", "disk"),
        target=element.attribute(("target",), "dev") or "without a target",
        bus=element.attribute(("target",), "bus"),
        serial=_text(element, "serial") or None,
        alias=element.attribute(("alias",), "name"),
        source=None if source is None else _source(source),
        portal=None if host is None else _portal(host),
        secret_id=secret or element.attribute(("auth", "secret"), "uuid"),
        is_shareable=element.first("shareable") is not None,
        is_readonly=element.first("readonly") is not None,
        xml=data[element.start : element.end].decode(),
    )


def _source(source: Element) -> str | None:
    for name in ("dev", "file", "name", "dir", "volume"):
        if source.attributes.get(name):
            return source.attributes[name]
    # A kind that is not known here is a source all the same.
    return "of its own kind" if source.attributes or source.children else None


def _portal(host: Element) -> str | None:
    name, port = host.attributes.get("name"), host.attributes.get("port", "3260")
    if name is None:
        return None
    is_bare = ":" in name and not name.startswith("[")
    return f"[{name}]:{port}" if is_bare else f"{name}:{port}"


def _listens_at(graphics: Element) -> str | None:
    for listen in graphics.all("listen"):
        if listen.attributes.get("type") == "address":
            return listen.attributes.get("address") or graphics.attributes.get("listen")
    return graphics.attributes.get("listen")


# -- rewriting -----------------------------------------------------------------------------


def _replace_disk(data: bytes, disk: Element, guest: str, replacement: str) -> Iterator[Splice]:
    """Put in the type, driver, source and credentials of a replacement."""
    new = encode_xml(replacement)
    root = read_elements(new)
    source = root.first("source")
    kind = root.attributes.get("type")
    if root.name != "disk" or source is None or kind is None:
        raise XmlMismatch(guest, f"<{root.name}>", "a replacement is a <disk> with a <source>")
    yield set_attribute(data, disk, "type", kind)
    old = disk.first("source")
    # In front of the target, which every disk has, where something has to be added.
    anchor = old or disk.first("driver") or disk.first("target")
    if anchor is None:
        raise XmlMismatch(guest, str(_disk(data, disk)), "it has neither source nor target")
    added = b""
    driver, new_driver = disk.first("driver"), root.first("driver")
    if new_driver is not None and driver is not None:
        yield from _replace_driver(data, driver, new, new_driver)
    elif new_driver is not None:
        added += new[new_driver.start : new_driver.end]
    for auth in disk.all("auth"):  # where older XML has it; a newer one has it in the source
        yield _removal(data, auth)
    for auth in root.all("auth"):
        added += new[auth.start : auth.end]
    text = new[source.start : source.end]
    if old is not None:
        yield Splice(old.start, old.end, added + text)
        return
    yield Splice(anchor.start, anchor.start, added + text)


def _replace_driver(data: bytes, old: Element, new_data: bytes, new: Element) -> Iterator[Splice]:
    """Put in the new driver's attributes, but those that are the virtual device's own."""
    kept = [written for name, written in written_attributes(data, old) if name in _OF_THE_DEVICE]
    taken = [
        written for name, written in written_attributes(new_data, new) if name not in _OF_THE_DEVICE
    ]
    is_empty = data[old.inside - 2 : old.inside] == b"/>"
    close = old.inside - (2 if is_empty else 1)
    yield Splice(old.start, close, b" ".join((b"<driver", *taken, *kept)))


def _removal(data: bytes, element: Element) -> Splice:
    """Take an element away with the blanks in front of it, as if its line had not been there."""
    before = data[: element.start]
    blanks = len(before) - len(before.rstrip(b" \t\r\n"))
    return Splice(element.start - blanks, element.end, b"")


def _listen_at(data: bytes, graphics: Element, address: str) -> Iterator[Splice]:
    listens = tuple(graphics.all("listen"))
    at_addresses = [one for one in listens if one.attributes.get("type") == "address"]
    if listens and not at_addresses:
        return  # a socket, or the address of a network: nothing that is a host's own
    if "listen" in graphics.attributes or not listens:
        yield set_attribute(data, graphics, "listen", address)
    for one in at_addresses:
        yield set_attribute(data, one, "address", address)
