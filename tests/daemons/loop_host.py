"""A host that reaches volumes by loop devices over their images, in place of a kernel initiator.

Behind the same verbs: a connect gives a device, another holder shares it, and it goes with the
last one. What the kernel's initiator itself does is proved in the lab.
"""

from __future__ import annotations

import contextlib
from collections.abc import Callable
from dataclasses import dataclass, field, replace
from pathlib import Path

from lunport.agent.path_wish import PathWish
from lunport.core.change import Change
from lunport.core.connection_info import ConnectionInfo
from lunport.core.errors import DeviceMissing, LunportError
from lunport.core.host_connection import HostConnection, Phase, connection_key
from lunport.core.scsi_address import ScsiAddress
from lunport.host.boot_id import read_boot_id
from lunport.host.clock import Deadline
from lunport.host.loop_device import attached, device_number, grow, size_of
from lunport.initiator.connected_volume import ConnectedVolume

_NO_WISH = PathWish()


@dataclass(slots=True)
class LoopHost:
    """``image_of``: finds a volume's image. ``failures`` are raised by the verb, once."""

    image_of: Callable[[str], Path]
    failures: dict[str, LunportError] = field(default_factory=dict)
    entries: dict[str, HostConnection] = field(default_factory=dict)
    devices: dict[str, Path] = field(default_factory=dict)
    stacks: dict[str, contextlib.ExitStack] = field(default_factory=dict)

    def connect(
        self,
        info: ConnectionInfo,
        *,
        multipath: bool | None = None,
        wish: PathWish = _NO_WISH,
        deadline: Deadline,
    ) -> ConnectedVolume:
        """Attach the image, or add a holder."""
        self._begin("connect")
        key = connection_key(info)
        known = self.entries.get(key)
        if known is None:
            assert info.volume_id is not None
            stack = contextlib.ExitStack()
            image = self.image_of(info.volume_id)
            self.devices[key] = stack.enter_context(attached(image, deadline))
            self.stacks[key] = stack
            known = _entry(info)
        if info.attachment_id is not None and info.attachment_id not in known.holders:
            known = replace(known, holders=(*known.holders, info.attachment_id))
        self.entries[key] = known
        return ConnectedVolume(
            path=str(self.devices[key]),
            wwid=info.wwid,
            size_bytes=_size(self.devices[key]),
            used=info.main_path,
            unit=ScsiAddress(2, 0, 0, 1),
            unused=(),
            change=Change.CHANGED,
            choice_s=0.0,
            elapsed_s=0.0,
        )

    def disconnect(
        self, info: ConnectionInfo, *, force: bool = False, deadline: Deadline
    ) -> Change:
        """Detach the image once nobody holds it."""
        self._begin("disconnect")
        key = connection_key(info)
        known = self.entries.get(key)
        if known is None:
            return Change.UNCHANGED
        left = tuple(one for one in known.holders if one != info.attachment_id)
        if left and not force:
            self.entries[key] = replace(known, holders=left)
            return Change.CHANGED
        del self.entries[key], self.devices[key]
        self.stacks.pop(key).close()
        return Change.CHANGED

    def extend(self, info: ConnectionInfo, *, deadline: Deadline) -> int:
        """Let the device take the image's size."""
        self._begin("extend")
        device = self.devices.get(connection_key(info))
        if device is None:
            raise DeviceMissing(str(info.main_path), "the volume is not connected on this host")
        number = device_number(device)
        assert number is not None
        grow(number)
        return size_of(number)

    def connections(self) -> tuple[HostConnection, ...]:
        """List what is connected."""
        return tuple(self.entries.values())

    def close(self) -> None:
        """Detach everything."""
        for stack in self.stacks.values():
            stack.close()

    def _begin(self, verb: str) -> None:
        failure = self.failures.pop(verb, None)
        if failure is not None:
            raise failure


def _entry(info: ConnectionInfo) -> HostConnection:
    return HostConnection(
        key=connection_key(info),
        phase=Phase.CONNECTED,
        paths=info.paths,
        used=info.main_path,
        iface="default",
        addressing_mode=info.addressing_mode,
        wwid=info.wwid,
        seen_wwid=info.wwid,
        volume_id=info.volume_id,
        holders=(),
        unit=ScsiAddress(2, 0, 0, 1),
        disk_name="loop",
        size_bytes=None,
        boot_id=read_boot_id(),
        since=1.0,
    )


def _size(device: Path) -> int:
    number = device_number(device)
    assert number is not None
    return size_of(number)
