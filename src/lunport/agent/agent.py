"""What a host does with volumes: the same verbs in the agent, and in a command without one.

Adds to the initiator what outlives one command: the host's policy for several paths, and the
connections of an earlier boot that are to come back (:mod:`lunport.agent.boot`). Decides
neither how a path is made nor which disk is right; keeps no state of its own.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from contextlib import nullcontext
from dataclasses import dataclass, field

from lunport.agent.boot import EarlierBoot
from lunport.agent.initiator_seam import AgentInitiator
from lunport.agent.path_wish import PathWish
from lunport.agent.recovery_line import RecoveryLine, step_line
from lunport.core.change import Change
from lunport.core.connection_info import ConnectionInfo
from lunport.core.host_connection import HostConnection
from lunport.core.path_status import VolumePaths
from lunport.host.clock import Deadline
from lunport.initiator.connected_volume import ConnectedVolume
from lunport.initiator.multipath_policy import MultipathPolicy
from lunport.initiator.recover import RecoveryStep

NO_WISH = PathWish()


def _ignore(steps: Sequence[RecoveryStep]) -> None:
    """Take no notice of what a recovery did."""


@dataclass(frozen=True, slots=True)
class Agent:
    """The verbs of one host; every one is idempotent and safe to call from any thread.

    ``policy``: where a connect wishes nothing else. ``has_multipath``: whether multipathd runs
    here now. ``earlier_boot``: the connections that shall come back after a reboot;
    ``brings_back``: a recovery sees to it, else it gives them up, as the initiator's does.
    ``on_recovered`` hears what a recovery did and saw.
    """

    initiator: AgentInitiator
    has_multipath: Callable[[], bool]
    policy: MultipathPolicy = field(default_factory=MultipathPolicy)
    earlier_boot: EarlierBoot | None = None
    brings_back: bool = False
    on_recovered: Callable[[Sequence[RecoveryStep]], None] = _ignore

    def connect(
        self,
        info: ConnectionInfo,
        *,
        multipath: bool | None = None,
        wish: PathWish = NO_WISH,
        deadline: Deadline,
    ) -> ConnectedVolume:
        """Make the volume a disk. ``multipath`` None: over several paths where that is possible.

        That is where multipathd runs, and the connection info says of itself that all its paths
        may be used at once. On failure nothing of this call is left.
        Raises: what the initiator raises, InvalidInput.
        """
        wants_all, policy = self.intent(info, multipath, wish)
        connected = self.initiator.connect(
            info, multipath=wants_all, policy=policy, deadline=deadline
        )
        if self.earlier_boot is not None:
            self.earlier_boot.want(info)
        return connected

    def intent(
        self, info: ConnectionInfo, multipath: bool | None, wish: PathWish
    ) -> tuple[bool, MultipathPolicy]:
        """Say whether a connect would want all paths at once, and by which policy."""
        policy = wish.on(self.policy)
        if multipath is not None:
            return multipath, policy
        # Where alternatives are named, the paths are for one data path, one at a time.
        is_for_all = not info.has_alternatives and (info.is_complete or info.target_discovered)
        return info.enforce_multipath or (is_for_all and self.has_multipath()), policy

    def disconnect(
        self, info: ConnectionInfo, *, force: bool = False, deadline: Deadline
    ) -> Change:
        """Take the volume's disk away, also one that has yet to come back after a reboot."""
        change = Change.UNCHANGED
        if self.earlier_boot is not None:
            change |= self.earlier_boot.forget(info)
        return change | self.initiator.disconnect(info, force=force, deadline=deadline)

    def extend(self, info: ConnectionInfo, *, deadline: Deadline) -> int:
        """Make the volume's disk as large as its unit is now; return the bytes."""
        return self.initiator.extend(info, deadline=deadline)

    def recover(
        self, *, remove_leftovers: bool = False, deadline: Deadline
    ) -> tuple[RecoveryLine, ...]:
        """Finish or undo what was cut off, then connect again what was before a reboot."""
        earlier_boot = self.earlier_boot if self.brings_back else None
        with nullcontext() if earlier_boot is None else earlier_boot.kept():
            steps = self.initiator.recover(remove_leftovers=remove_leftovers, deadline=deadline)
        self.on_recovered(steps)
        lines = tuple(step_line(step) for step in steps)
        return lines if earlier_boot is None else lines + earlier_boot.bring_back(deadline)

    def connections(self) -> tuple[HostConnection, ...]:
        """List what is connected, and what shall be again after a reboot."""
        if self.earlier_boot is None:
            return self.initiator.connections()
        # An attempt takes an entry out of the journal for a while, and puts it back at last.
        before = self.initiator.connections()
        awaited = self.earlier_boot.in_attempt()
        found = {entry.key: entry for entry in (*before, *awaited)}
        found |= {entry.key: entry for entry in self.initiator.connections()}
        return tuple(found[key] for key in sorted(found))

    def paths(self) -> tuple[VolumePaths, ...]:
        """Show the paths of each connection, wanted and achieved; also of what is to come back."""
        found = self.initiator.paths()
        if self.earlier_boot is None:
            return found
        there = {volume.key for volume in found}
        awaited = (one.paths() for one in self.earlier_boot.awaited())
        return (*found, *(volume for volume in awaited if volume.key not in there))
