"""The agent's metrics, as Prometheus reads them: what is wanted of the paths, and what is there.

    lunport_paths_wanted{volume="0c3f...",key="naa.6001405..."} 4
    lunport_path_live{...,portal="10.0.1.2:3260",iface="default",state="live"} 1
    lunport_portal_up{portal="10.0.1.2:3260"} 1

Paths are looked at when somebody asks, from the kernel; what was done is counted as it is done.
"""

from __future__ import annotations

import logging
from collections.abc import Callable, Iterator

from prometheus_client import CollectorRegistry, Counter, Histogram, generate_latest
from prometheus_client.core import GaugeMetricFamily, Metric
from prometheus_client.registry import Collector

from lunport.core.errors import LunportError
from lunport.core.path_status import PathState, VolumePaths
from lunport.initiator.connected_volume import ConnectedVolume

CONTENT_TYPE = "text/plain; version=0.0.4; charset=utf-8"

_LOG = logging.getLogger(__name__)
_SECONDS = (0.05, 0.1, 0.25, 0.5, 1.0, 2.0, 5.0, 10.0, 30.0, 60.0)
_VOLUME = ("key", "volume")
_PATH = (*_VOLUME, "portal", "iqn", "iface")

LookAtPaths = Callable[[], tuple[VolumePaths, ...]]


class Metrics:
    """The metrics of one agent; ``awaited`` counts the connections that have yet to come back."""

    def __init__(self, paths: LookAtPaths, awaited: Callable[[], int]) -> None:
        self._registry = CollectorRegistry()
        self._registry.register(_Paths(paths, awaited))
        self._verbs = Counter(
            "lunport_agent_requests",
            "What the agent was asked to do, and whether it was done.",
            ("verb", "outcome"),
            registry=self._registry,
        )
        self._seconds = Histogram(
            "lunport_connect_seconds",
            "How long connects took: until a path was chosen, until its disk was verified, all.",
            ("phase",),
            buckets=_SECONDS,
            registry=self._registry,
        )

    def count(self, verb: str, outcome: str) -> None:
        """Count what was asked for; ``outcome``: ``done`` or the error's class."""
        self._verbs.labels(verb, outcome).inc()

    def connected(self, volume: ConnectedVolume) -> None:
        """Note how long a connect took."""
        self._seconds.labels("choice").observe(volume.choice_s)
        self._seconds.labels("disk").observe(max(0.0, volume.elapsed_s - volume.choice_s))
        self._seconds.labels("all").observe(volume.elapsed_s)

    def page(self) -> bytes:
        """Write all of them."""
        return generate_latest(self._registry)


class _Paths(Collector):
    """Looks at the paths each time somebody asks."""

    def __init__(self, paths: LookAtPaths, awaited: Callable[[], int]) -> None:
        self._look = paths
        self._awaited = awaited

    def describe(self) -> list[Metric]:
        """Tell nothing beforehand: a look at registration would be one too many."""
        return []

    def collect(self) -> Iterator[Metric]:
        """Give the gauges of this moment; none of the paths where they can't be looked at."""
        wanted = GaugeMetricFamily(
            "lunport_paths_wanted", "Paths that are to be live.", labels=_VOLUME
        )
        live = GaugeMetricFamily(
            "lunport_paths_live", "Paths that I/O may go over.", labels=_VOLUME
        )
        path = GaugeMetricFamily(
            "lunport_path_live", "Whether I/O may go over a path.", labels=(*_PATH, "state")
        )
        portal = GaugeMetricFamily(
            "lunport_portal_up", "Whether any path through a portal is live.", labels=("portal",)
        )
        awaited = GaugeMetricFamily(
            "lunport_connections_awaited",
            "Connections from before the host was started that have yet to come back.",
        )
        try:
            volumes = self._look()
            awaited.add_metric((), self._awaited())
        except LunportError as error:
            _LOG.warning("paths_not_looked_at error=%s", error)
            return
        portals: dict[str, bool] = {}
        for one in volumes:
            names = (one.key, one.volume_id or "")
            wanted.add_metric(names, one.wanted)
            live.add_metric(names, one.live)
            for status in one.paths:
                is_live = status.state is PathState.LIVE
                where = str(status.path.portal)
                labels = (*names, where, status.path.iqn, status.iface, status.state.value)
                path.add_metric(labels, is_live)
                portals[where] = portals.get(where, False) or is_live
        for where, is_up in sorted(portals.items()):
            portal.add_metric((where,), is_up)
        yield from (wanted, live, path, portal, awaited)
