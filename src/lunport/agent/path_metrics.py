"""The metrics of paths, as Prometheus reads them: from what is wanted as well as what is there.

    lunport_paths_wanted{volume="0c3f..."} 2
    lunport_paths_live{volume="0c3f..."} 1
    lunport_portal_up{portal="10.0.2.2:3260"} 0
    lunport_path_transitions_total{from="live",to="missing"} 3
    lunport_attach_seconds_bucket{phase="all",le="2.0"} 17
    lunport_stale_devices 0
    lunport_paths_seen_timestamp_seconds 1790000000.5

``wanted`` comes from the journal, so that the series of a volume is still there when its
devices are not, which is when somebody asks (an alert is ``lunport_paths_live <
lunport_paths_wanted``). When a look fails, the last one is shown with its moment.

Few series: a host has as many volumes as it has connected (two series each), and as many
portals as its storage; states and phases are fixed. What multiplies them has no label: paths,
sessions, disks, target names and reasons are in ``lunport host paths``. There is no ``host``
label, since whoever scrapes knows which host it asked (``instance``). The volume is named by
the service's id, or by the journal's key where it has none.
"""

from __future__ import annotations

import enum
import logging
import threading
import time
from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import dataclass

from prometheus_client import CollectorRegistry, Counter, Gauge, Histogram, generate_latest
from prometheus_client.core import GaugeMetricFamily, Metric
from prometheus_client.registry import Collector

from lunport.core.change import Change
from lunport.core.errors import LunportError
from lunport.core.path_changes import path_changes
from lunport.core.path_status import PathState, VolumePaths
from lunport.core.portal import Portal
from lunport.core.wwid import Wwid
from lunport.initiator.connected_volume import ConnectedVolume

CONTENT_TYPE = "text/plain; version=0.0.4; charset=utf-8"

_LOG = logging.getLogger(__name__)
_BUCKETS_S = (0.1, 0.25, 0.5, 1.0, 2.0, 3.5, 5.0, 10.0, 20.0, 30.0, 60.0, 120.0)
_UP = frozenset({PathState.LIVE, PathState.JOINING})
_THERE = frozenset({PathState.LIVE, PathState.SPARE})
_DOWN = frozenset({PathState.FAILED, PathState.MISSING})

Look = Callable[[], Sequence[VolumePaths]]


class AttachPhase(enum.StrEnum):
    """The parts of an attach whose times are kept apart."""

    CHOICE = "choice"  # until a path was chosen
    DISK = "disk"  # from then until the device was handed out
    ALL = "all"  # both
    COMPLETE = "complete"  # from the start until every wanted path was live


class PathMetrics:
    """The metrics of one host's paths. Safe to share between threads.

    ``look`` is called when somebody asks; ``registry``: where others may have theirs.
    """

    def __init__(
        self,
        look: Look,
        registry: CollectorRegistry | None = None,
        now: Callable[[], float] = time.time,
    ) -> None:
        self._look = look
        self._now = now
        self._registry = CollectorRegistry() if registry is None else registry
        self._lock = threading.Lock()
        self._seen: Sequence[VolumePaths] = ()
        self._seen_at: float | None = None
        self._begun: dict[Wwid, float] = {}  # connects whose paths are not all live yet
        self._transitions = Counter(
            "lunport_path_transitions",
            "How often a path went from one state to another.",
            ("from", "to"),
            registry=self._registry,
        )
        self._attach = Histogram(
            "lunport_attach_seconds",
            "How long attaches took, by phase.",
            ("phase",),
            buckets=_BUCKETS_S,
            registry=self._registry,
        )
        self._stale = Gauge(
            "lunport_stale_devices",
            "Disks of this host that no connection accounts for.",
            registry=self._registry,
        )
        for phase in AttachPhase:
            self._attach.labels(phase.value)
        self._registry.register(_Snapshot(self._collect))

    def observe(self, volumes: Sequence[VolumePaths]) -> None:
        """Note what the paths are now, and count what has changed since the last time."""
        with self._lock:
            for change in path_changes(self._seen, volumes):
                if change.before is not None and change.after is not None:
                    self._transitions.labels(change.before.value, change.after.value).inc()
            self._seen = tuple(volumes)
            self._seen_at = self._now()
            self._complete(volumes, self._seen_at)

    def connected(self, volume: ConnectedVolume) -> None:
        """Note how long a connect took until the device was handed out."""
        self.took(AttachPhase.CHOICE, volume.choice_s)
        self.took(AttachPhase.DISK, volume.elapsed_s - volume.choice_s)
        self.took(AttachPhase.ALL, volume.elapsed_s)
        if volume.change is not Change.CHANGED:
            return
        if volume.map_name is None or all(one.state in _THERE for one in volume.paths):
            self.took(AttachPhase.COMPLETE, volume.elapsed_s)
        elif volume.wwid is not None:
            with self._lock:
                self._begun[volume.wwid] = self._now() - volume.elapsed_s

    def took(self, phase: AttachPhase, seconds: float) -> None:
        """Note how long one phase took."""
        self._attach.labels(phase.value).observe(max(0.0, seconds))

    def _complete(self, volumes: Sequence[VolumePaths], now: float) -> None:
        """Note the connects all of whose paths are live by now, and forget those that ended."""
        there = {volume.wwid: volume for volume in volumes if volume.wwid is not None}
        for wwid, began in tuple(self._begun.items()):
            volume = there.get(wwid)
            if volume is not None and volume.live < volume.wanted:
                continue
            del self._begun[wwid]
            if volume is not None:
                self.took(AttachPhase.COMPLETE, now - began)

    def stale_devices(self, count: int) -> None:
        """Note how many disks no connection accounts for."""
        self._stale.set(count)

    def render(self) -> bytes:
        """Look, and write all of the registry (``CONTENT_TYPE``)."""
        return generate_latest(self._registry)

    def _collect(self) -> Iterator[Metric]:
        try:
            self.observe(self._look())
        except LunportError as error:
            _LOG.warning("paths_not_seen error=%s", error)
        with self._lock:
            volumes, seen_at = self._seen, self._seen_at
        yield _gauge(
            "lunport_paths_wanted", "Paths that are to be live.", "volume", wanted(volumes)
        )
        yield _gauge("lunport_paths_live", "Paths that I/O may go over.", "volume", live(volumes))
        portals = {str(portal): int(is_up) for portal, is_up in portals_up(volumes).items()}
        yield _gauge("lunport_portal_up", "Whether a path goes through it.", "portal", portals)
        if seen_at is not None:
            moment = GaugeMetricFamily(
                "lunport_paths_seen_timestamp_seconds", "When the paths were last seen."
            )
            moment.add_metric((), seen_at)
            yield moment


def wanted(volumes: Sequence[VolumePaths]) -> Mapping[str, int]:
    """Count the wanted paths by the volume's name."""
    return _summed(volumes, lambda volume: volume.wanted)


def live(volumes: Sequence[VolumePaths]) -> Mapping[str, int]:
    """Count the live paths by the volume's name."""
    return _summed(volumes, lambda volume: volume.live)


def portals_up(volumes: Sequence[VolumePaths]) -> Mapping[Portal, bool]:
    """Tell of each portal whether any path gets through; nothing of one that nobody wants now."""
    found: dict[Portal, bool] = {}
    for volume in volumes:
        for status in volume.paths:
            portal = status.path.portal
            if status.state in _UP:
                found[portal] = True
            elif status.state in _DOWN:
                found.setdefault(portal, False)
    return found


@dataclass(frozen=True)
class _Snapshot(Collector):
    """Gauges that are made anew each time, so that none outlives its volume."""

    make: Callable[[], Iterator[Metric]]

    def describe(self) -> list[Metric]:
        """Tell nothing beforehand: registering shall not look."""
        return []

    def collect(self) -> Iterator[Metric]:
        """Give the gauges of this moment."""
        return self.make()


def _summed(
    volumes: Sequence[VolumePaths], count: Callable[[VolumePaths], int]
) -> Mapping[str, int]:
    # Two connections may be of one volume; a series may be there once.
    totals: dict[str, int] = {}
    for volume in volumes:
        name = volume.volume_id or volume.key
        totals[name] = totals.get(name, 0) + count(volume)
    return totals


def _gauge(name: str, text: str, label: str, values: Mapping[str, int]) -> GaugeMetricFamily:
    family = GaugeMetricFamily(name, text, labels=(label,))
    for key, value in values.items():
        family.add_metric((key,), value)
    return family
