"""The agent's page of metrics: the paths', and beside them what the agent did and waits for.

    lunport_agent_requests_total{verb="connect",outcome="done"} 17
    lunport_connections_awaited 0

What the paths show is :mod:`lunport.agent.path_metrics`.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence

from prometheus_client import CollectorRegistry, Counter, Gauge

from lunport.agent.path_metrics import PathMetrics
from lunport.core.path_status import VolumePaths
from lunport.core.recovery_actions import LeftoverSession, LeftoverUnit
from lunport.initiator.connected_volume import ConnectedVolume
from lunport.initiator.recover import RecoveryStep


class Metrics:
    """The metrics of one agent; ``awaited`` counts the connections that have yet to come back."""

    def __init__(
        self, look: Callable[[], Sequence[VolumePaths]], awaited: Callable[[], int]
    ) -> None:
        registry = CollectorRegistry()
        self.paths = PathMetrics(look, registry)
        self._requests = Counter(
            "lunport_agent_requests",
            "What the agent was asked to do, and whether it was done.",
            ("verb", "outcome"),
            registry=registry,
        )
        gauge = Gauge(
            "lunport_connections_awaited",
            "Connections from before the host was started that have yet to come back.",
            registry=registry,
        )
        gauge.set_function(awaited)

    def count(self, verb: str, outcome: str) -> None:
        """Count what was asked for; ``outcome``: ``done`` or the error's class."""
        self._requests.labels(verb, outcome).inc()

    def connected(self, volume: ConnectedVolume) -> None:
        """Note how long a connect took."""
        self.paths.connected(volume)

    def recovered(self, steps: Sequence[RecoveryStep]) -> None:
        """Note how many disks a recovery found, and left, that no connection accounts for."""
        self.paths.stale_devices(
            sum(
                len(step.action.units) if isinstance(step.action, LeftoverSession) else 1
                for step in steps
                if isinstance(step.action, LeftoverSession | LeftoverUnit) and not step.is_done
            )
        )

    def page(self) -> bytes:
        """Write all of them."""
        return self.paths.render()
