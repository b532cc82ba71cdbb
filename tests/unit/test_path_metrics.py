"""The metrics of paths: what is wanted, what is there, what changed, and how few series."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import replace

import pytest
from prometheus_client import CollectorRegistry, Gauge
from prometheus_client.parser import text_string_to_metric_families

from lunport.agent.path_metrics import AttachPhase, PathMetrics
from lunport.core.change import Change
from lunport.core.errors import HostLacks, LunportError
from lunport.core.path_status import PathState, VolumePaths
from lunport.core.scsi_address import ScsiAddress
from lunport.initiator.connected_volume import ConnectedVolume
from tests.unit.test_path_view import ALONE, LIVE, LOST, MAPPED

NAME = MAPPED.volume_id
Samples = dict[tuple[str, tuple[tuple[str, str], ...]], float]


CONNECTED = ConnectedVolume(
    path="/dev/dm-7",
    wwid=None,
    size_bytes=1,
    used=LIVE.path,
    unit=ScsiAddress(2, 0, 0, 1),
    unused=(),
    change=Change.CHANGED,
    choice_s=0.2,
    elapsed_s=1.5,
)


class Host:
    """What is seen at the next look."""

    def __init__(self, *volumes: VolumePaths) -> None:
        self.volumes: Sequence[VolumePaths] = volumes
        self.failure: LunportError | None = None
        self.now = 1_790_000_000.5
        self.looks = 0

    def look(self) -> Sequence[VolumePaths]:
        """Look, or fail."""
        self.looks += 1
        if self.failure is not None:
            raise self.failure
        return self.volumes

    def metrics(self, registry: CollectorRegistry | None = None) -> PathMetrics:
        """Make the metrics."""
        return PathMetrics(self.look, registry, now=lambda: self.now)


def samples(metrics: PathMetrics) -> Samples:
    """Read the page as Prometheus does; no series may be there twice."""
    found: Samples = {}
    for family in text_string_to_metric_families(metrics.render().decode()):
        for sample in family.samples:
            key = (sample.name, tuple(sorted(sample.labels.items())))
            assert key not in found
            found[key] = sample.value
    return found


def of(found: Samples, name: str) -> dict[tuple[str, ...], float]:
    """Pick one metric's values by the values of its labels."""
    return {
        tuple(value for _, value in labels): number
        for (key, labels), number in found.items()
        if key == name
    }


def test_what_is_wanted_and_what_is_there() -> None:
    """Each volume has both counts, by its id or else its key, and each portal is up or not."""
    host = Host(MAPPED, ALONE)
    found = samples(host.metrics())
    assert of(found, "lunport_paths_wanted") == {(NAME,): 2, ("paths-0123",): 1}
    assert of(found, "lunport_paths_live") == {(NAME,): 1, ("paths-0123",): 0}
    assert of(found, "lunport_portal_up") == {
        ("10.0.1.2:3260",): 1,
        ("10.0.2.2:3260",): 0,
        ("[fd00:2::2]:3260",): 0,
        ("10.0.3.2:3260",): 1,
    }
    assert of(found, "lunport_paths_seen_timestamp_seconds") == {(): host.now}


def test_a_volume_without_any_device_still_has_its_series() -> None:
    """When nothing of a volume is left, what is wanted is still told; after a disconnect not."""
    gone = replace(MAPPED, device=None, map_name=None, wwid=None, paths=(LOST,))
    host = Host(gone)
    metrics = host.metrics()
    found = samples(metrics)
    assert of(found, "lunport_paths_wanted") == {(NAME,): 2}
    assert of(found, "lunport_paths_live") == {(NAME,): 0}
    host.volumes = ()
    found = samples(metrics)
    assert of(found, "lunport_paths_wanted") == of(found, "lunport_portal_up") == {}


def test_changes_are_counted_once() -> None:
    """Each path that goes from one state to another counts; a path that is new does not."""
    host = Host(MAPPED)
    metrics = host.metrics()
    assert of(samples(metrics), "lunport_path_transitions_total") == {}
    back = replace(MAPPED, paths=(LIVE, replace(LOST, state=PathState.LIVE, why=None)))
    for volumes in ((back,), (back,), (MAPPED,), (), (MAPPED,), (back,)):
        metrics.observe(volumes)
    host.volumes = (back,)
    counts = {("missing", "live"): 2, ("live", "missing"): 1}
    assert of(samples(metrics), "lunport_path_transitions_total") == counts
    assert of(samples(metrics), "lunport_path_transitions_total") == counts


def test_a_look_that_fails_shows_the_last_one() -> None:
    """When the host can't be looked at the last look is shown, with its moment."""
    host = Host(MAPPED)
    metrics = host.metrics()
    before = samples(metrics)
    host.now += 60
    host.failure = HostLacks("Cannot read", "it is damaged", "mend it")
    assert samples(metrics) == before
    host.failure = None
    assert of(samples(metrics), "lunport_paths_seen_timestamp_seconds") == {(): host.now}


def test_attaches_are_timed_by_phase() -> None:
    """A connect's choice, disk and whole are observed; over one path it is complete with them."""
    metrics = Host().metrics()
    metrics.connected(CONNECTED)
    metrics.took(AttachPhase.COMPLETE, 2.5)
    metrics.took(AttachPhase.COMPLETE, -1.0)
    found = samples(metrics)
    assert of(found, "lunport_attach_seconds_count") == {
        ("choice",): 1,
        ("disk",): 1,
        ("all",): 1,
        ("complete",): 3,
    }
    sums = of(found, "lunport_attach_seconds_sum")
    assert sums["disk",] == pytest.approx(1.3)
    assert sums["complete",] == 4.0
    buckets = of(found, "lunport_attach_seconds_bucket")
    assert (buckets["1.0", "all"], buckets["2.0", "all"]) == (0, 1)


def test_a_map_is_complete_once_all_its_paths_are_live() -> None:
    """The time is from the connect's start until a look finds all paths, and counted once."""
    one_of_two = replace(MAPPED, paths=(LIVE, LOST))
    host = Host(one_of_two)
    metrics = host.metrics()
    metrics.connected(replace(CONNECTED, wwid=MAPPED.wwid, map_name="dm-7", paths=one_of_two.paths))
    found = of(samples(metrics), "lunport_attach_seconds_count")
    assert (found["all",], found["complete",]) == (1, 0)
    host.now += 3.0
    host.volumes = (replace(MAPPED, paths=(LIVE, replace(LIVE, path=LOST.path))),)
    samples(metrics)
    page = samples(metrics)
    assert of(page, "lunport_attach_seconds_count")["complete",] == 1
    assert of(page, "lunport_attach_seconds_sum")["complete",] == pytest.approx(4.5)


def test_what_was_disconnected_before_is_never_complete() -> None:
    """A connect that ended before all its paths were live is forgotten."""
    host = Host()
    metrics = host.metrics()
    metrics.connected(replace(CONNECTED, wwid=MAPPED.wwid, map_name="dm-7", paths=(LIVE, LOST)))
    samples(metrics)
    host.volumes = (replace(MAPPED, paths=(LIVE, replace(LIVE, path=LOST.path))),)
    samples(metrics)
    assert of(samples(metrics), "lunport_attach_seconds_count")["complete",] == 0


def test_stale_devices_are_a_number() -> None:
    """Disks that nobody accounts for are counted; none until somebody has said otherwise."""
    metrics = Host().metrics()
    assert of(samples(metrics), "lunport_stale_devices") == {(): 0}
    metrics.stale_devices(3)
    assert of(samples(metrics), "lunport_stale_devices") == {(): 3}


def test_a_volume_costs_two_series_whatever_its_paths() -> None:
    """Paths, sessions, names and reasons add no series: many volumes stay few numbers."""
    few = len(samples(Host(MAPPED).metrics()))
    volumes = [
        replace(MAPPED, volume_id=f"v{number}", key=f"naa.{number}", paths=MAPPED.paths * 4)
        for number in range(101)
    ]
    assert len(samples(Host(*volumes).metrics())) == few + 2 * 100


def test_one_volume_connected_twice_is_one_series() -> None:
    """Two connections of one volume, which an export changed under may leave, are added up."""
    twice = (MAPPED, replace(MAPPED, key="paths-1"))
    assert of(samples(Host(*twice).metrics()), "lunport_paths_wanted") == {(NAME,): 4}


def test_others_may_share_the_registry() -> None:
    """Metrics of others are on the same page; making ours looks at nothing."""
    registry = CollectorRegistry()
    host = Host(MAPPED)
    metrics = host.metrics(registry)
    assert host.looks == 0
    Gauge("others", "Of somebody else.", registry=registry).set(7)
    assert of(samples(metrics), "others") == {(): 7}


def test_the_page_is_well_formed() -> None:
    """Every metric says what it is and of which kind."""
    text = Host(MAPPED).metrics().render().decode()
    names = {
        "lunport_paths_wanted": "gauge",
        "lunport_paths_live": "gauge",
        "lunport_portal_up": "gauge",
        "lunport_path_transitions_total": "counter",
        "lunport_attach_seconds": "histogram",
        "lunport_stale_devices": "gauge",
    }
    for name, kind in names.items():
        assert f"# HELP {name} " in text
        assert f"# TYPE {name} {kind}\n" in text
