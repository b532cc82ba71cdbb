"""os-brick's ``initiator.connector``: the factory, and what this host says of itself."""

from __future__ import annotations

import logging
import platform
import socket
import sys
from collections.abc import Callable
from typing import Any

from lunport.compat.os_brick import exception, initiator
from lunport.compat.os_brick.initiator.connectors.iscsi import ISCSIConnector as ISCSIConnector
from lunport.compat.os_brick.ports import HostParts

_LOG = logging.getLogger(__name__)

_SYSTEM_UUID = "class/dmi/id/product_uuid"
_TRANSPORTS = {initiator.ISCSI: None, initiator.ISER: "iser"}


def get_connector_properties(
    root_helper: str | None,
    my_ip: str,
    multipath: bool,
    enforce_multipath: bool,
    host: str | None = None,
    execute: Callable[..., object] | None = None,
    *,
    host_parts: HostParts | None = None,
) -> dict[str, object]:
    """Return what a compute host declares of itself when it asks for a volume.

    ``initiator`` is absent where the host has no iSCSI name, ``system uuid`` where the firmware
    gives none. Like os-brick 7 it repeats both wishes for multipath as they are; whether they
    can be met is seen at the connect.
    """
    parts = HostParts() if host_parts is None else host_parts
    properties: dict[str, object] = {
        "platform": platform.machine(),
        "os_type": sys.platform,
        "ip": my_ip,
        "host": host or socket.gethostname(),
        "multipath": multipath,
        "enforce_multipath": enforce_multipath,
        "do_local_attach": False,
    }
    properties |= ISCSIConnector.get_connector_properties(
        root_helper, execute=execute, host_parts=parts
    )
    uuid = parts.sys.read(_SYSTEM_UUID)
    return properties | ({"system uuid": uuid} if uuid else {})


def get_connector_mapping(arch: str | None = None) -> dict[str, str]:
    """Map the protocols that :meth:`InitiatorConnector.factory` knows to their classes' names."""
    name = f"{ISCSIConnector.__module__}.{ISCSIConnector.__name__}"
    return dict.fromkeys(_TRANSPORTS, name)


class InitiatorConnector:
    """Where os-brick's callers get a connector."""

    @staticmethod
    def factory(
        protocol: str,
        root_helper: str | None,
        driver: object = None,
        use_multipath: bool = False,
        device_scan_attempts: int = initiator.DEVICE_SCAN_ATTEMPTS_DEFAULT,
        arch: str | None = None,
        *args: Any,  # noqa: ANN401  # whatever the connector takes
        **kwargs: Any,  # noqa: ANN401
    ) -> ISCSIConnector:
        """Make a connector for ``ISCSI`` or ``ISER``, in any case of letters.

        Raises: InvalidConnectorProtocol.
        """
        _LOG.debug("connector_asked_for protocol=%s arch=%s", protocol, arch)
        name = protocol.upper()
        if name not in _TRANSPORTS:
            raise exception.InvalidConnectorProtocol(
                f"Invalid InitiatorConnector protocol specified {name}: "
                f"{' and '.join(_TRANSPORTS)} are known here"
            )
        transport = _TRANSPORTS[name]
        if transport is not None:
            kwargs["transport"] = transport
        settings: dict[str, Any] = {
            "root_helper": root_helper,
            "driver": driver,
            "use_multipath": use_multipath,
            "device_scan_attempts": device_scan_attempts,
        }
        return ISCSIConnector(*args, **(kwargs | settings))
