"""What the measurement of moves makes of its samples."""

from __future__ import annotations

from bench.migrate_report import judge, table
from bench.migrate_sides import OURS, PLAIN, Sample


def sample(who: str, total_s: float, downtime_ms: int, **more: object) -> Sample:
    """One move whose call took a second."""
    given = {"volumes": 1, "call_s": 1.0, "stopped_ms": 50.0, **more}
    return Sample(who=who, total_s=total_s, downtime_ms=downtime_ms, **given)  # type: ignore[arg-type]


def verdicts(*samples: Sample) -> list[str]:
    """Judge, in short."""
    return [one.verdict for one in judge(samples)]


def test_medians_are_judged() -> None:
    """The downtime by that of libvirt alone, and what is around the call, each by its median."""
    plain = [sample(PLAIN, 1.0, each) for each in (50, 100, 900)]
    ours = [sample(OURS, 2.0, each) for each in (20, 149, 5000)]
    assert verdicts(*plain, *ours) == ["PASS", "PASS", "not measured", "PASS"]
    slow = [sample(OURS, 2.6, 151)]
    assert verdicts(*plain, *slow) == ["FAIL", "FAIL", "not measured", "PASS"]
    assert verdicts(sample(OURS, 4.1, 1, volumes=8))[2] == "FAIL"


def test_anything_of_ours_in_between_fails() -> None:
    """One call between a guest's stop and its start is one too many; looks are only counted."""
    found = sample(OURS, 1.5, 50, between=("service.moving",), looks=1)
    assert verdicts(found)[-1] == "FAIL"
    assert "service.moving" in str(found)
    assert "| Lunport | 1 | 1 | 1.00 | 1.00 | 50 | 50 | 0.50 | 0.50 | 1 | 1 |" in table([found])


def test_steps_are_shown_by_the_number_of_volumes() -> None:
    """Each step with its median, one column for each number."""
    one = sample(OURS, 1.5, 50, steps={"noted": 0.1, "called": 1.2})
    eight = sample(OURS, 2.5, 50, volumes=8, steps={"noted": 0.3})
    text = table([one, eight])
    assert "| noted | 0.10 | 0.30 |" in text
    assert "| called | 1.20 |  |" in text
