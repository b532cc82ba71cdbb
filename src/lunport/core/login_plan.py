"""Which paths to try, and in which order, when one path is wanted.

The order of the connection info is kept: the main path, then its alternatives (spec A). A
portal that this host saw dead lately is tried last, in the same order among its kind; when
all are remembered as dead the memory is worth nothing and is ignored. Each path comes once.
"""

from __future__ import annotations

from collections.abc import Collection, Sequence
from dataclasses import dataclass

from lunport.core.errors import InvalidConnectionInfo
from lunport.core.portal import Portal
from lunport.core.target_path import TargetPath


@dataclass(frozen=True, slots=True)
class LoginPlan:
    """Paths in the order of attempts; ``postponed`` are those moved to the end, and why not."""

    paths: tuple[TargetPath, ...]
    postponed: frozenset[TargetPath]


def plan_logins(paths: Sequence[TargetPath], dead: Collection[Portal]) -> LoginPlan:
    """Plan the attempts. Raises: InvalidConnectionInfo when there is no path at all."""
    wanted = tuple(dict.fromkeys(paths))
    if not wanted:
        raise InvalidConnectionInfo("paths", (), "there must be at least one path")
    late = tuple(path for path in wanted if path.portal in dead)
    if len(late) == len(wanted):
        late = ()
    early = tuple(path for path in wanted if path not in late)
    return LoginPlan(early + late, frozenset(late))
