"""Bring lost paths back, as long as the agent lives.

    kernel's events, ends of steps, wishes, the plan's next moment
        -> look at all connections -> plan (core/heal_plan.py) -> steps, each in a thread

One thread looks and plans; it sleeps until something happens. Events say that something
happened, a look says what: a lost event costs time, never a path. Without any event it looks
once a minute. It adds and nudges only.

Nothing asks iscsid to hurry. What comes late without help is the path in the map, which
multipathd looks at every 5 to 20 s: that is what is nudged.

Quirk(open-iscsi): iscsid tries a broken session again two seconds after it broke, then at least
every three, or every ``login_timeout`` while nothing answers, for ever; ``iscsiadm -R`` does not
hasten that, and killing its half-open socket only makes it wait those three seconds
(usr/initiator.c, __session_conn_reopen, session_conn_poll; 2.1.8).
"""

from __future__ import annotations

import contextlib
import functools
import logging
import math
import random
import select
import threading
import time
from collections import deque
from collections.abc import Callable
from typing import Final, Protocol

from lunport.agent.heal_acts import HealActs, PortalNews, portals_of
from lunport.core.change import Change
from lunport.core.errors import HostLacks, LunportError
from lunport.core.heal_memory import (
    Break,
    Complete,
    HealLimits,
    HealMemory,
    KeepUp,
    Scout,
    Sight,
    Step,
)
from lunport.core.heal_plan import plan_healing
from lunport.core.iscsi_event import IscsiEventKind
from lunport.core.path_status import VolumePaths
from lunport.host.bell import Bell
from lunport.host.clock import Deadline
from lunport.host.iscsi_events import IscsiEvents
from lunport.host.tasks import Stop
from lunport.host.uevents import Uevent, Uevents
from lunport.initiator.connector import Initiator

_LOG = logging.getLogger(__name__)

_BELT_S: Final = 60.0
_STOP_S: Final = 8.0
_AFTER_LOGIN_S: Final = 0.3  # from a login's answer until the session has it
_LOOK_PAUSE_S: Final = 0.1
_LOOK_SHARE: Final = 4.0  # after a look that took long, a pause that much longer
_LONGEST_LOOK_PAUSE_S: Final = 2.0

Heal = Callable[[HealMemory, float, float], HealMemory]
OnLook = Callable[[tuple[VolumePaths, ...]], None]


class HealHands(Protocol):
    """What is used of :class:`~lunport.agent.heal_acts.HealActs`."""

    def look(self) -> tuple[Sight, ...]:
        """Look at every connection."""

    def scout(self, step: Scout, stop: Stop) -> PortalNews:
        """Ask whether a portal answers."""

    def complete(self, key: str) -> int:
        """Bring a connection's missing paths in; return how many are live then."""

    def break_off(self, sid: int) -> Change:
        """Kill the connection of a session."""

    def stop_queueing(self, key: str) -> None:
        """Let the I/O of a map fail."""

    def keep_up(self, key: str) -> None:
        """Put the settings of a map and its sessions back to ours."""


class Healer:
    """The healer of one host. ``on_look`` gets what each look saw, and must not wait."""

    def __init__(
        self,
        initiator: Initiator,
        *,
        on_look: OnLook | None = None,
        limits: HealLimits | None = None,
        hands: HealHands | None = None,
    ) -> None:
        self._hands: HealHands = HealActs(initiator) if hands is None else hands
        self._on_look = on_look
        self._limits = limits or HealLimits()
        self._bell = Bell()
        self._stop = Stop()
        self._wishes: deque[str] = deque()
        self._ended: deque[Heal] = deque()
        self._thread = threading.Thread(target=self._run, name="healer", daemon=True)
        self._workers: set[threading.Thread] = set()
        self._is_closed = False
        # Below: the healer's thread alone.
        self._memory = HealMemory()
        self._sights: tuple[Sight, ...] = ()
        self._look_at = 0.0
        self._not_before = 0.0
        self._random = random.Random()  # noqa: S311 - it spreads tries, and hides nothing

    def start(self) -> None:
        """Begin; returns at once."""
        self._thread.start()

    def stop(self, within_s: float = _STOP_S) -> None:
        """End; what does not end in time is cut off with the process. Idempotent."""
        if self._is_closed:
            return
        deadline = Deadline.after(within_s)
        self._stop.set()
        self._bell.ring()
        if self._thread.is_alive():
            self._thread.join(deadline.remaining_s())
        for worker in tuple(self._workers):
            worker.join(deadline.remaining_s())
        if not self._thread.is_alive() and not self._workers:
            self._is_closed = True
            self._bell.close()
            self._stop.close()

    def put(self, key: str) -> None:
        """Complete a connection now, and look after it from now on. Never waits."""
        self._wishes.append(key)
        if not self._stop.is_set():
            self._bell.ring()

    def wake(self, key: str) -> None:
        """Try a connection now that somebody has reason to try. Never waits."""
        self.put(key)

    # -- the thread --------------------------------------------------------------------------

    def _run(self) -> None:
        with contextlib.ExitStack() as stack:
            uevents = stack.enter_context(Uevents())
            events = _listening(stack)
            if events is None:
                _LOG.warning("no_iscsi_events yet, device events alone")
            while not self._stop.is_set():
                events = events or self._listening_late(stack)
                self._take_news()
                self._look_if_due()
                self._wait(uevents, events, self._begin_due())

    def _listening_late(self, stack: contextlib.ExitStack) -> IscsiEvents | None:
        """Try again, now and then: the kernel's iSCSI layer may be loaded by now."""
        if time.monotonic() < self._look_at:
            return None
        return _listening(stack)

    def _begin_due(self) -> float:
        """Begin what is due; return the moment of the next plan."""
        now = time.monotonic()
        plan = plan_healing(self._sights, self._memory, now, self._limits)
        self._memory = self._memory.begin(plan.steps)
        for step in plan.steps:
            self._begin(step)
        return math.inf if plan.next_at is None else plan.next_at

    def _take_news(self) -> None:
        while self._ended:
            heal = self._ended.popleft()
            self._memory = heal(self._memory, time.monotonic(), self._random.random())
        while self._wishes:
            self._memory = self._memory.ask_for(self._wishes.popleft())
            self._look_at = 0.0

    def _look_if_due(self) -> None:
        began = time.monotonic()
        if began < max(self._look_at, self._not_before):
            return
        self._look_at = began + _BELT_S
        try:
            self._sights = self._hands.look()
            if self._on_look is not None:
                self._on_look(tuple(one.volume for one in self._sights))
        except (LunportError, OSError) as error:
            _LOG.error("paths_not_seen error=%s", error)
            self._look_at = began + self._limits.longest_pause_s
        now = time.monotonic()
        pause_s = max(_LOOK_PAUSE_S, min(_LONGEST_LOOK_PAUSE_S, _LOOK_SHARE * (now - began)))
        self._not_before = now + pause_s
        self._memory = self._memory.look(self._sights, now, self._limits)

    def _look_soon(self, at: float = 0.0) -> None:
        self._look_at = min(self._look_at, at)

    # -- waiting -----------------------------------------------------------------------------

    def _wait(self, uevents: Uevents, events: IscsiEvents | None, next_at: float) -> None:
        """Wait for news that matters, or the next moment."""
        poller = select.poll()
        for source in (self._bell, uevents, events):
            if source is not None:
                poller.register(source, select.POLLIN)
        is_over = False
        while not is_over and not self._stop.is_set():
            at = min(next_at, max(self._look_at, self._not_before))
            ready = poller.poll(max(0.0, at - time.monotonic()) * 1000 + 1)
            heard = [self._bell.fileno() in dict(ready), self._hear(uevents, events)]
            self._bell.hear()
            is_over = any(heard) or time.monotonic() >= at

    def _hear(self, uevents: Uevents, events: IscsiEvents | None) -> bool:
        """Take what the kernel said; tell whether it matters."""
        uevents.wait(_nothing, Deadline.after(0.0))  # reads what there is, without waiting
        matters = uevents.lost
        matters = any(map(_matters, uevents.take())) or matters
        if events is not None:
            portals = portals_of(self._sights)
            now = time.monotonic()
            for event in events.take():
                matters = True
                portal = portals.get(event.sid)
                if event.kind is IscsiEventKind.ERROR and portal is not None:
                    self._memory = self._memory.hear_trouble(portal, now)
                elif event.kind is IscsiEventKind.LOGIN:
                    self._look_soon(now + _AFTER_LOGIN_S)
                    if portal is not None:
                        self._memory = self._memory.hear_login(portal, self._sights, now)
            matters = matters or events.lost
        if matters:
            self._look_soon()
        return matters

    # -- steps -------------------------------------------------------------------------------

    def _begin(self, step: Step) -> None:
        name = f"heal:{type(step).__name__}"
        worker = threading.Thread(target=self._work, args=(step,), name=name, daemon=True)
        self._workers.add(worker)
        worker.start()

    def _work(self, step: Step) -> None:
        end = self._unfinished(step)
        try:
            end = self._done(step)
        except (LunportError, OSError) as error:
            _LOG.warning("not_healed step=%s error=%s", step, error)
        finally:
            # Also where it failed by a fault of ours: what is under way for ever is never tried.
            self._ended.append(end)
            self._bell.ring()
            self._workers.discard(threading.current_thread())

    def _done(self, step: Step) -> Heal:
        """Carry a step out; return what it means for the memory."""
        hands, limits = self._hands, self._limits
        if isinstance(step, Scout):
            return functools.partial(self._scouted, step, hands.scout(step, self._stop))
        if isinstance(step, Complete):
            before = self._live(step.key)
            is_better = hands.complete(step.key) > before
            return lambda memory, now, jitter: self._acted(
                memory.end_completion(
                    step, is_better=is_better, now=now, limits=limits, jitter=jitter
                )
            )
        if isinstance(step, Break):
            hands.break_off(step.sid)
        elif isinstance(step, KeepUp):
            hands.keep_up(step.key)
        else:
            hands.stop_queueing(step.key)
        return self._unfinished(step)

    def _unfinished(self, step: Step) -> Heal:
        limits = self._limits
        if isinstance(step, Scout):
            return functools.partial(self._scouted, step, PortalNews.REFUSES)
        if isinstance(step, Complete):
            return lambda memory, now, jitter: self._acted(
                memory.end_completion(step, is_better=False, now=now, limits=limits, jitter=jitter)
            )
        return lambda memory, now, jitter: self._acted(
            memory.end_upkeep(step, now=now, limits=limits, jitter=jitter)
        )

    def _scouted(
        self, step: Scout, news: PortalNews, memory: HealMemory, now: float, jitter: float
    ) -> HealMemory:
        if news is not PortalNews.ANSWERS and step.portal not in memory.silent:
            _LOG.warning("portal_silent portal=%s", step.portal)
        elif news is PortalNews.ANSWERS and step.portal in memory.silent:
            _LOG.info("portal_answers portal=%s", step.portal)
        self._look_soon(now)  # the reasons of its paths are others now
        return memory.end_scout(
            step,
            self._sights,
            is_silent=news is not PortalNews.ANSWERS,
            is_dark=news is PortalNews.DARK,
            now=now,
            limits=self._limits,
            jitter=jitter,
        )

    def _acted(self, memory: HealMemory) -> HealMemory:
        self._look_soon()
        return memory

    def _live(self, key: str) -> int:
        return next((one.volume.live for one in self._sights if one.key == key), 0)


def _listening(stack: contextlib.ExitStack) -> IscsiEvents | None:
    """Listen to iSCSI's events; None while the kernel has nobody who would tell them."""
    try:
        return stack.enter_context(IscsiEvents())
    except (HostLacks, OSError):
        return None


def _nothing(event: Uevent) -> bool:
    return False


def _matters(event: Uevent) -> bool:
    """Tell whether an event may be about a path: of a map, a disk, a session."""
    if event.subsystem == "block":
        return "/virtual/block/dm-" in event.devpath or event.fields.get("DEVTYPE") == "disk"
    return event.subsystem in {"iscsi_session", "iscsi_connection"}
