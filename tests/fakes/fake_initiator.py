"""A stateful initiator for tests of what sits on it: volumes by key, no kernel."""

from __future__ import annotations

from dataclasses import dataclass, field

from lunport.core.change import Change
from lunport.core.connection_info import ConnectionInfo
from lunport.core.errors import DeviceMissing, LunportError
from lunport.core.wwid import Wwid
from lunport.initiator.multipath_policy import MultipathPolicy

WWID = Wwid("naa.60014050000000010000000000000000")


@dataclass(frozen=True, slots=True)
class FakeVolume:
    """A connected volume."""

    path: str
    wwid: Wwid | None
    map_name: str | None = None
    note: str | None = None


@dataclass(slots=True)
class FakeMultipathd:
    """A multipathd that runs or not."""

    runs: bool = False

    def is_running(self) -> bool:
        """Tell it."""
        return self.runs


@dataclass(slots=True)
class FakeInitiator:
    """Connects whatever it is asked to; ``failure`` is raised by the next verb instead.

    ``heard`` notes each call: the verb, what it was about, and whether it was forced; ``wishes``
    whether each connect wanted multipath, and how. With multipath it makes maps if multipathd runs.
    """

    multipathd: FakeMultipathd = field(default_factory=FakeMultipathd)
    wwid: Wwid | None = WWID
    size_bytes: int = 64 << 20
    failure: LunportError | None = None
    connected: dict[str, str] = field(default_factory=dict)
    heard: list[tuple[str, ConnectionInfo, bool]] = field(default_factory=list)
    wishes: list[tuple[bool, MultipathPolicy]] = field(default_factory=list)

    def connect(
        self, info: ConnectionInfo, *, multipath: bool, policy: MultipathPolicy
    ) -> FakeVolume:
        """Give the volume the next device name, or the one that it has."""
        self.wishes.append((multipath, policy))
        self._hear("connect", info)
        number = len(self.connected)
        is_map = self.multipathd.runs and (multipath or policy.resilient)
        name = f"/dev/dm-{number}" if is_map else f"/dev/sd{chr(ord('a') + number)}"
        path = self.connected.setdefault(str(info.main_path), name)
        map_name = path.removeprefix("/dev/") if path.startswith("/dev/dm-") else None
        note = "one path is used" if multipath and map_name is None else None
        return FakeVolume(path, self.wwid, map_name, note)

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
