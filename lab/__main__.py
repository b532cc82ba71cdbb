"""``python -m lab [--time-limit S] [--out DIR] [--here] COMMAND...``: a command in the lab."""

from __future__ import annotations

import argparse
import os
import signal
import subprocess
import sys
import tempfile
from pathlib import Path

from lab import services, vm
from lab.errors import LabCannot, LabError, TimeIsUp


def main() -> int:
    """Run the command and return its exit status; 124, 125 and 126 are the lab's own."""
    options = _options()
    signal.signal(signal.SIGTERM, lambda *_: sys.exit(143))
    if options.here:
        return _here(options)
    machine = vm.Machine(
        time_limit_s=options.time_limit,
        memory_mib=options.memory,
        processors=options.processors,
    )
    try:
        return vm.run(vm.Run(options.command, out=options.out), machine)
    except LabError as error:
        print(f"lab: {error}", file=sys.stderr)
        return error.exit_status
    except KeyboardInterrupt:
        return 130


def _here(options: argparse.Namespace) -> int:
    missing = services.what_is_missing()
    if missing:
        print(f"lab: this machine cannot do it itself: {'; '.join(missing)}", file=sys.stderr)
        return LabCannot.exit_status
    with tempfile.TemporaryDirectory(prefix="lunport-lab-") as out:
        environment = os.environ | {"LAB_HERE": "machine", "LAB_OUT": str(options.out or out)}
        try:
            done = subprocess.run(
                options.command, env=environment, timeout=options.time_limit, check=False
            )
        except subprocess.TimeoutExpired:
            print(f"lab: the time limit of {options.time_limit:g} s is over", file=sys.stderr)
            return TimeIsUp.exit_status
        except FileNotFoundError as error:
            print(f"lab: {error.filename}: no such program", file=sys.stderr)
            return 127
    return done.returncode if done.returncode >= 0 else 128 - done.returncode


def _options() -> argparse.Namespace:
    parser = argparse.ArgumentParser(
        prog="python -m lab",
        description="Run a command as root in a throw-away machine that has this one's files.",
        epilog="Exit status: the command's own. 124: time limit; 125: the guest died; "
        "126: something that the lab needs is missing.",
    )
    parser.add_argument("--time-limit", type=float, default=600.0, metavar="S")
    parser.add_argument("--memory", type=int, default=3072, metavar="MIB")
    parser.add_argument("--processors", type=int, default=2, metavar="N")
    parser.add_argument(
        "--out", type=Path, metavar="DIR", help="copy what the command leaves in $LAB_OUT there"
    )
    parser.add_argument(
        "--here",
        action="store_true",
        default=os.environ.get("LUNPORT_LAB") == "here",
        help="no guest: run it on this machine, whose kernel has what is needed",
    )
    parser.add_argument("command", nargs=argparse.REMAINDER)
    options = parser.parse_args()
    if options.command[:1] == ["--"]:
        del options.command[0]
    if not options.command:
        parser.error("a command is missing")
    return options


if __name__ == "__main__":
    sys.exit(main())
