"""Guests with disks of each kind between two hosts: three moves, with portals dying in between."""

from __future__ import annotations

import subprocess
import sys
from pathlib import Path

import pytest

pytestmark = pytest.mark.needs(
    "root", "libvirtd", "tgtd", "qemu-system-x86_64", "gcc", "unshare", "nft", "kernel:loop"
)

ROOT = Path(__file__).parents[2]


def test_each_kind_goes_to_and_fro(tmp_path: Path) -> None:
    """Disks by QEMU's initiator and of the kernel's kind, with one target for both hosts.

    Each time the portal is chosen anew that works for whoever comes. Nothing is lost, and the
    host that was left has nothing.
    """
    played = [sys.executable, "-m", "tests.daemons.moving_kinds_scenario"]
    ended = subprocess.run(
        ["unshare", "--net", *played, str(tmp_path), "target_per_volume", "3"],
        cwd=ROOT,
        capture_output=True,
        text=True,
        check=False,
        timeout=170,
    )
    assert ended.returncode == 0, ended.stderr
