"""What ``lunport host`` works with: the host's initiator, the notes, the volume service.

One value that a test replaces; everything is made when it is first asked for.
"""

from __future__ import annotations

import socket
import threading
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from functools import partial
from typing import TYPE_CHECKING, Protocol

from lunport.agent.agent import Agent
from lunport.agent.boot import EarlierBoot, again
from lunport.agent.initiator_seam import AgentInitiator
from lunport.bootstrap.guests import make_connector
from lunport.bootstrap.host_verbs import HostVerbs
from lunport.bootstrap.host_volumes import HostVolumes, Locks, VolumeApi
from lunport.cli.tls_of_host import tls_of_host
from lunport.core.connection_info import ConnectionInfo
from lunport.core.connector import Connector
from lunport.core.errors import JournalDamaged
from lunport.core.recovery_actions import RecoveryAction
from lunport.core.secret import Secret
from lunport.host.attachment_notes import AttachmentNotes
from lunport.host.clock import Deadline
from lunport.host.file_locks import FileLocks
from lunport.host.guest_journal import GuestJournal
from lunport.host.host_root import run_directory
from lunport.host.multipathd import Multipathd
from lunport.initiator.connector import Initiator
from lunport.initiator.initiator_host import InitiatorHost
from lunport.initiator.journal import Journal
from lunport.initiator.multipath_policy import MultipathPolicy

if TYPE_CHECKING:
    from lunport.client.agent import AgentSocket

_ANSWER_S = 3.0


class HostInitiator(AgentInitiator, Protocol):
    """What the commands use of the initiator library."""

    def foresee_connect(
        self,
        info: ConnectionInfo,
        *,
        multipath: bool = False,
        policy: MultipathPolicy | None = None,
    ) -> tuple[str, ...]:
        """Say what a connect would do."""

    def foresee_disconnect(self, info: ConnectionInfo) -> tuple[str, ...]:
        """Say what a disconnect would do."""

    def foresee_recover(self) -> tuple[RecoveryAction, ...]:
        """Say what a recovery would do, and what no journal knows."""


@dataclass(frozen=True, slots=True)
class HostParts:
    """The real parts of this host."""

    def initiator(self) -> HostInitiator:
        """Make the initiator. Raises: CommandMissing, HostLacks."""
        return Initiator()

    def agent(self) -> AgentSocket | None:
        """Return this host's agent, where one runs and answers."""
        from lunport.client.agent import AgentSocket, socket_path  # noqa: PLC0415 - only now needed

        path = socket_path()
        agent = AgentSocket(path) if path.exists() else None
        return agent if agent is not None and agent.answers(Deadline.after(_ANSWER_S)) else None

    def verbs(self) -> HostVerbs:
        """Return who does what is asked for: the agent, or else this process."""
        agent = self.agent()
        if agent is None:
            return self.here()
        from lunport.bootstrap.remote_agent import RemoteAgent  # noqa: PLC0415 - only now needed

        return RemoteAgent(agent, self.here)

    def here(self) -> Agent:
        """Return the verbs as this process does them. Raises: CommandMissing, HostLacks."""
        initiator = self.initiator()
        return Agent(initiator, self.has_multipath, earlier_boot=self.earlier_boot(initiator))

    def earlier_boot(self, initiator: HostInitiator) -> EarlierBoot | None:
        """Return what was connected before the host was started."""
        return EarlierBoot(initiator, InitiatorHost(), MultipathPolicy(), self.has_multipath)

    def returning(self) -> Mapping[str, str]:
        """Say what the agent, where one runs, would connect again: a sentence for each key."""
        earlier = None if self.agent() is None else self.earlier_boot(self.initiator())
        return {} if earlier is None else {e.key: again(e) for e in earlier.pending()}

    def has_multipath(self) -> bool:
        """Tell whether multipathd runs here now."""
        return Multipathd().is_running()

    def damages(self) -> Sequence[JournalDamaged]:
        """List what of the journal can't be read."""
        return Journal().damages()

    def notes(self) -> AttachmentNotes:
        """Return the notes of attachments."""
        return AttachmentNotes()

    def guest_journal(self) -> GuestJournal:
        """Return what guests of this host have."""
        return GuestJournal()

    def locks(self) -> Locks:
        """Return the locks that all processes of the host share."""
        return FileLocks(run_directory() / "locks")

    def api(self, endpoint: str, token: Secret | None) -> VolumeApi:
        """Make a client of the volume service."""
        from lunport.client.block_storage import BlockStorage  # noqa: PLC0415 - only now needed

        return BlockStorage(endpoint, token=token, tls=tls_of_host())

    def connector(
        self, *, multipath: bool | None = None, enforce_multipath: bool = False
    ) -> Connector:
        """Say what this host is to the storage side.

        It wants all paths at once where multipathd runs, unless ``multipath`` is false; when it
        is enforced in any case. Raises: InitiatorDown, InvalidIqn.
        """
        return make_connector(
            InitiatorHost().initiator_name(),
            multipath=enforce_multipath or (multipath is not False and self.has_multipath()),
            enforce_multipath=enforce_multipath,
            host=self.host_name(),
        )

    def host_name(self) -> str:
        """Return what this host is called."""
        return socket.gethostname()

    def pause(self, seconds: float) -> Callable[[], bool]:
        """Return a wait of so long, which tells whether no more is wanted."""
        return partial(threading.Event().wait, seconds)

    def volumes(self, endpoint: str, token: Secret | None) -> HostVolumes:
        """Join the service and the initiator."""
        return HostVolumes(
            self.verbs(),
            self.api(endpoint, token),
            self.notes(),
            self.locks(),
            self.guest_journal(),
        )
