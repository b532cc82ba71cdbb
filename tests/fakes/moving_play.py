"""Two hosts and a service, between which a guest moves: real records and rules, no process.

The service is the real one on a target helper that is played, each host asks it as its own
agent, journals and notes are real files. Played are the hypervisors, which may fail in every
way that libvirt was seen to: a call that fails is no proof of where the guest is.
"""

from __future__ import annotations

import enum
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field
from functools import partial
from pathlib import Path
from typing import TypeVar

import msgspec

from lunport.agent.agent import Agent
from lunport.agent.attach import AttachWish, attach
from lunport.agent.guest_keeper import GuestKeeper
from lunport.agent.guest_parts import GuestParts
from lunport.agent.migrate_destination import MigrationDestination
from lunport.agent.migrate_source import Moved, MoveWish, migrate
from lunport.agent.migration_keeper import MigrationKeeper
from lunport.agent.migration_parts import MigrationParts, MoveName, Order, PreparedVolume, Question
from lunport.api.views import migrations as views
from lunport.client.block_storage import Attachment, Volume
from lunport.client.guest_migrations import Migration
from lunport.core.agent_identity import AgentIdentity
from lunport.core.attachment import AttachMode
from lunport.core.change import Change
from lunport.core.connection_info import ConnectionInfo
from lunport.core.connector import Connector, format_connector
from lunport.core.domain_xml import parse_domain
from lunport.core.errors import (
    AgentUnavailable,
    HypervisorError,
    HypervisorUnavailable,
    LunportError,
)
from lunport.core.guest import Guest, GuestState
from lunport.core.guest_disk import InitiatorKind
from lunport.core.guest_whereabouts import Sight
from lunport.core.iqn import Iqn
from lunport.core.migration_plan import MovedVolume, Side, Word
from lunport.core.migration_preflight import DestinationFacts
from lunport.core.move_call import Definitions, MoveOptions, MoveProgress
from lunport.core.probe_outcome import ProbeOutcome, Verdict
from lunport.core.query import Query
from lunport.host.attachment_notes import AttachmentNotes
from lunport.host.clock import Deadline
from lunport.host.file_locks import FileLocks
from lunport.host.guest_journal import GuestJournal
from lunport.initiator.portal_choice import PathChoice
from lunport.store import tables
from lunport.volume import attachments, migrations, volumes
from lunport.volume.migrations import MigrationView, NewMigration
from lunport.volume.requests import AttachmentView, Caller, NewAttachment
from tests.fakes.fake_hypervisor import FakeGuest, FakeHypervisor
from tests.fakes.played_host import PlayedInitiator
from tests.fakes.policy_play import A, B, bench_of, seen_by
from tests.fakes.volume_play import make_volume, rows_of

T = TypeVar("T")

GUEST = "d0000000-0000-4000-8000-000000000001"
ENDPOINT = "https://san:8777"
_ROUNDS = 3


class Killed(BaseException):
    """The process ends here: nothing of ours runs any more."""


class End(enum.Enum):
    """What comes of the call that moves a guest, as far as anybody can tell from outside."""

    GOES = "it goes"
    REFUSED = "it fails, and the guest stays"
    ANSWER_LOST = "it goes, and the call fails"
    BOTH_RUN = "both run it"
    HANGS = "the source goes on, the destination hangs and runs it when it wakes"
    HANGS_EMPTY = "the source goes on, the destination hangs, and has nothing when it wakes"
    UNDECIDED = "both have it, and neither runs it"
    KILLED = "its process was killed at the source"
    NOWHERE = "it was transient, and nobody has it"


@dataclass(slots=True)
class MovingHypervisor(FakeHypervisor):
    """A hypervisor between whose like guests move. ``others``: by the URI of each.

    ``ends``: what comes of the next call. ``is_silent``: its daemon hangs.
    """

    others: dict[str, MovingHypervisor] = field(default_factory=dict)
    ends: End = End.GOES
    is_silent: bool = False
    moves: bool = False
    states: dict[str, tuple[GuestState, str]] = field(default_factory=dict)
    on_wake: list[Callable[[], None]] = field(default_factory=list)
    refusals: dict[str, str] = field(default_factory=dict)
    interrupts: bool = False

    def definitions(self, guest_id: str, deadline: Deadline) -> Definitions:
        """Write a guest's XML."""
        self._begin("definitions")
        guest = self._guest(guest_id)
        found = [
            None if disks is None else _domain(guest_id, guest.name, [one.xml for one in disks])
            for disks in (guest.live, guest.persistent)
        ]
        assert found[0] is not None
        return Definitions(found[0], found[1])

    def obstacles(self, live_xml: str, deadline: Deadline) -> Mapping[str, str]:
        """Say what was set to be said."""
        self._begin("obstacles")
        parse_domain(live_xml)
        return self.refusals

    def move(self, guest_id: str, uri: str, target: Definitions, options: MoveOptions) -> None:
        """Move a guest, or do what was set to happen."""
        self._begin("move")
        there = self.others[uri]
        guest = self._guest(guest_id)
        copy = FakeGuest(
            guest.name,
            list(parse_domain(target.live).disks),
            None if target.persistent is None else list(parse_domain(target.persistent).disks),
        )
        for disk in copy.live or ():
            if disk.secret_id is not None and disk.secret_id not in there.kept:
                raise HypervisorError("moving the guest", "no secret with matching uuid")
        self._come_to(guest_id, there, copy)
        self._end("move")

    def _come_to(self, guest_id: str, there: MovingHypervisor, copy: FakeGuest) -> None:
        def arrives() -> None:
            there.known[guest_id] = copy
            there.states[guest_id] = (GuestState.RUNNING, "migrated")

        end, self.ends = self.ends, End.GOES
        match end:
            case End.GOES | End.ANSWER_LOST:
                arrives()
                del self.known[guest_id]
            case End.BOTH_RUN:
                arrives()
                self.states[guest_id] = (GuestState.RUNNING, "migration canceled")
            case End.HANGS:
                there.is_silent = True
                there.on_wake.append(arrives)
                self.states[guest_id] = (GuestState.RUNNING, "migration canceled")
            case End.HANGS_EMPTY:
                there.is_silent = True
            case End.UNDECIDED:
                arrives()
                for one in (self, there):
                    one.states[guest_id] = (GuestState.PAUSED, "migration")
            case End.KILLED:
                self.known[guest_id].live = None
            case End.NOWHERE:
                del self.known[guest_id]
            case End.REFUSED:
                pass
        if end is not End.GOES:
            raise HypervisorError("moving the guest", end.value)

    def move_progress(self, guest_id: str, deadline: Deadline) -> MoveProgress | None:
        """No call takes any time here."""
        self._begin("move_progress")
        return None

    def begin_postcopy(self, guest_id: str, deadline: Deadline) -> None:
        """Note it."""
        self._begin("begin_postcopy")

    def stop_move(self, guest_id: str, deadline: Deadline) -> Change:
        """Note it."""
        self._begin("stop_move")
        return Change.UNCHANGED

    def discard(self, guest_id: str, deadline: Deadline) -> Change:
        """Forget a guest."""
        self._begin("discard")
        found = self.known.pop(guest_id, None)
        self._end("discard")
        return Change.UNCHANGED if found is None else Change.CHANGED

    def wake(self) -> None:
        """Go on, with what was asked for first."""
        self.is_silent = False
        while self.on_wake:
            self.on_wake.pop()()

    def _show(self, guest_id: str) -> Guest:
        guest = FakeHypervisor._show(self, guest_id)
        state = self.states.get(guest_id)
        if state is None or guest.live is None:
            return guest
        return Guest(
            guest.id,
            guest.name,
            state[0],
            state[1],
            guest.autostart,
            guest.live,
            guest.persistent,
        )

    def _begin(self, verb: str) -> None:
        if self.is_silent:
            raise HypervisorUnavailable("libvirt did not answer")
        FakeHypervisor._begin(self, verb)


def _domain(guest_id: str, name: str, disks: Sequence[str]) -> str:
    listed = "\n".join(disks)
    return (
        f"<domain type='kvm'><name>{name}</name><uuid>{guest_id}</uuid>"
        f"<devices>{listed}</devices></domain>"
    )


@dataclass(slots=True)
class OwnService:
    """The service as one host's agent asks it; ``failures`` are raised once, by the request.

    ``late_failures`` are raised when the request was carried out. ``kill_at``: the request after
    which the process ends.
    """

    play: MovingPlay
    caller: Caller
    failures: dict[str, LunportError] = field(default_factory=dict)
    late_failures: dict[str, BaseException] = field(default_factory=dict)
    calls: list[str] = field(default_factory=list)
    endpoint: str = ENDPOINT

    def get_volume(self, volume_id: str, deadline: Deadline) -> Volume:
        """Show a volume."""
        found = self._ask("volume", volumes.get_volume, volume_id).volume
        return Volume(found.id, found.status, found.size_gib, multiattach=found.multiattach)

    def create_attachment(
        self,
        volume_id: str,
        deadline: Deadline,
        *,
        instance: str | None = None,
        mode: AttachMode = AttachMode.READ_WRITE,
    ) -> Attachment:
        """Reserve a volume."""
        new = NewAttachment(volume_id, instance, None, mode.value)
        return _attachment(self._ask("create", attachments.create_attachment, new))

    def get_attachment(self, attachment_id: str, deadline: Deadline) -> Attachment:
        """Show an attachment."""
        return _attachment(self._ask("get", attachments.get_attachment, attachment_id))

    def list_attachments(self, deadline: Deadline) -> tuple[Attachment, ...]:
        """List what this host has."""
        found = self._ask("list", attachments.list_attachments, Query(None)).rows
        return tuple(_attachment(AttachmentView(one, None)) for one in found)

    def connect_attachment(
        self, attachment_id: str, connector: Connector, deadline: Deadline
    ) -> Attachment:
        """Have a volume offered."""
        wire = format_connector(connector)
        found = self._ask("offer", attachments.update_attachment, attachment_id, wire)
        return _attachment(found)

    def complete_attachment(self, attachment_id: str, deadline: Deadline) -> None:
        """Say that it is in use."""
        self._ask("complete", attachments.complete_attachment, attachment_id)

    def delete_attachment(self, attachment_id: str, deadline: Deadline) -> None:
        """Give it back."""
        self._ask("delete", attachments.delete_attachment, attachment_id)

    # -- the record --------------------------------------------------------------------------

    def start(
        self,
        guest: str,
        source: str,
        destination: str,
        volumes: Sequence[tuple[str, str]],
        deadline: Deadline,
    ) -> Migration:
        """Record a move."""
        moved = tuple(MovedVolume(*pair) for pair in volumes)
        new = NewMigration(guest, source, destination, moved)
        return _migration(self._ask("start", migrations.start, new).view)

    def get(self, migration_id: str, deadline: Deadline) -> Migration:
        """Show one."""
        return _migration(self._ask("record", migrations.get_migration, migration_id))

    def list(self, deadline: Deadline) -> tuple[Migration, ...]:
        """List the open ones."""
        found = self._ask("records", migrations.list_migrations)
        return tuple(_migration(MigrationView(one, ())) for one in found)

    def prepared(
        self, migration_id: str, volume_id: str, attachment_id: str, deadline: Deadline
    ) -> Migration:
        """Name an attachment."""
        given = (migration_id, volume_id, attachment_id)
        return _migration(self._ask("prepared", migrations.prepared, *given))

    def moving(self, migration_id: str, deadline: Deadline) -> Migration:
        """Say that the call comes."""
        return _migration(self._ask("moving", migrations.advance, migration_id))

    def settle(
        self,
        migration_id: str,
        deadline: Deadline,
        *,
        source: Word | None = None,
        destination: Word | None = None,
    ) -> Migration:
        """Say what is known."""
        said = {Side.SOURCE: source, Side.DESTINATION: destination}
        words = {side: word for side, word in said.items() if word is not None}
        return _migration(self._ask("settle", migrations.settle, migration_id, words))

    def release(self, migration_id: str, deadline: Deadline) -> Migration:
        """Have the loser's attachments taken away."""
        return _migration(self._ask("release", migrations.release, migration_id))

    def abort(self, migration_id: str, deadline: Deadline) -> Migration:
        """Give it up."""
        return _migration(self._ask("abort", migrations.abort, migration_id))

    def note(
        self, migration_id: str, what: str, document: Mapping[str, object], deadline: Deadline
    ) -> Migration:
        """Keep what was done."""
        return _migration(self._ask("note", migrations.note, migration_id, what, document))

    def _ask(self, request: str, use_case: Callable[..., T], *given: object) -> T:
        self.calls.append(request)
        failure = self.failures.pop(request, None)
        if failure is not None:
            raise failure
        found = use_case(self.play.bench.service, self.caller, *given)
        late = self.late_failures.pop(request, None)
        if late is not None:
            raise late
        return found


def _attachment(view: AttachmentView) -> Attachment:
    one = view.attachment
    info = dict(view.connection_info or {})
    return Attachment(one.id, one.attach_status, one.volume_id, one.instance_uuid, info)


def _migration(view: MigrationView) -> Migration:
    return msgspec.convert(views.detail(view)["migration"], type=Migration)


@dataclass(slots=True)
class PlayedPeer:
    """The other host's agent; it may be away, or be killed in the middle of a call."""

    here: MigrationDestination
    asker: str
    host: MovingPlayHost

    def facts(self, question: Question, deadline: Deadline) -> DestinationFacts:
        """Ask for facts."""
        return self._ask("facts", partial(self.here.facts, question, deadline))

    def prepare(self, order: Order, deadline: Deadline) -> tuple[PreparedVolume, ...]:
        """Have it prepared."""
        return self._ask("prepare", partial(self.here.prepare, order, (self.asker,), deadline))

    def look(self, name: MoveName, deadline: Deadline) -> Sight:
        """Have it look."""
        return self._ask("look", partial(self.here.look, name, (self.asker,), deadline))

    def tell(self, name: MoveName, deadline: Deadline) -> Sight:
        """Have it tell."""
        return self._ask("tell", partial(self.here.tell, name, (self.asker,), deadline))

    def confirm(self, name: MoveName, deadline: Deadline) -> None:
        """Have it confirm."""
        self._ask("confirm", partial(self.here.confirm, name, (self.asker,), deadline))

    def undo(self, name: MoveName, deadline: Deadline) -> None:
        """Have it undo."""
        self._ask("undo", partial(self.here.undo, name, (self.asker,), deadline))

    def _ask(self, verb: str, call: Callable[[], T]) -> T:
        if self.host.is_away or verb in self.host.deaf_to:
            raise AgentUnavailable(f"No agent answers at {self.host.name}.")
        try:
            return call()
        except Killed:
            self.host.is_away = True
            raise AgentUnavailable(f"The agent of {self.host.name} was killed.") from None


class MovingPlayHost:
    """One host. ``kill_at``: the step after which its process ends; ``steps``: those done.

    ``is_away``: its agent does not run; ``deaf_to``: it answers everything but these.
    """

    def __init__(self, play: MovingPlay, name: str, initiator: Iqn, folder: Path) -> None:
        self.play = play
        self.name = name
        self.initiator = initiator
        self.folder = folder
        self.hypervisor = MovingHypervisor()
        self.kernel = PlayedInitiator()
        identity = AgentIdentity(name, initiator)
        caller = Caller(f"agent:{name}", "", is_admin=False, agent=identity)
        self.service = OwnService(play, caller)
        self.kill_at: str | None = None
        self.steps: list[str] = []
        self.is_away = False
        self.deaf_to: set[str] = set()
        self.choice_failure: LunportError | None = None

    @property
    def uri(self) -> str:
        """Where its hypervisor is."""
        return f"qemu://{self.name}/system"

    def parts(self) -> MigrationParts:
        """Make the parts, as a process that just started does."""
        guests = GuestParts(
            uri=self.uri,
            hypervisor=self.hypervisor,
            host=Agent(self.kernel, lambda: False),
            api=lambda _endpoint: self.service,
            journal=GuestJournal(self.folder / "guests"),
            notes=AttachmentNotes(self.folder / "attachments"),
            locks=FileLocks(self.folder / "locks"),
            connector=lambda _multipath: Connector(self.initiator, host=self.name),
            choose=self._choose,
            answers=lambda _disk, _deadline: True,
            name_of=lambda device, _deadline: (
                f"/dev/disk/by-id/of{device.replace('/', '-')}-{self.name}"
            ),
            now=lambda: self.play.clock_s,
            boot_id=lambda: "boot",
            on_step=self._step,
        )
        return MigrationParts(
            guests=guests,
            hypervisor=self.hypervisor,
            host=self.name,
            moves=lambda _endpoint: self.service,
            peer=lambda name, _at: self.play.peer(name, self.name),
            migration_uri=self.uri,
            reaches=lambda _portal, _deadline: True,
            free_bytes=lambda: 1 << 30,
            settle_s=0.05,
            monotonic=lambda: self.play.clock_s,
            pause=self.play.pass_time,
        )

    @property
    def writes(self) -> bool:
        """Tell whether a guest here reaches the volumes: what the target says, not we."""
        guest = self.hypervisor.known.get(GUEST)
        seen = {volume for volume, _ in seen_by(self.play.bench, self.initiator)}
        return guest is not None and guest.live is not None and bool(seen)

    @property
    def runs_it(self) -> bool:
        """Tell whether there is a process of the guest."""
        guest = self.hypervisor.known.get(GUEST)
        return guest is not None and guest.live is not None

    def round(self) -> None:
        """Start the agent anew, and let it do what is due."""
        self.is_away = False
        self.kill_at = None
        parts = self.parts()
        keeper = GuestKeeper(parts.guests, moves=MigrationKeeper(parts).round)
        keeper.round(Deadline.after(10))

    def left(self) -> dict[str, object]:
        """Name all that a move could leave here."""
        guests = self.parts().guests
        found: dict[str, object] = {
            "journal": [one.key for one in guests.journal.all()],
            "moves": [one.key for one in guests.journal.moves()],
            "credentials": sorted(one.name for one in self.folder.glob("guests/credentials/*")),
            "owned": list(guests.journal.owned()),
            "notes": list(guests.notes.all()),
            "connections": list(self.kernel.entries),
            "secrets": list(self.hypervisor.kept),
            "guests": list(self.hypervisor.known),
            "exports": seen_by(self.play.bench, self.initiator),
        }
        return {what: left for what, left in found.items() if left}

    def _choose(self, info: ConnectionInfo, deadline: Deadline) -> PathChoice:
        if self.choice_failure is not None:
            failure, self.choice_failure = self.choice_failure, None
            raise failure
        outcome = ProbeOutcome(Verdict.REACHABLE, info.main_path.portal, 0.01, wwid=info.wwid)
        return PathChoice(info.main_path, outcome, (), 0.01)

    def _step(self, name: str) -> None:
        self.steps.append(name)
        if name == self.kill_at:
            self.kill_at = None
            raise Killed


class MovingPlay:
    """Two hosts ``a`` and ``b``, a guest on the first with volumes, and a service."""

    def __init__(
        self, folder: Path, kind: InitiatorKind = InitiatorKind.QEMU, *, count: int = 1
    ) -> None:
        self.bench = bench_of(folder, "host")
        self.clock_s = 1_800_000_000.0
        self.a = MovingPlayHost(self, "a", A, folder / "a")
        self.b = MovingPlayHost(self, "b", B, folder / "b")
        for one, other in ((self.a, self.b), (self.b, self.a)):
            one.hypervisor.others[other.uri] = other.hypervisor
        self.volumes = [make_volume(self.bench).id for _ in range(count)]
        self.a.hypervisor.define(GUEST, "web")
        for volume in self.volumes:
            wish = AttachWish(initiator=kind)
            attach(self.a.parts().guests, "web", volume, ENDPOINT, wish, Deadline.after(10))
        self.before = self.state()

    def peer(self, name: str, asker: str) -> PlayedPeer:
        """Return the agent of a host, as another host asks it."""
        host = {"a": self.a, "b": self.b}[name]
        return PlayedPeer(MigrationDestination(host.parts()), asker, host)

    def pass_time(self, seconds: float) -> None:
        """Let time pass: ten times as much as is waited for."""
        self.clock_s += 10 * seconds

    def migrate(self, **changes: object) -> Moved:
        """Move the guest from a to b."""
        given: dict[str, object] = {"guest": "web", "destination": "b", "endpoint": ENDPOINT}
        wish = MoveWish(**{**given, "shared": frozenset({"vda"}), **changes})  # type: ignore[arg-type]
        return migrate(self.a.parts(), wish, Deadline.after(10))

    def recover(self) -> None:
        """Start both agents anew, and let them come to rest; their hypervisors are awake."""
        for host in (self.a, self.b):
            host.hypervisor.wake()
        for _ in range(_ROUNDS):
            self.clock_s += 60
            for host in (self.a, self.b):
                host.round()

    def state(self) -> dict[str, object]:
        """Show all that a move changes and a roll-back restores."""
        kept = ("id", "volume_id", "attach_status", "attached_host")
        return {
            "attachments": [
                {key: row[key] for key in kept} for row in rows_of(self.bench, tables.attachments)
            ],
            "volumes": [row["status"] for row in rows_of(self.bench, tables.volumes)],
            "seen": {host.name: seen_by(self.bench, host.initiator) for host in (self.a, self.b)},
            "a": {what: self.a.left()[what] for what in sorted(self.a.left())},
            "b": self.b.left(),
        }

    def writers(self) -> set[str]:
        """Name the hosts at which a guest reaches the volumes."""
        return {host.name for host in (self.a, self.b) if host.writes}

    def assert_at(self, winner: str) -> None:
        """Assert that one host has the guest with all its volumes, and the other nothing."""
        here, other = (self.a, self.b) if winner == "a" else (self.b, self.a)
        assert other.left() == {}
        assert here.runs_it
        left = here.left()
        assert "moves" not in left
        journal = here.parts().guests.journal
        assert {(one.volume_id, one.phase.value) for one in journal.all()} == {
            (volume, "attached") for volume in self.volumes
        }
        assert {volume for volume, _ in seen_by(self.bench, here.initiator)} == set(self.volumes)
        rows = rows_of(self.bench, tables.attachments)
        assert {row["attached_host"] for row in rows} == {winner}
        assert {row["attach_status"] for row in rows} == {"attached"}
        assert {row["status"] for row in rows_of(self.bench, tables.volumes)} == {"in-use"}
        assert len(rows) == len(self.volumes)
        assert {row["state"] for row in rows_of(self.bench, tables.guest_migrations)} <= {"done"}
