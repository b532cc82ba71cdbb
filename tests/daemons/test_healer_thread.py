"""The healer's threads: steps are begun and ended as planned, whatever they run into.

Its eyes and hands are played; its ears are real, and hear nothing of these connections.
"""

from __future__ import annotations

import contextlib
import threading
from collections.abc import Callable, Iterator
from dataclasses import replace

import pytest

from lunport.agent.heal_acts import PortalNews
from lunport.agent.healer import Healer
from lunport.core.change import Change
from lunport.core.errors import HostLacks
from lunport.core.heal_memory import HealLimits, Scout, Sight
from lunport.core.iqn import Iqn
from lunport.core.path_status import PathState, PathStatus, VolumePaths
from lunport.core.portal import Portal
from lunport.core.target_path import TargetPath
from lunport.host.clock import Deadline
from lunport.host.tasks import Stop
from lunport.initiator.connector import Initiator

WAIT_S = 20.0
ONE, TWO = Portal("10.0.1.2"), Portal("10.0.2.2")
LIMITS = HealLimits(for_each_portal=2, first_pause_s=0.02, longest_pause_s=0.1)


def sight(key: str, second: PathState) -> Sight:
    """A connection whose first path is live."""
    iqn = Iqn(f"iqn.2026-11.example:{key}")
    paths = tuple(
        PathStatus(TargetPath(portal, iqn, 1), "default", state, sid=number)
        for number, (portal, state) in enumerate([(ONE, PathState.LIVE), (TWO, second)])
    )
    return Sight(VolumePaths(key, None, None, "dm-0", "mpatha", None, 2, paths))


class PlayedHands:
    """Connections that each lack a path, which a completion brings in."""

    def __init__(self, *keys: str) -> None:
        self.changed = threading.Condition()
        self.sights = {key: sight(key, PathState.MISSING) for key in keys}
        self.news: list[PortalNews] = []
        self.scouts = 0
        self.looks = 0
        self.completed: list[str] = []
        self.at_once = [0]
        self.failures: list[Exception] = []
        self.gate = threading.Event()
        self.gate.set()

    def look(self) -> tuple[Sight, ...]:
        with self.changed:
            self.looks += 1
            self.changed.notify_all()
            self._fail()
            return tuple(self.sights.values())

    def scout(self, step: Scout, stop: Stop) -> PortalNews:
        with self.changed:
            self.scouts += 1
            self.changed.notify_all()
            self._fail()
            return self.news.pop(0) if self.news else PortalNews.ANSWERS

    def complete(self, key: str) -> int:
        with self.changed:
            self.completed.append(key)
            self.at_once.append(self.at_once[-1] + 1)
            self.changed.notify_all()
        self.gate.wait(WAIT_S)
        with self.changed:
            self.at_once.append(self.at_once[-1] - 1)
            self._fail()
            self.sights[key] = sight(key, PathState.LIVE)
            self.changed.notify_all()
        return 2

    def break_off(self, sid: int) -> Change:
        raise AssertionError(sid)

    def stop_queueing(self, key: str) -> None:
        raise AssertionError(key)

    def keep_up(self, key: str) -> None:
        with self.changed:
            self.sights[key] = replace(self.sights[key], is_kept=True)
            self.changed.notify_all()

    def _fail(self) -> None:
        if self.failures:
            raise self.failures.pop(0)

    def await_that(self, condition: Callable[[], object]) -> None:
        """Wait until something holds."""
        with self.changed:
            assert self.changed.wait_for(condition, WAIT_S)

    def is_whole(self) -> bool:
        """Tell whether nothing is missing."""
        return not any(one.lacking for one in self.sights.values())


@contextlib.contextmanager
def healing(hands: PlayedHands) -> Iterator[Healer]:
    """Let a healer run."""
    healer = Healer(Initiator(), limits=LIMITS, hands=hands)
    healer.start()
    try:
        yield healer
    finally:
        hands.gate.set()
        healer.stop(WAIT_S)
        healer.stop()
        assert not [one for one in threading.enumerate() if one.name.startswith("heal")]


def test_what_is_missing_is_brought_in_a_few_at_a_time() -> None:
    """Nine connections are all completed by themselves, never more than two at once."""
    hands = PlayedHands(*(f"v{number}" for number in range(9)))
    hands.gate.clear()
    with healing(hands):
        hands.await_that(lambda: hands.at_once[-1] == 2)
        hands.gate.set()
        hands.await_that(hands.is_whole)
    assert max(hands.at_once) == 2
    assert sorted(hands.completed) == sorted(hands.sights)
    assert hands.scouts >= 1


def test_a_silent_portal_is_asked_until_it_answers() -> None:
    """Nothing is completed before a scout has brought good news."""
    hands = PlayedHands("a")
    hands.news = [PortalNews.DARK, PortalNews.REFUSES, PortalNews.DARK]
    with healing(hands):
        hands.await_that(hands.is_whole)
    assert hands.scouts >= 4
    assert hands.completed == ["a"]


def test_what_a_connect_leaves_is_taken_at_once() -> None:
    """A connection that is put is completed, though its portal was silent a moment ago."""
    hands = PlayedHands("a")
    hands.news = [PortalNews.DARK] * 10_000
    with healing(hands) as healer:
        hands.await_that(lambda: hands.scouts >= 1)
        healer.put("a")
        hands.await_that(lambda: hands.sights["a"].volume.live == 1)
        hands.news.clear()
        hands.await_that(hands.is_whole)


@pytest.mark.parametrize("count", [1, 3])
def test_failures_are_no_end(count: int) -> None:
    """Whatever a look, a scout or a completion raises, the next one comes."""
    hands = PlayedHands("a")
    lacks = HostLacks("Cannot do it", "no room", "make some")
    hands.failures = [lacks, OSError(24, "Too many open files"), lacks][:count]
    with healing(hands) as healer:
        deadline = Deadline.after(WAIT_S)
        while not hands.is_whole() and not deadline.has_passed():
            healer.wake("a")
            with hands.changed:
                hands.changed.wait(0.05)
    assert hands.is_whole()


def test_settings_that_are_not_ours_are_put_back() -> None:
    """A map whose settings somebody changed is seen to."""
    hands = PlayedHands()
    hands.sights = {"a": replace(sight("a", PathState.LIVE), is_kept=False)}
    with healing(hands):
        hands.await_that(lambda: hands.sights["a"].is_kept)


def test_an_end_does_not_wait_for_what_hangs() -> None:
    """While a completion hangs, stopping returns at its own bound; the rest ends with it."""
    hands = PlayedHands("a")
    hands.gate.clear()
    with healing(hands) as healer:
        hands.await_that(lambda: hands.completed)
        healer.stop(0.1)
        assert [one.name for one in threading.enumerate() if one.name.startswith("heal")] == [
            "heal:Complete"
        ]
