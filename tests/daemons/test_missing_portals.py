"""Portals of tgtd whose addresses are not there yet, in a network of the test's own."""

from __future__ import annotations

import subprocess
import sys
from pathlib import Path

import pytest

pytestmark = pytest.mark.needs("root", "tgtd", "qemu-io", "unshare", "ip")

ROOT = Path(__file__).parents[2]


def test_missing_portals_come_up_later_beside_live_sessions(tmp_path: Path) -> None:
    """Others serve meanwhile; a later start binds what has come, and no session notices."""
    alone = ["unshare", "--net", "--pid", "--fork", "--kill-child", "--mount-proc"]
    played = [sys.executable, "-m", "tests.daemons.missing_portals_scenario", str(tmp_path)]
    ended = subprocess.run(
        [*alone, *played], cwd=ROOT, capture_output=True, text=True, check=False, timeout=120
    )
    assert ended.returncode == 0, ended.stderr
