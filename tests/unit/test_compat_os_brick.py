"""Lunport behind os-brick's names: arguments, results and exceptions, on a fake initiator."""

from __future__ import annotations

import inspect
import logging
import os
import platform
import socket
import sys
from collections.abc import Sequence
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest

from lunport.compat import os_brick
from lunport.compat.os_brick import exception, initiator
from lunport.compat.os_brick.error_mapping import CONNECT, DISCONNECT, EXTEND, translate
from lunport.compat.os_brick.initiator import connector
from lunport.compat.os_brick.ports import HostParts
from lunport.core import errors
from lunport.core.connection_info import AddressingMode
from lunport.core.errors import LunportError
from lunport.core.portal import Portal
from lunport.core.target_path import TargetPath
from lunport.core.transport import Transport
from lunport.core.wwid import Wwid
from lunport.host.clock import Deadline
from lunport.host.systree import SysTree
from lunport.initiator.path_source import FoundPaths
from tests.fakes.fake_initiator import FakeInitiator

IQN = "iqn.2014-02.org.example:vol1"
SECRET = "a-secret-nobody-prints"
# As Cinder sends it, values of every odd kind included.
PROPERTIES: dict[str, object] = {
    "target_discovered": False,
    "target_portal": "10.0.1.2:3260",
    "target_iqn": IQN,
    "target_lun": 1,
    "auth_method": "CHAP",
    "auth_username": "user",
    "auth_password": SECRET,
    "access_mode": "rw",
    "encrypted": "False",
    "qos_specs": None,
    "cacheable": False,
    "device_path": "",
}


class Host:
    """A host of folders and a fake initiator."""

    def __init__(self, root: Path) -> None:
        self.root = root
        self.initiator = FakeInitiator()
        self.file = root / "initiatorname.iscsi"
        self.file.write_text("InitiatorName=iqn.1993-08.org.debian:01:2f8c\n")
        self.links = root / "disk"
        (self.links / "by-path").mkdir(parents=True)
        self.parts = HostParts(
            initiator=lambda: self.initiator,
            multipathd=self.initiator.multipathd,
            sys=SysTree(root / "sys"),
            disk_links=self.links,
            initiator_file=self.file,
            naming_s=0.0,
        )

    def connector(self, protocol: str = "ISCSI", **kwargs: Any) -> connector.ISCSIConnector:
        """Make a connector as a caller of os-brick does."""
        return connector.InitiatorConnector.factory(
            protocol, "sudo", host_parts=self.parts, **kwargs
        )

    def show(self, sid: int = 1, *, portal: str = "10.0.1.2", lun: int = 1) -> None:
        """Let a session show a unit as a disk."""
        self._write(f"class/iscsi_session/session{sid}/targetname", IQN)
        self._write(f"class/iscsi_session/session{sid}/state", "LOGGED_IN")
        at = f"devices/platform/host{sid}/session{sid}"
        link = self.root / f"sys/class/iscsi_session/session{sid}"
        self._move(link, self.root / "sys" / at / f"iscsi_session/session{sid}")
        self._write(f"class/iscsi_connection/connection{sid}:0/persistent_address", portal)
        self._write(f"class/iscsi_connection/connection{sid}:0/persistent_port", "3260")
        unit = f"{sid}:0:0:{lun}"
        for name, text in {
            "block/sda/dev": "8:0",
            "block/sda/size": "8",
            "state": "running",
        }.items():
            self._write(f"bus/scsi/devices/{unit}/{name}", text)
            self._write(f"{at}/target{sid}:0:0/{unit}/{name}", text)

    def name_disk(self, name: str, *, leads_to: str = "sda") -> str:
        """Make a name of udev's."""
        (self.root / "sda").touch()
        link = self.links / "by-path" / name
        link.symlink_to(self.root / leads_to)
        return str(link)

    def _write(self, path: str, text: str) -> None:
        file = self.root / "sys" / path
        file.parent.mkdir(parents=True, exist_ok=True)
        file.write_text(text)

    def _move(self, link: Path, place: Path) -> None:
        if not link.is_symlink():
            place.parent.mkdir(parents=True)
            link.rename(place)
            link.symlink_to(os.path.relpath(place, link.parent))


@pytest.fixture
def host(tmp_path: Path) -> Host:
    return Host(tmp_path)


# -- the factory ---------------------------------------------------------------------------


def test_a_connector_is_made_with_os_bricks_arguments(host: Host) -> None:
    """The factory takes os-brick's arguments, and what callers read of the connector is there."""
    made = connector.InitiatorConnector.factory(
        "iscsi", "sudo", None, True, 5, "x86_64", host_parts=host.parts, execute=print
    )
    assert isinstance(made, connector.ISCSIConnector)
    assert (made.use_multipath, made.device_scan_attempts, made.transport) == (True, 5, "default")
    assert initiator.DEVICE_SCAN_ATTEMPTS_DEFAULT == host.connector().device_scan_attempts == 3
    made.set_execute(print)
    made.set_root_helper("sudo -n")
    made.set_driver(None)
    os_brick.setup(object(), anything=1)


def test_the_factory_has_os_bricks_signature() -> None:
    """Names, order and defaults are os-brick's, so that any way to call it works."""
    signature = inspect.signature(connector.InitiatorConnector.factory)
    assert [(name, parameter.default) for name, parameter in signature.parameters.items()] == [
        ("protocol", inspect.Parameter.empty),
        ("root_helper", inspect.Parameter.empty),
        ("driver", None),
        ("use_multipath", False),
        ("device_scan_attempts", 3),
        ("arch", None),
        ("args", inspect.Parameter.empty),
        ("kwargs", inspect.Parameter.empty),
    ]


@pytest.mark.parametrize("protocol", ["FIBRE_CHANNEL", "nfs", "NVMEOF", "nonsense"])
def test_another_protocol_is_refused_as_os_brick_does(protocol: str) -> None:
    """What is not iSCSI is an InvalidConnectorProtocol, which is a ValueError."""
    with pytest.raises(exception.InvalidConnectorProtocol, match=protocol.upper()) as raised:
        connector.InitiatorConnector.factory(protocol, None)
    assert isinstance(raised.value, ValueError)
    assert set(connector.get_connector_mapping()) == {"ISCSI", "ISER"}


def test_iser_is_the_transport_of_every_path(host: Host) -> None:
    """A connector for ISER reads paths as iSER, whatever the caller passes besides."""
    host.connector("ISER", transport="default").connect_volume(PROPERTIES)
    ((_, info, _),) = host.initiator.heard
    assert info.main_path.transport is Transport.ISER


def test_an_iface_that_is_not_supported_is_the_default_one(
    host: Host, caplog: pytest.LogCaptureFixture
) -> None:
    """As with an iface that os-brick cannot use, the default one is, with a warning."""
    assert host.connector(transport="cxgb4i.00:11").transport == "default"
    assert "iface_unsupported" in caplog.text


# -- what the host says of itself ------------------------------------------------------------


def test_the_connector_properties_of_an_iscsi_host(host: Host) -> None:
    """The keys are os-brick's; both wishes for multipath come back as they were given."""
    (host.root / "sys/class/dmi/id").mkdir(parents=True)
    (host.root / "sys/class/dmi/id/product_uuid").write_text("4c4c4544-0039\n")
    assert connector.get_connector_properties(
        "sudo", "10.0.0.7", True, True, host_parts=host.parts
    ) == {
        "platform": platform.machine(),
        "os_type": sys.platform,
        "ip": "10.0.0.7",
        "host": socket.gethostname(),
        "initiator": "iqn.1993-08.org.debian:01:2f8c",
        "multipath": True,
        "enforce_multipath": True,
        "do_local_attach": False,
        "system uuid": "4c4c4544-0039",
    }


@pytest.mark.parametrize("text", ["", "InitiatorName=my host\n"])
def test_a_host_without_a_usable_name_has_no_initiator(host: Host, text: str) -> None:
    """The key is absent then, as in os-brick, and nothing is raised."""
    host.file.write_text(text)
    properties = connector.get_connector_properties(
        None, "10.0.0.7", False, False, host="node-7", host_parts=host.parts
    )
    assert "initiator" not in properties
    assert "system uuid" not in properties
    assert properties["host"] == "node-7"
    assert host.connector().get_initiator() is None


# -- connecting ------------------------------------------------------------------------------


def test_a_connected_volume_is_told_as_os_brick_tells_it(host: Host) -> None:
    """The result has os-brick's three keys, and the identity as multipath(8) writes it."""
    assert host.connector().connect_volume(PROPERTIES) == {
        "type": "block",
        "path": "/dev/sda",
        "scsi_wwn": "360014050000000010000000000000000",
    }


def test_a_unit_without_identity_has_an_empty_one(host: Host) -> None:
    """As in os-brick, the identity is then an empty text."""
    host.initiator.wwid = None
    assert host.connector().connect_volume(PROPERTIES)["scsi_wwn"] == ""


def test_what_the_properties_mean_reaches_the_initiator(host: Host) -> None:
    """Strings for numbers and booleans, portal groups, lists and alternatives are all read."""
    given = PROPERTIES | {
        "target_portal": "10.0.1.2:3260,1",
        "target_lun": "7",
        "target_alternative_portals": ["10.0.2.2:3260,1"],
        "target_alternative_iqns": [IQN],
        "target_alternative_luns": ["7"],
        "target_portals": ["10.0.1.2:3260", "[fd00::2]:3260,2"],
        "target_iqns": [IQN, IQN],
        "target_luns": ["7", 7],
        "addressing_mode": "SAM2",
        "discovery_auth_method": "",
    }
    host.connector().connect_volume(given)
    ((_, info, _),) = host.initiator.heard
    assert [str(path.portal) for path in info.paths] == [
        "10.0.1.2:3260",
        "10.0.2.2:3260",
        "[fd00::2]:3260",
    ]
    assert {path.lun for path in info.paths} == {7}
    assert info.addressing_mode is AddressingMode.SAM2
    assert (info.encrypted, info.discovery_chap) == (False, None)
    assert info.chap is not None
    assert info.chap.initiator.username == "user"


def test_a_whole_connection_info_is_read_too(host: Host) -> None:
    """Who passes the envelope with its inner data means the same."""
    whole = {"driver_volume_type": "iscsi", "data": PROPERTIES}
    host.connector().connect_volume(whole)
    host.connector().connect_volume(PROPERTIES)
    (_, one, _), (_, other, _) = host.initiator.heard
    assert one == other


@pytest.mark.parametrize(
    "change",
    [
        {"target_portal": None},
        {"target_lun": "one"},
        {"target_portals": ["10.0.1.2:3260"], "target_iqns": [IQN, IQN]},
        {"auth_password": None},
    ],
)
def test_properties_that_cannot_be_used_are_a_parameter_error(
    host: Host, change: dict[str, object]
) -> None:
    """What os-brick fails on somewhere inside is refused before anything is done."""
    with pytest.raises(exception.InvalidParameterValue) as raised:
        host.connector().connect_volume(PROPERTIES | change)
    assert isinstance(raised.value.__cause__, errors.InvalidInput)
    assert SECRET not in str(raised.value)
    assert host.initiator.heard == []


def test_the_callers_properties_stay_as_they_are(host: Host) -> None:
    """Nothing writes into what the caller passed."""
    given = dict(PROPERTIES)
    made = host.connector()
    info = made.connect_volume(given)
    made.disconnect_volume(given, info)
    assert given == PROPERTIES


# -- multipath ---------------------------------------------------------------------------------


def test_multipath_that_is_enforced_is_an_error(host: Host) -> None:
    """As on a host of os-brick without multipathd: an error, and nothing connected."""
    made = host.connector(use_multipath=True)
    assert made.supports_multipath() is False
    with pytest.raises(exception.BrickException, match="enforced"):
        made.connect_volume(PROPERTIES | {"enforce_multipath": True})
    with pytest.raises(exception.BrickException, match="enforced"):
        made.check_multipath(PROPERTIES | {"enforce_multipath": "True"})
    assert host.initiator.heard == []


def test_multipath_that_is_only_wished_is_one_path(
    host: Host, caplog: pytest.LogCaptureFixture
) -> None:
    """Not enforced, it is a warning, and the volume is connected over one path."""
    info = host.connector(use_multipath=True).connect_volume(PROPERTIES)
    assert info["path"] == "/dev/sda"
    assert "multipath_id" not in info
    assert "multipath_unsupported" in caplog.text
    assert "not_as_wished" in caplog.text


def test_with_multipathd_the_volume_is_a_map(host: Host) -> None:
    """The device is the map, and its identity comes once more as os-brick's ``multipath_id``."""
    host.initiator.multipathd.runs = True
    made = host.connector(use_multipath=True)
    assert made.supports_multipath() is True
    made.check_multipath(PROPERTIES | {"enforce_multipath": True})
    assert made.connect_volume(PROPERTIES | {"enforce_multipath": True}) == {
        "type": "block",
        "path": "/dev/dm-0",
        "scsi_wwn": "360014050000000010000000000000000",
        "multipath_id": "360014050000000010000000000000000",
    }


def test_a_maps_identity_is_written_as_multipath_wrote_it(host: Host) -> None:
    """Others find the map by that text, so that it is read where multipath put it."""
    host.initiator.multipathd.runs = True
    host.initiator.wwid = Wwid("t10.LIO-ORG disk_1")
    uuid = host.root / "sys/block/dm-0/dm/uuid"
    uuid.parent.mkdir(parents=True)
    uuid.write_text("mpath-1LIO-ORG_disk_1\n")
    info = host.connector(use_multipath=True).connect_volume(PROPERTIES)
    assert info["multipath_id"] == info["scsi_wwn"] == "1LIO-ORG_disk_1"


@pytest.mark.parametrize("is_running", [False, True])
@pytest.mark.parametrize("use_multipath", [False, True])
def test_a_single_path_never_rides_on_a_map(
    host: Host, use_multipath: bool, is_running: bool
) -> None:
    """Multipath is what the caller says; a map that moves is never made behind this face."""
    host.initiator.multipathd.runs = is_running
    info = host.connector(use_multipath=use_multipath).connect_volume(PROPERTIES)
    ((multipath, policy),) = host.initiator.wishes
    assert (multipath, policy.resilient) == (use_multipath, False)
    assert ("multipath_id" in info) is (use_multipath and is_running)


def test_portals_are_discovered_for_multipath_unless_all_are_listed(host: Host) -> None:
    """As in os-brick: multipath alone asks for it, whatever ``target_discovered`` says."""
    listed = PROPERTIES | {
        "target_portals": ["10.0.1.2:3260"],
        "target_iqns": [IQN],
        "target_luns": [1],
    }
    host.connector(use_multipath=True).connect_volume(PROPERTIES)
    host.connector(use_multipath=True).connect_volume(listed)
    host.connector().connect_volume(PROPERTIES)
    asked = [info.target_discovered for _, info, _ in host.initiator.heard]
    assert asked == [True, False, False]


def test_a_map_is_disconnected_whatever_multipath_says_now(host: Host) -> None:
    """The wish may have changed since the connect: nobody asks for it at the disconnect."""
    host.initiator.multipathd.runs = True
    info = host.connector(use_multipath=True).connect_volume(PROPERTIES)
    host.initiator.multipathd.runs = False
    host.connector().disconnect_volume(PROPERTIES | {"enforce_multipath": True}, info)
    assert host.initiator.connected == {}


def test_an_encrypted_map_gets_a_link_of_the_callers_own(host: Host) -> None:
    """The link stands for the map, and what the identity is does not change by it."""
    host.initiator.multipathd.runs = True
    info = host.connector(use_multipath=True).connect_volume(PROPERTIES | {"encrypted": True})
    assert info["path"] == str(host.links / "by-id" / "os-brick+dev+dm-0")
    assert str(Path(info["path"]).readlink()) == "/dev/dm-0"
    assert info["multipath_id"] == "360014050000000010000000000000000"


# -- disconnecting and extending ---------------------------------------------------------------


@pytest.mark.parametrize("device_info", [None, {}, {"type": "block", "path": "/dev/sda"}])
def test_a_volume_is_disconnected_with_and_without_device_info(
    host: Host, device_info: dict[str, str] | None
) -> None:
    """What a connect returned need not be given back, and a second time is no error."""
    made = host.connector()
    made.connect_volume(PROPERTIES)
    made.disconnect_volume(PROPERTIES, device_info)
    assert host.initiator.connected == {}
    made.disconnect_volume(PROPERTIES, device_info, force=True, ignore_errors=True)
    assert [(verb, force) for verb, _, force in host.initiator.heard] == [
        ("connect", False),
        ("disconnect", False),
        ("disconnect", True),
    ]


def test_an_error_while_forcing_comes_in_a_chain(host: Host) -> None:
    """As in os-brick: forced, what went wrong is raised at the end as an ExceptionChainer."""
    host.initiator.failure = errors.DeviceBusy("/dev/sda", ["qemu (12)"])
    with pytest.raises(exception.ExceptionChainer, match="qemu") as raised:
        host.connector().disconnect_volume(PROPERTIES, None, force=True)
    assert isinstance(raised.value.__cause__, exception.VolumePathNotRemoved)
    assert isinstance(raised.value.__cause__.__cause__, errors.DeviceBusy)


def test_errors_are_ignored_only_while_forcing(
    host: Host, caplog: pytest.LogCaptureFixture
) -> None:
    """``ignore_errors`` alone changes nothing; with ``force`` errors are logged."""
    made = host.connector()
    host.initiator.failure = errors.FlushFailed("/dev/sda", "I/O error")
    with pytest.raises(exception.CommandExecutionFailed):
        made.disconnect_volume(PROPERTIES, None, ignore_errors=True)
    host.initiator.failure = errors.DeviceStuck("/dev/sda", "removal", 30.0)
    made.disconnect_volume(PROPERTIES, None, force=True, ignore_errors=True)
    assert "disconnect_incomplete" in caplog.text
    assert SECRET not in caplog.text


def test_the_new_size_is_returned_in_bytes(host: Host) -> None:
    """A connected volume's size comes back; one that is not here has no paths."""
    made = host.connector()
    with pytest.raises(exception.VolumePathsNotFound):
        made.extend_volume(PROPERTIES)
    made.connect_volume(PROPERTIES)
    assert made.extend_volume(PROPERTIES) == 64 << 20


# -- exceptions --------------------------------------------------------------------------------

PATH = "10.0.1.2:3260 iqn.2014-02.org.example:vol1 lun 1"


@pytest.mark.parametrize(
    "error",
    [
        errors.AllPathsFailed([errors.PortalUnreachable(PATH, "refused")]),
        errors.AuthenticationFailed(PATH, "CHAP failed"),
        errors.TargetUnknown(PATH, "not found"),
        errors.LunMissing(PATH, "no lun 1"),
        errors.WrongDevice(PATH, "naa.1", "naa.2"),
        errors.DeviceMissing(PATH, "it did not appear"),
    ],
)
def test_whatever_keeps_the_device_away_is_a_device_not_found(
    host: Host, error: LunportError
) -> None:
    """Callers of os-brick wait for one exception; our error is its cause and in its text."""
    host.initiator.failure = error
    with pytest.raises(exception.VolumeDeviceNotFound) as raised:
        host.connector().connect_volume(PROPERTIES)
    assert raised.value.__cause__ is error
    assert str(error) in str(raised.value)
    assert raised.value.msg == str(raised.value)


def test_an_undo_that_failed_is_told_by_its_cause() -> None:
    """The exception's class is that of the cause, its text is of both."""
    error = errors.UndoFailed(errors.LunMissing(PATH, "gone"), [errors.HostError("no logout")])
    made = translate(error, CONNECT)
    assert type(made) is exception.VolumeDeviceNotFound
    assert "no logout" in str(made)


@pytest.mark.parametrize(
    "table,error,kind",
    [
        (CONNECT, errors.InitiatorDown("no iscsid", "start it"), exception.BrickException),
        (CONNECT, errors.CommandMissing("iscsiadm", "x"), exception.CommandExecutionFailed),
        (CONNECT, errors.MultipathDown("no multipathd", "start it"), exception.BrickException),
        (CONNECT, errors.MapMissing("/dev/sda", "no map"), exception.VolumeDeviceNotFound),
        (DISCONNECT, errors.CommandTimedOut(["iscsiadm"], 5.0), exception.ExecutionTimeout),
        (
            DISCONNECT,
            errors.DeviceStuck("/dev/sda", "removal", 9.0),
            exception.VolumePathNotRemoved,
        ),
        (DISCONNECT, errors.Unavailable("busy"), exception.BrickException),
        (EXTEND, errors.PortalUnreachable(PATH, "refused"), exception.BrickException),
        (EXTEND, errors.SizeUnchanged("/dev/sda", 1, 2), exception.BrickException),
    ],
)
def test_each_verb_has_its_table(
    table: dict[type[LunportError], tuple[type[exception.BrickException], str]],
    error: LunportError,
    kind: type[exception.BrickException],
) -> None:
    """The nearest class in the verb's table decides which exception it is."""
    assert type(translate(error, table)) is kind


def test_the_ancestry_is_os_bricks() -> None:
    """A clause that catches a parent catches what it caught with os-brick."""
    assert issubclass(exception.TargetPortalsNotFound, exception.TargetPortalNotFound)
    assert issubclass(exception.InvalidParameterValue, exception.Invalid)
    assert not issubclass(exception.InvalidConnectorProtocol, exception.BrickException)
    for kind in (exception.NotFound, exception.VolumeDeviceNotFound, exception.ExceptionChainer):
        assert issubclass(kind, exception.BrickException)


def test_an_exception_is_built_from_words_or_from_values() -> None:
    """As in os-brick: a text, or the values for the class's own; missing ones are no error."""
    assert str(exception.VolumeDeviceNotFound("gone")) == "gone"
    built = exception.VolumeDeviceNotFound(device="/dev/sdq")
    assert str(built) == built.msg == "Volume device not found at /dev/sdq."
    assert built.kwargs == {"device": "/dev/sdq", "code": 500}
    assert "%(device)s" in str(exception.VolumeDeviceNotFound())
    assert exception.NotFound(code=410).kwargs["code"] == 410


def test_a_chain_keeps_what_its_contexts_catch(caplog: pytest.LogCaptureFixture) -> None:
    """False while empty; then true, with every story; a context that does not catch lets go."""
    chain = exception.ExceptionChainer()
    assert not chain
    with caplog.at_level(logging.WARNING), chain.context(True, "Flushing %s failed", "sda"):
        raise OSError("first")
    with pytest.raises(OSError, match="second"), chain.context(False):
        raise OSError("second")
    with chain.context(True):
        pass
    assert chain
    assert "Flushing sda failed" in caplog.text
    assert str(chain).count("Chained Exception") == 2
    assert isinstance(chain.first, OSError)


# -- paths, names and devices --------------------------------------------------------------------


def test_a_volumes_paths_are_udevs_names_of_its_disks(host: Host) -> None:
    """Nothing before it is connected; then the name, for each path that has a session."""
    name = f"ip-10.0.1.2:3260-iscsi-{IQN}-lun-1"
    made = host.connector()
    assert made.get_search_path() == str(host.links / "by-path")
    assert made.get_all_available_volumes() == []
    link = host.name_disk(name)
    host.name_disk(f"{name}-part1")
    assert made.get_volume_paths(PROPERTIES) == []
    host.show()
    assert made.get_volume_paths(PROPERTIES) == [link]
    assert made.get_volume_paths(PROPERTIES | {"target_lun": 2}) == []
    assert made.get_all_available_volumes(PROPERTIES) == [link, f"{link}-part1"]


@pytest.mark.parametrize(
    "portal,lun,mode,shown,name",
    [
        ("[fd00::2]:3260", 1, None, 1, f"ip-fd00::2:3260-iscsi-{IQN}-lun-1"),
        ("10.0.1.2:3260", 256, None, 256, f"ip-10.0.1.2:3260-iscsi-{IQN}-lun-0x0100000000000000"),
        (
            "10.0.1.2:3260", 256, "SAM2", 16640,
            f"pci-0000:04:00.0-ip-10.0.1.2:3260-iscsi-{IQN}-lun-0x4100000000000000",
        ),
    ],
)  # fmt: skip
def test_names_of_every_form_are_found(
    host: Host, portal: str, lun: int, mode: str | None, shown: int, name: str
) -> None:
    """IPv6 without brackets, large LUNs in hexadecimal, and the adapter's address before it."""
    host.show(portal=portal.rpartition(":")[0].strip("[]"), lun=shown)
    link = host.name_disk(name)
    given = PROPERTIES | {"target_portal": portal, "target_lun": lun, "addressing_mode": mode}
    assert host.connector().get_volume_paths(given) == [link]


def test_a_named_portals_paths_are_those_of_its_addresses(host: Host) -> None:
    """The names of disks have addresses; a portal's name without one has no paths."""

    def resolve(paths: Sequence[TargetPath], deadline: Deadline) -> FoundPaths:
        (path,) = paths
        if path.portal.host != "san1.example.org":
            raise errors.AllPathsFailed([errors.PortalUnreachable(str(path), "no address")])
        return FoundPaths((replace(path, portal=Portal("10.0.1.2", path.portal.port)),))

    host.parts = replace(host.parts, resolve=resolve)
    host.show()
    link = host.name_disk(f"ip-10.0.1.2:3260-iscsi-{IQN}-lun-1")
    named = PROPERTIES | {"target_portal": "san1.example.org:3260"}
    nowhere = PROPERTIES | {"target_portal": "nowhere.example.org:3260"}
    assert host.connector().get_volume_paths(named) == [link]
    assert host.connector().get_volume_paths(nowhere) == []


def test_properties_without_a_path_have_none(host: Host) -> None:
    """What says of no path where it leads has no paths, and is no error."""
    assert host.connector().get_volume_paths({"volume_id": "x"}) == []


def test_a_device_is_valid_if_it_can_be_read(host: Host, tmp_path: Path) -> None:
    """Its beginning is read; what is absent, or is no file, is not valid."""
    file = tmp_path / "device"
    file.write_bytes(b"x" * 4096)
    made = host.connector()
    assert made.check_valid_device(str(file)) is True
    assert made.check_valid_device(str(tmp_path / "absent"), run_as_root=False) is False
    assert made.check_valid_device(str(tmp_path)) is False


def test_a_handle_of_another_type_is_refused(host: Host) -> None:
    """As in os-brick, nothing is a valid handle of any type."""
    made = host.connector()
    made.check_IO_handle_valid(None, dict, "iscsi")
    made.check_IO_handle_valid({"a": 1}, dict, "iscsi")
    with pytest.raises(exception.InvalidIOHandleObject, match="iscsi"):
        made.check_IO_handle_valid("x", dict, "iscsi")


# -- encrypted volumes ---------------------------------------------------------------------------


def test_an_encrypted_volumes_path_is_a_link_of_the_callers_own(host: Host) -> None:
    """The link has os-brick's name, may be replaced by the caller, and goes at the disconnect."""
    given = PROPERTIES | {"encrypted": True}
    made = host.connector()
    info = made.connect_volume(given)
    link = Path(info["path"])
    assert link == host.links / "by-id" / "os-brick+dev+sda"
    assert str(link.readlink()) == "/dev/sda"
    link.unlink()
    link.symlink_to("/dev/mapper/crypt-x")
    made.disconnect_volume(given, info)
    assert not link.is_symlink()
    made.disconnect_volume(given, info)


def test_the_link_stays_while_the_volume_stays(host: Host) -> None:
    """A disconnect that fails leaves the caller's path as it is."""
    given = PROPERTIES | {"encrypted": "true"}
    made = host.connector()
    info = made.connect_volume(given)
    host.initiator.failure = errors.DeviceBusy("/dev/sda", ["cryptsetup"])
    with pytest.raises(exception.VolumePathNotRemoved):
        made.disconnect_volume(given, info)
    assert Path(info["path"]).is_symlink()


def test_no_link_no_connection(host: Host) -> None:
    """Where the link cannot be made the volume is disconnected again."""
    (host.links / "by-id").touch()
    with pytest.raises(exception.BrickException, match="link"):
        host.connector().connect_volume(PROPERTIES | {"encrypted": True})
    assert host.initiator.connected == {}


def test_a_path_that_is_no_link_of_ours_is_left_alone(host: Host) -> None:
    """A device path of an older connect is not touched."""
    link = host.links / "by-id" / "scsi-3600"
    link.parent.mkdir()
    link.symlink_to("/dev/sda")
    given = PROPERTIES | {"encrypted": True, "device_path": str(link)}
    host.connector().disconnect_volume(given, None)
    assert link.is_symlink()


def test_an_identity_that_is_no_naa_is_written_as_multipath_does(host: Host) -> None:
    """The first digit tells the kind, as scsi_id(8) has it."""
    host.initiator.wwid = Wwid("t10.LIO-ORG_disk_1")
    assert host.connector().connect_volume(PROPERTIES)["scsi_wwn"] == "1LIO-ORG_disk_1"
