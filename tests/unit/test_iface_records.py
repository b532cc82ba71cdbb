"""The files of iface records: ours are made and taken away, those of others never touched."""

from __future__ import annotations

import json
from dataclasses import dataclass, field
from pathlib import Path

import pytest
from click.testing import CliRunner

from lunport.cli.iface import iface as command
from lunport.core.change import Change
from lunport.core.errors import AlreadyExists, InvalidInput, InvalidState
from lunport.core.iface import MADE_BY_COMMAND, MADE_ON_THE_FLY, Iface
from lunport.core.iface_hardware import HostHardware
from lunport.host.clock import Deadline
from lunport.host.file_locks import FileLocks
from lunport.host.iface_records import IfaceRecords
from lunport.host.iscsi_hardware import parse_addresses, read_hardware
from lunport.host.node_records import NodeRecords
from lunport.initiator.ifaces import Ifaces
from lunport.initiator.initiator_host import InitiatorHost
from lunport.initiator.journal import Journal
from tests.fakes.fake_sysfs import FakeSysfs

MAC = "52:54:00:00:00:01"
EARLIER = "iface.transport_name = tcp\niface.net_ifacename = eth7\n"


@dataclass(frozen=True, slots=True)
class HereIfaces(Ifaces):
    """The ifaces of a host whose hardware is told."""

    told: HostHardware = field(default_factory=HostHardware)

    def hardware(self, deadline: Deadline) -> HostHardware:
        """Return what was told."""
        return self.told


@pytest.fixture
def sysfs(tmp_path: Path) -> FakeSysfs:
    """A sysfs with one Chelsio adapter, one RDMA device, and a plain network device."""
    return FakeSysfs(tmp_path / "sys")


@pytest.fixture
def ifaces(tmp_path: Path, sysfs: FakeSysfs) -> HereIfaces:
    """The ifaces of a host of its own."""
    folder = tmp_path / "iscsi"
    host = InitiatorHost(
        sys=sysfs.tree,
        records=NodeRecords(folder / "nodes"),
        locks=FileLocks(tmp_path / "locks"),
        journal=Journal(tmp_path / "journal"),
        boot_id="boot",
    )
    add_hardware(sysfs)
    told = read_hardware(sysfs.tree, Deadline.after(1), addresses={"eth1": ("10.0.1.1/24",)},
                         conf=tmp_path, modules=tmp_path)  # fmt: skip
    return HereIfaces(host, IfaceRecords(folder / "ifaces"), told)


def add_hardware(sysfs: FakeSysfs) -> None:
    """Lay out adapters as Documentation/ABI of the kernel has them."""
    root = sysfs.root
    pci = root / "devices/pci0000:00/0000:05:00.4"
    net = pci / "net/eth1"
    for place, text in {
        pci / "vendor": "0x1425",
        pci / "device": "0x5410",
        net / "address": MAC.upper(),
        net / "operstate": "up",
        root / "class/iscsi_transport/tcp/caps": "0x39",
        root / "class/iscsi_transport/cxgb4i/caps": "0x39",
        root / "class/infiniband/rxe0/ports/1/state": "4: ACTIVE",
        root / "class/infiniband/rxe0/ports/1/gid_attrs/ndevs/0": "eth1",
        pci / "host7/iscsi_host/host7/hwaddress": MAC,
        pci / "host7/iscsi_host/host7/ipaddress": "10.0.1.9",
        pci / "host7/iscsi_host/host7/netdev": "eth1",
        pci / "host7/scsi_host/host7/proc_name": "cxgb4i",
        root / "bus/pci/drivers/cxgb4/bind": "",
    }.items():
        place.parent.mkdir(parents=True, exist_ok=True)
        place.write_text(f"{text}\n")
    for link, to in {
        pci / "driver": root / "bus/pci/drivers/cxgb4",
        net / "device": pci,
        root / "bus/pci/devices/0000:05:00.4": pci,
        root / "class/net/eth1": net,
        root / "class/iscsi_host/host7": pci / "host7/iscsi_host/host7",
        root / "class/scsi_host/host7": pci / "host7/scsi_host/host7",
    }.items():
        link.parent.mkdir(parents=True, exist_ok=True)
        link.symlink_to(to)


def test_the_hardware_is_read(ifaces: HereIfaces) -> None:
    """Adapter, network device, host and RDMA port, each with what joins it to the others."""
    found = ifaces.told
    assert found.transports == {"tcp", "cxgb4i"}
    (adapter,), (device,), (host,), (link,) = found.pci, found.net, found.hosts, found.rdma
    assert (adapter.address, adapter.pci_id, adapter.driver) == (
        "0000:05:00.4",
        "1425:5410",
        "cxgb4",
    )
    assert (device.hwaddress, device.pci, device.driver) == (MAC, adapter.address, "cxgb4")
    assert device.addresses == ("10.0.1.1/24",)
    assert (host.transport, host.hwaddress, host.ipaddress) == ("cxgb4i", MAC, "10.0.1.9")
    assert (link.device, link.net_device, link.is_active) == ("rxe0", "eth1", True)


def test_addresses_are_read_from_ip() -> None:
    """Of each device its addresses; link-local ones are of no use for a session."""
    said = json.dumps([
        {"ifname": "eth1", "addr_info": [
            {"local": "10.0.1.1", "prefixlen": 24, "scope": "global"},
            {"local": "fe80::1", "prefixlen": 64, "scope": "link"}]},
        {"ifname": "lo"},
    ])  # fmt: skip
    assert parse_addresses(said) == {"eth1": ("10.0.1.1/24",), "lo": ()}
    assert parse_addresses("") == {}


def test_a_record_is_made_once_and_taken_away(ifaces: HereIfaces) -> None:
    """Doing either twice changes nothing; another record of that name is refused."""
    one = Iface("tcp.a", "tcp", net_ifacename="eth1")
    records = ifaces.records
    assert records.make(one) is Change.CHANGED
    assert records.make(one) is Change.UNCHANGED
    assert (records.folder / "tcp.a").stat().st_mode & 0o777 == 0o600
    assert [made.name for made in records.all()] == ["default", "iser", "tcp.a"]
    with pytest.raises(AlreadyExists):
        records.make(Iface("tcp.a", "tcp", net_ifacename="eth2"))
    assert records.remove("tcp.a", if_made=MADE_BY_COMMAND) is Change.UNCHANGED
    assert records.remove("tcp.a", if_made=MADE_ON_THE_FLY) is Change.CHANGED
    assert records.remove("tcp.a") is Change.UNCHANGED
    assert list(records.folder.iterdir()) == []


def test_a_record_of_others_is_never_touched(ifaces: HereIfaces) -> None:
    """It is used where it says the same, and neither changed nor removed."""
    file = ifaces.records.folder / "theirs"
    file.parent.mkdir(parents=True)
    file.write_text(EARLIER)
    assert ifaces.records.make(Iface("theirs", "tcp", net_ifacename="eth7")) is Change.UNCHANGED
    with pytest.raises(AlreadyExists):
        ifaces.records.make(Iface("theirs", "iser"))
    assert ifaces.records.remove("theirs") is Change.UNCHANGED
    with pytest.raises(InvalidInput, match="not Lunport's"):
        ifaces.delete("theirs")
    assert file.read_text() == EARLIER


def test_a_record_in_use_stays(ifaces: HereIfaces, sysfs: FakeSysfs) -> None:
    """A session over it, or a node record of it, keeps it."""
    ifaces.records.make(Iface("tcp.a", "tcp", net_ifacename="eth1"))
    sysfs.session(1, session={"ifacename": "tcp.a"})
    with pytest.raises(InvalidState, match="session 1"):
        ifaces.delete("tcp.a")
    assert ifaces.drop_unused("tcp.a") is Change.UNCHANGED
    sysfs.remove("class/iscsi_session/session1")
    place = ifaces.host.records.folder / "iqn.2026-11.org.example:a/10.0.1.2,3260,1/tcp.a"
    place.parent.mkdir(parents=True)
    place.write_text("node.name = x\n")
    assert [*ifaces.users("tcp.a")] == [
        "the node record iqn.2026-11.org.example:a/10.0.1.2,3260,1/tcp.a"
    ]
    place.unlink()
    assert ifaces.drop_unused("tcp.a") is Change.CHANGED


def test_a_damaged_record_is_shown_as_such(ifaces: HereIfaces) -> None:
    """The list says what is wrong, and the others are listed as ever."""
    file = ifaces.records.folder / "bad"
    file.parent.mkdir(parents=True)
    file.write_text("iface.hwaddress = nonsense\n")
    found = json.loads(run(ifaces, "list", "-o", "json"))["ifaces"]
    bad = next(one for one in found if one["name"] == "bad")
    assert not bad["is_usable"]
    assert "names no transport" in bad["findings"][0]["text"]


def test_the_commands_make_check_and_remove(ifaces: HereIfaces) -> None:
    """From a source address to a record, its verdict, and its end."""
    made = json.loads(run(ifaces, "create", "--source", "10.0.1.9", "-o", "json"))
    assert (made["name"], made["change"]) == (f"cxgb4i.{MAC}", "changed")
    assert run(ifaces, "create", "--transport", "cxgb4i", "--hwaddress", MAC) == (
        f"cxgb4i.{MAC} was there already.\n"
    )
    assert run(ifaces, "check", f"cxgb4i.{MAC}") == f"cxgb4i.{MAC}: can be used\n"
    shown = json.loads(run(ifaces, "show", f"cxgb4i.{MAC}", "-o", "json"))
    assert (shown["made"], shown["users"]) == ("by command", [])
    assert run(ifaces, "delete", f"cxgb4i.{MAC}") == "Deleted.\n"
    assert run(ifaces, "delete", f"cxgb4i.{MAC}") == "There is none.\n"


def test_what_the_hardware_contradicts_is_not_made(ifaces: HereIfaces) -> None:
    """Refused with the reason, unless it is forced; then check says it with its status."""
    arguments = ["create", "--transport", "qla4xxx", "--hwaddress", MAC]
    refused = CliRunner().invoke(command, arguments, obj=ifaces)
    assert isinstance(refused.exception, InvalidInput)
    assert "which qla4xxx does not drive" in str(refused.exception)
    run(ifaces, *arguments, "--force")
    checked = CliRunner().invoke(command, ["check", f"qla4xxx.{MAC}"], obj=ifaces)
    assert (checked.exit_code, "can NOT be used" in checked.output) == (1, True)


@pytest.mark.parametrize(
    "arguments",
    [["--transport", "tcp"], ["--source", "10.0.1.1", "--transport", "tcp"], ["--hwaddress", MAC]],
)
def test_half_a_tuple_is_a_usage_error(ifaces: HereIfaces, arguments: list[str]) -> None:
    """It takes a transport and a device, or a source address alone."""
    assert CliRunner().invoke(command, ["create", *arguments], obj=ifaces).exit_code == 2


def run(ifaces: HereIfaces, *arguments: str) -> str:
    """Run a command that succeeds; return what it printed."""
    done = CliRunner().invoke(command, list(arguments), obj=ifaces, catch_exceptions=False)
    assert done.exit_code == 0, done.output
    return done.output
