"""The plan of healing: bounded, fair, never a storm, and soon enough after a portal's return."""

from __future__ import annotations

import heapq
import itertools
import random
from collections import Counter
from collections.abc import Callable, Sequence
from dataclasses import dataclass, field, replace

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

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
from lunport.core.heal_plan import plan_healing
from lunport.core.iqn import Iqn
from lunport.core.path_status import PathState, PathStatus, VolumePaths
from lunport.core.portal import Portal
from lunport.core.target_path import TargetPath

LIMITS = HealLimits()
PORTALS = tuple(Portal(f"10.0.{number}.2") for number in range(1, 5))
ONE, TWO, THREE, FOUR = PORTALS
BACK_S = 30.0
SCOUT_S = 2.0
COMPLETION_S = 0.5


def volume(
    name: str, states: dict[Portal, PathState], *, wanted: int | None = None, sid: int = 1
) -> VolumePaths:
    """Make a volume whose paths through these portals are so."""
    return VolumePaths(
        key=name,
        volume_id=None,
        wwid=None,
        device="dm-0",
        map_name="mpatha",
        size_bytes=None,
        wanted=len(states) if wanted is None else wanted,
        paths=tuple(
            PathStatus(
                TargetPath(portal, Iqn(f"iqn.2026-11.example:{name}"), 1),
                "default",
                state,
                sid=sid + number,
            )
            for number, (portal, state) in enumerate(states.items())
        ),
    )


LIVE, FAILED, MISSING, SPARE = (
    PathState.LIVE,
    PathState.FAILED,
    PathState.MISSING,
    PathState.SPARE,
)
HALF = Sight(volume("a", {ONE: LIVE, TWO: FAILED}))


def steps(sights: Sequence[Sight], memory: HealMemory, now: float) -> tuple[Step, ...]:
    """Plan, after a look."""
    return plan_healing(sights, memory.look(sights, now, LIMITS), now, LIMITS).steps


def scout(sight: Sight, portal: Portal) -> Scout:
    """Return the scout that goes by a connection's path."""
    path = next(one.path for one in sight.volume.paths if one.path.portal == portal)
    return Scout(portal, path, sight.key)


def scouted(memory: HealMemory, sights: Sequence[Sight], step: Scout, **how: bool) -> HealMemory:
    """Let a scout end at the tenth second."""
    begun = memory.look(sights, 10.0, LIMITS).begin([step])
    is_silent, is_dark = how.get("is_silent", True), how.get("is_dark", True)
    return begun.end_scout(
        step, sights, is_silent=is_silent, is_dark=is_dark, now=10.0, limits=LIMITS, jitter=0.5
    )


# -- one thing after the other -----------------------------------------------------------------


def test_nothing_is_done_where_all_is_well() -> None:
    """Volumes whose wanted paths are live need no step and no moment."""
    sights = [
        Sight(volume("a", {ONE: LIVE, TWO: LIVE})),
        Sight(volume("b", {ONE: LIVE, TWO: SPARE}, wanted=1)),
        Sight(volume("c", {ONE: MISSING}), has_map=False),
    ]
    plan = plan_healing(sights, HealMemory().look(sights, 0.0, LIMITS), 0.0, LIMITS)
    assert (plan.steps, plan.next_at) == ((), None)


def test_one_scout_asks_for_all() -> None:
    """However many volumes lack a path at a portal, one of them asks whether it answers."""
    sights = [Sight(volume(name, {ONE: LIVE, TWO: MISSING})) for name in "abcdef"]
    assert steps(sights, HealMemory(), 0.0) == (scout(sights[0], TWO),)
    begun = HealMemory().begin([scout(sights[0], TWO)])
    assert steps(sights, begun, 0.0) == ()


def test_a_portal_that_answers_lets_its_volumes_in_a_few_at_a_time() -> None:
    """After the scout's news, four connections are completed, and no fifth before one ends."""
    sights = [Sight(volume(name, {ONE: LIVE, TWO: MISSING})) for name in "abcdef"]
    memory = scouted(HealMemory(), sights, scout(sights[0], TWO), is_silent=False)
    first = steps(sights, memory, 10.0)
    assert first == tuple(Complete(name, frozenset({TWO})) for name in "abcd")
    memory = memory.begin(first)
    assert steps(sights, memory, 11.0) == ()
    one = first[0]
    assert isinstance(one, Complete)
    memory = memory.end_completion(one, is_better=True, now=12.0, limits=LIMITS, jitter=0.0)
    assert steps(sights, memory, 12.0) == (Complete("e", frozenset({TWO})),)


def test_what_was_done_is_looked_at_before_it_is_done_again() -> None:
    """A connection that was just completed is not completed again by what was seen before."""
    step = Complete("a", frozenset({TWO}))
    memory = HealMemory().look([HALF], 0.0, LIMITS).ask_for("a").begin([step])
    memory = memory.end_completion(step, is_better=True, now=0.0, limits=LIMITS, jitter=0.0)
    memory = memory.ask_for("a")
    assert step not in plan_healing([HALF], memory, 9.0, LIMITS).steps
    assert step in steps([HALF], memory, 9.0)


def test_a_silent_portal_gets_no_login() -> None:
    """While a portal is silent nothing but a scout goes there, and not before its moment."""
    memory = scouted(HealMemory(), [HALF], scout(HALF, TWO))
    plan = plan_healing([HALF], memory, 10.0, LIMITS)
    assert plan.steps == ()
    assert plan.next_at == pytest.approx(10.0 + LIMITS.pause_s(1, 0.5))
    assert plan.next_at is not None
    assert steps([HALF], memory, plan.next_at) == (scout(HALF, TWO),)


def test_a_connection_that_moves_chooses_at_once() -> None:
    """One that wants a single path and has none is completed without waiting for a scout."""
    lost = Sight(volume("a", {ONE: FAILED, TWO: MISSING, THREE: MISSING}, wanted=1))
    planned = steps([lost], HealMemory(), 0.0)
    assert Complete("a", frozenset({ONE, TWO, THREE})) in planned
    kept = Sight(volume("a", {ONE: FAILED, TWO: LIVE, THREE: SPARE}, wanted=1))
    assert steps([kept], HealMemory(), 0.0) == ()


def test_one_that_is_asked_for_is_completed_at_once() -> None:
    """What a connect leaves to us does not wait for scouts, nor for the pause of an earlier try."""
    memory = HealMemory()
    step = Complete("a", frozenset({TWO}))
    begun = memory.look([HALF], 0.0, LIMITS).begin([step])
    tried = begun.end_completion(step, is_better=False, now=0.0, limits=LIMITS, jitter=0.0)
    assert step not in steps([HALF], tried, 0.1)
    assert steps([HALF], tried.ask_for("a"), 0.1) == (step,)
    silent = scouted(HealMemory(), [HALF], scout(HALF, TWO)).ask_for("a")
    assert steps([HALF], silent, 10.0) == (step,)


def test_a_target_that_is_gone_is_not_asked_for_without_a_pause() -> None:
    """A portal that answers does not shorten the pauses of a connection that fails there."""
    step = Complete("a", frozenset({TWO}))
    memory, now, tries, scouts = HealMemory(), 0.0, [], 0
    while now < 60.0:
        memory = memory.look([HALF], now, LIMITS)
        plan = plan_healing([HALF], memory, now, LIMITS)
        memory = memory.begin(plan.steps)
        for one in plan.steps:
            if isinstance(one, Scout):
                scouts += 1
                memory = memory.end_scout(
                    one, [HALF], is_silent=False, now=now, limits=LIMITS, jitter=0.0
                )
            else:
                assert one == step
                tries.append(now)
                memory = memory.end_completion(
                    step, is_better=False, now=now, limits=LIMITS, jitter=0.0
                )
        if not plan.steps:
            assert plan.next_at is not None
            now = plan.next_at
    pauses = [later - earlier for earlier, later in itertools.pairwise(tries)]
    assert pauses == sorted(pauses)
    assert pauses[:4] == [1.0, 2.0, 4.0, 8.0]
    assert scouts >= len(tries), "the portal is asked before each try"


def test_a_login_is_news() -> None:
    """When a session logs in again, its volumes are completed without the rest of their pause."""
    step = Complete("a", frozenset({TWO}))
    memory = HealMemory().look([HALF], 0.0, LIMITS).begin([step])
    memory = memory.end_completion(step, is_better=False, now=0.0, limits=LIMITS, jitter=0.0)
    memory = memory.hear_login(TWO, [HALF], 0.2)
    assert steps([HALF], memory, 0.2) == (step,)


# -- sessions to a silent portal ---------------------------------------------------------------


def test_sessions_to_a_portal_that_went_silent_are_broken() -> None:
    """Of a portal at which one session broke and nothing answers, the others are broken too."""
    other = Sight(volume("b", {ONE: LIVE, TWO: LIVE}, sid=11))
    memory = HealMemory().hear_trouble(TWO, 9.0)
    assert steps([HALF, other], memory, 9.0) == (scout(HALF, TWO),)
    silent = scouted(memory, [HALF, other], scout(HALF, TWO))
    assert steps([HALF, other], silent, 10.0) == (Break(12, TWO),)
    done = silent.begin([Break(12, TWO)])
    assert steps([HALF, other], done, 10.0) == (), "once is enough"
    assert not any(isinstance(one, Break) for one in steps([HALF, other], silent, 60.0))


@pytest.mark.parametrize(
    "other",
    [
        Sight(volume("b", {TWO: LIVE}, sid=2), has_map=False),
        Sight(volume("b", {ONE: MISSING, TWO: LIVE}, sid=1)),
        Sight(volume("b", {ONE: FAILED, TWO: LIVE}, wanted=1, sid=1)),
    ],
)
def test_a_session_that_somebody_depends_on_is_left_alone(other: Sight) -> None:
    """The only live path of any volume is not broken, whatever the scout says."""
    sharing = Sight(volume("a", {ONE: LIVE, TWO: LIVE}, sid=1))
    silent = scouted(HealMemory().hear_trouble(TWO, 9.0), [sharing], scout(sharing, TWO))
    assert Break(2, TWO) in steps([sharing], silent, 10.0)
    assert Break(2, TWO) not in steps([sharing, other], silent, 10.0)


def test_a_refusal_breaks_nothing() -> None:
    """A portal that refuses is alive: its other sessions may be as well."""
    sharing = Sight(volume("a", {ONE: LIVE, TWO: LIVE}))
    memory = HealMemory().hear_trouble(TWO, 9.0)
    refused = scouted(memory, [sharing], scout(sharing, TWO), is_dark=False)
    assert steps([sharing], refused, 10.0) == ()
    without_sign = scouted(HealMemory(), [sharing], scout(sharing, TWO))
    assert steps([sharing], without_sign, 10.0) == ()


# -- maps --------------------------------------------------------------------------------------


def test_queueing_ends_at_its_bound() -> None:
    """A map without a live path goes on queueing until its bound, and not a moment longer."""
    down = volume("a", {ONE: FAILED, TWO: FAILED})
    seen = Sight(down, queue_s=20.0, queues=True, down_at=5.0)
    memory = HealMemory().look([seen], 6.0, LIMITS)
    plan = plan_healing([seen], memory, 6.0, LIMITS)
    assert StopQueueing("a") not in plan.steps
    memory = memory.begin(plan.steps)  # both portals are asked; then only the bound is left
    plan = plan_healing([seen], memory, 7.0, LIMITS)
    assert (plan.steps, plan.next_at) == ((), 25.0)
    assert plan_healing([seen], memory, 25.0, LIMITS).steps == (StopQueueing("a"),)
    failing = replace(seen, queues=False)
    assert plan_healing([failing], memory, 25.0, LIMITS).steps == ()
    begun = memory.begin([StopQueueing("a")])
    assert plan_healing([seen], begun, 25.0, LIMITS).steps == ()


def test_what_others_changed_is_put_back_with_pauses() -> None:
    """Settings that are not ours are set, and set again only after a pause that grows."""
    changed = Sight(volume("a", {ONE: LIVE, TWO: LIVE}), is_kept=False)
    memory, now, moments = HealMemory(), 0.0, []
    for _ in range(6):
        memory = memory.look([changed], now, LIMITS)
        plan = plan_healing([changed], memory, now, LIMITS)
        if plan.steps:
            assert plan.steps == (KeepUp("a"),)
            moments.append(now)
            memory = memory.begin(plan.steps).end_upkeep(
                KeepUp("a"), now=now, limits=LIMITS, jitter=0.0
            )
        else:
            assert plan.next_at is not None
            now = plan.next_at
    assert moments == [0.0, 1.0, 3.0]


# -- pauses ------------------------------------------------------------------------------------

jitters = st.floats(0.0, 1.0)


@given(st.integers(1, 10_000), jitters)
def test_pauses_grow_and_are_bounded(failures: int, jitter: float) -> None:
    """No pause is shorter than the one before, and none lets a return go unnoticed."""
    pause_s = LIMITS.pause_s(failures, jitter)
    assert LIMITS.first_pause_s <= pause_s <= LIMITS.longest_pause_s * (1 + LIMITS.jitter)
    assert pause_s <= LIMITS.pause_s(failures + 1, jitter)
    assert pause_s + SCOUT_S + LIMITS.longest_pause_s * (1 + LIMITS.jitter) < BACK_S


# -- a world in which portals come and go ------------------------------------------------------


@dataclass
class World:
    """Volumes behind portals of which some are dead, and a healer that takes its time."""

    names: Sequence[str]
    portals_of: Callable[[str], Sequence[Portal]]
    jitter: random.Random
    now: float = 0.0
    dead: set[Portal] = field(default_factory=set)
    lost: set[tuple[str, Portal]] = field(default_factory=set)
    memory: HealMemory = field(default_factory=HealMemory)
    work: list[tuple[float, int, Step]] = field(default_factory=list)
    begun: int = 0
    logins: Counter[Portal] = field(default_factory=Counter)

    def sights(self) -> list[Sight]:
        return [
            Sight(
                volume(
                    name,
                    {
                        portal: MISSING if (name, portal) in self.lost else LIVE
                        for portal in self.portals_of(name)
                    },
                )
            )
            for name in self.names
        ]

    def die(self, portal: Portal) -> None:
        self.dead.add(portal)
        self.lost |= {(name, portal) for name in self.names if portal in self.portals_of(name)}

    def run(self, until: float) -> None:
        """Plan, and let steps end, until a moment."""
        while self.now < until:
            sights = self.sights()
            self.memory = self.memory.look(sights, self.now, LIMITS)
            plan = plan_healing(sights, self.memory, self.now, LIMITS)
            self.check(sights, plan.steps, plan.next_at)
            self.memory = self.memory.begin(plan.steps)
            for step in plan.steps:
                self.begun += 1
                heapq.heappush(self.work, (self.now + self.lasts_s(step), self.begun, step))
            moments = [until, *(at for at, *_ in self.work[:1])]
            if plan.next_at is not None:
                moments.append(plan.next_at)
            self.now = max(self.now, min(moments))
            while self.work and self.work[0][0] <= self.now:
                self.end(heapq.heappop(self.work)[2])

    def lasts_s(self, step: Step) -> float:
        if isinstance(step, Scout):
            return SCOUT_S if step.portal in self.dead else 0.05
        return COMPLETION_S

    def end(self, step: Step) -> None:
        jitter = self.jitter.random()
        if isinstance(step, Scout):
            self.memory = self.memory.end_scout(
                step,
                self.sights(),
                is_silent=step.portal in self.dead,
                now=self.now,
                limits=LIMITS,
                jitter=jitter,
            )
        elif isinstance(step, Complete):
            back = {(step.key, portal) for portal in self.portals_of(step.key)} & self.lost
            back = {one for one in back if one[1] not in self.dead}
            self.lost -= back
            self.memory = self.memory.end_completion(
                step, is_better=bool(back), now=self.now, limits=LIMITS, jitter=jitter
            )

    def check(
        self, sights: Sequence[Sight], planned: Sequence[Step], next_at: float | None
    ) -> None:
        work = [step for _, _, step in self.work] + list(planned)
        completions = [step for step in work if isinstance(step, Complete)]
        scouts = Counter(step.portal for step in work if isinstance(step, Scout))
        logins = Counter(portal for step in completions for portal in step.portals)
        assert len(completions) <= LIMITS.completions
        assert max(logins.values(), default=0) <= LIMITS.for_each_portal
        assert max(scouts.values(), default=0) <= 1
        assert len({step.key for step in completions}) == len(completions)
        assert next_at is None or self.now < next_at <= self.now + BACK_S
        if any(one.lacking for one in sights) and not work:
            assert next_at is not None, "something is missing, and nobody will look again"


@settings(deadline=None, max_examples=60)
@given(
    st.integers(1, 40),
    st.lists(st.tuples(st.sampled_from(PORTALS), st.floats(0.5, 40.0)), max_size=8),
    st.integers(0, 2**32),
)
def test_all_is_back_soon_after_the_last_portal_is(
    count: int, outages: list[tuple[Portal, float]], seed: int
) -> None:
    """Whatever came and went: never too much at once, and 30 s after the return all is live."""
    names = [f"v{number:02}" for number in range(count)]
    world = World(names, lambda name: PORTALS[int(name[1:]) % 2 :: 2], random.Random(seed))
    for portal, lasts_s in outages:
        world.die(portal)
        world.run(world.now + lasts_s)
        world.dead.discard(portal)
    world.run(world.now + BACK_S)
    assert world.lost == set()


@settings(deadline=None, max_examples=40)
@given(st.integers(1, 30), st.integers(0, 2**32))
def test_nobody_waits_for_ever_behind_portals_that_flap(count: int, seed: int) -> None:
    """While two portals come and go each second, volumes of a third that returned are served."""
    names = [f"v{number:02}" for number in range(count)] + ["w"]
    portals = dict.fromkeys(names, (ONE, TWO, FOUR)) | {"w": (ONE, THREE, FOUR)}
    world = World(names, lambda name: portals[name], random.Random(seed))
    for portal in (ONE, TWO, THREE):
        world.die(portal)
    world.run(20.0)
    world.dead.discard(THREE)
    back_at = world.now
    while ("w", THREE) in world.lost and world.now < back_at + BACK_S:
        for portal in (ONE, TWO):
            world.dead.discard(portal)
        world.run(world.now + 0.7)
        for portal in (ONE, TWO):
            world.die(portal)
        world.run(world.now + 0.3)
    assert ("w", THREE) not in world.lost


def test_an_outage_of_hours_costs_one_scout_in_some_seconds() -> None:
    """Fifty volumes behind a dead portal send it no more than one connection in eight seconds."""
    names = [f"v{number:02}" for number in range(50)]
    world = World(names, lambda _: (ONE, TWO), random.Random(1))
    world.die(TWO)
    world.run(60.0)
    before = world.begun
    world.run(3660.0)
    assert world.begun - before <= 3600 / LIMITS.longest_pause_s
