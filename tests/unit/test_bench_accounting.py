"""The kernel's records of processes as the benches read them, and what is made of such figures."""

from __future__ import annotations

import struct
from pathlib import Path

from bench.exports_lab import judge, table
from bench.process_accounting import Accounting


def record(parent: int, ticks: float, version: int = 3) -> bytes:
    """Write what the kernel writes of an ended program (struct acct_v3)."""
    head = (0, version, 0, 0, 0, 0, 4711, parent, 1_700_000_000, ticks)
    return struct.pack("<BBHIIIIIIf", *head) + bytes(16) + b"lvcreate".ljust(16, b"\0")


def test_the_programs_of_one_process(tmp_path: Path) -> None:
    """Only ended children count; a record that is being written does not yet."""
    file = tmp_path / "accounts"
    file.write_bytes(record(1, 150) + record(2, 900) + record(1, 50) + record(1, 50)[:40])
    assert len(record(1, 1)) == 64
    assert Accounting(file).seconds_of_children(1) == 2.0


def test_our_share_is_judged_alone() -> None:
    """LVM may take longer among many volumes, and a busy host all; the service may not."""
    costs = {"fewest": (0.1, 1.0, 2.0, 0.005), "most": (0.28, 9.0, 11.0, 0.01)}
    keys = ("service_s", "lvm_s", "whole_s", "calibration_s")
    sample = {name: dict(zip(keys, cost, strict=True)) for name, cost in costs.items()}
    sample |= {"policy": "any", "step": "create"}  # type: ignore[dict-item]
    (demand,) = judge([sample])
    assert not demand.is_missed
    assert str(demand).startswith("PASS any, create: most to fewest: 1.40x")
    row = "| any | create | 100 | 280 | 1.40 | 1000 | 9000 | 2000 | 11000 | 5 | 10 |"
    assert table([sample]).splitlines()[-1] == row
