"""os-brick's ``ISCSIConnector`` with Lunport's initiator inside.

Translates arguments, results and exceptions; the volume's connection is made, found and undone
by :mod:`lunport.initiator`. Of os-brick's arguments ``root_helper``, ``driver``, ``execute`` and
``device_scan_attempts`` are kept for whoever reads them and mean nothing: no program is run
through them, and devices are awaited by the kernel's events.
"""

from __future__ import annotations

import logging
from collections.abc import Callable
from typing import Final

from lunport.compat.os_brick import exception, initiator
from lunport.compat.os_brick.connection_properties import (
    Properties,
    all_paths_wanted,
    device_path,
    read_connection_properties,
)
from lunport.compat.os_brick.error_mapping import CONNECT, DISCONNECT, EXTEND, raised_as
from lunport.compat.os_brick.ports import Connected, HostParts
from lunport.compat.os_brick.private_link import (
    is_private_link,
    make_private_link,
    remove_private_link,
)
from lunport.compat.os_brick.volume_paths import find_volume_paths, list_names
from lunport.core.connection_info import ConnectionInfo
from lunport.core.errors import DeviceStuck, InvalidInput
from lunport.core.wwid import format_multipath_wwid
from lunport.host.blocking import call_within
from lunport.host.clock import Deadline
from lunport.host.initiator_name import FILE, read_initiator_name
from lunport.initiator.multipath_policy import MultipathPolicy

_LOG = logging.getLogger(__name__)

_OWN_TRANSPORTS: Final = ("default", "iser")
_READ_S: Final = 30.0
_SECTOR_BYTES: Final = 512
_MAP_UUID_PREFIX: Final = "mpath-"
# A single path is a plain disk here, as os-brick's callers expect: never on a map that moves.
_POLICY: Final = MultipathPolicy(resilient=False)


class ISCSIConnector:
    """Connects iSCSI volumes to this host and disconnects them. Safe to share between threads."""

    platform = initiator.PLATFORM_ALL
    os_type = initiator.OS_TYPE_LINUX
    supported_transports: Final = ("default", "iser", "tcp")

    def __init__(
        self,
        root_helper: str | None,
        driver: object = None,
        execute: Callable[..., object] | None = None,
        use_multipath: bool = False,
        device_scan_attempts: int = initiator.DEVICE_SCAN_ATTEMPTS_DEFAULT,
        transport: str = "default",
        *_args: object,
        host_parts: HostParts | None = None,
        **_kwargs: object,
    ) -> None:
        """Keep the arguments; nothing of the host is touched. ``host_parts``: for tests."""
        self.use_multipath = use_multipath
        self.device_scan_attempts = device_scan_attempts
        self.transport = _usable_transport(transport)
        self.driver = driver
        self._host = HostParts() if host_parts is None else host_parts
        self.set_execute(execute)
        self.set_root_helper(root_helper)

    # -- what a caller may set -----------------------------------------------------------------

    def set_execute(self, execute: Callable[..., object] | None) -> None:
        """Keep an executor; it is never called."""
        self._execute = execute

    def set_root_helper(self, helper: str | None) -> None:
        """Keep a command prefix; it is never used."""
        self._root_helper = helper

    def set_driver(self, driver: object) -> None:
        """Keep a driver; it is never called."""
        self.driver = driver

    # -- this host -----------------------------------------------------------------------------

    @staticmethod
    def get_connector_properties(
        root_helper: str | None,
        *_args: object,
        host_parts: HostParts | None = None,
        **_kwargs: object,
    ) -> dict[str, str]:
        """Return what this host says of itself to iSCSI storage."""
        name = _initiator_name(HostParts() if host_parts is None else host_parts)
        return {} if name is None else {"initiator": name}

    def get_initiator(self) -> str | None:
        """Return this host's iSCSI name; None where it has none that can be used."""
        return _initiator_name(self._host)

    def supports_multipath(self) -> bool:
        """Tell whether this host can join several paths: multipathd runs, and answers."""
        return self._host.multipathd.is_running()

    def check_multipath(self, connection_properties: Properties) -> None:
        """Refuse what cannot be had, if the volume insists; warn if it only was wished.

        Raises: BrickException.
        """
        self._check_multipath(self._read(connection_properties))

    # -- one volume ----------------------------------------------------------------------------

    def connect_volume(self, connection_properties: Properties) -> dict[str, str]:
        """Make the volume a disk of this host; return ``type``, ``path`` and ``scsi_wwn``.

        With multipath it is a map, handed out with its first path, and the result has its
        ``multipath_id`` too. Idempotent. ``scsi_wwn`` is the identity as multipath(8) writes it,
        empty where the unit has none. Raises: VolumeDeviceNotFound (no path works, the text says
        why for each), InvalidParameterValue, BrickException.
        """
        info = self._read(connection_properties)
        self._check_multipath(info)
        with raised_as(CONNECT):
            volume = self._host.initiator().connect(
                all_paths_wanted(info) if self.use_multipath else info,
                multipath=self.use_multipath,
                policy=_POLICY,
            )
        if volume.note is not None:
            _LOG.warning("not_as_wished path=%s: %s", info.main_path, volume.note)
        identity = self._identity(volume)
        result = {
            "type": "block",
            "scsi_wwn": identity,
            "path": self._path_to_give(info, volume.path),
        }
        return result if volume.map_name is None else result | {"multipath_id": identity}

    def disconnect_volume(
        self,
        connection_properties: Properties,
        device_info: Properties | None,
        force: bool = False,
        ignore_errors: bool = False,
    ) -> None:
        """Take the volume's disk away, and the session and record that only it needed.

        How it was connected is known, whatever ``use_multipath`` says now: a map goes with all
        its paths. Idempotent; ``device_info`` may be None. ``force``: give up what cannot be
        flushed, and raise what went wrong as an ExceptionChainer, or only log it with
        ``ignore_errors``. A disk that is in use stays in any case.
        Raises: VolumePathNotRemoved, CommandExecutionFailed, InvalidParameterValue,
        BrickException, ExceptionChainer.
        """
        info = self._read(connection_properties)
        with raised_as(DISCONNECT):
            given = device_path(connection_properties, device_info)
        chain = exception.ExceptionChainer()
        with (
            chain.context(force, "Disconnecting %s failed", info.main_path),
            raised_as(DISCONNECT),
        ):
            self._host.initiator().disconnect(info, force=force)
        if chain:
            if ignore_errors:
                _LOG.warning("disconnect_incomplete path=%s error=%s", info.main_path, chain)
                return
            raise chain from chain.first
        if info.encrypted and is_private_link(self._host.disk_links, given):
            try:
                remove_private_link(given)
            except OSError as error:
                _LOG.warning("private_link_stays link=%s error=%s", given, error)

    def extend_volume(self, connection_properties: Properties) -> int:
        """Make the disk as large as the volume is on the storage now; return the bytes.

        Paths of a map that are down are grown when they return. Idempotent.
        Raises: VolumePathsNotFound (it is not connected), InvalidParameterValue,
        BrickException (the storage does not answer, or the disk kept another size).
        """
        info = self._read(connection_properties)
        with raised_as(EXTEND):
            return self._host.initiator().extend(info)

    def get_volume_paths(self, connection_properties: Properties) -> list[str]:
        """List the names below ``/dev/disk/by-path`` under which the volume is here now."""
        try:
            info = read_connection_properties(connection_properties, transport=self.transport)
        except InvalidInput as error:
            _LOG.debug("no_volume_paths error=%s", error)
            return []
        return find_volume_paths(info, self._host)

    # -- all volumes ---------------------------------------------------------------------------

    def get_search_path(self) -> str:
        """Return the folder whose names :meth:`get_volume_paths` gives."""
        return str(self._host.disk_links / "by-path")

    def get_all_available_volumes(
        self,
        connection_properties: Properties | None = None,
    ) -> list[str]:
        """List all names in the search path."""
        return list_names(self._host)

    def check_valid_device(self, path: str, run_as_root: bool = True) -> bool:
        """Tell whether the beginning of a device can be read."""

        def read() -> int:
            with open(path, "rb", buffering=0) as device:  # noqa: PTH123  # bytes may come too
                return len(device.read(_SECTOR_BYTES))

        try:
            call_within(read, Deadline.after(_READ_S), "reading its beginning", device=str(path))
        except (OSError, DeviceStuck) as error:
            _LOG.error("device_unreadable path=%s error=%s", path, error)
            return False
        return True

    def check_IO_handle_valid(  # noqa: N802  # os-brick's name
        self, handle: object, data_type: type, protocol: str
    ) -> None:
        """Require a handle of a type. Raises: InvalidIOHandleObject."""
        if handle and not isinstance(handle, data_type):
            raise exception.InvalidIOHandleObject(protocol=protocol, actual_type=type(handle))

    # -- parts ---------------------------------------------------------------------------------

    def _read(self, properties: Properties) -> ConnectionInfo:
        with raised_as(CONNECT):
            return read_connection_properties(properties, transport=self.transport)

    def _check_multipath(self, info: ConnectionInfo) -> None:
        if not self.use_multipath or self.supports_multipath():
            return
        if info.enforce_multipath:
            raise exception.BrickException(
                "Multipathing is enforced, and this host does not support it: "
                "multipathd does not run"
            )
        _LOG.warning("multipath_unsupported path=%s: one path is used", info.main_path)

    def _identity(self, volume: Connected) -> str:
        if volume.map_name is not None:
            # multipath's own spelling, since others find the map by it
            uuid = self._host.sys.read(f"block/{volume.map_name}/dm/uuid") or ""
            if uuid.startswith(_MAP_UUID_PREFIX):
                return uuid.removeprefix(_MAP_UUID_PREFIX)
        return "" if volume.wwid is None else format_multipath_wwid(volume.wwid)

    def _path_to_give(self, info: ConnectionInfo, path: str) -> str:
        if not info.encrypted:
            return path
        try:
            return make_private_link(self._host.disk_links, path)
        except OSError as error:
            with raised_as(CONNECT):
                self._host.initiator().disconnect(info)
            raise exception.BrickException(f"No link to {path} could be made: {error}") from error


def _usable_transport(transport: str) -> str:
    if transport not in _OWN_TRANSPORTS:
        _LOG.warning("iface_unsupported iface=%s: the default one is used", transport)
        return "default"
    return transport


def _initiator_name(host: HostParts) -> str | None:
    try:
        name = read_initiator_name(host.initiator_file)
    except InvalidInput as error:
        _LOG.warning("initiator_name_unusable file=%s error=%s", FILE, error)
        return None
    return None if name is None else str(name)
