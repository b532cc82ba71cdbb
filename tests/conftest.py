"""Marks tests by their folder, and turns skips into failures where everything is required.

``@pytest.mark.needs("tgtd", "root", "kernel:xfs")`` skips a test where something is absent;
``LUNPORT_REQUIRE`` (see :mod:`tests.requirements`) turns that, and any other skip, into a
failure, so that a green run means that every proof was run. What the caller's environment
says to terminals, clients and the service is taken away first: a test sets what it means.
"""

from __future__ import annotations

import os
import signal
from collections.abc import Generator
from pathlib import Path

import pytest

from tests.requirements import lacking, may_skip, required

# Tests that several files take over; their assertions are to say what they saw as well.
pytest.register_assert_rewrite("tests.contract.helper_suite")

_TESTS = Path(__file__).parent
_REQUIRE = required(os.environ.get("LUNPORT_REQUIRE", ""))
_FOLDERS = ("unit", "contract", "recorded", "daemons", "lab", "stress")
_CALLERS_OWN = (
    "OS_", "LUNPORT_",
    "HTTP_PROXY", "HTTPS_PROXY", "ALL_PROXY",
    "NO_COLOR", "FORCE_COLOR", "TTY_", "COLUMNS", "LINES",
    "PYTHONWARNINGS", "NOTIFY_SOCKET",
)  # fmt: skip
_ABSENT = pytest.StashKey[tuple[str, ...]]()


def pytest_sessionstart() -> None:
    """Take the caller's environment away, as far as what we test would heed it."""
    for name in list(os.environ):
        if name.upper().startswith(_CALLERS_OWN):
            del os.environ[name]
    os.environ["TERM"] = "xterm"
    # A run in the background, or under nohup, comes with these ignored, and children inherit it.
    signal.signal(signal.SIGHUP, signal.SIG_DFL)
    signal.signal(signal.SIGINT, signal.default_int_handler)


def pytest_collection_modifyitems(items: list[pytest.Item]) -> None:
    """Mark each test with the name of its folder."""
    for item in items:
        folder = item.path.relative_to(_TESTS).parts[0] if item.path.is_relative_to(_TESTS) else ""
        if folder in _FOLDERS:
            item.add_marker(folder)


@pytest.hookimpl(tryfirst=True)
def pytest_runtest_setup(item: pytest.Item) -> None:
    """Skip a test whose needs are not met, before any of its fixtures starts."""
    needs = [need for mark in item.iter_markers("needs") for need in mark.args]
    absent = lacking(needs)
    item.stash[_ABSENT] = absent
    if absent:
        pytest.skip(f"needs {', '.join(absent)}")


@pytest.hookimpl(wrapper=True)
def pytest_runtest_makereport(
    item: pytest.Item,
) -> Generator[None, pytest.TestReport, pytest.TestReport]:
    """Turn the skip of a required test into a failure."""
    report = yield
    if report.skipped and not hasattr(report, "wasxfail"):
        _refuse(report, item.stash.get(_ABSENT, ()))
    return report


@pytest.hookimpl(wrapper=True)
def pytest_make_collect_report() -> Generator[None, pytest.CollectReport, pytest.CollectReport]:
    """Turn the skip of a whole module into a failure."""
    report = yield
    if report.skipped:
        _refuse(report, ())
    return report


def _refuse(report: pytest.TestReport | pytest.CollectReport, absent: tuple[str, ...]) -> None:
    if may_skip(absent, _REQUIRE):
        return
    reason = report.longrepr[2] if isinstance(report.longrepr, tuple) else str(report.longrepr)
    report.outcome = "failed"
    report.longrepr = (
        f"{reason}\n(a skip is a failure: LUNPORT_REQUIRE={','.join(sorted(_REQUIRE))})"
    )
