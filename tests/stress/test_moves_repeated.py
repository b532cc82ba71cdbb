"""Twenty moves of a guest with disks of each kind, by either policy, with portals dying."""

from __future__ import annotations

import subprocess
import sys
from pathlib import Path

import pytest

pytestmark = pytest.mark.needs(
    "root", "libvirtd", "tgtd", "qemu-system-x86_64", "gcc", "unshare", "nft", "kernel:loop"
)

ROOT = Path(__file__).parents[2]
MOVES = 20


@pytest.mark.parametrize("policy", ["target_per_volume", "target_per_host"])
def test_each_kind_moves_twenty_times(tmp_path: Path, policy: str) -> None:
    """After each move the logs go on whole, and the host that was left has nothing."""
    played = [sys.executable, "-m", "tests.daemons.moving_kinds_scenario"]
    ended = subprocess.run(
        ["unshare", "--net", *played, str(tmp_path), policy, str(MOVES)],
        cwd=ROOT,
        capture_output=True,
        text=True,
        check=False,
        timeout=1500,
    )
    assert ended.returncode == 0, ended.stderr
