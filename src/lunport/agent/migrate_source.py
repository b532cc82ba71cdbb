"""Move a running guest to another host, as the source drives it.

    preflight -> note -> record -> prepare there -> rewrite -> "moving" -> the call
              -> settle: where does it live? -> finish, or roll back

Up to "moving" the guest is here, and whatever fails is undone with all before it. From there on
the call's own word counts for nothing: both sides are asked, and the record at the service
says who is believed (:mod:`lunport.core.guest_whereabouts`). What a kill leaves, the note finishes:
by the agent's rounds, or by the next move of that guest.
"""

from __future__ import annotations

from collections.abc import Callable
from contextlib import suppress
from dataclasses import dataclass, field, replace
from functools import partial
from typing import TYPE_CHECKING

from lunport.agent.guest_parts import require_guest
from lunport.agent.migration_parts import (
    DestinationPeer,
    MigrationParts,
    MoveName,
    Order,
    PreparedVolume,
    VolumeOrder,
)
from lunport.agent.migration_settling import settle
from lunport.agent.preflight import gather
from lunport.core.attachment import AttachMode
from lunport.core.change import Change
from lunport.core.domain_xml import rewrite_domain
from lunport.core.errors import (
    Conflict,
    LunportError,
    MigrationFailed,
    MigrationNotFound,
    MigrationRefused,
    UndoFailed,
)
from lunport.core.guest import Guest
from lunport.core.guest_attachment import GuestAttachment
from lunport.core.guest_disk import InitiatorKind
from lunport.core.guest_move import GuestMove
from lunport.core.host_name import same_host
from lunport.core.migration_plan import Side, State
from lunport.core.migration_preflight import Finding, PreflightFacts, failures, judge
from lunport.core.move_call import Definitions, MoveOptions, MoveProgress
from lunport.core.wwid import parse_wwid
from lunport.host.clock import Deadline
from lunport.host.tasks import Report, TaskGroup
from lunport.initiator.lock_names import guest_lock

if TYPE_CHECKING:
    from lunport.client.guest_migrations import Migration

_LOOK_S = 0.5
_END_S = 60.0
_PEER_END_S = 20.0  # what takes longer the other side finishes by itself
_RECOVERY_SETTLE_S = 10.0
_NOTE_S = 5.0


def _ignore(progress: MoveProgress) -> None:
    """Take no notice."""


@dataclass(frozen=True, slots=True)
class MoveWish:
    """Which guest goes where, and how.

    ``at``: where the other agent answers, as ``HOST:PORT``, if not by the host's name.
    ``shared``: targets of disks that both hosts reach alike. ``migration_uri``: of the other
    libvirt, where it is not as that host says. ``limit_s``: for the call; then it is stopped.
    ``initiator``: who reaches all its volumes there; None: whoever reaches each of them here.
    """

    guest: str
    destination: str
    endpoint: str
    at: str | None = None
    shared: frozenset[str] = frozenset()
    options: MoveOptions = field(default_factory=MoveOptions)
    migration_uri: str | None = None
    limit_s: float | None = None
    initiator: InitiatorKind | None = None


@dataclass(frozen=True, slots=True)
class Moved:
    """A guest that lives at its destination. ``left``: what a side has yet to clean up, and why."""

    migration_id: str
    guest: Guest
    volumes: tuple[PreparedVolume, ...]
    was_fenced: bool
    left: tuple[str, ...]


def check(parts: MigrationParts, wish: MoveWish, deadline: Deadline) -> tuple[Finding, ...]:
    """Say what lets the guest go, and what does not. Changes nothing. Raises: GuestNotFound."""
    guest = require_guest(parts.guests, wish.guest, deadline)
    return judge(_gathered(parts, wish, guest, deadline))


def stop(parts: MigrationParts, name_or_id: str, deadline: Deadline) -> Change:
    """Ask for the end of a move out of here; whoever drives it rolls it back. Idempotent."""
    guest = require_guest(parts.guests, name_or_id, deadline)
    return parts.hypervisor.stop_move(guest.id, deadline)


def migrate(
    parts: MigrationParts,
    wish: MoveWish,
    deadline: Deadline,
    *,
    on_progress: Callable[[MoveProgress], None] = _ignore,
) -> Moved:
    """Move a running guest with its volumes. ``deadline``: for all but the call itself.

    Raises: GuestNotFound; MigrationRefused (nothing was changed); MigrationFailed (the guest is
    where it was, nothing is left of the attempt, or the error says what is); MigrationUndecided
    (it cannot be known yet where it lives: the agents go on asking); UndoFailed; and what
    preparing raises, which is undone.
    """
    found = require_guest(parts.guests, wish.guest, deadline)
    with parts.guests.locks.hold(guest_lock(found.id), deadline):
        known = parts.guests.journal.move(found.id, Side.SOURCE)
        if known is not None:
            recover(parts, known, deadline)
        guest = require_guest(parts.guests, found.id, deadline)
        facts = _gathered(parts, wish, guest, deadline)
        obstacles = failures(judge(facts))
        if obstacles:
            reasons = [f"{one.subject}: {one.detail}" for one in obstacles]
            raise MigrationRefused(guest.name, wish.destination, reasons)
        return _Move(parts, wish, guest, facts).carry_out(deadline, on_progress)


def _gathered(
    parts: MigrationParts, wish: MoveWish, guest: Guest, deadline: Deadline
) -> PreflightFacts:
    return gather(parts, guest, wish.destination, wish.at, wish.endpoint, wish.shared, deadline)


class _Move:
    """One move, from its first change to its end. The guest's lock is held."""

    def __init__(
        self, parts: MigrationParts, wish: MoveWish, guest: Guest, facts: PreflightFacts
    ) -> None:
        assert facts.destination is not None
        self._parts = parts
        self._wish = wish
        self._guest = guest
        self._there = facts.destination
        self._volumes = facts.volumes
        self._moves = parts.service(wish.endpoint)
        self._peer = parts.peer(wish.destination, wish.at)
        self._was_stopped = False
        self._is_postcopy = False

    def carry_out(self, deadline: Deadline, on_progress: Callable[[MoveProgress], None]) -> Moved:
        """Do it all."""
        guests = self._parts.guests
        move = self._note()
        guests.journal.write_move(move)
        guests.on_step("noted")
        try:
            move = self._record(move, deadline)
            name = _name_of(move)
            guests.on_step("recorded")
            prepared = self._peer.prepare(self._order(name, move), deadline)
            guests.on_step("prepared")
            target = self._rewritten(prepared, deadline)
            guests.on_step("rewritten")
            # From here on it counts how long ago the call was made.
            move = replace(move, since=guests.now())
            guests.journal.write_move(move)
            self._moves.moving(name.migration_id, deadline)
        except (LunportError, KeyboardInterrupt) as error:
            _give_up_after(self._parts, move, error)
            raise
        guests.on_step("moving")
        failure = self._call(target, on_progress)
        guests.on_step("called")
        self._tell_figures(name, failure)
        record = settle(
            self._parts,
            move,
            self._peer,
            succeeded=failure is None,
            was_aborted=self._was_stopped,
            deadline=Deadline.after(self._parts.settle_s),
        )
        guests.on_step("settled")
        left = end(self._parts, move, record, self._peer, Deadline.after(_END_S))
        if record.winner is Side.SOURCE:
            detail = str(failure or "the destination does not have it")
            words = "".join(f" (left: {one})" for one in left)
            raise MigrationFailed(self._guest.name, self._wish.destination, f"{detail}{words}")
        return Moved(name.migration_id, self._guest, prepared, record.fenced, left)

    def _note(self) -> GuestMove:
        guests = self._parts.guests
        owned = guests.journal.get_owned(self._guest.id)
        return GuestMove(
            side=Side.SOURCE,
            migration_id=None,
            uri=guests.uri,
            guest_id=self._guest.id,
            guest_name=self._guest.name,
            endpoint=self._wish.endpoint,
            source=self._parts.host,
            destination=self._wish.destination,
            volume_ids=tuple(one.entry.volume_id for one in self._volumes),
            autostart=self._guest.autostart or (owned is not None and owned.autostart),
            since=guests.now(),
            peer=self._wish.at,
        )

    def _record(self, move: GuestMove, deadline: Deadline) -> GuestMove:
        pairs = [
            (one.entry.volume_id, one.entry.attachment_id)
            for one in self._volumes
            if one.entry.attachment_id is not None
        ]
        record = self._moves.start(self._guest.id, move.source, move.destination, pairs, deadline)
        move = replace(move, migration_id=record.id)
        self._parts.guests.journal.write_move(move)
        return move

    def _order(self, name: MoveName, move: GuestMove) -> Order:
        disks = {disk.serial: disk for disk in (self._guest.live.disks if self._guest.live else ())}
        return Order(
            name=name,
            guest_name=self._guest.name,
            source=self._parts.host,
            autostart=move.autostart,
            volumes=tuple(
                VolumeOrder(
                    volume_id=one.entry.volume_id,
                    wwid=parse_wwid(one.wwid),
                    initiator=self._wish.initiator or one.entry.initiator,
                    multipath=self._multipath(one.entry),
                    mode=(
                        AttachMode.READ_ONLY
                        if disks[one.entry.volume_id].is_readonly
                        else AttachMode.READ_WRITE
                    ),
                    target=disks[one.entry.volume_id].target,
                )
                for one in self._volumes
            ),
        )

    def _multipath(self, entry: GuestAttachment) -> bool | None:
        """Say what is wished of paths there: as here, or as it comes if another one logs in."""
        return entry.multipath if self._wish.initiator in {None, entry.initiator} else None

    def _rewritten(self, prepared: tuple[PreparedVolume, ...], deadline: Deadline) -> Definitions:
        """Return the definitions as the destination gets them. Raises: XmlMismatch."""
        own = self._parts.hypervisor.definitions(self._guest.id, deadline)
        replacements = {one.volume_id: one.xml for one in prepared}
        rewrite = partial(
            rewrite_domain,
            replacements=replacements,
            shared=self._wish.shared,
            listen=self._there.listen,
        )
        live = rewrite(own.live)
        if own.persistent is None:
            return Definitions(live, None)
        return Definitions(live, rewrite(own.persistent, demands_all=False))

    # -- the call ------------------------------------------------------------------------

    def _call(
        self, target: Definitions, on_progress: Callable[[MoveProgress], None]
    ) -> LunportError | None:
        """Make the call and wait for its end, whatever that is; return its error, if any."""
        uri = self._wish.migration_uri or self._there.migration_uri
        limit = Deadline.after(self._wish.limit_s or 365 * 86_400.0)
        call = partial(self._parts.hypervisor.move, self._guest.id, uri, target, self._wish.options)
        with TaskGroup[None]("move") as group:
            group.start("move", call)
            report: Report[None] | None = None
            while report is None:  # it ends by the limit, or with the hypervisor's keepalive
                try:
                    report = group.next_report(_LOOK_S)
                    if report is None:
                        self._look(limit, on_progress)
                except KeyboardInterrupt:
                    self._stop()
        try:
            report.unwrap()
        except LunportError as error:
            return error
        return None

    def _look(self, limit: Deadline, on_progress: Callable[[MoveProgress], None]) -> None:
        if limit.has_passed():
            self._stop()
        try:
            progress = self._parts.hypervisor.move_progress(self._guest.id, Deadline.after(_NOTE_S))
        except LunportError:
            return  # the end of the call says more
        if progress is None:
            return
        on_progress(progress)
        if self._wish.options.postcopy and progress.passes > 1 and not self._is_postcopy:
            self._is_postcopy = True
            with suppress(LunportError):
                within = Deadline.after(_NOTE_S)
                self._parts.hypervisor.begin_postcopy(self._guest.id, within)

    def _stop(self) -> None:
        self._was_stopped = True
        try:
            self._parts.hypervisor.stop_move(self._guest.id, Deadline.after(_NOTE_S))
        except LunportError:
            return  # asked for again at the next look, or the call ends by itself

    def _tell_figures(self, name: MoveName, failure: LunportError | None) -> None:
        document = {"error": None if failure is None else str(failure)[:300]}
        try:
            self._moves.note(
                name.migration_id, "the call has ended", document, Deadline.after(_NOTE_S)
            )
        except LunportError:
            return  # what it came to is settled all the same


# -- the end -----------------------------------------------------------------------------------


def end(
    parts: MigrationParts,
    move: GuestMove,
    record: Migration,
    peer: DestinationPeer,
    deadline: Deadline,
) -> tuple[str, ...]:
    """Carry out here, and ask for there, what a settled record says; tell what is left.

    What is left is the other side's to finish, by its own note. Idempotent.
    Precondition: the record has a winner, and the guest's lock is held.
    """
    left: list[str] = []
    if record.winner is Side.DESTINATION:
        _let_guest_go(parts, move, deadline)
        if record.state is not State.DONE:
            parts.service(move.endpoint).release(record.id, deadline)
        parts.guests.on_step("released")
        ask = peer.confirm
    else:
        ask = peer.undo
    try:
        ask(_name_of(move), deadline.at_most(_PEER_END_S))
    except LunportError as error:
        left.append(f"{move.destination} has yet to clean up: {error}")
    parts.guests.on_step("told the destination")
    parts.guests.journal.remove_move(move)
    return tuple(left)


def _let_guest_go(parts: MigrationParts, move: GuestMove, deadline: Deadline) -> None:
    """Leave nothing of the guest here. Raises: what the parts raise; then the note stays."""
    guests = parts.guests
    # The hypervisor undefines it as it goes; one that is left was fenced, or stopped half-way.
    parts.hypervisor.discard(move.guest_id, deadline)
    guests.on_step("discarded")
    for entry in _entries(parts, move):
        guests.release(entry, deadline)
    guests.journal.disown(move.guest_id)


def give_up(parts: MigrationParts, move: GuestMove, deadline: Deadline) -> None:
    """Take back a move that has not begun. Idempotent. Raises: what is not taken back."""
    move = _with_record(parts, move, deadline)
    if move.migration_id is not None:
        peer = parts.peer(move.destination, move.peer)
        failure: LunportError | None = None
        try:
            with suppress(MigrationNotFound):
                peer.undo(_name_of(move), deadline)
        except LunportError as error:
            failure = error
        # With it the destination may not go on, and knows so once it asks.
        with suppress(MigrationNotFound):
            parts.service(move.endpoint).abort(move.migration_id, deadline)
        if failure is not None:
            parts.guests.journal.remove_move(move)
            raise failure
    parts.guests.journal.remove_move(move)


def _give_up_after(
    parts: MigrationParts, move: GuestMove, cause: LunportError | KeyboardInterrupt
) -> None:
    """Raises: UndoFailed."""
    known = parts.guests.journal.move(move.guest_id, Side.SOURCE) or move
    try:
        give_up(parts, known, Deadline.after(_END_S))
    except LunportError as error:
        if isinstance(cause, LunportError):
            raise UndoFailed(cause, [error]) from cause


# -- after a kill ------------------------------------------------------------------------------


def recover(parts: MigrationParts, move: GuestMove, deadline: Deadline) -> str:
    """Finish a move that was cut off, and say what it came to. Idempotent.

    Precondition: the guest's lock is held. Raises: MigrationUndecided, Conflict (the service does
    not know the record, and the guest may be anywhere), and what the parts raise.
    """
    service = parts.service(move.endpoint)
    move = _with_record(parts, move, deadline)
    if move.migration_id is None:
        parts.guests.journal.remove_move(move)
        return "nothing of it had begun"
    try:
        record = service.get(move.migration_id, deadline)
    except MigrationNotFound:
        words = f"The service at {move.endpoint} does not know migration {move.migration_id}"
        raise Conflict(f"{words} any more: see where guest {move.guest_name} runs.") from None
    peer = parts.peer(move.destination, move.peer)
    if record.state is State.PREPARING:
        give_up(parts, move, deadline)
        return f"given up: the guest is at {move.source}"
    if record.winner is None:
        record = settle(
            parts,
            move,
            peer,
            succeeded=False,
            was_aborted=False,
            deadline=deadline.at_most(min(_RECOVERY_SETTLE_S, parts.settle_s)),
            waited_s=max(0.0, parts.guests.now() - move.since),
        )
    left = end(parts, move, record, peer, deadline)
    host = move.source if record.winner is Side.SOURCE else move.destination
    return "; ".join((f"the guest is at {host}", *left))


def _with_record(parts: MigrationParts, move: GuestMove, deadline: Deadline) -> GuestMove:
    """Find the record that a killed start may have made without noting it."""
    if move.migration_id is not None:
        return move
    for one in parts.service(move.endpoint).list(deadline):
        if one.guest == move.guest_id and same_host(one.source, parts.host):
            move = replace(move, migration_id=one.id)
            parts.guests.journal.write_move(move)
    return move


def _entries(parts: MigrationParts, move: GuestMove) -> tuple[GuestAttachment, ...]:
    found = parts.guests.journal.of_guest(move.guest_id)
    return tuple(one for one in found if one.volume_id in move.volume_ids)


def _name_of(move: GuestMove) -> MoveName:
    assert move.migration_id is not None
    return MoveName(move.migration_id, move.guest_id, move.endpoint)
