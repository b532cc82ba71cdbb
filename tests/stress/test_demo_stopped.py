"""The whole demo, ended in its second act: by Ctrl-C, and by kills at any moment."""

from __future__ import annotations

import contextlib
import os
import random
import signal
import subprocess
from functools import partial
from pathlib import Path

import pytest

from tests.daemons.test_demo import OK, WHOLE, WHOLE_S, Run, running, wait_until

pytestmark = pytest.mark.needs(
    "root", "tgtd", "nft", "libvirtd", "qemu-system-x86_64", "gcc", "busybox", "iscsiadm"
)

SEED, KILLS = 20263, 5


def says(run: Run, words: str) -> bool:
    """Tell whether it has come so far."""
    return words in run.text()


def test_stopped_while_a_guest_runs(tmp_path: Path) -> None:
    """Ctrl-C between a guest's start and its move ends libvirts, guest and agents."""
    with running(tmp_path, command=WHOLE) as run:
        assert wait_until(lambda: "boots and writes" in run.text(), WHOLE_S), run.text()
        assert run.find_inner() is not None
        assert any("qemu" in one for one in run.inhabitants())
        os.killpg(run.process.pid, signal.SIGINT)
        assert run.finish() == 128 + signal.SIGINT
        assert run.inhabitants() == []
        assert run.text().splitlines()[-1] == "demo: stopped by SIGINT; nothing is left"
        assert list(run.folder.iterdir()) == []


def test_killed_at_any_moment(tmp_path: Path) -> None:
    """Whatever is killed, and when: no process survives, and the next run is clean."""
    moments = random.Random(SEED)
    for number in range(KILLS):
        with running(tmp_path, f"killed-{number}", command=WHOLE) as run:
            assert wait_until(partial(says, run, "Two hosts start"), WHOLE_S)
            assert run.find_inner() is not None
            victim = run.inner if number % 2 and run.inner else run.process.pid
            with contextlib.suppress(subprocess.TimeoutExpired):
                run.process.wait(moments.uniform(0.0, 30.0))
            with contextlib.suppress(ProcessLookupError):
                os.kill(victim, signal.SIGKILL)
            run.finish()
            assert wait_until(run.is_deserted), run.inhabitants()
            assert "Traceback" not in run.text()
    with running(tmp_path, "clean", command=WHOLE) as run:
        assert run.finish(WHOLE_S) == 0, run.text()
        assert OK.fullmatch(run.text().splitlines()[-1])
        assert list(run.folder.iterdir()) == []
