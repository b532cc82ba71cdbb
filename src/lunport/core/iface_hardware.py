"""What each transport of open-iscsi needs of this host: its module, its adapters, its network.

The adapters are those of the modules' own tables in kernel 6.1 (``modules.alias`` of Debian's):
qla4xxx, qedi and be2iscsi drive the adapter themselves; cxgb3i, cxgb4i and bnx2i ride on the
network driver of theirs, whose adapters are listed. iser needs an RDMA device on the network
device. Values only; what is there is in :class:`HostHardware`, which ``host/iscsi_hardware.py``
reads.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from fnmatch import fnmatchcase
from typing import Final


@dataclass(frozen=True, slots=True)
class TransportNeeds:
    """A transport. ``adapters``: "vendor:device" in lower case, with ``?`` for any digit.

    ``network_driver``: the driver of the adapter's network function, where the transport rides on
    it. ``own_address``: the adapter has an address of its own, which the record must state
    (bnx2i, qedi: by iscsiuio). ``module`` None: mainline Linux has none.
    """

    transport: str
    module: str | None
    adapters: tuple[str, ...] = ()
    network_drivers: tuple[str, ...] = ()
    own_address: bool = False

    @property
    def is_offload(self) -> bool:
        """Tell whether an adapter speaks iSCSI in place of this host's network stack."""
        return self.transport not in {"tcp", "iser"}

    def drives(self, pci_id: str) -> bool:
        """Tell whether an adapter ("1077:8022") is one of its."""
        return any(fnmatchcase(pci_id.lower(), pattern) for pattern in self.adapters)


_BNX2 = ("1639", "163a", "163b", "163c", "164a", "164c", "16aa", "16ac")
_BNX2X = (
    *("163d", "163e", "163f", "164e", "164f", "1650", "1662", "1663", "166f", "168a", "168d"),
    *("168e", "16a1", "16a2", "16a4", "16a5", "16a9", "16ab", "16ad", "16ae", "16af"),
)
_CXGB3 = ("20", "21", "22", "23", "24", "25", "26", "30", "31", "32", "35", "36", "37")
_BE = ("0212", "0222", "0702", "0703", "0712")
_QLA4 = ("4010", "4022", "4032", "8022", "8032", "8042")

TRANSPORTS: Final[Mapping[str, TransportNeeds]] = {
    needs.transport: needs
    for needs in (
        TransportNeeds("tcp", "iscsi_tcp"),
        TransportNeeds("iser", "ib_iser"),
        TransportNeeds("cxgb3i", "cxgb3i", tuple(f"1425:00{one}" for one in _CXGB3), ("cxgb3",)),
        TransportNeeds("cxgb4i", "cxgb4i", ("1425:44??", "1425:54??", "1425:64??"), ("cxgb4",)),
        TransportNeeds("qla4xxx", "qla4xxx", tuple(f"1077:{one}" for one in _QLA4)),
        TransportNeeds("qedi", "qedi", ("1077:165e", "1077:8084"), own_address=True),
        TransportNeeds(
            "bnx2i",
            "bnx2i",
            (
                *(f"14e4:{one}" for one in (*_BNX2, *_BNX2X)),
                *(f"1077:{one}" for one in ("16a1", "16a4", "16ad")),
            ),
            ("bnx2", "bnx2x"),
            own_address=True,
        ),
        TransportNeeds("be2iscsi", "be2iscsi", (*(f"19a2:{one}" for one in _BE), "10df:0722")),
        # Emulex's OneConnect driver was never merged; open-iscsi knows the name all the same.
        TransportNeeds("ocs", None),
    )
}


@dataclass(frozen=True, slots=True)
class PciAdapter:
    """A device of the PCI bus: ``address`` "0000:05:00.4", ``pci_id`` "1425:5410"."""

    address: str
    pci_id: str
    driver: str | None


@dataclass(frozen=True, slots=True)
class NetDevice:
    """A network device. ``addresses`` with their prefix: "10.0.1.1/24". ``pci``: its adapter.

    ``rp_filter`` is what counts of "all" and the device's own, as the kernel joins them; so is
    ``arp_ignore``.
    """

    name: str
    hwaddress: str | None
    addresses: tuple[str, ...] = ()
    pci: str | None = None
    driver: str | None = None
    is_up: bool = True
    rp_filter: int = 0
    arp_ignore: int = 0


@dataclass(frozen=True, slots=True)
class ScsiHost:
    """An iscsi_host of the kernel: one for each port of an adapter, or for each session."""

    number: int
    transport: str
    hwaddress: str | None
    ipaddress: str | None
    net_ifacename: str | None
    pci: str | None = None


@dataclass(frozen=True, slots=True)
class RdmaLink:
    """A port of an RDMA device, on a network device: "rxe0", 1, "eth1"."""

    device: str
    port: int
    net_device: str | None
    is_active: bool


@dataclass(frozen=True, slots=True)
class HostHardware:
    """What this host has. ``transports``: those whose module is loaded.

    ``modules``: those of the transports that this kernel could load.
    """

    transports: frozenset[str] = frozenset()
    modules: frozenset[str] = frozenset()
    pci: tuple[PciAdapter, ...] = ()
    net: tuple[NetDevice, ...] = ()
    hosts: tuple[ScsiHost, ...] = ()
    rdma: tuple[RdmaLink, ...] = ()

    def device_of(self, hwaddress: str | None, name: str | None = None) -> NetDevice | None:
        """Find a network device by its name, or else by its hardware address."""
        if name is not None:
            return next((one for one in self.net if one.name == name), None)
        return next((one for one in self.net if hwaddress and one.hwaddress == hwaddress), None)

    def device_with(self, address: str) -> NetDevice | None:
        """Find the network device that has an address."""
        return next(
            (d for d in self.net if any(a.partition("/")[0] == address for a in d.addresses)), None
        )

    def adapter_at(self, address: str | None) -> PciAdapter | None:
        """Find what is at a PCI address."""
        return next((one for one in self.pci if one.address == address), None)

    def adapters_of(self, needs: TransportNeeds) -> tuple[PciAdapter, ...]:
        """List the adapters that a transport could drive."""
        return tuple(one for one in self.pci if needs.drives(one.pci_id))

    def hosts_of(self, transport: str) -> tuple[ScsiHost, ...]:
        """List the iscsi_hosts of a transport."""
        return tuple(one for one in self.hosts if one.transport == transport)
