"""Choose the one path to use: the failover of spec A for an initiator in user space.

Plans (:mod:`lunport.core.login_plan`), probes as the fold says
(:mod:`lunport.core.login_progress`), remembers dead portals, and reports the path chosen and
every path not used with its reason. Probes that lost are cut off at once; no thread and no
socket outlives the call. Never logs in for good: that is the chosen initiator's business.
"""

from __future__ import annotations

import time
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from functools import partial

from lunport.core.chap import Chap
from lunport.core.connection_info import AddressingMode
from lunport.core.errors import AllPathsFailed, LoginTimedOut, LunportError
from lunport.core.iqn import Iqn
from lunport.core.login_plan import LoginPlan, plan_logins
from lunport.core.login_progress import (
    ChoicePolicy,
    Done,
    GiveUp,
    GiveUpReason,
    Progress,
    Start,
    begin,
    classify,
    next_step,
)
from lunport.core.portal import Portal
from lunport.core.probe_outcome import ProbeOutcome, Verdict, outcome_error
from lunport.core.target_path import TargetPath
from lunport.core.wwid import Wwid
from lunport.host.clock import Deadline
from lunport.host.dead_portals import DeadPortals
from lunport.host.portal_probe import probe_path
from lunport.host.tasks import Report, TaskGroup

DEFAULT_POLICY = ChoicePolicy()


@dataclass(frozen=True, slots=True)
class UnusedPath:
    """A path that was not chosen, and why. ``outcome`` is None when it was not tried."""

    path: TargetPath
    reason: str
    outcome: ProbeOutcome | None


@dataclass(frozen=True, slots=True)
class PathChoice:
    """The path to use, what its probe found, and all others in the plan's order."""

    path: TargetPath
    outcome: ProbeOutcome
    unused: tuple[UnusedPath, ...]
    elapsed_s: float


def choose_path(
    paths: Sequence[TargetPath],
    initiator: Iqn,
    *,
    chap: Chap | None,
    wwid: Wwid | None,
    memory: DeadPortals,
    deadline: Deadline,
    policy: ChoicePolicy = DEFAULT_POLICY,
    check_lun: bool = True,
    addressing_mode: AddressingMode | None = None,
) -> PathChoice:
    """Find the earliest healthy path, main first.

    With ``check_lun`` a path is healthy only if its unit is there, ready, and, where ``wwid``
    says which, the right one. Units are addressed as ``addressing_mode`` has the kernel do it.

    Raises: AuthenticationFailed (at once: another portal would say the same), AllPathsFailed
    (an error for each of ``paths``, in their order), InvalidConnectionInfo (no path).
    """
    plan = plan_logins(paths, memory.current())
    probe = partial(
        probe_path,
        initiator=initiator,
        chap=chap,
        expected_wwid=wwid,
        check_lun=check_lun,
        addressing_mode=addressing_mode,
    )
    race = _Race(paths, plan, probe, memory)
    return race.run(policy, deadline.at_most(policy.budget_s))


class _Race:
    """The attempts of one choice and what they gave."""

    def __init__(
        self,
        wanted: Sequence[TargetPath],
        plan: LoginPlan,
        probe: Callable[..., ProbeOutcome],
        memory: DeadPortals,
    ) -> None:
        self._wanted = wanted
        self._plan = plan
        self._probe = probe
        self._memory = memory
        self._outcomes: dict[int, ProbeOutcome] = {}

    def run(self, policy: ChoicePolicy, deadline: Deadline) -> PathChoice:
        """Follow the fold to its end."""
        began = time.monotonic()
        policy = within(policy, deadline)
        with TaskGroup[ProbeOutcome]("probe") as group:
            progress, step = self._race(group, policy, deadline, began)
        elapsed_s = time.monotonic() - began
        if isinstance(step, Done):
            self._remember(progress, policy.grace_s, began + elapsed_s, chosen=step.index)
            return self._chosen(step.index, progress, elapsed_s)
        self._remember(progress, policy.grace_s, began + elapsed_s, chosen=None)
        raise self._failure(step, progress, elapsed_s)

    def _race(
        self,
        group: TaskGroup[ProbeOutcome],
        policy: ChoicePolicy,
        deadline: Deadline,
        began: float,
    ) -> tuple[Progress, Done | GiveUp]:
        progress = begin(len(self._plan.paths), began)
        step = next_step(progress, began, policy)
        while not isinstance(step, Done | GiveUp):
            if isinstance(step, Start):
                self._start(group, step.index, deadline)
                progress = progress.with_started(time.monotonic())
            else:
                report = group.next_report(step.until - time.monotonic())
                if report is not None:
                    progress = self._note(progress, report)
            step = next_step(progress, time.monotonic(), policy)
        return progress, step

    def _start(self, group: TaskGroup[ProbeOutcome], index: int, deadline: Deadline) -> None:
        path = self._plan.paths[index]
        probe = partial(self._probe, path, deadline=deadline, stop=group.stop)
        group.start(str(index), probe)

    def _note(self, progress: Progress, report: Report[ProbeOutcome]) -> Progress:
        index, outcome = int(report.name), report.unwrap()
        self._outcomes[index] = outcome
        error = outcome_error(outcome, str(self._plan.paths[index]))
        return progress.with_ended(index, time.monotonic(), classify(error))

    def _remember(
        self, progress: Progress, grace_s: float, now: float, *, chosen: int | None
    ) -> None:
        """Keep for others what was learnt: who is dead, and who is not.

        Silence counts from a grace on, and only while no earlier path was chosen.
        """
        alive: set[Portal] = set()
        dead: set[Portal] = set()
        for index, path in enumerate(self._plan.paths):
            outcome = self._outcomes.get(index)
            if outcome is not None and outcome.verdict is not Verdict.TIMED_OUT:
                (dead if outcome.verdict.is_silence else alive).add(path.portal)
                continue
            had_time = progress.has_waited(index, now, grace_s)
            if had_time and (chosen is None or index < chosen):
                dead.add(path.portal)
        for portal in alive:
            self._memory.forget(portal)
        for portal in dead - alive:
            self._memory.remember(portal)

    def _chosen(self, chosen: int, progress: Progress, elapsed_s: float) -> PathChoice:
        unused = tuple(
            UnusedPath(path, self._reason(index, chosen, progress, elapsed_s), outcome)
            for index, path in enumerate(self._plan.paths)
            if index != chosen
            for outcome in (self._outcomes.get(index),)
        )
        return PathChoice(self._plan.paths[chosen], self._outcomes[chosen], unused, elapsed_s)

    def _reason(self, index: int, chosen: int, progress: Progress, elapsed_s: float) -> str:
        outcome = self._outcomes.get(index)
        is_late = self._plan.paths[index] in self._plan.postponed
        if outcome is None:
            if index >= len(progress.started):
                why = "its portal was seen dead lately" if is_late else "it is later in the list"
                return f"not tried: {why}, and another path is healthy"
            waited_s = elapsed_s - (progress.started[index] - progress.began_at)
            return f"no answer within {waited_s:.2f} s"
        if outcome.is_healthy:
            return "healthy, but later in the list" + (" since it was seen dead lately" * is_late)
        words = outcome.detail or outcome.verdict.value
        return f"{outcome.verdict.value}: {words}, after {outcome.elapsed_s:.2f} s"

    def _failure(self, step: GiveUp, progress: Progress, elapsed_s: float) -> LunportError:
        errors: dict[TargetPath, LunportError] = {}
        for index, path in enumerate(self._plan.paths):
            outcome = self._outcomes.get(index)
            error = outcome_error(outcome, str(path)) if outcome is not None else None
            errors[path] = error or self._silence(index, progress, elapsed_s)
        if step.reason is GiveUpReason.FINAL and step.index is not None:
            return errors[self._plan.paths[step.index]]
        return AllPathsFailed([errors[path] for path in self._wanted])

    def _silence(self, index: int, progress: Progress, elapsed_s: float) -> LunportError:
        path = str(self._plan.paths[index])
        if index >= len(progress.started):
            return LoginTimedOut(path, f"not tried: {elapsed_s:.2f} s were over")
        waited_s = elapsed_s - (progress.started[index] - progress.began_at)
        return LoginTimedOut(path, f"no answer within {waited_s:.2f} s")


def within(policy: ChoicePolicy, deadline: Deadline) -> ChoicePolicy:
    """Return the policy with a budget that ends with the deadline."""
    budget_s = min(policy.budget_s, max(0.001, deadline.remaining_s()))
    return ChoicePolicy(policy.grace_s, budget_s, policy.max_running)
