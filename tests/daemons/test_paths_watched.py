"""``lunport host paths`` as a process of its own: the exit status, and how Ctrl-C ends it."""

from __future__ import annotations

import json
import os
import select
import signal
import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path

import pytest

from lunport.core.host_connection import HostConnection, Phase
from lunport.core.iqn import Iqn
from lunport.core.path_report import parse_path_report
from lunport.core.path_status import PathState
from lunport.core.portal import Portal
from lunport.core.target_path import TargetPath
from lunport.core.wwid import Wwid
from lunport.host.boot_id import read_boot_id
from lunport.host.host_root import ENVIRONMENT_VARIABLE, state_directory
from lunport.initiator.journal import Journal

WAIT_S = 30
WWID = Wwid("naa.6001405000000001000000000000beef")
PATH = TargetPath(Portal("192.0.2.1"), Iqn("iqn.2026-11.io.lunport.test:watched"), 1)
COMMAND = [sys.executable, "-c", "from lunport.cli.main import main; main()", "host", "paths"]


@pytest.fixture
def environment(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> dict[str, str]:
    """A host whose journal has a volume that the kernel knows nothing of."""
    monkeypatch.setenv(ENVIRONMENT_VARIABLE, str(tmp_path))
    Journal(state_directory()).write(
        HostConnection(
            key=WWID,
            phase=Phase.CONNECTED,
            paths=(PATH,),
            used=PATH,
            iface="default",
            addressing_mode=None,
            wwid=WWID,
            seen_wwid=WWID,
            volume_id="volume-1",
            holders=(),
            unit=None,
            disk_name=None,
            size_bytes=None,
            boot_id=read_boot_id(),
            since=1_790_000_000.0,
        )
    )
    return {**os.environ, "PYTHONPATH": os.pathsep.join(sys.path)}


@pytest.fixture
def watching(environment: dict[str, str]) -> Iterator[subprocess.Popen[str]]:
    """A watch that goes on, its output a pipe."""
    process = subprocess.Popen(
        [*COMMAND, "--watch", "--interval", "0.1", "-o", "json"],
        stdout=subprocess.PIPE,
        stderr=subprocess.PIPE,
        text=True,
        env=environment,
    )
    yield process
    process.kill()
    process.communicate(timeout=WAIT_S)


def first_line(process: subprocess.Popen[str]) -> str:
    """Read a line, within a limit."""
    assert process.stdout is not None
    ready, _, _ = select.select([process.stdout], [], [], WAIT_S)
    return process.stdout.readline() if ready else "nothing"


def test_a_volume_without_a_path_is_down(environment: dict[str, str]) -> None:
    """What the journal wants and the kernel lacks is shown as missing, and the status is 8."""
    done = subprocess.run(
        COMMAND, capture_output=True, text=True, timeout=WAIT_S, env=environment, check=False
    )
    assert (done.returncode, done.stderr) == (8, "")
    assert "0/1" in done.stdout
    assert "DOWN" in done.stdout
    assert "192.0.2.1:3260" in done.stdout


def test_ctrl_c_ends_a_watch_with_130(watching: subprocess.Popen[str]) -> None:
    """A watch shows what there is at once, stays, and ends with 130 when it is interrupted."""
    shown = json.loads(first_line(watching))
    (path,) = parse_path_report(shown["volume"]).paths
    assert (path.path, path.state) == (PATH, PathState.MISSING)
    assert watching.poll() is None
    watching.send_signal(signal.SIGINT)
    rest, complaint = watching.communicate(timeout=WAIT_S)
    assert (watching.returncode, rest, complaint.strip()) == (130, "", "")


def test_a_reader_that_goes_ends_a_watch(
    watching: subprocess.Popen[str], environment: dict[str, str]
) -> None:
    """When nobody reads any more the watch ends by itself at the next change, without a trace."""
    first_line(watching)
    assert watching.stdout is not None
    watching.stdout.close()
    Journal(Path(environment[ENVIRONMENT_VARIABLE]) / "state").remove(WWID)
    assert watching.stderr is not None
    assert "Traceback" not in watching.stderr.read()
    assert watching.wait(WAIT_S) == 1
