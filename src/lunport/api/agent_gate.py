"""What the agent of a host may ask the API at all: a table; everything else is refused.

The agent is known by its certificate (``api/gate.py``). What is in the table is looked at once
more where it is done: only what is of the agent's own host passes there
(:mod:`lunport.core.agent_identity`, :mod:`lunport.core.migration_plan`).
"""

from __future__ import annotations

import re

from lunport.core.agent_identity import AgentIdentity
from lunport.core.errors import NotItsHost

_ID = r"[^/]+"
AGENT_ROUTES: tuple[tuple[str, re.Pattern[str]], ...] = tuple(
    (method, re.compile(route))
    for method, route in (
        ("GET", rf"/volumes/{_ID}"),  # one that is attached to the host
        ("GET", r"/attachments"),  # the host's own
        ("GET", r"/attachments/detail"),
        ("POST", r"/attachments"),  # for the host: its connector, or none yet
        ("GET", rf"/attachments/{_ID}"),
        ("PUT", rf"/attachments/{_ID}"),
        ("DELETE", rf"/attachments/{_ID}"),
        ("POST", rf"/attachments/{_ID}/action"),
        ("PUT", rf"/enrolments/{_ID}/report"),  # of the host itself
        ("GET", r"/migrations"),  # those that name the host
        ("POST", r"/migrations"),
        ("GET", rf"/migrations/{_ID}"),
        ("POST", rf"/migrations/{_ID}/action"),
    )
)
_NOT_AN_ID = frozenset({"detail", "summary"})


def check_route(agent: AgentIdentity, method: str, route: str) -> None:
    """Refuse what no agent may ask. Raises: NotItsHost."""
    is_list = route.startswith("/volumes/") and route.rpartition("/")[2] in _NOT_AN_ID
    if is_list or not any(
        method == allowed and pattern.fullmatch(route) for allowed, pattern in AGENT_ROUTES
    ):
        raise NotItsHost(agent.host, f"{method} {route[:80]}")
