"""A disk of a guest: what a domain's XML says of it, and the XML of one that is ours.

    <disk type='block' device='disk'>
      <driver name='qemu' type='raw' cache='none' io='native' discard='unmap'/>
      <source dev='/dev/disk/by-id/scsi-36001405...'/>
      <target dev='vdb' bus='virtio'/>
      <serial>58a84f6d-3f0c-4e19-a0af-eb657b790657</serial>
      <alias name='ua-58a84f6d-3f0c-4e19-a0af-eb657b790657'/>
    </disk>

The serial is the volume's id: by it a disk is found again, whatever its source is meanwhile.
Follows libvirt's formatdomain, and writes what Nova writes for the same volume. Holds no secret:
a network disk names one in libvirt's store.
"""

from __future__ import annotations

import enum
from collections.abc import Collection, Iterable, Mapping
from dataclasses import dataclass, field
from typing import Final

from lunport.core.disk_source import DiskSource, libvirt_source
from lunport.core.errors import InvalidConnectionInfo, InvalidInput
from lunport.core.xml_spans import escaped, quoted

ALIAS_PREFIX: Final = "ua-"

# What may be limited, as Block Storage's QoS specs and libvirt's <iotune> both call it.
IOTUNE_KEYS: Final = (
    "total_bytes_sec",
    "read_bytes_sec",
    "write_bytes_sec",
    "total_iops_sec",
    "read_iops_sec",
    "write_iops_sec",
    "total_bytes_sec_max",
    "read_bytes_sec_max",
    "write_bytes_sec_max",
    "total_iops_sec_max",
    "read_iops_sec_max",
    "write_iops_sec_max",
    "size_iops_sec",
)


class InitiatorKind(enum.StrEnum):
    """Who logs in: the host's kernel, whose disk the guest gets, or QEMU itself."""

    KERNEL = "kernel"
    QEMU = "qemu"


class DiskBus(enum.StrEnum):
    """On which bus a guest sees a disk that is plugged in while it runs."""

    VIRTIO = "virtio"
    SCSI = "scsi"


_LETTERS_OF_BUS: Final = {DiskBus.VIRTIO: "vd", DiskBus.SCSI: "sd"}


@dataclass(frozen=True, slots=True)
class GuestDisk:
    """One disk as a domain has it.

    ``source``: the device or file, or ``IQN/LUN`` of a network disk; None for an empty drive.
    ``portal``: of a network disk. ``secret_id``: the secret in libvirt's store. ``xml``: the
    whole element as it is written, without its address's neighbours.
    """

    kind: str
    device: str
    target: str
    bus: str | None
    serial: str | None
    alias: str | None
    source: str | None
    portal: str | None
    secret_id: str | None
    is_shareable: bool
    is_readonly: bool
    xml: str = field(repr=False)

    @property
    def initiator(self) -> InitiatorKind:
        """Who reaches the storage."""
        return InitiatorKind.QEMU if self.kind == "network" else InitiatorKind.KERNEL

    def __str__(self) -> str:
        serial = "no serial" if self.serial is None else f"serial {self.serial}"
        return f"disk {self.target} ({serial})"


@dataclass(frozen=True, slots=True)
class DiskSettings:
    """What the storage side and this host say of a disk of ours, whatever its source is."""

    volume_id: str
    target: str
    bus: DiskBus = DiskBus.VIRTIO
    is_readonly: bool = False
    is_shareable: bool = False
    discard: bool = True
    physical_block_size: int | None = None
    logical_block_size: int | None = None
    iotune: Mapping[str, int] = field(default_factory=dict, hash=False)

    @property
    def alias(self) -> str:
        """The name by which libvirt's events and calls mean this disk."""
        return f"{ALIAS_PREFIX}{self.volume_id}"


def format_block_disk(settings: DiskSettings, device: str) -> str:
    """Write the disk whose bytes are at a device of this host."""
    source = f"<source dev={_quoted(device)}/>"
    # Without a page cache in between, or two hosts may see different bytes in a migration.
    return _format(settings, "block", {"cache": "none", "io": "native"}, source)


def format_network_disk(
    settings: DiskSettings, source: DiskSource, *, secret_id: str | None
) -> str:
    """Write the disk that QEMU's own initiator reaches. Raises: InvalidConnectionInfo."""
    written = libvirt_source(source, secret_uuid=secret_id)
    indented = "\n  ".join(written.splitlines())
    return _format(settings, "network", {"cache": "none"}, indented)


def _format(settings: DiskSettings, kind: str, driver: Mapping[str, str], source: str) -> str:
    options = {"name": "qemu", "type": "raw", **driver}
    if settings.discard:
        options["discard"] = "unmap"
    lines = [
        f"<disk type={_quoted(kind)} device='disk'>",
        f"  <driver {_attributes(options)}/>",
        f"  {source}",
        f"  <target dev={_quoted(settings.target)} bus={_quoted(settings.bus.value)}/>",
    ]
    if settings.iotune:
        limits = (f"    <{key}>{value}</{key}>" for key, value in settings.iotune.items())
        lines += ["  <iotune>", *limits, "  </iotune>"]
    if settings.is_readonly:
        lines.append("  <readonly/>")
    if settings.is_shareable:
        lines.append("  <shareable/>")
    sizes = {
        key: str(size)
        for key, size in (
            ("logical_block_size", settings.logical_block_size),
            ("physical_block_size", settings.physical_block_size),
        )
        if size is not None
    }
    if sizes:
        lines.append(f"  <blockio {_attributes(sizes)}/>")
    lines += [
        f"  <serial>{escaped(settings.volume_id)}</serial>",
        f"  <alias name={_quoted(settings.alias)}/>",
        "</disk>",
    ]
    return "\n".join(lines)


def parse_iotune(specs: Mapping[str, object] | None) -> dict[str, int]:
    """Read the limits among a volume's QoS specs; keys that libvirt has not are for others.

    Raises: InvalidConnectionInfo for a limit that is no number, or contradicts another.
    """
    limits: dict[str, int] = {}
    for key in IOTUNE_KEYS:
        value = (specs or {}).get(key)
        if value is None:
            continue
        text = str(value)
        if isinstance(value, bool) or not (text.isascii() and text.isdigit() and len(text) <= 18):
            reason = f"{key} must be a whole number from 0"
            raise InvalidConnectionInfo("qos_specs", value, reason)
        limits[key] = int(text)
    for unit in ("bytes_sec", "iops_sec", "bytes_sec_max", "iops_sec_max"):
        parts = [f"{verb}_{unit}" for verb in ("read", "write") if limits.get(f"{verb}_{unit}")]
        if limits.get(f"total_{unit}") and parts:
            reason = f"total_{unit} excludes {' and '.join(parts)}"
            raise InvalidConnectionInfo("qos_specs", dict(limits), reason)
    return limits


def next_target(taken: Iterable[str], bus: DiskBus) -> str:
    """Return the first name of a bus (``vda``, ..., ``vdz``, ``vdaa``) that no disk has."""
    names: Collection[str] = frozenset(taken)
    letters = _LETTERS_OF_BUS[bus]
    for number in range(len(names) + 1):
        name = letters + _letters(number)
        if name not in names:
            return name
    raise AssertionError("one more name than there are disks is free")


def check_target(name: str, bus: DiskBus) -> str:
    """Return the name if the bus has such. Raises: InvalidInput."""
    letters = name.removeprefix(_LETTERS_OF_BUS[bus])
    if letters == name or not (letters.isascii() and letters.isalpha() and letters.islower()):
        expected = f"expected {_LETTERS_OF_BUS[bus]} and letters, on bus {bus.value}"
        raise InvalidInput("target", name, expected)
    return name


def _letters(number: int) -> str:
    """Count as disks are named: a, ..., z, aa, ab, ..."""
    tail = chr(ord("a") + number % 26)
    return tail if number < 26 else _letters(number // 26 - 1) + tail


def _attributes(values: Mapping[str, str]) -> str:
    return " ".join(f"{name}={_quoted(value)}" for name, value in values.items())


def _quoted(value: str) -> str:
    return quoted(value).decode()
