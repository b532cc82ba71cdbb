"""A stateful initiator for tests of what sits on it: volumes by key, no kernel."""

from __future__ import annotations

from dataclasses import dataclass, field

from lunport.core.change import Change
from lunport.core.connection_info import ConnectionInfo
from lunport.core.errors import DeviceMissing, LunportError
from lunport.core.wwid import Wwid

WWID = Wwid("naa.60014050000000010000000000000000")


@dataclass(frozen=True, slots=True)
class FakeVolume:
    """A connected volume."""

    path: str
    wwid: Wwid | None


@dataclass(slots=True)
class FakeInitiator:
    """Connects whatever it is asked to; ``failure`` is raised by the next verb instead.

    ``heard`` notes each call: the verb, what it was about, and whether it was forced.
    """

    wwid: Wwid | None = WWID
    size_bytes: int = 64 << 20
    failure: LunportError | None = None
    connected: dict[str, str] = field(default_factory=dict)
    heard: list[tuple[str, ConnectionInfo, bool]] = field(default_factory=list)

    def connect(self, info: ConnectionInfo) -> FakeVolume:
        """Give the volume the next device name, or the one that it has."""
        self._hear("connect", info)
        path = self.connected.setdefault(
            str(info.main_path), f"/dev/sd{chr(ord('a') + len(self.connected))}"
        )
        return FakeVolume(path, self.wwid)

    def disconnect(self, info: ConnectionInfo, *, force: bool = False) -> Change:
        """Forget the volume."""
        self._hear("disconnect", info, force=force)
        gone = self.connected.pop(str(info.main_path), None)
        return Change.UNCHANGED if gone is None else Change.CHANGED

    def extend(self, info: ConnectionInfo) -> int:
        """Return the size of a connected volume."""
        self._hear("extend", info)
        if str(info.main_path) not in self.connected:
            raise DeviceMissing(str(info.main_path), "the volume is not connected on this host")
        return self.size_bytes

    def _hear(self, verb: str, info: ConnectionInfo, *, force: bool = False) -> None:
        self.heard.append((verb, info, force))
        if self.failure is not None:
            failure, self.failure = self.failure, None
            raise failure
