"""What moving a guest works with on either side, and the values that go between the two.

The source drives: it asks the destination what it is told here as :class:`DestinationPeer`, and
the volume service for the record (:class:`MovesApi`), which both sides read. Nothing of this is
a place of decisions: those are in :mod:`lunport.core.guest_whereabouts` and the preflight.
"""

from __future__ import annotations

import threading
import time
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field
from typing import TYPE_CHECKING, Protocol

from lunport.agent.guest_parts import GuestParts
from lunport.agent.hypervisor_seam import AgentHypervisor
from lunport.core.attachment import AttachMode
from lunport.core.change import Change
from lunport.core.errors import HostLacks
from lunport.core.guest_disk import InitiatorKind
from lunport.core.guest_whereabouts import Sight
from lunport.core.migration_plan import Word
from lunport.core.migration_preflight import DestinationFacts
from lunport.core.move_call import Definitions, MoveOptions, MoveProgress
from lunport.core.wwid import Wwid
from lunport.host.clock import Deadline

if TYPE_CHECKING:
    from lunport.client.guest_migrations import Migration


@dataclass(frozen=True, slots=True)
class MoveName:
    """Which move is meant: its record, the guest, and the service that has the record."""

    migration_id: str
    guest_id: str
    endpoint: str


@dataclass(frozen=True, slots=True)
class Question:
    """What a destination is asked before anything: could it run this guest, does it see these?"""

    guest_id: str
    live_xml: str = field(repr=False)
    portals: tuple[str, ...]


@dataclass(frozen=True, slots=True)
class VolumeOrder:
    """One volume that a destination has to reach, and who it must turn out to be."""

    volume_id: str
    wwid: Wwid
    initiator: InitiatorKind
    multipath: bool | None
    mode: AttachMode
    target: str


@dataclass(frozen=True, slots=True)
class Order:
    """What a destination has to prepare."""

    name: MoveName
    guest_name: str
    source: str
    autostart: bool
    volumes: tuple[VolumeOrder, ...]


@dataclass(frozen=True, slots=True)
class PreparedVolume:
    """A volume that the destination reaches. ``xml``: its whole disk, with a source there.

    ``device_path``: of a disk of the kernel's; ``portal``: of one that QEMU reaches itself.
    """

    volume_id: str
    attachment_id: str
    xml: str
    device_path: str | None
    portal: str | None


class MovingHypervisor(AgentHypervisor, Protocol):
    """The hypervisor, as far as guests move. Raises as :class:`AgentHypervisor` does."""

    def definitions(self, guest_id: str, deadline: Deadline) -> Definitions:
        """Return a running guest's XML, as another hypervisor takes it; secrets included."""

    def obstacles(self, live_xml: str, deadline: Deadline) -> Mapping[str, str]:
        """Say why a guest from elsewhere cannot run here, by subject; empty where it can."""

    def move(self, guest_id: str, uri: str, target: Definitions, options: MoveOptions) -> None:
        """Move a running guest to the hypervisor at a URI. Ends when that is over, or failed.

        An error does not say where the guest is. Raises: HypervisorError, HypervisorUnavailable.
        """

    def move_progress(self, guest_id: str, deadline: Deadline) -> MoveProgress | None:
        """Say how far a move out of here is; None where none is under way."""

    def begin_postcopy(self, guest_id: str, deadline: Deadline) -> None:
        """Let a moving guest run at its destination now, its memory following it."""

    def stop_move(self, guest_id: str, deadline: Deadline) -> Change:
        """Ask for the end of a move. Idempotent."""

    def discard(self, guest_id: str, deadline: Deadline) -> Change:
        """End a guest's process at once, if there is one, and forget the guest. Idempotent."""


class MovesApi(Protocol):
    """What is used of the client of the service's record; all of it may be repeated."""

    def start(
        self,
        guest: str,
        source: str,
        destination: str,
        volumes: Sequence[tuple[str, str]],
        deadline: Deadline,
    ) -> Migration:
        """Record a move."""

    def get(self, migration_id: str, deadline: Deadline) -> Migration:
        """Show one."""

    def list(self, deadline: Deadline) -> tuple[Migration, ...]:
        """List the open ones."""

    def prepared(
        self, migration_id: str, volume_id: str, attachment_id: str, deadline: Deadline
    ) -> Migration:
        """Name the destination's attachment of a volume."""

    def moving(self, migration_id: str, deadline: Deadline) -> Migration:
        """Say that the call comes next."""

    def settle(
        self,
        migration_id: str,
        deadline: Deadline,
        *,
        source: Word | None = None,
        destination: Word | None = None,
    ) -> Migration:
        """Say what is known of both sides."""

    def release(self, migration_id: str, deadline: Deadline) -> Migration:
        """Have the loser's attachments taken away."""

    def abort(self, migration_id: str, deadline: Deadline) -> Migration:
        """Give up a move that has not begun."""

    def note(
        self, migration_id: str, what: str, document: Mapping[str, object], deadline: Deadline
    ) -> Migration:
        """Keep what was done."""


class DestinationPeer(Protocol):
    """The other host's agent. Every call may be repeated; raises AgentUnavailable, NotTrusted."""

    def facts(self, question: Question, deadline: Deadline) -> DestinationFacts:
        """Say what the preflight has to know."""

    def prepare(self, order: Order, deadline: Deadline) -> tuple[PreparedVolume, ...]:
        """Reach all volumes, and return the disks that the guest gets there."""

    def look(self, name: MoveName, deadline: Deadline) -> Sight:
        """Say what its hypervisor shows of the guest."""

    def tell(self, name: MoveName, deadline: Deadline) -> Sight:
        """Tell the service that the guest is not there, if that is so."""

    def confirm(self, name: MoveName, deadline: Deadline) -> None:
        """Take the guest over: it lives there now."""

    def undo(self, name: MoveName, deadline: Deadline) -> None:
        """Take back what was prepared: the guest stays where it was."""


@dataclass(frozen=True, slots=True)
class MigrationParts:
    """One host's part in moves. ``guests``: its guests; ``host``: what it is called.

    ``peer``: the agent of another host, reached at an address or else by its name.
    ``migration_uri``: where other hosts' hypervisors reach this one's. ``listen``: where graphics
    listen here, by kind. ``reaches``: whether a portal answers this host at all.
    ``endpoint``: the service that this host believes; None: the one that the other side names,
    unless this host has a token, which is not for whoever is named. ``settle_s``: how long a
    move waits until it is known where the guest lives; the agents go on asking after that.
    """

    guests: GuestParts
    hypervisor: MovingHypervisor
    host: str
    moves: Callable[[str], MovesApi]
    peer: Callable[[str, str | None], DestinationPeer]
    migration_uri: str
    reaches: Callable[[str, Deadline], bool]
    free_bytes: Callable[[], int]
    has_multipath: Callable[[], bool] = lambda: False
    listen: Mapping[str, str] = field(default_factory=dict, hash=False)
    endpoint: str | None = None
    has_token: bool = False
    settle_s: float = 120.0
    monotonic: Callable[[], float] = time.monotonic
    pause: Callable[[float], object] = threading.Event().wait

    def service(self, endpoint: str) -> MovesApi:
        """Return the record's service."""
        return self.moves(endpoint)

    def believed(self, endpoint: str) -> str:
        """Return the service to ask where another host names one. Raises: HostLacks."""
        if self.endpoint is None and self.has_token:
            how = "say --endpoint"
            raise HostLacks(f"{self.host} has a token for the service", "not which it is", how)
        return self.endpoint or endpoint
