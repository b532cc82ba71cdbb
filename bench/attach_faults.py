"""Portals that fall silent or refuse, by a rule in the SAN's namespace."""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager

from lab.network import SanNetwork
from lunport.core.portal import Portal


@contextmanager
def portal_drops(network: SanNetwork, portal: Portal) -> Iterator[None]:
    """Let every packet to a portal vanish."""
    with _rule(network, f"ip daddr {portal.host} tcp dport {portal.port} drop"):
        yield


@contextmanager
def portal_refuses(network: SanNetwork, portal: Portal) -> Iterator[None]:
    """Answer every packet to a portal with a reset."""
    rule = f"ip daddr {portal.host} tcp dport {portal.port} reject with tcp reset"
    with _rule(network, rule):
        yield


@contextmanager
def _rule(network: SanNetwork, rule: str) -> Iterator[None]:
    chain = f"chain input {{\ntype filter hook input priority 0\n{rule}\n}}"
    network.run("nft", "-f", "-", stdin=f"table inet bench {{\n{chain}\n}}\n")
    try:
        yield
    finally:
        network.run("nft", "delete", "table", "inet", "bench")
