"""Where a guest lives after the call that moves it: what each side sees, and what comes next.

    source     destination       next
    lives      does not have it  the destination says so itself: the source keeps the guest
    lives      anything else     the destination is fenced: the source keeps the guest
    gone       (call succeeded)  the destination has it
    gone       lives             the destination has it
    gone       does not have it  the destination says so itself: what is left is the source's
    switching  lives             wait; after a while the source is fenced
    silent     lives             wait; after a while the source is fenced
    moving     anything          wait: the call is not over
    otherwise                    wait

An error of the call is no proof of anything, and neither is silence: a daemon that hangs may
obey as soon as it wakes. So as long as the source lives nothing but the destination's own "I do
not have it" spares it the fence, and nobody waits: each moment more is one in which two could
write. Where the source is silent nothing is decided by a destination without the guest, since
the source's daemon may still be about to send it.

Pure. What the service makes of the words is in :mod:`lunport.core.migration_plan`.
"""

from __future__ import annotations

import enum
from collections.abc import Mapping
from typing import Final

from lunport.core.guest import Guest, GuestState

# How long libvirt may take to clear an incoming guest away after an abort of our own.
ABORT_PATIENCE_S: Final = 3.0
# How long a source that is silent, or in the middle of it, is waited for before it is fenced.
SOURCE_PATIENCE_S: Final = 45.0


class Sight(enum.StrEnum):
    """What one side's hypervisor shows of a guest."""

    LIVES = "lives"  # there is a process of it that may write
    MOVING = "moving"  # a call that moves it away is under way
    SWITCHING = "switching"  # on its way in or out; it may yet live, or go
    OFF = "off"  # defined, without a process
    ABSENT = "absent"
    SILENT = "silent"  # the hypervisor, or its agent, says nothing

    @property
    def has_no_process(self) -> bool:
        """Tell whether nothing can write there, as that side says itself."""
        return self in (Sight.OFF, Sight.ABSENT)


class Step(enum.Enum):
    """What comes next."""

    ASK_DESTINATION = "ask the destination"
    LET_DESTINATION_TELL = "the destination says itself that it does not have the guest"
    KEEP_SOURCE = "the source lives, and the destination is fenced"
    SOURCE_IS_GONE = "the source is without the guest"
    KEEP_DESTINATION = "the destination lives, and the source is fenced"
    WAIT = "wait"


# What a state with its reason means where the state alone does not say it.
_MIDWAY: Final[Mapping[GuestState, frozenset[str]]] = {
    GuestState.PAUSED: frozenset({"migration", "starting up", "postcopy", "postcopy failed"}),
}


def sight_of(guest: Guest | None, *, is_moving: bool = False) -> Sight:
    """Say what a hypervisor's answer means. ``is_moving``: a call that moves it is under way."""
    if guest is None:
        return Sight.ABSENT
    if is_moving:
        return Sight.MOVING
    if not guest.is_active:
        return Sight.OFF
    if guest.reason in _MIDWAY.get(guest.state, frozenset()):
        return Sight.SWITCHING
    return Sight.SWITCHING if guest.state is GuestState.UNKNOWN else Sight.LIVES


def next_step(
    *,
    succeeded: bool,
    was_aborted: bool,
    source: Sight,
    destination: Sight | None,
    waited_s: float,
) -> Step:
    """Say what comes next by what both sides see. ``destination`` None: not asked yet.

    Precondition: the call has ended, as far as the source's hypervisor knows.
    Invariant: whoever is not fenced by the outcome has said itself that it cannot write.
    """
    if succeeded and source.has_no_process:
        return Step.SOURCE_IS_GONE
    if destination is None:
        return Step.ASK_DESTINATION
    match source:
        case Sight.LIVES:
            return _while_the_source_lives(destination, was_aborted, waited_s)
        case Sight.OFF | Sight.ABSENT:
            return _without_the_source(source, destination)
        case Sight.MOVING:
            return Step.WAIT  # its memory may still be needed by a guest that lives there
        case _:
            is_patient = waited_s < SOURCE_PATIENCE_S
            is_there = destination is Sight.LIVES
            return Step.KEEP_DESTINATION if is_there and not is_patient else Step.WAIT


def _while_the_source_lives(destination: Sight, was_aborted: bool, waited_s: float) -> Step:
    if destination.has_no_process:
        return Step.LET_DESTINATION_TELL
    if destination is Sight.SWITCHING and was_aborted and waited_s < ABORT_PATIENCE_S:
        return Step.WAIT  # the memory was not across, so nothing there can run by itself
    return Step.KEEP_SOURCE


def _without_the_source(source: Sight, destination: Sight) -> Step:
    match destination:
        case Sight.LIVES:
            return Step.SOURCE_IS_GONE
        case Sight.OFF if source is Sight.ABSENT:
            return Step.SOURCE_IS_GONE  # it moved, and was shut down there since
        case Sight.OFF | Sight.ABSENT:
            return Step.LET_DESTINATION_TELL
        case _:
            return Step.WAIT
