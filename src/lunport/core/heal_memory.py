"""What is known of lost paths and was tried: the values that ``core/heal_plan.py`` plans by.

A :class:`Sight` is one connection as it is now, a step is something to do about it, and a
:class:`HealMemory` is what steps and events of before have taught; each of its verbs returns
the memory after one of them. Knows no clock and no chance: moments are seconds of any clock
that only goes forward, ``jitter`` is a number from 0 to 1 from outside.
"""

from __future__ import annotations

from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass, field, replace
from types import MappingProxyType
from typing import Any, Final, TypeVar

from lunport.core.path_status import PathState, PathStatus, VolumePaths
from lunport.core.portal import Portal
from lunport.core.target_path import TargetPath

K = TypeVar("K")
V = TypeVar("V")

_LACKING: Final = frozenset({PathState.JOINING, PathState.FAILED, PathState.MISSING})


@dataclass(frozen=True, slots=True)
class HealLimits:
    """How much at once, and how long between tries. ``jitter``: at most, as a part of a pause."""

    scouts: int = 16
    completions: int = 8
    for_each_portal: int = 4
    first_pause_s: float = 1.0
    longest_pause_s: float = 8.0
    jitter: float = 0.2
    fresh_s: float = 15.0  # a sign of trouble counts for so long

    def pause_s(self, failures: int, jitter: float) -> float:
        """Return the pause after so many failures in a row."""
        grown = self.first_pause_s * 2.0 ** min(failures - 1, 30)
        return min(self.longest_pause_s, grown) * (1.0 + self.jitter * jitter)


@dataclass(frozen=True, slots=True)
class Sight:
    """One connection, as it is now.

    Or without one (``has_map``): then it only counts as somebody who needs its session.
    ``queue_s``: the bound of its queueing. ``queues``: None where nobody knows. ``is_kept``: its
    settings are as we want them. ``down_at``: when it lost its last live path, if it has none.
    """

    volume: VolumePaths
    has_map: bool = True
    queue_s: float = 0.0
    queues: bool | None = None
    is_kept: bool = True
    down_at: float | None = None

    @property
    def key(self) -> str:
        """The connection's."""
        return self.volume.key

    @property
    def moves(self) -> bool:
        """Tell whether it wants one path of several."""
        return self.volume.wanted == 1 < len(self.volume.paths)

    @property
    def lacking(self) -> tuple[PathStatus, ...]:
        """The paths that are wanted and not live; none while enough are."""
        if not self.has_map or self.volume.live >= self.volume.wanted:
            return ()
        return tuple(one for one in self.volume.paths if one.state in _LACKING)

    @property
    def lacking_portals(self) -> frozenset[Portal]:
        """Their portals."""
        return frozenset(one.path.portal for one in self.lacking)


# -- steps -------------------------------------------------------------------------------------


@dataclass(frozen=True, slots=True)
class Scout:
    """Ask whether a portal answers, by one of the paths that it lacks."""

    portal: Portal
    path: TargetPath
    key: str


@dataclass(frozen=True, slots=True)
class Complete:
    """Bring a connection's missing paths in; ``portals``: where that may mean a login."""

    key: str
    portals: frozenset[Portal]


@dataclass(frozen=True, slots=True)
class Break:
    """Kill the TCP connection of a session whose portal is silent."""

    sid: int
    portal: Portal


@dataclass(frozen=True, slots=True)
class StopQueueing:
    """Let a map's I/O fail: it waited as long as it may."""

    key: str


@dataclass(frozen=True, slots=True)
class KeepUp:
    """Put the settings of a map and its sessions back to ours."""

    key: str


Step = Scout | Complete | Break | StopQueueing | KeepUp


# -- what is known -----------------------------------------------------------------------------


@dataclass(frozen=True, slots=True)
class Patience:
    """How often something failed in a row, and the moment before which it is not tried again."""

    failures: int
    due_at: float


_Patiences = Mapping[K, Patience]


def _nothing() -> Mapping[Any, Any]:
    return MappingProxyType({})


@dataclass(frozen=True, slots=True)
class HealMemory:
    """What earlier steps found. Portals in neither ``silent`` nor ``answering`` are unknown.

    ``scouts``, ``completions``, ``upkeep``: patience with portals and connections. ``asked``:
    connections that somebody asked for; no scout goes before them. ``signs``: when a session to
    a portal broke. ``broken``: sessions that were broken here since then. ``stale``: connections
    on which something was done since the last look, so that nobody knows how they are.
    """

    silent: frozenset[Portal] = frozenset()
    answering: frozenset[Portal] = frozenset()
    scouts: _Patiences[Portal] = field(default_factory=_nothing)
    completions: _Patiences[str] = field(default_factory=_nothing)
    upkeep: _Patiences[str] = field(default_factory=_nothing)
    asked: frozenset[str] = frozenset()
    signs: Mapping[Portal, float] = field(default_factory=_nothing)
    broken: frozenset[int] = frozenset()
    at_work: frozenset[Step] = frozenset()
    stale: frozenset[str] = frozenset()

    def completion_due_at(self, key: str) -> float:
        """Return the moment before which a connection is not completed again."""
        return _due_at(self.completions, key)

    def scout_due_at(self, portal: Portal) -> float:
        """Return the moment before which a portal is not asked again."""
        return _due_at(self.scouts, portal)

    def upkeep_due_at(self, key: str) -> float:
        """Return the moment before which a map is not seen to again."""
        return _due_at(self.upkeep, key)

    def ask_for(self, key: str) -> HealMemory:
        """Somebody wants this connection complete now, whatever was tried."""
        return replace(
            self,
            asked=self.asked | {key},
            completions=_without(self.completions, {key}),
            upkeep=_without(self.upkeep, {key}),
        )

    def hear_trouble(self, portal: Portal, now: float) -> HealMemory:
        """A session to this portal broke: what was known of the portal holds no more."""
        return replace(
            self,
            silent=self.silent - {portal},
            answering=self.answering - {portal},
            scouts=_with(self.scouts, portal, Patience(0, now)),
            signs=_with(self.signs, portal, now),
            broken=self.broken if portal in self.signs else frozenset(),
        )

    def hear_login(self, portal: Portal, sights: Iterable[Sight], now: float) -> HealMemory:
        """A session to this portal logs in again: the portal answers, and paths may come back."""
        return _answered(self, portal, sights, now, is_news=True)

    def look(self, sights: Sequence[Sight], now: float, limits: HealLimits) -> HealMemory:
        """Forget what no longer matters; what is new may be tried from now on."""
        signs = {one: at for one, at in self.signs.items() if now - at < limits.fresh_s}
        lacking = {portal for one in sights for portal in one.lacking_portals} | signs.keys()
        keys = {one.key for one in sights if one.lacking}
        unkept = {one.key for one in sights if not one.is_kept or one.volume.live == 0}
        return replace(
            self,
            silent=self.silent & lacking,
            answering=self.answering & lacking,
            scouts=_only(self.scouts, lacking, now),
            completions=_only(self.completions, keys, now),
            upkeep=_only(self.upkeep, unkept, now),
            asked=self.asked & keys,
            signs=MappingProxyType(signs),
            broken=self.broken if signs else frozenset(),
            stale=frozenset(),
        )

    def begin(self, steps: Iterable[Step]) -> HealMemory:
        """These are under way."""
        begun = frozenset(steps)
        broken = {one.sid for one in begun if isinstance(one, Break)}
        return replace(self, at_work=self.at_work | begun, broken=self.broken | broken)

    def end_scout(
        self,
        step: Scout,
        sights: Iterable[Sight],
        *,
        is_silent: bool,
        is_dark: bool = True,
        now: float,
        limits: HealLimits,
        jitter: float,
    ) -> HealMemory:
        """A portal was asked. ``is_dark``: nothing at all came back, not even a refusal."""
        rest = replace(self, at_work=self.at_work - {step})
        if not is_silent:
            # Else a target that is gone would be asked for without a pause.
            is_news = step.portal in self.silent or step.portal in self.signs
            return _answered(rest, step.portal, sights, now, is_news=is_news)
        return replace(
            rest,
            silent=self.silent | {step.portal},
            answering=self.answering - {step.portal},
            scouts=_later(self.scouts, step.portal, now, limits, jitter),
            signs=self.signs if is_dark else _without(self.signs, {step.portal}),
        )

    def end_completion(
        self, step: Complete, *, is_better: bool, now: float, limits: HealLimits, jitter: float
    ) -> HealMemory:
        """A connection was completed as far as it went; ``is_better``: a path more is live."""
        before = _without(self.completions, {step.key}) if is_better else self.completions
        return replace(
            self,
            at_work=self.at_work - {step},
            asked=self.asked - {step.key},
            stale=self.stale | {step.key},
            completions=_later(before, step.key, now, limits, jitter),
            # If it lacks a path there still, the portal is asked before the next login.
            answering=self.answering if is_better else self.answering - step.portals,
        )

    def end_upkeep(
        self, step: StopQueueing | KeepUp | Break, *, now: float, limits: HealLimits, jitter: float
    ) -> HealMemory:
        """A map was seen to, or a session broken."""
        rest = replace(self, at_work=self.at_work - {step})
        if isinstance(step, Break):
            return rest
        upkeep = _later(self.upkeep, step.key, now, limits, jitter)
        return replace(rest, upkeep=upkeep, stale=self.stale | {step.key})


def _answered(
    memory: HealMemory,
    portal: Portal,
    sights: Iterable[Sight],
    now: float,
    *,
    is_news: bool,
) -> HealMemory:
    completions = dict(memory.completions)
    if is_news:
        keys = (one.key for one in sights if portal in one.lacking_portals)
        completions |= dict.fromkeys(keys, Patience(0, now))
    return replace(
        memory,
        silent=memory.silent - {portal},
        answering=memory.answering | {portal},
        scouts=_with(memory.scouts, portal, Patience(0, now)),
        completions=MappingProxyType(completions),
        signs=_without(memory.signs, {portal}),
    )


# -- parts -------------------------------------------------------------------------------------


def _due_at(known: _Patiences[K], key: K) -> float:
    return known[key].due_at if key in known else float("-inf")


def _later(
    known: _Patiences[K], key: K, now: float, limits: HealLimits, jitter: float
) -> _Patiences[K]:
    failures = known[key].failures + 1 if key in known else 1
    return _with(known, key, Patience(failures, now + limits.pause_s(failures, jitter)))


def _only(known: _Patiences[K], wanted: Iterable[K], now: float) -> _Patiences[K]:
    """Keep what is wanted, and let what is new begin now: whoever waits longest is first."""
    return MappingProxyType({key: known.get(key, Patience(0, now)) for key in wanted})


def _with(known: Mapping[K, V], key: K, value: V) -> Mapping[K, V]:
    return MappingProxyType({**known, key: value})


def _without(known: Mapping[K, V], keys: Iterable[K]) -> Mapping[K, V]:
    gone = set(keys)
    return MappingProxyType({key: value for key, value in known.items() if key not in gone})
