"""Break and heal portals, by packet filter rules of nftables in the demo's own network."""

from __future__ import annotations

import enum
from collections.abc import Mapping

from lunport.core.portal import Portal
from lunport.host import nftables
from lunport.host.clock import Deadline

_FAMILY = "inet"
_TABLE = "lunport-demo"


class Fault(enum.Enum):
    """What a portal does to whoever comes; the value is nft's verdict."""

    SWALLOWS = "drop"
    REFUSES = "reject with tcp reset"


def set_faults(faults: Mapping[Portal, Fault], deadline: Deadline) -> None:
    """Make exactly these portals faulty, from this moment on, open connections included.

    Raises: HostLacks, CommandMissing, CommandTimedOut.
    """
    rules = [f"    {_rule(portal, fault)}" for portal, fault in faults.items()]
    chain = ["  chain input {", "    type filter hook input priority 0", *rules, "  }"]
    nftables.replace_table(_FAMILY, _TABLE, "\n".join(chain), deadline)


def clear_faults(deadline: Deadline) -> None:
    """Heal all portals, and leave no rule."""
    nftables.drop_table(_FAMILY, _TABLE, deadline)


def _rule(portal: Portal, fault: Fault) -> str:
    family = "ip6" if portal.is_ipv6 else "ip"
    return f"{family} daddr {portal.host} tcp dport {portal.port} {fault.value}"
