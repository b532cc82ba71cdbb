"""A login while other tools change the database: repeated, and the kernel has the last word."""

from __future__ import annotations

from collections.abc import Iterable, Iterator

import pytest

from lunport.core.errors import CommandError
from lunport.core.iqn import Iqn
from lunport.core.portal import Portal
from lunport.core.target_path import TargetPath
from lunport.host import iscsiadm
from lunport.host.clock import Deadline
from lunport.host.iscsiadm import LoginAnswer, login
from lunport.host.runner import Completed

PATH = TargetPath(Portal("10.0.1.2"), Iqn("iqn.2026-11.io.lunport.test:a"), 1)
DISTURBED = 6
EXISTS = 15


class Runs:
    """Statuses of the runs to come, and how many there were."""

    def __init__(self, statuses: Iterable[int]) -> None:
        self.statuses: Iterator[int] = iter(statuses)
        self.count = 0

    def __call__(self, argv: object, deadline: object) -> Completed:
        self.count += 1
        return Completed(next(self.statuses), "", "iscsiadm: it said this\n", 0.1)


def log_in(
    monkeypatch: pytest.MonkeyPatch,
    statuses: Iterable[int],
    there: Iterable[bool] = (),
    budget_s: float = 5.0,
) -> tuple[LoginAnswer, int]:
    """Log in with such runs; ``there``: what the kernel says when it is asked."""
    runs, seen = Runs(statuses), iter(there)
    monkeypatch.setattr(iscsiadm, "_run", runs)
    monkeypatch.setattr(iscsiadm, "remove_stale_lock", lambda: None)
    deadline = Deadline.after(budget_s)
    answer = login(
        PATH, tpgt=1, iface="default", is_there=lambda: next(seen, False), deadline=deadline
    )
    return answer, runs.count


def test_an_undisturbed_login_asks_nobody(monkeypatch: pytest.MonkeyPatch) -> None:
    """Done is done, and a session that was there is somebody's."""
    assert log_in(monkeypatch, [0]) == (LoginAnswer.LOGGED_IN, 1)
    assert log_in(monkeypatch, [EXISTS]) == (LoginAnswer.ALREADY, 1)


def test_a_disturbed_login_is_repeated_until_there_is_a_session(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    """The status hides whether it logged in: the kernel says so, or the next run does."""
    assert log_in(monkeypatch, [DISTURBED, 0]) == (LoginAnswer.LOGGED_IN, 2)
    assert log_in(monkeypatch, [DISTURBED, EXISTS]) == (LoginAnswer.LOGGED_IN, 2)
    assert log_in(monkeypatch, [DISTURBED], there=[True]) == (LoginAnswer.LOGGED_IN, 1)
    runs = [DISTURBED] * 3
    assert log_in(monkeypatch, runs, there=[False, False, True]) == (LoginAnswer.LOGGED_IN, 3)


def test_a_login_that_is_always_disturbed_ends(monkeypatch: pytest.MonkeyPatch) -> None:
    """By a count, or with its time: the last run's error, when there is no session."""
    with pytest.raises(CommandError, match="it said this"):
        log_in(monkeypatch, [DISTURBED] * 100)
    runs = Runs([DISTURBED] * 100)
    monkeypatch.setattr(iscsiadm, "_run", runs)
    with pytest.raises(CommandError):
        login(PATH, tpgt=1, iface="default", is_there=lambda: False, deadline=Deadline.after(0))
    assert runs.count == 1
