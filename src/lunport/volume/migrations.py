"""Use cases on a guest's move between hosts: its record, who may do what to it, and the fence.

The record is the service's, because the service owns the targets: whatever the two hosts
believe, it can end one side's access. What the states mean and who is believed is decided in
:mod:`lunport.core.migration_plan`; here it is read, changed by compare-and-swap, written down with
an event, and carried out: the loser cut off (``volume/fencing.py``) where it must be, then its
attachments deleted, then the fence lifted, for by then there is nothing that it could reach.

Every step is a row first and idempotent after that. A service that is killed at any point goes
on at its next start (:func:`take_up`) or with the next request about the migration. A loser that
is known to be without the guest is waited for: it disconnects first, then asks to be released.

Administrators may do everything. An agent starts moves from its own host, and speaks for its own
host in those that name it.
"""

from __future__ import annotations

import json
import logging
from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from typing import NamedTuple

from lunport.core.change import Change
from lunport.core.errors import (
    AlreadyExists,
    AttachmentNotFound,
    InvalidInput,
    LunportError,
    MigrationNotFound,
    NotAllowed,
    NotItsHost,
)
from lunport.core.host_name import parse_host_name, same_host
from lunport.core.migration_plan import MigrationPlan, MovedVolume, Side, State, Word
from lunport.store import attachments as attachment_rows
from lunport.store import guest_migrations as rows
from lunport.store.engine import StoreConnection
from lunport.store.guest_migrations import Event, GuestMigration
from lunport.volume import attachments, fencing
from lunport.volume.fencing import HostSelector
from lunport.volume.requests import Caller
from lunport.volume.service import LOCK_WAIT_S, Service

_LOG = logging.getLogger(__name__)
MAX_NOTE = 64
_MAX_NOTE_TEXT = 4000


@dataclass(frozen=True, slots=True)
class NewMigration:
    """A move to record. ``guest`` is the instance's id."""

    guest: str
    source: str
    destination: str
    volumes: tuple[MovedVolume, ...]


class MigrationView(NamedTuple):
    """A migration with what happened to it."""

    migration: GuestMigration
    events: Sequence[Event]


class Started(NamedTuple):
    """What a start did: whether the record is new, and the record."""

    change: Change
    view: MigrationView


def start(service: Service, caller: Caller, new: NewMigration) -> Started:
    """Record that a guest is about to move; the same once more gives the same record.

    Raises: NotAllowed, NotItsHost (an agent, of another host than the source), InvalidInput,
    AttachmentNotFound, AlreadyExists (the guest, or a volume, is moving otherwise).
    """
    now = service.now()
    plan = MigrationPlan(
        id=service.new_id(),
        source=parse_host_name(new.source, what="source"),
        destination=parse_host_name(new.destination, what="destination"),
        volumes=new.volumes,
    )
    _require_source(caller, plan)
    with service.store.write() as connection:
        known = rows.open_of_guest(connection, new.guest)
        if known is not None:
            if not _is_the_same(known.plan, plan):
                raise AlreadyExists("A migration of this guest:", known.plan.id)
            return Started(Change.UNCHANGED, _view(connection, known))
        for volume in plan.volumes:
            other = rows.open_with_volume(connection, volume.volume_id)
            if other is not None:
                raise AlreadyExists("A migration with this volume:", other.plan.id)
            for side in Side:
                _check_attachment(connection, new.guest, plan, volume, side)
        made = GuestMigration(new.guest, plan, 1, now, caller.user_id, now)
        rows.add(connection, made)
        _note(connection, made, caller, "started", now)
        view = _view(connection, made)
    _LOG.info(
        "migration_started id=%s guest=%s source=%s destination=%s by=%s",
        plan.id,
        new.guest,
        plan.source,
        plan.destination,
        caller.user_id,
    )
    return Started(Change.CHANGED, view)


def get_migration(service: Service, caller: Caller, migration_id: str) -> MigrationView:
    """Return a migration. Raises: MigrationNotFound, NotAllowed, NotItsHost."""
    with service.store.read(snapshot=True) as connection:
        return _view(connection, _find(connection, caller, migration_id))


def list_migrations(
    service: Service, caller: Caller, *, with_done: bool = False
) -> Sequence[GuestMigration]:
    """List the open migrations, or all; to an agent, those that name its host.

    Raises: NotAllowed.
    """
    _require_known(caller)
    with service.store.read(snapshot=True) as connection:
        found = rows.listed(connection, with_done=with_done)
    agent = caller.agent
    return [one for one in found if agent is None or one.plan.side_of(agent.host) is not None]


def prepared(
    service: Service, caller: Caller, migration_id: str, volume_id: str, attachment_id: str
) -> MigrationView:
    """Name the destination's attachment of a volume. Idempotent.

    Raises: MigrationNotFound, NotItsHost, InvalidInput, InvalidState, AttachmentNotFound.
    """

    def change(connection: StoreConnection, known: GuestMigration) -> MigrationPlan:
        _require_side(caller, known.plan, Side.DESTINATION)
        plan = known.plan.prepared(volume_id, attachment_id)
        moved = next(one for one in plan.volumes if one.volume_id == volume_id)
        if plan is not known.plan:
            _check_attachment(connection, known.guest, plan, moved, Side.DESTINATION)
        return plan

    return _change(service, caller, migration_id, "prepared", change)


def advance(service: Service, caller: Caller, migration_id: str) -> MigrationView:
    """Say that the call that moves the guest comes next. Idempotent.

    Before it only the source has the guest; after it that has to be settled, whatever happens.
    Raises: MigrationNotFound, NotItsHost, InvalidInput, InvalidState, AttachmentNotFound (one
    was taken away meanwhile).
    """

    def change(connection: StoreConnection, known: GuestMigration) -> MigrationPlan:
        _require_side(caller, known.plan, Side.SOURCE)
        plan = known.plan.advanced()
        for volume in plan.volumes if plan is not known.plan else ():
            for side in Side:
                _check_attachment(connection, known.guest, plan, volume, side)
        return plan

    return _change(service, caller, migration_id, "moving", change)


def settle(
    service: Service, caller: Caller, migration_id: str, told: Mapping[Side, Word]
) -> MigrationView:
    """Take what is said of the two sides, decide if it can be, and carry that out.

    Only an agent's word of its own host is first-hand. When this returns a ``winner``, and the
    state is none of *fencing*, the other side is without the guest or without access.
    Undecided, the state stays *settling* and ``reason`` says what is missing: ask again.
    Raises: MigrationNotFound, NotItsHost, InvalidState (not moving yet), BackendError (the loser
    may not be cut off; ask again).
    """

    def change(_connection: StoreConnection, known: GuestMigration) -> MigrationPlan:
        plan = known.plan
        if plan.winner is not None:
            return plan
        own = None if caller.agent is None else plan.side_of(caller.agent.host)
        for side in Side:
            word = told.get(side, Word.UNKNOWN)
            plan = plan.hearing(side, word, is_first_hand=side is own)
        return plan.settled()

    with _alone(service, migration_id):
        view = _change(service, caller, migration_id, "settling", change)
        return _carry_out(service, view) if view.migration.plan.is_ours_to_finish else view


def release(service: Service, caller: Caller, migration_id: str) -> MigrationView:
    """Take the loser's attachments away: it has disconnected, or it never will. Idempotent.

    Raises: MigrationNotFound, NotItsHost, InvalidState (not settled), BackendError.
    """
    with _alone(service, migration_id):
        view = get_migration(service, caller, migration_id)
        return _carry_out(service, view)


def abort(
    service: Service, caller: Caller, migration_id: str, keep: Side | None = None
) -> MigrationView:
    """Give up a move that has not begun; or (admin) say which side to keep, and fence the other.

    Raises: MigrationNotFound, NotAllowed, NotItsHost, MigrationUndecided (the guest may have
    moved), InvalidState (it is decided otherwise), BackendError.
    """
    if keep is not None and not caller.is_admin:
        raise NotAllowed("lunport:abort with keep")

    def change(_connection: StoreConnection, known: GuestMigration) -> MigrationPlan:
        plan = known.plan
        if keep is None:
            return plan.given_up()
        return plan if plan.winner is keep else plan.kept(keep, f"kept by {caller.user_id}")

    with _alone(service, migration_id):
        view = _change(service, caller, migration_id, "given up", change)
        return _carry_out(service, view)


def note(
    service: Service, caller: Caller, migration_id: str, what: str, document: Mapping[str, object]
) -> MigrationView:
    """Keep what an agent did, as an event; it decides nothing.

    Raises: MigrationNotFound, NotItsHost, InvalidInput.
    """
    if not 0 < len(what) <= MAX_NOTE:
        raise InvalidInput("note", what, f"1 to {MAX_NOTE} characters")
    if not _is_short(document):
        raise InvalidInput("note", what, f"its document has at most {_MAX_NOTE_TEXT} characters")
    now = service.now()
    with service.store.write() as connection:
        known = _find(connection, caller, migration_id)
        rows.add_event(connection, migration_id, Event(now, caller.user_id, what, document))
        return _view(connection, known)


def take_up(service: Service) -> int:
    """Go on with what a killed service left: at the start, when the targets are there.

    What fails is in the log, and goes on with the next request. Tells how many were open so.
    """
    with service.store.read(snapshot=True) as connection:
        left = [
            _view(connection, one)
            for one in rows.listed(connection, with_done=False)
            if one.plan.is_ours_to_finish
        ]
    for view in left:
        migration_id = view.migration.plan.id
        try:
            with _alone(service, migration_id):
                _carry_out(service, view)
            _LOG.info("migration_taken_up id=%s", migration_id)
        except LunportError as error:
            _LOG.error("migration_not_taken_up id=%s error=%s", migration_id, error)
    return len(left)


# -- carrying out ------------------------------------------------------------------------


def _carry_out(service: Service, view: MigrationView) -> MigrationView:
    """Do what a settled migration leaves to do, from wherever it is.

    Precondition: the migration's lock is held. Raises: InvalidState (not settled), BackendError.
    """
    migration = view.migration
    ours = _ours(migration)
    if migration.plan.state is State.FENCING:
        _fence(service, migration, ours)
        view = _change(
            service, ours, migration.plan.id, "fenced", lambda _, known: known.plan.fenced()
        )
    if view.migration.plan.state is not State.DONE:
        _take_away(service, view.migration, ours)
        fencing.lift_own(service, ours)
        view = _change(
            service, ours, migration.plan.id, "done", lambda _, known: known.plan.released()
        )
        plan = view.migration.plan
        _LOG.info(
            "migration_done id=%s guest_at=%s", plan.id, plan.host(plan.winner or Side.SOURCE)
        )
    return view


def _fence(service: Service, migration: GuestMigration, ours: Caller) -> None:
    """Cut the loser off from every volume. Raises: BackendError (the rows stand)."""
    plan = migration.plan
    assert plan.loser is not None
    reason = f"migration {plan.id}: {plan.reason}"
    _LOG.warning("migration_fences id=%s host=%s reason=%r", plan.id, plan.host(plan.loser), reason)
    for volume_id, attachment_id in plan.to_release():
        with service.store.read() as connection:
            attachment = attachment_rows.find(connection, attachment_id)
        if attachment is None or attachment.connector is None:
            continue  # It has no connection: nothing is exported by it.
        initiator = str(attachment.connector.get("initiator"))
        selector = HostSelector(attachment.attached_host, initiator, volume_id)
        fencing.revoke(service, ours, selector, reason)


def _take_away(service: Service, migration: GuestMigration, ours: Caller) -> None:
    """Delete the loser's attachments. Raises: InvalidState (not settled), BackendError."""
    plan = migration.plan
    plan.released()
    for _, attachment_id in plan.to_release():
        try:
            attachments.delete_attachment(service, ours, attachment_id)
        except AttachmentNotFound:
            continue


def _ours(migration: GuestMigration) -> Caller:
    """Return the service itself, as far as it acts for one migration."""
    name = f"migration:{migration.plan.id}"
    return Caller(name, "lunport", is_admin=True, is_service=True)


# -- rows --------------------------------------------------------------------------------


def _change(
    service: Service,
    caller: Caller,
    migration_id: str,
    what: str,
    change: Callable[[StoreConnection, GuestMigration], MigrationPlan],
) -> MigrationView:
    """Change a plan by compare-and-swap, with an event; the same plan changes nothing."""
    now = service.now()
    with service.store.write() as connection:
        known = _find(connection, caller, migration_id)
        plan = change(connection, known)
        if plan != known.plan:
            known = rows.change(connection, known, plan, now=now)
            _note(connection, known, caller, what, now)
        return _view(connection, known)


def _find(connection: StoreConnection, caller: Caller, migration_id: str) -> GuestMigration:
    """Return a migration that the caller may see. Raises: MigrationNotFound, NotItsHost."""
    _require_known(caller)
    found = rows.find(connection, migration_id)
    if found is None:
        raise MigrationNotFound(migration_id)
    if caller.agent is not None and found.plan.side_of(caller.agent.host) is None:
        raise NotItsHost(caller.agent.host, f"migration {migration_id}")
    return found


def _view(connection: StoreConnection, one: GuestMigration) -> MigrationView:
    return MigrationView(one, rows.events_of(connection, one.plan.id))


def _note(
    connection: StoreConnection, one: GuestMigration, caller: Caller, what: str, now: str
) -> None:
    """Keep what the migration is like now."""
    rows.add_event(connection, one.plan.id, Event(now, caller.user_id, what, snapshot(one.plan)))


def snapshot(plan: MigrationPlan) -> dict[str, object]:
    """Write what a migration is like, for an event and for people."""
    return {
        "state": plan.state.value,
        "winner": None if plan.winner is None else plan.winner.value,
        "fenced": plan.must_fence,
        "reason": plan.reason,
        "told": {
            side.value: {
                "word": plan.word(side).word.value,
                "first_hand": plan.word(side).is_first_hand,
            }
            for side in Side
        },
        "volumes": [one._asdict() for one in plan.volumes],
    }


def _is_short(document: Mapping[str, object]) -> bool:
    try:
        return len(json.dumps(document)) <= _MAX_NOTE_TEXT
    except (ValueError, RecursionError):  # a number of 5000 digits, a list nested without end
        return False


def _is_the_same(one: MigrationPlan, other: MigrationPlan) -> bool:
    same_sources = [each[:2] for each in one.volumes] == [each[:2] for each in other.volumes]
    same_ends = (one.source, one.destination) == (other.source, other.destination)
    return same_sources and same_ends


def _check_attachment(
    connection: StoreConnection,
    guest: str,
    plan: MigrationPlan,
    volume: MovedVolume,
    side: Side,
) -> None:
    """Check that an attachment is of that volume, guest and host, and connected.

    Raises: AttachmentNotFound, InvalidInput.
    """
    attachment_id = volume.attachment_at(side)
    if attachment_id is None:
        return
    found = attachment_rows.find(connection, attachment_id)
    if found is None or found.volume_id != volume.volume_id:
        raise AttachmentNotFound(attachment_id)
    what = f"{side} attachment"
    if found.instance_uuid != guest:
        raise InvalidInput(what, attachment_id, "it is not of this guest")
    if found.connector is None or not same_host(found.attached_host, plan.host(side)):
        raise InvalidInput(what, attachment_id, f"it is not connected to {plan.host(side)}")


def _require_known(caller: Caller) -> None:
    if caller.agent is None and not caller.is_admin:
        raise NotAllowed("lunport:migrations")


def _require_source(caller: Caller, plan: MigrationPlan) -> None:
    _require_known(caller)
    _require_side(caller, plan, Side.SOURCE)


def _require_side(caller: Caller, plan: MigrationPlan, side: Side) -> None:
    """Let an agent act only for the side that it is of. Raises: NotItsHost."""
    if caller.agent is not None and plan.side_of(caller.agent.host) is not side:
        raise NotItsHost(caller.agent.host, f"what the {side} of a migration does")


@contextmanager
def _alone(service: Service, migration_id: str) -> Iterator[None]:
    """Be the only one who carries out this migration. Raises: Unavailable."""
    with service.locks.hold([f"migration {migration_id}"], LOCK_WAIT_S):
        yield
