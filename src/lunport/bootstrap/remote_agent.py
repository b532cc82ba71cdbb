"""This host's agent, as a command sees it: the verbs of :class:`lunport.agent.agent.Agent`.

The same values and the same errors come back as if the verb had been carried out here. What
is cut off between the two (the agent is killed, or the command) is finished here, in process,
as after any kill: the journal of the host has it.
"""

from __future__ import annotations

import time
from collections.abc import Callable
from dataclasses import dataclass
from typing import Protocol

from lunport.agent.agent import NO_WISH
from lunport.agent.path_wish import PathWish
from lunport.agent.recovery_line import RecoveryLine
from lunport.agent_api import documents
from lunport.agent_api.bodies import (
    ConnectBody,
    DisconnectBody,
    ExtendBody,
    RecoverBody,
    RequestBody,
    WishBody,
    encode,
)
from lunport.bootstrap.host_verbs import HostVerbs
from lunport.core.change import Change
from lunport.core.connection_info import ConnectionInfo, format_whole_connection_info
from lunport.core.errors import AgentUnavailable, LunportError, UndoFailed
from lunport.core.host_connection import HostConnection, Phase, connection_key
from lunport.core.path_status import VolumePaths
from lunport.host.clock import Deadline
from lunport.initiator.connected_volume import ConnectedVolume

_GRACE_S = 5.0  # the agent ends by its own deadline; its answer comes a moment later
_LEAST_S = 0.01
_LOOK_S = 30.0
_UNDO_S = 30.0
_ALIVE_S = 2.0


class Asks(Protocol):
    """What is used of the client of the agent's socket."""

    def answers(self, deadline: Deadline) -> bool:
        """Tell whether the agent is there."""

    def ask(self, method: str, target: str, body: bytes | None, deadline: Deadline) -> bytes:
        """Make one request."""


@dataclass(frozen=True, slots=True)
class RemoteAgent:
    """The agent at a socket. ``here``: makes the same verbs in process, where it is lost."""

    socket: Asks
    here: Callable[[], HostVerbs]

    def connect(
        self,
        info: ConnectionInfo,
        *,
        multipath: bool | None = None,
        wish: PathWish = NO_WISH,
        deadline: Deadline,
    ) -> ConnectedVolume:
        """Have the volume made a disk; what is cut off is undone before this returns."""
        body = ConnectBody(
            connection_info=format_whole_connection_info(info),
            timeout_s=_seconds(deadline),
            multipath=multipath,
            wish=WishBody.of(wish),
        )
        began = time.time()
        try:
            return documents.parse_connected(self._post("connect", body, deadline))
        except (AgentUnavailable, KeyboardInterrupt) as error:
            self._undo(info, began, error)
            raise

    def disconnect(
        self, info: ConnectionInfo, *, force: bool = False, deadline: Deadline
    ) -> Change:
        """Have the disk taken away."""
        body = DisconnectBody(
            connection_info=format_whole_connection_info(info),
            timeout_s=_seconds(deadline),
            force=force,
        )
        return documents.parse_change(self._post("disconnect", body, deadline))

    def extend(self, info: ConnectionInfo, *, deadline: Deadline) -> int:
        """Have the disk made as large as its unit."""
        body = ExtendBody(
            connection_info=format_whole_connection_info(info), timeout_s=_seconds(deadline)
        )
        return documents.parse_size(self._post("extend", body, deadline))

    def recover(
        self, *, remove_leftovers: bool = False, deadline: Deadline
    ) -> tuple[RecoveryLine, ...]:
        """Have finished or undone what was cut off, and brought back what was connected."""
        body = RecoverBody(remove_leftovers=remove_leftovers, timeout_s=_seconds(deadline))
        return documents.parse_lines(self._post("recover", body, deadline))

    def connections(self) -> tuple[HostConnection, ...]:
        """List what is connected, and what shall be again after a reboot."""
        return documents.parse_connections(self._get("connections"))

    def paths(self) -> tuple[VolumePaths, ...]:
        """Show the paths of each connection."""
        return documents.parse_paths(self._get("paths"))

    # -- parts -------------------------------------------------------------------------------

    def _post(self, verb: str, body: RequestBody, deadline: Deadline) -> bytes:
        within = Deadline.after(deadline.remaining_s() + _GRACE_S)
        return self.socket.ask("POST", f"/v1/{verb}", encode(body), within)

    def _get(self, what: str) -> bytes:
        return self.socket.ask("GET", f"/v1/{what}", None, Deadline.after(_LOOK_S))

    def _undo(
        self, info: ConnectionInfo, began: float, cause: AgentUnavailable | KeyboardInterrupt
    ) -> None:
        """Take back what an attempt that nobody waits for any more has made, or will have.

        Waits, as the locks demand, until the agent is done with it. Raises: UndoFailed.
        """
        here, deadline = self.here(), Deadline.after(_UNDO_S)
        key = connection_key(info)
        try:
            known = next((one for one in here.connections() if one.key == key), None)
            was_there = known is not None and known.phase is Phase.CONNECTED and known.since < began
            # Not in the journal, and the agent is gone: nothing was made, and nobody will.
            is_nothing = known is None and not self.socket.answers(deadline.at_most(_ALIVE_S))
            if not (was_there or is_nothing):
                here.disconnect(info, deadline=deadline)
        except LunportError as error:
            if isinstance(cause, AgentUnavailable):
                raise UndoFailed(cause, [error]) from cause


def _seconds(deadline: Deadline) -> float:
    return max(_LEAST_S, deadline.remaining_s())
