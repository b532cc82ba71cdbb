"""Where the paths to try come from: named portals resolved, further paths discovered.

A portal that a person wrote by its name becomes a path for each of its addresses, in the
resolver's order. A connection info asks for a discovery if it says ``target_discovered`` and
does not list all paths; then the portals it names are asked for more, the main one first and
the alternatives when that one is silent or refuses, and last those over which this host reaches
the target already. What the connection info names stays first: a discovery adds paths, it takes
none away.

Discovery is a short session of our own (SendTargets); no record is left and none of others
is changed. Never chooses a path: see :mod:`lunport.initiator.portal_choice`.
"""

from __future__ import annotations

import time
from collections.abc import Iterable, Sequence
from dataclasses import dataclass, replace
from functools import partial
from typing import Protocol

from lunport.core.chap import Chap
from lunport.core.connection_info import ConnectionInfo
from lunport.core.errors import (
    AllPathsFailed,
    InvalidConnectionInfo,
    LoginTimedOut,
    LunportError,
    PortalUnreachable,
)
from lunport.core.iqn import Iqn, fold_iqn
from lunport.core.iscsi_text import DiscoveredTarget
from lunport.core.login_plan import plan_logins
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
from lunport.core.target_path import TargetPath
from lunport.host.clock import Deadline
from lunport.host.dead_portals import DeadPortals
from lunport.host.portal_probe import discover_targets
from lunport.host.resolve import resolve_portal
from lunport.host.tasks import TaskGroup, run_all
from lunport.initiator.portal_choice import DEFAULT_POLICY, UnusedPath, within

_RESOLVE_S = 3.0
_SILENCE = (PortalUnreachable, LoginTimedOut)

Targets = tuple[DiscoveredTarget, ...]


@dataclass(frozen=True, slots=True)
class FoundPaths:
    """Paths with literal addresses, in order, and those that can't be tried, with the reason.

    ``asked`` is the portal whose discovery was used, None without one. ``discovery_failure``
    is why a discovery that was asked for gave nothing, while the named paths remain.
    """

    paths: tuple[TargetPath, ...]
    unused: tuple[UnusedPath, ...] = ()
    asked: Portal | None = None
    discovery_failure: LunportError | None = None


class AskingHost(Protocol):
    """What a discovery needs to know of this host."""

    @property
    def memory(self) -> DeadPortals:
        """The portals seen dead lately."""

    def initiator_name(self) -> Iqn:
        """Return this host's iSCSI name."""


def find_paths(
    info: ConnectionInfo,
    host: AskingHost,
    deadline: Deadline,
    *,
    discover: bool = True,
    same_target: bool = False,
    known: Sequence[Portal] = (),
    policy: ChoicePolicy = DEFAULT_POLICY,
) -> FoundPaths:
    """Find the paths to try: those named, resolved, and those discovered if that is asked for.

    ``same_target``: of the main target alone, whatever else its portals show. ``known``:
    portals through which this host reaches the main target already. They are asked as well,
    after the named ones, which may be dead, and are paths like those that are found.
    A discovery that fails does not matter as long as a portal is alive: the named paths are
    there to be tried. Raises: AllPathsFailed (no name has an address, or no portal answers a
    discovery), AuthenticationFailed (the discovery's credentials), InvalidConnectionInfo.
    """
    found = resolve_paths(info.paths, deadline)
    if not discover or not asks_for_discovery(info):
        return found
    there = {(path.portal, fold_iqn(path.iqn)) for path in found.paths}
    main = info.main_path
    more_known = [
        replace(main, portal=portal)
        for portal in known
        if (portal, fold_iqn(main.iqn)) not in there
    ]
    found = replace(found, paths=(*found.paths, *more_known))
    named = replace(info, paths=found.paths)
    initiator = host.initiator_name()
    try:
        more = discover_paths(
            named, initiator, deadline, host.memory, same_target=same_target, policy=policy
        )
    except AllPathsFailed as error:
        if all(isinstance(attempt, _SILENCE) for attempt in error.attempts):
            raise
        return replace(found, discovery_failure=error)
    return replace(more, unused=found.unused + more.unused)


def resolve_paths(paths: Sequence[TargetPath], deadline: Deadline) -> FoundPaths:
    """Give every path a literal address: a path for each address of a name, each once.

    A name without an address makes its path an unused one as long as others remain.
    Raises: AllPathsFailed when none remains, InvalidConnectionInfo when two paths turn out to
    be one with two LUNs.
    """
    names = dict.fromkeys(path.portal for path in paths if not path.portal.is_literal)
    if not names:
        return FoundPaths(tuple(paths))
    reports = run_all(
        {str(name): partial(resolve_portal, name, deadline.at_most(_RESOLVE_S)) for name in names}
    )
    answers = dict(zip(names, reports, strict=True))
    kept: list[TargetPath] = []
    lost: dict[TargetPath, LunportError] = {}
    for path in paths:
        report = answers.get(path.portal)
        if report is None:
            kept.append(path)
        elif isinstance(report.error, LunportError):
            lost[path] = report.error
        else:
            kept += [replace(path, portal=portal) for portal in report.unwrap()]
    if not kept:
        raise AllPathsFailed(list(lost.values()))
    return FoundPaths(_each_once(kept), tuple(_lost(*one) for one in lost.items()))


def asks_for_discovery(info: ConnectionInfo) -> bool:
    """Tell whether the storage side leaves paths to be discovered.

    It says so by ``target_discovered``, and by not listing all paths itself.
    """
    return info.target_discovered and not info.is_complete


def discover_paths(
    info: ConnectionInfo,
    initiator: Iqn,
    deadline: Deadline,
    memory: DeadPortals,
    *,
    same_target: bool = False,
    policy: ChoicePolicy = DEFAULT_POLICY,
) -> FoundPaths:
    """Ask the portals of a connection info for more; return its paths and those found.

    Portals are asked as paths are chosen: in order, the next one when one fails or stays
    silent for a grace, and the first healthy answer counts. Found are all portals of the main
    target. Where other targets lead to the same unit (an array with a name for each portal),
    they are taken only if the unit's identity is stated, since nothing else tells that unit
    from another one of the same LUN, and unless ``same_target``.

    Raises: AuthenticationFailed (at once), AllPathsFailed (each portal's error in order).
    """
    asked, targets = _ask(info, initiator, deadline, memory, policy)
    main = info.main_path
    ours = [one for one in targets if fold_iqn(one.iqn) == fold_iqn(main.iqn)]
    portals = {one.portal for one in targets}
    # As released readers decide it: one name on every portal is the whole target.
    is_whole = {one.portal for one in ours} == portals
    usable = ours if same_target or is_whole or info.wwid is None else targets
    known = {(path.portal, fold_iqn(path.iqn)) for path in info.paths}
    more = [
        replace(main, portal=one.portal, iqn=one.iqn)
        for one in usable
        if (one.portal, fold_iqn(one.iqn)) not in known
    ]
    return replace(resolve_paths((*info.paths, *more), deadline), asked=asked)


def _ask(
    info: ConnectionInfo,
    initiator: Iqn,
    deadline: Deadline,
    memory: DeadPortals,
    policy: ChoicePolicy,
) -> tuple[Portal, Targets]:
    chap = None if info.discovery_chap is None else Chap(info.discovery_chap)
    first: dict[Portal, TargetPath] = {}
    for path in info.paths:
        first.setdefault(path.portal, path)
    plan = plan_logins(tuple(first.values()), memory.current())
    asking = _Asking(tuple(path.portal for path in plan.paths), memory)
    deadline = deadline.at_most(policy.budget_s)
    return asking.run(initiator, chap, within(policy, deadline), deadline)


class _Asking:
    """The discoveries of one call and what they gave."""

    def __init__(self, portals: tuple[Portal, ...], memory: DeadPortals) -> None:
        self._portals = portals
        self._memory = memory
        self._targets: dict[int, Targets] = {}
        self._errors: dict[int, LunportError] = {}

    def run(
        self, initiator: Iqn, chap: Chap | None, policy: ChoicePolicy, deadline: Deadline
    ) -> tuple[Portal, Targets]:
        """Follow the fold to its end."""
        progress = begin(len(self._portals), time.monotonic())
        with TaskGroup[Targets]("discovery") as group:
            step = next_step(progress, time.monotonic(), policy)
            while not isinstance(step, Done | GiveUp):
                if isinstance(step, Start):
                    portal = self._portals[step.index]
                    ask = partial(discover_targets, portal, initiator, chap)
                    task = partial(ask, deadline=deadline, stop=group.stop)
                    group.start(str(step.index), task)
                    progress = progress.with_started(time.monotonic())
                else:
                    report = group.next_report(step.until - time.monotonic())
                    if report is not None:
                        index = int(report.name)
                        if isinstance(report.error, LunportError):
                            self._errors[index] = report.error
                        else:
                            self._targets[index] = report.unwrap()
                        kind = classify(self._errors.get(index))
                        progress = progress.with_ended(index, time.monotonic(), kind)
                step = next_step(progress, time.monotonic(), policy)
        chosen = step.index if isinstance(step, Done) else None
        self._remember(progress, policy.grace_s, chosen)
        if isinstance(step, Done):
            return self._portals[step.index], self._targets[step.index]
        if step.reason is GiveUpReason.FINAL and step.index is not None:
            raise self._errors[step.index]
        raise AllPathsFailed([self._error(index) for index in range(len(self._portals))])

    def _remember(self, progress: Progress, grace_s: float, chosen: int | None) -> None:
        """Keep for others who is dead and who is not, as a choice does."""
        now = time.monotonic()
        for index, portal in enumerate(self._portals):
            error = self._errors.get(index)
            had_time = progress.has_waited(index, now, grace_s)
            is_earlier = chosen is None or index < chosen
            if index in self._targets or (error is not None and not isinstance(error, _SILENCE)):
                self._memory.forget(portal)
            elif isinstance(error, PortalUnreachable) or (had_time and is_earlier):
                self._memory.remember(portal)

    def _error(self, index: int) -> LunportError:
        silence = LoginTimedOut(str(self._portals[index]), "it did not answer a discovery in time")
        return self._errors.get(index, silence)


def _lost(path: TargetPath, error: LunportError) -> UnusedPath:
    return UnusedPath(path, str(error), None)


def _each_once(paths: Iterable[TargetPath]) -> tuple[TargetPath, ...]:
    found: dict[tuple[Portal, str], TargetPath] = {}
    for path in paths:
        known = found.setdefault((path.portal, fold_iqn(path.iqn)), path)
        if known.lun != path.lun:
            reason = f"{path.portal} {path.iqn} also has LUN {known.lun}"
            raise InvalidConnectionInfo("LUN", path.lun, reason)
    return tuple(found.values())
