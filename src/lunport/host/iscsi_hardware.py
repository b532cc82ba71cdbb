"""Read what this host has to speak iSCSI with: modules, adapters, network and RDMA devices.

    /sys/class/iscsi_transport/{tcp,iser,cxgb4i}          a transport whose module is loaded
    /sys/class/iscsi_host/host3/{hwaddress,ipaddress,netdev}
    /sys/class/scsi_host/host3/proc_name
    /sys/bus/pci/devices/0000:05:00.4/{vendor,device,driver}
    /sys/class/net/eth1/{address,operstate,device}
    /sys/class/infiniband/rxe0/ports/1/{state,gid_attrs/ndevs/0}

Addresses come from ``ip -json address``, rp_filter and arp_ignore from /proc/sys/net/ipv4/conf,
the modules that the kernel could load from ``modules.dep``. Loads nothing, changes nothing,
judges nothing.
"""

from __future__ import annotations

import json
import os
import re
from collections.abc import Mapping
from pathlib import Path
from typing import Final

from lunport.core.errors import CommandError, CommandMissing, CommandTimedOut
from lunport.core.iface_hardware import (
    TRANSPORTS,
    HostHardware,
    NetDevice,
    PciAdapter,
    RdmaLink,
    ScsiHost,
)
from lunport.host.clock import Deadline
from lunport.host.iscsi_sysfs import transport_of_host
from lunport.host.runner import run
from lunport.host.systree import SysTree

_PCI = re.compile(r"[0-9a-f]{4,}:[0-9a-f]{2}:[0-9a-f]{2}\.[0-7]")
_HOST = re.compile(r"host(\d+)")
_NOTHING: Final = frozenset({"", "(null)", "<NULL>", "default"})
_CONF: Final = Path("/proc/sys/net/ipv4/conf")
_MODULES: Final = Path("/lib/modules")


def read_hardware(
    sys: SysTree,
    deadline: Deadline,
    *,
    addresses: Mapping[str, tuple[str, ...]] | None = None,
    conf: Path = _CONF,
    modules: Path = _MODULES,
) -> HostHardware:
    """Look at everything. ``addresses``: of each network device, else ip(8) is asked."""
    known = read_addresses(deadline) if addresses is None else addresses
    loaded = read_transports(sys)
    return HostHardware(
        transports=loaded,
        modules=_modules(sys, modules),
        pci=tuple(_adapters(sys)),
        net=tuple(_net_device(sys, name, known, conf) for name in sys.list("class/net")),
        hosts=read_hosts(sys),
        rdma=read_rdma(sys),
    )


def read_transports(sys: SysTree) -> frozenset[str]:
    """Name the transports whose module is loaded."""
    return frozenset(sys.list("class/iscsi_transport"))


def read_hosts(sys: SysTree) -> tuple[ScsiHost, ...]:
    """List the iscsi_hosts; a software transport has one for each session."""
    found = []
    for name in sys.list("class/iscsi_host"):
        match = _HOST.fullmatch(name)
        if match is None:
            continue
        place = f"class/iscsi_host/{name}"
        mac = _value(sys.read(f"{place}/hwaddress"))
        found.append(
            ScsiHost(
                number=int(match[1]),
                transport=transport_of_host(sys, int(match[1])),
                hwaddress=None if mac is None else mac.lower(),
                ipaddress=_value(sys.read(f"{place}/ipaddress")),
                net_ifacename=_value(sys.read(f"{place}/netdev")),
                pci=_pci_in(sys.resolve(place)),
            )
        )
    return tuple(found)


def read_rdma(sys: SysTree) -> tuple[RdmaLink, ...]:
    """List the ports of RDMA devices, with the network device that each is on."""
    found = []
    for device in sys.list("class/infiniband"):
        for port in sys.list(f"class/infiniband/{device}/ports"):
            place = f"class/infiniband/{device}/ports/{port}"
            net = next(
                (
                    name
                    for index in sys.list(f"{place}/gid_attrs/ndevs")
                    if (name := _value(sys.read(f"{place}/gid_attrs/ndevs/{index}"))) is not None
                ),
                _value(sys.read(f"class/infiniband/{device}/parent")),
            )
            state = sys.read(f"{place}/state") or ""  # "4: ACTIVE"
            found.append(RdmaLink(device, int(port), net, "ACTIVE" in state))
    return tuple(found)


def read_addresses(deadline: Deadline) -> dict[str, tuple[str, ...]]:
    """Return the addresses of each network device, with their prefix; none where ip(8) is not."""
    try:
        said = run(["ip", "-json", "address"], deadline, package="iproute2").stdout
    except (CommandMissing, CommandError, CommandTimedOut):
        return {}
    return parse_addresses(said)


def parse_addresses(said: str) -> dict[str, tuple[str, ...]]:
    """Read what ``ip -json address`` prints; link-local addresses of IPv6 are left out."""
    found = {}
    for device in json.loads(said or "[]"):
        name = device.get("ifname")
        if isinstance(name, str):
            found[name] = tuple(
                f"{one['local']}/{one['prefixlen']}"
                for one in device.get("addr_info", ())
                if "local" in one and one.get("scope") != "link"
            )
    return found


def _adapters(sys: SysTree) -> list[PciAdapter]:
    found = []
    for address in sys.list("bus/pci/devices"):
        place = f"bus/pci/devices/{address}"
        vendor, device = (_digits(sys.read(f"{place}/{key}")) for key in ("vendor", "device"))
        pci_id = f"{vendor}:{device}"
        if any(needs.drives(pci_id) for needs in TRANSPORTS.values()):
            driver = _base(os.path.realpath(sys.root / place / "driver"), "driver")
            found.append(PciAdapter(address, pci_id, driver))
    return found


def _net_device(
    sys: SysTree, name: str, addresses: Mapping[str, tuple[str, ...]], conf: Path
) -> NetDevice:
    place = f"class/net/{name}"
    mac = _value(sys.read(f"{place}/address"))
    below = os.path.realpath(sys.root / place / "device")
    # "unknown" is the state of devices that have no carrier to tell of, such as dummies.
    state = sys.read(f"{place}/operstate") or "unknown"
    return NetDevice(
        name=name,
        hwaddress=None if mac is None else mac.lower(),
        addresses=addresses.get(name, ()),
        pci=_pci_in(below),
        driver=_base(os.path.realpath(sys.root / place / "device/driver"), "driver"),
        is_up=state in {"up", "unknown"},
        # Both: the larger of "all" and the device's own counts (ip-sysctl.rst)
        rp_filter=_joined(conf, name, "rp_filter"),
        arp_ignore=_joined(conf, name, "arp_ignore"),
    )


def _joined(conf: Path, name: str, key: str) -> int:
    values = []
    for device in ("all", name):
        try:
            values.append(int((conf / device / key).read_text()))
        except (OSError, ValueError):
            continue
    return max(values, default=0)


def _modules(sys: SysTree, modules: Path) -> frozenset[str]:
    wanted = {needs.module for needs in TRANSPORTS.values() if needs.module is not None}
    there = {name for name in wanted if sys.exists(f"module/{name}")}
    folder = modules / os.uname().release
    for index in ("modules.dep", "modules.builtin"):
        try:
            text = (folder / index).read_text().replace("-", "_")
        except OSError:
            continue
        there |= {name for name in wanted if f"/{name}.ko" in text}
    return frozenset(there)


def _pci_in(path: str | None) -> str | None:
    found = [part for part in (path or "").split("/") if _PCI.fullmatch(part)]
    return found[-1] if found else None


def _base(path: str, unresolved: str) -> str | None:
    name = path.rpartition("/")[2]
    return None if name == unresolved else name


def _digits(text: str | None) -> str:
    return (text or "").removeprefix("0x").lower()


def _value(text: str | None) -> str | None:
    return None if text is None or text in _NOTHING else text
