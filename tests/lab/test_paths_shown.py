"""``lunport host paths`` on the real kernel: what it says while a portal goes and comes back."""

from __future__ import annotations

import json
import os
import signal
import subprocess
import sys
import threading
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass, field

import pytest

from lab import faults, services
from lab.san import San
from lab.services import wait_until
from lunport.core.path_report import parse_path_report
from lunport.core.path_status import PathState, VolumePaths, VolumeState
from tests.lab.conftest import LabHost
from tests.lab.multipath_play import BACK_S, Play, several_paths

WAIT_S = 90
COMMAND = [sys.executable, "-c", "from lunport.cli.main import main; main()", "host", "paths"]


@pytest.fixture(scope="module")
def multipathd(lab_host: LabHost) -> Iterator[services.Multipathd]:
    """Have multipathd run as Debian configures it."""
    assert lab_host.initiator
    with services.multipathd(find_multipaths="strict") as running:
        yield running


@pytest.fixture
def play(san: San, lab_host: LabHost, multipathd: object) -> Iterator[Play]:
    """A volume behind four portals."""
    assert multipathd
    with several_paths(san, lab_host) as made:
        yield made


def environment(**more: str) -> dict[str, str]:
    """Return what a command of ours needs."""
    return {**os.environ, "PYTHONPATH": os.pathsep.join(sys.path), **more}


def shown(*words: str, **more: str) -> tuple[int, str]:
    """Run the command once; return its exit status and what it said."""
    done = subprocess.run(
        [*COMMAND, *words],
        capture_output=True,
        text=True,
        timeout=WAIT_S,
        check=False,
        env=environment(**more),
    )
    assert done.stderr == ""
    return done.returncode, done.stdout


@dataclass
class Watch:
    """A watch that goes on, and what it has told."""

    process: subprocess.Popen[str]
    told: list[VolumePaths | None] = field(default_factory=list)

    def read(self) -> None:
        """Read what it tells until it ends."""
        assert self.process.stdout is not None
        for line in self.process.stdout:
            volume = json.loads(line)["volume"]
            self.told.append(None if volume is None else parse_path_report(volume))

    def await_last(self, wanted: Callable[[VolumePaths], bool], what: str) -> VolumePaths:
        """Wait until the last that was told is as wanted."""

        def is_told() -> bool:
            last = self.told[-1] if self.told else None
            return last is not None and wanted(last)

        wait_until(is_told, what, BACK_S)
        last = self.told[-1]
        assert last is not None
        return last


@contextmanager
def watching() -> Iterator[Watch]:
    """Watch all the while, and end it with Ctrl-C."""
    process = subprocess.Popen(
        [*COMMAND, "--watch", "--interval", "0.2", "-o", "json"],
        stdout=subprocess.PIPE,
        stderr=subprocess.PIPE,
        text=True,
        env=environment(),
    )
    watch = Watch(process)
    reader = threading.Thread(target=watch.read)
    reader.start()
    try:
        yield watch
        process.send_signal(signal.SIGINT)
        assert process.wait(WAIT_S) == 130
    finally:
        process.kill()
        process.wait(WAIT_S)
        reader.join()
        for stream in (process.stdout, process.stderr):
            if stream is not None:
                stream.close()


@pytest.mark.again
def test_a_portal_goes_and_comes_back(play: Play) -> None:
    """All live is 0; a path that is lost is shown with its reason, by 8 and by the watch."""
    volume = play.connect_all()
    assert volume.map_name is not None
    status, said = shown()
    assert (status, said.count("  live  ")) == (0, 4)
    assert "4/4" in said
    assert volume.map_name in said.splitlines()[1]
    lost = play.portals[2]
    with watching() as watch:
        watch.await_last(lambda last: last.state is VolumeState.OK, "the first look")
        with faults.portal_drops(play.san, lost):
            degraded = watch.await_last(
                lambda last: last.state is VolumeState.DEGRADED, "the path to be lost"
            )
            (path,) = [one for one in degraded.paths if one.state is not PathState.LIVE]
            assert path.path.portal == lost
            assert path.why
            status, said = shown(volume.path)
            assert status == 8
            assert "DEGRADED" in said
            assert shown(str(play.info.wwid), PYTHONIOENCODING="ascii")[1].isascii()
        play.heal(volume.map_name)
        watch.await_last(lambda last: last.state is VolumeState.OK, "all paths to be back")
        assert shown()[0] == 0
        play.disconnect()
        wait_until(lambda: watch.told[-1] is None, "the volume to be gone", WAIT_S)
    assert shown() == (0, "Nothing is connected.\n")
