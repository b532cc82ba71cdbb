"""What is connected again after a reboot; each test boots machines of its own."""

from __future__ import annotations

import os
import subprocess
import sys
from pathlib import Path

import pytest

_PLAY = Path(__file__).with_name("reboot_play.py")
_ROOT = Path(__file__).resolve().parents[2]
_LIMIT_S = 400


def boot(*act: str, out: Path | None = None) -> None:
    """Play an act in a machine of its own."""
    lab = [sys.executable, "-m", "lab", "--time-limit", str(_LIMIT_S)]
    lab += ["--out", str(out)] if out is not None else []
    play = ["env", f"PYTHONPATH={_ROOT}", sys.executable, str(_PLAY), *act]
    done = subprocess.run(
        [*lab, "--", *play],
        cwd=_ROOT,
        env=os.environ | {"LUNPORT_LAB": ""},
        capture_output=True,
        text=True,
        timeout=_LIMIT_S + 60,
        check=False,
    )
    assert done.returncode == 0, done.stdout[-6000:] + done.stderr[-6000:]


@pytest.mark.timeout(1000)
def test_the_agent_brings_back_exactly_what_was_connected(tmp_path: Path) -> None:
    """After a power cut the map, with all its paths, and the single path are there again.

    What had been disconnected is not; credentials are known; nothing is left at the end.
    """
    boot("before", out=tmp_path)
    boot("after", str(tmp_path))
