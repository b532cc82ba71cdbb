"""``python -m lab.suite [--boots N] FOLDER [PYTEST...]``: a folder of tests, in several boots.

``--beside COMMAND`` (shell words; several are allowed): runs on this machine meanwhile, one
after the other, in the place of one of the boots until they have ended. Their output passes as
it comes, and what boots said follows.

Every test file runs in one boot, in files' order; a boot's kernel has the tests of its own files
alone behind it. As many boots run at once as there are processors, each with one of its own: a
guest with two waits for the one of them that this machine has just stopped, and takes nearly
twice as long. What each says is shown as a whole once it has ended. When a guest's kernel
crashes, which is never what a test asks for, its console is shown and its files run once more
in a fresh boot; a second crash fails the suite. Nothing else is repeated.
"""

from __future__ import annotations

import argparse
import json
import os
import shlex
import subprocess
import sys
import tempfile
import threading
from collections.abc import Mapping, Sequence
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path

from lab.errors import GuestDied, TimeIsUp
from lab.vm import die_with_parent

_SHOWING = threading.Lock()
_BYTES_A_SECOND = 180  # a test file's text for a second of its running
_TEST_S = 600  # a test that has not ended by then never will, however busy the machine is
_COMPILING_S = 300
_NO_TESTS = 5  # pytest's exit status when a selection leaves nothing to run


def main() -> int:
    """Run the boots one after the other; return the first failure's exit status, or 0."""
    parser = argparse.ArgumentParser(prog="python -m lab.suite")
    parser.add_argument("--boots", type=int, default=1, metavar="N")
    parser.add_argument("--at-once", type=int, default=0, metavar="N")
    parser.add_argument("--time-limit", type=float, default=1800.0, metavar="S")
    parser.add_argument("--beside", action="append", default=[], metavar="COMMAND")
    parser.add_argument("folder", type=Path)
    options, words = parser.parse_known_args()
    files = sorted(options.folder.glob("test_*.py"))
    if os.environ.get("LUNPORT_LAB") == "here":
        options.boots = 1  # one machine, whose kernel is not ours to start anew
    parts = divided(files, options.boots, _seconds(options.folder))
    at_once = min(len(parts), options.at_once or os.cpu_count() or 1)
    _compile(files)
    machine = ["--time-limit", f"{options.time_limit:g}"]
    machine += ["--processors", "1"] if at_once > 1 else []
    with ThreadPoolExecutor(at_once) as pool:
        beside = pool.submit(_run_beside, options.beside)
        boots = pool.map(lambda part: _run(part, words, machine, options.time_limit), parts)
        statuses = [*beside.result(), *boots]
    failed = [status for status in statuses if status not in (0, _NO_TESTS)]
    if failed:
        return failed[0]
    return 0 if 0 in statuses else _NO_TESTS


def divided(
    files: Sequence[Path], count: int, seconds: Mapping[str, float] | None = None
) -> list[list[Path]]:
    """Divide files among boots so that each has about as much to do; the longest come first.

    ``seconds``: what a file takes, by its name; of another one its length is the measure.
    """

    def weight(file: Path) -> float:
        return (seconds or {}).get(file.name, file.stat().st_size / _BYTES_A_SECOND)

    boots: list[list[Path]] = [[] for _ in range(max(1, min(count, len(files))))]
    sums = [0.0] * len(boots)
    for file in sorted(files, key=lambda file: (-weight(file), file)):
        least = sums.index(min(sums))
        boots[least].append(file)
        sums[least] += weight(file)
    ordered = sorted(zip(sums, boots, strict=True), key=lambda one: -one[0])
    return [sorted(boot) for _, boot in ordered]


def _seconds(folder: Path) -> dict[str, float]:
    """Read what the longest files of a folder took, where that was measured."""
    try:
        return dict(json.loads((folder / "seconds.json").read_text()))
    except FileNotFoundError:
        return {}


def _compile(files: Sequence[Path]) -> None:
    """Leave bytecode of everything here: an emulated machine takes long, and each boot anew.

    What does not compile is for pytest to tell.
    """
    environment = {k: v for k, v in os.environ.items() if k != "PYTHONDONTWRITEBYTECODE"}
    environment["PYTEST_DISABLE_PLUGIN_AUTOLOAD"] = "1"
    collect = ["-m", "pytest", "-q", "-p", "pytest_timeout", "--collect-only"]
    for words in (
        ["-m", "compileall", "-q", "src", "lab", "tests"],
        [*collect, *map(str, files)],  # pytest's own bytecode, with its asserts
    ):
        subprocess.run(
            [sys.executable, *words],
            check=False,
            timeout=_COMPILING_S,
            env=environment,
            stdin=subprocess.DEVNULL,
            stdout=subprocess.DEVNULL,
            stderr=subprocess.DEVNULL,
        )


def _run_beside(commands: Sequence[str]) -> list[int]:
    """Run the commands of this machine, whose output nothing interrupts; return their statuses."""
    with _SHOWING:
        return [
            subprocess.run(shlex.split(command), check=False, stdin=subprocess.DEVNULL).returncode
            for command in commands
        ]


def _run(
    files: Sequence[Path], words: Sequence[str], machine: Sequence[str], limit_s: float
) -> int:
    """Run one boot's files; show what was said, and return the exit status."""
    status, said = _boot(files, words, machine, limit_s)
    if status == GuestDied.exit_status:
        said += b"\nlab.suite: the guest's kernel crashed; its tests run once more\n"
        status, more = _boot(files, words, machine, limit_s)
        said += more
    with _SHOWING:
        sys.stdout.buffer.write(said)
        sys.stdout.flush()
    return status


def _boot(
    files: Sequence[Path], words: Sequence[str], machine: Sequence[str], limit_s: float
) -> tuple[int, bytes]:
    # pytest's plugins are not needed, and an emulated machine takes long to load them
    pytest = [str(Path(sys.executable).with_name("pytest")), "-q", "-p", "pytest_timeout"]
    pytest += ["--durations=10", "--durations-min=8", f"--timeout={_TEST_S}"]
    # whose dump of running threads can crash the interpreter
    pytest += ["-o", "faulthandler_timeout=0"]
    if "-m" not in words:
        pytest += ["-m", "not again"]  # what make stress runs beside its loops
    command = ["env", "PYTEST_DISABLE_PLUGIN_AUTOLOAD=1", *pytest, *map(str, files), *words]
    lab = [sys.executable, "-m", "lab", *machine, "--"]
    with tempfile.TemporaryFile() as said:
        try:
            done = subprocess.run(
                [*lab, *command],
                check=False,
                timeout=limit_s + 120,
                stdin=subprocess.DEVNULL,
                stdout=said,
                stderr=subprocess.STDOUT,
                preexec_fn=die_with_parent,
            )
            status = done.returncode
        except subprocess.TimeoutExpired:
            status = TimeIsUp.exit_status
        said.seek(0)
        return status, said.read()


if __name__ == "__main__":
    sys.exit(main())
