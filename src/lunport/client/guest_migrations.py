"""The part of the volume service's API that is about hosts and guests: ours alone.

    moves = GuestMigrations(BlockStorage("https://storage-1:8777", tls=TlsFolder(...)))
    moves.start(guest, "node-a", "node-b", [(volume_id, attachment_id)], Deadline.after(5))

What each verb means is told where it is carried out: :mod:`lunport.volume.migrations` and
:mod:`lunport.volume.enrolments`. Never repeats a request by itself; all of them may be repeated.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from urllib.parse import quote

import msgspec

from lunport.client.block_storage import BlockStorage
from lunport.core.errors import EnrolmentNotFound, MigrationNotFound
from lunport.core.migration_plan import Side, State, Word
from lunport.host.clock import Deadline


class MovedVolume(msgspec.Struct, frozen=True):
    """One volume of a guest, and its attachment on each side."""

    volume_id: str
    source_attachment: str
    destination_attachment: str | None = None


class Said(msgspec.Struct, frozen=True):
    """What was said of one side, and whether by that side itself."""

    word: Word
    first_hand: bool


class Event(msgspec.Struct, frozen=True):
    """One thing that happened to a migration, and what it was like then."""

    at: str
    who: str
    what: str
    document: dict[str, object]


class Migration(msgspec.Struct, frozen=True):
    """A guest's move. ``winner``: where it lives, once that is settled."""

    id: str
    guest: str
    source: str
    destination: str
    state: State
    fenced: bool
    reason: str
    told: dict[str, Said]
    volumes: tuple[MovedVolume, ...]
    created_at: str
    created_by: str
    updated_at: str
    winner: Side | None = None
    events: tuple[Event, ...] = ()


class Enrolment(msgspec.Struct, frozen=True):
    """A host whose agent the service listens to."""

    host: str
    initiator: str
    enrolled_at: str
    enrolled_by: str


class Enrolled(msgspec.Struct, frozen=True):
    """What an enrolment did."""

    change: str
    enrolment: Enrolment


class ToldVolume(msgspec.Struct, frozen=True):
    """One volume of a guest, as its host told of it."""

    volume_id: str
    initiator: str
    target: str | None = None
    portal: str | None = None
    problem: str | None = None


class ToldGuest(msgspec.Struct, frozen=True):
    """One guest, as its host told of it."""

    id: str
    name: str
    state: str
    volumes: tuple[ToldVolume, ...] = ()


class ToldConnection(msgspec.Struct, frozen=True):
    """One connection, as its host told of it."""

    phase: str
    volume_id: str | None = None
    portal: str | None = None
    wwid: str | None = None


class ToldReport(msgspec.Struct, frozen=True):
    """What a host has told last. ``error``: why it does not know its guests."""

    at: str
    guests: tuple[ToldGuest, ...] = ()
    connections: tuple[ToldConnection, ...] = ()
    error: str | None = None


class _Report(msgspec.Struct):
    report: ToldReport | None = None


class _OneMigration(msgspec.Struct):
    migration: Migration


class _Migrations(msgspec.Struct):
    migrations: tuple[Migration, ...]


class _Enrolments(msgspec.Struct):
    enrolments: tuple[Enrolment, ...]


@dataclass(frozen=True, slots=True)
class GuestMigrations:
    """The moves that a service knows. Safe to share between threads.

    All raise VolumeApiRefused, Conflict, VolumeApiUnavailable, NotTrusted, MigrationNotFound.
    """

    api: BlockStorage

    def start(
        self,
        guest: str,
        source: str,
        destination: str,
        volumes: Sequence[tuple[str, str]],
        deadline: Deadline,
    ) -> Migration:
        """Record a move: ``volumes`` are ids, each with the source's attachment. Idempotent."""
        keys = {
            "guest": guest,
            "source": source,
            "destination": destination,
            "volumes": [
                {"volume_id": volume, "source_attachment": attachment}
                for volume, attachment in volumes
            ],
        }
        body = {"migration": keys}
        return self.api.ask(_OneMigration, "POST", "/migrations", deadline, body).migration

    def get(self, migration_id: str, deadline: Deadline) -> Migration:
        """Show one with its events."""
        path = f"/migrations/{quote(migration_id, safe='')}"
        missing = MigrationNotFound(migration_id)
        return self.api.ask(_OneMigration, "GET", path, deadline, missing=missing).migration

    def list(self, deadline: Deadline, *, with_done: bool = False) -> tuple[Migration, ...]:
        """List the open ones, or all; without events."""
        path = f"/migrations?all={'true' if with_done else 'false'}"
        return self.api.ask(_Migrations, "GET", path, deadline).migrations

    def prepared(
        self, migration_id: str, volume_id: str, attachment_id: str, deadline: Deadline
    ) -> Migration:
        """Name the destination's attachment of a volume. Idempotent."""
        keys = {"volume_id": volume_id, "attachment_id": attachment_id}
        return self._act(migration_id, "prepared", keys, deadline)

    def moving(self, migration_id: str, deadline: Deadline) -> Migration:
        """Say, before it is made, that the call that moves the guest comes next. Idempotent."""
        return self._act(migration_id, "moving", {}, deadline)

    def settle(
        self,
        migration_id: str,
        deadline: Deadline,
        *,
        source: Word | None = None,
        destination: Word | None = None,
    ) -> Migration:
        """Say, after that call has ended, what is known of the guest on each side.

        Undecided, ``winner`` is None and ``reason`` says what is missing: ask again.
        """
        keys = {"source": source, "destination": destination}
        return self._act(migration_id, "settle", keys, deadline)

    def release(self, migration_id: str, deadline: Deadline) -> Migration:
        """Have the loser's attachments taken away, once it has disconnected. Idempotent."""
        return self._act(migration_id, "release", {}, deadline)

    def abort(
        self, migration_id: str, deadline: Deadline, *, keep: Side | None = None
    ) -> Migration:
        """Give up a move that has not begun; or (admin) keep one side and fence the other."""
        return self._act(migration_id, "abort", {"keep": keep}, deadline)

    def note(
        self, migration_id: str, what: str, document: Mapping[str, object], deadline: Deadline
    ) -> Migration:
        """Keep what was done, as an event."""
        return self._act(migration_id, "note", {"what": what, "document": document}, deadline)

    def _act(
        self, migration_id: str, action: str, keys: Mapping[str, object], deadline: Deadline
    ) -> Migration:
        path = f"/migrations/{quote(migration_id, safe='')}/action"
        missing = MigrationNotFound(migration_id)
        body = {f"lunport:{action}": keys}
        return self.api.ask(_OneMigration, "POST", path, deadline, body, missing).migration


@dataclass(frozen=True, slots=True)
class Enrolments:
    """The hosts whose agents a service listens to; for administrators, and the report."""

    api: BlockStorage

    def add(self, host: str, initiator: str, deadline: Deadline) -> Enrolled:
        """Enrol a host. Idempotent. Raises: Conflict (it, or the initiator, is enrolled)."""
        body = {"enrolment": {"host": host, "initiator": initiator}}
        return self.api.ask(Enrolled, "POST", "/enrolments", deadline, body)

    def list(self, deadline: Deadline) -> tuple[Enrolment, ...]:
        """List them."""
        return self.api.ask(_Enrolments, "GET", "/enrolments", deadline).enrolments

    def remove(self, host: str, deadline: Deadline) -> None:
        """Listen to a host's agent no more. Raises: EnrolmentNotFound."""
        path = f"/enrolments/{quote(host, safe='')}"
        self.api.send("DELETE", path, deadline, missing=EnrolmentNotFound(host))

    def report(self, host: str, document: Mapping[str, object], deadline: Deadline) -> None:
        """Tell, as the agent of a host, what it has. Raises: EnrolmentNotFound.

        ``document``: as :func:`lunport.core.host_report.format_host_report` writes it.
        """
        path = f"/enrolments/{quote(host, safe='')}/report"
        missing = EnrolmentNotFound(host)
        self.api.send("PUT", path, deadline, {"report": document}, missing=missing)

    def reported(self, host: str, deadline: Deadline) -> ToldReport | None:
        """Return what a host has told last; None: nothing yet. Raises: EnrolmentNotFound."""
        path = f"/enrolments/{quote(host, safe='')}/report"
        missing = EnrolmentNotFound(host)
        return self.api.ask(_Report, "GET", path, deadline, None, missing).report
