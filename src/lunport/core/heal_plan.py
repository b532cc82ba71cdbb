"""Decide what is done about lost paths, now, and when to think of it again.

    connections as they are now + what was tried -> steps for now, and the next moment

A portal at which a path is missing is asked by one *scout* for all volumes; while it is silent
it is asked again, with growing pauses and no other traffic. Once it answers, every connection
that lacks a path there is *completed*, a few at a time for each portal, the longest due first;
one that waits keeps its turn against those behind it. A connection that wants one path of
several and has none chooses for itself, at once. So a portal's return is noticed within
``longest_pause_s`` and a fifth, and no switch that comes back meets a storm.

Where a portal went silent a moment ago, sessions to it that still seem alive are *broken*, if
all their volumes have another way, so that I/O goes there without waiting. A map without a
usable path *stops queueing* at its bound; what others changed in its settings is *kept up*.

Never decides to log out or to remove anything.
"""

from __future__ import annotations

from collections import Counter
from collections.abc import Iterable, Sequence
from dataclasses import dataclass

from lunport.core.heal_memory import (
    Break,
    Complete,
    HealLimits,
    HealMemory,
    KeepUp,
    Scout,
    Sight,
    Step,
    StopQueueing,
)
from lunport.core.path_status import PathState
from lunport.core.portal import Portal


@dataclass(frozen=True, slots=True)
class HealPlan:
    """What to begin now, and when to plan again if nothing happens before; None for never.

    Whatever is under way is to be followed by another plan when it ends.
    """

    steps: tuple[Step, ...]
    next_at: float | None


@dataclass(frozen=True, slots=True)
class _Wish:
    due_at: float
    step: Step


def plan_healing(
    sights: Sequence[Sight], memory: HealMemory, now: float, limits: HealLimits
) -> HealPlan:
    """Choose the steps for now: those that are due, as far as the limits allow."""
    scouts = sorted(_scouts(sights, memory), key=_when)
    completions = sorted(_completions(sights, memory), key=_when)
    upkeep = [*_queueing(sights, memory), *_upkeep(sights, memory)]
    begun = [one for one in memory.at_work if isinstance(one, Complete)]
    asking = sum(isinstance(one, Scout) for one in memory.at_work)
    steps: list[Step] = [*_due(scouts, now)[: max(0, limits.scouts - asking)]]
    steps += _admitted(_due(completions, now), begun, limits)
    steps += _due(upkeep, now)
    steps += _breaks(sights, memory, now, limits)
    later = (wish.due_at for wish in (*scouts, *completions, *upkeep) if wish.due_at > now)
    return HealPlan(tuple(steps), min(later, default=None))


def _when(wish: _Wish) -> float:
    return wish.due_at


def _due(wishes: Iterable[_Wish], now: float) -> list[Step]:
    return [wish.step for wish in wishes if wish.due_at <= now]


def _scouts(sights: Sequence[Sight], memory: HealMemory) -> Iterable[_Wish]:
    seen = {one.portal for one in memory.at_work if isinstance(one, Scout)} | memory.answering
    for one in sights:
        is_passed_over = one.key in memory.asked or one.key in memory.stale
        wanted = frozenset() if is_passed_over else one.lacking_portals
        for status in one.volume.paths:
            portal = status.path.portal
            if portal not in seen and (portal in wanted or portal in memory.signs):
                seen |= {portal}
                due_at = memory.scout_due_at(portal)
                yield _Wish(due_at, Scout(portal, status.path, one.key))


def _completions(sights: Sequence[Sight], memory: HealMemory) -> Iterable[_Wish]:
    busy = {one.key for one in memory.at_work if isinstance(one, Complete)} | memory.stale
    for one in sights:
        lacking = one.lacking_portals
        portals = lacking & memory.answering
        if one.key in memory.asked:
            portals = lacking  # whatever scouts said
        elif one.moves:
            portals = lacking - memory.silent  # it has no path at all: it waits for no scout
        if portals and one.key not in busy:
            yield _Wish(memory.completion_due_at(one.key), Complete(one.key, portals))


def _admitted(
    wishes: Sequence[Step], begun: Sequence[Complete], limits: HealLimits
) -> Iterable[Step]:
    """Admit in order what finds room at all its portals; what has to wait keeps its place there."""
    room = limits.completions - len(begun)
    taken = Counter(portal for one in begun for portal in one.portals)
    for step in wishes:
        if room <= 0 or not isinstance(step, Complete):
            return
        if all(taken[portal] < limits.for_each_portal for portal in step.portals):
            room -= 1
            yield step
        taken.update(step.portals)


def _queueing(sights: Sequence[Sight], memory: HealMemory) -> Iterable[_Wish]:
    for one in sights:
        step = StopQueueing(one.key)
        if one.key in memory.stale or step in memory.at_work:
            continue
        if one.down_at is not None and one.queues:
            at = one.down_at + one.queue_s
            yield _Wish(max(at, memory.upkeep_due_at(one.key)), step)


def _upkeep(sights: Sequence[Sight], memory: HealMemory) -> Iterable[_Wish]:
    for one in sights:
        step = KeepUp(one.key)
        if not one.is_kept and one.key not in memory.stale and step not in memory.at_work:
            yield _Wish(memory.upkeep_due_at(one.key), step)


def _breaks(
    sights: Sequence[Sight], memory: HealMemory, now: float, limits: HealLimits
) -> Iterable[Step]:
    """Give the sessions to portals that went silent a moment ago, where nobody depends on them."""
    suspects: dict[int, Portal] = {}
    needed: set[int] = set()
    for one in sights:
        live = [status for status in one.volume.paths if status.state is PathState.LIVE]
        for status in live:
            portal, sid = status.path.portal, status.sid
            if sid is None or sid in memory.broken:
                continue
            is_fresh = now - memory.signs.get(portal, float("-inf")) < limits.fresh_s
            if portal in memory.silent and is_fresh:
                suspects[sid] = portal
            if all(other.path.portal in memory.silent for other in live):
                needed.add(sid)
    return [Break(sid, portal) for sid, portal in suspects.items() if sid not in needed]
