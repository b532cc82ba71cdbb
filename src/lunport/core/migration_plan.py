"""A guest's move between two hosts, as its record goes from state to state.

    preparing --> moving --> settling --+--> releasing --> done
        |                               |        ^  ^
        |                               +--> fencing|
        +--(nothing has moved yet)------------------+

While it is *preparing* the guest is at the source and cannot be elsewhere: the call that moves it
comes after *moving*. From then on either host may run it, whatever the call said: an error is no
proof (a libvirtd that hung may still obey). *Settling* asks both sides, each of which answers
for itself; :func:`decide` is the table. A side that is not known to be without the guest, from its
own mouth, is fenced before the other is trusted. *Releasing* takes the loser's attachments
away; *done* has one side only.

Pure: values in, values out; who is believed and what is done about it is decided here, and
carried out in ``volume/migrations.py``.
"""

from __future__ import annotations

import enum
from collections.abc import Mapping
from dataclasses import dataclass, replace
from typing import NamedTuple

from lunport.core.errors import InvalidInput, InvalidState, MigrationUndecided
from lunport.core.host_name import same_host


class Side(enum.StrEnum):
    """One of the two hosts."""

    SOURCE = "source"
    DESTINATION = "destination"

    @property
    def other(self) -> Side:
        """The other one."""
        return Side.DESTINATION if self is Side.SOURCE else Side.SOURCE


class State(enum.StrEnum):
    """How far a migration is."""

    PREPARING = "preparing"
    MOVING = "moving"
    SETTLING = "settling"
    FENCING = "fencing"
    RELEASING = "releasing"
    DONE = "done"


class Word(enum.StrEnum):
    """What is said of a guest on one host, after the call that moves it has ended.

    ``PAUSED``: there, and not running: a switch-over that is under way, or an incoming guest.
    """

    RUNS = "runs"
    PAUSED = "paused"
    ABSENT = "absent"
    UNKNOWN = "unknown"


# From where a record may go where.
NEXT: Mapping[State, frozenset[State]] = {
    State.PREPARING: frozenset({State.MOVING, State.RELEASING}),
    State.MOVING: frozenset({State.SETTLING}),
    State.SETTLING: frozenset({State.FENCING, State.RELEASING}),
    State.FENCING: frozenset({State.RELEASING}),
    State.RELEASING: frozenset({State.DONE}),
    State.DONE: frozenset(),
}


class Told(NamedTuple):
    """What was said of one side, and whether that side said it itself."""

    word: Word = Word.UNKNOWN
    is_first_hand: bool = False


class Verdict(NamedTuple):
    """Which side has the guest, whether the other one is fenced first, and why."""

    winner: Side
    must_fence: bool
    reason: str


class MovedVolume(NamedTuple):
    """One volume of the guest, and its attachment on each side (None: not made yet)."""

    volume_id: str
    source_attachment: str
    destination_attachment: str | None = None

    def attachment_at(self, side: Side) -> str | None:
        """Return the attachment on one side."""
        return self.source_attachment if side is Side.SOURCE else self.destination_attachment


@dataclass(frozen=True, slots=True)
class MigrationPlan:
    """What a migration is about, and how far it is. Every change gives a new one.

    ``winner`` is where the guest lives, once that is settled; ``reason`` says why, or what a
    decision waits for.
    """

    id: str
    source: str
    destination: str
    volumes: tuple[MovedVolume, ...]
    state: State = State.PREPARING
    told: tuple[Told, Told] = (Told(), Told())
    winner: Side | None = None
    must_fence: bool = False
    reason: str = ""

    def __post_init__(self) -> None:
        if same_host(self.source, self.destination):
            raise InvalidInput("destination", self.destination, "it is the source")
        if not self.volumes:
            raise InvalidInput("volumes", [], "name at least one volume of the guest")
        if len({one.volume_id for one in self.volumes}) < len(self.volumes):
            raise InvalidInput("volumes", None, "each volume once")

    # -- questions -----------------------------------------------------------------------

    @property
    def is_open(self) -> bool:
        """Tell whether anything is left to do."""
        return self.state is not State.DONE

    @property
    def loser(self) -> Side | None:
        """The side that shall have nothing of the guest any more."""
        return None if self.winner is None else self.winner.other

    @property
    def is_ours_to_finish(self) -> bool:
        """Tell whether the service goes on by itself: it does not wait for a fenced host."""
        return self.state is State.FENCING or (self.state is State.RELEASING and self.must_fence)

    def side_of(self, host: str) -> Side | None:
        """Say which side a host is, if it is one."""
        for side in Side:
            if same_host(self.host(side), host):
                return side
        return None

    def host(self, side: Side) -> str:
        """Return the host of a side."""
        return self.source if side is Side.SOURCE else self.destination

    def word(self, side: Side) -> Told:
        """Return what was said of a side."""
        return self.told[0] if side is Side.SOURCE else self.told[1]

    def may_write(self) -> frozenset[Side]:
        """Say on which sides a guest may be that reaches the volumes.

        One, as long as nothing has moved and from the moment that it is settled.
        """
        if self.state is State.PREPARING:
            return frozenset({Side.SOURCE})
        if self.state in (State.RELEASING, State.DONE) and self.winner is not None:
            return frozenset({self.winner})
        return frozenset(Side)

    # -- changes -------------------------------------------------------------------------

    def prepared(self, volume_id: str, attachment_id: str) -> MigrationPlan:
        """Name the destination's attachment of a volume; the same once more changes nothing.

        Raises: InvalidState, InvalidInput.
        """
        known = next((one for one in self.volumes if one.volume_id == volume_id), None)
        if known is None:
            raise InvalidInput("volume_id", volume_id, "the migration is not about this volume")
        if known.destination_attachment == attachment_id:
            return self
        self._require(State.PREPARING)
        changed = known._replace(destination_attachment=attachment_id)
        return replace(
            self, volumes=tuple(changed if one is known else one for one in self.volumes)
        )

    def advanced(self) -> MigrationPlan:
        """Say that the guest is about to move. Idempotent.

        Raises: InvalidState, InvalidInput (a volume has no attachment at the destination).
        """
        if self.state is State.MOVING:
            return self
        self._require(State.PREPARING)
        for one in self.volumes:
            if one.destination_attachment is None:
                reason = "the destination has no attachment of it yet"
                raise InvalidInput("volume_id", one.volume_id, reason)
        return replace(self, state=State.MOVING)

    def hearing(self, side: Side, word: Word, *, is_first_hand: bool) -> MigrationPlan:
        """Take what is said of a side, once the call that moves the guest has ended.

        What a side says of itself stands until it says something else; but one that was in the
        middle of it may since have fallen silent. Raises: InvalidState.
        """
        self._require(State.MOVING, State.SETTLING)
        before = self.word(side)
        stands = before.is_first_hand and before.word in (Word.RUNS, Word.ABSENT)
        told = before if stands and not is_first_hand else Told(word, is_first_hand)
        both = (told, self.told[1]) if side is Side.SOURCE else (self.told[0], told)
        return replace(self, state=State.SETTLING, told=both)

    def settled(self) -> MigrationPlan:
        """Decide by what was said, or say what is missing. Raises: InvalidState."""
        self._require(State.SETTLING)
        found = decide(*self.told)
        return replace(self, reason=found) if isinstance(found, str) else self._won(found)

    def kept(self, side: Side, reason: str) -> MigrationPlan:
        """Decide by an administrator's word: the other side is fenced, whatever it says.

        Raises: InvalidState, InvalidInput (nothing has moved yet).
        """
        if self.state is State.PREPARING:
            if side is Side.DESTINATION:
                raise InvalidInput(
                    "keep", side.value, "nothing has moved: the source has the guest"
                )
            return self.given_up()
        self._require(State.MOVING, State.SETTLING)
        return self._won(Verdict(side, must_fence=True, reason=reason))

    def given_up(self) -> MigrationPlan:
        """Go back before anything has moved: the source keeps the guest.

        Raises: MigrationUndecided (it may have moved).
        """
        if self.state in (State.MOVING, State.SETTLING):
            reason = "the guest may have moved: let the agents settle it, or say which side to keep"
            raise MigrationUndecided(self.id, reason)
        if self.winner is Side.SOURCE:
            return self
        self._require(State.PREPARING)
        verdict = Verdict(Side.SOURCE, must_fence=False, reason="given up before it moved")
        return self._won(verdict)

    def fenced(self) -> MigrationPlan:
        """Say that the loser reaches the volumes no more. Raises: InvalidState."""
        self._require(State.FENCING)
        return replace(self, state=State.RELEASING)

    def released(self) -> MigrationPlan:
        """Say that the loser's attachments are gone. Raises: InvalidState."""
        self._require(State.RELEASING)
        return replace(self, state=State.DONE)

    def to_release(self) -> tuple[tuple[str, str], ...]:
        """List what the loser shall lose: volumes, and its attachments of them."""
        if self.loser is None:
            return ()
        pairs = ((one.volume_id, one.attachment_at(self.loser)) for one in self.volumes)
        return tuple((volume, attachment) for volume, attachment in pairs if attachment)

    def _won(self, verdict: Verdict) -> MigrationPlan:
        return replace(
            self,
            state=State.FENCING if verdict.must_fence else State.RELEASING,
            winner=verdict.winner,
            must_fence=verdict.must_fence,
            reason=verdict.reason,
        )

    def _require(self, *states: State) -> None:
        if self.state not in states:
            raise InvalidState("migration", self.id, self.state, " or ".join(states))


def decide(source: Told, destination: Told) -> Verdict | str:
    """Say where a guest lives by what was said of both sides, or what is missing to know.

    Invariant: who is not fenced has said itself that it has no guest.
    """
    words = (source.word, destination.word)
    match words:
        case (Word.RUNS, Word.RUNS):
            return Verdict(Side.SOURCE, must_fence=True, reason="both sides run it")
        case (Word.PAUSED, _) | (_, Word.PAUSED):
            side = Side.SOURCE if source.word is Word.PAUSED else Side.DESTINATION
            return f"the guest is paused at the {side}: ask again"
        case (Word.UNKNOWN, Word.UNKNOWN):
            return "neither side says anything of the guest"
        case (Word.ABSENT, Word.ABSENT):
            winner, reason = Side.SOURCE, "no side has it"
        case (_, Word.RUNS) | (Word.ABSENT, _):
            winner, reason = Side.DESTINATION, _because(Side.DESTINATION, source, destination)
        case _:
            winner, reason = Side.SOURCE, _because(Side.SOURCE, source, destination)
    loser = destination if winner is Side.SOURCE else source
    is_known = loser.word is Word.ABSENT and loser.is_first_hand
    return Verdict(winner, must_fence=not is_known, reason=reason)


def _because(winner: Side, source: Told, destination: Told) -> str:
    own, other = (source, destination) if winner is Side.SOURCE else (destination, source)
    says = "runs it" if own.word is Word.RUNS else "says nothing"
    others = {Word.ABSENT: "has it not", Word.UNKNOWN: "says nothing"}[other.word]
    return f"the {winner} {says}, the {winner.other} {others}"
